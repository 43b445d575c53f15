"""Losses of the head: cross-entropy on normal patches, focal loss on synthesized images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def normal_loss(logits: Tensor) -> Tensor:
    """Compute the binary cross-entropy of normal patches, the mean of -log(1 - sigmoid(logit)).

    Args:
        logits: any shape, high = defective.
    """
    return F.softplus(logits).mean()


def focal_loss(logits: Tensor, labels: Tensor, gamma: float, hard_share: float) -> Tensor:
    """Compute the focal loss of the hardest patches: mean of -(1 - p)^γ log p (Lin et al., arXiv:1708.02002, eq. 4).

    p is the predicted probability of the true label. The hardest patches are those with the lowest p; GLASS uses half.

    Args:
        logits: any shape, high = defective.
        labels: same shape, float, 1 = defective.
        gamma: γ >= 0.
        hard_share: fraction of the patches in the mean, in (0, 1].
    """
    signed = torch.where(labels > 0.5, logits, -logits).flatten()
    count = max(1, round(hard_share * signed.numel()))
    hardest = signed if count == signed.numel() else signed.topk(count, largest=False, sorted=False).values
    modulation = torch.exp(-gamma * F.softplus(hardest))  # (1 - p)^γ, with a finite gradient at p = 1 for γ < 1
    return (modulation * F.softplus(-hardest)).mean()
