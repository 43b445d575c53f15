"""Warm start: the first configurations of a search are the champions of other studies, moved into the space."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from las_tune.config import StudySpec, TrainSpec, model_name, paths
from las_tune.errors import UserError, require, type_and_message
from las_tune.reporting import Summary, read_summary
from las_tune.space import Choice, Parameter, Space


def warm_start_points(
    spec: StudySpec, space: Space, digest: str, champion_tags: Callable[[str], dict[str, str]]
) -> tuple[tuple[dict[str, Any], ...], list[str]]:
    """Return the configurations to start from, and one sentence on each name given with --warm-start.

    Args:
        spec: settings of the study. `warm_start` has names of finished studies in the results folder, or of categories
            whose registered model has a champion.
        space: the search space. Values outside it move to the nearest end; parameters outside it are left out.
        digest: digest of this study's split.
        champion_tags: returns the tags of a registered model's champion, or an empty dict.

    Raises: UserError for an unknown name, and for a configuration selected on images of this study's sealed test.
    """
    points: list[dict[str, Any]] = []
    sentences = []
    for name in spec.warm_start:
        params, source = _load_hyperparameters(name, spec, digest, champion_tags)
        point = fit_point(params, space)
        if point in (space.baseline, *points):
            sentences.append(f"warm start from {source}: already among the configurations, skipped")
            continue
        points.append(point)
        moved = [key for key, value in point.items() if key in params and params[key] != value]
        sentences.append(
            f"warm start from {source}" + (f" (moved into the space: {', '.join(moved)})" if moved else "")
        )
    return tuple(points), sentences


def check_warm_start_names(spec: StudySpec, space: Space, digest: str) -> None:
    """Raise UserError for an unknown --warm-start name before an MLflow store that does not exist yet is created."""
    file = Path(spec.tracking_uri.removeprefix("sqlite:///").partition("?")[0])
    if spec.tracking_uri.startswith("sqlite:///") and not file.exists():
        warm_start_points(spec, space, digest, lambda _: {})


def fit_point(params: dict[str, Any], space: Space) -> dict[str, Any]:
    """Return the nearest point of a space. A parameter without a value takes that of the reference configuration."""
    reference = TrainSpec().hyperparameters()
    point = {
        name: _nearest(parameter, params.get(name, reference[name])) for name, parameter in space.parameters.items()
    }
    return space.active(point)


def _nearest(parameter: Parameter, value: Any) -> Any:
    if isinstance(parameter, Choice):
        if value in parameter.values:
            return value
        numbers = [v for v in parameter.values if isinstance(v, int | float) and not isinstance(v, bool)]
        if numbers and isinstance(value, int | float):
            return min(numbers, key=lambda v: abs(v - value))
        return parameter.values[0]
    clipped = min(max(value, parameter.low), parameter.high)
    return round(clipped) if parameter.integer else clipped


def _load_hyperparameters(
    name: str, spec: StudySpec, digest: str, champion_tags: Callable[[str], dict[str, str]]
) -> tuple[dict[str, Any], str]:
    """Return the hyperparameters for one --warm-start name, and their source in words."""
    folder = spec.results / name
    if (folder / paths.SUMMARY).is_file():
        summary, digest_of_study = _read_study(folder)
        if summary.category == spec.category:
            _require_same_split(name, digest_of_study == digest and not summary.is_test_selected)
        is_baseline = (
            summary.champion.finalist == "baseline"
        )  # the best trial adds information, the baseline is evaluated anyway
        return dict((summary.best_trial if is_baseline else summary.champion).params), f"study {name}"
    tags = champion_tags(model_name(name))
    if "hyperparameters" in tags:
        if name == spec.category:
            _require_same_split(name, tags.get("digest") == digest)
        return dict(json.loads(tags["hyperparameters"])), f"the champion of {name}"
    raise UserError(
        f"--warm-start: {name} is neither a finished study in --results nor a category with a registered champion",
        remedy="Check the name; a finished study has a summary.json, and --tracking-uri names the MLflow store",
    )


def _read_study(folder: Path) -> tuple[Summary, str]:
    """Return the summary of a finished study, and the digest of its split."""
    summary, splits = read_summary(folder / paths.SUMMARY), folder / paths.SPLITS
    try:
        return summary, str(json.loads(splits.read_text(encoding="utf-8"))["digest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"--warm-start cannot read the splits of study {folder.name}: {type_and_message(error)}"
        raise UserError(problem, remedy="Leave the study out") from error


def _require_same_split(name: str, is_same: bool) -> None:
    """Raise UserError for hyperparameters selected on sealed images, which would bias the sealed test."""
    require(
        is_same,
        f"--warm-start: the hyperparameters of {name} were selected on images of this study's sealed test",
        remedy=f"Use the --seed, --holdout and --validation of {name}, or leave it out",
    )
