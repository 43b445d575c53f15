from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from las_tune.config.study_spec import StudySpec
from las_tune.execution import plan as plan_module
from las_tune.execution.cluster import Resources
from las_tune.execution.history import History
from las_tune.execution.plan import Cost, Plan, measure_epoch_s
from las_tune.search.schedulers import expected_epoch_fraction
from tests.parts import SMALL, TRAIN, make_part, make_textures, make_trial, run_command


def make_spec(folder: Path, epochs: int = 9, **settings: object) -> StudySpec:
    defaults = {"trials": 10, "finalists": 2, "seeds": 3, "scheduler": "none"}
    return StudySpec(
        category="part", study="s", train=TRAIN.replace(epochs=epochs), data_root=folder, textures=folder,
        results=folder, **(defaults | settings),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("epochs", "trained"),
    [
        (9, 1 + 2 / 3 + 6 / 9),  # all trials train 1 epoch, a third of them 3, a ninth 9
        (20, 2 + 4 / 3 + 12 / 9 + 2 / 27),  # rungs at 2, 6, 18
        (1, 1),
    ],
)
def test_only_asha_reduces_the_expected_epoch_fraction(tmp_path: Path, epochs: int, trained: float) -> None:
    assert expected_epoch_fraction(make_spec(tmp_path, epochs, scheduler="asha")) == pytest.approx(trained / epochs)
    assert expected_epoch_fraction(make_spec(tmp_path, epochs, scheduler="median")) == 1


def test_plan_matches_hand_calculation(tmp_path: Path) -> None:
    """10 trials and (1 + 2) · 3 retrainings of 9 epochs of 20 s, two at a time: 5 and 5 times 180 s."""
    plan = Plan.of([make_spec(tmp_path, price_per_gpu_hour=2.0)], [20.0], Resources(4, 0.5, 2))
    assert (plan.num_trials, plan.num_retrainings, plan.num_epochs) == (10, 9, 9)
    assert plan.upper_bound == plan.expected == Cost(1800.0, 0.475)
    assert plan.sentence() == (
        "plan: 10 trials and 9 retrainings with new seeds, up to 9 epochs each, 2 at a time on 0.5 GPU each; "
        "20 s per epoch; total time: 30 min; GPU hours: 0.5; price: 0.95"
    )


def test_more_slots_than_trials_do_not_shorten_the_plan(tmp_path: Path) -> None:
    plan = Plan.of([make_spec(tmp_path)], [20.0], Resources(4, 1, 64))
    assert plan.upper_bound.seconds == 180 + 180 and plan.upper_bound.gpu_hours == pytest.approx(19 * 180 / 3600)


def test_scheduler_and_time_budget_shorten_the_plan(tmp_path: Path) -> None:
    resources = Resources(2, 0, 1)
    asha = Plan.of([make_spec(tmp_path, scheduler="asha")], [10.0], resources)
    trained = 9 + 9 * (1 + 2 / 3 + 6 / 9) + 9 * 9  # the baseline, nine other trials, and the retrainings
    assert asha.expected.seconds == pytest.approx(trained * 10) and asha.upper_bound.seconds == pytest.approx(1710)
    assert "2 CPUs each; 10 s per epoch; total time: about 18 min, at most 28 min" in asha.sentence()
    short = Plan.of([make_spec(tmp_path, time_budget_s=60.0)] * 2, [10.0] * 2, resources)
    assert short.upper_bound.seconds == pytest.approx(60 + 2 * 12 * 9 * 10)


def test_studies_of_a_run_share_one_plan(tmp_path: Path) -> None:
    specs = [make_spec(tmp_path, trials=4), make_spec(tmp_path, trials=4)]
    plan = Plan.of(specs, [10.0, 30.0], Resources(1, 0, 1))
    assert (plan.num_trials, plan.num_retrainings, plan.epoch_s) == (8, 2 * (1 + 2 + 1) * 3, 20.0)
    assert plan.upper_bound.seconds == pytest.approx((4 + 12) * 9 * (10 + 30))


def test_finished_trainings_are_not_planned(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, trials=4)
    spec.folder.mkdir()
    history = History(spec.folder)
    for number in range(3):
        history.trial_started(trial := make_trial(number, [0.5]))
        trial.status = "completed"
        history.trial_ended(trial)
    resources = Resources(1, 0, 1)
    assert (Plan.of([spec], [1.0], resources).num_trials, Plan.of([spec], [1.0], resources).num_retrainings) == (1, 9)
    history.mark_searched()
    again = make_trial(100_000, [0.5], finalist="baseline", seed=1, status="completed")
    history.trial_ended(again)
    assert (Plan.of([spec], [1.0], resources).num_trials, Plan.of([spec], [1.0], resources).num_retrainings) == (0, 8)
    assert Plan.of([replace(spec, trials=9, extend=5)], [1.0], resources).num_trials == 6


def test_unmeasured_epoch_has_unknown_duration(tmp_path: Path) -> None:
    plan = Plan.of([make_spec(tmp_path)], [math.nan], Resources(1, 0, 1))
    assert "duration unknown" in plan.sentence()


class Result:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


@pytest.mark.parametrize("num_images", [4, 7, 12, 50])
def test_epoch_is_extrapolated_from_timed_steps(monkeypatch: pytest.MonkeyPatch, num_images: int) -> None:
    """With 0.5 s per image and 2 s of validation, an epoch of N images takes 2 + N / 2 seconds."""
    import torch

    from las_tune.las.features import FeatureStore
    from las_tune.las.training import TrainData

    num_trained = []

    def fake_train(spec: object, backbone: object, data: TrainData) -> object:
        num_trained.append(len(data.images))
        assert len(data.foreground) == len(data.images) == len(data.features.maps[0])  # type: ignore[index]
        yield Result(2 + 0.5 * len(data.images))

    monkeypatch.setattr(plan_module, "train", fake_train)
    images = torch.zeros(num_images, 3, 8, 8, dtype=torch.uint8)
    store = FeatureStore(images, [torch.zeros(num_images, 1, 1, 2)], None)  # type: ignore[arg-type]
    data = TrainData(store, images[:, :1] > 0, images, store, None)  # type: ignore[arg-type]
    assert measure_epoch_s(TRAIN, None, data) == pytest.approx(2 + 0.5 * num_images)  # type: ignore[arg-type]
    assert max(num_trained) <= plan_module.TIMED_STEPS * TRAIN.batch_size


def test_dry_run_prints_the_plan_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    make_part(tmp_path / "d")
    make_textures(tmp_path / "t")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    flags = f"--category part --data-root d --textures t {SMALL} --trials 5 --dry-run --price-per-gpu-hour 2.5"
    ended = run_command(monkeypatch, capsys, flags.split())
    assert (ended.code, ended.err) == (0, "")
    assert "plan: 5 trials and 12 retrainings with new seeds" in ended.out and "per epoch" in ended.out
    assert "computing frozen features" in ended.out and sorted(tmp_path.rglob("*")) == before
