"""One training: `train` yields one EpochResult an epoch. It knows no Ray, no MLflow, and writes nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypedDict

import torch
from torch import Tensor

from las_tune.las.backbone import Backbone
from las_tune.las.features import FeatureStore, extract_features
from las_tune.las.head import Head, head_precision
from las_tune.las.losses import focal_loss, normal_loss
from las_tune.las.masks import grid_labels
from las_tune.las.memory import peak_memory_mb, reset_peak_memory
from las_tune.las.metrics import PixelTargets, auroc, average_precision, pixel_metrics
from las_tune.las.scoring import picture_scores, score_features
from las_tune.las.synthesis import synthesise
from las_tune.spec import TrainSpec


class TrainingDivergedError(RuntimeError):
    """The loss is no longer a finite number."""


@dataclass(frozen=True)
class Scored:
    """Pictures to be scored.

    features  of N pictures
    labels    (N,) bool, 1 = defective
    targets   the defective pixels; None where masks are missing
    """

    features: FeatureStore
    labels: Tensor
    targets: PixelTargets | None


@dataclass(frozen=True)
class TrainData:
    """What a training sees, on its device. The sealed test is not here.

    features    of N defect-free pictures, and the pictures
    foreground  (N, 1, S, S) bool, 1 = part
    textures    (M, 3, S, S) uint8 RGB
    validation  what the best epoch is chosen by
    """

    features: FeatureStore
    foreground: Tensor
    textures: Tensor
    validation: Scored

    @property
    def pictures(self) -> Tensor:
        """(N, 3, S, S) uint8 RGB, defect-free."""
        return self.features.pictures


class Metrics(TypedDict):
    """Metrics of scored pictures; those of pixels are None where masks are missing."""

    image_auroc: float
    image_ap: float
    pixel_auroc: float | None
    pixel_aupro: float | None


@dataclass(frozen=True)
class EpochResult:
    """What one epoch gave. Pixel metrics are None where masks are missing."""

    epoch: int
    """Counts from 1."""
    loss: float
    loss_normal: float
    loss_las: float
    image_auroc: float
    image_ap: float
    pixel_auroc: float | None
    pixel_aupro: float | None
    objective: float
    best_objective: float
    """The greatest objective so far: it never falls."""
    best_epoch: int
    seconds: float
    peak_memory_mb: float
    """The most so far: on a GPU of what tensors took, on a CPU of what the process held at the end of an epoch."""
    state: dict[str, Any] = field(repr=False)
    """Everything that a resume needs; valid until the next epoch is asked for."""

    def row(self) -> dict[str, float]:
        """The numbers of the epoch; those that cannot be had are left out."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "state"}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def is_best(self) -> bool:
        """Whether this epoch is the best so far."""
        return self.best_epoch == self.epoch


def pick_device(name: str) -> torch.device:
    """Auto is the GPU, where the process has one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


class Training:
    """The parts of one training that change: head, optimisers, generator, what was best."""

    def __init__(self, spec: TrainSpec, channels: tuple[int, ...], device: torch.device) -> None:
        drawn = torch.Generator().manual_seed(spec.seed)
        self.head = Head(channels, spec.hidden_width, drawn, spec.use_adaptor).to(device)
        settings: dict[str, Any] = {"weight_decay": spec.weight_decay, "fused": device.type == "cuda"}
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(self.head.discriminator_parameters(), spec.discriminator_lr, **settings)
        ]
        if self.head.adaptor is not None:
            self.optimisers.insert(0, torch.optim.Adam(self.head.adaptor.parameters(), spec.adaptor_lr, **settings))
        self.generator = torch.Generator(device).manual_seed(spec.seed)
        self.epoch = 0
        self.best_objective = -math.inf
        self.best_epoch = 0

    def state(self) -> dict[str, Any]:
        """All of it, as tensors and numbers."""
        return {
            "head": self.head.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "generator": self.generator.get_state(),
            "epoch": self.epoch,
            "best_objective": self.best_objective,
            "best_epoch": self.best_epoch,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.head.load_state_dict(state["head"])
        for optimiser, optimiser_state in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(optimiser_state)
        self.generator.set_state(state["generator"].cpu())
        self.epoch = state["epoch"]
        self.best_objective = state["best_objective"]
        self.best_epoch = state["best_epoch"]


def train(
    spec: TrainSpec, backbone: Backbone, data: TrainData, resume: dict[str, Any] | None = None
) -> Iterator[EpochResult]:
    """Train one detector, epoch by epoch.

    Args:
        spec: hyperparameters, epochs, seed.
        backbone: the frozen network, on the device of the data.
        data: pictures, features, textures, validation, all on one device.
        resume: the state of an earlier EpochResult; training goes on after its epoch with the same numbers.

    Raises: TrainingDivergedError when the loss is not finite.
    """
    device = data.pictures.device
    reset_peak_memory(device)
    peak_mb = 0.0
    training = Training(spec, backbone.channels, device)
    if resume is not None:
        training.load(resume)
    while training.epoch < spec.epochs:
        started = time.perf_counter()
        with head_precision(spec.head_precision):
            loss_normal, loss_las = train_epoch(training, spec, backbone, data)
            heat = score_features(training.head, data.validation.features, spec.image_size)
        training.epoch += 1
        if not math.isfinite(loss_normal + loss_las):
            raise TrainingDivergedError(f"loss is not finite in epoch {training.epoch}: {loss_normal} + {loss_las}")
        if not heat.isfinite().all():  # the last step of an epoch shows in no loss
            raise TrainingDivergedError(f"scores are not finite after epoch {training.epoch}")
        metrics = metrics_of(heat, data.validation)
        objective = objective_value(spec.objective, metrics)
        if objective > training.best_objective:
            training.best_objective, training.best_epoch = objective, training.epoch
        peak_mb = max(peak_mb, peak_memory_mb(device))
        yield EpochResult(
            epoch=training.epoch,
            loss=loss_normal + loss_las,
            loss_normal=loss_normal,
            loss_las=loss_las,
            **metrics,
            objective=objective,
            best_objective=training.best_objective,
            best_epoch=training.best_epoch,
            seconds=time.perf_counter() - started,
            peak_memory_mb=peak_mb,
            state=training.state(),
        )


def train_epoch(training: Training, spec: TrainSpec, backbone: Backbone, data: TrainData) -> tuple[float, float]:
    """One pass over the pictures; mean loss on normal patches and on synthesised pictures.

    Losses stay on the device until the epoch ends.
    """
    training.head.train()
    device = data.pictures.device
    order = torch.randperm(len(data.pictures), generator=training.generator, device=device)
    sums = torch.zeros(2, device=device)
    for index in torch.split(order, spec.batch_size):
        synthesised = synthesise(data.pictures[index], data.foreground[index], data.textures, spec, training.generator)
        normal_maps = data.features.take(index)
        las_maps = extract_features(backbone, synthesised.pictures)
        logits = training.head([torch.cat(pair) for pair in zip(normal_maps, las_maps, strict=True)])
        on_normal, on_las = logits.chunk(2)
        labels = grid_labels(synthesised.masks, (logits.shape[1], logits.shape[2]))
        losses = torch.stack([normal_loss(on_normal), focal_loss(on_las, labels, spec.focal_gamma, spec.hard_share)])
        for optimiser in training.optimisers:
            optimiser.zero_grad()
        losses.sum().backward()  # type: ignore[no-untyped-call]
        for optimiser in training.optimisers:
            optimiser.step()
        sums += losses.detach() * len(index)
    loss_normal, loss_las = (sums / len(order)).tolist()
    return loss_normal, loss_las


def metrics_of(heat: Tensor, scored: Scored) -> Metrics:
    """Image AUROC and AP, pixel AUROC and AUPRO (None without masks) of heat maps (N, S, S)."""
    scores = picture_scores(heat)
    on_pixels = pixel_metrics(heat, scored.targets) if scored.targets else (None, None)
    return {
        "image_auroc": auroc(scores, scored.labels),
        "image_ap": average_precision(scores, scored.labels),
        "pixel_auroc": on_pixels[0],
        "pixel_aupro": on_pixels[1],
    }


def objective_value(objective: str, metrics: Metrics) -> float:
    """The number that is maximised: one metric, or combined, the mean of image AUROC and pixel AUPRO."""
    if objective == "combined":
        image, pixel = metrics["image_auroc"], metrics["pixel_aupro"]
        assert image is not None and pixel is not None, "combined needs masks: the spec is resolved before"
        return (image + pixel) / 2
    value = metrics["pixel_aupro"] if objective == "pixel_aupro" else metrics["image_auroc"]
    assert value is not None, f"{objective} needs masks: the spec is resolved before"
    return value
