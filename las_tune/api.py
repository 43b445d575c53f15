"""The library: functions that do what the commands do, and return the results."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from las_tune.config import (
    DEMO_DEFAULTS,
    LIBRARY_COMMAND,
    REMOTE_SCHEMES,
    Command,
    StudySpec,
    TrainSpec,
    declarations,
    demo_folders,
    model_name,
    paths,
    plain_name,
    preserve_host_process,
)
from las_tune.errors import UserError

if TYPE_CHECKING:
    from las_tune.inference import Predictor
    from las_tune.reporting import RunSummary
    from las_tune.results import StudyResult, TrainingResult
    from las_tune.study import SingleResult

F = TypeVar("F", bound=Callable[..., Any])
COMMAND_LINE_ONLY = {"extend"}
"""Options that the command line resolves from the files of an earlier study."""
FOLDERS, URIS = ("data_root", "textures", "results"), ("storage", "tracking_uri")


def with_options(command: Command) -> Callable[[F], F]:
    """Show the declared options of a command in the signature of a function, in place of its `**options`."""

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        shown = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        shown += [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
            for name, default in _option_defaults(command).items()
        ]
        function.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
        return function

    return decorate


def _option_defaults(command: Command) -> dict[str, Any]:
    """Return the defaults of the keyword arguments of a function, by name.

    A search also accepts hyperparameters. They set the values that the search space does not tune.
    """
    return {
        name: each.default
        for name, each in declarations(StudySpec, None if command == "tune" else command).items()
        if name not in {"category", *COMMAND_LINE_ONLY}
    }


@with_options("tune")
def tune(category: str, *, show_progress_bar: bool = False, **options: Any) -> StudyResult:
    """Search the hyperparameters of a category and register the champion in MLflow, as `python -m las_tune` does.

    Args:
        category: a folder in `data_root`.
        show_progress_bar: print the progress and a table of trials.
        options: the flags of `python -m las_tune`, in snake case; their help text is the documentation. The most common
            ones are data_root, textures, results, study (the name of an interrupted study resumes it), demo, trials,
            epochs, validation and time_budget_s (in seconds).

    Raises: UserError, a ValueError, if an argument or the data is not valid.
    """
    (spec,) = _library_specs("tune", category, options)
    with preserve_host_process():
        from las_tune.results import StudyResult

        (summary,) = _search([spec], show_progress_bar).finished
        return StudyResult(summary, spec.folder)


@with_options("train")
def train(category: str, *, show_progress_bar: bool = False, **options: Any) -> TrainingResult:
    """Train a single detector, without Ray and MLflow, as `python -m las_tune train` does.

    Args:
        category: a folder in `data_root`.
        show_progress_bar: print the progress of the epochs.
        options: the flags of `python -m las_tune train`, in snake case, such as epochs, adaptor_lr, alpha or beta_mean.

    Raises: UserError, a ValueError, if an argument or the data is not valid.
    """
    (spec,) = _library_specs("train", category, options)
    with preserve_host_process():
        from las_tune.results import TrainingResult

        return TrainingResult(_train(spec, show_progress_bar), spec.folder)


def _search(specs: Sequence[StudySpec], show_progress_bar: bool) -> RunSummary:
    """Search with a display in the terminal, or silently."""
    if show_progress_bar:
        from las_tune.terminal import search

        return search(specs)
    from las_tune.study import launch_search

    return launch_search(specs)


def _train(spec: StudySpec, show_progress_bar: bool) -> SingleResult:
    """Train with a display in the terminal, or silently."""
    if show_progress_bar:
        from las_tune.terminal import train_detector

        return train_detector(spec)
    from las_tune.study import launch_training

    return launch_training(spec)


def load_champion(
    category: str, *, results: str | Path = paths.RESULTS, tracking_uri: str | Path = "", device: str = "cpu"
) -> Predictor:
    """Load the registered champion of a category from MLflow.

    Args:
        category: the category of the studies.
        results: folder of the studies, which contains the MLflow store if tracking_uri is empty.
        tracking_uri: URI of another MLflow store.
        device: cpu, cuda or auto.

    Raises: UserError if there is no champion.
    """
    uri = paths.store_uri(os.fspath(tracking_uri), Path(results))
    with preserve_host_process():
        from las_tune.inference import Predictor
        from las_tune.tracking import fetch_detector, preserve_mlflow_state

        with preserve_mlflow_state():
            file = fetch_detector(f"models:/{model_name(category)}@champion", uri)
        return Predictor(file, device)


def _library_specs(command: Command, category: str, options: Mapping[str, Any]) -> list[StudySpec]:
    """Check the arguments of a function, and return its spec."""
    known = _option_defaults(command)
    if unknown := sorted(options.keys() - known.keys()):
        raise UserError(
            f"{command}() has no option named {', '.join(unknown)}", remedy=f"Choose from {', '.join(sorted(known))}"
        )
    if category == "all":
        raise UserError(
            f"{command}() takes a single category, got 'all'",
            remedy="Call it once per category, or run `python -m las_tune --category all`",
        )
    if str(options.get("address", "")).startswith(REMOTE_SCHEMES):
        raise UserError(
            f"{command}() cannot submit a study to the remote cluster {options['address']}",
            remedy="Set address to auto or HOST:6379, or run `python -m las_tune submit`",
        )
    if isinstance(options.get("warm_start"), str):
        options = {**options, "warm_start": (options["warm_start"],)}
    return make_specs([category], options, command=LIBRARY_COMMAND)


def make_specs(categories: Sequence[str], options: Mapping[str, Any], command: str) -> list[StudySpec]:
    """Return one spec for each category. Several categories form one run, and the names of its studies start with the
    name of the run.

    Args:
        categories: names of folders in `data_root`, or "all".
        options: values by name; None or missing: the default, which depends on `demo`.
        command: the command line, for the record.

    Raises: UserError for a value that is not valid, and for a category that does not exist.
    """
    given = {name: value for name, value in options.items() if value is not None}
    study = given.pop("study", None)
    is_demo = given.get("demo", False)
    if is_demo:
        data_root, textures = demo_folders(categories)
        given = DEMO_DEFAULTS | given | {"data_root": data_root, "textures": textures}
    given = {name: declarations(StudySpec)[name].default for name in FOLDERS} | given
    if given.get("sampler") == "gp":
        given.setdefault("scheduler", "none")  # the Gaussian process models the results of complete trials
    given = {name: _absolute(name, value) for name, value in given.items()}
    names = list(categories) if is_demo else _find_categories(categories, given["data_root"])
    return _name_studies(names, study, given, command)


def _find_categories(categories: Sequence[str], data_root: Path) -> list[str]:
    from las_tune.data import find_categories

    return find_categories(categories, data_root)


def _name_studies(names: Sequence[str], study: str | None, given: Mapping[str, Any], command: str) -> list[StudySpec]:
    """Return one spec for each category, named after the category and the time unless the user named the study."""
    now = f"{datetime.now():%Y%m%d-%H%M%S}"
    train_names = {each.name for each in fields(TrainSpec)}
    first = StudySpec(
        category=names[0],
        study=study or f"{plain_name(names[0])}-{now}",
        train=TrainSpec(**{name: value for name, value in given.items() if name in train_names}),
        command=command,
        **{name: value for name, value in given.items() if name not in train_names},
    )
    if len(names) == 1:
        return [first]
    run = study or f"run-{now}"
    plain = [plain_name(name) for name in names]
    labels = [p if plain.count(p) == 1 else f"{p}-{index}" for index, p in enumerate(plain, start=1)]
    return [replace(first, category=n, study=f"{run}-{label}", run=run) for n, label in zip(names, labels, strict=True)]


def _absolute(name: str, value: Any) -> Any:
    """Return paths as absolute paths, because workers run in other folders."""
    if name in FOLDERS:
        return Path(value).absolute()
    if name in URIS:
        return paths.absolute_uri(os.fspath(value))
    if name == "space":
        value = os.fspath(value)
        return str(Path(value).absolute()) if value.endswith(".toml") or "/" in value else value
    if name == "backbone_weights" and value not in ("imagenet", "random"):
        return str(Path(value).absolute())
    return value
