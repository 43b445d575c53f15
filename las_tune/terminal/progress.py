"""Live display in the terminal: progress bars, and a table of trials."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as ProgressBar
from rich.table import Table

from las_tune.config import Listener, Progress, StudySpec, TrialRecord, format_params, format_seconds, no_progress

MAX_LIVE_ROWS = 12
"""Rows of the table while the study runs; at the end it is printed in full."""
DEFAULT_WIDTH = 140
"""Width in characters where stdout is not a terminal."""
SPEED_ESTIMATE_S = 1800.0
"""Period over which the speed is estimated. It is long, because an epoch may take minutes."""


def make_console(**settings: Any) -> Console:
    """Return a console on stdout, with a fixed width if stdout is not a terminal."""
    console = Console(highlight=False, soft_wrap=True, **settings)
    if not console.is_terminal:
        console.width = DEFAULT_WIDTH
    return console


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show a progress bar on stderr, because stdout holds the result. Without a terminal, nothing is shown."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield no_progress
        return
    with ProgressBar(*_columns(), console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("", total=1)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


def _columns() -> tuple[ProgressColumn, ...]:
    return (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )


class StudyConsole:
    """Context manager that shows the trials of all studies of a run.

    In a terminal it draws a live table. Otherwise it prints a line for every stage and every trial.
    """

    def __init__(self, title: str, specs: Sequence[StudySpec], is_search: bool = True) -> None:
        """Prepare the display.

        Args:
            title: first line.
            specs: settings of the studies of the run.
            is_search: whether finalists are retrained after the trials.
        """
        self.console = make_console()
        self._title = title
        self._num_studies = len(specs)
        self._epochs_per_trial = specs[0].train.epochs
        self._rows: list[tuple[str, TrialRecord]] = []
        self._stage = ""
        self._bar = ProgressBar(*_columns(), console=self.console, speed_estimate_period=SPEED_ESTIMATE_S)
        num_trainings = sum(s.trials + (s.num_retrainings(len(specs)) if is_search else 0) for s in specs)
        total = num_trainings * self._epochs_per_trial
        self._steps = self._bar.add_task("", total=1)
        self._epochs = self._bar.add_task("epochs", total=total, visible=False)
        self._live = Live(
            self._bar, console=self.console, refresh_per_second=4, transient=True, redirect_stderr=False
        )  # stderr is redirected to the log file
        self._start_time = time.time()

    def __enter__(self) -> StudyConsole:
        self.console.print(f"[bold]{self._title}[/bold]")
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live.is_started:
            self._live.stop()
        if self._rows and self.console.is_terminal:
            self.console.print(self._table(len(self._rows)))

    def study(self, category: str) -> StudyView:
        """Return the listener of one study."""
        return StudyView(self, category)

    def progress(self, what: str, done: int, total: int) -> None:
        """Show a stage. A new stage that is reported as 1 of 1 is a message, which stays on the screen."""
        if what != self._stage:
            self._stage = what
            if (done, total) == (1, 1):
                self.console.print(what)
            elif not self.console.is_terminal:
                self.console.print(f"{what} ...")
        self._bar.update(self._steps, description=what, completed=done, total=total)

    def add_trial(self, category: str, trial: TrialRecord) -> None:
        """Add a row for a trial that has started."""
        self._rows.append((category, trial))
        self._bar.update(self._epochs, visible=True)
        self.advance(trial, 0)

    def advance(self, trial: TrialRecord, num_epochs: int) -> None:
        """Count epochs of a trial that are done, or not needed anymore.

        Epochs of trials that started before this process did are subtracted from the total instead: they would distort
        the estimate of the speed.
        """
        if trial.started < self._start_time:
            self._bar.update(self._epochs, total=max(0, (self._task.total or 0) - num_epochs))
        else:
            self._bar.advance(self._epochs, num_epochs)
        if self.console.is_terminal:
            self._live.update(Group(self._table(MAX_LIVE_ROWS), self._bar))

    def end_trial(self, category: str, trial: TrialRecord) -> None:
        """Show the final state of a trial. Epochs that a stopped trial skipped count as done."""
        self.advance(trial, self._epochs_per_trial - len(trial.epochs))
        if not self.console.is_terminal:
            self.console.print(self._line(category, trial))

    def _line(self, category: str, trial: TrialRecord) -> str:
        """Describe a trial that has ended, with the remaining time."""
        best = f"{trial.best['objective']:.4f} in epoch {int(trial.best['epoch'])}" if trial.best else trial.reason
        name = trial.title if trial.finalist else f"trial {trial.number:3d}"
        params = "" if trial.finalist else f"  {format_params(trial.params)}"
        prefix = f"{category}  " if self._num_studies > 1 else ""
        left = self._task.time_remaining
        remaining = f"  (about {format_seconds(left)} left)" if left else ""
        return f"{prefix}{name}  {trial.status:9s}  {best}{params}{remaining}"

    @property
    def _task(self) -> Task:
        return next(task for task in self._bar.tasks if task.id == self._epochs)

    def _table(self, max_rows: int) -> Table:
        columns = ["trial", "status", "epoch", "objective", "best", "seconds", "hyperparameters"]
        has_categories = self._num_studies > 1
        table = Table(*(["category"] if has_categories else []), *columns)
        for category, trial in self._rows[-max_rows:]:
            best = max(other.best_objective or 0 for name, other in self._rows if name == category)
            last = trial.epochs[-1]["objective"] if trial.epochs else None
            style = "bold green" if trial.best_objective == best else "red" if trial.status == "failed" else None
            table.add_row(
                *([category] if has_categories else []),
                trial.title.removeprefix("trial ") if not trial.finalist else trial.title,
                trial.status,
                f"{len(trial.epochs)}/{self._epochs_per_trial}",
                "" if last is None else f"{last:.4f}",
                "" if trial.best_objective is None else f"{trial.best_objective:.4f}",
                f"{trial.seconds:.0f}",
                format_params(trial.params),
                style=style,
            )
        return table


class StudyView(Listener):
    """Listener that shows the trials of one study on a console."""

    def __init__(self, console: StudyConsole, category: str) -> None:
        self._console = console
        self._category = category

    def trial_started(self, trial: TrialRecord) -> None:
        """Add a row."""
        self._console.add_trial(self._category, trial)

    def epoch_ended(self, trial: TrialRecord) -> None:
        """Update the row."""
        self._console.advance(trial, 1)

    def trial_ended(self, trial: TrialRecord) -> None:
        """Show the final state."""
        self._console.end_trial(self._category, trial)
