"""What a person sees while it runs: progress, and a live table of trials."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from las_tune.config.formatting import format_params, format_seconds
from las_tune.config.study_spec import StudySpec
from las_tune.config.trial_record import TrialRecord

SHOWN_TRIALS = 12
WIDTH = 140
SPEED_OVER_S = 1800.0
"""The time left is reckoned from this much of the past: an epoch may take minutes."""


def make_console(**settings: Any) -> Console:
    """Of stdout: wide where nobody sees how wide it is, as in logs."""
    console = Console(highlight=False, soft_wrap=True, **settings)
    if not console.is_terminal:
        console.width = WIDTH
    return console


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal's stderr, told of (what, done, total), so that stdout is the result alone."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda what, done, total: None
        return
    with Progress(*_columns(), console=console, transient=True, redirect_stdout=False) as bar:
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
    """Draws the trials of all studies; without a terminal it prints one line a stage and one a trial."""

    def __init__(self, title: str, specs: Sequence[StudySpec], is_search: bool = True) -> None:
        """is_search: finalists are trained after the trials."""
        self.console = make_console()
        self._title = title
        self._num_studies = len(specs)
        self._epochs_per_trial = specs[0].train.epochs
        self._rows: list[tuple[str, TrialRecord]] = []
        self._stage = ""
        self._bar = Progress(*_columns(), console=self.console, speed_estimate_period=SPEED_OVER_S)
        trainings = sum(s.trials + (s.num_again(len(specs)) if is_search else 0) for s in specs)
        total = trainings * self._epochs_per_trial
        self._steps = self._bar.add_task("", total=1)
        self._epochs = self._bar.add_task("epochs", total=total, visible=False)
        self._live = Live(
            self._bar, console=self.console, refresh_per_second=4, transient=True, redirect_stderr=False
        )  # stderr goes where it went: into the log
        self._began = time.time()

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
        """The Listener of one study."""
        return StudyView(self, category)

    def progress(self, what: str, done: int, total: int) -> None:
        """A stage before or after the trials goes on; one that is told as done at once is a sentence to be kept."""
        if what != self._stage:
            self._stage = what
            if (done, total) == (1, 1):
                self.console.print(what)
            elif not self.console.is_terminal:
                self.console.print(f"{what} ...")
        self._bar.update(self._steps, description=what, completed=done, total=total)

    def start(self, category: str, trial: TrialRecord) -> None:
        """A new row."""
        self._rows.append((category, trial))
        self._bar.update(self._epochs, visible=True)
        self.advance(trial, 0)

    def advance(self, trial: TrialRecord, num_epochs: int) -> None:
        """Some epochs are done, or not needed any more. Those of trials that an earlier driver began say nothing of
        how fast it goes: there is just less to do.
        """
        if trial.started < self._began:
            self._bar.update(self._epochs, total=max(0, (self._task.total or 0) - num_epochs))
        else:
            self._bar.advance(self._epochs, num_epochs)
        if self.console.is_terminal:
            self._live.update(Group(self._table(SHOWN_TRIALS), self._bar))

    def end(self, category: str, trial: TrialRecord) -> None:
        """The epochs that a stopped trial did not need are done, too."""
        self.advance(trial, self._epochs_per_trial - len(trial.epochs))
        if not self.console.is_terminal:
            best = f"{trial.best['objective']:.4f} in epoch {int(trial.best['epoch'])}" if trial.best else trial.reason
            name = trial.title if trial.finalist else f"trial {trial.number:3d}"
            what = "" if trial.finalist else f"  {format_params(trial.params)}"
            where = f"{category}  " if self._num_studies > 1 else ""
            self.console.print(f"{where}{name}  {trial.status:9s}  {best}{what}{self._left()}")

    def _left(self) -> str:
        """Time until all epochs are done, where a terminal's bar does not say it."""
        left = self._task.time_remaining
        return f"  (about {format_seconds(left)} left)" if left else ""

    @property
    def _task(self) -> Task:
        return next(task for task in self._bar.tasks if task.id == self._epochs)

    def _table(self, most: int) -> Table:
        columns = ["trial", "status", "epoch", "objective", "best", "seconds", "hyperparameters"]
        several = self._num_studies > 1
        table = Table(*(["category"] if several else []), *columns)
        for category, trial in self._rows[-most:]:
            best = max(t.best_objective or 0 for name, t in self._rows if name == category)
            last = trial.epochs[-1]["objective"] if trial.epochs else None
            style = "bold green" if trial.best_objective == best else "red" if trial.status == "failed" else None
            table.add_row(
                *([category] if several else []),
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


class StudyView:
    """A Listener that draws one study's trials on the console of all."""

    def __init__(self, console: StudyConsole, category: str) -> None:
        self._console = console
        self._category = category

    def trial_started(self, trial: TrialRecord) -> None:
        """A new row."""
        self._console.start(self._category, trial)

    def epoch_ended(self, trial: TrialRecord) -> None:
        """The row moves on."""
        self._console.advance(trial, 1)

    def trial_ended(self, trial: TrialRecord) -> None:
        """The row is final."""
        self._console.end(self._category, trial)
