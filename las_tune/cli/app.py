"""The command line: every command is made one of the app's here. Nothing heavy is imported at the top."""

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
from las_tune.errors import INTERRUPTED, UserError, disk_error, one_line
from las_tune.terminal.log_file import LOG

EXAMPLES = """Examples:
  python -m las_tune --category bracket_black --demo    no data needed
  python -m las_tune data init parts/bolt --good 'camera/*.png'
  python -m las_tune --category bolt --data-root parts --validation synthetic --dry-run
  python -m las_tune --category bolt --data-root parts --validation synthetic --trials 16
  python -m las_tune --resume --study STUDY    whatever stopped it
  python -m las_tune ui --study STUDY          trials side by side"""
SEARCHING, STUDIES, USING, CLUSTER = (
    Group(name, sort_key=key)
    for key, name in enumerate(("Search and train", "Look at studies", "Use a champion", "On a cluster"), start=-4)
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
    SEARCHING: (tune, train, data, space),
    STUDIES: (ui, compare, report, sync, doctor),
    USING: (predict, export),
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
    """Ctrl-C, and SIGTERM, by which a cluster ends a job: the first ends in order, the second at once."""

    def __init__(self) -> None:
        self._was_interrupted = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupt)

    def _interrupt(self, *_: object) -> None:
        if self._was_interrupted:
            os._exit(INTERRUPTED)  # Ray's processes and the journal's next reader cope with a driver that is gone
        self._was_interrupted = True
        raise KeyboardInterrupt


def main() -> NoReturn:
    """Run a command. What a user got wrong is one line on stderr and exit code 2."""
    Interrupts()
    try:
        sys.argv[1:] = as_submitted(complete(sys.argv[1:]))
        app(exit_on_error=False, print_error=False)
    except (UserError, CycloptsError) as error:
        _print_error(" ".join(str(error).split()), error)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if (disk := disk_error(error)) is not None:
            _print_error(f"{disk}. Free some space; a study that was begun goes on by --resume.", error)
            sys.exit(2)
        if not _logs(error):
            raise
        _print_error(one_line(error), error)
        sys.exit(1)
    sys.exit(0)


def _print_error(text: str, error: Exception) -> None:
    """One line, and one for the log where there is one."""
    print(f"error: {text}", *_logs(error), sep="\n", file=sys.stderr)


def _logs(error: BaseException) -> list[str]:
    """What NoiseLog noted on an error that happened in a study."""
    return [note for note in getattr(error, "__notes__", ()) if note.startswith(LOG)]
