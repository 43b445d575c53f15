"""Search spaces: which hyperparameters a study moves, how far, and why. TOML files, checked before any trial.

See search_spaces/core.toml for the format.
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

from las_tune.config.train_spec import TrainSpec, tunable_names
from las_tune.errors import SpaceError, UserError
from las_tune.space.knobs import Choice, Knob
from las_tune.space.space_file import known, parse, read_knob, require

GENERAL_SPACES = ("core", "default", "extended")
"""Shipped spaces that are no category's own."""
SHARED_RULES = (("beta_min", "beta_max"),)
"""Fields that TrainSpec judges together."""


@dataclass(frozen=True)
class Space:
    """What one study searches."""

    name: str
    knobs: dict[str, Knob]
    """By name of the TrainSpec field, in the order of the fields."""
    sources: tuple[Path, ...]
    """The files that it was read from, parents first."""

    @property
    def baseline(self) -> dict[str, Any]:
        """Trial 0: the seed program's value of every knob whose condition holds for these values."""
        return self.active({name: getattr(TrainSpec(), name) for name in self.knobs})

    def active(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Those of some knobs' values that a trial with these values has: the conditions of the others do not hold."""
        return {name: value for name, value in values.items() if holds(self.knobs[name], values)}

    def fingerprint(self) -> str:
        """SHA-256 of the knobs without their reasons: equal where two studies search the same."""
        knobs = {name: asdict(knob) | {"reason": None} for name, knob in self.knobs.items()}
        for knob in knobs.values():
            if not knob["when"]:
                del knob["when"]
        return hashlib.sha256(json.dumps(knobs, sort_keys=True).encode()).hexdigest()


def holds(knob: Knob, values: Mapping[str, Any]) -> bool:
    """Whether a trial gets a knob, by the values of the knobs that its condition names."""
    return all(values[other] in wanted for other, wanted in knob.when.items())


def spaces_folder() -> Path:
    """The shipped spaces: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "search_spaces"
    return packaged if packaged.is_dir() else package.parent / "search_spaces"


def known_spaces() -> tuple[str, ...]:
    """Names of the shipped spaces, sorted."""
    return tuple(sorted(path.stem for path in spaces_folder().glob("*.toml")))


def space_for(category: str) -> Space:
    """The shipped space of a category; the default where it has none of its own."""
    is_own = category in known_spaces() and category not in GENERAL_SPACES
    return load_space(category if is_own else "default")


def load_space(name_or_path: str) -> Space:
    """Read and check a shipped space by its name, or a TOML file by its path."""
    return _load(_find(name_or_path, Path.cwd(), "--space"))


def _load(path: Path, children: tuple[Path, ...] = ()) -> Space:
    """Read one file over its parents. children: the files that led here by extends."""
    trail = " -> ".join(link.name for link in (*children, path))
    require(f"{path}:", path not in children, "extends must not lead in a circle", trail)
    tables = parse(path)
    knobs, sources = dict[str, Knob](), tuple[Path, ...]()
    if "extends" in tables:
        parent = _load(_find(tables.pop("extends"), path.parent, f"{path}: extends"), (*children, path))
        knobs, sources = parent.knobs, parent.sources
    kept = _without_dropped(path, knobs, tables)
    merged = kept | {name: read_knob(path, name, table) for name, table in tables.items()}
    knobs = {name: merged[name] for name in tunable_names() if name in merged}
    require(f"{path}:", knobs, "a space must hold a knob", 0, "Write extends = 'default' or [adaptor_lr]")
    _check_conditions(path, knobs)
    _check_ends(path, knobs)
    return Space(path.stem, knobs, (*sources, path))


def _find(name: Any, folder: Path, where: str) -> Path:
    """The file behind a name, or behind a path relative to folder."""
    rule = "must be the name of a space, or the path of a TOML file that exists"
    require(where, isinstance(name, str), rule, name, known(name, known_spaces()))
    is_path = name.endswith(".toml") or "/" in name or os.sep in name
    path = folder / name if is_path else spaces_folder() / f"{name}.toml"
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):  # absent; a circle of links; nothing that can name a file
        raise SpaceError(f"{where} {rule}", f"{name!r:.100}", known(name, known_spaces())) from None


def _without_dropped(path: Path, knobs: dict[str, Knob], tables: dict[str, Any]) -> dict[str, Knob]:
    """The parent's knobs but for those in drop, which leaves the tables."""
    drop = tables.pop("drop", [])
    where = f"{path}: drop"
    require(where, isinstance(drop, list), "must be a list of knobs", drop, "Write drop = ['beta_std']")
    for name in drop:
        require(where, name in list(knobs), "must name knobs of the parent", name, known(name, knobs))
        require(where, name not in tables, "must not name a knob of this file", name, "Keep one of the two")
    return {name: knob for name, knob in knobs.items() if name not in drop}


def _check_conditions(path: Path, knobs: dict[str, Knob]) -> None:
    """Conditions name choices of this space that have none themselves, and values that these can have."""
    for name, knob in knobs.items():
        choices = [other for other, its in knobs.items() if isinstance(its, Choice) and other != name]
        for other, wanted in knob.when.items():
            where = f"{path}: [{name}] when"
            require(where, other in choices, "must name other knobs with values", other, known(other, choices))
            its = knobs[other]
            require(where, not its.when, "must name knobs without a when", other, f"Drop the when of [{other}]")
            for value in wanted:
                rule = f"{other} must be among the values of [{other}]"
                require(where, its.contains(value), rule, value, f"Known: {json.dumps(its.ends)}")


def _check_ends(path: Path, knobs: dict[str, Knob]) -> None:
    """TrainSpec accepts the ends of every knob, and every combination of ends of knobs that share a rule."""
    for names in (*zip(knobs, strict=True), *SHARED_RULES):
        searched = [name for name in names if name in knobs]
        for corner in itertools.product(*(knobs[name].ends for name in searched)):
            try:
                TrainSpec().replace(**dict(zip(searched, corner, strict=True)))
            except UserError as error:
                where = " and ".join(f"[{name}]" for name in searched)
                raise SpaceError(f"{path}: {where} {error}".rstrip(".")) from None
