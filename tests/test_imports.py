"""Imports of the library and of the numerical core stay small."""

from __future__ import annotations

import subprocess
import sys

from tests.test_docstrings import PACKAGE


def loaded_modules(program: str) -> set[str]:
    """Return the modules that a program loads, run in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {program}; print(*sys.modules)"],
        cwd=PACKAGE.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_library_loads_neither_cyclopts_nor_rich() -> None:
    assert not loaded_modules("from las_tune import tune, train, load_champion") & {"cyclopts", "rich"}


def test_library_loads_no_command_line_when_it_checks_its_arguments() -> None:
    program = "from las_tune import tune\ntry: tune('all')\nexcept ValueError: pass\nimport sys"
    loaded = loaded_modules(f"exec({program!r})")
    assert not [name for name in loaded if name.startswith(("las_tune.cli", "las_tune.terminal", "rich", "cyclopts"))]


def test_numerical_core_loads_no_ray_mlflow_or_optuna() -> None:
    modules = sorted(f"las_tune.las.{file.stem}" for file in (PACKAGE / "las").glob("[!_]*.py"))
    assert len(modules) > 10
    assert not loaded_modules(f"import {', '.join(modules)}") & {"ray", "mlflow", "optuna"}
