"""The process behind PanelDrawer. It reads JSON lines [file, title, folder] and answers each with an error or ""."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

from las_tune.reporting.panel import Panel
from las_tune.reporting.panel_figures import draw_panel

if __name__ == "__main__":
    os.nice(15)  # the same priority as trials: the driver comes first
    for line in sys.stdin:
        file, title, folder = json.loads(line)
        try:
            Path(folder).mkdir(exist_ok=True)
            draw_panel(Panel.load(Path(file)), title, Path(folder))
            print(json.dumps(""), flush=True)
        except Exception:  # an unreadable file must not prevent the next one from being drawn
            print(json.dumps(traceback.format_exc(limit=-2)), flush=True)
