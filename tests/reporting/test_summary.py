from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from las_tune.config.files import write_json
from las_tune.config.interval import Interval
from las_tune.config.trial_record import BASELINE_NUMBER, TrialRecord
from las_tune.errors import UserError
from las_tune.reporting.run_summary import FailedStudy, RunSummary, SharedConfiguration
from las_tune.reporting.summary import (
    ChosenEpoch,
    CostSummary,
    LeakageGap,
    RankCorrelation,
    Splits,
    Summary,
    TrialCounts,
    TrialSummary,
    read_summary,
)
from tests.parts import make_trial
from tests.summaries import make_summary

GOLDEN = Path(__file__).parents[1] / "golden" / "summary_0_1_0.json"
"""A summary that version 0.1.0 wrote."""


# --- the JSON file ---


def test_summary_of_version_0_1_0_is_read_and_written_unchanged() -> None:
    content = json.loads(GOLDEN.read_text(encoding="utf-8"))
    summary = read_summary(GOLDEN)
    assert summary.to_json() == content
    assert list(summary.to_json()) == list(content), "the order of keys"
    assert summary.promotion.gain.low == pytest.approx(-0.7822060128948464)
    assert (summary.cost.device, summary.cost.device_seconds) == ("cpu", 12.6)
    assert (summary.best_trial.number, summary.best_trial.test) == (3, None)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"validation_gain": None, "test_gain": {}},
        {"validation_gain": Interval(0.1, -math.inf, math.inf)},
        {"splits": Splits(4, 1, 4, 4, labelled=8), "synthetic_parts": ("validation", "sealed_test")},
        {"rank_correlation": RankCorrelation(0.5, None, None, 2, None)},
        {"leakage_gap": LeakageGap(0.9, 0.8, 0.1, {"whole": ChosenEpoch(3, 7)})},
        {"cost": CostSummary("gpu", 9.5, 4.8, 3.5, 1.8, None), "skipped": ("a.png: broken",)},
    ],
)
def test_summary_survives_json(fields: dict[str, Any], tmp_path: Path) -> None:
    summary = make_summary(**fields)
    write_json(tmp_path / "summary.json", summary.to_json())
    assert read_summary(tmp_path / "summary.json") == summary


def test_infinite_ends_become_null() -> None:
    summary = make_summary(validation_gain=Interval(0.1, -math.inf, math.inf))
    assert summary.to_json()["validation_gain"] == {"mean": 0.1, "low": None, "high": None}
    assert Summary.from_json(summary.to_json()).validation_gain == Interval(0.1, -math.inf, math.inf)


def test_absent_parts_have_no_size() -> None:
    assert Splits(4, 1, 4, 4).to_json() == {"fit": 4, "calibration": 1, "validation": 4, "sealed_test": 4}


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '{"study": "s"}'])
def test_unreadable_summary_is_one_clear_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(UserError, match=r"summary.json is not the summary of a study of this version: ") as error:
        read_summary(tmp_path / "summary.json")
    assert "\n" not in str(error.value)


def test_missing_summary_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="The summary of a study could not be read: FileNotFoundError"):
        read_summary(tmp_path / "summary.json")


def test_run_summary_survives_json() -> None:
    shared = SharedConfiguration("baseline", {"alpha": 0.5}, 0.01, {"part": 0.02, "bolt": 0.0}, {"baseline": 0.01})
    failed = FailedStudy("run-bolt", "bolt", "UserError: no images")
    run = RunSummary((make_summary(), failed), shared)
    content = json.loads(json.dumps(run.to_json()))
    assert RunSummary.from_json(content) == run
    assert (run.finished, run.failed) == ([make_summary()], [failed])
    assert content["studies"][1] == {"study": "run-bolt", "category": "bolt", "failed": "UserError: no images"}
    assert content["shared_configuration"]["from"] == "baseline"
    assert RunSummary.from_json({"studies": [], "shared_configuration": None}) == RunSummary(())


# --- the parts of a summary ---


def test_trials_are_counted_by_status() -> None:
    statuses = ("completed", "pruned", "pruned", "failed", "completed", "completed")
    trials = [make_trial(number, [], status=status) for number, status in enumerate(statuses)]
    assert TrialCounts.of(trials) == TrialCounts(total=6, completed=3, pruned=2, failed=1)
    assert TrialCounts.of([]) == TrialCounts(total=0, completed=0, pruned=0, failed=0)


def test_trial_is_summarized_by_its_best_epoch() -> None:
    trial = make_trial(4, [0.25, 0.75, 0.5], status="completed")
    assert TrialSummary.of(trial, {"image_auroc": 0.9}).to_json() == {
        "trial": 4,
        "finalist": "",
        "seed": None,
        "status": "completed",
        "params": trial.params,
        "validation": trial.epochs[1],
        "test": {"image_auroc": 0.9},
    }
    assert TrialSummary.of(trial, None).test is None


def test_cost_matches_hand_calculation() -> None:
    """Epochs of 1.5 s: two, one of a trial that failed, two of a trial that had to repeat 2 s after a fault."""
    trials = [
        make_trial(0, [0.5, 0.5], status="completed"),
        make_trial(1, [0.5], status="failed"),
        make_trial(2, [0.5, 0.5], status="pruned", repeated_seconds=2.0),
    ]
    assert [trial.lost_seconds for trial in trials] == [0, 1.5, 2]
    assert CostSummary.of(trials, 0.03, "gpu_seconds", 0.5).to_json() == {
        "trial_seconds": 9.5,
        "gpu_seconds": 4.8,
        "lost_seconds": 3.5,
        "lost_gpu_seconds": 1.8,
        "gpu_seconds_per_point": 1.6,
    }
    on_cpus = CostSummary.of(trials, 0.02, "cpu_seconds", 4)
    assert on_cpus == CostSummary("cpu", 9.5, 38, 3.5, 14, 19)


@pytest.mark.parametrize("gain", [0.0, -0.01])
def test_point_has_no_price_without_a_gain(gain: float) -> None:
    assert CostSummary.of([make_trial(0, [0.5])], gain, "cpu_seconds", 1).device_seconds_per_point is None


def test_failed_trial_loses_its_repeated_epochs_as_well() -> None:
    assert make_trial(1, [0.5], status="failed", repeated_seconds=3.0).lost_seconds == 4.5


# --- atomic writing ---


def test_json_is_written_and_read(tmp_path: Path) -> None:
    content = {"a": 1.5, "b": [None, True], "name": "Träger"}
    write_json(tmp_path / "summary.json", content)
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8")) == content
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_failed_write_keeps_the_old_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("killed before the rename")

    write_json(tmp_path / "summary.json", {"old": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "summary.json", {"new": object()})
    with monkeypatch.context() as patched, pytest.raises(OSError, match="killed"):
        patched.setattr(Path, "replace", fail)
        write_json(tmp_path / "summary.json", {"new": 1})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"old": 1}
    write_json(tmp_path / "summary.json", {"new": 2})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"new": 2}


# --- trial records, which a summary is made from ---


def test_best_epoch_is_the_first_of_equals() -> None:
    assert make_trial(1, [0.5, 0.75, 0.75]).best["epoch"] == 2
    assert make_trial(1, [0.75, 0.5, 0.25]).best["epoch"] == 1
    assert make_trial(1, [0.5, 0.75]).best_objective == 0.75


def test_next_metric_decides_between_equal_objectives() -> None:
    trial = make_trial(1, [0.5, 0.75, 0.75, 0.75])
    trial.epochs[2]["recall"] += 0.1
    trial.epochs[3]["worst_defect"] += 0.1
    assert trial.best["epoch"] == 3, "recall comes before worst_defect"
    trial.epochs[3] |= {"whole/objective": 1.0, "sealed/image_auroc": 1.0, "loss": 0.0}
    assert trial.best["epoch"] == 3, "metrics of monitored images never count"


def test_trial_without_epochs_has_no_best_epoch() -> None:
    trial = TrialRecord(1, {})
    assert (trial.best, trial.best_objective, trial.seconds, trial.status) == ({}, None, 0.0, "running")


def test_seconds_add_up_and_records_do_not_share_epochs() -> None:
    assert make_trial(1, [0.5, 0.5]).seconds == 3.0
    first, second = TrialRecord(0, {}), TrialRecord(1, {})
    first.add_epoch({"epoch": 1, "objective": 0.5, "seconds": 1.0})
    assert second.epochs == []


def test_baseline_is_trial_0() -> None:
    assert BASELINE_NUMBER == 0
    assert make_trial(0, []).is_baseline and not make_trial(1, []).is_baseline
