"""Who is trained again, and what follows: finalists, jobs, scores, openings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from las_tune.errors import UserError
from las_tune.las.backbone import Backbone
from las_tune.las.metrics import aupro_by_picture, pixel_metrics
from las_tune.las.scoring import score_features
from las_tune.las.train import TrainData, Training, metrics_of, train_epoch
from las_tune.spec import TrainSpec
from las_tune.tuning.evaluate import Trained, at_threshold, threshold_of
from las_tune.tuning.finalists import (
    BASELINE,
    CURRENT,
    Finalist,
    decide_champion,
    known_hyperparameters,
    make_jobs,
    pick_finalists,
    require_any,
    score_heads,
)
from las_tune.tuning.openings import count_opening
from las_tune.tuning.promote import Scores
from tests.las.conftest import SPEC, tiny_backbone, tiny_data
from tests.parts import make_trial


def test_the_best_but_the_baseline_are_picked_best_first() -> None:
    trials = [
        make_trial(0, [0.99], status="completed"),
        make_trial(1, [0.5, 0.7], status="completed"),
        make_trial(2, [0.8], status="pruned"),
        make_trial(3, [0.9], status="failed"),
        make_trial(4, [], status="pruned"),
        make_trial(5, [0.7], status="completed"),
    ]
    assert [trial.number for trial in pick_finalists(trials, 3)] == [2, 1, 5]
    assert [trial.number for trial in pick_finalists(trials, 1)] == [2]


def test_a_study_needs_a_trial() -> None:
    require_any([make_trial(0, [0.5], status="pruned")])
    with pytest.raises(UserError, match=r"A study needs a trial that did not fail, got out of memory\. see the log"):
        require_any([make_trial(0, [0.5], status="failed", reason="out of memory")])
    with pytest.raises(UserError, match="got none ran"):
        require_any([make_trial(0, [], status="pruned")])


def test_everyone_is_trained_with_every_seed() -> None:
    trial = make_trial(4, [0.5], status="completed")
    jobs = make_jobs([trial], {"alpha": 0.25}, {"alpha": 0.5}, first_seed=7, num_seeds=2)
    assert [(job.name, job.seed) for job in jobs] == [
        (name, seed) for seed in (7, 8) for name in (BASELINE, CURRENT, "trial 4")
    ]
    assert jobs[0].params == {"alpha": 0.25} and jobs[1].params == {"alpha": 0.5} and jobs[2].params == trial.params
    record = jobs[5].record(11)
    assert (record.number, record.finalist, record.seed, record.title) == (11, "trial 4", 8, "trial 4, seed 8")
    assert not record.is_baseline


def test_seeds_wrap_round_at_the_greatest() -> None:
    jobs = make_jobs([], {}, None, first_seed=2**31, num_seeds=2)
    assert [job.seed for job in jobs] == [0, 1]
    assert TrainSpec(seed=make_jobs([], {}, None, 2**31 - 1, 1)[0].seed).seed == 2**31 - 1


@pytest.mark.parametrize(
    ("params", "known"),
    [(None, None), (TrainSpec().hyperparameters(), None), ({"alpha": 0.5, "gone": 1}, {"alpha": 0.5})],
)
def test_an_earlier_champion_that_is_the_baseline_is_no_rival(params: object, known: object) -> None:
    assert known_hyperparameters(params) == known  # type: ignore[arg-type]


def scores(gain: float, seed: int) -> Scores:
    generator = np.random.default_rng(seed)
    labels = np.arange(60) % 2 == 1
    return Scores(labels, labels * (1 + gain) + generator.normal(0, 0.5, (3, 60)))


def test_only_a_gain_beyond_the_noise_makes_a_champion() -> None:
    better = decide_champion({BASELINE: scores(-0.5, 1), "trial 3": scores(1.5, 2)}, "image_auroc", False)
    assert (better.champion, better.promoted) == ("trial 3", True)
    equal = decide_champion({BASELINE: scores(0, 1), "trial 3": scores(0, 2)}, "image_auroc", False)
    assert (equal.champion, equal.promoted) == (BASELINE, False)


@pytest.mark.parametrize(
    ("names", "has_current", "champion", "reason"),
    [
        ([BASELINE], False, BASELINE, "kept the baseline: no other trial was trained"),
        ([BASELINE, CURRENT], True, CURRENT, "kept the old champion: no other trial was trained"),
        ([BASELINE, "trial 3"], True, CURRENT, "kept the old champion: it failed to train again"),
    ],
)
def test_without_a_comparison_nobody_is_displaced(
    names: list[str], has_current: bool, champion: str, reason: str
) -> None:
    gains = {BASELINE: -0.5, CURRENT: 0.0, "trial 3": 1.5}
    decided = decide_champion({name: scores(gains[name], 1) for name in names}, "image_auroc", has_current)
    assert (decided.champion, decided.promoted, decided.reason) == (champion, False, reason)


def test_the_best_seed_is_handed_over_and_the_mean_is_told() -> None:
    records = [make_trial(n, [v], status="completed") for n, v in ((7, 0.5), (8, 0.75), (9, 0.25))]
    one = Finalist("trial 1", records, [])
    assert one.shipped == 1 and one.mean_objective == pytest.approx(0.5)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_backbone()


@pytest.fixture(scope="module")
def data(backbone: Backbone) -> TrainData:
    return tiny_data(backbone)


def test_scores_of_heads_have_the_objective_of_training(backbone: Backbone, data: TrainData) -> None:
    heads = []
    for seed in (1, 2):
        training = Training(SPEC.replace(seed=seed), backbone.channels, torch.device("cpu"))
        train_epoch(training, SPEC, backbone, data)
        heads.append(Trained(training.head.state_dict(), SPEC.hidden_width, SPEC.use_adaptor))
    found = score_heads(backbone, data.validation, heads)
    whole = np.ones((1, 6), np.int64)
    for index, head in enumerate(heads):
        heat = score_features(head.load(backbone, torch.device("cpu")), data.validation.features, SPEC.image_size)
        metrics = metrics_of(heat, data.validation)
        assert found.objective(whole, index, "image_auroc")[0] == pytest.approx(metrics["image_auroc"])
        assert found.objective(whole, index, "pixel_aupro")[0] == pytest.approx(metrics["pixel_aupro"], abs=1e-9)


def test_aupro_by_picture_has_aupro_as_its_mean(data: TrainData) -> None:
    targets = data.validation.targets
    assert targets is not None
    heat = torch.rand(6, SPEC.image_size, SPEC.image_size, generator=torch.Generator().manual_seed(0))
    by_picture = aupro_by_picture(heat, targets)
    assert by_picture.shape == (6,) and not by_picture[:3].any()
    assert float(by_picture[3:].mean()) == pytest.approx(pixel_metrics(heat, targets)[1], abs=1e-12)


def test_metrics_at_the_threshold_by_hand() -> None:
    labels = np.array([True, True, True, False, False])
    found = at_threshold(np.array([0.9, 0.6, 0.5, 0.7, 0.1]), labels, 0.55)
    assert found == {"recall": pytest.approx(2 / 3), "f1": pytest.approx(4 / 6), "false_reject_rate": 0.5}
    assert threshold_of(np.array([0.3, 0.9, 0.1])) == 0.9


def test_every_opening_of_a_sealed_test_is_counted(tmp_path: Path) -> None:
    assert count_opening(tmp_path, "plate", "d1", "one") == 1
    assert count_opening(tmp_path, "plate", "d2", "two") == 1
    assert count_opening(tmp_path, "tubes", "d1", "three") == 1
    assert count_opening(tmp_path, "plate", "d1", "four") == 2
    lines = [json.loads(line) for line in (tmp_path / "test_openings.jsonl").read_text().splitlines()]
    assert [line["study"] for line in lines] == ["one", "two", "three", "four"]
