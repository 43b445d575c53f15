"""Options: a field of TrainSpec or StudySpec declares its type, default, help text and check in one place.

The command line builds its flags from these declarations, and the library its keyword arguments.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field
from inspect import Parameter
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from las_tune.config.formatting import format_value
from las_tune.errors import require

T = TypeVar("T")
Command = Literal["tune", "train"]
OptionGroup = Literal["Data", "Training", "Search", "Resources", "Results and record"]

TUNE: tuple[Command, ...] = ("tune",)
TRAIN: tuple[Command, ...] = ("train",)
BOTH: tuple[Command, ...] = ("tune", "train")
KEY = "option"
"""Key of an Option in the metadata of its field."""


@dataclass(frozen=True)
class Check:
    """A condition on the value of an option."""

    rule: str
    """Completes the sentence "--trials must be ..."."""
    holds: Callable[[Any], bool]


@dataclass(frozen=True, kw_only=True)
class Option:
    """Declaration of one option."""

    help: str
    group: OptionGroup
    commands: tuple[Command, ...]
    """Commands, and functions of the library, that have the option."""
    check: Check | None = None
    """Condition on a value that is not None."""
    remedy: str = ""
    """Second sentence of the error when the check fails. If it is empty, the default is shown."""
    shown_default: str = ""
    """Default in the help text, if it differs from the default of the field."""
    flag: str = ""
    """Flag on the command line; empty: made from the name of the field."""
    flag_type: Any = None
    """Type on the command line, if it differs from the type of the field."""
    flag_default: Any = Parameter.empty
    """Default of the flag of a required field; Parameter.empty if the flag is required, too."""
    tunable: bool = False
    """True for hyperparameters, which a search space may hold."""


@dataclass(frozen=True)
class Declaration:
    """An option with the name, type and default of its field."""

    name: str
    type: Any
    default: Any
    """Default of the flag; Parameter.empty if it is required."""
    option: Option

    @property
    def flag(self) -> str:
        """Return the flag, for example "--image-size"."""
        return self.option.flag or f"--{self.name.replace('_', '-')}"

    @property
    def label(self) -> str:
        """Return the name in error messages: the flag, or the name of the field where `tune` has no such flag."""
        return self.flag if "tune" in self.option.commands else self.name

    @property
    def shown_default(self) -> str:
        """Return the default as text; empty for a required option."""
        return self.option.shown_default or ("" if self.default is Parameter.empty else format_value(self.default))

    def check(self, value: Any) -> None:
        """Raise UserError for a value that breaks the rule. None stands for a default that is resolved later."""
        check, remedy = self.option.check, self.option.remedy
        if check is None or (value is None and self.default is None):
            return
        if not remedy and self.shown_default:
            remedy = f"The default is {self.shown_default}"
        require(check.holds(value), f"{self.label} must be {check.rule}, got {value!r}", remedy=remedy)


def option(default: T, help: str, group: OptionGroup, commands: tuple[Command, ...], **attributes: Any) -> T:
    """Declare an option as a field of a dataclass.

    Args:
        default: default of the field, the flag and the keyword argument.
        help: description in `--help`.
        group: section of `--help`.
        commands: TUNE, TRAIN or BOTH.
        attributes: further attributes of Option.
    """
    declared = Option(help=help, group=group, commands=commands, **attributes)
    declared_field: T = field(default=default, metadata={KEY: declared})
    return declared_field


def required(help: str, group: OptionGroup, commands: tuple[Command, ...], **attributes: Any) -> Mapping[str, Option]:
    """Return the metadata that declares an option as a field without a default. Args: see `option`."""
    return {KEY: Option(help=help, group=group, commands=commands, **attributes)}


@functools.cache
def declarations(spec: type[Any], command: Command | None = None) -> Mapping[str, Declaration]:
    """Return the options of a spec by name, those of nested specs included, in the order of the fields.

    Args:
        spec: a dataclass, such as StudySpec.
        command: only the options of this command; None: all of them.
    """
    types = get_type_hints(spec)
    found: dict[str, Declaration] = {}
    for each in dataclasses.fields(spec):
        if dataclasses.is_dataclass(types[each.name]):
            found |= declarations(types[each.name], command)
        elif (declared := each.metadata.get(KEY)) and (command is None or command in declared.commands):
            default = declared.flag_default if each.default is MISSING else each.default
            found[each.name] = Declaration(each.name, types[each.name], default, declared)
    return found


def check_options(spec: Any) -> None:
    """Raise UserError for the first value of a spec that breaks the rule of its option."""
    for name, declaration in declarations(spec.__class__).items():
        if hasattr(spec, name):  # nested specs have checked their own
            declaration.check(getattr(spec, name))


def at_least(low: float) -> Check:
    """Require a value of at least `low`."""
    return Check(f"at least {low}", lambda value: value >= low)


def above(low: float, unit: str = "") -> Check:
    """Require a finite value greater than `low`."""
    return Check(f"greater than {low}{unit} and finite", lambda value: low < value < math.inf)


def between(low: float, high: float, unit: str = "") -> Check:
    """Require a value from `low` to `high`, both included."""
    return Check(f"between {low} and {high}{unit}", lambda value: low <= value <= high)


def inside(low: float, high: float) -> Check:
    """Require a value between `low` and `high`, both excluded."""
    return Check(f"between {low} and {high}, both excluded", lambda value: low < value < high)


def one_of(choices: Any) -> Check:
    """Require one of the values of a Literal type."""
    values = get_args(choices)
    return Check(f"one of {', '.join(values)}", lambda value: value in values)
