"""A detector for other runtimes: ONNX, TorchScript and PT2 files, each checked against the detector before it is kept.

All take images (B, 3, S, S) float32 in [0, 1], RGB, resized to S × S by an antialiased bilinear filter, as in
training, and give score (B,) and heat_map (B, S, S), both in [0, 1]. B is free, S is fixed.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from las_tune.errors import UserError
from las_tune.las.features import extract_features
from las_tune.las.scoring import Detector, image_scores, smoothing_matrix

Format = Literal["onnx", "torchscript", "pt2"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torchscript": ".pt", "pt2": ".pt2"}
INPUT, OUTPUTS = "images", ("score", "heat_map")
CONTRACT = {
    "input": "images (B, 3, S, S) float32 in [0, 1], RGB, resized to S x S by an antialiased bilinear filter",
    "output": "score (B,) and heat_map (B, S, S), both in [0, 1], high = defective; defective if score > threshold",
}
TOLERANCE = 1e-4
"""Largest difference from the detector that a file may show."""
METADATA_FILE = "las_tune.json"
"""Name of the metadata inside TorchScript and PT2 files; in ONNX they are its metadata_props."""

Run = Callable[[Tensor], tuple[Tensor, Tensor]]


class Exported(nn.Module):
    """A Detector of one image size as exporters like it: what does not depend on the image is a buffer."""

    weight: Tensor
    bias: Tensor
    vertical: Tensor
    horizontal: Tensor

    def __init__(self, detector: Detector, size: int) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(detector.backbone)
        self.head = copy.deepcopy(detector.head)
        weight, bias = self.head.first_layer()
        self.head.adaptor = None  # the adaptor, the hidden layer and the norm are in weight and bias
        self.head.hidden = self.head.norm = nn.Identity()  # type: ignore[assignment]
        rows, columns = extract_features(self.backbone, torch.zeros(1, 3, size, size))[0].shape[1:3]
        self.register_buffer("weight", weight.detach().clone())
        self.register_buffer("bias", bias.detach().clone())
        self.register_buffer("vertical", smoothing_matrix(rows, size).clone())
        self.register_buffer("horizontal", smoothing_matrix(columns, size).T.clone())
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As Detector.forward."""
        logits = self.head(extract_features(self.backbone, images), (self.weight, self.bias))
        maps = self.vertical @ torch.sigmoid(logits) @ self.horizontal
        return image_scores(maps), maps


def export_detector(detector: Detector, size: int, about: Mapping[str, Any], kind: Format, path: Path) -> float:
    """Write a detector for another runtime; a file that does not agree with the detector is not kept.

    Args:
        detector: on the CPU, in evaluation mode.
        size: S, side of the images in pixels.
        about: what is kept in the file beside the contract: category, threshold, ...
        kind: onnx, torchscript or pt2.
        path: the file; whole or not at all.

    Returns: the largest difference from the detector that the check found, at most 1e-4.
    """
    metadata = {**CONTRACT, "image_size": size, **about}
    write = {"onnx": _write_onnx, "torchscript": _write_torchscript, "pt2": _write_pt2}[kind]
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.touch()  # torch's own error for a folder that is not there is no OSError
        with torch.no_grad(), _silence():
            run = write(Exported(detector, size), torch.zeros(2, 3, size, size), metadata, temporary)
            difference = _largest_difference(run, detector, size)
        if not difference <= TOLERANCE:
            raise UserError(
                f"An exported file must agree with the detector to {TOLERANCE:g}",
                f"a difference of {difference:.2g} ({kind})",
                "nothing was written; choose another --format",
            )
        temporary.replace(path)
    except OSError as error:
        raise UserError("--out must be a file that can be written", f"'{error}'", "choose another") from error
    finally:
        with contextlib.suppress(OSError):  # its folder is none
            temporary.unlink(missing_ok=True)
    return difference


def _largest_difference(run: Run, detector: Detector, size: int) -> float:
    """Over several images, at batch sizes 1 and 3; nan counts as a difference."""
    drawn = torch.Generator().manual_seed(0)
    noise = torch.rand(3, 3, size, size, generator=drawn)
    ramp = torch.linspace(0, 1, size).expand(3, size, size)
    smooth = torch.stack([ramp, ramp.mT, 0.5 + 0.2 * (noise[0] - 0.5)])
    largest = 0.0
    for batch in (noise, smooth, noise[:1], smooth[:1], torch.zeros(1, 3, size, size)):
        for found, wanted in zip(run(batch), detector(batch), strict=True):
            if found.shape != wanted.shape or not torch.isfinite(found).all():
                return float("inf")
            largest = max(largest, (found - wanted).abs().max().item())
    return largest


def _write_onnx(model: Exported, example: Tensor, metadata: Mapping[str, Any], path: Path) -> Run:
    try:
        import onnx
        import onnxruntime  # type: ignore[import-untyped]
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise UserError("--format onnx needs three packages", f"'{error}'", "pip install 'las-tune[export]'") from error
    program = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {name: str(value) for name, value in metadata.items()})
    onnx.save_model(proto, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        score, heat_map = session.run(list(OUTPUTS), {INPUT: images.numpy()})
        return torch.from_numpy(score), torch.from_numpy(heat_map)

    return run


def _write_torchscript(model: Exported, example: Tensor, metadata: Mapping[str, Any], path: Path) -> Run:
    traced = torch.jit.trace(model, example, check_trace=False)  # type: ignore[no-untyped-call]
    torch.jit.save(traced, path, _extra_files={METADATA_FILE: json.dumps(metadata)})
    loaded: Run = torch.jit.load(path)  # type: ignore[no-untyped-call]
    return loaded


def _write_pt2(model: Exported, example: Tensor, metadata: Mapping[str, Any], path: Path) -> Run:
    program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, path, extra_files={METADATA_FILE: json.dumps(metadata)})
    loaded: Run = torch.export.load(path).module()
    return loaded


@contextmanager
def _silence() -> Iterator[None]:
    """Exporters tell of their progress and of what will be removed from them some day."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
