"""The command line: registers the commands and reports errors. Heavy packages are imported by the commands."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, NoReturn

from cyclopts import App, CycloptsError, Group

from las_tune import __version__
from las_tune.cli.arguments import as_submitted, complete
from las_tune.cli.cluster import list_studies, logs, node, status, stop, submit
from las_tune.cli.data import data, space
from las_tune.cli.models import export, predict
from las_tune.cli.search import train, tune
from las_tune.cli.studies import compare, doctor, report, sync, ui
from las_tune.config import LOG_NOTE
from las_tune.errors import INTERRUPTED, UserError, disk_error, type_and_message

EXAMPLES = """Examples:
  python -m las_tune --category bracket_black --demo    no data needed
  python -m las_tune data init parts/bolt --good 'camera/*.png'
  python -m las_tune --category bolt --data-root parts --validation synthetic --dry-run
  python -m las_tune --category bolt --data-root parts --validation synthetic --trials 16
  python -m las_tune --resume --study STUDY    after any interruption
  python -m las_tune ui --study STUDY          compare trials in MLflow"""
SEARCH, STUDIES, CHAMPION, CLUSTER = (
    Group(name, sort_key=key)
    for key, name in enumerate(("Search and train", "Inspect studies", "Use a champion", "Run on a cluster"), start=-4)
)
app = App(
    name="las_tune",
    usage="Usage: python -m las_tune [COMMAND] --category NAME... [FLAGS]",
    version=__version__,
    help="Search the hyperparameters of LAS anomaly detectors for metal parts, category by category.",
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
    help_epilogue=EXAMPLES,
)
COMMANDS: dict[Group, tuple[Any, ...]] = {
    SEARCH: (tune, train, data, space),
    STUDIES: (ui, compare, report, sync, doctor),
    CHAMPION: (predict, export),
    CLUSTER: (submit, status, logs, stop, node),
}
for group, commands in COMMANDS.items():
    for command in commands:
        if isinstance(command, App):
            command.group = (group,)
            app.command(command)
        else:
            app.command(command, group=group)
app.command(list_studies, name="list", group=CLUSTER)
app.default(tune)


class Interrupts:
    """Handler of Ctrl-C and of a cluster's SIGTERM: the first shuts down cleanly, the second exits immediately."""

    def __init__(self) -> None:
        self._was_interrupted = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupt)

    def _interrupt(self, *_: object) -> None:
        if self._was_interrupted:
            os._exit(INTERRUPTED)  # Ray and the journal recover from a driver that was killed
        self._was_interrupted = True
        raise KeyboardInterrupt


def main() -> NoReturn:
    """Run a command. For a UserError, print one line on stderr and exit with code 2."""
    Interrupts()
    try:
        sys.argv[1:] = as_submitted(complete(sys.argv[1:]))
        app(exit_on_error=False, print_error=False)
    except (UserError, CycloptsError) as error:
        _print_error(" ".join(str(error).split()), error)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if (disk := disk_error(error)) is not None:
            _print_error(f"{disk}. Free some disk space, then resume the study with --resume.", error)
            sys.exit(2)
        if not _logs(error):
            raise
        _print_error(type_and_message(error), error)
        sys.exit(1)
    sys.exit(0)


def _print_error(text: str, error: Exception) -> None:
    """Print an error, and the path of the log if there is one."""
    print(f"error: {text}", *_logs(error), sep="\n", file=sys.stderr)


def _logs(error: BaseException) -> list[str]:
    """Return the notes that name the log file of a failed study."""
    return [note for note in getattr(error, "__notes__", ()) if note.startswith(LOG_NOTE)]
