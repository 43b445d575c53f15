"""Finalists: their choice, their retrainings, and their scores."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import numpy as np
import pytest
import torch

from las_tune.config.objectives import Objective, objective_value
from las_tune.config.study_spec import MAX_TRIALS
from las_tune.config.train_spec import TrainSpec, known_hyperparameters
from las_tune.errors import UserError
from las_tune.las.backbone import Backbone
from las_tune.las.image_metrics import metrics_of, threshold_of
from las_tune.las.metrics import aupro_by_image, pixel_metrics
from las_tune.las.scoring import score_features
from las_tune.las.training import TrainData, Training, train_epoch
from las_tune.selection.evaluation import TrainedHead
from las_tune.selection.finalists import (
    BASELINE,
    REGISTERED_CHAMPION,
    Finalist,
    collect_finalists,
    decide_champion,
    make_retrainings,
    pick_finalists,
    require_successful_trial,
    score_heads,
)
from las_tune.selection.promotion import Scores
from tests.las.conftest import SPEC, tiny_backbone, tiny_data
from tests.parts import make_trial


def test_finalists_are_the_best_trials_without_the_baseline() -> None:
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


def test_study_without_a_successful_trial_is_an_error() -> None:
    require_successful_trial([make_trial(0, [0.5], status="pruned")])
    with pytest.raises(UserError, match=r"All trials failed: out of memory\. Lower --batch-size"):
        require_successful_trial([make_trial(0, [0.5], status="failed", reason="out of memory")])
    with pytest.raises(UserError, match="no trial was started"):
        require_successful_trial([make_trial(0, [], status="pruned")])


def test_finalists_with_equal_objectives_are_ordered_by_tie_breaks() -> None:
    trials = [make_trial(number, [0.7], status="completed") for number in range(5)]
    trials[3].epochs[0]["recall"] = 0.9
    trials[4].epochs[0] |= {"recall": 1.0, "image_auroc": 0.6}
    assert [trial.number for trial in pick_finalists(trials[::-1], 9)] == [3, 1, 2, 4]


def test_every_configuration_is_retrained_with_every_seed() -> None:
    configurations = {BASELINE: {"alpha": 0.25}, REGISTERED_CHAMPION: {"alpha": 0.5}, "trial 4": {"alpha": 0.125}}
    jobs = make_retrainings(configurations, first_seed=7, num_seeds=2)
    assert [(job.number - MAX_TRIALS, job.name, job.seed) for job in jobs] == [
        (0, BASELINE, 7), (1, REGISTERED_CHAMPION, 7), (2, "trial 4", 7),
        (3, BASELINE, 8), (4, REGISTERED_CHAMPION, 8), (5, "trial 4", 8),
    ]  # fmt: skip
    assert all(job.params == configurations[job.name] for job in jobs)
    record = jobs[5].record()
    assert (record.finalist, record.seed, record.title) == ("trial 4", 8, "trial 4, seed 8")
    assert record.params == {"alpha": 0.125} and not record.is_baseline
    record.params["alpha"] = 0.0
    assert configurations["trial 4"] == {"alpha": 0.125}, "records share no dictionaries"


def test_extended_study_keeps_completed_retrainings() -> None:
    jobs = make_retrainings({BASELINE: {"alpha": 0.25}, "trial 4": {"alpha": 0.125}}, first_seed=7, num_seeds=2)
    known = [job.record() for job in jobs]
    for record in known:
        record.status = "completed"
    known[2].status = "failed"
    configurations = {BASELINE: {"alpha": 0.25}, REGISTERED_CHAMPION: {"alpha": 0.125}, "trial 9": {"alpha": 0.5}}
    again = make_retrainings(configurations, first_seed=7, num_seeds=2, known=known)
    assert [(job.number - MAX_TRIALS, job.name, job.seed) for job in again] == [
        (0, BASELINE, 7), (4, REGISTERED_CHAMPION, 7), (5, "trial 9", 7),
        (6, BASELINE, 8), (7, REGISTERED_CHAMPION, 8), (8, "trial 9", 8),
    ]  # fmt: skip


def test_seeds_wrap_around_at_the_maximum() -> None:
    jobs = make_retrainings({BASELINE: {}}, first_seed=2**31, num_seeds=2)
    assert [job.seed for job in jobs] == [0, 1]
    (last,) = make_retrainings({BASELINE: {}}, first_seed=2**31 - 1, num_seeds=1)
    assert TrainSpec(seed=last.seed).seed == 2**31 - 1


@pytest.mark.parametrize(
    ("params", "known"),
    [({"gone": 1}, None), (TrainSpec().hyperparameters(), None), ({"alpha": 0.5, "gone": 1}, {"alpha": 0.5})],
)
def test_registered_champion_equal_to_the_baseline_is_not_retrained(params: dict[str, Any], known: object) -> None:
    assert known_hyperparameters(params) == known


def scores(gain: float, seed: int) -> Scores:
    generator = np.random.default_rng(seed)
    labels = np.arange(60) % 2 == 1
    return Scores(labels, labels * (1 + gain) + generator.normal(0, 0.5, (3, 60)))


def test_only_a_gain_beyond_the_noise_is_promoted() -> None:
    better = decide_champion({BASELINE: scores(-0.5, 1), "trial 3": scores(1.5, 2)}, "image_auroc", False)
    assert (better.champion, better.promoted) == ("trial 3", True)
    equal = decide_champion({BASELINE: scores(0, 1), "trial 3": scores(0, 2)}, "image_auroc", False)
    assert (equal.champion, equal.promoted) == (BASELINE, False)


@pytest.mark.parametrize(
    ("names", "has_registered", "champion", "reason"),
    [
        ([BASELINE], False, BASELINE, "kept the baseline: no other trial was retrained"),
        (
            [BASELINE, REGISTERED_CHAMPION],
            True,
            REGISTERED_CHAMPION,
            "kept the registered champion: no other trial was retrained",
        ),
        ([BASELINE, "trial 3"], True, REGISTERED_CHAMPION, "kept the registered champion: its retraining failed"),
    ],
)
def test_champion_stays_without_a_comparison(
    names: list[str], has_registered: bool, champion: str, reason: str
) -> None:
    gains = {BASELINE: -0.5, REGISTERED_CHAMPION: 0.0, "trial 3": 1.5}
    decided = decide_champion({name: scores(gains[name], 1) for name in names}, "image_auroc", has_registered)
    assert (decided.champion, decided.promoted, decided.reason) == (champion, False, reason)


def test_best_seed_is_delivered_and_the_mean_is_reported() -> None:
    records = [make_trial(n, [v], status="completed") for n, v in ((7, 0.5), (8, 0.75), (9, 0.25))]
    finalist = Finalist("trial 1", records, [])
    assert finalist.delivered_index == 1 and finalist.mean_objective == pytest.approx(0.5)


def test_equal_seeds_are_ordered_by_tie_breaks() -> None:
    records = [make_trial(n, [0.5], status="completed") for n in (7, 8, 9)]
    assert Finalist("trial 1", records, []).delivered_index == 0
    records[2].epochs[0]["worst_defect"] = 0.9
    assert Finalist("trial 1", records, []).delivered_index == 2


def trained(number: int) -> TrainedHead:
    return TrainedHead({"number": number}, 16, True)


def test_failed_finalists_are_left_out() -> None:
    """A finalist keeps its completed seeds, with records and heads in the same order."""
    statuses = {
        (7, BASELINE): "completed", (8, "trial 4"): "failed", (9, "trial 5"): "failed", (10, BASELINE): "failed",
        (11, "trial 4"): "completed", (12, "trial 5"): "completed", (13, "trial 4"): "completed",
    }  # fmt: skip
    records = [make_trial(n, [0.5], finalist=name, status=status) for (n, name), status in statuses.items()]
    found = collect_finalists(records, lambda number: None if number == 12 else trained(number))
    assert {name: [record.number for record in finalist.records] for name, finalist in found.items()} == {
        BASELINE: [7], "trial 4": [11, 13]
    }  # fmt: skip
    for name, finalist in found.items():
        assert finalist.name == name
        assert [head.head["number"] for head in finalist.heads] == [record.number for record in finalist.records]


def test_failed_baseline_is_an_error() -> None:
    records = [
        make_trial(7, [], finalist=BASELINE, status="failed", reason="loss is not finite"),
        make_trial(8, [0.5], finalist="trial 4", status="completed"),
    ]
    with pytest.raises(UserError) as error:
        collect_finalists(records, trained)
    assert str(error.value) == ("The baseline failed with every new seed: loss is not finite. See the log.")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_backbone()


@pytest.fixture(scope="module")
def data(backbone: Backbone) -> TrainData:
    return tiny_data(backbone)


@pytest.mark.parametrize("fpr", [0.01, 0.6])
def test_scores_of_heads_have_the_objectives_of_training(fpr: float, backbone: Backbone, data: TrainData) -> None:
    defects = torch.tensor([0, 0, 0, 1, 2, 2])
    data = dataclasses.replace(data, validation=dataclasses.replace(data.validation, defects=defects))
    heads = []
    for seed in (1, 2):
        training = Training(SPEC.replace(seed=seed), backbone.channels, torch.device("cpu"))
        train_epoch(training, SPEC, backbone, data)
        heads.append(TrainedHead(training.head.state_dict(), SPEC.hidden_width, SPEC.use_adaptor))
    found = score_heads(backbone, data, heads, fpr)
    assert found.defects.tolist() == defects.tolist()
    whole, means = np.ones((1, 6), np.int64), found.means("combined")
    by_head = []
    for index, head in enumerate(heads):
        loaded = head.load(backbone, torch.device("cpu"))
        maps, normal = (
            score_features(loaded, features, SPEC.image_size)
            for features in (data.validation.features, data.calibration)
        )
        metrics = metrics_of(maps, data.validation, threshold_of(normal.amax((1, 2)).numpy(), fpr))
        for objective in get_args(Objective):
            expected = objective_value(objective, metrics)
            assert found.objective(whole, index, objective)[0] == pytest.approx(expected, abs=1e-9), objective
        by_head.append(metrics)
    for name in ("image_auroc", "pixel_aupro", "recall", "worst_defect"):
        assert means[name] == pytest.approx(np.mean([metrics[name] for metrics in by_head]))
    assert means["objective"] == pytest.approx((means["image_auroc"] + means["pixel_aupro"]) / 2)


def test_without_masks_heads_have_no_pixel_scores(backbone: Backbone, data: TrainData) -> None:
    training = Training(SPEC, backbone.channels, torch.device("cpu"))
    heads = [TrainedHead(training.head.state_dict(), SPEC.hidden_width, SPEC.use_adaptor)]
    without = dataclasses.replace(data, validation=dataclasses.replace(data.validation, targets=None))
    found, usual = (score_heads(backbone, variant, heads, 0.01) for variant in (without, data))
    assert found.per_image is None and np.array_equal(found.image, usual.image)
    assert usual.means("image_auroc").keys() - found.means("image_auroc").keys() == {"pixel_aupro"}


def test_aupro_by_image_has_aupro_as_its_mean(data: TrainData) -> None:
    targets = data.validation.targets
    assert targets is not None
    maps = torch.rand(6, SPEC.image_size, SPEC.image_size, generator=torch.Generator().manual_seed(0))
    by_image = aupro_by_image(maps, targets)
    assert by_image.shape == (6,) and not by_image[:3].any()
    assert float(by_image[3:].mean()) == pytest.approx(pixel_metrics(maps, targets)[1], abs=1e-12)
