"""Search spaces: which hyperparameters a study moves, how far, and why. TOML files, checked before any trial.

See search_spaces/default.toml for the format.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import math
import os
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from las_tune.errors import SpaceError, UserError
from las_tune.spec import TrainSpec, tunable_names

RANGE_KEYS = ("low", "high", "log", "seed", "reason")
CHOICE_KEYS = ("values", "seed", "reason")
SHARED_RULES = (("beta_min", "beta_max"),)
"""Fields that TrainSpec judges together."""


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, both included."""

    low: float
    high: float
    log: bool = False
    """Searched evenly in its logarithm."""
    integer: bool = False
    """Whole numbers only; the ends are ints then, and floats otherwise."""
    reason: str = ""

    @property
    def ends(self) -> tuple[Any, ...]:
        """Both ends: where TrainSpec accepts them, it accepts what lies between."""
        return (self.low, self.high)

    def contains(self, value: Any) -> bool:
        """Whether a trial may have this value."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and not (self.integer and value % 1)


@dataclass(frozen=True)
class Choice:
    """A few values without order."""

    values: tuple[Any, ...]
    reason: str = ""

    @property
    def ends(self) -> tuple[Any, ...]:
        """All values: they have no order."""
        return self.values

    def contains(self, value: Any) -> bool:
        """Whether a trial may have this value."""
        return value in self.values


Knob: TypeAlias = Range | Choice


@dataclass(frozen=True)
class Space:
    """What one study searches."""

    name: str
    knobs: dict[str, Knob]
    """By name of the TrainSpec field, in the order of the fields."""
    baseline: dict[str, Any]
    """The seed program's value of every knob: trial 0."""
    sources: tuple[Path, ...]
    """The files that it was read from, parents first."""

    def fingerprint(self) -> str:
        """SHA-256 of the knobs without their reasons: equal where two studies search the same."""
        knobs = {name: asdict(knob) | {"reason": None} for name, knob in self.knobs.items()}
        return hashlib.sha256(json.dumps(knobs, sort_keys=True).encode()).hexdigest()


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
    return load_space(category if category in known_spaces() else "default")


def load_space(name_or_path: str) -> Space:
    """Read and check a shipped space by its name, or a TOML file by its path."""
    return _load(_find(name_or_path, Path.cwd(), "--space"))


def _load(path: Path, children: tuple[Path, ...] = ()) -> Space:
    """Read one file over its parents. children: the files that led here by extends."""
    trail = " -> ".join(link.name for link in (*children, path))
    _require(f"{path}:", path not in children, "extends must not lead in a circle", trail)
    tables = _parse(path)
    knobs, sources = dict[str, Knob](), tuple[Path, ...]()
    if "extends" in tables:
        parent = _load(_find(tables.pop("extends"), path.parent, f"{path}: extends"), (*children, path))
        knobs, sources = parent.knobs, parent.sources
    kept = _without_dropped(path, knobs, tables)
    merged = kept | {name: _knob(path, name, table) for name, table in tables.items()}
    knobs = {name: merged[name] for name in tunable_names() if name in merged}
    _require(f"{path}:", knobs, "a space must hold a knob", 0, "Write extends = 'default' or [adaptor_lr]")
    _check_ends(path, knobs)
    baseline = {name: getattr(TrainSpec(), name) for name in knobs}
    return Space(path.stem, knobs, baseline, (*sources, path))


def _find(name: Any, folder: Path, where: str) -> Path:
    """The file behind a name, or behind a path relative to folder."""
    rule = "must be the name of a space, or the path of a TOML file that exists"
    _require(where, isinstance(name, str), rule, name, _known(name, known_spaces()))
    is_path = name.endswith(".toml") or "/" in name or os.sep in name
    path = folder / name if is_path else spaces_folder() / f"{name}.toml"
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):  # absent; a circle of links; nothing that can name a file
        raise SpaceError(f"{where} {rule}", f"{name!r:.100}", _known(name, known_spaces())) from None


def _parse(path: Path) -> dict[str, Any]:
    """The tables of one file."""
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file)
        repr(tables)  # a hexadecimal number can have more digits than Python would print in an error
    except OSError as error:
        raise SpaceError(f"{path}: must be a file that can be read", error.strerror) from None
    except (ValueError, RecursionError) as error:
        raise SpaceError(f"{path}: must be TOML", error, "See https://toml.io") from None
    return tables


def _without_dropped(path: Path, knobs: dict[str, Knob], tables: dict[str, Any]) -> dict[str, Knob]:
    """The parent's knobs but for those in drop, which leaves the tables."""
    drop = tables.pop("drop", [])
    where = f"{path}: drop"
    _require(where, isinstance(drop, list), "must be a list of knobs", drop, "Write drop = ['beta_std']")
    for name in drop:
        _require(where, name in list(knobs), "must name knobs of the parent", name, _known(name, knobs))
        _require(where, name not in tables, "must not name a knob of this file", name, "Keep one of the two")
    return {name: knob for name, knob in knobs.items() if name not in drop}


def _knob(path: Path, name: str, table: Any) -> Knob:
    """One table, checked."""
    known = tunable_names()
    _require(f"{path}:", name in known, "every knob must be a tunable field", name, _known(name, known))
    where = f"{path}: [{name}]"
    _require(where, isinstance(table, dict), "must be a table", table, f"Write [{name}], its keys below")
    _check_keys(where, table)
    default = getattr(TrainSpec(), name)
    knob: Knob = _choice(where, default, table) if "values" in table else _range(where, default, table)
    seed = _value(f"{where} seed", default, table["seed"])
    same = seed == default or (not isinstance(seed, str) and math.isclose(seed, default, rel_tol=1e-9))
    shown = json.dumps(default)
    _require(where, same, "seed must be the seed program's value", seed, f"Write seed = {shown}")
    _require(where, knob.contains(default), f"must contain the baseline's {shown}", knob.ends, "Widen it")
    return knob


def _check_keys(where: str, table: dict[str, Any]) -> None:
    """Every key is known and none is missing."""
    keys = CHOICE_KEYS if "values" in table else RANGE_KEYS
    for key in table:
        _require(where, key in keys, "must hold known keys only", key, _known(key, keys))
    for key in keys:
        _require(where, key in table or key == "log", f"must hold {key}", list(table), f"Add {key} = ...")
    reason = table["reason"]
    _require(where, isinstance(reason, str) and reason.strip(), "reason must be a text", reason, "Say why")


def _range(where: str, default: Any, table: dict[str, Any]) -> Range:
    """A table with low and high."""
    _require(where, not isinstance(default, str), "must hold values", list(table), "Write values = [...]")
    low, high = (_value(f"{where} {key}", default, table[key]) for key in ("low", "high"))
    log = table.get("log", False)
    _require(where, isinstance(log, bool), "log must be true or false", log)
    _require(where, low < high, "low must be below high", (low, high), "A knob that stays needs no table")
    _require(where, low > 0 or not log, "low must be above 0 where log = true", low, "Raise low or drop log")
    return Range(low, high, log, isinstance(default, int), table["reason"])


def _choice(where: str, default: Any, table: dict[str, Any]) -> Choice:
    """A table with values."""
    values = table["values"]
    _require(where, isinstance(values, list) and values, "values must be a list, not empty", values)
    values = tuple(_value(f"{where} values", default, value) for value in values)
    _require(where, len(set(values)) == len(values), "values must differ", values, "Remove the repeated ones")
    return Choice(values, table["reason"])


def _value(where: str, default: Any, value: Any) -> Any:
    """A TOML value in the type of the field's default."""
    if isinstance(default, str):
        _require(where, isinstance(value, str), "must be text", value)
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    _require(where, is_number and abs(value) <= sys.float_info.max, "must be a finite number", value)
    _require(where, isinstance(default, float) or value % 1 == 0, "must be a whole number", value)
    return type(default)(value)


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


def _require(where: str, holds: object, rule: str, received: object, do: str = "") -> None:
    """Raise the one line that a user reads when a file breaks a rule."""
    if not holds:
        raise SpaceError(f"{where} {rule}", f"{received!r:.100}", do)


def _known(name: object, names: Iterable[str]) -> str:
    """The names that would do, and the closest of them."""
    names = list(names)
    closest = difflib.get_close_matches(str(name), names, n=1)
    return f"{f'Did you mean {closest[0]}? ' if closest else ''}Known: {', '.join(names) or 'none'}"
