"""Study folders and MLflow stores of version 0.1.0 still work with every command that reads them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.parts import Run

CHAMPION = "models:/las-bracket_black@champion"
RESULTS = ("--results", "results")


def test_doctor_finds_nothing_wrong(run: Run, golden: Path) -> None:
    ended = run("doctor", "finished", *RESULTS)
    assert ended.code == 0, ended.out + ended.err


def test_sync_has_nothing_left_to_send(run: Run, golden: Path) -> None:
    ended = run("sync", "finished", *RESULTS)
    assert ended.code == 0, ended.err
    assert "0 waiting" in ended.out


def test_compare_shows_trials_and_finalists(run: Run, golden: Path) -> None:
    ended = run("compare", "finished", "interrupted", *RESULTS)
    assert ended.code == 0, ended.err
    best = summary(golden)["promotion"]["best"]
    assert best in ended.out and "baseline" in ended.out


def test_report_names_the_champion(run: Run, golden: Path, tmp_path: Path) -> None:
    ended = run("report", "finished", *RESULTS, "--out", "report.html")
    assert ended.code == 0, ended.err
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "bracket_black" in page and summary(golden)["promotion"]["reason"][:40] in page


def test_predict_loads_the_champion(run: Run, golden: Path, tmp_path: Path) -> None:
    from las_tune.data.demo_category import render_demo

    render_demo(tmp_path / "data/demo/anomaly_dataset", tmp_path / "data/demo/textures")
    images = tmp_path / "data/demo/anomaly_dataset/bracket_black/test/good"
    ended = run("predict", str(images), "--model", CHAMPION, *RESULTS)
    assert ended.code == 0, ended.err
    rows = list(csv.DictReader(ended.out.splitlines()))
    assert len(rows) == len(list(images.iterdir()))
    assert all(0 <= float(row["score"]) <= 1 for row in rows)


@pytest.mark.slow
def test_ui_opens_the_store(golden: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "las_tune", "ui", "--study", "finished", *RESULTS, "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = next(line.strip() for line in process.stdout if "http://127.0.0.1" in line)
            with urllib.request.urlopen(address.split("#")[0], timeout=30) as answer:
                assert answer.status == 200
        finally:
            process.terminate()


@pytest.mark.slow
def test_resume_finishes_the_interrupted_study(run: Run, golden: Path) -> None:
    before = lines(golden / "interrupted/trials.jsonl")
    ended = run("--resume", "--study", "interrupted", *RESULTS)
    assert ended.code == 0, ended.err
    after = lines(golden / "interrupted/trials.jsonl")
    assert after[: len(before)] == before, "recorded trials are not repeated"
    assert summary(golden, "interrupted")["trials"]["total"] == 4
    assert run("doctor", "interrupted", *RESULTS).code == 0


@pytest.mark.slow
def test_extend_adds_a_trial_to_the_finished_study(run: Run, golden: Path) -> None:
    ended = run("--extend", "1", "--study", "finished", *RESULTS)
    assert ended.code == 0, ended.err
    assert summary(golden)["trials"]["total"] == 4
    assert run("doctor", "finished", *RESULTS).code == 0


def summary(results: Path, study: str = "finished") -> dict[str, Any]:
    """The summary of a study, as it was written."""
    return dict(json.loads((results / study / "summary.json").read_text(encoding="utf-8")))


def lines(file: Path) -> list[str]:
    """The lines of a text file."""
    return file.read_text(encoding="utf-8").splitlines()
