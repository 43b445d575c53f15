"""A study as one HTML file that needs nothing beside it: it can be mailed, printed, and kept."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markdown_it import MarkdownIt
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image

from las_tune.config import paths
from las_tune.reporting.summary import WARNINGS
from las_tune.tracking.artifacts import Artifacts
from las_tune.tracking.store import StudyRuns
from las_tune.tracking.tables import read_summary, sealed_table, trial_table

AS_IT_IS_BYTES = 150_000
"""Images above this are stored anew as JPEG, so that a report can be mailed."""
WIDEST_PX = 1600
TEMPLATE = files("las_tune.tracking") / "report.html"
CAPTIONS = {
    "optimization_history": "Optimization history: the objective of every trial",
    "best_so_far": "Best so far",
    "importance": "Importance of the hyperparameters",
    "parallel_coordinates": "Parallel coordinates",
    "slices": "Slices: the objective along each hyperparameter",
    "timeline": "Timeline of the trials",
    "training_curves": "Training curves of baseline and champion",
    "roc_curve": "ROC curves of baseline and champion",
    "painted": "Good images with painted defects",
    "heat_maps": "Validation images and their anomaly maps",
    "worst": "The worst misses and false rejects",
    "curves": "Curves on validation images",
}
"""By the start of a file's name, in the order in which they are read; others follow by name."""


@dataclass(frozen=True)
class ReportImage:
    """An image inside the file."""

    caption: str
    address: str
    """data:image/...;base64,..."""


@dataclass(frozen=True)
class Panel:
    """The images of one trial."""

    title: str
    images: list[ReportImage]


def make_report(client: MlflowClient, study: StudyRuns) -> tuple[str, list[str]]:
    """The report of a study that has ended, or still runs; and the names of what is missing in it."""
    parent = Artifacts(client, study.parent.info.run_id)
    tags = study.parent.data.tags
    description = tags.get("mlflow.note.content", "")
    sealed = sealed_table(study, read_summary(client, study))
    figures, panels = _images(parent, _figure_paths(parent)), _panels(client, study)
    command = (parent.read_text(paths.COMMAND) or study.parent.data.params.get("command", "")).strip()
    there = {
        "the description": description,
        "the sealed test, which is opened when a study ends": sealed.rows,
        "figures": figures,
        "images of baseline and champion": panels,
        "the command": command,
    }
    missing = [name for name, content in there.items() if not content]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(TEMPLATE.read_text("utf-8")).render(
        name=study.name,
        tags=tags,
        status=study.parent.info.status.lower(),
        counts=_counts(study.trials),
        warnings=[text for text in _warnings(tags) if text not in description],
        missing=missing,
        description=_as_html(description),
        sealed=sealed,
        figures=figures,
        panels=panels,
        trials=trial_table(study, study.trials),
        again=trial_table(study, study.again),
        command=command,
        versions={tag.removeprefix("version."): tags[tag] for tag in sorted(tags) if tag.startswith("version.")},
        constraints=parent.read_text(paths.CONSTRAINTS),
    )
    return text, missing


def _warnings(tags: Mapping[str, str]) -> list[str]:
    return [text for key, text in WARNINGS.items() if tags.get(key.replace("_", "-")) == "true"]


def _as_html(markdown: str) -> str:
    """A description; HTML in it is shown as it is written, and no image is fetched."""
    markdown_it = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return str(markdown_it.render(markdown))


def _counts(runs: Sequence[Run]) -> str:
    """7 completed, 2 pruned."""
    statuses = Counter(run.data.tags.get("status", "unknown") for run in runs)
    return ", ".join(f"{number} {status}" for status, number in sorted(statuses.items())) or "none yet"


def _figure_paths(parent: Artifacts) -> list[str]:
    return [path for folder in ("figures", "") for path in parent.names(folder) if path.endswith(".png")]


def _panels(client: MlflowClient, study: StudyRuns) -> list[Panel]:
    """Of baseline and champion, one panel where both are one; as long as there is no champion, of the best trial."""
    everyone = [*study.again, *study.trials]
    roles = {role: [run for run in everyone if run.data.tags.get(role) == "true"] for role in ("baseline", "champion")}
    if not roles["champion"]:
        roles = {"baseline": roles["baseline"], "best trial so far": study.trials[:1]}
    titles: dict[str, str] = {}
    for role, runs in roles.items():
        found = next((run for run in runs if _panel_paths(Artifacts(client, run.info.run_id))), None)
        if found is not None:
            run_id = found.info.run_id
            titles[run_id] = f"{titles[run_id]} and {role}" if run_id in titles else f"{found.info.run_name}: {role}"
    panels = []
    for run_id, title in titles.items():
        artifacts = Artifacts(client, run_id)
        panels.append(Panel(title[0].upper() + title[1:], _images(artifacts, _panel_paths(artifacts))))
    return panels


def _panel_paths(artifacts: Artifacts) -> list[str]:
    return [path for path in artifacts.names("panel") if path.endswith(".png")]


def _images(artifacts: Artifacts, paths: Iterable[str]) -> list[ReportImage]:
    """Images as addresses that hold them; those that cannot be read are left out."""
    found = []
    for place, path in sorted((_place(path), path) for path in paths):
        content = artifacts.read(path)
        address = _address(content) if content else ""
        if address:
            known = [*CAPTIONS.values(), Path(path).stem.replace("_", " ").capitalize()]
            found.append(ReportImage(known[place], address))
    return found


def _place(path: str) -> int:
    """Where an image stands in CAPTIONS; behind them if it has none."""
    places = [place for place, start in enumerate(CAPTIONS) if Path(path).stem.startswith(start)]
    return places[0] if places else len(CAPTIONS)


def _address(png: bytes) -> str:
    """data:image/...;base64,...; empty where it is no image."""
    try:
        with Image.open(io.BytesIO(png)) as image:
            jpeg = _as_jpeg(image) if len(png) > AS_IT_IS_BYTES else png
    except (OSError, ValueError):
        return ""
    kind, content = ("jpeg", jpeg) if len(jpeg) < len(png) else ("png", png)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _as_jpeg(image: Image.Image) -> bytes:
    """On white, not wider than a page needs."""
    flat = Image.new("RGB", image.size, "white")
    flat.paste(image, mask=image.convert("RGBA").getchannel("A"))
    flat.thumbnail((WIDEST_PX, 4 * WIDEST_PX))
    buffer = io.BytesIO()
    flat.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
