"""After a driver was killed with SIGKILL at any moment, the next driver resumes its study."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from las_tune.config.study_spec import MAX_TRIALS
from las_tune.execution.checkpoint_storage import CheckpointStorage
from tests.execution.driver import TRIALS

SAME_FIELDS = ("number", "params", "status", "reason", "finalist", "seed")
KILLS = 2


def start(folder: Path, epoch_s: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.execution.driver", str(folder), str(epoch_s)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(driver: subprocess.Popen[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the output lines and the records of a driver."""
    assert driver.stdout is not None
    lines = driver.stdout.read().splitlines()
    assert driver.wait(60) == 0, "\n".join(lines[-30:])
    return lines, json.loads(lines[-1])


def kill(driver: subprocess.Popen[str]) -> None:
    """Kill the driver only. Ray's processes end when they notice that it is gone."""
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait(30)


def numbers(records: list[dict[str, Any]]) -> list[Any]:
    """Return what must be equal with and without kills."""
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in record["epochs"]] for record in records]
    return [[record[name] for name in SAME_FIELDS] for record in records] + rows


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_and_undisturbed_drivers_give_the_same_numbers(tmp_path: Path) -> None:
    seed = int(os.environ.get("LAS_TUNE_KILL_SEED", "0"))
    print("seed of the kills:", seed)
    draw = random.Random(seed)
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    _, whole = finish(start(tmp_path / "whole", 0.0))
    for _ in range(KILLS):
        driver = start(tmp_path / "killed", 0.15)
        assert driver.stdout is not None
        num_epochs = draw.randrange(1, 30)
        for line in driver.stdout:
            num_epochs -= line.startswith("epoch")
            if not num_epochs:
                break
        time.sleep(draw.uniform(0, 0.3))
        kill(driver)
    lines, killed = finish(start(tmp_path / "killed", 0.0))
    assert numbers(killed) == numbers(whole)
    finalists = range(MAX_TRIALS, MAX_TRIALS + 4)
    assert [record["number"] for record in killed] == [*range(TRIALS), *finalists]
    num_events = Counter(tuple(line.split()[:2]) for line in lines)
    for record in killed:  # a new listener receives every event once
        events_of_trial = [num_events[event, str(record["number"])] for event in ("started", "epoch", "ended")]
        assert events_of_trial == [1, len(record["epochs"]), 1], f"trial {record['number']} in {lines}"
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "killed/fake/optuna.journal")))
    optuna_states = [trial.state.name for trial in optuna.load_study(study_name="fake", storage=storage).trials]
    names = {"completed": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
    without_number = [record["params"]["alpha"] > 0.45 for record in killed[:TRIALS]]
    states = [names[record["status"]] for record in killed[:TRIALS]]
    assert optuna_states == ["FAIL" if lost else state for lost, state in zip(without_number, states, strict=True)]


def test_truncated_checkpoint_is_skipped(tmp_path: Path) -> None:
    import torch
    from pyarrow.fs import LocalFileSystem

    from las_tune.config.train_spec import TrainSpec
    from las_tune.execution.checkpoint_storage import ROWS_NAME
    from las_tune.las.checkpoint import CHECKPOINT_NAME, save_checkpoint

    for index, epoch in ((0, 3), (1, 4), (2, 5)):
        folder = tmp_path / f"ray/trial_a/checkpoint_{index:06d}"
        folder.mkdir(parents=True)
        save_checkpoint(folder / CHECKPOINT_NAME, TrainSpec(), {"head": {"epoch": torch.tensor(epoch)}})
        (folder / ROWS_NAME).write_text(json.dumps([{"epoch": n + 1} for n in range(epoch)]))
    whole = (folder / CHECKPOINT_NAME).read_bytes()
    (folder / CHECKPOINT_NAME).write_bytes(whole[: len(whole) // 2])
    storage = CheckpointStorage(LocalFileSystem(), str(tmp_path))
    found = list(storage.find(["ray/trial_a", "ray/trial_none"]))
    assert [len(checkpoint.rows) for checkpoint in found] == [4, 3]
    assert found[0].path == "ray/trial_a/checkpoint_000001"
