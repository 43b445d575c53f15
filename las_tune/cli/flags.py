"""Flags of the commands, built from the options that TrainSpec and StudySpec declare."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from cyclopts import Group, Parameter

from las_tune.config import DEMO_DEFAULTS, Command, Declaration, OptionGroup, StudySpec, declarations

F = TypeVar("F", bound=Callable[..., Any])
GROUPS = {name: Group(name, sort_key=key) for key, name in enumerate(get_args(OptionGroup), start=1)}


def flag(group: OptionGroup, text: str, default: str | None = None, **attributes: Any) -> Parameter:
    """Return a flag.

    Args:
        group: section of `--help`.
        text: description in `--help`.
        default: default in `--help`, if it differs from that of the parameter.
        attributes: further attributes of cyclopts' Parameter.
    """
    show = None if default is None else (lambda _: default)
    return Parameter(group=GROUPS[group], help=text, show_default=show, **attributes)


def option_flag(name: str) -> Parameter:
    """Return the flag of a declared option, for a command that declares the parameter itself."""
    return _flag_of(declarations(StudySpec)[name])


def with_options(command: Command, names: Collection[str] | None = None) -> Callable[[F], F]:
    """Replace the `**options` of a function by keyword parameters, one for each declared option.

    Options that are not given are missing from `options`, so that defaults are resolved in one place (api.make_specs).

    Args:
        command: the command whose options these are.
        names: only these options; None: all of them.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        kept = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        declared = declarations(StudySpec, command).values()
        added = [_parameter(each) for each in declared if names is None or each.name in names]
        first_keyword = sum(each.kind is not inspect.Parameter.KEYWORD_ONLY for each in kept)
        kept[first_keyword:first_keyword] = added
        function.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
        function.__annotations__ |= {each.name: each.annotation for each in added}
        return function

    return decorate


def _parameter(declaration: Declaration) -> inspect.Parameter:
    kind = declaration.option.flag_type or declaration.type
    is_required = declaration.default is inspect.Parameter.empty
    return inspect.Parameter(
        declaration.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if is_required else None,
        annotation=Annotated[kind if is_required else kind | None, _flag_of(declaration)],
    )


def _flag_of(declaration: Declaration) -> Parameter:
    default = declaration.shown_default or None
    if declaration.name in DEMO_DEFAULTS:
        default = f"{default}; demo: {DEMO_DEFAULTS[declaration.name]}"
    attributes: dict[str, Any] = {"name": declaration.flag} if declaration.option.flag else {}
    if declaration.default is not True:
        attributes["negative"] = ""
    if isinstance(declaration.default, tuple):
        attributes["consume_multiple"] = True
    return flag(declaration.option.group, declaration.option.help, default, **attributes)


Category = Annotated[list[str], option_flag("category")]
DataRoot = Annotated[Path, option_flag("data_root")]
Results = Annotated[Path, option_flag("results")]
TrackingUri = Annotated[str, option_flag("tracking_uri")]
Experiment = Annotated[str, option_flag("experiment")]
