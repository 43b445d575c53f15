"""Results in the terminal: tables of gains, remarks on them, and the paths of the files."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from las_tune.config import StudySpec, format_params, paths
from las_tune.reporting import (
    GAIN,
    WARNINGS,
    CostSummary,
    FailedStudy,
    RunSummary,
    SharedConfiguration,
    Summary,
    gain_rows,
    remarks,
    warnings,
)
from las_tune.terminal.progress import make_console

if TYPE_CHECKING:
    from las_tune.study import SingleResult
    from las_tune.tracking import TextTable

MAX_WIDTH = 500
"""Maximum width of a table of trials, in characters."""


def print_run(run: RunSummary, specs: Sequence[StudySpec]) -> None:
    """Print the result of every study and, for several studies, an overview."""
    for study, spec in zip(run.studies, specs, strict=True):
        if isinstance(study, FailedStudy):
            print_lines([f"{study.category} failed: {study.reason}"])
        else:
            print_summary(study, spec.folder)
    if len(specs) > 1:
        print_overview(run)
        print_lines([f"overview: {specs[0].run_folder / 'overview.json'}"])


def print_overview(run: RunSummary) -> None:
    """Print a table with one row per category, and the shared configuration."""
    shared = run.shared_configuration
    test_names = ", ".join(sorted({summary.test_name for summary in run.finished}))
    seconds = next((f"{summary.cost.device.upper()} seconds" for summary in run.finished), "seconds")
    columns = ("category", "objective", "baseline", "champion", GAIN, "memory bank", seconds)
    table = Table(*columns, title=f"{test_names}, means over seeds")
    if shared:
        table.add_column("regret of the shared configuration")
    for summary in run.finished:
        table.add_row(*_overview_row(summary, shared))
    console = make_console()
    console.print(table)
    if shared:
        console.print(
            f"Shared configuration: {shared.source}, mean regret {shared.mean_regret:.4f} on validation images "
            f"({format_params(shared.params)})"
        )


def _overview_row(summary: Summary, shared: SharedConfiguration | None) -> list[str]:
    row = gain_rows(summary)[1]
    regret = shared.regret.get(summary.category) if shared else None
    return [
        summary.category,
        summary.objective,
        f"{row.baseline:.4f}",
        f"{row.champion:.4f}",
        row.gain,
        f"{row.memory_bank:.4f}",
        f"{summary.cost.device_seconds:.0f}",
        *([f"{regret:.4f}"] if regret is not None else []),
    ]


def print_summary(summary: Summary, folder: Path) -> None:
    """Print the result of a study.

    Args:
        summary: summary of the study.
        folder: folder of the study.
    """
    console = make_console()
    for text in warnings(summary):
        style = "bold red" if text == WARNINGS["test_selected"] else "bold yellow"
        console.print(text, style=style, markup=False)
    console.print(_gain_table(summary))
    lines = [*remarks(summary), *_tie_breaks(summary), *_monitored(summary)]
    lines += [
        *_test_openings(summary.test_openings, summary.test_name),
        *_omitted(summary.skipped, summary.masks_missing),
    ]
    counts, cost = summary.trials, summary.cost
    lines += [
        f"trials:   {counts.total} ({counts.completed} completed, {counts.pruned} pruned, {counts.failed} failed)",
        f"time:     {summary.seconds:.0f} s in total, {cost.trial_seconds:.0f} s of training including retraining, "
        f"{cost.lost_seconds:.0f} s lost to faults",
        f"cost:     {_price(cost)}",
        f"champion: {format_params(summary.champion.params)}",
        f"model:    {summary.model_uri or 'not registered in MLflow yet'}",
        f"files:    {folder}",
    ]
    print_lines(lines)
    _print_tracking(summary, folder)


def _gain_table(summary: Summary) -> Table:
    """Means over seeds of baseline, champion, gain and memory bank, by metric."""
    title = f"{summary.category}: study {summary.study}, means over seeds"
    table = Table("", "baseline", "champion", GAIN, "memory bank", title=title)
    table.add_row("configuration", summary.baseline.finalist, summary.champion.finalist)
    for row in gain_rows(summary):
        remark = " (used for selection)" if row.images == "validation" else ""
        label = f"{row.images} {row.metric}{remark}"
        table.add_row(label, f"{row.baseline:.4f}", f"{row.champion:.4f}", row.gain, f"{row.memory_bank:.4f}")
    return table


def _tie_breaks(summary: Summary) -> list[str]:
    breaks = asdict(summary.tie_break)
    return [f"tie in {summary.objective} ({where}): decided by {metric}" for where, metric in breaks.items() if metric]


def _monitored(summary: Summary) -> list[str]:
    """Describe what was scored in addition to the validation images."""
    lines, rank, gap = [], summary.rank_correlation, summary.leakage_gap
    if summary.is_test_selected:
        best = summary.best_trial.validation
        metrics = ", ".join(f"{name} {best[name]:.4f}" for name in ("image_auroc", "pixel_aupro") if name in best)
        trial = f"trial {summary.best_trial.number}, epoch {int(best['epoch'])}"
        lines.append(f"as in published tables ({trial}, a single seed): {metrics}")
    if rank and rank.spearman is not None:
        lines.append(
            f"rank correlation of synthetic and labeled validation over {rank.trials} trials: {rank.spearman:+.2f} "
            f"(95% interval {rank.low:+.2f} to {rank.high:+.2f})"
        )
    if gap:
        lines.append(
            f"optimistic bias of selecting on the test set ({summary.objective}): {gap.gap:+.4f} ({gap.paper:.4f} if "
            f"selected on all test images, {gap.honest:.4f} if selected and evaluated on different halves)"
        )
    return lines


def _price(cost: CostSummary) -> str:
    """Device seconds, and the price of 0.01 of the objective."""
    per_point = cost.device_seconds_per_point
    price = f"{cost.device_seconds:.0f} {cost.device.upper()} seconds"
    return price if per_point is None else f"{price}, {per_point:.0f} per 0.01 gained"


def _print_tracking(summary: Summary, folder: Path) -> None:
    """Print how to compare the trials in MLflow, and which writes it has not received."""
    unsent, study = summary.unsent_writes, shlex.join([summary.study, "--results", str(folder.parent)])
    lines = ["Compare the trials:", f"  python -m las_tune ui --study {study}{_store_flags(summary, folder)}"]
    if summary.tracking_uri.startswith("http"):
        address = summary.tracking_uri.rstrip("/").replace("***@", "")
    else:
        lines += ["or", f"  mlflow ui --backend-store-uri {summary.tracking_uri} --port 5000"]
        address = "http://127.0.0.1:5000"
    print_lines([*lines, f"  {address}/#/experiments/{summary.experiment_id}/runs/{summary.parent_run_id}"])
    if unsent.waiting:
        make_console().print(
            f"[bold red]MLflow has not received {unsent.waiting} of the writes of this study[/bold red], possibly "
            "including the champion. They are kept in the folder of the study. When MLflow is available again, run"
        )
        print_lines([f"  python -m las_tune sync {study}"])
    if unsent.refused:
        print_lines([f"MLflow rejected {unsent.refused} of the writes. See {folder / f'{paths.LEDGER}.refused'}."])


def _store_flags(summary: Summary, folder: Path) -> str:
    """Return the flags that name the store and the experiment, unless they are the default ones."""
    uri, experiment = summary.tracking_uri, summary.experiment
    flags = [] if uri == paths.default_store(folder.parent) else ["--tracking-uri", uri]
    flags += [] if experiment == "las_tune" else ["--experiment", experiment]
    return f" {shlex.join(flags)}" if flags else ""


def print_training(result: SingleResult) -> None:
    """Print the result of a single training run."""
    table = Table("", "detector", "memory bank", title=f"best epoch: {int(result.trial.best['epoch'])}")
    table.add_row("validation objective", f"{result.trial.best['objective']:.4f}", "")
    for name, value in result.evaluation.metrics.items():
        table.add_row(f"{result.test_name} {name}", f"{value:.4f}", f"{result.memory_bank.metrics[name]:.4f}")
    make_console().print(table)
    lines = [*_test_openings(result.test_openings, result.test_name), *_omitted(result.skipped, result.masks_missing)]
    print_lines([*lines, "files:", *(f"  {file}" for file in result.files)])


def _test_openings(number: int, test_name: str) -> list[str]:
    """Report how often the test was opened: every opening makes its results slightly more optimistic."""
    return [f"the {test_name} has been opened {'once' if number == 1 else f'{number} times'} so far"]


def _omitted(skipped: Sequence[str], masks_missing: int) -> list[str]:
    """Report the images and metrics that the results do not include."""
    lines = [f"unreadable images, skipped ({len(skipped)}):", *(f"  {line}" for line in skipped)] if skipped else []
    if masks_missing:
        lines.append(f"pixel metrics are not available: no mask for {masks_missing} of the defective images")
    return lines


def print_lines(lines: Sequence[str]) -> None:
    """Print lines as they are, without markup."""
    console = make_console(markup=False)
    for line in lines:
        console.print(line)


def print_text_table(table: TextTable, title: str) -> None:
    """Print a table at its full width, because cells that are cut off cannot be compared."""
    columns = (Column(name.replace("/", "/\n").replace("_", "_\n"), no_wrap=True) for name in table.head)
    shown = Table(*columns, title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for row in table.rows:
        shown.add_row(*row)
    Console(highlight=False, markup=False, width=MAX_WIDTH).print(shown)
