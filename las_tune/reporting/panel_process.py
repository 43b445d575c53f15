"""The painter: has the images of trials drawn in another process, so that the driver goes on."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from pathlib import Path

TIMEOUT_S = 300.0


class PaintingError(Exception):
    """Images that cannot be drawn."""


class Painter:
    """One process for all trials of a study, started with the first; it ends with the driver, however that ends."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def draw(self, file: Path, title: str, folder: Path) -> None:
        """Draw a Panel's file into a folder. Raises PaintingError where it cannot be drawn."""
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
            raise PaintingError(f"{file} cannot be drawn: the process that draws is gone")
        if error := json.loads(answer):
            raise PaintingError(f"{file} cannot be drawn: {error[-300:]}")

    def close(self) -> None:
        """Let the process go."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
