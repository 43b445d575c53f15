"""Draw the images of trials in a process of its own: a line [file, title, folder] in, a line with the error out."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

from las_tune.reporting.panel import Panel
from las_tune.reporting.panel_figures import draw_panel

if __name__ == "__main__":
    os.nice(15)  # as the trials' own processes: the driver goes first
    for line in sys.stdin:
        file, title, folder = json.loads(line)
        try:
            Path(folder).mkdir(exist_ok=True)
            draw_panel(Panel.load(Path(file)), title, Path(folder))
            print(json.dumps(""), flush=True)
        except Exception:  # whatever is wrong with one file, the next may be drawn
            print(json.dumps(traceback.format_exc(limit=-2)), flush=True)
