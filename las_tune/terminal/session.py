"""What the command line and the library have in common: specs in, what was found out, a person watching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from las_tune import __version__
from las_tune.config.study_spec import StudySpec
from las_tune.terminal.log_file import NoiseLog
from las_tune.terminal.progress import StudyConsole

if TYPE_CHECKING:
    from las_tune.config.trial_record import Listener
    from las_tune.execution.plan import Plan
    from las_tune.study.single import SingleResult


def search(specs: Sequence[StudySpec]) -> dict[str, Any]:
    """Search the categories of one run: see run_studies."""
    with NoiseLog() as log, StudyConsole(f"las_tune {__version__}: {_what(specs)}", specs) as console:
        render_demo(specs[0], console)
        from las_tune.study.run import run_studies

        def listeners(spec: StudySpec) -> list[Listener]:
            log.keep_in(spec.folder)  # of the first study: that of a run is not there yet
            return [console.study(spec.category), *_tensorboard(spec)]

        return run_studies(specs, listeners, console.progress)


def plan(specs: Sequence[StudySpec]) -> Plan:
    """What a search would take, without it."""
    with NoiseLog(), StudyConsole(f"las_tune {__version__}: plan of {_what(specs)}", specs) as console:
        render_demo(specs[0], console)
        from las_tune.study.run import plan_studies

        return plan_studies(specs, console.progress)


def train_once(spec: StudySpec) -> SingleResult:
    """One training without Ray: see run_single."""
    title = f"las_tune {__version__}: training {spec.study}, {spec.train.epochs} epochs"
    with StudyConsole(title, [replace(spec, trials=1)], is_search=False) as console:
        render_demo(spec, console)
        from las_tune.study.single import run_single

        return run_single(spec, [console.study(spec.category), *_tensorboard(spec)], console.progress)


def _tensorboard(spec: StudySpec) -> list[Listener]:
    if not spec.tensorboard:
        return []
    from las_tune.reporting.tensorboard import TensorBoard

    return [TensorBoard(spec.folder)]


def _what(specs: Sequence[StudySpec]) -> str:
    """What is about to run, in a phrase."""
    first = specs[0]
    name = f"study {first.study}" if len(specs) == 1 else f"run {first.run}, {len(specs)} categories"
    each = " each" if len(specs) > 1 else ""
    what = f"{name}, {first.trials} trials of {first.train.epochs} epochs{each}"
    return what + ("  (DEMO: rendered images)" if first.demo else "")


def render_demo(spec: StudySpec, console: StudyConsole) -> None:
    """Make the demo's images where they are not there."""
    if spec.demo:
        from las_tune.data.demo_category import render_demo as render

        render(
            spec.data_root,
            spec.textures,
            progress=lambda done, total: console.progress("rendering parts", done, total),
        )
