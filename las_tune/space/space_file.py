"""One file of a search space: TOML, and each of its tables checked and made a knob."""

from __future__ import annotations

import difflib
import json
import math
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from las_tune.config.train_spec import TrainSpec, tunable_names
from las_tune.errors import SpaceError
from las_tune.space.knobs import Choice, Condition, Knob, Range

RANGE_KEYS = ("low", "high", "log", "seed", "reason", "when")
CHOICE_KEYS = ("values", "seed", "reason", "when")
OPTIONAL_KEYS = ("log", "when")


def parse(path: Path) -> dict[str, Any]:
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


def read_knob(path: Path, name: str, table: Any) -> Knob:
    """One table, checked."""
    names = tunable_names()
    require(f"{path}:", name in names, "every knob must be a tunable field", name, known(name, names))
    where = f"{path}: [{name}]"
    require(where, isinstance(table, dict), "must be a table", table, f"Write [{name}], its keys below")
    _check_keys(where, table)
    default = getattr(TrainSpec(), name)
    knob: Knob = _choice(where, default, table) if "values" in table else _range(where, default, table)
    seed = _value(f"{where} seed", default, table["seed"])
    same = seed == default or (not isinstance(seed, str) and math.isclose(seed, default, rel_tol=1e-9))
    shown = json.dumps(default)
    require(where, same, "seed must be the seed program's value", seed, f"Write seed = {shown}")
    require(where, knob.contains(default), f"must contain the baseline's {shown}", knob.ends, "Widen it")
    return knob


def _check_keys(where: str, table: dict[str, Any]) -> None:
    """Every key is known and none is missing."""
    keys = CHOICE_KEYS if "values" in table else RANGE_KEYS
    for key in table:
        require(where, key in keys, "must hold known keys only", key, known(key, keys))
    for key in keys:
        held = key in table or key in OPTIONAL_KEYS
        require(where, held, f"must hold {key}", list(table), f"Add {key} = ...")
    reason = table["reason"]
    require(where, isinstance(reason, str) and reason.strip(), "reason must be a text", reason, "Say why")


def _range(where: str, default: Any, table: dict[str, Any]) -> Range:
    """A table with low and high."""
    is_number = not isinstance(default, str | bool)
    require(where, is_number, "must hold values", list(table), "Write values = [...]")
    low, high = (_value(f"{where} {key}", default, table[key]) for key in ("low", "high"))
    log = table.get("log", False)
    require(where, isinstance(log, bool), "log must be true or false", log)
    require(where, low < high, "low must be below high", (low, high), "A knob that stays needs no table")
    require(where, low > 0 or not log, "low must be above 0 where log = true", low, "Raise low or drop log")
    return Range(low, high, log, isinstance(default, int), table["reason"], _condition(where, table))


def _choice(where: str, default: Any, table: dict[str, Any]) -> Choice:
    """A table with values."""
    values = _values(f"{where} values", default, table["values"])
    return Choice(values, table["reason"], _condition(where, table))


def _condition(where: str, table: dict[str, Any]) -> Condition:
    """The key when: a value or a list of values for each of some other knobs."""
    when = table.get("when", {})
    is_table = isinstance(when, dict) and (when or "when" not in table)
    require(where, is_table, "when must be a table, not empty", when, "Write when = { use_adaptor = true }")
    names = tunable_names()
    for other in when:
        require(f"{where} when", other in names, "must name tunable fields", other, known(other, names))
    condition = {}
    for other, wanted in when.items():
        listed = wanted if isinstance(wanted, list) else [wanted]
        values = _values(f"{where} when {other}", getattr(TrainSpec(), other), listed)
        condition[other] = tuple(sorted(values))  # their order says nothing
    return condition


def _values(where: str, default: Any, values: Any) -> tuple[Any, ...]:
    """A list of values, all different."""
    require(where, isinstance(values, list) and values, "must be a list, not empty", values)
    checked = tuple(_value(where, default, value) for value in values)
    require(where, len(set(checked)) == len(checked), "must differ", checked, "Remove the repeated ones")
    return checked


def _value(where: str, default: Any, value: Any) -> Any:
    """A TOML value in the type of the field's default."""
    if isinstance(default, str):
        require(where, isinstance(value, str), "must be text", value)
        return value
    if isinstance(default, bool):
        require(where, isinstance(value, bool), "must be true or false", value)
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    require(where, is_number and abs(value) <= sys.float_info.max, "must be a finite number", value)
    require(where, isinstance(default, float) or value % 1 == 0, "must be a whole number", value)
    return type(default)(value)


def require(where: str, holds: object, rule: str, received: object, do: str = "") -> None:
    """Raise the one line that a user reads when a file breaks a rule."""
    if not holds:
        raise SpaceError(f"{where} {rule}", f"{received!r:.100}", do)


def known(name: object, names: Iterable[str]) -> str:
    """The names that would do, and the closest of them."""
    names = list(names)
    closest = difflib.get_close_matches(str(name), names, n=1)
    return f"{f'Did you mean {closest[0]}? ' if closest else ''}Known: {', '.join(names) or 'none'}"
