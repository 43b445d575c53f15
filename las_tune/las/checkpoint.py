"""Files of a training run: the checkpoint to resume from, and the detector.

Both are loaded with weights_only=True, so that files with code are rejected.
"""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from las_tune.config import TrainSpec, atomic_path
from las_tune.errors import UserError, require, short_message
from las_tune.las.backbone import Backbone, load_backbone
from las_tune.las.head import Head
from las_tune.las.scoring import Detector

FORMAT = 1
CHECKPOINT_NAME = "checkpoint.pth"


def save_checkpoint(path: Path, spec: TrainSpec, state: dict[str, Any]) -> None:
    """Write a checkpoint. `state` is EpochResult.state."""
    _write(path, {"format": FORMAT, "kind": "checkpoint", "spec": dataclasses.asdict(spec), "state": state})


def load_checkpoint(path: Path) -> tuple[TrainSpec, dict[str, Any]]:
    """Return the spec and the state of a training run.

    Raises: UserError if the file is not a checkpoint.
    """
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
    """Write a detector.

    Args:
        path: the file.
        backbone: the frozen network.
        head_state: state dict of the trained head.
        spec: the spec of the training run.
        about: additional numbers and strings, such as category, threshold and metrics.
        backbone_inside: include the weights of the frozen network, so that loading needs no download. Otherwise the
            network is loaded by its name in the spec, and must have the same weights.
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
    """Return the detector, the spec of its training, and the additional numbers and strings.

    Raises: UserError if the file is not a detector, or if its frozen network is not available.
    """
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
    """Load the frozen network by its name, and check that it has the weights used in training."""
    name = f"{spec.backbone} with weights {spec.backbone_weights}"
    try:
        backbone = load_backbone(spec.backbone, spec.backbone_weights)
    except UserError as error:
        problem = f"The detector file does not include its frozen network, {name}, which cannot be loaded"
        raise UserError(f"{problem}: {str(error).rstrip('.')}") from error
    actual = _digest(backbone)
    is_equal = actual.shape == digest.shape and not (actual - digest).abs().gt(1e-6 * digest[1].clamp_min(1e-6)).any()
    require(
        is_equal,
        f"The weights of {name} on this machine differ from those that the detector was trained with",
        remedy="Install the version of torchvision used in training, or provide the same weights",
    )
    return backbone


def _digest(backbone: Backbone) -> Tensor:
    """Return (2, number of tensors) float64: position-dependent sums of the weights, and sums of absolute values.

    A hash is not suitable, because folding the batch norms rounds differently on different processors.
    """
    sums = []
    for tensor in backbone.state_dict().values():
        values = tensor.cpu().double().flatten()
        sums.append(torch.stack([values @ torch.arange(len(values)).double().cos(), values.abs().sum()]))
    return torch.stack(sums, dim=1)


def _write(path: Path, content: dict[str, Any]) -> None:
    with atomic_path(path, durable=True) as temporary, temporary.open("wb") as file:
        torch.save(content, file)


def _read(path: Path, kind: str) -> dict[str, Any]:
    try:
        with warnings.catch_warnings(action="ignore"):  # warnings about the file format; errors are raised
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path} is not a {kind} of las_tune: {short_message(error, 120)}", remedy="Check the path"
        ) from error
    is_valid = isinstance(content, dict) and content.get("kind") == kind and content.get("format") == FORMAT
    require(is_valid, f"{path} is not a {kind} of las_tune (format {FORMAT})", remedy="Check the path")
    return cast("dict[str, Any]", content)
