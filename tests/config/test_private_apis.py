"""The private names that las_tune uses exist in the installed packages, and no others are used."""

from __future__ import annotations

import ast
import importlib
import inspect
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import las_tune
from las_tune.config.private_apis import PRIVATE_APIS, PrivateAPI

PACKAGE = Path(las_tune.__file__).parent
PUBLIC = {"_exit"}
"""Documented names with an underscore: os._exit."""
PRIVATE_TEXT = re.compile(r"^_[A-Z_]+[A-Z]$|^[a-z.]+\._[a-z]+$")
"""Strings that name a private environment variable or module."""


def make_efficientnet(efficientnet: Any) -> Any:
    return efficientnet.from_name("efficientnet-lite0")


FACTORIES: dict[str, Callable[[Any], Any]] = {"EfficientNet": make_efficientnet}
"""How to make an instance of a class whose constructor has required arguments."""


def resolve(path: str) -> Any:
    """Return what a dotted path leads to: modules first, then attributes of objects or of instances of classes."""
    parts = path.split(".")
    value: Any = importlib.import_module(parts[0])
    for depth, part in enumerate(parts[1:], 2):
        if inspect.ismodule(value) and not hasattr(value, part):
            value = importlib.import_module(".".join(parts[:depth]))
            continue
        if inspect.isclass(value) and not hasattr(value, part):
            value = FACTORIES.get(value.__name__, lambda cls: cls())(value)
        value = getattr(value, part)
    return value


def own_names() -> set[str]:
    """Return all names that las_tune defines itself: functions, classes, variables and attributes."""
    names = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
    return names


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name.strip("_") != ""


def private_names(file: Path, own: set[str]) -> Iterator[str]:
    """Yield the private names of other packages in a file: attributes, imports and texts."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr not in own | PUBLIC:
            yield from [node.attr] if is_private(node.attr) else []
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            names = [*module.split("."), *(part for alias in node.names for part in alias.name.split("."))]
            yield from (name for name in names if is_private(name) and name not in own)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and PRIVATE_TEXT.match(node.value):
            yield node.value.rpartition(".")[2]


@pytest.mark.parametrize("api", PRIVATE_APIS, ids=lambda api: api.path)
def test_private_api_exists_in_the_installed_version(api: PrivateAPI) -> None:
    assert resolve(api.path) is not None


def test_dropped_api_is_detected() -> None:
    with pytest.raises((AttributeError, ImportError)):
        resolve("ray._private.state.state.get_nodes_of_another_version")


def test_private_apis_in_the_code_are_those_in_the_list() -> None:
    own = own_names()
    used = {
        (".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts), name)
        for file in PACKAGE.rglob("*.py")
        if file.stem != "private_apis"
        for name in private_names(file, own)
    }
    assert used == {(api.used_in, api.name) for api in PRIVATE_APIS}


def test_environment_variable_of_mlflow_has_the_expected_name() -> None:
    variable = resolve("mlflow.environment_variables._MLFLOW_IS_IN_SERVING_ENVIRONMENT")
    assert variable.name == "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"


def test_quiet_optuna_silences_the_gp_sampler_and_restores_the_levels() -> None:
    from las_tune.search.optuna_storage import GP_LOGGER, quiet_optuna

    module = resolve("optuna._gp.batched_lbfgsb").__name__
    assert module.startswith(GP_LOGGER)  # Optuna names a logger after its module
    levels = logging.getLogger("optuna").level, logging.getLogger(module).getEffectiveLevel()
    with quiet_optuna():
        assert logging.getLogger("optuna").level == logging.WARNING
        assert logging.getLogger(module).getEffectiveLevel() == logging.ERROR
    assert (logging.getLogger("optuna").level, logging.getLogger(module).getEffectiveLevel()) == levels
