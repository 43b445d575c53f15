"""Draw the pictures of a trial in a process of its own: python -m las_tune.tracking.draw FILE TITLE FOLDER."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from las_tune.tracking.panel import Panel
from las_tune.tracking.panel_figures import draw_panel

if __name__ == "__main__":
    os.nice(15)  # as the trials' own processes: the driver goes first
    panel_file, title, folder = sys.argv[1:]
    Path(folder).mkdir(exist_ok=True)
    draw_panel(Panel.load(Path(panel_file)), title, Path(folder))
