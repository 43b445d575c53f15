"""The commands ui, compare and report."""

from __future__ import annotations

import os
import signal
import socket
import urllib.request
from pathlib import Path

import pytest
from mlflow import MlflowClient

from las_tune.errors import UserError
from las_tune.tracking.ui import _free_port
from tests.parts import Run, run_command
from tests.servers import start_ui
from tests.studies import make_store, make_study, start_study


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results folder with three studies."""
    folder = tmp_path_factory.mktemp("my results")
    store = make_store(folder)
    make_study(store, "first")
    make_study(store, "second", start_ms=1_700_000_500_000)
    start_study(store, "begun", start_ms=1_700_000_900_000)
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, results: Path) -> Run:
    """Return a function that runs a command on these results, in tmp_path."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: run_command(monkeypatch, capsys, [*words, "--results", str(results)])


def test_compare_prints_the_trials_best_first(run: Run) -> None:
    ended = run("compare", "first")
    assert (ended.code, ended.err) == (0, "")
    lines = [line.strip() for line in ended.out.splitlines()]
    first = next(line for line in lines if line.startswith("trial 3 "))
    assert first.split() == ["trial", "3", "completed", "0.9100", "0.9600", "0.8600", "0.0004", "0.393", "16"]
    order = [line.split("  ")[0] for line in lines if line.startswith(("trial ", "baseline,"))][1:]
    assert order[:3] == ["trial 3", "trial 6", "trial 4"] and "trial 3, seed 2" in order
    assert "Sealed test" not in ended.out


def test_compare_of_several_studies_starts_with_an_overview(run: Run) -> None:
    ended = run("compare", "first", "second", "begun", "first")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.index("Sealed test, means over seeds") < ended.out.index("Study first: trials")
    assert ended.out.count("Study first: trials") == 1
    assert "+0.1000 (+0.0200 to +0.1700)" in ended.out and "no sealed test: running" in ended.out


def test_compare_without_a_name_shows_the_latest_study(run: Run) -> None:
    assert "Study begun: trials" in run("compare").out


def test_report_writes_one_file_to_the_working_directory(run: Run, tmp_path: Path) -> None:
    ended = run("report", "first")
    assert (ended.code, ended.err) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["first.html"]
    assert f"Report: {tmp_path / 'first.html'}" in ended.out and "Missing" not in ended.out


def test_report_of_a_running_study_lists_missing_parts(run: Run, tmp_path: Path) -> None:
    ended = run("report", "begun", "--out", "there.html")
    assert (ended.code, ended.err) == (0, "")
    assert (tmp_path / "there.html").read_text().startswith("<!doctype html>")
    assert "Missing: figures" in ended.out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("report", "other"), "Study other does not exist in the store. Known studies: begun, second, first."),
        (("compare", "first", "other"), "Study other does not exist"),
        (("ui", "--study", "other"), "Known studies: begun, second, first"),
        (("ui", "--experiment", "other"), "--experiment other does not exist in "),
        (("ui", "--port", "70000"), "--port must be between 0 and 65535, got 70000"),
        (
            ("report", "first", "--out", "missing/there.html"),
            "/missing/there.html cannot be written: No such file or directory. Choose another file.",
        ),
    ],
)
def test_invalid_arguments_are_one_line(run: Run, words: tuple[str, ...], line: str) -> None:
    ended = run(*words)
    assert ended.code == 2 and ended.err.startswith("error: ") and ended.err.count("\n") == 1
    assert line in ended.err


@pytest.mark.parametrize("words", [("ui",), ("compare",), ("report", "first")])
def test_no_store_is_created(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run_command(monkeypatch, capsys, words)
    assert ended.code == 2 and "does not exist or is not an MLflow store" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_ui_prints_the_address_of_a_server(run: Run, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = MlflowClient(f"sqlite:///{results / 'mlflow.db'}")
    monkeypatch.setattr("las_tune.tracking.store.use_store", lambda _: client)
    monkeypatch.setattr("las_tune.tracking.running_ui", lambda *_: pytest.fail("a server was started"))
    ended = run("ui", "--study", "first", "--tracking-uri", "http://me:secret@mlflow.example:5000")
    assert (ended.code, ended.err) == (0, "")
    assert "  http://mlflow.example:5000/#/experiments/1/runs?" in ended.out and "secret" not in ended.out


def test_used_ports_are_skipped() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port < _free_port(port) <= port + 20
    assert _free_port(0) > 0
    with pytest.raises(UserError, match="--port"):
        _free_port(-1)


def test_ui_serves_on_loopback_and_leaves_no_files(results: Path, tmp_path: Path) -> None:
    """It is stopped by SIGTERM here, and by Ctrl-C in the browser tests."""
    process, lines = start_ui("--results", str(results), "--study", "first", cwd=tmp_path)
    try:
        assert process.stdout is not None
        (address, *_) = [line for line in lines if line.startswith("http")]
        assert address.startswith("http://127.0.0.1:") and "viewStateShareKey=las_tune.first.study" in address, lines
        host = address.split("/#")[0]
        assert urllib.request.urlopen(f"{host}/health", timeout=10).read() == b"OK"
        os.kill(process.pid, signal.SIGTERM)
        rest = process.stdout.read()
        assert process.wait(30) == 0 and rest.strip() == "The UI has stopped."
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(f"{host}/health", timeout=10)
        assert list(tmp_path.iterdir()) == []
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
