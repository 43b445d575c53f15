"""Work on pictures that is done where trials run: shared data, the finalists' scores, the sealed test."""

from __future__ import annotations

import ray

from las_tune.las.backbone import Backbone
from las_tune.las.memory import keep_freed_memory
from las_tune.las.train import pick_device
from las_tune.spec import StudySpec
from las_tune.tuning.cluster import Resources
from las_tune.tuning.evaluate import Evaluation, Trained, evaluate
from las_tune.tuning.finalists import score_heads
from las_tune.tuning.prepare import Array, Labelled, SharedData, StudyPictures, share, store_limit_bytes
from las_tune.tuning.promote import Scores
from las_tune.tuning.trainable import SharedStudy


def prepare_remotely(
    spec: StudySpec, backbone: Backbone, pictures: StudyPictures, resources: Resources
) -> tuple[SharedStudy, str]:
    """Compute the shared data where trials run.

    Returns: what workers need of the study, and a sentence on the stored features.
    """
    memory = min(node["Resources"].get("object_store_memory", 0.0) for node in ray.nodes() if node["Alive"])
    limit = store_limit_bytes(spec.store_limit_gb, memory)
    backbone_ref = ray.put(backbone)
    task = ray.remote(_share).options(num_cpus=resources.cpus, num_gpus=resources.gpus, num_returns=2)
    # Fit, validation and textures: the sealed test does not leave the driver before promotion.
    data_ref, stored = task.remote(
        backbone_ref, pictures.fit, pictures.validation, pictures.textures, spec.train.store_dtype, limit
    )
    sentence: str = ray.get(stored)
    return SharedStudy(spec.train, backbone_ref, data_ref, resources.num_threads), sentence


def _share(
    backbone: Backbone, fit: Array, validation: Labelled, textures: Array, store_dtype: str, limit: float
) -> tuple[SharedData, str]:
    keep_freed_memory()
    return share(backbone.to(pick_device("auto")), fit, validation, textures, store_dtype, limit)


def evaluate_remotely(
    shared: SharedStudy, trained: dict[str, Trained], test: Labelled, calibration: Array, resources: Resources
) -> dict[str, Evaluation]:
    """Open the sealed test where trials ran."""
    task = ray.remote(_evaluate).options(num_cpus=resources.cpus, num_gpus=resources.gpus)
    evaluations: dict[str, Evaluation] = ray.get(task.remote(shared.backbone, shared.data, trained, test, calibration))
    return evaluations


def _evaluate(
    backbone: Backbone, data: SharedData, trained: dict[str, Trained], test: Labelled, calibration: Array
) -> dict[str, Evaluation]:
    keep_freed_memory()
    network = backbone.to(pick_device("auto"))
    return evaluate(network, data.to_device(network), trained, test, calibration)


def score_remotely(shared: SharedStudy, finalists: dict[str, list[Trained]], resources: Resources) -> dict[str, Scores]:
    """Score the heads of every finalist on the validation pictures, where trials ran."""
    task = ray.remote(_score).options(num_cpus=resources.cpus, num_gpus=resources.gpus)
    scores: dict[str, Scores] = ray.get(task.remote(shared.backbone, shared.data, finalists))
    return scores


def _score(backbone: Backbone, data: SharedData, finalists: dict[str, list[Trained]]) -> dict[str, Scores]:
    keep_freed_memory()
    network = backbone.to(pick_device("auto"))
    validation = data.to_device(network).validation
    return {name: score_heads(network, validation, heads) for name, heads in finalists.items()}
