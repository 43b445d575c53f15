"""Training of one detector: `train` yields one EpochResult per epoch. It depends on neither Ray nor MLflow."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from las_tune.config import TrainSpec, objective_value, ranking
from las_tune.las.backbone import Backbone
from las_tune.las.features import FeatureStore, extract_features
from las_tune.las.head import Head, head_precision
from las_tune.las.image_metrics import LabeledFeatures, metrics_of, threshold_of
from las_tune.las.losses import focal_loss, normal_loss
from las_tune.las.masks import grid_labels
from las_tune.las.memory import peak_memory_mb, reset_peak_memory
from las_tune.las.scoring import image_scores, score_features
from las_tune.las.synthesis import synthesize


class TrainingDivergedError(RuntimeError):
    """Raised when the loss or the scores are not finite."""


@dataclass(frozen=True)
class TrainData:
    """Data of a training run, on its device. The sealed test is not included.

    features     N defect-free images and their features
    foreground   (N, 1, S, S) bool, 1 = part
    textures     (M, 3, S, S) uint8 RGB
    calibration  good images that set the threshold
    validation   images used to select the best epoch
    monitored    images by name that are also scored, but never used for model selection
    """

    features: FeatureStore
    foreground: Tensor
    textures: Tensor
    calibration: FeatureStore
    validation: LabeledFeatures
    monitored: Mapping[str, LabeledFeatures] = field(default_factory=dict)

    @property
    def images(self) -> Tensor:
        """(N, 3, S, S) uint8 RGB, defect-free."""
        return self.features.images


@dataclass(frozen=True)
class EpochResult:
    """Results of one epoch."""

    epoch: int
    """Number of the epoch, starting at 1."""
    loss: float
    loss_normal: float
    loss_las: float
    metrics: dict[str, float]
    """Metrics on the validation images, see metrics_of, and on monitored images as name/metric."""
    objective: float
    best_objective: float
    """Objective of the best epoch so far; never decreases."""
    best_epoch: int
    seconds: float
    peak_memory_mb: float
    """Peak memory so far in MiB: on a GPU of all tensors, on a CPU of the process at the end of an epoch."""
    anomaly_maps: Tensor = field(repr=False)
    """(N, S, S) float, anomaly maps of the validation images."""
    normal_scores: Tensor = field(repr=False)
    """(M,) float, scores of the calibration images."""
    threshold: float
    """Score above which an image is classified as defective."""
    state: dict[str, Any] = field(repr=False)
    """Everything needed to resume; valid until the next epoch starts."""

    def row(self) -> dict[str, float]:
        """Return the losses and metrics of the epoch by name."""
        omitted = ("metrics", "anomaly_maps", "normal_scores", "threshold", "state")
        numbers = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in omitted}
        return numbers | self.metrics

    @property
    def is_best(self) -> bool:
        """Whether this epoch is the best so far."""
        return self.best_epoch == self.epoch


def pick_device(name: str) -> torch.device:
    """Return the device with a given name. `auto` selects the GPU if there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


class Training:
    """Mutable state of one training run: head, optimizers, random generator, best epoch."""

    def __init__(self, spec: TrainSpec, channels: tuple[int, ...], device: torch.device) -> None:
        init_generator = torch.Generator().manual_seed(spec.seed)
        self.head = Head(channels, spec.hidden_width, init_generator, spec.use_adaptor).to(device)
        settings: dict[str, Any] = {"weight_decay": spec.weight_decay, "fused": device.type == "cuda"}
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(self.head.discriminator_parameters(), spec.discriminator_lr, **settings)
        ]
        if self.head.adaptor is not None:
            self.optimizers.insert(0, torch.optim.Adam(self.head.adaptor.parameters(), spec.adaptor_lr, **settings))
        self.generator = torch.Generator(device).manual_seed(spec.seed)
        self.epoch = 0
        self.best_ranking: tuple[float, ...] = ()
        self.best_epoch = 0

    def state(self) -> dict[str, Any]:
        """Return the state as tensors and numbers."""
        return {
            "head": self.head.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "generator": self.generator.get_state(),
            "epoch": self.epoch,
            "best_ranking": list(self.best_ranking),
            "best_epoch": self.best_epoch,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state`."""
        self.head.load_state_dict(state["head"])
        states = state["optimizers" if "optimizers" in state else "optimisers"]  # the key of version 0.1.0
        for optimizer, optimizer_state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(optimizer_state)
        self.generator.set_state(state["generator"].cpu())
        self.epoch = state["epoch"]
        self.best_ranking = tuple(state["best_ranking"])
        self.best_epoch = state["best_epoch"]


def train(
    spec: TrainSpec, backbone: Backbone, data: TrainData, resume: dict[str, Any] | None = None
) -> Iterator[EpochResult]:
    """Train one detector, epoch by epoch.

    Args:
        spec: hyperparameters, epochs, seed.
        backbone: the frozen network, on the device of the data.
        data: images, features, textures and validation images, all on one device.
        resume: state of an EpochResult; training continues after that epoch, with the same results as an uninterrupted
            run.

    Raises: TrainingDivergedError if the loss or the scores are not finite.
    """
    device = data.images.device
    reset_peak_memory(device)
    peak_mb = 0.0
    training = Training(spec, backbone.channels, device)
    if resume is not None:
        training.load(resume)
    while training.epoch < spec.epochs:
        started = time.perf_counter()
        with head_precision(spec.head_precision):
            loss_normal, loss_las = train_epoch(training, spec, backbone, data)
            maps = score_features(training.head, data.validation.features, spec.image_size)
            normal_scores = image_scores(score_features(training.head, data.calibration, spec.image_size))
        training.epoch += 1
        if not math.isfinite(loss_normal + loss_las):
            raise TrainingDivergedError(f"loss is not finite in epoch {training.epoch}: {loss_normal} + {loss_las}")
        if not maps.isfinite().all():  # no loss reflects the last step of an epoch
            raise TrainingDivergedError(f"scores are not finite after epoch {training.epoch}")
        threshold = threshold_of(normal_scores.cpu().numpy(), spec.fpr)
        metrics = metrics_of(maps, data.validation, threshold)
        objective = objective_value(spec.resolved_objective, metrics)
        rank = ranking({"objective": objective, **metrics})
        if rank > training.best_ranking:
            training.best_ranking, training.best_epoch = rank, training.epoch
        peak_mb = max(peak_mb, peak_memory_mb(device))
        yield EpochResult(
            epoch=training.epoch,
            loss=loss_normal + loss_las,
            loss_normal=loss_normal,
            loss_las=loss_las,
            metrics=metrics | monitor(training.head, spec, data.monitored, threshold),
            objective=objective,
            best_objective=training.best_ranking[0],
            best_epoch=training.best_epoch,
            seconds=time.perf_counter() - started,
            peak_memory_mb=peak_mb,
            anomaly_maps=maps,
            normal_scores=normal_scores,
            threshold=threshold,
            state=training.state(),
        )


def train_epoch(training: Training, spec: TrainSpec, backbone: Backbone, data: TrainData) -> tuple[float, float]:
    """Train for one epoch, and return the mean losses on normal patches and on synthesized images.

    Losses stay on the device until the end of the epoch, to avoid host synchronization.
    """
    training.head.train()
    device = data.images.device
    order = torch.randperm(len(data.images), generator=training.generator, device=device)
    sums = torch.zeros(2, device=device)
    for index in torch.split(order, spec.batch_size):
        synthesized = synthesize(data.images[index], data.foreground[index], data.textures, spec, training.generator)
        normal_maps = data.features.take(index)
        las_maps = extract_features(backbone, synthesized.images)
        logits = training.head([torch.cat(pair) for pair in zip(normal_maps, las_maps, strict=True)])
        on_normal, on_las = logits.chunk(2)
        labels = grid_labels(synthesized.masks, (logits.shape[1], logits.shape[2]))
        losses = torch.stack([normal_loss(on_normal), focal_loss(on_las, labels, spec.focal_gamma, spec.hard_share)])
        for optimizer in training.optimizers:
            optimizer.zero_grad()
        losses.sum().backward()  # type: ignore[no-untyped-call]
        for optimizer in training.optimizers:
            optimizer.step()
        sums += losses.detach() * len(index)
    loss_normal, loss_las = (sums / len(order)).tolist()
    return loss_normal, loss_las


def monitor(
    head: Head, spec: TrainSpec, monitored: Mapping[str, LabeledFeatures], threshold: float
) -> dict[str, float]:
    """Return metrics and objective on the monitored images, as name/metric."""
    numbers: dict[str, float] = {}
    for name, labeled in monitored.items():
        metrics = metrics_of(score_features(head, labeled.features, spec.image_size), labeled, threshold)
        metrics["objective"] = objective_value(spec.resolved_objective, metrics)
        numbers |= {f"{name}/{metric}": value for metric, value in metrics.items()}
    return numbers
