from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from las_tune.errors import UserError
from las_tune.inference import export
from las_tune.inference.export import Format, export_detector
from las_tune.las.backbone import load_backbone
from las_tune.las.scoring import Detector
from tests.detectors import tiny_head
from tests.las.conftest import tiny_backbone, uint8_noise

FORMATS: tuple[Format, ...] = get_args(Format)
FACTS = {"category": "part", "threshold": 0.123456789, "backbone": "tiny"}


@pytest.fixture(scope="module")
def detector() -> Detector:
    backbone = tiny_backbone()
    return Detector(backbone, tiny_head(backbone)).eval()


def run_file(kind: Format, path: Path, images: Tensor) -> list[np.ndarray[Any, Any]]:
    """Run an exported file without las_tune."""
    if kind == "onnx":
        import onnxruntime  # type: ignore[import-untyped]

        return list(onnxruntime.InferenceSession(path).run(["score", "anomaly_map"], {"images": images.numpy()}))
    loaded = torch.jit.load(path) if kind == "torchscript" else torch.export.load(path).module()  # type: ignore[no-untyped-call]
    return [values.numpy() for values in loaded(images)]


def metadata_of(kind: Format, path: Path) -> dict[str, Any]:
    if kind == "onnx":
        import onnx

        return {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    extra: dict[str, Any] = {"las_tune.json": ""}
    if kind == "torchscript":
        torch.jit.load(path, _extra_files=extra)  # type: ignore[no-untyped-call]
    else:
        torch.export.load(path, extra_files=extra)
    return dict(json.loads(extra["las_tune.json"]))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_file_agrees_with_detector_at_any_batch_size(name: str, kind: Format, tmp_path: Path) -> None:
    network = load_backbone(name, "imagenet" if name == "efficientnet_lite0" else "random")
    detector = Detector(network, tiny_head(network)).eval()
    assert export_detector(detector, 64, FACTS, kind, tmp_path / "file") <= 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for number in (1, 2, 5):
        images = uint8_noise(number, 3, 64, 64, seed=number).float() / 255
        for exported, expected in zip(run_file(kind, tmp_path / "file", images), detector(images), strict=True):
            np.testing.assert_allclose(exported, expected.detach().numpy(), atol=1e-4)
            assert exported.dtype == np.float32
            assert number == 1 or expected.std() > 1e-3, "constant outputs would agree in any case"


@pytest.mark.parametrize("kind", FORMATS)
def test_image_size_may_be_no_multiple_of_the_strides(kind: Format, detector: Detector, tmp_path: Path) -> None:
    export_detector(detector, 72, FACTS, kind, tmp_path / "file")
    images = uint8_noise(3, 3, 72, 72).float() / 255
    for exported, expected in zip(run_file(kind, tmp_path / "file", images), detector(images), strict=True):
        np.testing.assert_allclose(exported, expected.detach().numpy(), atol=1e-4)


@pytest.mark.parametrize("kind", FORMATS)
def test_file_has_metadata_and_export_prints_nothing(
    kind: Format,
    detector: Detector,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    export_detector(detector, 64, FACTS, kind, tmp_path / "file")
    printed = capfd.readouterr()
    assert (printed.out, printed.err, [str(warning.message) for warning in recwarn]) == ("", "", [])
    metadata = metadata_of(kind, tmp_path / "file")
    assert (metadata["category"], float(metadata["threshold"]), int(metadata["image_size"])) == (
        "part",
        0.123456789,
        64,
    )
    assert "[0, 1], RGB" in metadata["input"] and "anomaly_map" in metadata["output"]


def test_export_does_not_change_the_detector(detector: Detector, tmp_path: Path) -> None:
    """An exporter must not leave its own tensor type in a cache of the detector."""
    images = uint8_noise(2, 3, 80, 80).float() / 255
    for kind in FORMATS:
        export_detector(detector, 80, FACTS, kind, tmp_path / kind)
    fresh = Detector(detector.backbone, detector.head)
    assert detector.head.adaptor is not None and torch.equal(fresh(images)[1], detector(images)[1])
    assert type(detector(images)[1]) is Tensor


@pytest.mark.parametrize("wrong", ["score", "anomaly_map", "nan", "shape"])
def test_file_with_different_outputs_is_not_kept(
    wrong: str, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(model: Any, example: Tensor, metadata: Any, path: Path) -> Any:
        path.write_text("new")

        def run(images: Tensor) -> tuple[Tensor, Tensor]:
            score, anomaly_map = (values.clone() for values in detector(images))
            if wrong == "score" and len(images) == 3:
                score[2] += 2e-4
            if wrong == "anomaly_map":
                anomaly_map[0, 3, 5] -= 2e-4
            if wrong == "nan":
                score[0] = float("nan")
            return score, anomaly_map[:1] if wrong == "shape" else anomaly_map

        return run

    monkeypatch.setattr(export, "_write_torchscript", write)
    (tmp_path / "file").write_text("old")
    with pytest.raises(UserError) as error:
        export_detector(detector, 64, FACTS, "torchscript", tmp_path / "file")
    assert "differs from the detector by" in str(error.value) and "\n" not in str(error.value)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_package_is_reported_in_one_line(
    package: str, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"pip install 'las-tune\[export\]'") as error:
        export_detector(detector, 64, FACTS, "onnx", tmp_path / "file")
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", FORMATS)
def test_missing_folder_is_reported_in_one_line(kind: Format, detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--out"):
        export_detector(detector, 64, FACTS, kind, tmp_path / "gone" / "file")
