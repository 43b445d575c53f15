"""Faults of trials: transient errors are retried, permanent ones fail the trial, and many of them stop the search."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray import tune

from las_tune.config.trial_record import TrialRecord
from las_tune.errors import UserError
from las_tune.execution.cluster import ray_cluster, resources_of
from las_tune.execution.history import History
from las_tune.execution.trainable import SharedStudy
from las_tune.execution.tuner import TrialFunction, run_finalists, run_trials
from las_tune.search.trial_faults import is_transient
from las_tune.selection.finalists import make_retrainings, require_successful_trial
from las_tune.space.parameters import Range
from las_tune.space.search_space import Space
from tests.execution.fake_trial import EPOCHS, Recorder, fake_trial, make_spec, make_tune_input

pytestmark = pytest.mark.slow

SPACE = Space("good", {"alpha": Range(0.1, 0.4)}, sources=())
"""A space in which no fake trial fails."""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with ray_cluster(None):
        yield


def raise_out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def kill_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def raise_full_disk() -> None:
    raise OSError(28, "No space left on device", "/nfs/checkpoints")


def raise_missing_file() -> None:
    raise FileNotFoundError(2, "No such file or directory", "weights.pth")


def raise_value_error() -> None:
    raise ValueError("shapes do not match")


def fails_once(folder: Path, fail: Callable[[], None], epoch: int) -> TrialFunction:
    """Return a fake trial that fails before the given epoch of its first start. Every start adds a line to a file."""

    def trial(config: dict[str, Any], shared: SharedStudy, checkpoint: tune.Checkpoint | None) -> None:
        starts = folder / f"{config['alpha']:.6f}"
        with starts.open("a") as file:
            file.write("start\n")
        is_first = len(starts.read_text().splitlines()) == 1
        epochs = itertools.count(1)

        def pause() -> None:
            if next(epochs) == epoch and is_first:
                fail()

        fake_trial(config, shared, checkpoint, pause=pause)

    return trial


def search(folder: Path, trial: TrialFunction, **changes: Any) -> list[TrialRecord]:
    spec = make_spec(folder, **({"trials": 2, "max_failures": 2, "scheduler": "none"} | changes))
    (result,) = run_trials([make_tune_input(spec, Recorder(), SPACE)], resources_of(spec), trial)
    return result.records


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[TrialRecord]:
    return search(tmp_path_factory.mktemp("undisturbed"), fake_trial)


@pytest.mark.parametrize("fail", [raise_out_of_memory, kill_process, raise_full_disk])
def test_transient_error_is_retried_from_the_last_epoch(
    undisturbed: list[TrialRecord], tmp_path: Path, fail: Callable[[], None]
) -> None:
    records = search(tmp_path, fails_once(tmp_path, fail, epoch=4))
    assert [(r.status, r.params, r.epochs) for r in records] == [(r.status, r.params, r.epochs) for r in undisturbed]
    for record in records:
        assert (tmp_path / f"{record.params['alpha']:.6f}").read_text() == "start\n" * 2
        assert record.repeated_seconds == 0.0, "the third epoch has a checkpoint"
    assert not (tmp_path / "fake/failures").exists()


@pytest.mark.parametrize("fail", [raise_missing_file, raise_value_error])
def test_permanent_error_fails_immediately_with_traceback(
    undisturbed: list[TrialRecord], tmp_path: Path, fail: Callable[[], None]
) -> None:
    records = search(tmp_path, fails_once(tmp_path, fail, epoch=4))
    reason = {
        raise_missing_file: "FileNotFoundError: [Errno 2] No such file",
        raise_value_error: "ValueError: shapes do not",
    }[fail]
    for record, expected in zip(records, undisturbed, strict=True):
        assert record.status == "failed" and record.reason.startswith(reason)
        assert record.epochs == expected.epochs[:3] and record.lost_seconds == record.seconds > 0
        assert (tmp_path / f"{record.params['alpha']:.6f}").read_text() == "start\n"
        trace = (tmp_path / f"fake/failures/trial_{record.number:04d}.txt").read_text()
        assert f"in {fail.__name__}" in trace and trace.strip().splitlines()[-1].startswith(reason)
    ended = History(tmp_path / "fake").ended
    assert [record.reason for record in ended] == [record.reason for record in records]


def test_retries_are_limited(tmp_path: Path) -> None:
    def trial(config: dict[str, Any], shared: SharedStudy, checkpoint: tune.Checkpoint | None) -> None:
        with (tmp_path / "starts").open("a") as file:
            file.write("start\n")
        raise_out_of_memory()

    (record,) = search(tmp_path, trial, trials=1)
    assert record.status == "failed" and "CUDA out of memory" in record.reason
    assert (tmp_path / "starts").read_text() == "start\n" * 3
    assert "raise_out_of_memory" in (tmp_path / "fake/failures/trial_0000.txt").read_text()


def test_finalist_with_permanent_error_fails_alone(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, max_failures=2)
    jobs = make_retrainings({"baseline": {"alpha": 0.25}, "trial 1": {"alpha": 0.125}}, first_seed=1, num_seeds=1)

    def trial(config: dict[str, Any], shared: SharedStudy, checkpoint: tune.Checkpoint | None) -> None:
        if config["alpha"] == 0.125:
            raise_value_error()
        fake_trial(config, shared, checkpoint)

    (again,) = run_finalists([make_tune_input(spec, Recorder())], [jobs], resources_of(spec), trial)
    assert [record.status for record in again.records] == ["completed", "failed"]
    assert again.records[1].reason == "ValueError: shapes do not match"


def test_failing_search_stops_and_resumes_after_the_fix(tmp_path: Path) -> None:
    def broken(config: dict[str, Any], shared: SharedStudy, checkpoint: tune.Checkpoint | None) -> None:
        if config["alpha"] < 0.29:
            raise_value_error()
        fake_trial(config, shared, checkpoint)

    spec = make_spec(tmp_path, trials=12, scheduler="none")
    (result,) = run_trials([make_tune_input(spec, Recorder(), SPACE)], resources_of(spec), broken)
    assert result.is_failing and 6 <= len(result.records) <= 11
    with pytest.raises(
        UserError,
        match=r"6 of the first \d+ trials failed.*ValueError: shapes.*the same command to resume",
    ):
        require_successful_trial(result.records, result.is_failing)
    assert not History(spec.folder).is_searched
    assert History(spec.folder).discarded == [r.number for r in result.records if r.status == "failed"]
    (resumed,) = run_trials([make_tune_input(spec, Recorder(), SPACE)], resources_of(spec), fake_trial)
    assert not resumed.is_failing and len(resumed.records) == 12 + 6
    completed = [record for record in resumed.records if record.status == "completed"]
    assert len(completed) == 12 and all(len(record.epochs) == EPOCHS for record in completed)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (ConnectionResetError("by peer"), True),
        (ray.exceptions.ObjectLostError("ab" * 28, None, ""), True),
        (PermissionError(13, "Permission denied"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (KeyError("alpha"), False),
    ],
)
def test_transient_errors_are_recognized(error: Exception, expected: bool) -> None:
    assert is_transient(error) is expected
