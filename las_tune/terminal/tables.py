"""What a person sees at the end: gains with intervals, what they rest on, and where to look."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from las_tune.config import paths
from las_tune.config.formatting import format_params
from las_tune.config.study_spec import StudySpec
from las_tune.reporting.gains import GAIN, gain_rows
from las_tune.reporting.summary import WARNINGS, remarks, warnings
from las_tune.terminal.progress import make_console


def print_run(run: dict[str, Any], specs: Sequence[StudySpec]) -> None:
    """The end of every study, then, of several, the overview."""
    for summary, spec in zip(run["studies"], specs, strict=True):
        if "failed" in summary:
            print_lines([f"{summary['category']} failed: {summary['failed']}"])
        else:
            print_summary(summary, spec.folder)
    if len(specs) > 1:
        print_overview(run)
        print_lines([f"overview: {specs[0].run_folder / 'overview.json'}"])


def print_overview(run: dict[str, Any]) -> None:
    """One row a category, and the one shared configuration that does best on average."""
    console = make_console()
    done = [summary for summary in run["studies"] if "failed" not in summary]
    shared = run["shared_configuration"]
    title = f"{', '.join(sorted({summary['test_name'] for summary in done}))}, means over seeds"
    seconds = next((_device_seconds(summary)[0] for summary in done), "seconds")
    table = Table("category", "objective", "baseline", "champion", GAIN, "memory bank", seconds, title=title)
    if shared:
        table.add_column("regret of the shared configuration")
    for summary in done:
        row = gain_rows(summary)[1]
        regret = shared["regret"].get(summary["category"]) if shared else None
        table.add_row(
            summary["category"],
            summary["objective"],
            f"{row.baseline:.4f}",
            f"{row.champion:.4f}",
            row.gain,
            f"{row.memory_bank:.4f}",
            f"{_device_seconds(summary)[1]:.0f}",
            *([f"{regret:.4f}"] if regret is not None else []),
        )
    console.print(table)
    if shared:
        console.print(
            f"one configuration for all: {shared['from']}, mean regret {shared['mean_regret']:.4f} on validation "
            f"({format_params(shared['params'])})"
        )


def _device_seconds(summary: dict[str, Any]) -> tuple[str, float, float | None]:
    """Their name as people write it, how many, and how many a point of the objective cost."""
    cost = summary["cost"]
    kind = "gpu" if "gpu_seconds" in cost else "cpu"
    return f"{kind.upper()} seconds", cost[f"{kind}_seconds"], cost[f"{kind}_seconds_per_point"]


def print_summary(summary: dict[str, Any], folder: Path) -> None:
    """Baseline, champion, gain, and where to look."""
    console = make_console()
    for text in warnings(summary):
        style = "bold red" if text == WARNINGS["test_selected"] else "bold yellow"
        console.print(text, style=style, markup=False)
    console.print(_gains(summary))
    print_lines(remarks(summary))
    for where, metric in summary["tie_break"].items():
        if metric:
            console.print(f"equal in {summary['objective']} ({where}): the best is ahead by {metric}")
    _print_watched(summary)
    print_openings(summary["test_openings"], summary["test_name"])
    print_left_out(summary["skipped"], summary["masks_missing"])
    cost, counts = summary["cost"], summary["trials"]
    console.print(
        f"{counts['total']} trials: {counts['completed']} completed, {counts['pruned']} pruned, "
        f"{counts['failed']} failed, in {summary['seconds']:.0f} s ({cost['trial_seconds']:.0f} s of training, "
        f"finalists included, {cost['lost_seconds']:.0f} s lost; {_price(summary)})"
    )
    console.print(f"champion: {format_params(summary['champion']['params'])}")
    console.print(f"model:    {summary['model_uri'] or 'not in MLflow yet'}")
    print_lines([f"files:    {folder}"])
    _print_record(summary, folder)


def _print_record(summary: dict[str, Any], folder: Path) -> None:
    """Where the trials are compared, and what MLflow does not have."""
    ledger = summary["ledger"]
    where = shlex.join([summary["study"], "--results", str(folder.parent)])
    lines = ["compare the trials:", f"  python -m las_tune ui --study {where}{_store_flags(summary, folder)}"]
    if summary["tracking_uri"].startswith("http"):
        address = summary["tracking_uri"].rstrip("/").replace("***@", "")
    else:
        lines += ["or", f"  mlflow ui --backend-store-uri {summary['tracking_uri']} --port 5000"]
        address = "http://127.0.0.1:5000"
    print_lines([*lines, f"  {address}/#/experiments/{summary['experiment_id']}/runs/{summary['parent_run_id']}"])
    if ledger["waiting"]:
        console = make_console()
        console.print(
            f"[bold red]MLflow does not have {ledger['waiting']} writes of this study[/bold red], the champion perhaps "
            "among them. They wait in its folder; when MLflow answers again:"
        )
        print_lines([f"  python -m las_tune sync {where}"])
    if ledger["refused"]:
        print_lines([f"MLflow refused {ledger['refused']} writes: {folder / f'{paths.LEDGER}.refused'} says why"])


def _store_flags(summary: dict[str, Any], folder: Path) -> str:
    """The flags that name the store and the experiment, where they are not the usual ones."""
    uri, experiment = summary["tracking_uri"], summary["experiment"]
    flags = [] if uri == paths.default_store(folder.parent) else ["--tracking-uri", uri]
    flags += [] if experiment == "las_tune" else ["--experiment", experiment]
    return f" {shlex.join(flags)}" if flags else ""


def _price(summary: dict[str, Any]) -> str:
    """Device seconds, and what a point of the objective cost."""
    name, spent, per_point = _device_seconds(summary)
    return f"{spent:.0f} {name}" + (f", {per_point:.0f} a point gained" if per_point is not None else "")


def _print_watched(summary: dict[str, Any]) -> None:
    """What was scored beside the validation."""
    rank, gap = summary["rank_correlation"], summary["leakage_gap"]
    if summary["test_selected"]:
        best, trial = summary["best_trial"]["validation"], summary["best_trial"]["trial"]
        numbers = ", ".join(f"{name} {best[name]:.4f}" for name in ("image_auroc", "pixel_aupro") if name in best)
        print_lines([f"as published tables count: trial {trial} in epoch {int(best['epoch'])}, one seed: {numbers}"])
    if rank and rank["spearman"] is not None:
        interval = f"95% interval {rank['low']:+.2f} to {rank['high']:+.2f}"
        print_lines(
            [
                f"synthetic and labelled validation rank {rank['trials']} trials with a correlation of "
                f"{rank['spearman']:+.2f} ({interval})"
            ]
        )
    if gap:
        print_lines(
            [
                f"leakage gap in {summary['objective']}: chosen by all test images {gap['paper']:.4f}, "
                f"chosen and told on different halves {gap['honest']:.4f}: {gap['gap']:+.4f} of flattery",
            ]
        )


def _gains(summary: dict[str, Any]) -> Table:
    """Means over seeds: baseline, champion, gain with its interval, and the memory bank that learns nothing."""
    title = f"{summary['category']}: study {summary['study']}, means over seeds"
    table = Table("", "baseline", "champion", GAIN, "memory bank", title=title)
    table.add_row("trained again", *(summary[role]["finalist"] for role in ("baseline", "champion")))
    for row in gain_rows(summary):
        what = f"{row.where} {row.metric}" + (" (selected on)" if row.where == "validation" else "")
        table.add_row(what, f"{row.baseline:.4f}", f"{row.champion:.4f}", row.gain, f"{row.memory_bank:.4f}")
    return table


def print_training(result: Any) -> None:
    """The end of a single training."""
    console = make_console()
    table = Table("", "value", "memory bank", title=f"best epoch {int(result.trial.best['epoch'])}")
    table.add_row("validation objective", f"{result.trial.best['objective']:.4f}", "")
    for name, value in result.evaluation.metrics.items():
        table.add_row(f"{result.test_name} {name}", f"{value:.4f}", f"{result.memory_bank.metrics[name]:.4f}")
    console.print(table)
    print_openings(result.test_openings, result.test_name)
    print_left_out(result.skipped, result.masks_missing)
    print_lines(["files:", *(f"  {file}" for file in result.files)])


def print_openings(number: int, test: str) -> None:
    """A test that is looked at often is no longer sealed."""
    print_lines([f"this {test} was opened {'once' if number == 1 else f'{number} times'} so far"])


def print_left_out(skipped: Sequence[str], masks_missing: int) -> None:
    """What the numbers do not cover."""
    if skipped:
        print_lines([f"{len(skipped)} broken images were left out:", *(f"  {line}" for line in skipped)])
    if masks_missing:
        print_lines([f"{masks_missing} defective images have no mask: pixel metrics are left out"])


def print_lines(lines: list[str]) -> None:
    """Plain lines."""
    for line in lines:
        make_console(markup=False).print(line)
