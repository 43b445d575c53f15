"""The start of a study: its folder, its run in the ledger, and the configurations that it starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from las_tune.config import Listener, Progress, StudySpec, make_folder, model_name
from las_tune.data import StudyImages
from las_tune.execution import CheckpointStorage, Resources
from las_tune.las import Backbone
from las_tune.reporting import TrainingLog
from las_tune.search import warm_start_points
from las_tune.space import Space
from las_tune.study.checks import PreparedStudy
from las_tune.study.outputs import write_start_files
from las_tune.study.publication import publish_start, study_parameters
from las_tune.study.resume import Points, StudyFile, reopen
from las_tune.tracking import Ledger, provenance_tags

RESUMING = "resuming study {} where its last driver stopped"
CLOSE_TIMEOUT_S = 10.0
"""How long a run that was stopped waits for MLflow. The journal keeps the unsent writes."""


@dataclass(frozen=True)
class RunContext:
    """Objects that all studies of a run share."""

    backbone: Backbone
    resources: Resources
    """Resources of one trial."""
    progress: Progress
    started: float
    """When the run started, by time.monotonic."""


@dataclass(frozen=True)
class OpenStudy:
    """A study that has its folder, its log and its run in the ledger."""

    spec: StudySpec
    space: Space
    images: StudyImages
    ledger: Ledger
    log: TrainingLog
    listeners: Sequence[Listener]
    points: Points


def make_folders(spec: StudySpec) -> None:
    """Create the folders that a run writes to. Raises UserError if they are not writable."""
    make_folder(spec.results)
    storage = CheckpointStorage.of(spec)
    if storage.is_local:
        make_folder(Path(storage.root).parent, "--storage")


def connect(spec: StudySpec) -> Ledger:
    """Open the MLflow store of a study. Raises UserError if that fails."""
    return Ledger(spec.tracking_uri, spec.experiment, spec.results / "mlartifacts", provenance_tags(spec))


def find_start_points(study: PreparedStudy, ledger: Ledger) -> tuple[Points, list[str]]:
    """The configurations that a study starts from, and sentences about them. A resumed study keeps its own."""
    if study.earlier is not None:
        return study.earlier.points, [RESUMING.format(study.spec.study)]
    return warm_start_points(study.spec, study.space, study.digest, ledger.champion_tags)


def start_study(study: PreparedStudy, ledger: Ledger, points: Points, context: RunContext) -> TrainingLog:
    """Start or resume the folder of a study and its run in the ledger."""
    spec = study.spec
    make_folder(spec.folder)
    if study.earlier is None:
        StudyFile(study.settings, points).write(spec)
    log = TrainingLog(spec.folder, spec.category, datetime.now())

    def notify(sentence: str) -> None:
        log.write(sentence)
        context.progress(sentence, 1, 1)

    parameters = study_parameters(spec, study.space)
    ledger.start_study(spec.folder, spec.study, parameters, context.resources.cost_unit, notify)
    return log


def announce(
    study: PreparedStudy, ledger: Ledger, points: Points, sentences: Sequence[str], progress: Progress
) -> None:
    """Reopen a finished study that gets more trials, and record what is about to be searched."""
    spec, earlier = study.spec, study.earlier
    if earlier is not None and earlier.settings != study.settings:
        # The ledger comes first: a driver that is killed between the two is called again to extend the study.
        ledger.extend(spec.trials)
        reopen(spec, study.settings, points)
    files = write_start_files(spec, study.space, study.images.split.as_dict())
    publish_start(spec, study.space, files, sentences if points else (), ledger)
    # The ledger caches the registered champion, in case MLflow does not answer when the trials end.
    ledger.registered_champion(model_name(spec.category))
    for sentence in sentences:
        progress(sentence, 1, 1)


def close_ledger(ledger: Ledger) -> None:
    """Close a ledger. A study that has not ended yet has failed."""
    ledger.end_study("FAILED")
    ledger.flush(CLOSE_TIMEOUT_S)
    ledger.close()
