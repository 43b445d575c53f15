from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from las_tune.config import paths
from las_tune.terminal.log_file import NoiseLog


def test_what_is_said_before_and_after_there_is_a_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with NoiseLog() as log:
        os.write(2, b"early, from C\n")
        log.keep_in(tmp_path / "study")
        subprocess.run([sys.executable, "-c", "import sys; print('a child', file=sys.stderr)"], check=True)
        log.keep_in(tmp_path / "other")  # a run of several studies keeps one
    os.write(2, b"the terminal again\n")
    assert (tmp_path / "study" / paths.LOG).read_text() == "early, from C\na child\n"
    assert capfd.readouterr().err == "the terminal again\n" and not (tmp_path / "other").exists()


def test_an_error_has_the_whole_of_it_there_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught, NoiseLog() as log:
        log.keep_in(tmp_path)
        raise RuntimeError("a worker is gone")
    assert caught.value.__notes__ == [f"log: {tmp_path / paths.LOG}"]
    assert "Traceback" in (text := (tmp_path / paths.LOG).read_text()) and "a worker is gone" in text


def test_nothing_is_made_where_nothing_was_begun(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught, NoiseLog():
        logging.getLogger("x").error("said")
        raise RuntimeError("a flag was wrong")
    assert not hasattr(caught.value, "__notes__") and not list(tmp_path.iterdir())


def test_a_full_disk_keeps_no_one_from_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match="No space") as caught, NoiseLog() as log:
        log.keep_in(tmp_path)
        (tmp_path / paths.LOG).unlink()
        (tmp_path / paths.LOG).symlink_to("/dev/full")
        raise OSError(28, "No space left on device")
    os.write(2, b"the terminal again\n")
    assert capfd.readouterr().err == "the terminal again\n" and caught.value.__notes__


def test_what_was_said_is_not_lost_where_there_is_no_folder(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), NoiseLog():
        os.write(2, b"Ray says why\n")
        raise SystemExit(1)
    assert capfd.readouterr().err == "Ray says why\n"
