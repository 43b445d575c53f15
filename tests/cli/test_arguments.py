"""--resume and --extend add the flags of the study; a remote --address turns tune into submit."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from las_tune.cli.arguments import as_submitted, complete
from las_tune.errors import UserError
from tests.parts import Run


def start_study(
    results: Path, name: str, command: str, *, run: str = "", is_finished: bool = False, trials: int = 8
) -> None:
    (results / name).mkdir(parents=True)
    (results / name / "command.txt").write_text(command + "\n")
    (results / name / "study.json").write_text(json.dumps({"asked": {"trials": trials, "run": run}}))
    if is_finished:
        (results / name / "summary.json").write_text("{}")


@pytest.mark.parametrize(
    ("recorded", "given", "expected"),
    [
        (
            "python -m las_tune --category part --trials 8",
            "--resume --study s --results r",
            "--category part --trials 8 --resume --study s --results r",
        ),
        (
            "python -m las_tune tune --category a --category 'b c' --study s --resume --max-failures 1",
            "tune --study s --resume --max-failures=5 --results r",
            "--category a --category 'b c' --study s --max-failures=5 --resume --results r",
        ),
        (
            "python -m las_tune --warm-start one two --demo --results=r --study s --extend 4",
            "--results=r --resume --study=s",
            "--warm-start one two --demo --results=r --study=s --resume",
        ),
    ],
)
def test_given_flags_override_recorded_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: str, given: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    start_study(tmp_path / "r", "s", recorded)
    assert complete(shlex.split(given)) == shlex.split(expected)


def test_other_commands_are_left_unchanged(tmp_path: Path) -> None:
    assert complete(["--study", "s", "--results", str(tmp_path)]) == ["--study", "s", "--results", str(tmp_path)]
    assert complete([]) == []
    assert complete(["submit", "--resume", "--study", "s"]) == ["submit", "--resume", "--study", "s"], (
        "the cluster has the study"
    )


def test_extend_adds_to_the_trials_of_the_study(tmp_path: Path) -> None:
    start_study(tmp_path, "s", "las_tune --category part --trials 4", is_finished=True, trials=12)
    found = complete(["--extend", "6", "--study", "s", "--results", str(tmp_path)])
    assert found[:4] == ["--category", "part", "--trials", "18"]
    again = complete(["--extend=6", "--study", "s", "--results", str(tmp_path)])
    assert "18" in again


def test_resume_finds_a_run_by_its_name(tmp_path: Path) -> None:
    start_study(tmp_path, "both-a", "las_tune --category a --category b --study both", run="both")
    start_study(tmp_path, "both-later", "las_tune --category later", run="")
    found = complete(["--resume", "--study", "both", "--results", str(tmp_path)])
    assert found[:4] == ["--category", "a", "--category", "b"]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("--resume", "--resume and --extend need a --study. Choose from s."),
        ("--resume --study other", "There is no study other in {here}. Choose from s."),
        (
            "--extend 4 --study s",
            "--extend cannot add trials to study s, which has not finished. Finish it with --resume --study s.",
        ),
        ("--resume --study half", "The files of study {here}/half are incomplete ("),
    ],
)
def test_resume_of_an_invalid_study_is_one_line(tmp_path: Path, given: str, line: str) -> None:
    start_study(tmp_path, "s", "las_tune --category part")
    if "half" in given:
        start_study(tmp_path, "half", "las_tune --category part")
        (tmp_path / "half/study.json").write_text('{"ask')
    with pytest.raises(UserError) as refused:
        complete([*given.split(), "--results", str(tmp_path)])
    assert line.format(here=tmp_path) in str(refused.value)


@pytest.mark.parametrize("number", ["", "0", "-3", "many", "1.5"])
def test_extend_needs_a_positive_number(tmp_path: Path, number: str) -> None:
    start_study(tmp_path, "s", "las_tune --category part", is_finished=True)
    with pytest.raises(UserError, match="--extend must be at least 1, got .* Give the number of trials to add"):
        complete([f"--extend={number}", "--study", "s", "--results", str(tmp_path)])


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("--category a --address http://head:8265", "submit --category a --address http://head:8265 --follow"),
        ("tune --category a --address=ray://head:10001", "submit --category a --address=ray://head:10001 --follow"),
        ("--category a --address auto", "--category a --address auto"),
        ("list --address http://head:8265", "list --address http://head:8265"),
        ("--category a", "--category a"),
    ],
)
def test_study_on_a_remote_cluster_is_submitted_and_followed(typed: str, expected: str) -> None:
    assert as_submitted(typed.split()) == expected.split()


@pytest.mark.parametrize("flags", ["", "--data-root parts", "--study night"])
def test_submit_fills_in_the_folders_that_are_not_given(flags: str, run: Run) -> None:
    """Their defaults are relative, which a job cannot use."""
    folder = "parts" if "parts" in flags else "data/anomaly_dataset"
    ended = run("submit", "--category", "bolt", *flags.split())
    assert ended.code == 2
    assert ended.err.startswith(f"error: --data-root of a submitted study must be an absolute path, got {folder}. ")
