"""Launch studies silently: the host process is preserved, and other libraries write to the log file of the study."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from las_tune.config import Listener, LogFile, Progress, StudySpec, no_progress, preserve_host_process
from las_tune.data import render_demo
from las_tune.execution import Plan
from las_tune.reporting import RunSummary, TensorBoard
from las_tune.study.run import plan_studies, run_studies
from las_tune.study.single import SingleResult, run_single
from las_tune.tracking import preserve_mlflow_state

ListenersOf = Callable[[StudySpec], Sequence[Listener]]
"""Returns the listeners of one study of a run."""


def no_listeners(spec: StudySpec) -> Sequence[Listener]:
    """Return no listeners."""
    return ()


def launch_search(
    specs: Sequence[StudySpec], listeners_of: ListenersOf = no_listeners, progress: Progress = no_progress
) -> RunSummary:
    """Search the categories of one run; see `run_studies`.

    Args:
        specs: one per category.
        listeners_of: returns the listeners of a study, in addition to ledger, training log and TensorBoard.
        progress: called with every stage.
    """
    with preserve_host_process(), preserve_mlflow_state(), LogFile() as log:
        _render_demo(specs[0], progress)

        def all_listeners(spec: StudySpec) -> list[Listener]:
            log.open_in(spec.folder)  # the first study of the run: the folder of the run does not exist yet
            return [*listeners_of(spec), *_tensorboard(spec)]

        return run_studies(specs, all_listeners, progress)


def launch_plan(specs: Sequence[StudySpec], progress: Progress = no_progress) -> Plan:
    """Estimate the cost of a search without writing anything; see `plan_studies`."""
    with preserve_host_process(), preserve_mlflow_state(), LogFile():
        _render_demo(specs[0], progress)
        return plan_studies(specs, progress)


def launch_training(
    spec: StudySpec, listeners: Sequence[Listener] = (), progress: Progress = no_progress
) -> SingleResult:
    """Train a single detector without Ray; see `run_single`."""
    with preserve_host_process():
        _render_demo(spec, progress)
        return run_single(spec, [*listeners, *_tensorboard(spec)], progress)


def _render_demo(spec: StudySpec, progress: Progress) -> None:
    """Render the images of the demo unless they are complete."""
    if spec.demo:
        render_demo(spec.data_root, spec.textures, progress=progress)


def _tensorboard(spec: StudySpec) -> list[Listener]:
    return [TensorBoard(spec.folder)] if spec.tensorboard else []
