"""A study as one self-contained HTML file, to be mailed, printed or archived."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markdown_it import MarkdownIt
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image

from las_tune.config import paths
from las_tune.reporting import WARNINGS
from las_tune.tracking.store import Artifacts, StudyRuns
from las_tune.tracking.tables import read_gains, sealed_table, trial_table

MAX_PNG_BYTES = 150_000
"""Larger images are converted to JPEG, so that the report stays small enough to be mailed."""
MAX_WIDTH_PX = 1600
TEMPLATE = files("las_tune.tracking") / "report.html"
CAPTIONS = {
    "optimization_history": "Optimization history: the objective of every trial",
    "optimisation_history": "Optimization history: the objective of every trial",  # version 0.1.0
    "best_so_far": "Best objective so far",
    "importance": "Hyperparameter importance",
    "parallel_coordinates": "Parallel coordinates",
    "slices": "Slices: the objective against each hyperparameter",
    "timeline": "Timeline of the trials",
    "training_curves": "Training curves of baseline and champion",
    "roc_curve": "ROC curves of baseline and champion",
    "synthetic": "Synthetic defects on good images",
    "painted": "Synthetic defects on good images",  # version 0.1.0
    "anomaly_maps": "Validation images and their anomaly maps",
    "heat_maps": "Validation images and their anomaly maps",  # version 0.1.0
    "worst": "Worst misses and false rejects",
    "curves": "Curves on validation images",
}
"""Captions by the start of a file's name, in the order of the report. Files without a caption follow."""


@dataclass(frozen=True)
class ReportImage:
    """An embedded image."""

    caption: str
    address: str
    """A URL with the content: data:image/...;base64,..."""


@dataclass(frozen=True)
class Panel:
    """The images of one trial."""

    title: str
    images: list[ReportImage]


def make_report(client: MlflowClient, study: StudyRuns) -> tuple[str, list[str]]:
    """Make the report of a study, finished or running.

    Args:
        client: client of the store.
        study: the study.

    Returns: the HTML, and the names of the parts that the store does not have.
    """
    parent = Artifacts(client, study.parent.info.run_id)
    tags = study.parent.data.tags
    description = tags.get("mlflow.note.content", "")
    parts: dict[str, Any] = {
        "description": description,
        "sealed": sealed_table(study, read_gains(client, study)),
        "figures": _embed(parent, _figure_paths(parent)),
        "panels": _panels(client, study),
        "command": (parent.read_text(paths.COMMAND) or study.parent.data.params.get("command", "")).strip(),
    }
    missing = _missing(parts)
    parts["description"] = _to_html(description)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(TEMPLATE.read_text("utf-8")).render(
        parts,
        name=study.name,
        tags=tags,
        status=study.parent.info.status.lower(),
        counts=_counts(study.trials),
        warnings=[text for text in _warnings(tags) if text not in description],
        missing=missing,
        trials=trial_table(study, study.trials),
        finalists=trial_table(study, study.finalists),
        versions={tag.removeprefix("version."): tags[tag] for tag in sorted(tags) if tag.startswith("version.")},
        constraints=parent.read_text(paths.CONSTRAINTS),
    )
    return text, missing


def _missing(parts: Mapping[str, Any]) -> list[str]:
    available = {
        "the description": parts["description"],
        "the sealed test, which is evaluated at the end of a study": parts["sealed"].rows,
        "figures": parts["figures"],
        "images of baseline and champion": parts["panels"],
        "the command": parts["command"],
    }
    return [name for name, content in available.items() if not content]


def _warnings(tags: Mapping[str, str]) -> list[str]:
    return [text for key, text in WARNINGS.items() if tags.get(key.replace("_", "-")) == "true"]


def _to_html(markdown: str) -> str:
    """Render a description. Raw HTML is escaped, and images are not loaded: the text is not trusted."""
    markdown_it = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return str(markdown_it.render(markdown))


def _counts(runs: Sequence[Run]) -> str:
    """Return the number of trials by status, such as `7 completed, 2 pruned`."""
    statuses = Counter(run.data.tags.get("status", "unknown") for run in runs)
    return ", ".join(f"{number} {status}" for status, number in sorted(statuses.items())) or "none yet"


def _figure_paths(parent: Artifacts) -> list[str]:
    return [path for folder in ("figures", "") for path in parent.names(folder) if path.endswith(".png")]


def _panels(client: MlflowClient, study: StudyRuns) -> list[Panel]:
    """Return the panels of baseline and champion, or of the best trial so far if there is no champion yet."""
    runs = [*study.finalists, *study.trials]
    roles = {role: [run for run in runs if run.data.tags.get(role) == "true"] for role in ("baseline", "champion")}
    if not roles["champion"]:
        roles = {"baseline": roles["baseline"], "best trial so far": study.trials[:1]}
    titles: dict[str, str] = {}
    for role, candidates in roles.items():
        run = next((run for run in candidates if _panel_paths(Artifacts(client, run.info.run_id))), None)
        if run is not None:
            run_id = run.info.run_id
            titles[run_id] = f"{titles[run_id]} and {role}" if run_id in titles else f"{run.info.run_name}: {role}"
    panels = []
    for run_id, title in titles.items():
        artifacts = Artifacts(client, run_id)
        panels.append(Panel(title[0].upper() + title[1:], _embed(artifacts, _panel_paths(artifacts))))
    return panels


def _panel_paths(artifacts: Artifacts) -> list[str]:
    return [path for path in artifacts.names("panel") if path.endswith(".png")]


def _embed(artifacts: Artifacts, paths: Iterable[str]) -> list[ReportImage]:
    """Return images with their content, in the order of CAPTIONS, without those that cannot be read."""
    images = []
    for position, path in sorted((_position(path), path) for path in paths):
        content = artifacts.read(path)
        address = _data_url(content) if content else ""
        if address:
            captions = [*CAPTIONS.values(), Path(path).stem.replace("_", " ").capitalize()]
            images.append(ReportImage(captions[position], address))
    return images


def _position(path: str) -> int:
    """Return the index of an image in CAPTIONS, or their number if it has no caption."""
    positions = [index for index, start in enumerate(CAPTIONS) if Path(path).stem.startswith(start)]
    return positions[0] if positions else len(CAPTIONS)


def _data_url(png: bytes) -> str:
    """Return an image as data:image/...;base64,...; empty if it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(png)) as image:
            jpeg = _to_jpeg(image) if len(png) > MAX_PNG_BYTES else png
    except (OSError, ValueError):
        return ""
    format_, content = ("jpeg", jpeg) if len(jpeg) < len(png) else ("png", png)
    return f"data:image/{format_};base64,{base64.b64encode(content).decode()}"


def _to_jpeg(image: Image.Image) -> bytes:
    """Encode on a white background, at most MAX_WIDTH_PX wide."""
    flat = Image.new("RGB", image.size, "white")
    flat.paste(image, mask=image.convert("RGBA").getchannel("A"))
    flat.thumbnail((MAX_WIDTH_PX, 4 * MAX_WIDTH_PX))
    buffer = io.BytesIO()
    flat.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
