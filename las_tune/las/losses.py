"""What the head minimizes: cross-entropy on normal patches, focal loss on synthesized images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def normal_loss(logits: Tensor) -> Tensor:
    """Binary cross-entropy of patches that are all normal: mean of -log(1 - sigmoid(logit)).

    Args:
        logits: any shape, high = defective.
    """
    return F.softplus(logits).mean()


def focal_loss(logits: Tensor, labels: Tensor, gamma: float, hard_share: float) -> Tensor:
    """Focal loss, mean of -(1 - p)^γ log p (Lin et al., arXiv:1708.02002, eq. 4), over the hardest patches.

    p is the probability given to the true label; the hardest patches are those of lowest p (GLASS looks at half).

    Args:
        logits: any shape, high = defective.
        labels: same shape, float, 1 = defective.
        gamma: γ >= 0.
        hard_share: share of the patches that count, in (0, 1].
    """
    signed = torch.where(labels > 0.5, logits, -logits).flatten()
    count = max(1, round(hard_share * signed.numel()))
    hardest = signed if count == signed.numel() else signed.topk(count, largest=False, sorted=False).values
    modulation = torch.exp(-gamma * F.softplus(hardest))  # (1 - p)^γ, with a gradient where p is 1 and γ < 1
    return (modulation * F.softplus(-hardest)).mean()
