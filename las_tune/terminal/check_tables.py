"""What `data check`, `data init`, `space check` and `doctor` print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Column, Table

from las_tune.terminal.progress import make_console
from las_tune.terminal.tables import print_lines


def print_check(name: str, checked: Any) -> None:
    """What a category holds, as a table, and its problems."""
    console = make_console()
    table = Table("part", "defect", "images", "masks", "sizes", "kinds", title=name)
    for row in checked.rows:
        sizes = ", ".join(map(str, row.sizes)) if not isinstance(row.sizes, str) else row.sizes
        kinds = ", ".join(map(str, row.kinds)) if not isinstance(row.kinds, str) else row.kinds
        table.add_row(row.part, row.defect, str(row.images), str(row.masks), sizes, kinds)
    console.print(table)
    print_lines([f"problem: {problem}" for problem in checked.problems] or ["no problems found"])


def print_layout(made: Any) -> None:
    """Which links were made, what a study would use them for, and the command for it."""
    counts = ", ".join(f"{part} {number}" for part, number in made.counts.items())
    names = ("fit", "calibration", "validation", "sealed_test")
    parts = ", ".join(f"{name.replace('_', ' ')} {len(getattr(made.split, name))}" for name in names)
    lines = [f"{made.folder}: {counts} (links)", f"a study splits them so: {parts}"]
    if made.duplicates:
        lines.append(f"{made.duplicates} files that are there twice, byte by byte, were left out")
    lines += [f"note: {warning}" for warning in made.warnings]
    command = f"python -m las_tune --category {made.folder.name} --data-root {made.folder.parent}"
    print_lines([*lines, "next:", f"  {command} {made.flags}".rstrip()])


def print_effects(name: str, effects: Sequence[Any]) -> None:
    """What each knob of a space moved: shares of mask pixels and patches, mean change of a color, change of loss."""
    knob = Column("knob", no_wrap=True)
    table = Table(knob, "from", "to", "masks", "images", "labels", "loss after 2 epochs", title=f"space {name}")
    for effect in effects:
        moved = (effect.masks, effect.images, effect.labels, effect.loss)
        ends = (f"{end:.3g}" if isinstance(end, float) else str(end) for end in (effect.start, effect.end))
        style = None if effect.is_any else "bold red"
        table.add_row(effect.knob, *ends, *(f"{value:.2g}" if value else "-" for value in moved), style=style)
    make_console().print(table)


def print_diagnosis(found: Any, is_mended: bool) -> None:
    """What became of a study, and on what its accounts differ."""
    state = "finished" if found.is_finished else "unfinished, the same command goes on with it"
    counts = f"{found.num_trials} trials, {found.num_again} trainings over new seeds"
    verdict = "clean" if not found.problems else f"{len(found.problems)} problems"
    lines = [f"  {problem.kind}: {problem.text}" for problem in found.problems]
    if found.problems:
        lines.append("  these could not be mended" if is_mended else "  `doctor --fix` mends what can be mended")
    print_lines([f"study {found.study} ({state}): {counts}: {verdict}", *lines])
