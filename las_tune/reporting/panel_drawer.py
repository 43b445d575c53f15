"""Draws image panels in a separate process, so that the driver is not blocked by matplotlib."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from pathlib import Path

TIMEOUT_S = 300.0


class PanelDrawingError(Exception):
    """Raised when a panel could not be drawn."""


class PanelDrawer:
    """One drawing process for all trials of a study. It starts with the first panel and ends with the driver."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def draw(self, file: Path, title: str, folder: Path) -> None:
        """Draw the file of a Panel into a folder.

        Raises: PanelDrawingError if the file cannot be drawn, or the process ended or exceeded TIMEOUT_S.
        """
        process = self._process = self._process or subprocess.Popen(
            [sys.executable, "-m", "las_tune.reporting.draw_panels"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        try:
            print(json.dumps([str(file), title, str(folder)]), file=process.stdin, flush=True)
            answer = process.stdout.readline() if select.select([process.stdout], [], [], TIMEOUT_S)[0] else ""
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.close()
            raise PanelDrawingError(f"{file} could not be drawn: the drawing process ended or did not respond")
        if error := json.loads(answer):
            raise PanelDrawingError(f"{file} could not be drawn: {error[-300:]}")

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
