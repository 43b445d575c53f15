"""--resume and --extend: what is left out is what the study was begun with. A study of another cluster is submitted."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from las_tune.cli.arguments import as_submitted, complete
from las_tune.errors import UserError


def begun(results: Path, name: str, command: str, *, run: str = "", is_finished: bool = False, trials: int = 8) -> None:
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
def test_flags_that_are_given_stand_in_for_recorded_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: str, given: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    begun(tmp_path / "r", "s", recorded)
    assert complete(shlex.split(given)) == shlex.split(expected)


def test_without_the_flags_nothing_is_read(tmp_path: Path) -> None:
    assert complete(["--study", "s", "--results", str(tmp_path)]) == ["--study", "s", "--results", str(tmp_path)]
    assert complete([]) == []
    assert complete(["submit", "--resume", "--study", "s"]) == ["submit", "--resume", "--study", "s"], "the cluster's"


def test_trials_are_added_to_those_that_the_study_has(tmp_path: Path) -> None:
    begun(tmp_path, "s", "las_tune --category part --trials 4", is_finished=True, trials=12)
    found = complete(["--extend", "6", "--study", "s", "--results", str(tmp_path)])
    assert found[:4] == ["--category", "part", "--trials", "18"]
    again = complete(["--extend=6", "--study", "s", "--results", str(tmp_path)])
    assert "18" in again


def test_a_run_is_found_by_its_name(tmp_path: Path) -> None:
    begun(tmp_path, "both-a", "las_tune --category a --category b --study both", run="both")
    begun(tmp_path, "both-later", "las_tune --category later", run="")
    found = complete(["--resume", "--study", "both", "--results", str(tmp_path)])
    assert found[:4] == ["--category", "a", "--category", "b"]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("--resume", "need the --study that they go on with, in --results, got no --study in {here}. Known: s."),
        ("--resume --study other", "got other in {here}. Known: s."),
        ("--extend 4 --study s", "--extend adds trials to a finished study, got s. finish it: --resume --study s."),
        ("--resume --study half", "A study that goes on must have its files whole, got {here}/half ("),
    ],
)
def test_what_cannot_go_on_is_one_line(tmp_path: Path, given: str, line: str) -> None:
    begun(tmp_path, "s", "las_tune --category part")
    if "half" in given:
        begun(tmp_path, "half", "las_tune --category part")
        (tmp_path / "half/study.json").write_text('{"ask')
    with pytest.raises(UserError) as refused:
        complete([*given.split(), "--results", str(tmp_path)])
    assert line.format(here=tmp_path) in str(refused.value)


@pytest.mark.parametrize("number", ["", "0", "-3", "many", "1.5"])
def test_extend_wants_a_number(tmp_path: Path, number: str) -> None:
    begun(tmp_path, "s", "las_tune --category part", is_finished=True)
    with pytest.raises(UserError, match="--extend must be the number of trials to add, at least 1"):
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
def test_a_study_of_another_cluster_is_submitted_and_followed(typed: str, expected: str) -> None:
    assert as_submitted(typed.split()) == expected.split()
