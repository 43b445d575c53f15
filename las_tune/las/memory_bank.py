"""Memory bank, a reference detector without training (PatchCore-style nearest neighbor, arXiv:2106.08265, sec. 3).

It uses the same features as the head. Its scores are distances, so they have no upper bound.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from las_tune.las.features import FeatureStore
from las_tune.las.head import upsample
from las_tune.las.scoring import anomaly_maps

MAX_CANDIDATES = 20_000
"""Number of patches from which the coreset is chosen (at least num_patches). All patches may not fit in memory."""

PROJECTED_DIMENSIONS = 128
"""The coreset is chosen in a random projection of this dimension (PatchCore, sec. 3.2)."""


@torch.no_grad()
def build_bank(features: FeatureStore, num_patches: int = 2048, seed: int = 0) -> Tensor:
    """Build a memory bank, a coreset of the patches of normal images.

    Args:
        features: features of the normal images.
        num_patches: size of the coreset; all patches are used if there are fewer.
        seed: random seed.

    Returns: (K, C) float32, C the channels of all maps together, on the device of the images.
    """
    assert num_patches >= 1 and len(features) >= 1, f"a bank of {num_patches} patches of {len(features)} images"
    generator = torch.Generator().manual_seed(seed)
    candidates = _draw_candidates(features, max(MAX_CANDIDATES, num_patches), generator)
    first = int(torch.randint(len(candidates), (), generator=generator))
    return candidates[greedy_coreset(_project(candidates, generator), num_patches, first)]


@torch.no_grad()
def score_bank(bank: Tensor, features: FeatureStore, size: int, batch_size: int = 8) -> Tensor:
    """Return anomaly maps (N, size, size), the distance of each patch to its nearest neighbor (PatchCore, eq. 6).

    The density weight of image scores (eq. 7) is omitted: image scores are computed from the anomaly maps.
    """
    parts = []
    for start in range(0, len(features), batch_size):
        patches = _patch_vectors(features.take(slice(start, start + batch_size)))
        distances = nearest_distances(patches.flatten(0, 2), bank)
        parts.append(anomaly_maps(distances.view(patches.shape[:3]), size))
    return torch.cat(parts)


def greedy_coreset(points: Tensor, num_chosen: int, first: int) -> Tensor:
    """Choose points by greedy k-center: always the point farthest from all chosen ones (PatchCore, algorithm 1).

    Args:
        points: (P, D) float.
        num_chosen: K, the number of points; all points are chosen if there are fewer.
        first: index of the first point.

    Returns: (min(K, P),) int64, distinct indices in the order of choice.
    """
    points = points - points.mean(0)  # centered, because smaller norms reduce rounding errors of the products
    norms = points.square().sum(1)
    nearest = torch.full_like(norms, math.inf)  # squared distance to the chosen points; -inf for chosen ones
    latest = torch.full((1,), first, device=points.device)
    chosen = [latest]
    while len(chosen) < min(num_chosen, len(points)):
        products = points @ points.index_select(0, latest).squeeze(0)
        nearest = torch.minimum(nearest, norms + norms.index_select(0, latest) - 2 * products)
        nearest.index_fill_(0, latest, -math.inf)
        latest = nearest.argmax(0, keepdim=True)
        chosen.append(latest)
    return torch.cat(chosen)


def nearest_distances(patches: Tensor, bank: Tensor) -> Tensor:
    """Return the Euclidean distances (P,) of patches (P, C) to the nearest row of the bank (K, C).

    The neighbor is found with ‖a - b‖² = ‖a‖² + ‖b‖² - 2ab, without ‖a‖², which is the same for all b. The distance is
    then computed from the two vectors, because the formula loses precision near zero.
    """
    center = bank.mean(0)  # centered, because smaller norms reduce rounding errors of the products
    patches, bank = patches - center, bank - center
    nearest = torch.addmm(bank.square().sum(1), patches, bank.T, alpha=-2).argmin(1)
    distances: Tensor = torch.linalg.vector_norm(patches - bank[nearest], dim=1)
    return distances


def _patch_vectors(maps: list[Tensor]) -> Tensor:
    """Concatenate the maps on the finest grid: (B, rows, columns, C)."""
    fine, *coarse = maps
    grid = (fine.shape[1], fine.shape[2])
    return torch.cat([fine, *(upsample(m, grid) for m in coarse)], dim=-1)


def _draw_candidates(features: FeatureStore, limit: int, generator: Generator) -> Tensor:
    """Draw at most `limit` random patches (P, C), with equal numbers per image up to one."""
    parts = []
    for index in range(len(features)):
        patches = _patch_vectors(features.take(slice(index, index + 1))).flatten(0, 2)
        share = limit * (index + 1) // len(features) - limit * index // len(features)
        drawn = torch.randperm(len(patches), generator=generator)[:share]
        parts.append(patches[drawn.to(patches.device)])
    return torch.cat(parts)


def _project(points: Tensor, generator: Generator) -> Tensor:
    """Project points (P, C) to PROJECTED_DIMENSIONS by a Gaussian matrix, if C is larger.

    Distances are approximately preserved (Johnson-Lindenstrauss lemma). Entries of variance 1 / dimensions preserve
    squared distances in expectation.
    """
    channels = points.shape[1]
    if channels <= PROJECTED_DIMENSIONS:
        return points
    matrix = torch.randn(channels, PROJECTED_DIMENSIONS, generator=generator) / math.sqrt(PROJECTED_DIMENSIONS)
    return points @ matrix.to(points.device)
