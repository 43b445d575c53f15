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
from las_tune.las.backbone import Backbone, load_backbone
from las_tune.las.scoring import Detector
from tests.detectors import tiny_head
from tests.las.conftest import uint8_noise

KINDS: tuple[Format, ...] = get_args(Format)
ABOUT = {"category": "part", "threshold": 0.123456789, "backbone": "tiny"}


@pytest.fixture(scope="module")
def detector(backbone: Backbone) -> Detector:
    return Detector(backbone, tiny_head(backbone)).eval()


def run_file(kind: Format, path: Path, images: Tensor) -> list[np.ndarray[Any, Any]]:
    """What another program gets from the file: it needs nothing of ours."""
    if kind == "onnx":
        import onnxruntime  # type: ignore[import-untyped]

        return list(onnxruntime.InferenceSession(path).run(["score", "heat_map"], {"images": images.numpy()}))
    loaded = torch.jit.load(path) if kind == "torchscript" else torch.export.load(path).module()
    return [values.numpy() for values in loaded(images)]


def metadata_of(kind: Format, path: Path) -> dict[str, Any]:
    if kind == "onnx":
        import onnx

        return {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    extra: dict[str, Any] = {"las_tune.json": ""}
    if kind == "torchscript":
        torch.jit.load(path, _extra_files=extra)
    else:
        torch.export.load(path, extra_files=extra)
    return dict(json.loads(extra["las_tune.json"]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_a_file_agrees_with_the_detector_at_any_batch_size(name: str, kind: Format, tmp_path: Path) -> None:
    network = load_backbone(name, "imagenet" if name == "efficientnet_lite0" else "random")
    whole = Detector(network, tiny_head(network)).eval()
    assert export_detector(whole, 64, ABOUT, kind, tmp_path / "file") <= 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for number in (1, 2, 5):
        images = uint8_noise(number, 3, 64, 64, seed=number).float() / 255
        for found, wanted in zip(run_file(kind, tmp_path / "file", images), whole(images), strict=True):
            np.testing.assert_allclose(found, wanted.detach().numpy(), atol=1e-4)
            assert found.dtype == np.float32 and (number == 1 or wanted.std() > 1e-3), "they would agree on a constant"


@pytest.mark.parametrize("kind", KINDS)
def test_a_size_that_the_strides_do_not_divide(kind: Format, detector: Detector, tmp_path: Path) -> None:
    export_detector(detector, 72, ABOUT, kind, tmp_path / "file")
    images = uint8_noise(3, 3, 72, 72).float() / 255
    for found, wanted in zip(run_file(kind, tmp_path / "file", images), detector(images), strict=True):
        np.testing.assert_allclose(found, wanted.detach().numpy(), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_is_in_the_file_and_nothing_is_printed(
    kind: Format,
    detector: Detector,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    export_detector(detector, 64, ABOUT, kind, tmp_path / "file")
    printed = capfd.readouterr()
    assert (printed.out, printed.err, [str(warning.message) for warning in recwarn]) == ("", "", [])
    found = metadata_of(kind, tmp_path / "file")
    assert (found["category"], float(found["threshold"]), int(found["image_size"])) == ("part", 0.123456789, 64)
    assert "[0, 1], RGB" in found["input"] and "heat_map" in found["output"]


def test_the_detector_itself_is_left_as_it_was(detector: Detector, tmp_path: Path) -> None:
    """A cache that an exporter filled with its own kind of tensor would break all later anomaly maps."""
    images = uint8_noise(2, 3, 80, 80).float() / 255
    for kind in KINDS:
        export_detector(detector, 80, ABOUT, kind, tmp_path / kind)
    fresh = Detector(detector.backbone, detector.head)
    assert detector.head.adaptor is not None and torch.equal(fresh(images)[1], detector(images)[1])
    assert type(detector(images)[1]) is Tensor


@pytest.mark.parametrize("wrong", ["score", "heat_map", "nan", "shape"])
def test_a_file_that_disagrees_is_not_kept(
    wrong: str, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(model: Any, example: Tensor, metadata: Any, path: Path) -> Any:
        path.write_text("new")

        def run(images: Tensor) -> tuple[Tensor, Tensor]:
            score, heat_map = (values.clone() for values in detector(images))
            if wrong == "score" and len(images) == 3:
                score[2] += 2e-4
            if wrong == "heat_map":
                heat_map[0, 3, 5] -= 2e-4
            if wrong == "nan":
                score[0] = float("nan")
            return score, heat_map[:1] if wrong == "shape" else heat_map

        return run

    monkeypatch.setattr(export, "_write_torchscript", write)
    (tmp_path / "file").write_text("old")
    with pytest.raises(UserError) as error:
        export_detector(detector, 64, ABOUT, "torchscript", tmp_path / "file")
    assert "must agree" in str(error.value) and "\n" not in str(error.value)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_one_line(
    package: str, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"pip install 'las-tune\[export\]'") as error:
        export_detector(detector, 64, ABOUT, "onnx", tmp_path / "file")
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_is_not_there_is_one_line(kind: Format, detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--out"):
        export_detector(detector, 64, ABOUT, kind, tmp_path / "gone" / "file")
