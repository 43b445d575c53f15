from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from las_tune.errors import UserError
from las_tune.las.backbone import Backbone
from las_tune.las.checkpoint import load_checkpoint, load_detector, save_checkpoint, save_detector
from las_tune.las.scoring import Detector
from las_tune.las.training import TrainData, train
from tests.las.conftest import SPEC, numbers, seeded, tiny_data, uint8_noise


@pytest.mark.parametrize("use_adaptor", [True, False])
def test_training_resumes_from_its_checkpoint(
    use_adaptor: bool, backbone: Backbone, data: TrainData, tmp_path: Path
) -> None:
    whole, initial = [], SPEC.replace(use_adaptor=use_adaptor)
    for result in train(initial, backbone, data):
        whole.append(result)
        if result.epoch == 1:
            save_checkpoint(tmp_path / "checkpoint.pth", initial, result.state)
    spec, state = load_checkpoint(tmp_path / "checkpoint.pth")
    assert spec == initial
    assert numbers(list(train(spec, backbone, data, resume=state))) == numbers(whole)[1:]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pth"]


def test_checkpoint_replaces_the_previous_one(tmp_path: Path) -> None:
    for epoch in (1, 2):
        save_checkpoint(tmp_path / "checkpoint.pth", SPEC, {"epoch": epoch})
    assert load_checkpoint(tmp_path / "checkpoint.pth")[1] == {"epoch": 2}


@pytest.mark.parametrize("use_adaptor", [True, False])
def test_loaded_detector_scores_the_same(use_adaptor: bool, resnet: Backbone, tmp_path: Path) -> None:
    spec = SPEC.replace(backbone="resnet18", backbone_weights="random", epochs=1, use_adaptor=use_adaptor)
    head_state = next(train(spec, resnet, tiny_data(resnet, 3))).state["head"]
    changed = copy.deepcopy(resnet)  # weights other than those of "random", so they must come from the file
    for index, parameter in enumerate(changed.parameters()):
        parameter.add_(0.01 * torch.randn(parameter.shape, generator=seeded(index)))
    save_detector(tmp_path / "detector.pth", changed, head_state, spec, {"category": "part", "threshold": 0.5})
    detector, read_spec, about = load_detector(tmp_path / "detector.pth")
    assert read_spec == spec and about == {"category": "part", "threshold": 0.5}
    assert not any(module.training for module in detector.modules())
    images = uint8_noise(2, 3, 64, 64).float() / 255
    detector.head.load_state_dict(head_state)
    before = Detector(changed, detector.head).eval()(images)
    for found, expected in zip(load_detector(tmp_path / "detector.pth")[0](images), before, strict=True):
        torch.testing.assert_close(found, expected)
    assert (Detector(resnet, detector.head).eval()(images)[1] - before[1]).abs().max() > 1e-4


@pytest.mark.parametrize("content", ["text", "detector", "other", "missing"])
def test_other_files_are_an_error(content: str, resnet: Backbone, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    if content == "text":
        path.write_text("not\na checkpoint\n")
    if content == "detector":
        save_detector(path, resnet, {}, SPEC, {})
    if content == "other":
        torch.save({"format": 99, "kind": "checkpoint"}, path)
    with pytest.raises(UserError) as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
