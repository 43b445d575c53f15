"""Work on pictures that is done where trials run: shared data, the finalists' scores, the sealed test."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import ray
import torch

from las_tune.las.backbone import Backbone
from las_tune.las.memory import keep_freed_memory
from las_tune.las.train import pick_device
from las_tune.spec import TrainSpec
from las_tune.study_spec import StudySpec
from las_tune.tuning.cluster import Resources
from las_tune.tuning.evaluate import Evaluation, Trained, evaluate
from las_tune.tuning.finalists import score_heads
from las_tune.tuning.nodes import alive_nodes
from las_tune.tuning.pictures import Labelled, Progress, TrialPictures
from las_tune.tuning.plan import measure_epoch_s
from las_tune.tuning.prepare import SharedData, share, store_limit_bytes
from las_tune.tuning.promote import Scores
from las_tune.tuning.trainable import SharedStudy

ASKED_EVERY_S = 0.5
MOST_MEASURED = 8
"""At once: trials share caches and memory, so an epoch takes longer beside others."""


@dataclass(frozen=True)
class Prepared:
    """A study whose features are computed."""

    shared: SharedStudy
    """What workers need of it."""
    stored: str
    """A sentence on the stored features."""
    epoch_s: float
    """Seconds of an epoch of the baseline beside others, see measure_epoch_s; NaN where it could not be trained."""


class LastWord:
    """An actor that keeps what a task told last of its progress."""

    def __init__(self) -> None:
        self._told: tuple[str, int, int] | None = None

    def tell(self, what: str, done: int, total: int) -> None:
        """Keep it."""
        self._told = (what, done, total)

    def get(self) -> tuple[str, int, int] | None:
        """None before the first word."""
        return self._told


def prepare_remotely(
    spec: StudySpec,
    backbone: Backbone,
    pictures: TrialPictures,
    resources: Resources,
    progress: Progress,
    num_studies: int = 1,
) -> Prepared:
    """Compute the shared data where trials run. The sealed test is not among the pictures that trials may see.

    num_studies: studies that share the object store.
    """
    progress(f"computing frozen features of {spec.category}", 0, 1)
    memory = min(node["Resources"].get("object_store_memory", 0.0) for node in alive_nodes())
    limit = store_limit_bytes(spec.store_limit_gb, memory) / num_studies
    backbone_ref = ray.put(backbone)
    word = ray.remote(LastWord).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
    held = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
    once = ray.remote(max_calls=1)(_share)  # its process ends, and gives its memory to the trials
    data_ref, told = once.options(**held, num_returns=2).remote(backbone_ref, pictures, spec.train, limit, word)
    while not ray.wait([told], timeout=ASKED_EVERY_S)[0]:
        if (last := ray.get(word.get.remote())) is not None:
            progress(*last)
    stored: str = ray.get(told)
    progress(stored, 1, 1)
    progress("measuring an epoch", 0, 1)
    measure = ray.remote(max_calls=1)(_measure).options(**held)
    beside = [
        measure.remote(backbone_ref, data_ref, spec.train, resources.num_threads)
        for _ in range(min(resources.places_now(), MOST_MEASURED))
    ]
    try:
        epoch_s = max(ray.get(beside))
    except ray.exceptions.RayError:  # a trial that fails is told, or tried again, in its own time
        epoch_s = math.nan
    if len(alive_nodes()) > 1:  # to the driver's machine: the one that computed it may go, and must not be held for it
        data_ref = ray.put(ray.get(data_ref))
    shared = SharedStudy(spec.train, backbone_ref, data_ref, resources.num_threads, pictures.kinds, spec.system_metrics)
    return Prepared(shared, stored, epoch_s)


def _share(
    backbone: Backbone, pictures: TrialPictures, spec: TrainSpec, limit: float, word: Any
) -> tuple[SharedData, str]:
    return share(_ready(backbone, spec), pictures, spec.store_dtype, limit, word.tell.remote)


def _measure(backbone: Backbone, data: SharedData, spec: TrainSpec, num_threads: int) -> float:
    torch.set_num_threads(num_threads)
    network = _ready(backbone, spec)
    return measure_epoch_s(spec, network, data.to_device(network))


def evaluate_remotely(
    shared: SharedStudy, trained: dict[str, Trained], test: Labelled, resources: Resources
) -> dict[str, Evaluation]:
    """Open the sealed test where trials ran."""
    task = ray.remote(_evaluate).options(num_cpus=resources.cpus, num_gpus=resources.gpus)
    evaluations: dict[str, Evaluation] = ray.get(task.remote(shared.backbone, shared.data, trained, test, shared.train))
    return evaluations


def _evaluate(
    backbone: Backbone, data: SharedData, trained: dict[str, Trained], test: Labelled, spec: TrainSpec
) -> dict[str, Evaluation]:
    network = _ready(backbone, spec)
    return evaluate(network, data.to_device(network), trained, test, spec.fpr)


def score_remotely(shared: SharedStudy, finalists: dict[str, list[Trained]], resources: Resources) -> dict[str, Scores]:
    """Score the heads of every finalist on the validation pictures, where trials ran."""
    task = ray.remote(_score).options(num_cpus=resources.cpus, num_gpus=resources.gpus)
    scores: dict[str, Scores] = ray.get(task.remote(shared.backbone, shared.data, finalists, shared.train))
    return scores


def _score(
    backbone: Backbone, data: SharedData, finalists: dict[str, list[Trained]], spec: TrainSpec
) -> dict[str, Scores]:
    network = _ready(backbone, spec)
    on_device = data.to_device(network)
    return {name: score_heads(network, on_device, heads, spec.fpr) for name, heads in finalists.items()}


def _ready(backbone: Backbone, spec: TrainSpec) -> Backbone:
    """The network on the device of trials, in a worker that gives memory back."""
    keep_freed_memory()
    return backbone.to(pick_device(spec.device))
