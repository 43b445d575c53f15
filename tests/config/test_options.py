"""Options are declared once: the command line and the library both use the declaration."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import pytest

import las_tune
from las_tune.config.options import KEY, TUNE, at_least, check_options, declarations, option
from las_tune.config.study_spec import StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.errors import UserError
from tests.parts import make_part


@dataclass(frozen=True, kw_only=True)
class Example:
    num_steps: int | None = option(
        None, "Steps.", "Search", TUNE, check=at_least(2), shown_default="all", flag="--steps"
    )

    def __post_init__(self) -> None:
        check_options(self)


def test_declaration_has_name_type_and_default() -> None:
    declaration = declarations(Example)["num_steps"]
    assert (declaration.type, declaration.default) == (int | None, None)
    assert (declaration.flag, declaration.label, declaration.shown_default) == ("--steps", "--steps", "all")
    assert declarations(Example, "train") == {}


def test_check_applies_to_given_values_only() -> None:
    assert Example().num_steps is None and Example(num_steps=2).num_steps == 2
    with pytest.raises(UserError) as error:
        Example(num_steps=1)
    assert str(error.value) == "--steps must be at least 2, got 1. The default is all."


def test_every_field_is_an_option() -> None:
    """Fields that are derived from other fields are excepted."""
    plain = {each.name for spec in (StudySpec, TrainSpec) for each in fields(spec) if KEY not in each.metadata}
    assert plain == {"train", "run", "command"}


def test_defaults_pass_their_own_checks() -> None:
    for name, declaration in declarations(StudySpec).items():
        if declaration.default not in (MISSING, inspect.Parameter.empty, None):
            declaration.check(declaration.default)
        assert declaration.option.help.endswith("."), name


PROGRAM = """
import sys
from dataclasses import dataclass
from las_tune.config import study_spec
from las_tune.config.options import TUNE, at_least, option

@dataclass(frozen=True, kw_only=True)
class Extended(study_spec.StudySpec):
    new_option: int = option(3, "A new option.", "Search", TUNE, check=at_least(1))

study_spec.StudySpec = Extended

from las_tune import api
from las_tune.cli.app import app
from las_tune.terminal import session

def search(specs, **_):
    print(specs[0].new_option)
    sys.exit(0)

session.search = search
if sys.argv[1] == "library":
    api.tune("part", data_root="d", new_option=int(sys.argv[2]), show_progress_bar=True)
else:
    app(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("arguments", "code", "printed"),
    [
        ("tune --help", 0, "--new-option INT"),
        ("tune --category part --data-root d --new-option 5", 0, "5"),
        ("tune --category part --data-root d", 0, "3"),
        (
            "tune --category part --data-root d --new-option 0",
            1,
            "--new-option must be at least 1, got 0. The default is 3.",
        ),
        ("library 7", 0, "7"),
        ("library 0", 1, "--new-option must be at least 1, got 0. The default is 3."),
    ],
)
def test_a_new_field_is_a_flag_and_a_keyword_argument(arguments: str, code: int, printed: str, tmp_path: Path) -> None:
    make_part(tmp_path / "d")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments.split()],
        cwd=tmp_path, env={"PYTHONPATH": str(Path(las_tune.__path__[0]).parent), "COLUMNS": "200"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code and printed in done.stdout + done.stderr, done.stderr
