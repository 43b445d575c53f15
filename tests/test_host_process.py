"""The library does not change the process that calls it."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from las_tune.config.host_process import preserve_host_process
from las_tune.tracking.connection import preserve_mlflow_state
from tests.parts import make_part, make_textures

STATE = """
import json, logging, os, random, signal, sys, warnings
import numpy as np
import torch

def state():
    loggers = {name: logging.getLogger(name) for name in ("", "ray", "ray.tune", "mlflow", "optuna", "las_tune")}
    mlflow = sys.modules.get("mlflow")
    return {
        "environment": dict(os.environ),
        "filters": [str(each) for each in warnings.filters],
        "showwarning": str(warnings.showwarning),
        "arguments": list(sys.argv),
        "excepthook": str(sys.excepthook),
        "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)],
        "folder": os.getcwd(),
        "loggers": {name: [each.level, each.propagate, str(each.handlers)] for name, each in loggers.items()},
        "disabled": logging.root.manager.disable,
        "threads": torch.get_num_threads(),
        "python random state": hash(random.getstate()),
        "numpy random state": str(np.random.get_state()),
        "torch random state": torch.get_rng_state().tolist(),
        "tracking uri": mlflow and mlflow.get_tracking_uri(),
    }

def changes(before):
    return [name for name, value in state().items() if value != before[name]]
"""
OPTIONS = 'data_root="d", textures="t", backbone="resnet18", backbone_weights="random", image_size=32, epochs=1'


def run_script(script: str, folder: Path) -> Any:
    """Run a script in a separate process and return the JSON value that it printed last."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-c", STATE + script],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a category of noise images, and textures."""
    make_part(tmp_path / "d", train=8)
    make_textures(tmp_path / "t")
    return tmp_path


def test_importing_the_library_changes_nothing(tmp_path: Path) -> None:
    script = "before = state(); from las_tune import load_champion, train, tune; print(json.dumps(changes(before)))"
    assert run_script(script, tmp_path) == []


def test_importing_any_module_changes_nothing_that_its_libraries_do_not_change(tmp_path: Path) -> None:
    script = """
import importlib, pkgutil
import cyclopts, matplotlib.pyplot, mlflow.pyfunc, onnx, optuna, pandas, plotly.tools, ray.tune, rich, sklearn
import tensorboardX
import ray.tune.search.optuna, ray.job_submission, torchvision.models, torch._dynamo, mlflow.system_metrics
before = state()
import las_tune
for module in pkgutil.walk_packages(las_tune.__path__, "las_tune."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(json.dumps(changes(before)))
"""
    assert run_script(script, tmp_path) == []


def test_training_changes_nothing(folder: Path) -> None:
    script = f"""
from las_tune import train
import mlflow
before = state()
train("part", study="s", {OPTIONS})
print(json.dumps(changes(before)))
"""
    assert run_script(script, folder) == [] and (folder / "results/las/s/best_model_part.pth").exists()


@pytest.mark.slow
@pytest.mark.parametrize("imported", ["", "import mlflow, optuna, ray.tune"])
def test_search_changes_nothing(folder: Path, imported: str) -> None:
    script = f"""
from las_tune import tune
{imported}
before = state()
if "mlflow" not in sys.modules:
    before["tracking uri"] = f"sqlite:///{{os.getcwd()}}/mlflow.db"
tune("part", study="s", trials=2, finalists=1, seeds=2, {OPTIONS})
print(json.dumps([name for name in changes(before) if {bool(imported)} or name not in ("loggers", "tracking uri")]))
"""
    assert run_script(script, folder) == [] and (folder / "results/las/s/summary.json").exists()


def disturb(folder: Path) -> None:
    """Change everything that `preserve_host_process` restores."""
    os.environ["LAS_TUNE_ADDED"] = "1"
    os.environ["LAS_TUNE_CHANGED"] = "new"
    del os.environ["LAS_TUNE_REMOVED"]
    os.chdir(folder)
    sys.argv = ["other"]
    sys.excepthook = lambda *_: None
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    warnings.simplefilter("error")
    warnings.showwarning = lambda *_: None  # type: ignore[assignment]
    logging.disable(logging.ERROR)
    for name in ("", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
        logging.getLogger(name).addHandler(logging.NullHandler())
    logging.getLogger("ray.tune").propagate = False
    torch.set_num_threads(torch.get_num_threads() + 1)
    random.seed(1)
    np.random.seed(1)  # the global state is what is tested
    torch.manual_seed(1)


def snapshot() -> dict[str, Any]:
    """Return the state of this process."""
    namespace: dict[str, Any] = {}
    exec(STATE, namespace)
    state: Callable[[], dict[str, Any]] = namespace["state"]
    return state()


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_everything_is_restored(
    error: type[BaseException] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAS_TUNE_CHANGED", "old")
    monkeypatch.setenv("LAS_TUNE_REMOVED", "1")
    before, arguments = snapshot(), sys.argv
    try:
        with preserve_host_process():
            disturb(tmp_path)
            assert all(value != before[name] for name, value in snapshot().items() if name != "tracking uri")
            if error is not None:
                raise error
    except KeyboardInterrupt:
        assert error is not None
    assert snapshot() == before and sys.argv is arguments


@pytest.mark.parametrize("uri", ["", "sqlite:///other.db"])
def test_tracking_uri_is_restored(uri: str) -> None:
    import mlflow

    mlflow.set_tracking_uri(uri)
    with preserve_mlflow_state():
        mlflow.set_tracking_uri("sqlite:///inside.db")
    assert mlflow.get_tracking_uri() == uri


def test_search_restores_the_process_after_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from las_tune import tune
    from las_tune.study import launch

    def run_studies(*_: object) -> None:
        disturb(folder)
        raise RuntimeError("failed")

    monkeypatch.setattr(launch, "run_studies", run_studies)
    monkeypatch.setenv("LAS_TUNE_REMOVED", "1")
    monkeypatch.chdir(folder)
    before = snapshot()
    with pytest.raises(RuntimeError, match="failed"):
        tune("part", study="s", data_root="d", textures="t")
    assert snapshot() == before
