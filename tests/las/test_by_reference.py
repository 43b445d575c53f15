from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision import models

from las_tune.config.train_spec import TrainSpec
from las_tune.errors import UserError
from las_tune.las.backbone import load_backbone
from las_tune.las.checkpoint import load_detector, save_detector
from tests.detectors import make_detector, tiny_head
from tests.las.conftest import uint8_noise

IMAGES = uint8_noise(2, 3, 64, 64).float() / 255


def test_detector_by_reference_is_small_and_scores_the_same(tmp_path: Path) -> None:
    inside, reference = (make_detector(tmp_path / f"{flag}.pth", backbone_inside=flag) for flag in (True, False))
    assert reference.stat().st_size < inside.stat().st_size / 10
    for found, wanted in zip(load_detector(reference)[0](IMAGES), load_detector(inside)[0](IMAGES), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("change", ["value", "order", "sign"])
def test_other_weights_under_the_same_name_are_an_error(change: str, tmp_path: Path) -> None:
    """A change of one filter of one layer is detected, even if only its weights are reordered."""
    network = models.resnet18(weights=None)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    spec = TrainSpec(image_size=64, hidden_width=16, backbone="resnet18", backbone_weights=str(tmp_path / "weights.pt"))
    backbone = load_backbone(spec.backbone, spec.backbone_weights)
    head = tiny_head(backbone).state_dict()
    save_detector(tmp_path / "d.pth", backbone, head, spec, {"category": "part", "threshold": 0.5}, False)
    load_detector(tmp_path / "d.pth")
    changed = network.state_dict()
    weight = changed["layer3.0.conv1.weight"]
    weight[7] = {"value": weight[7] * 1.01, "order": weight[7].flip(0), "sign": -weight[7]}[change]
    torch.save(changed, tmp_path / "weights.pt")
    with pytest.raises(UserError) as error:
        load_detector(tmp_path / "d.pth")
    assert "that the detector was trained with" in str(error.value) and "\n" not in str(error.value)


def test_other_rounding_of_the_same_weights_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folded batch norms differ in the last bits between processors."""
    file = make_detector(tmp_path / "d.pth", backbone_inside=False)
    rounded = load_backbone("resnet18", "random")
    for parameter in rounded.parameters():
        parameter.mul_(1 + 1e-7 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    monkeypatch.setattr("las_tune.las.checkpoint.load_backbone", lambda *_: rounded)
    load_detector(file)


def test_unavailable_network_is_an_error(tmp_path: Path) -> None:
    backbone = load_backbone("resnet18", "random")
    spec = TrainSpec(image_size=64, hidden_width=16, backbone="resnet18", backbone_weights=str(tmp_path / "gone.pt"))
    save_detector(tmp_path / "d.pth", backbone, tiny_head(backbone).state_dict(), spec, {}, False)
    with pytest.raises(UserError) as error:
        load_detector(tmp_path / "d.pth")
    assert "which cannot be loaded" in str(error.value) and "gone.pt" in str(error.value)
    assert "\n" not in str(error.value)
