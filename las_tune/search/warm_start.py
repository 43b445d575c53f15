"""What other studies found, tried first: their champions' hyperparameters, fitted to this study's space."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from las_tune.config import paths
from las_tune.config.study_spec import StudySpec, model_name
from las_tune.config.train_spec import TrainSpec
from las_tune.errors import UserError
from las_tune.space.knobs import Choice, Knob
from las_tune.space.search_space import Space


def warm_points(
    spec: StudySpec, space: Space, digest: str, champion_tags: Callable[[str], dict[str, str]]
) -> tuple[tuple[dict[str, Any], ...], list[str]]:
    """Points of a space to start from, and a sentence on each name of --warm-start.

    Args:
        spec: names of studies in its results folder, or of categories with a champion in the model registry.
        space: what is searched; values outside it move to its nearest end, knobs that are not searched are left out.
        digest: of this study's sealed test.
        champion_tags: tags of the champion of a registered model; empty without one.

    Raises: UserError for a name that is neither, and for what was chosen by images of this sealed test.
    """
    points: list[dict[str, Any]] = []
    sentences = []
    for name in spec.warm_start:
        params, source = _found(name, spec, digest, champion_tags)
        point = fit_point(params, space)
        if point in (space.baseline, *points):
            sentences.append(f"warm start from {source}: nothing new, its point is there already")
            continue
        points.append(point)
        moved = [key for key, value in point.items() if key in params and params[key] != value]
        sentences.append(
            f"warm start from {source}" + (f" (moved into the space: {', '.join(moved)})" if moved else "")
        )
    return tuple(points), sentences


def require_known(spec: StudySpec, space: Space, digest: str) -> None:
    """Raise UserError for an unknown name before a store is made: one that is not there yet holds no champion."""
    file = Path(spec.tracking_uri.removeprefix("sqlite:///").partition("?")[0])
    if spec.tracking_uri.startswith("sqlite:///") and not file.exists():
        warm_points(spec, space, digest, lambda _: {})


def fit_point(params: dict[str, Any], space: Space) -> dict[str, Any]:
    """The point of a space nearest to some hyperparameters; a knob that they lack takes the seed's value."""
    usual = TrainSpec().hyperparameters()
    point = {name: _nearest(knob, params.get(name, usual[name])) for name, knob in space.knobs.items()}
    return space.active(point)


def _nearest(knob: Knob, value: Any) -> Any:
    if isinstance(knob, Choice):
        if value in knob.values:
            return value
        numbers = [v for v in knob.values if isinstance(v, int | float) and not isinstance(v, bool)]
        if numbers and isinstance(value, int | float):
            return min(numbers, key=lambda v: abs(v - value))
        return knob.values[0]
    clipped = min(max(value, knob.low), knob.high)
    return round(clipped) if knob.integer else clipped


def _found(
    name: str, spec: StudySpec, digest: str, champion_tags: Callable[[str], dict[str, str]]
) -> tuple[dict[str, Any], str]:
    """Hyperparameters by the name of a study or a category, and where they are from."""
    folder = spec.results / name
    if (folder / paths.SUMMARY).is_file():
        try:
            found = json.loads((folder / paths.SUMMARY).read_text(encoding="utf-8"))
            its_digest = json.loads((folder / paths.SPLITS).read_text(encoding="utf-8"))["digest"]
            if found["category"] == spec.category:
                _require_unseen(name, its_digest == digest and not found["test_selected"])
            kept = found["champion"]["finalist"] == "baseline"  # its best trial is more of a hint than its values
            return dict(found["best_trial" if kept else "champion"]["params"]), f"study {name}"
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                "--warm-start takes studies of this version", f"{folder} ({error!r})", "leave it out"
            ) from error
    tags = champion_tags(model_name(name))
    if "hyperparameters" in tags:
        if name == spec.category:
            _require_unseen(name, tags.get("digest") == digest)
        return dict(json.loads(tags["hyperparameters"])), f"the champion of {name}"
    raise UserError(
        "--warm-start takes finished studies in --results, or categories with a champion in the MLflow store",
        name,
        "look for its summary.json, or in the store that --tracking-uri names",
    )


def _require_unseen(name: str, is_unseen: bool) -> None:
    """What was chosen by images that are sealed here would make the sealed test's numbers flatter."""
    if not is_unseen:
        raise UserError(
            "--warm-start must not take what was chosen by images of this sealed test",
            f"{name}, which split the same category in another way",
            "use its --seed, --holdout and --validation",
        )
