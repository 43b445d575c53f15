"""Finished studies in a store, written with MLflow's client, for tests of code that reads them."""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from PIL import Image

from las_tune.config.interval import Interval
from tests.parts import empty_store
from tests.summaries import make_summary

PANEL = ("synthetic_defects", "anomaly_maps", "worst", "curves")
FIGURES = ("optimization_history", "best_so_far", "importance")
OBJECTIVES = (0.80, 0.86, 0.74, 0.91, 0.88, 0.62, 0.90, 0.83)
"""Best objective by trial; trial 3 is the best, trial 5 was pruned."""


@dataclass(frozen=True)
class FilledStore:
    """An MLflow store with an experiment."""

    uri: str
    client: MlflowClient
    experiment_id: str


def make_store(folder: Path) -> FilledStore:
    """Make an empty store with the experiment las_tune, in the layout of a results folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mlflow.db").write_bytes(empty_store())
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)
    return FilledStore(uri, client, client.create_experiment("las_tune", str(folder / "mlartifacts")))


def make_png(seed: int, size: tuple[int, int] = (320, 200)) -> bytes:
    """Return a PNG image of smooth stripes."""
    across, down = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    waves = [127 + 127 * np.sin((across * (k + 1) + down * seed) / 30) for k in range(3)]
    buffer = io.BytesIO()
    Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def make_study(store: FilledStore, name: str, *, start_ms: int = 1_700_000_000_000, **tags: str) -> str:
    """Add a finished study: eight trials, two finalists retrained with two seeds, all files. Returns its run ID."""
    parent = start_study(store, name, start_ms=start_ms, **tags)
    for number, objective in enumerate(OBJECTIVES):
        run_id = add_trial(store, parent, name, number, objective, start_ms=start_ms + 1000 * (number + 1))
        add_images(store, run_id, number)
    for index, (finalist, seed) in enumerate((f, s) for f in ("baseline", "trial 3") for s in (1, 2)):
        number, role = 8 + index, "baseline" if finalist == "baseline" else "champion"
        again = {"finalist": finalist, "finalist_seed": str(seed)} | ({role: "true"} if seed == 1 else {})
        objective = (0.80 if finalist == "baseline" else 0.90) + seed / 100
        run_id = add_trial(store, parent, name, number, objective, start_ms=start_ms + 1000 * (number + 1), **again)
        add_images(store, run_id, number)
    end_study(store, parent)
    return parent


def start_study(store: FilledStore, name: str, *, start_ms: int = 1_700_000_000_000, **tags: str) -> str:
    """Add a study that has just started. Returns its run ID."""
    usual = {"kind": "study", "study": name, "category": "part", "objective": "combined", "seed": "0", "demo": "false"}
    usual |= {"git_commit": "0123abcd", "version.las_tune": "0.1.0", "version.torch": "2.9.0"}
    run = store.client.create_run(store.experiment_id, start_time=start_ms, tags=usual | tags, run_name=name)
    store.client.log_param(run.info.run_id, "command", f"python -m las_tune --category part --study {name}")
    return str(run.info.run_id)


def add_trial(
    store: FilledStore, parent: str, study: str, number: int, objective: float, *, start_ms: int, **tags: str
) -> str:
    """Add a trial of three epochs, or one that was pruned after the first. Returns its run ID."""
    is_short = objective < 0.7
    usual = {"mlflow.parentRunId": parent, "kind": "trial", "study": study, "category": "part", "trial": str(number)}
    usual |= {"status": "pruned" if is_short else "completed", "baseline": str(number == 0).lower()}
    name = f"{tags['finalist']}, seed {tags['finalist_seed']}" if "finalist" in tags else f"trial {number}"
    name += " (baseline)" if number == 0 else ""
    run_id = store.client.create_run(store.experiment_id, start_ms, usual | tags, name).info.run_id
    metrics = [
        Metric(metric, objective - 0.1 / epoch, start_ms + epoch, epoch)
        for epoch in range(1, 2 if is_short else 4)
        for metric in ("image_auroc", "pixel_aupro", "objective", "loss")
    ]
    best = {"objective": objective, "image_auroc": objective + 0.05, "pixel_aupro": objective - 0.05, "epoch": 3}
    metrics += [Metric(f"best/{key}", value, start_ms, 0) for key, value in best.items()]
    metrics += [Metric("total_seconds", 12.5 + number, start_ms, 0)]
    params = {"adaptor_lr": 1e-4 * (1 + number % 8), "alpha": 1 / 3 + number % 8 / 50, "beta_mean": 0.5, "width": 768}
    store.client.log_batch(run_id, metrics, [Param(key, str(value)) for key, value in params.items()])
    store.client.set_terminated(run_id, "FINISHED", start_ms + 900)
    return str(run_id)


def add_images(store: FilledStore, run_id: str, seed: int) -> None:
    """Add the image panel of a trial."""
    for index, name in enumerate(PANEL):
        add_file(store, run_id, f"panel/{name}.png", make_png(seed + index))


def end_study(store: FilledStore, parent: str) -> None:
    """Add the results of the sealed test and the files, and end the run."""
    for role, level in (("baseline", 0.80), ("champion", 0.90), ("memory_bank", 0.85)):
        for name in ("image_auroc", "pixel_aupro"):
            store.client.log_metric(parent, f"{role}/test_{name}", level + (0.04 if name == "image_auroc" else 0))
    gains = {"combined": Interval(0.1, 0.02, 0.17), "image_auroc": Interval(0.1, -math.inf, math.inf)}
    add_file(store, parent, "summary.json", json.dumps(make_summary(test_gain=gains).to_json()).encode())
    add_file(store, parent, "command.txt", b"python -m las_tune --category part --seed 0\n")
    add_file(store, parent, "constraints.txt", b"torch==2.9.0\n")
    for index, name in enumerate(FIGURES):
        add_file(store, parent, f"figures/{name}.png", make_png(20 + index))
    add_file(store, parent, "training_curves_part.png", make_png(30))
    add_file(store, parent, "roc_curve_part.png", make_png(31))
    add_file(store, parent, "figures/study.html", FIGURE_PAGE)
    note = (
        "## A search over `part`\n\nThe champion is **trial 3**.\n\n| metric | value |\n|---|---|\n| AUROC | 0.94 |\n"
    )
    tags = {"mlflow.note.content": note, "promotion": "trial 3 beats the baseline"}
    store.client.log_batch(parent, tags=[RunTag(key, value) for key, value in tags.items()])
    store.client.set_terminated(parent, "FINISHED")


FIGURE_PAGE = b"""<!doctype html><html><body><h1 id="figure">best so far</h1><svg width="400" height="200">
<polyline points="0,180 80,120 160,110 240,40 400,30" fill="none" stroke="#0072B2" stroke-width="4"/></svg>
</body></html>
"""
"""Stands in for figures/study.html."""


def add_file(store: FilledStore, run_id: str, path: str, content: bytes) -> None:
    """Add a file to the artifacts of a run, in the folder that MLflow would use."""
    root = store.client.get_run(run_id).info.artifact_uri.removeprefix("file://")
    file = Path(root) / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
