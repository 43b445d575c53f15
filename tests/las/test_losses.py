from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from las_tune.las.losses import focal_loss, normal_loss
from tests.las.conftest import seeded


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_normal_loss_matches_hand_calculation() -> None:
    logits = torch.tensor([[0.0, logit(0.75)], [logit(0.25), logit(0.9)]])
    expected = -(math.log(0.5) + math.log(0.25) + math.log(0.75) + math.log(0.1)) / 4
    assert normal_loss(logits).item() == pytest.approx(expected, rel=1e-6)


def test_focal_loss_matches_hand_calculation() -> None:
    """The probabilities of the true labels are 0.9, 0.6, 0.7 and 0.5; γ = 2."""
    logits = torch.tensor([logit(0.9), logit(0.4), logit(0.7), logit(0.5)])
    labels = torch.tensor([1.0, 0.0, 1.0, 0.0])
    terms = [-((1 - p) ** 2) * math.log(p) for p in (0.9, 0.6, 0.7, 0.5)]
    assert focal_loss(logits, labels, 2.0, 1.0).item() == pytest.approx(sum(terms) / 4, rel=1e-5)
    assert focal_loss(logits, labels, 2.0, 0.5).item() == pytest.approx((terms[1] + terms[3]) / 2, rel=1e-5)
    assert focal_loss(logits, labels, 2.0, 0.01).item() == pytest.approx(terms[3], rel=1e-5)


def test_focal_loss_with_gamma_0_and_all_patches_is_cross_entropy() -> None:
    logits = 3 * torch.randn(2, 9, 9, generator=seeded(), dtype=torch.float64)
    labels = (torch.rand(2, 9, 9, generator=seeded(1)) > 0.7).double()
    expected = F.binary_cross_entropy_with_logits(logits, labels)
    assert focal_loss(logits, labels, 0.0, 1.0).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize(("hard_share", "count"), [(0.5, 50), (0.25, 25), (0.101, 10), (1.0, 100)])
def test_hard_share_selects_the_patches_of_lowest_p(hard_share: float, count: int) -> None:
    logits = torch.randn(4, 5, 5, generator=seeded(), requires_grad=True)
    labels = (torch.rand(4, 5, 5, generator=seeded(1)) > 0.5).float()
    focal_loss(logits, labels, 1.0, hard_share).backward()
    assert logits.grad is not None
    has_gradient = logits.grad.flatten() != 0
    p = torch.where(labels > 0.5, torch.sigmoid(logits), 1 - torch.sigmoid(logits)).detach().flatten()
    assert has_gradient.sum() == count
    if count < 100:
        assert p[has_gradient].max() < p[~has_gradient].min()


def test_gamma_down_weights_easy_patches() -> None:
    logits, labels = torch.tensor([logit(0.9), logit(0.3)]), torch.ones(2)
    shares = []
    for gamma in (0.0, 1.0, 4.0):
        easy, hard = (focal_loss(logits[i], labels[i], gamma, 1.0).item() for i in (0, 1))
        shares.append(easy / hard)
    assert shares[0] > 2 * shares[1] > 4 * shares[2]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_extreme_logits_stay_finite(gamma: float) -> None:
    """Loss and gradients are finite for the hardest and the easiest possible patches."""
    logits = torch.tensor([-1e4, 1e4, 120.0, -120.0, 1e4, -1e4], requires_grad=True)
    labels = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    loss = focal_loss(logits, labels, gamma, 1.0) + normal_loss(logits)
    loss.backward()
    assert logits.grad is not None
    assert loss.item() == pytest.approx((1e4 + 120 + 1e4) / 6 + (2e4 + 120) / 6, rel=1e-3)
    assert logits.grad.isfinite().all()
    assert logits.grad[0].item() == pytest.approx(-1 / 6, rel=1e-3)
