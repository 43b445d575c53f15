"""Ctrl-C, full and read-only disks, and two drivers at once: one-line messages, and the study resumes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from las_tune.tracking.journal import Journal
from tests.faults.kills import EPOCHS, Study, Workspace, doctor, doctor_command
from tests.parts import empty_store
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def study_in(folder: Path, epochs: int = EPOCHS) -> tuple[Study, str]:
    """Create a study and an MLflow store, and return them."""
    study = Study(Workspace.make(folder), "one", epochs)
    study.results.mkdir(exist_ok=True)
    (folder / "mlflow.db").write_bytes(empty_store())
    return study, f"sqlite:///{folder / 'mlflow.db'}"


def wait_for(study: Study, event: str, driver: subprocess.Popen[str]) -> None:
    """Wait until the study's history has an event."""
    history = study.results / "s/trials.jsonl"
    wait_until(
        lambda: history.is_file() and f'"event": "{event}"' in history.read_text(),
        lambda: f"no {event}: {driver.communicate(timeout=60)[0]}", every_s=0.02, process=driver,
    )  # fmt: skip


def state(study: Study) -> dict[str, int]:
    """Return the number of ended trials by status."""
    lines = [json.loads(line) for line in (study.results / "s/trials.jsonl").read_text().splitlines()]
    ends = [line["trial"]["status"] for line in lines if line["event"] == "ended"]
    return {status: ends.count(status) for status in sorted(set(ends))}


def test_study_resumes_after_ctrl_c_and_is_locked_against_a_second_driver(tmp_path: Path) -> None:
    study, uri = study_in(tmp_path, epochs=30)
    driver = study.start(uri)
    wait_for(study, "ended", driver)
    os.kill(driver.pid, signal.SIGINT)
    printed, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130, printed
    assert "stopping: saving the results so far; press Ctrl-C again to stop immediately" in printed
    assert printed.strip().endswith("Stopped. Run the same command with --study s to resume."), printed
    assert "failed" not in state(study), "a trial that Ctrl-C interrupted has not ended"
    assert '"searched"' not in (study.results / "s/trials.jsonl").read_text()
    assert "unfinished" in doctor(study, uri), "no run is running in MLflow"
    with closing(Journal(study.results / "s")):  # locked as by a running driver
        other = subprocess.run(study.command(uri), capture_output=True, text=True, timeout=120)
    assert other.returncode == 2 and other.stderr.startswith("error: Study s is already running (driver pid ")
    flags = ["--resume", "--study", "s", "--results", str(study.results)]
    resumed = subprocess.run([*study.command(uri)[:3], *flags], capture_output=True, text=True, timeout=200)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "resuming study s" in resumed.stdout + resumed.stderr
    assert "finished" in doctor(study, uri)


def test_second_ctrl_c_exits_immediately(tmp_path: Path) -> None:
    study, uri = study_in(tmp_path)
    driver = study.start(uri)
    wait_for(study, "started", driver)
    os.kill(driver.pid, signal.SIGINT)
    time.sleep(0.3)
    os.kill(driver.pid, signal.SIGINT)
    began = time.monotonic()
    driver.communicate(timeout=30)
    assert driver.returncode == 130 and time.monotonic() - began < 5
    mended = subprocess.run(doctor_command(study, uri, "--fix"), capture_output=True, text=True, timeout=120)
    assert mended.returncode == 0 and "unfinished, rerun the same command to resume" in mended.stdout, mended.stdout


# --- disks ---


@contextmanager
def disk(folder: Path, megabytes: int) -> Iterator[None]:
    """Mount a small disk at a folder; skip the test if mounting is not allowed."""
    folder.mkdir(exist_ok=True)
    options = f"size={megabytes}m"
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "las-tune", folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"cannot mount a small disk here: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def fill(folder: Path, leave_kb: int) -> None:
    """Fill a disk except for leave_kb, while other processes write to it."""
    with (folder / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
        while (free := shutil.disk_usage(folder).free - leave_kb * 1024) > 0:
            ballast.write(b"\0" * min(free, 2**16))


@pytest.mark.parametrize("leave_kb", [64, 512])
def test_study_resumes_after_a_full_results_disk(tmp_path: Path, leave_kb: int) -> None:
    """The disk is full at the start, or during the first checkpoints."""
    (tmp_path / "one").mkdir()
    with disk(tmp_path / "one", 400):
        study, uri = study_in(tmp_path)
        fill(study.results, leave_kb)
        driver = study.start(uri)
        printed, _ = driver.communicate(timeout=200)
        assert driver.returncode == 2, printed
        *_, error, log = printed.strip().splitlines()
        assert error.startswith("error: ") and "No space left on device" in error and log.startswith("log: "), printed
        assert "Traceback" not in printed
        (study.results / "ballast").unlink()
        study.finish(uri)
        assert "finished" in doctor(study, uri)


def test_read_only_results_are_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with disk(tmp_path / "one", 16):
        study, uri = study_in(tmp_path)
        remount(study.results, "ro")
        done = subprocess.run(study.command(uri), capture_output=True, text=True, timeout=120)
        assert done.returncode == 2
        assert done.stderr.startswith("error: --results is not a writable folder: "), done.stderr
        assert done.stderr.count("\n") == 1


def test_mlflow_store_is_complete_after_its_disk_was_full(tmp_path: Path) -> None:
    with disk(tmp_path / "store", 16):
        study, _ = study_in(tmp_path)
        (tmp_path / "store/mlflow.db").write_bytes(empty_store())
        uri = f"sqlite:///{tmp_path / 'store/mlflow.db'}"
        driver = study.start(uri)
        wait_for(study, "started", driver)
        fill(tmp_path / "store", 0)
        wait_for(study, "searched", driver)
        (tmp_path / "store/ballast").unlink()
        printed, _ = driver.communicate(timeout=200)
        assert driver.returncode == 0, printed
        assert "MLflow is unreachable; writes are kept in" in printed and "MLflow is reachable again" in printed
        assert "finished" in doctor(study, uri)
