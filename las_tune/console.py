"""What a person sees: progress, a live table of trials, and an end that says what was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

from las_tune.tracking.record import TrialRecord

SHOWN_TRIALS = 12


class StudyConsole:
    """A Listener that draws; without a terminal it prints one line a stage and one a trial."""

    def __init__(self, title: str, total_epochs: int, epochs_per_trial: int) -> None:
        self._console = Console(highlight=False)
        self._title = title
        self._epochs_per_trial = epochs_per_trial
        self._trials: dict[int, TrialRecord] = {}
        self._stage = ""
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._steps = self._bar.add_task("", total=1)
        self._epochs = self._bar.add_task("epochs", total=total_epochs, visible=False)
        self._live = Live(self._bar, console=self._console, refresh_per_second=4, transient=True)

    def __enter__(self) -> StudyConsole:
        self._console.print(f"[bold]{self._title}[/bold]")
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live.is_started:
            self._live.stop()
        if self._trials and self._console.is_terminal:
            self._console.print(self._table(len(self._trials)))

    def progress(self, what: str, done: int, total: int) -> None:
        """A stage before or after the trials goes on."""
        if what != self._stage:
            self._stage = what
            if not self._console.is_terminal:
                self._console.print(f"{what} ...")
        self._bar.update(self._steps, description=what, completed=done, total=total)

    def trial_started(self, trial: TrialRecord) -> None:
        """A new row."""
        self._trials[trial.number] = trial
        self._bar.update(self._epochs, visible=True)
        self._draw()

    def epoch_ended(self, trial: TrialRecord) -> None:
        """The row moves on."""
        self._bar.advance(self._epochs)
        self._draw()

    def trial_ended(self, trial: TrialRecord) -> None:
        """The epochs that a stopped trial did not need are done, too."""
        self._bar.advance(self._epochs, self._epochs_per_trial - len(trial.epochs))
        self._draw()
        if not self._console.is_terminal:
            best = f"{trial.best['objective']:.4f} in epoch {int(trial.best['epoch'])}" if trial.best else trial.reason
            what = trial.title if trial.finalist else format_params(trial.params)
            line = f"trial {trial.number:3d}  {trial.status:9s}  {best}  {what}"
            self._console.print(line)

    def _draw(self) -> None:
        self._live.update(Group(self._table(SHOWN_TRIALS), self._bar))

    def _table(self, most: int) -> Table:
        table = Table("trial", "status", "epoch", "objective", "best", "seconds", "hyperparameters")
        best = max((t.best_objective or 0 for t in self._trials.values()), default=0)
        for trial in list(self._trials.values())[-most:]:
            last = trial.epochs[-1]["objective"] if trial.epochs else None
            style = "bold green" if trial.best_objective == best else "red" if trial.status == "failed" else None
            table.add_row(
                f"{trial.number}{' baseline' if trial.is_baseline else ''}",
                trial.status,
                f"{len(trial.epochs)}/{self._epochs_per_trial}",
                "" if last is None else f"{last:.4f}",
                "" if trial.best_objective is None else f"{trial.best_objective:.4f}",
                f"{trial.seconds:.0f}",
                format_params(trial.params),
                style=style,
            )
        return table


def format_params(params: dict[str, Any]) -> str:
    """adaptor_lr 0.0001, alpha 0.333, ..."""
    return ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in params.items())


def print_summary(summary: dict[str, Any], folder: Any) -> None:
    """Baseline, champion, gain, and where to look."""
    console = Console(highlight=False, soft_wrap=True)
    if summary["demo"]:
        console.print("[bold yellow]DEMO[/bold yellow]: rendered pictures, a short search. These are demo results.")
    console.print(_gains(summary))
    promotion, counts = summary["promotion"], summary["trials"]
    console.print(f"promotion: {promotion['reason']}")
    if promotion["tied"]:
        console.print(f"tied with {promotion['best']} within the noise: {', '.join(promotion['tied'])}")
    reference = summary["reference"]
    if reference["memory_bank_wins"]:
        console.print(
            "[bold yellow]the memory bank, which learns nothing, does better on the sealed test[/bold yellow]: "
            f"{summary['objective']} {reference['memory_bank']:.4f} against {reference['champion']:.4f}"
        )
    print_openings(summary["test_openings"])
    print_left_out(summary["skipped"], summary["masks_missing"])
    cost = summary["cost"]
    console.print(
        f"{counts['total']} trials: {counts['completed']} completed, {counts['pruned']} pruned, "
        f"{counts['failed']} failed, in {summary['seconds']:.0f} s ({cost['trial_seconds']:.0f} s of training, "
        f"finalists included, {cost['lost_seconds']:.0f} s lost)"
    )
    console.print(f"champion: {format_params(summary['champion']['params'])}")
    console.print(f"model:    {summary['model_uri']}")
    print_lines([f"files:    {folder}"])
    console.print("compare the trials:")
    if summary["tracking_uri"].startswith("http"):
        address = summary["tracking_uri"].rstrip("/")
    else:
        console.print(f"  mlflow ui --backend-store-uri {summary['tracking_uri']} --port 5000")
        address = "http://127.0.0.1:5000"
    console.print(f"  {address}/#/experiments/{summary['experiment_id']}/runs/{summary['parent_run_id']}")


def _gains(summary: dict[str, Any]) -> Table:
    """Means over seeds: baseline, champion, gain with its interval, and the memory bank that learns nothing."""
    title = f"{summary['category']}: study {summary['study']}, means over seeds"
    table = Table("", "baseline", "champion", "gain (95% interval)", "memory bank", title=title)
    names = [summary[role]["finalist"] for role in ("baseline", "champion")]
    table.add_row("trained again", *names, "", "")
    validation, gain = summary["validation_mean"], summary["promotion"]["gain"]
    is_one = names[0] == names[1]
    table.add_row(
        f"validation {summary['objective']} (selected on)",
        f"{validation['baseline']:.4f}",
        f"{validation['champion']:.4f}",
        "" if is_one else format_interval(gain),
        f"{validation['memory_bank']:.4f}",
    )
    means = summary["test_mean"]
    for name, ours in means["champion"].items():
        theirs, interval = means["baseline"][name], summary["test_gain"].get(name)
        shown = format_interval(interval) if interval else f"{ours - theirs:+.4f}"
        bank = means["memory_bank"][name]
        table.add_row(f"sealed test {name}", f"{theirs:.4f}", f"{ours:.4f}", "" if is_one else shown, f"{bank:.4f}")
    return table


def format_interval(interval: dict[str, float]) -> str:
    """+0.0310 (+0.0120 to +0.0550)."""
    return f"{interval['mean']:+.4f} ({interval['low']:+.4f} to {interval['high']:+.4f})"


def print_training(result: Any) -> None:
    """The end of a single training."""
    console = Console(highlight=False, soft_wrap=True)
    table = Table("", "value", "memory bank", title=f"best epoch {int(result.trial.best['epoch'])}")
    table.add_row("validation objective", f"{result.trial.best['objective']:.4f}", "")
    for name, value in result.evaluation.metrics.items():
        table.add_row(f"sealed test {name}", f"{value:.4f}", f"{result.memory_bank.metrics[name]:.4f}")
    console.print(table)
    print_openings(result.test_openings)
    print_left_out(result.skipped, result.masks_missing)
    print_lines(["files:", *(f"  {file}" for file in result.files)])


def print_openings(number: int) -> None:
    """A test that is looked at often is no longer sealed."""
    print_lines([f"this sealed test was opened {'once' if number == 1 else f'{number} times'} so far"])


def print_left_out(skipped: Sequence[str], masks_missing: int) -> None:
    """What the numbers do not cover."""
    if skipped:
        print_lines([f"{len(skipped)} broken pictures were left out:", *(f"  {line}" for line in skipped)])
    if masks_missing:
        print_lines([f"{masks_missing} defective pictures have no mask: pixel metrics are left out"])


def print_check(name: str, checked: Any) -> None:
    """What a category holds, as a table, and its problems."""
    console = Console(highlight=False, soft_wrap=True)
    table = Table("part", "defect", "pictures", "masks", "sizes", "kinds", title=name)
    for row in checked.rows:
        sizes = ", ".join(map(str, row.sizes)) if not isinstance(row.sizes, str) else row.sizes
        kinds = ", ".join(map(str, row.kinds)) if not isinstance(row.kinds, str) else row.kinds
        table.add_row(row.part, row.defect, str(row.pictures), str(row.masks), sizes, kinds)
    console.print(table)
    print_lines([f"problem: {problem}" for problem in checked.problems] or ["no problems found"])


def print_effects(name: str, effects: Sequence[Any]) -> None:
    """What each knob of a space moved: shares of mask pixels and patches, mean change of a colour, change of loss."""
    knob = Column("knob", no_wrap=True)
    table = Table(knob, "from", "to", "masks", "pictures", "labels", "loss after 2 epochs", title=f"space {name}")
    for effect in effects:
        moved = (effect.masks, effect.pictures, effect.labels, effect.loss)
        ends = (f"{end:.3g}" if isinstance(end, float) else str(end) for end in (effect.start, effect.end))
        style = None if effect.is_any else "bold red"
        table.add_row(effect.knob, *ends, *(f"{value:.2g}" if value else "-" for value in moved), style=style)
    Console(highlight=False).print(table)


def print_lines(lines: list[str]) -> None:
    """Plain lines."""
    for line in lines:
        Console(highlight=False, soft_wrap=True, markup=False).print(line)
