"""What Ray, MLflow and other libraries say while a study runs: in a file that errors name, not in the terminal."""

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

LOG = "log: "
"""Starts the note on an error that says where the file is."""


class NoiseLog:
    """Takes this process's stderr, C++ included, from `with` to its end; what is raised is in the file, too."""

    def __init__(self) -> None:
        self.path: Path | None = None
        """None until there is a folder to keep it in."""
        self._early = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> NoiseLog:
        sys.stderr.flush()
        self._terminal = os.dup(2)
        os.dup2(self._early.fileno(), 2)
        return self

    def keep_in(self, folder: Path) -> None:
        """From now on the file is here; what was said before is at its beginning."""
        if self.path is not None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / paths.LOG).open("ab") as file:
            sys.stderr.flush()
            self._early.seek(0)
            shutil.copyfileobj(self._early, file)
            file.flush()
            os.dup2(file.fileno(), 2)
        self.path = folder / paths.LOG

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # the disk may be full, which may be what ended the study
            sys.stderr.flush()
            if self.path is not None and error is not None:
                error.add_note(f"{LOG}{self.path}")
                with self.path.open("a", encoding="utf-8") as file:
                    traceback.print_exception(error, file=file)
        os.dup2(self._terminal, 2)
        os.close(self._terminal)
        if self.path is None and error is not None and not isinstance(error, UserError | KeyboardInterrupt):
            self._early.seek(0)
            os.write(2, self._early.read())  # there is no other place where it could be read
        self._early.close()
