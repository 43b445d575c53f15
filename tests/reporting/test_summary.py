from __future__ import annotations

import json
from pathlib import Path

import pytest

from las_tune.config.files import write_json
from las_tune.config.trial_record import BASELINE_NUMBER, TrialRecord
from las_tune.reporting.summary import count_trials, describe_cost, describe_trial
from tests.parts import make_trial


def test_counts_by_how_trials_ended() -> None:
    statuses = ("completed", "pruned", "pruned", "failed", "completed", "completed")
    trials = [make_trial(number, [], status=status) for number, status in enumerate(statuses)]
    assert count_trials(trials) == {"total": 6, "completed": 3, "pruned": 2, "failed": 1}
    assert count_trials([]) == {"total": 0, "completed": 0, "pruned": 0, "failed": 0}


def test_a_trial_is_described_by_its_best_epoch() -> None:
    trial = make_trial(4, [0.25, 0.75, 0.5], status="completed")
    described = describe_trial(trial, {"image_auroc": 0.9})
    assert described == {
        "trial": 4,
        "finalist": "",
        "seed": None,
        "status": "completed",
        "params": trial.params,
        "validation": trial.epochs[1],
        "test": {"image_auroc": 0.9},
    }
    assert describe_trial(trial, None)["test"] is None


def test_cost_by_hand() -> None:
    """Epochs of 1.5 s: two, one of a trial that failed, two of a trial that had to repeat 2 s after a fault."""
    trials = [
        make_trial(0, [0.5, 0.5], status="completed"),
        make_trial(1, [0.5], status="failed"),
        make_trial(2, [0.5, 0.5], status="pruned", repeated_seconds=2.0),
    ]
    assert [trial.lost_seconds for trial in trials] == [0, 1.5, 2]
    assert describe_cost(trials, 0.03, "gpu_seconds", 0.5) == {
        "trial_seconds": 9.5,
        "gpu_seconds": 4.8,
        "lost_seconds": 3.5,
        "lost_gpu_seconds": 1.8,
        "gpu_seconds_per_point": 1.6,
    }
    on_cpus = describe_cost(trials, 0.02, "cpu_seconds", 4)
    assert (on_cpus["cpu_seconds"], on_cpus["lost_cpu_seconds"], on_cpus["cpu_seconds_per_point"]) == (38, 14, 19)


@pytest.mark.parametrize("gain", [0.0, -0.01])
def test_without_a_gain_a_point_has_no_price(gain: float) -> None:
    assert describe_cost([make_trial(0, [0.5])], gain, "cpu_seconds", 1)["cpu_seconds_per_point"] is None


def test_a_trial_that_failed_lost_its_repeats_as_well() -> None:
    assert make_trial(1, [0.5], status="failed", repeated_seconds=3.0).lost_seconds == 4.5


def test_json_is_written_and_read(tmp_path: Path) -> None:
    content = {"a": 1.5, "b": [None, True], "name": "Träger"}
    write_json(tmp_path / "summary.json", content)
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8")) == content
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_json_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


# --- records, from which summaries are made ---


def test_the_best_epoch_is_the_first_of_equals() -> None:
    assert make_trial(1, [0.5, 0.75, 0.75]).best["epoch"] == 2
    assert make_trial(1, [0.75, 0.5, 0.25]).best["epoch"] == 1
    assert make_trial(1, [0.5, 0.75]).best_objective == 0.75


def test_of_epochs_with_one_objective_the_next_metric_decides() -> None:
    trial = make_trial(1, [0.5, 0.75, 0.75, 0.75])
    trial.epochs[2]["recall"] += 0.1
    trial.epochs[3]["worst_defect"] += 0.1
    assert trial.best["epoch"] == 3, "recall comes before worst_defect"
    trial.epochs[3] |= {"whole/objective": 1.0, "sealed/image_auroc": 1.0, "loss": 0.0}
    assert trial.best["epoch"] == 3, "what is watched never counts"


def test_before_the_first_epoch_nothing_is_best() -> None:
    trial = TrialRecord(1, {})
    assert (trial.best, trial.best_objective, trial.seconds, trial.status) == ({}, None, 0.0, "running")


def test_seconds_add_up_and_records_share_nothing() -> None:
    assert make_trial(1, [0.5, 0.5]).seconds == 3.0
    first, second = TrialRecord(0, {}), TrialRecord(1, {})
    first.add_epoch({"epoch": 1, "objective": 0.5, "seconds": 1.0})
    assert second.epochs == []


def test_the_baseline_is_trial_0() -> None:
    assert BASELINE_NUMBER == 0
    assert make_trial(0, []).is_baseline and not make_trial(1, []).is_baseline
