"""Files: the checkpoint of a training that can go on, and the detector that is handed over.

Both load with weights_only=True: tensors, numbers and strings, no code.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from las_tune.config.train_spec import TrainSpec
from las_tune.errors import UserError, said
from las_tune.las.backbone import Backbone, load_backbone
from las_tune.las.head import Head
from las_tune.las.scoring import Detector

FORMAT = 1
CHECKPOINT_NAME = "checkpoint.pth"


def save_checkpoint(path: Path, spec: TrainSpec, state: dict[str, Any]) -> None:
    """Write everything that a resume needs; state is EpochResult.state."""
    _write(path, {"format": FORMAT, "kind": "checkpoint", "spec": dataclasses.asdict(spec), "state": state})


def load_checkpoint(path: Path) -> tuple[TrainSpec, dict[str, Any]]:
    """What a training was asked for, and its state; raises UserError for a file of another kind."""
    content = _read(path, "checkpoint")
    return TrainSpec(**content["spec"]), content["state"]


def save_detector(
    path: Path,
    backbone: Backbone,
    head_state: dict[str, Any],
    spec: TrainSpec,
    about: dict[str, Any],
    backbone_inside: bool = True,
) -> None:
    """Write a whole detector: with the frozen network's weights inside it runs without any download.

    Args:
        path: the file.
        backbone: the frozen network.
        head_state: state dict of the trained head.
        spec: what it was trained with.
        about: numbers and strings to keep with it: category, threshold, metrics.
        backbone_inside: without, the network is loaded by the spec's names, and must be the same one.
    """
    content = {
        "format": FORMAT,
        "kind": "detector",
        "spec": dataclasses.asdict(spec),
        "about": about,
        "backbone": {k: v.cpu().contiguous() for k, v in backbone.state_dict().items()} if backbone_inside else None,
        "backbone_digest": None if backbone_inside else _digest(backbone),
        "head": {k: v.cpu() for k, v in head_state.items()},
    }
    _write(path, content)


def load_detector(path: Path, device: str = "cpu") -> tuple[Detector, TrainSpec, dict[str, Any]]:
    """The detector, what it was trained with, and what was kept about it."""
    content = _read(path, "detector")
    spec = TrainSpec(**content["spec"])
    if content["backbone"] is None:
        backbone = _load_by_reference(spec, content["backbone_digest"])
    else:
        backbone = load_backbone(spec.backbone, "random")
        backbone.load_state_dict(content["backbone"])
    head = Head(backbone.channels, spec.hidden_width, torch.Generator(), spec.use_adaptor)
    head.load_state_dict(content["head"])
    return Detector(backbone, head).eval().requires_grad_(False).to(device), spec, content["about"]


def _load_by_reference(spec: TrainSpec, digest: Tensor) -> Backbone:
    """The frozen network by its names; refused if it is not the one that the detector was trained with."""
    name = f"{spec.backbone} with weights {spec.backbone_weights}"
    try:
        backbone = load_backbone(spec.backbone, spec.backbone_weights)
    except UserError as error:
        raise UserError(
            "The frozen network of a detector that keeps it by reference must be at hand", f"{name} ({error})"
        ) from error
    found = _digest(backbone)
    if found.shape != digest.shape or bool((found - digest).abs().gt(1e-6 * digest[1].clamp_min(1e-6)).any()):
        raise UserError(
            "A detector that keeps its frozen network by reference needs the one that it was trained with",
            f"another {name}",
            "install the torchvision of the training, or give the same weights",
        )
    return backbone


def _digest(backbone: Backbone) -> Tensor:
    """(2, number of tensors) float64: sums of the weights by place, and of their sizes.

    No hash: folding the batch norms rounds differently from one processor to the next.
    """
    sums = []
    for tensor in backbone.state_dict().values():
        values = tensor.cpu().double().flatten()
        sums.append(torch.stack([values @ torch.arange(len(values)).double().cos(), values.abs().sum()]))
    return torch.stack(sums, dim=1)


def _write(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all: a temporary name, synced, renamed."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _read(path: Path, kind: str) -> dict[str, Any]:
    try:
        with warnings.catch_warnings(action="ignore"):  # of the file's format: what matters is raised
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"A {kind} must be a file that las_tune wrote", f"{path} ({said(error, 120)})", "check the path"
        ) from error
    if not isinstance(content, dict) or content.get("kind") != kind or content.get("format") != FORMAT:
        raise UserError(f"A {kind} must be a file of format {FORMAT} that las_tune wrote", path, "check the path")
    return content
