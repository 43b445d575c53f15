"""Commands about studies: MLflow's UI, a comparison, a report; what MLflow lacks, and what does not agree."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from las_tune.cli.flags import RECORD, Experiment, Results, TrackingUri, absolute_uri, flag, store_of
from las_tune.config import paths

if TYPE_CHECKING:
    from las_tune.tracking.store import Store
    from las_tune.tracking.tables import TextTable

WIDEST = 500
"""Characters of a table; it takes what it needs of them."""
Port = Annotated[int, Parameter(help="Port on this machine; the next free one where it is taken, 0 for any.")]
StudyName = Annotated[str | None, Parameter(help="Name of the study.", show_default=lambda _: "the newest")]
StudyStore = Annotated[str, flag(RECORD, "MLflow store of the study, with its password.", "as the study has it")]
Out = Annotated[Path | None, Parameter(help="The file.", show_default=lambda _: "STUDY.html in this folder")]


def ui(
    study: StudyName = None,
    *,
    port: Port = 5000,
    results: Results = paths.RESULTS,
    tracking_uri: TrackingUri = "",
    experiment: Experiment = "las_tune",
) -> None:
    """Open MLflow's UI on the studies, for this machine only, until Ctrl-C."""
    from las_tune.terminal.tables import print_lines
    from las_tune.tracking.store import is_server
    from las_tune.tracking.ui_server import running_ui

    store = _open(tracking_uri, results, experiment)
    name = store.find(study).name
    if is_server(store.uri):
        print_lines(_addresses(store, store.uri, name))
        return
    print_lines(["starting MLflow's UI"])
    try:
        with running_ui(store.uri, port) as (address, server):
            print_lines([*_addresses(store, address, name), "Ctrl-C ends the UI"])
            server.wait()
            print_lines(["MLflow's UI has ended by itself"])
    except KeyboardInterrupt:
        print_lines(["the UI has ended"])


def _addresses(store: Store, base_url: str, study: str) -> list[str]:
    from las_tune.tracking.ui_address import study_address

    folded, best_first = (
        study_address(store.client, base_url, store.experiment_id, study, view) for view in ("study", "best_first")
    )
    return [f"study {study}, its trials folded under it:", f"  {folded}", "its trials, best first:", f"  {best_first}"]


def compare(
    *studies: Annotated[str, Parameter(help="Names of studies.")],
    results: Results = paths.RESULTS,
    tracking_uri: TrackingUri = "",
    experiment: Experiment = "las_tune",
) -> None:
    """Print the trials of studies, best first, and several studies side by side."""
    from las_tune.terminal.tables import print_lines
    from las_tune.tracking.tables import study_table, trial_table

    store = _open(tracking_uri, results, experiment)
    found = [store.find(name) for name in dict.fromkeys(studies or (None,))]
    if len(found) > 1:
        _print_table(study_table(store.client, found), "the sealed test, means over seeds")
    for one in found:
        _print_table(trial_table(one, one.trials), f"study {one.name}: trials, best first")
        if one.again:
            _print_table(trial_table(one, one.again), f"study {one.name}: trained again over new seeds")
    print_lines(["numbers of trials are of validation images"])


def report(
    study: Annotated[str, Parameter(help="Name of the study.")],
    *,
    out: Out = None,
    results: Results = paths.RESULTS,
    tracking_uri: TrackingUri = "",
    experiment: Experiment = "las_tune",
) -> None:
    """Write a study as one HTML file, figures inside, that can be mailed."""
    from las_tune.errors import UserError
    from las_tune.terminal.tables import print_lines
    from las_tune.tracking.study_report import make_report

    store = _open(tracking_uri, results, experiment)
    found = store.find(study)
    path = (out or Path(f"{found.name}.html")).absolute()
    text, missing = make_report(store.client, found)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError("--out must be a file that can be written", f"{path} ({error.strerror})") from error
    print_lines([f"report: {path} ({len(text.encode()) / 1e6:.1f} MB)"])
    print_lines([f"missing: {name}" for name in missing])


def sync(
    *studies: Annotated[str, Parameter(help="Names of studies in --results.")],
    results: Results = paths.RESULTS,
    tracking_uri: StudyStore = "",
) -> None:
    """Send to MLflow what studies could not: their writes wait in their folders. Exit code 2 if it takes not all."""
    from las_tune.errors import UserError
    from las_tune.terminal.progress import progress_bar
    from las_tune.terminal.tables import print_lines
    from las_tune.tracking.sync import sync_study

    if not studies:
        raise UserError("sync must be given studies", "none", "name them")
    is_complete = True
    for name in studies:
        with progress_bar() as progress:
            found = sync_study(results.absolute() / name, absolute_uri(tracking_uri), progress)
        is_complete = is_complete and not found["waiting"] and not found["refused"]
        counts = f"{found['sent']} sent, {found['waiting']} still waiting, {found['refused']} refused"
        print_lines([f"study {name}: {counts}", *([f"model: {found['model_uri']}"] if found["model_uri"] else [])])
    if not is_complete:
        sys.exit(2)


def doctor(
    study: Annotated[
        str | None, Parameter(help="Name of the study.", show_default=lambda _: "all in --results that do not run")
    ] = None,
    *,
    fix: Annotated[bool, Parameter(help="Mend what can be mended.", negative="")] = False,
    results: Results = paths.RESULTS,
    tracking_uri: StudyStore = "",
) -> None:
    """Compare what Ray, Optuna and MLflow say of a study; exit code 2 where they do not agree."""
    from las_tune.study.doctor import diagnose, mend, studies_in
    from las_tune.terminal.check_tables import print_diagnosis
    from las_tune.terminal.progress import progress_bar
    from las_tune.tracking.journal import is_running

    folder, uri = results.absolute(), absolute_uri(tracking_uri)
    idle = [name for name in studies_in(folder) if not is_running(folder / name)]
    num_problems = 0
    for name in [study] if study else idle:
        with progress_bar() as progress:
            found = mend(folder / name, uri, progress) if fix else diagnose(folder / name, uri)
        print_diagnosis(found, fix)
        num_problems += len(found.problems)
    if num_problems:
        sys.exit(2)


def _open(tracking_uri: str, results: Path, experiment: str) -> Store:
    from las_tune.tracking.store import open_to_read

    return open_to_read(store_of(tracking_uri, results), experiment)


def _print_table(table: TextTable, title: str) -> None:
    """As wide as it needs to be: cells that are cut off cannot be compared, and a pipe has no width."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Column, Table

    head = (Column(name.replace("/", "/\n").replace("_", "_\n"), no_wrap=True) for name in table.head)
    shown = Table(*head, title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for row in table.rows:
        shown.add_row(*row)
    Console(highlight=False, markup=False, width=WIDEST).print(shown)
