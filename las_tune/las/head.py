"""The trained part of a detector: linear adaptor and MLP discriminator, from feature maps to one logit per patch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

LEAKY_SLOPE = 0.2


class Head(nn.Module):
    """Adaptor Linear(C, C), then Linear(C, hidden), BatchNorm, LeakyReLU(0.2), Linear(hidden, 1) (GLASS, sec. 3).

    The adaptor and the first layer of the discriminator are consecutive linear maps, so they are combined into one,
    W = W2 W1 and b = W2 b1 + b2. It is applied to each feature map at its own resolution before the coarser one is
    upsampled, because a linear map of the channels and an interpolation over the grid commute. This computes the same
    function of the same parameters as two layers on the concatenated features, with about a sixth of the products.
    """

    def __init__(
        self, channels: Sequence[int], hidden_width: int, generator: Generator, use_adaptor: bool = True
    ) -> None:
        """Create a head with Xavier initialization.

        Args:
            channels: number of channels of each feature map, finest first.
            hidden_width: width of the hidden layer.
            generator: CPU generator of the initialization.
            use_adaptor: if False, the discriminator uses the features directly (W1 = 1, b1 = 0).
        """
        super().__init__()
        self.channels = tuple(channels)
        total = sum(channels)
        self.adaptor = nn.Linear(total, total) if use_adaptor else None
        self.hidden = nn.Linear(total, hidden_width)
        self.norm = nn.BatchNorm1d(hidden_width)
        self.output = nn.Linear(hidden_width, 1)
        for layer in filter(None, (self.adaptor, self.hidden, self.output)):
            nn.init.xavier_normal_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)

    def discriminator_parameters(self) -> list[nn.Parameter]:
        """Return all parameters except those of the adaptor."""
        return [*self.hidden.parameters(), *self.norm.parameters(), *self.output.parameters()]

    def first_layer(self) -> tuple[Tensor, Tensor]:
        """Return weight (hidden, C) and bias (hidden,) of adaptor, hidden layer and, in eval mode, batch norm."""
        weight: Tensor = self.hidden.weight
        bias: Tensor = self.hidden.bias
        if self.adaptor is not None:
            bias = torch.addmv(bias, weight, self.adaptor.bias)
            weight = weight @ self.adaptor.weight
        if self.training:
            return weight, bias
        running_mean, running_var = self.norm.running_mean, self.norm.running_var
        assert running_mean is not None and running_var is not None
        scale = self.norm.weight * torch.rsqrt(running_var + self.norm.eps)
        return weight * scale.unsqueeze(1), (bias - running_mean) * scale + self.norm.bias

    def forward(self, maps: Sequence[Tensor], first_layer: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Compute the logit of each patch.

        Args:
            maps: feature maps (B, rows, columns, C), finest first.
            first_layer: result of first_layer(), to reuse it for many batches in evaluation.

        Returns: (B, rows, columns) logits on the finest grid, high = defective.
        """
        weight, bias = first_layer or self.first_layer()
        fine, *coarse = maps
        weights = torch.split(weight, list(self.channels), dim=1)
        hidden = F.linear(fine, weights[0], bias)
        for features, part in zip(coarse, weights[1:], strict=True):
            hidden.add_(upsample(F.linear(features, part), (fine.shape[1], fine.shape[2])))
        patches = hidden.flatten(0, 2)
        if self.training:
            patches = self.norm(patches)
        logits: Tensor = self.output(F.leaky_relu(patches, LEAKY_SLOPE, inplace=True))
        return logits.view(fine.shape[:3])


def upsample(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Interpolate (B, rows, columns, C) bilinearly to another grid."""
    channels_first = features.permute(0, 3, 1, 2)
    return F.interpolate(channels_first, grid, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)


@contextmanager
def head_precision(name: str) -> Iterator[None]:
    """Set the precision of matrix products on a GPU within the block: float32, or tf32 (10-bit mantissa, faster)."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32" if name == "tf32" else "ieee"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
