"""Search spaces: the hyperparameters that a study tunes, with a range or choice and a reason for each.

Spaces are TOML files, checked before the first trial. search_spaces/README.md documents the format.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from las_tune.config import TrainSpec, tunable_names
from las_tune.errors import SpaceError, UserError
from las_tune.space.parameters import Choice, Parameter
from las_tune.space.space_file import parse, read_parameter, require, shown, suggestion

GENERAL_SPACES = ("core", "default", "extended")
"""Included spaces that belong to no category."""
SHARED_RULES = (("beta_min", "beta_max"),)
"""Fields that TrainSpec checks together."""


@dataclass(frozen=True)
class Space:
    """The search space of one study."""

    name: str
    parameters: dict[str, Parameter]
    """Parameters by name of the TrainSpec field, in the order of the fields."""
    sources: tuple[Path, ...]
    """The files that define the space, parents first."""

    @property
    def baseline(self) -> dict[str, Any]:
        """Hyperparameters of trial 0: the reference configuration's value of every active parameter."""
        return self.active({name: getattr(TrainSpec(), name) for name in self.parameters})

    def active(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the active parameters, whose conditions match the given values."""
        return {name: value for name, value in values.items() if holds(self.parameters[name], values)}

    def fingerprint(self) -> str:
        """Return a SHA-256 of the parameters without their reasons, to compare the spaces of two studies."""
        parameters = {name: asdict(parameter) | {"reason": None} for name, parameter in self.parameters.items()}
        for parameter in parameters.values():
            if not parameter["when"]:
                del parameter["when"]
        return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()


def holds(parameter: Parameter, values: Mapping[str, Any]) -> bool:
    """Return whether the condition of a parameter matches the values of the other parameters."""
    return all(values[name] in allowed for name, allowed in parameter.when.items())


def spaces_folder() -> Path:
    """Return the folder of the included spaces, inside the installed package or next to it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "search_spaces"
    return packaged if packaged.is_dir() else package.parent / "search_spaces"


def known_spaces() -> tuple[str, ...]:
    """Return the sorted names of the included spaces."""
    return tuple(sorted(path.stem for path in spaces_folder().glob("*.toml")))


def space_for(category: str) -> Space:
    """Return the included space of a category, or the default space if there is none for it."""
    has_file = category in known_spaces() and category not in GENERAL_SPACES
    return load_space(category if has_file else "default")


def load_space(name_or_path: str) -> Space:
    """Read and check a search space.

    Args:
        name_or_path: name of an included space, or path of a TOML file.

    Raises: SpaceError if the space does not exist or breaks a rule of the format.
    """
    return _load(_find(name_or_path, Path.cwd(), "--space"))


def _load(path: Path, children: tuple[Path, ...] = ()) -> Space:
    """Read one file and the files that it extends. `children` are the files that lead to it."""
    trail = " -> ".join(link.name for link in (*children, path))
    require(path not in children, f"{path}: extends forms a cycle: {trail}", remedy="Remove one of these extends keys")
    tables = parse(path)
    parameters, sources = dict[str, Parameter](), tuple[Path, ...]()
    if "extends" in tables:
        parent = _load(_find(tables.pop("extends"), path.parent, f"{path}: extends"), (*children, path))
        parameters, sources = parent.parameters, parent.sources
    kept = _without_dropped(path, parameters, tables)
    merged = kept | {name: read_parameter(path, name, table) for name, table in tables.items()}
    parameters = {name: merged[name] for name in tunable_names() if name in merged}
    require(
        parameters,
        f"{path}: the search space has no parameter",
        remedy='Write extends = "default", or a table such as [adaptor_lr]',
    )
    _check_conditions(path, parameters)
    _check_ends(path, parameters)
    return Space(path.stem, parameters, (*sources, path))


def _find(name: Any, folder: Path, where: str) -> Path:
    """Return the file of an included space, or of a path relative to `folder`."""
    rule = f"{where} must be the name of a search space or the path of an existing TOML file, got {shown(name)}"
    remedy = suggestion(name, known_spaces())
    require(isinstance(name, str), rule, remedy=remedy)
    is_path = name.endswith(".toml") or "/" in name or os.sep in name
    path = folder / name if is_path else spaces_folder() / f"{name}.toml"
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):  # not found, a cycle of links, or not a valid file name
        raise SpaceError(rule, remedy=remedy) from None


def _without_dropped(path: Path, parameters: dict[str, Parameter], tables: dict[str, Any]) -> dict[str, Parameter]:
    """Return the parent's parameters without those listed in `drop`, and remove `drop` from `tables`."""
    drop = tables.pop("drop", [])
    where = f"{path}: drop"
    require(
        isinstance(drop, list),
        f"{where} must be a list of parameters, got {shown(drop)}",
        remedy='Write drop = ["beta_std"]',
    )
    for name in drop:
        require(
            name in list(parameters),
            f"{where} must name parameters of the extended file, got {shown(name)}",
            remedy=suggestion(name, parameters),
        )
        require(
            name not in tables,
            f"{where} names {name}, which this file also defines",
            remedy=f"Remove it from drop, or remove the table [{name}]",
        )
    return {name: parameter for name, parameter in parameters.items() if name not in drop}


def _check_conditions(path: Path, parameters: dict[str, Parameter]) -> None:
    """Check that conditions name unconditional choices of this space, and values that these choices have."""
    choices = {name: parameter for name, parameter in parameters.items() if isinstance(parameter, Choice)}
    for name, parameter in parameters.items():
        for required, allowed in parameter.when.items():
            where = f"{path}: [{name}] when"
            names = [choice for choice in choices if choice != name]
            require(
                required in names,
                f"{where} must name other parameters that have values, got {shown(required)}",
                remedy=suggestion(required, names),
            )
            choice = choices[required]
            require(
                not choice.when,
                f"{where} names {required}, which is itself conditional",
                remedy=f"Remove the when of [{required}]",
            )
            for value in allowed:
                require(
                    choice.contains(value),
                    f"{where} {required} must be one of the values of [{required}], got {shown(value)}",
                    remedy=f"Known: {json.dumps(choice.ends)}",
                )


def _check_ends(path: Path, parameters: dict[str, Parameter]) -> None:
    """Check that TrainSpec accepts the ends of every parameter, and all combinations of ends under a shared rule."""
    for names in (*zip(parameters, strict=True), *SHARED_RULES):
        searched = [name for name in names if name in parameters]
        for corner in itertools.product(*(parameters[name].ends for name in searched)):
            try:
                TrainSpec().replace(**dict(zip(searched, corner, strict=True)))
            except UserError as error:
                where = " and ".join(f"[{name}]" for name in searched)
                raise SpaceError(f"{path}: {where} {error}".rstrip(".")) from None
