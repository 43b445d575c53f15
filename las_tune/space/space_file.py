"""Read and check one TOML file of a search space. search_spaces/README.md documents the format."""

from __future__ import annotations

import difflib
import json
import math
import sys
import tomllib
import warnings
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from las_tune.config import TrainSpec, tunable_names
from las_tune.errors import SpaceError
from las_tune.errors import require as require_holds
from las_tune.space.parameters import Choice, Condition, Parameter, Range

RANGE_KEYS = ("low", "high", "log", "baseline", "reason", "when")
CHOICE_KEYS = ("values", "baseline", "reason", "when")
OPTIONAL_KEYS = ("log", "when")
DEPRECATED_BASELINE = "seed"
"""Name of the key `baseline` in version 0.1.0."""

require = partial(require_holds, error=SpaceError)


def parse(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises: SpaceError if the file cannot be read or is not TOML.
    """
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file)
        repr(tables)  # a hexadecimal number can have more digits than Python prints, so that error messages would fail
    except OSError as error:
        raise SpaceError(f"Cannot read search space {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SpaceError(f"{path} is not valid TOML: {error}", remedy="See https://toml.io for the syntax") from None
    return _without_deprecated_keys(path, tables)


def _without_deprecated_keys(path: Path, tables: dict[str, Any]) -> dict[str, Any]:
    """Rename the key `seed` of version 0.1.0 to `baseline`, with one warning per file."""
    renamed = dict(tables)
    for name, table in tables.items():
        if not isinstance(table, dict) or DEPRECATED_BASELINE not in table:
            continue
        both = "baseline" in table
        require(not both, f"{path}: [{name}] has both baseline and seed", remedy="Remove seed, the old name")
        renamed[name] = {"baseline" if key == DEPRECATED_BASELINE else key: value for key, value in table.items()}
    if renamed != tables:
        message = f"{path}: the key seed is deprecated. Rename it to baseline."
        warnings.warn(message, FutureWarning, stacklevel=2)
    return renamed


def read_parameter(path: Path, name: str, table: Any) -> Parameter:
    """Return the parameter that a table defines.

    Raises: SpaceError if the table breaks a rule of the format.
    """
    names = tunable_names()
    require(name in names, f"{path}: [{name}] is not a tunable hyperparameter", remedy=suggestion(name, names))
    where = f"{path}: [{name}]"
    require(
        isinstance(table, dict),
        f"{where} must be a table, got {shown(table)}",
        remedy=f"Write [{name}] with its keys below",
    )
    _check_keys(where, table)
    default = getattr(TrainSpec(), name)
    parameter: Parameter = _choice(where, default, table) if "values" in table else _range(where, default, table)
    baseline = _value(f"{where} baseline", default, table["baseline"])
    is_equal = baseline == default or (not isinstance(baseline, str) and math.isclose(baseline, default, rel_tol=1e-9))
    expected = json.dumps(default)
    require(
        is_equal,
        f"{where} baseline must be the value of the reference configuration, got {shown(baseline)}",
        remedy=f"Write baseline = {expected}",
    )
    require(
        parameter.contains(default),
        f"{where} must include the baseline value {expected}, got {shown(parameter.ends)}",
        remedy="Widen it",
    )
    return parameter


def _check_keys(where: str, table: dict[str, Any]) -> None:
    """Check that no key is unknown or missing, and that there is a reason."""
    keys = CHOICE_KEYS if "values" in table else RANGE_KEYS
    for key in table:
        require(key in keys, f"{where} has an unknown key {shown(key)}", remedy=suggestion(key, keys))
    for key in keys:
        require(
            key in table or key in OPTIONAL_KEYS,
            f"{where} has no key {key}, got {shown(list(table))}",
            remedy=f"Add {key} = ...",
        )
    reason = table["reason"]
    require(
        isinstance(reason, str) and reason.strip(),
        f"{where} reason must be text, got {shown(reason)}",
        remedy="State why the range has these bounds",
    )


def _range(where: str, default: Any, table: dict[str, Any]) -> Range:
    """Return the range of a table with low and high."""
    require(
        not isinstance(default, str | bool),
        f"{where} needs values instead of low and high",
        remedy="Write values = [...]",
    )
    low, high = (_value(f"{where} {key}", default, table[key]) for key in ("low", "high"))
    log = table.get("log", False)
    require(isinstance(log, bool), f"{where} log must be true or false, got {shown(log)}")
    require(
        low < high,
        f"{where} low must be below high, got {shown((low, high))}",
        remedy="Omit the table to keep the baseline value",
    )
    require(
        low > 0 or not log,
        f"{where} low must be above 0 with log = true, got {shown(low)}",
        remedy="Raise low or drop log",
    )
    return Range(low, high, log, isinstance(default, int), table["reason"], _condition(where, table))


def _choice(where: str, default: Any, table: dict[str, Any]) -> Choice:
    """Return the choice of a table with values."""
    values = _values(f"{where} values", default, table["values"])
    return Choice(values, table["reason"], _condition(where, table))


def _condition(where: str, table: dict[str, Any]) -> Condition:
    """Return the condition in the key `when`: by name of a parameter, a value or a list of values."""
    when = table.get("when", {})
    require(
        isinstance(when, dict) and (when or "when" not in table),
        f"{where} when must be a non-empty table, got {shown(when)}",
        remedy="Write when = { use_adaptor = true }",
    )
    names = tunable_names()
    for name in when:
        require(
            name in names,
            f"{where} when must name tunable hyperparameters, got {shown(name)}",
            remedy=suggestion(name, names),
        )
    condition = {}
    for name, allowed in when.items():
        listed = allowed if isinstance(allowed, list) else [allowed]
        values = _values(f"{where} when {name}", getattr(TrainSpec(), name), listed)
        condition[name] = tuple(sorted(values))  # sorted, so that the fingerprint does not depend on the order
    return condition


def _values(where: str, default: Any, values: Any) -> tuple[Any, ...]:
    """Return a list of distinct values, each in the type of the field's default."""
    require(isinstance(values, list) and values, f"{where} must be a non-empty list, got {shown(values)}")
    checked = tuple(_value(where, default, value) for value in values)
    require(
        len(set(checked)) == len(checked),
        f"{where} must be distinct, got {shown(checked)}",
        remedy="Remove the duplicates",
    )
    return checked


def _value(where: str, default: Any, value: Any) -> Any:
    """Return a TOML value in the type of the field's default."""
    if isinstance(default, str):
        require(isinstance(value, str), f"{where} must be text, got {shown(value)}")
        return value
    if isinstance(default, bool):
        require(isinstance(value, bool), f"{where} must be true or false, got {shown(value)}")
        return value
    is_finite = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    require(is_finite, f"{where} must be a finite number, got {shown(value)}")
    require(isinstance(default, float) or value % 1 == 0, f"{where} must be an integer, got {shown(value)}")
    return type(default)(value)


def shown(value: object) -> str:
    """Return a value for an error message, cut to 100 characters."""
    return f"{value!r:.100}"


def suggestion(name: object, names: Iterable[str]) -> str:
    """Return the remedy for an unknown name: the closest known name and the list of known names."""
    names = list(names)
    closest = difflib.get_close_matches(str(name), names, n=1)
    return f"{f'Did you mean {closest[0]}? ' if closest else ''}Known: {', '.join(names) or 'none'}"
