"""Work on images that runs where trials run: shared data, timing, scores of finalists, the sealed test."""

from __future__ import annotations

import math
from typing import Any

import ray
import torch

from las_tune.config import Progress, StudySpec, TrainSpec
from las_tune.data import LabeledImages, SharedData, TrialImages, share, store_limit_bytes
from las_tune.execution.cluster import Resources
from las_tune.execution.nodes import alive_nodes
from las_tune.execution.plan import measure_epoch_s
from las_tune.execution.trainable import SharedStudy
from las_tune.las import Backbone, keep_freed_memory, pick_device
from las_tune.selection import Evaluation, Scores, TrainedHead, evaluate, score_heads

POLL_INTERVAL_S = 0.5
MAX_MEASURED = 8
"""Maximum number of epochs that are timed in parallel. Trials share caches and memory bandwidth, so an epoch takes
longer alongside others."""


class LatestProgress:
    """Ray actor that holds the latest progress of a task."""

    def __init__(self) -> None:
        self._latest: tuple[str, int, int] | None = None

    def report(self, what: str, done: int, total: int) -> None:
        """Replace the latest progress; a Progress."""
        self._latest = (what, done, total)

    def get(self) -> tuple[str, int, int] | None:
        """Return the latest progress, or None before the first report."""
        return self._latest


def prepare_remotely(
    spec: StudySpec,
    backbone: Backbone,
    images: TrialImages,
    resources: Resources,
    progress: Progress,
    num_studies: int = 1,
) -> tuple[SharedStudy, str]:
    """Compute the shared data of a study on a worker and put it into the object store.

    Args:
        spec: the study.
        backbone: the frozen network.
        images: the images that trials use. The sealed test is not among them.
        resources: resources of a trial.
        progress: called while the features are computed.
        num_studies: number of studies that share the object store.

    Returns: The data that workers need, and a sentence about the stored features.
    """
    progress(f"computing frozen features of {spec.category}", 0, 1)
    memory = min(node["Resources"].get("object_store_memory", 0.0) for node in alive_nodes())
    limit = store_limit_bytes(spec.store_limit_gb, memory) / num_studies
    backbone_ref = ray.put(backbone)
    latest = ray.remote(LatestProgress).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
    once = ray.remote(max_calls=1)(_share)  # the process ends after the call and frees its memory for trials
    task = once.options(num_cpus=resources.cpus, num_gpus=resources.gpus, num_returns=2)
    data_ref, sentence_ref = task.remote(backbone_ref, images, spec.train, limit, latest)
    sentence = _get_with_progress(sentence_ref, latest, progress)
    if len(alive_nodes()) > 1:  # move the data to the driver's node, so that the autoscaler can remove the worker
        data_ref = ray.put(ray.get(data_ref))
    shared = SharedStudy(
        spec.train, backbone_ref, data_ref, resources.num_threads, images.defect_types, spec.system_metrics
    )
    return shared, sentence


def _get_with_progress(sentence_ref: Any, latest: Any, progress: Progress) -> str:
    """Wait for a task and pass on the progress that it reports; the result is the last report."""
    while not ray.wait([sentence_ref], timeout=POLL_INTERVAL_S)[0]:
        if (report := ray.get(latest.get.remote())) is not None:
            progress(*report)
    sentence: str = ray.get(sentence_ref)
    progress(sentence, 1, 1)
    return sentence


def _share(
    backbone: Backbone, images: TrialImages, spec: TrainSpec, limit: float, latest: Any
) -> tuple[SharedData, str]:
    return share(_on_device(backbone, spec), images, spec.store_dtype, limit, latest.report.remote)


def measure_remotely(shared: SharedStudy, resources: Resources) -> float:
    """Measure an epoch of the baseline in seconds, with as many in parallel as trials will run.

    Returns:
        The longest duration; NaN if the baseline cannot be trained.
    """
    once = ray.remote(max_calls=1)(_measure).options(num_cpus=resources.cpus, num_gpus=resources.gpus)
    num_parallel = min(resources.num_available_slots(), MAX_MEASURED)
    try:
        seconds: list[float] = ray.get([once.remote(shared.backbone, shared.data, shared) for _ in range(num_parallel)])
    except ray.exceptions.RayError:  # the trial itself will fail, and report why
        return math.nan
    return max(seconds)


def _measure(backbone: Backbone, data: SharedData, shared: SharedStudy) -> float:
    torch.set_num_threads(shared.num_threads)
    network = _on_device(backbone, shared.train)
    return measure_epoch_s(shared.train, network, data.to_device(network))


def evaluate_remotely(
    shared: SharedStudy, trained: dict[str, TrainedHead], test: LabeledImages, resources: Resources
) -> dict[str, Evaluation]:
    """Evaluate trained heads on the sealed test, on a worker."""
    task = ray.remote(_evaluate).options(num_cpus=resources.cpus, num_gpus=resources.gpus)
    evaluations: dict[str, Evaluation] = ray.get(task.remote(shared.backbone, shared.data, trained, test, shared.train))
    return evaluations


def _evaluate(
    backbone: Backbone, data: SharedData, trained: dict[str, TrainedHead], test: LabeledImages, spec: TrainSpec
) -> dict[str, Evaluation]:
    network = _on_device(backbone, spec)
    return evaluate(network, data.to_device(network), trained, test, spec.fpr)


def score_remotely(
    shared: SharedStudy, finalists: dict[str, list[TrainedHead]], resources: Resources
) -> dict[str, Scores]:
    """Score the heads of every finalist on the validation images, on a worker."""
    task = ray.remote(_score).options(num_cpus=resources.cpus, num_gpus=resources.gpus)
    scores: dict[str, Scores] = ray.get(task.remote(shared.backbone, shared.data, finalists, shared.train))
    return scores


def _score(
    backbone: Backbone, data: SharedData, finalists: dict[str, list[TrainedHead]], spec: TrainSpec
) -> dict[str, Scores]:
    network = _on_device(backbone, spec)
    on_device = data.to_device(network)
    return {name: score_heads(network, on_device, heads, spec.fpr) for name, heads in finalists.items()}


def _on_device(backbone: Backbone, spec: TrainSpec) -> Backbone:
    """Return the network on the device of trials."""
    keep_freed_memory()
    return backbone.to(pick_device(spec.device))
