from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from las_tune.config import paths
from las_tune.config.log_file import LogFile


def test_file_holds_output_from_before_and_after_it_is_opened(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with LogFile() as log:
        os.write(2, b"early, from C\n")
        log.open_in(tmp_path / "study")
        subprocess.run([sys.executable, "-c", "import sys; print('a child', file=sys.stderr)"], check=True)
        log.open_in(tmp_path / "other")  # a run of several studies has one log file
    os.write(2, b"stderr restored\n")
    assert (tmp_path / "study" / paths.LOG).read_text() == "early, from C\na child\n"
    assert capfd.readouterr().err == "stderr restored\n" and not (tmp_path / "other").exists()


def test_exception_is_logged_and_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught, LogFile() as log:
        log.open_in(tmp_path)
        raise RuntimeError("worker lost")
    assert caught.value.__notes__ == [f"log: {tmp_path / paths.LOG}"]
    text = (tmp_path / paths.LOG).read_text()
    assert "Traceback" in text and "worker lost" in text


def test_exception_without_a_file_has_no_note(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught, LogFile():
        logging.getLogger("x").error("early")
        raise RuntimeError("bad flag")
    assert not hasattr(caught.value, "__notes__") and not list(tmp_path.iterdir())


def test_stderr_is_restored_on_a_full_disk(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match="No space") as caught, LogFile() as log:
        log.open_in(tmp_path)
        (tmp_path / paths.LOG).unlink()
        (tmp_path / paths.LOG).symlink_to("/dev/full")
        raise OSError(28, "No space left on device")
    os.write(2, b"stderr restored\n")
    assert capfd.readouterr().err == "stderr restored\n" and caught.value.__notes__


def test_buffered_output_is_printed_without_a_file(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), LogFile():
        os.write(2, b"reason from Ray\n")
        raise SystemExit(1)
    assert capfd.readouterr().err == "reason from Ray\n"
