from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from las_tune.reporting.training_log import TrainingLog
from tests.parts import make_trial

STARTED = datetime(2026, 3, 4, 5, 6, 7)


def lines_of(log: TrainingLog) -> list[str]:
    """Return the lines without the time of day, which each line must have."""
    lines = log.path.read_text(encoding="utf-8").splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d  ", line) for line in lines)
    return [line[10:] for line in lines]


def test_file_name_has_category_and_start(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, "bracket_black", STARTED)
    assert log.path == tmp_path / "training_log_bracket_black_LAS_20260304_050607.txt"


def test_trial_is_logged_from_start_to_end(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, "part", STARTED)
    trial = make_trial(0, [0.5])
    log.trial_started(trial)
    log.epoch_ended(trial)
    trial.status = "completed"
    log.trial_ended(trial)
    assert lines_of(log) == [
        "trial 0 starts (baseline): adaptor_lr 0.0001, foreground otsu, hidden_width 768",
        "trial 0  epoch 1  loss 1.2500  loss_normal 1.0000  loss_las 0.2500  image_auroc 0.5000  image_ap 0.2500  "
        "pixel_auroc 0.1250  pixel_aupro 0.0625  worst_defect 0.2500  recall 0.1250  f1 0.0625  "
        "false_reject_rate 0.0312  objective 0.5000  1.5 s",
        "trial 0 completed after 1.5 s  best objective 0.5000 in epoch 1",
    ]


def test_latest_epoch_and_best_epoch_are_logged(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, "part", STARTED)
    trial = make_trial(3, [0.5, 0.75, 0.25], masks=False, status="pruned", reason="stopped after epoch 3")
    log.trial_started(trial)
    log.epoch_ended(trial)
    log.trial_ended(trial)
    start, epoch, end = lines_of(log)
    assert start.startswith("trial 3 starts: adaptor_lr 0.0004, ")
    assert epoch.startswith("trial 3  epoch 3  loss 0.4167  ") and "objective 0.2500" in epoch
    assert "pixel" not in epoch, "without masks there are no pixel metrics"
    assert end == "trial 3 pruned after 4.5 s  best objective 0.7500 in epoch 2  stopped after epoch 3"


def test_failure_before_first_epoch_is_logged(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, "part", STARTED)
    log.trial_ended(make_trial(2, [], status="failed", reason="lost its GPU"))
    (line,) = lines_of(log)
    assert re.sub(" +", " ", line) == "trial 2 failed after 0.0 s lost its GPU"


def test_log_is_appended(tmp_path: Path) -> None:
    TrainingLog(tmp_path, "part", STARTED).write("one")
    log = TrainingLog(tmp_path, "part", STARTED)
    log.write("two: β")
    assert lines_of(log) == ["one", "two: β"]
