"""The commands tune and train: build the specs, run them, and print the results."""

from __future__ import annotations

import shlex
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

from las_tune.cli.flags import flag, with_options
from las_tune.errors import INTERRUPTED

if TYPE_CHECKING:
    from las_tune.config import StudySpec


@with_options("tune")
def tune(
    *,
    dry_run: Annotated[
        bool,
        flag("Search", "Check flags and images, measure a few steps, print the plan, and stop.", negative=""),
    ] = False,
    resume: Annotated[
        bool,
        flag("Results and record", "Resume --study; flags that you leave out keep their values.", negative=""),
    ] = False,
    **options: Any,
) -> None:
    """Search hyperparameters (the default command).

    Trial 0 is the baseline: the published hyperparameters. The champion is registered in MLflow as las-CATEGORY with
    the alias champion.
    """
    specs = _specs(options)
    from las_tune.terminal import plan, print_lines, print_run, print_story, search

    if dry_run:
        print_lines([plan(specs).sentence(), "Nothing was written. Run the command without --dry-run to start."])
        return
    try:
        run = search(specs)
    except KeyboardInterrupt:
        name = specs[0].run_folder.name
        print(f"Stopped. Run the same command with --study {name} to resume.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    print_run(run, specs)
    if specs[0].demo:
        for summary in run.finished:
            print_story(summary, specs[0].folder)
    if run.failed:
        sys.exit(2)


@with_options("train")
def train(**options: Any) -> None:
    """Train a single detector, without Ray."""
    specs = _specs(options)
    from las_tune.terminal import print_training, train_detector

    for spec in specs:
        print_training(train_detector(spec))


def _specs(options: dict[str, Any]) -> list[StudySpec]:
    from las_tune.api import make_specs

    values: dict[str, Any] = {
        name: value.total_seconds() if isinstance(value, timedelta) else value for name, value in options.items()
    }
    return make_specs(values.pop("category"), values, command=shlex.join(["python", "-m", "las_tune", *sys.argv[1:]]))
