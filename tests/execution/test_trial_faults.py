"""A trial that fails is tried again where that can help, else it fails alone; a study whose trials fail says so."""

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
from las_tune.search.trial_faults import may_pass
from las_tune.selection.finalists import make_jobs, require_any
from las_tune.space.knobs import Range
from las_tune.space.search_space import Space
from tests.execution.fake_trial import EPOCHS, Recorder, fake_trial, make_spec, tuned

pytestmark = pytest.mark.slow

SPACE = Space("good", {"alpha": Range(0.1, 0.4)}, sources=())
"""Every trial of it trains."""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with ray_cluster(None):
        yield


def out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def disk_is_full() -> None:
    raise OSError(28, "No space left on device", "/nfs/checkpoints")


def file_is_gone() -> None:
    raise FileNotFoundError(2, "No such file or directory", "weights.pth")


def own_mistake() -> None:
    raise ValueError("shapes do not match")


def falls_once(folder: Path, fall: Callable[[], None], epoch: int) -> TrialFunction:
    """A fake trial that falls after an epoch, the first time; every start is a line in a file."""

    def trial(config: dict[str, Any], shared: SharedStudy, start: tune.Checkpoint | None) -> None:
        starts = folder / f"{config['alpha']:.6f}"
        with starts.open("a") as file:
            file.write("start\n")
        is_first = len(starts.read_text().splitlines()) == 1
        epochs = itertools.count(1)

        def pause() -> None:
            if next(epochs) == epoch and is_first:
                fall()

        fake_trial(config, shared, start, pause=pause)

    return trial


def search(folder: Path, trial: TrialFunction, **changes: Any) -> list[TrialRecord]:
    spec = make_spec(folder, **({"trials": 2, "max_failures": 2, "scheduler": "none"} | changes))
    (ran,) = run_trials([tuned(spec, Recorder(), SPACE)], resources_of(spec), trial)
    return ran.records


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[TrialRecord]:
    return search(tmp_path_factory.mktemp("whole"), fake_trial)


@pytest.mark.parametrize("fall", [out_of_memory, killed, disk_is_full])
def test_what_may_pass_is_tried_again_from_the_last_epoch(
    whole: list[TrialRecord], tmp_path: Path, fall: Callable[[], None]
) -> None:
    records = search(tmp_path, falls_once(tmp_path, fall, epoch=4))
    assert [(r.status, r.params, r.epochs) for r in records] == [(r.status, r.params, r.epochs) for r in whole]
    for record in records:
        assert (tmp_path / f"{record.params['alpha']:.6f}").read_text() == "start\n" * 2
        assert record.repeated_seconds == 0.0, "the third epoch has a checkpoint"
    assert not (tmp_path / "fake/failures").exists()


@pytest.mark.parametrize("fall", [file_is_gone, own_mistake])
def test_what_will_not_pass_fails_at_once_and_says_where(
    whole: list[TrialRecord], tmp_path: Path, fall: Callable[[], None]
) -> None:
    records = search(tmp_path, falls_once(tmp_path, fall, epoch=4))
    reason = {file_is_gone: "FileNotFoundError: [Errno 2] No such file", own_mistake: "ValueError: shapes do not"}[fall]
    for record, good in zip(records, whole, strict=True):
        assert record.status == "failed" and record.reason.startswith(reason)
        assert record.epochs == good.epochs[:3] and record.lost_seconds == record.seconds > 0
        assert (tmp_path / f"{record.params['alpha']:.6f}").read_text() == "start\n"
        told = (tmp_path / f"fake/failures/trial_{record.number:04d}.txt").read_text()
        assert f"in {fall.__name__}" in told and told.strip().splitlines()[-1].startswith(reason)
    ended = History(tmp_path / "fake").ended
    assert [record.reason for record in ended] == [record.reason for record in records]


def test_tries_have_an_end(tmp_path: Path) -> None:
    def trial(config: dict[str, Any], shared: SharedStudy, start: tune.Checkpoint | None) -> None:
        with (tmp_path / "starts").open("a") as file:
            file.write("start\n")
        out_of_memory()

    (record,) = search(tmp_path, trial, trials=1)
    assert record.status == "failed" and "CUDA out of memory" in record.reason
    assert (tmp_path / "starts").read_text() == "start\n" * 3
    assert "out_of_memory" in (tmp_path / "fake/failures/trial_0000.txt").read_text()


def test_a_finalist_that_will_not_train_fails_alone(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, max_failures=2)
    jobs = make_jobs({"baseline": {"alpha": 0.25}, "trial 1": {"alpha": 0.125}}, first_seed=1, num_seeds=1)

    def trial(config: dict[str, Any], shared: SharedStudy, start: tune.Checkpoint | None) -> None:
        if config["alpha"] == 0.125:
            own_mistake()
        fake_trial(config, shared, start)

    (again,) = run_finalists([tuned(spec, Recorder())], [jobs], resources_of(spec), trial)
    assert [record.status for record in again.records] == ["completed", "failed"]
    assert again.records[1].reason == "ValueError: shapes do not match"


def test_a_study_whose_first_trials_fail_stops_and_goes_on_when_that_is_mended(tmp_path: Path) -> None:
    def broken(config: dict[str, Any], shared: SharedStudy, start: tune.Checkpoint | None) -> None:
        if config["alpha"] < 0.29:
            own_mistake()
        fake_trial(config, shared, start)

    spec = make_spec(tmp_path, trials=12, scheduler="none")
    (ran,) = run_trials([tuned(spec, Recorder(), SPACE)], resources_of(spec), broken)
    assert ran.is_failing and 6 <= len(ran.records) <= 11
    with pytest.raises(UserError, match=r"More than half of the first ten.*6 of \d+ \(ValueError: shapes.*goes on"):
        require_any(ran.records, ran.is_failing)
    assert not History(spec.folder).is_searched
    assert History(spec.folder).given_up == [r.number for r in ran.records if r.status == "failed"]
    (mended,) = run_trials([tuned(spec, Recorder(), SPACE)], resources_of(spec), fake_trial)
    assert not mended.is_failing and len(mended.records) == 12 + 6
    completed = [record for record in mended.records if record.status == "completed"]
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
def test_what_another_try_can_help_against(error: Exception, expected: bool) -> None:
    assert may_pass(error) is expected
