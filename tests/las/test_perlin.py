from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from las_tune.las.perlin import PerlinFields, draw_perlin, perlin_noise
from tests.las.conftest import seeded
from tests.reference.perlin import perlin_field


@pytest.mark.parametrize(
    ("cells", "angle"),
    [
        ((1, 1), 0.0),
        ((1, 1), 0.9),
        ((4, 4), -0.6),
        ((1, 8), 1.3),
        ((8, 2), -math.pi / 2),
        ((8, 8), math.pi / 4),
    ],
)
def test_noise_equals_per_pixel_loops(cells: tuple[int, int], angle: float) -> None:
    drawn = draw_perlin(1, 3, seeded())
    fields = PerlinFields(drawn.gradients, torch.tensor([cells], dtype=torch.float), torch.tensor([angle]))
    slow = perlin_field(drawn.gradients[0].double().numpy(), np.array(cells), angle, size=23)
    np.testing.assert_allclose(perlin_noise(fields, 23)[0].numpy(), slow, atol=2e-5)


def test_fields_of_a_batch_are_independent() -> None:
    fields = draw_perlin(5, 2, seeded())
    noise = perlin_noise(fields, 17)
    for index in range(5):
        gradients, angle = fields.gradients[index].double().numpy(), float(fields.angle[index])
        slow = perlin_field(gradients, fields.cells[index].double().numpy(), angle, size=17)
        np.testing.assert_allclose(noise[index].numpy(), slow, atol=2e-5)


@pytest.mark.parametrize(("size", "step"), [(40, 8), (33, 8), (37, 5), (20, 3), (9, 1)])
def test_step_takes_a_subset_of_the_full_noise(size: int, step: int) -> None:
    fields = draw_perlin(3, 4, seeded())
    full, start = perlin_noise(fields, size), step // 2
    torch.testing.assert_close(perlin_noise(fields, size, step), full[:, start::step, start::step])


def test_noise_is_zero_at_lattice_points() -> None:
    drawn = draw_perlin(4, 3, seeded())
    fields = PerlinFields(drawn.gradients, torch.full((4, 2), 8.0), torch.zeros(4))
    noise = perlin_noise(fields, 12)  # 8 cells over 12 pixels: lattice points at the centers of 1, 4, 7, 10
    assert noise[:, 1::3, 1::3].abs().max() < 1e-5
    assert noise[:, ::3, ::3].abs().min(0).values.max() > 0.01


def test_rotation_keeps_the_center() -> None:
    """With an even number of cells, the middle pixel of an odd image is a lattice point at any angle."""
    fields = draw_perlin(64, 3, seeded())
    noise = perlin_noise(PerlinFields(fields.gradients, fields.cells.clamp_min(2), fields.angle), 21)
    assert noise[:, 10, 10].abs().max() < 1e-5


def test_noise_fills_its_range() -> None:
    noise = perlin_noise(draw_perlin(300, 5, seeded()), 48)
    assert noise.abs().max() <= 1 + 1e-5
    assert noise.min() < -0.9 and noise.max() > 0.9
    assert abs(noise.mean()) < 0.01


def test_fields_differ_and_depend_on_the_seed() -> None:
    first, again, other = (perlin_noise(draw_perlin(6, 3, seeded(s)), 16) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-2)
    distance = torch.cdist(first.flatten(1), first.flatten(1), p=math.inf) + torch.eye(6)
    assert distance.min() > 0.05


def test_generator_advances() -> None:
    generator = seeded()
    first, second = draw_perlin(2, 2, generator), draw_perlin(2, 2, generator)
    assert not torch.equal(first.gradients, second.gradients)


@pytest.mark.parametrize("max_exponent", [0, 2, 5])
def test_cells_are_powers_of_two_equally_often_for_each_axis(max_exponent: int) -> None:
    cells = draw_perlin(600, max_exponent, seeded(1)).cells
    for axis in (0, 1):
        values, counts = cells[:, axis].unique(return_counts=True)
        assert values.tolist() == [2.0**k for k in range(max_exponent + 1)]
        assert max_exponent == 0 or stats.chisquare(counts.numpy()).pvalue > 1e-3
    if max_exponent:
        assert stats.pearsonr(cells[:, 0].log2(), cells[:, 1].log2()).pvalue > 1e-3


def test_angles_are_uniform_from_minus_90_to_90_degrees() -> None:
    degrees = torch.rad2deg(draw_perlin(2000, 0, seeded()).angle).numpy()
    assert -90 <= degrees.min() < -89 and 89 < degrees.max() <= 90
    assert stats.kstest(degrees, stats.uniform(-90, 180).cdf).pvalue > 1e-3


def test_gradients_are_unit_vectors_in_every_direction() -> None:
    gradients = draw_perlin(4, 4, seeded()).gradients
    torch.testing.assert_close(gradients.norm(dim=-1), torch.ones(gradients.shape[:-1]))
    direction = torch.atan2(gradients[..., 0], gradients[..., 1]).flatten().numpy()
    assert stats.kstest(direction, stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > 1e-3


def test_noise_does_not_repeat_within_the_image() -> None:
    """Rotated by 45 degrees, a diagonal crosses 4√2 cells, and 70 of its 99 pixels span 4 cells."""
    drawn = draw_perlin(1, 2, seeded())
    fields = PerlinFields(drawn.gradients, torch.full((1, 2), 4.0), torch.full((1,), math.pi / 4))
    diagonal = perlin_noise(fields, 99)[0].flip(1).diagonal()
    assert (diagonal[:29] - diagonal[70:]).abs().max() > 0.1
