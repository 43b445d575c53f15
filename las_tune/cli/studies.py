"""Commands for studies: open MLflow's UI, compare, report, sync with MLflow, and check for consistency."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from las_tune.cli.flags import Experiment, Results, TrackingUri, flag
from las_tune.config import paths

if TYPE_CHECKING:
    from las_tune.tracking import Store

Port = Annotated[int, Parameter(help="Port on this machine; the next free port if it is in use, 0 for any free port.")]
StudyName = Annotated[str | None, Parameter(help="Name of the study.", show_default=lambda _: "the latest")]
StudyStore = Annotated[
    str, flag("Results and record", "URI of the study's MLflow store, with its password.", "the store of the study")
]
Out = Annotated[Path | None, Parameter(help="Output file.", show_default=lambda _: "STUDY.html in this folder")]


def ui(
    study: StudyName = None,
    *,
    port: Port = 5000,
    results: Results = paths.RESULTS,
    tracking_uri: TrackingUri = "",
    experiment: Experiment = "las_tune",
) -> None:
    """Start MLflow's UI for the studies, on this machine only, until Ctrl-C."""
    from las_tune.terminal import print_lines
    from las_tune.tracking import is_server, running_ui

    store = _open(tracking_uri, results, experiment)
    name = store.find(study).name
    if is_server(store.uri):
        print_lines(_addresses(store, store.uri, name))
        return
    print_lines(["Starting MLflow's UI ..."])
    try:
        with running_ui(store.uri, port) as (address, server):
            print_lines([*_addresses(store, address, name), "Press Ctrl-C to stop the UI."])
            server.wait()
            print_lines(["MLflow's UI has stopped unexpectedly."])
    except KeyboardInterrupt:
        print_lines(["The UI has stopped."])


def _addresses(store: Store, base_url: str, study: str) -> list[str]:
    from las_tune.tracking import study_address

    folded, best_first = (
        study_address(store.client, base_url, store.experiment_id, study, view) for view in ("study", "best_first")
    )
    return [f"Study {study} with its trials:", f"  {folded}", "Its trials, best first:", f"  {best_first}"]


def compare(
    *studies: Annotated[str, Parameter(help="Names of studies.")],
    results: Results = paths.RESULTS,
    tracking_uri: TrackingUri = "",
    experiment: Experiment = "las_tune",
) -> None:
    """Print the trials of studies, best first, and a comparison of several studies."""
    from las_tune.terminal import print_lines, print_text_table
    from las_tune.tracking import study_table, trial_table

    store = _open(tracking_uri, results, experiment)
    found = [store.find(name) for name in dict.fromkeys(studies or (None,))]
    if len(found) > 1:
        print_text_table(study_table(store.client, found), "Sealed test, means over seeds")
    for study in found:
        print_text_table(trial_table(study, study.trials), f"Study {study.name}: trials, best first")
        if study.finalists:
            title = f"Study {study.name}: retrained with new seeds"
            print_text_table(trial_table(study, study.finalists), title)
    print_lines(["Metrics of trials are measured on validation images."])


def report(
    study: Annotated[str, Parameter(help="Name of the study.")],
    *,
    out: Out = None,
    results: Results = paths.RESULTS,
    tracking_uri: TrackingUri = "",
    experiment: Experiment = "las_tune",
) -> None:
    """Write a study to a single HTML file with all figures inside."""
    from las_tune.errors import UserError
    from las_tune.terminal import print_lines
    from las_tune.tracking import make_report

    store = _open(tracking_uri, results, experiment)
    found = store.find(study)
    path = (out or Path(f"{found.name}.html")).absolute()
    text, missing = make_report(store.client, found)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {path} cannot be written: {error.strerror}", remedy="Choose another file") from error
    print_lines([f"Report: {path} ({len(text.encode()) / 1e6:.1f} MB)"])
    print_lines([f"Missing: {name}" for name in missing])


def sync(
    *studies: Annotated[str, Parameter(help="Names of studies in --results.")],
    results: Results = paths.RESULTS,
    tracking_uri: StudyStore = "",
) -> None:
    """Send the writes that are waiting in the folders of studies to MLflow; exit code 2 if some remain."""
    from las_tune.errors import UserError
    from las_tune.terminal import print_lines, progress_bar
    from las_tune.tracking import sync_study

    if not studies:
        raise UserError("sync needs at least one study", remedy="Pass the names of studies")
    is_complete = True
    for name in studies:
        with progress_bar() as progress:
            found = sync_study(results.absolute() / name, paths.absolute_uri(tracking_uri), progress)
        is_complete = is_complete and not found.waiting and not found.refused
        counts = f"{found.sent} writes sent, {found.waiting} waiting, {found.refused} refused"
        print_lines([f"Study {name}: {counts}", *([f"Model: {found.model_uri}"] if found.model_uri else [])])
    if not is_complete:
        sys.exit(2)


def doctor(
    study: Annotated[
        str | None,
        Parameter(help="Name of the study.", show_default=lambda _: "all studies in --results that are not running"),
    ] = None,
    *,
    fix: Annotated[bool, Parameter(help="Repair the problems that can be repaired.", negative="")] = False,
    results: Results = paths.RESULTS,
    tracking_uri: StudyStore = "",
) -> None:
    """Check that Ray, Optuna and MLflow agree on a study; exit code 2 if they do not."""
    from las_tune.study import diagnose, repair, studies_in
    from las_tune.terminal import print_diagnosis, progress_bar
    from las_tune.tracking import is_running

    folder, uri = results.absolute(), paths.absolute_uri(tracking_uri)
    idle = [name for name in studies_in(folder) if not is_running(folder / name)]
    num_problems = 0
    for name in [study] if study else idle:
        with progress_bar() as progress:
            found = repair(folder / name, uri, progress) if fix else diagnose(folder / name, uri)
        print_diagnosis(found, fix)
        num_problems += len(found.problems)
    if num_problems:
        sys.exit(2)


def _open(tracking_uri: str, results: Path, experiment: str) -> Store:
    from las_tune.tracking import open_to_read

    return open_to_read(paths.store_uri(tracking_uri, results), experiment)
