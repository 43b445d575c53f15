"""Work on images that is done where trials run: shared data, the finalists' scores, the sealed test."""

from __future__ import annotations

import math
from typing import Any

import ray
import torch

from las_tune.config.study_spec import StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.data.study_images import LabeledImages, Progress, TrialImages
from las_tune.data.trial_data import SharedData, share, store_limit_bytes
from las_tune.execution.cluster import Resources
from las_tune.execution.nodes import alive_nodes
from las_tune.execution.plan import measure_epoch_s
from las_tune.execution.trainable import SharedStudy
from las_tune.las.backbone import Backbone
from las_tune.las.memory import keep_freed_memory
from las_tune.las.training import pick_device
from las_tune.selection.evaluation import Evaluation, Trained, evaluate
from las_tune.selection.finalists import score_heads
from las_tune.selection.promotion import Scores

ASKED_EVERY_S = 0.5
MOST_MEASURED = 8
"""At once: trials share caches and memory, so an epoch takes longer beside others."""


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
    images: TrialImages,
    resources: Resources,
    progress: Progress,
    num_studies: int = 1,
) -> tuple[SharedStudy, str]:
    """Compute the shared data where trials run. The sealed test is not among the images that trials may see.

    num_studies: studies that share the object store.
    Returns: what workers need of the study, and a sentence on the stored features.
    """
    progress(f"computing frozen features of {spec.category}", 0, 1)
    memory = min(node["Resources"].get("object_store_memory", 0.0) for node in alive_nodes())
    limit = store_limit_bytes(spec.store_limit_gb, memory) / num_studies
    backbone_ref = ray.put(backbone)
    word = ray.remote(LastWord).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
    once = ray.remote(max_calls=1)(_share)  # its process ends, and gives its memory to the trials
    task = once.options(num_cpus=resources.cpus, num_gpus=resources.gpus, num_returns=2)
    data_ref, told = task.remote(backbone_ref, images, spec.train, limit, word)
    while not ray.wait([told], timeout=ASKED_EVERY_S)[0]:
        if (last := ray.get(word.get.remote())) is not None:
            progress(*last)
    stored: str = ray.get(told)
    progress(stored, 1, 1)
    if len(alive_nodes()) > 1:  # to the driver's machine: the one that computed it may go, and must not be held for it
        data_ref = ray.put(ray.get(data_ref))
    shared = SharedStudy(spec.train, backbone_ref, data_ref, resources.num_threads, images.kinds, spec.system_metrics)
    return shared, stored


def _share(backbone: Backbone, images: TrialImages, spec: TrainSpec, limit: float, word: Any) -> tuple[SharedData, str]:
    return share(_ready(backbone, spec), images, spec.store_dtype, limit, word.tell.remote)


def measure_remotely(shared: SharedStudy, resources: Resources) -> float:
    """Seconds of an epoch of the baseline beside as many others as will run; NaN where it cannot be trained."""
    once = ray.remote(max_calls=1)(_measure).options(num_cpus=resources.cpus, num_gpus=resources.gpus)
    beside = min(resources.places_now(), MOST_MEASURED)
    try:
        seconds: list[float] = ray.get([once.remote(shared.backbone, shared.data, shared) for _ in range(beside)])
    except ray.exceptions.RayError:  # a trial that fails is told, or tried again, in its own time
        return math.nan
    return max(seconds)


def _measure(backbone: Backbone, data: SharedData, shared: SharedStudy) -> float:
    torch.set_num_threads(shared.num_threads)
    network = _ready(backbone, shared.train)
    return measure_epoch_s(shared.train, network, data.to_device(network))


def evaluate_remotely(
    shared: SharedStudy, trained: dict[str, Trained], test: LabeledImages, resources: Resources
) -> dict[str, Evaluation]:
    """Open the sealed test where trials ran."""
    task = ray.remote(_evaluate).options(num_cpus=resources.cpus, num_gpus=resources.gpus)
    evaluations: dict[str, Evaluation] = ray.get(task.remote(shared.backbone, shared.data, trained, test, shared.train))
    return evaluations


def _evaluate(
    backbone: Backbone, data: SharedData, trained: dict[str, Trained], test: LabeledImages, spec: TrainSpec
) -> dict[str, Evaluation]:
    network = _ready(backbone, spec)
    return evaluate(network, data.to_device(network), trained, test, spec.fpr)


def score_remotely(shared: SharedStudy, finalists: dict[str, list[Trained]], resources: Resources) -> dict[str, Scores]:
    """Score the heads of every finalist on the validation images, where trials ran."""
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
