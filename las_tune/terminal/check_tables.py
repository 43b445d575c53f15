"""Output of `data check`, `data init`, `space check` and `doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Column, Table

from las_tune.terminal.progress import make_console
from las_tune.terminal.tables import print_lines

if TYPE_CHECKING:
    from las_tune.data import CategoryCheck, CategoryLayout
    from las_tune.space import Effect
    from las_tune.study import Diagnosis


def print_check(name: str, check: CategoryCheck) -> None:
    """Print the contents of a category as a table, and its problems."""
    table = Table("part", "defect", "images", "masks", "sizes", "formats", title=name)
    for row in check.rows:
        counts = (str(row.images), str(row.masks))
        table.add_row(row.part, row.defect, *counts, ", ".join(row.sizes), ", ".join(row.formats))
    make_console().print(table)
    print_lines([f"problem: {problem}" for problem in check.problems] or ["No problems found."])


def print_layout(layout: CategoryLayout) -> None:
    """Print the links of a new category, how a study splits its images, and the command that starts the study."""
    counts = ", ".join(f"{part} {number}" for part, number in layout.counts.items())
    names = ("fit", "calibration", "validation", "sealed_test")
    parts = ", ".join(f"{name.replace('_', ' ')} {len(getattr(layout.split, name))}" for name in names)
    lines = [f"{layout.folder}: {counts} (links)", f"A study splits the images into {parts}."]
    if layout.duplicates:
        lines.append(f"Duplicate files skipped: {layout.duplicates}.")
    lines += [f"note: {warning}" for warning in layout.warnings]
    command = f"python -m las_tune --category {layout.folder.name} --data-root {layout.folder.parent}"
    print_lines([*lines, "next:", f"  {command} {layout.flags}".rstrip()])


def print_effects(name: str, effects: Sequence[Effect]) -> None:
    """Print the effects of the parameters of a space: changed fractions of pixels and labels, change of loss."""
    parameter = Column("parameter", no_wrap=True)
    table = Table(parameter, "from", "to", "masks", "images", "labels", "loss after 2 epochs", title=f"space {name}")
    for effect in effects:
        changes = (effect.masks, effect.images, effect.labels, effect.loss)
        ends = (f"{end:.3g}" if isinstance(end, float) else str(end) for end in (effect.start, effect.end))
        style = None if effect.is_any else "bold red"
        table.add_row(effect.parameter, *ends, *(f"{value:.2g}" if value else "-" for value in changes), style=style)
    make_console().print(table)


def print_diagnosis(diagnosis: Diagnosis, is_fixed: bool) -> None:
    """Print the state of a study, and the inconsistencies between its records.

    Args:
        diagnosis: diagnosis of the study.
        is_fixed: whether `--fix` ran before.
    """
    state = "finished" if diagnosis.is_finished else "unfinished, rerun the same command to resume"
    counts = f"{diagnosis.num_trials} trials, {diagnosis.num_retrainings} retrainings"
    verdict = f"{len(diagnosis.problems)} problems" if diagnosis.problems else "consistent"
    lines = [f"  {problem.kind}: {problem.text}" for problem in diagnosis.problems]
    if diagnosis.problems:
        lines.append("  These problems cannot be fixed." if is_fixed else "  Run `doctor --fix` to fix them.")
    print_lines([f"study {diagnosis.study} ({state}): {counts}: {verdict}", *lines])
