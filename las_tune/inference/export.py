"""Export of a detector to ONNX, TorchScript and PT2. Each file is verified against the detector before it is kept.

Input: images (B, 3, S, S) float32 in [0, 1], RGB, resized to S × S by an antialiased bilinear filter, as in training.
Output: score (B,) and anomaly_map (B, S, S), both in [0, 1]. B is dynamic, S is fixed.
"""

from __future__ import annotations

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

from las_tune.config import atomic_path
from las_tune.errors import UserError, type_and_message
from las_tune.las import Detector, extract_features, image_scores, smoothing_matrix

Format = Literal["onnx", "torchscript", "pt2"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torchscript": ".pt", "pt2": ".pt2"}
INPUT, OUTPUTS = "images", ("score", "anomaly_map")
CONTRACT = {
    "input": "images (B, 3, S, S) float32 in [0, 1], RGB, resized to S x S by an antialiased bilinear filter",
    "output": "score (B,) and anomaly_map (B, S, S), both in [0, 1], high = defective; defective if score > threshold",
}
TOLERANCE = 1e-4
"""Maximum absolute difference between the outputs of an exported file and the detector."""
METADATA_FILE = "las_tune.json"
"""Name of the metadata inside TorchScript and PT2 files. ONNX stores metadata as metadata_props."""

Run = Callable[[Tensor], tuple[Tensor, Tensor]]


class ExportableDetector(nn.Module):
    """A Detector of one image size, as exporters need it: all that does not depend on the image is a buffer."""

    weight: Tensor
    bias: Tensor
    vertical: Tensor
    horizontal: Tensor

    def __init__(self, detector: Detector, size: int) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(detector.backbone)
        self.head = copy.deepcopy(detector.head)
        weight, bias = self.head.first_layer()
        self.head.adaptor = None  # adaptor, hidden layer and norm are merged into weight and bias
        self.head.hidden = self.head.norm = nn.Identity()  # type: ignore[assignment]
        rows, columns = extract_features(self.backbone, torch.zeros(1, 3, size, size))[0].shape[1:3]
        self.register_buffer("weight", weight.detach().clone())
        self.register_buffer("bias", bias.detach().clone())
        self.register_buffer("vertical", smoothing_matrix(rows, size).clone())
        self.register_buffer("horizontal", smoothing_matrix(columns, size).T.clone())
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and anomaly maps, as Detector.forward does."""
        logits = self.head(extract_features(self.backbone, images), (self.weight, self.bias))
        maps = self.vertical @ torch.sigmoid(logits) @ self.horizontal
        return image_scores(maps), maps


def export_detector(detector: Detector, size: int, facts: Mapping[str, Any], file_format: Format, path: Path) -> float:
    """Write a detector for another runtime, atomically and only if its outputs agree with the detector.

    Args:
        detector: on the CPU, in evaluation mode.
        size: S, side of the images in pixels.
        facts: further metadata of the file: category, threshold, ...
        file_format: onnx, torchscript or pt2.
        path: the file.

    Returns: the largest difference from the detector, at most TOLERANCE.

    Raises: UserError if the outputs differ, the file cannot be written, or a package is missing.
    """
    metadata = {**CONTRACT, "image_size": size, **facts}
    write = {"onnx": _write_onnx, "torchscript": _write_torchscript, "pt2": _write_pt2}[file_format]
    try:
        with atomic_path(path) as temporary:
            temporary.touch()  # a missing folder raises OSError here; torch raises its own error instead
            with torch.no_grad(), _silence():
                run = write(ExportableDetector(detector, size), torch.zeros(2, 3, size, size), metadata, temporary)
                difference = _largest_difference(run, detector, size)
            if not difference <= TOLERANCE:
                raise UserError(
                    f"The {file_format} file differs from the detector by {difference:.2g}, more than {TOLERANCE:g}",
                    remedy="Choose another --format. Nothing was written",
                )
    except OSError as error:
        problem = f"--out {path} is not writable: {type_and_message(error)}"
        raise UserError(problem, remedy="Choose another file") from error
    return difference


def _largest_difference(run: Run, detector: Detector, size: int) -> float:
    """Compare the outputs on several images at batch sizes 1 and 3. NaN counts as an infinite difference."""
    noise = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(0, 1, size).expand(3, size, size)
    smooth = torch.stack([ramp, ramp.mT, 0.5 + 0.2 * (noise[0] - 0.5)])
    largest = 0.0
    for batch in (noise, smooth, noise[:1], smooth[:1], torch.zeros(1, 3, size, size)):
        for exported, expected in zip(run(batch), detector(batch), strict=True):
            if exported.shape != expected.shape or not torch.isfinite(exported).all():
                return float("inf")
            largest = max(largest, (exported - expected).abs().max().item())
    return largest


def _write_onnx(model: ExportableDetector, example: Tensor, metadata: Mapping[str, Any], path: Path) -> Run:
    try:
        import onnx
        import onnxruntime  # type: ignore[import-untyped]
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        problem = f"--format onnx needs a package that is not installed: {type_and_message(error)}"
        raise UserError(problem, remedy="Run pip install 'las-tune[export]'") from error
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
        score, anomaly_map = session.run(list(OUTPUTS), {INPUT: images.numpy()})
        return torch.from_numpy(score), torch.from_numpy(anomaly_map)

    return run


def _write_torchscript(model: ExportableDetector, example: Tensor, metadata: Mapping[str, Any], path: Path) -> Run:
    traced = torch.jit.trace(model, example, check_trace=False)  # type: ignore[no-untyped-call]
    torch.jit.save(traced, path, _extra_files={METADATA_FILE: json.dumps(metadata)})
    loaded: Run = torch.jit.load(path)  # type: ignore[no-untyped-call]
    return loaded


def _write_pt2(model: ExportableDetector, example: Tensor, metadata: Mapping[str, Any], path: Path) -> Run:
    program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, path, extra_files={METADATA_FILE: json.dumps(metadata)})
    loaded: Run = torch.export.load(path).module()
    return loaded


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress the progress output and deprecation warnings of exporters; everything is restored afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
