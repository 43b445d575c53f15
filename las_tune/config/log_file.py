"""The log file of a study: everything that Ray, MLflow and other libraries write to stderr."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from las_tune.config import paths
from las_tune.errors import UserError

LOG_NOTE = "log: "
"""Prefix of the note on an exception that names the log file."""


class LogFile:
    """Context manager that redirects stderr of this process, C++ libraries and child processes included, to a file.

    Until `open_in` names the folder of the file, the output is buffered. On exit, stderr is restored. An exception is
    written to the file with its traceback, and gets a note with the path of the file.
    """

    def __init__(self) -> None:
        self.path: Path | None = None
        """Path of the file; None before `open_in`."""
        self._buffer = tempfile.TemporaryFile()  # noqa: SIM115  # closed by __exit__

    def __enter__(self) -> LogFile:
        sys.stderr.flush()
        self._stderr = os.dup(2)
        os.dup2(self._buffer.fileno(), 2)
        return self

    def open_in(self, folder: Path) -> None:
        """Append the buffered and all further output to `las_tune.log` in a folder. Later calls do nothing."""
        if self.path is not None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / paths.LOG).open("ab") as file:
            sys.stderr.flush()
            self._buffer.seek(0)
            shutil.copyfileobj(self._buffer, file)
            file.flush()
            os.dup2(file.fileno(), 2)
        self.path = folder / paths.LOG

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # a full disk may be the reason for the exception
            sys.stderr.flush()
            if self.path is not None and error is not None:
                error.add_note(f"{LOG_NOTE}{self.path}")
                with self.path.open("a", encoding="utf-8") as file:
                    traceback.print_exception(error, file=file)
        os.dup2(self._stderr, 2)
        os.close(self._stderr)
        if self.path is None and error is not None and not isinstance(error, UserError | KeyboardInterrupt):
            self._buffer.seek(0)
            os.write(2, self._buffer.read())  # without a file, the terminal is the only place to read it
        self._buffer.close()
