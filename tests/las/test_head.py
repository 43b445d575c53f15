from __future__ import annotations

import pytest
import torch
from torch import Tensor

from las_tune.las.head import Head, upsample
from tests.las.conftest import seeded
from tests.reference.head import PlainHead

CHANNELS = (5, 7)
HIDDEN_WIDTH = 11


def heads(channels: tuple[int, ...] = CHANNELS, use_adaptor: bool = True) -> tuple[Head, PlainHead]:
    """Return the fused and the plain head with equal float64 weights; no bias or norm is trivial."""
    fused = Head(channels, HIDDEN_WIDTH, seeded(), use_adaptor).double()
    state = {
        name: torch.rand(value.shape, generator=seeded(index), dtype=torch.float64) + 0.2 if value.ndim == 1 else value
        for index, (name, value) in enumerate(fused.state_dict().items())
    }
    fused.load_state_dict(state)
    plain = PlainHead(channels, HIDDEN_WIDTH, use_adaptor).double()
    plain.load_state_dict(state)
    return fused, plain


def maps(batch: int = 3, grids: tuple[int, ...] = (6, 3), channels: tuple[int, ...] = CHANNELS) -> list[Tensor]:
    shapes = [(batch, grid, grid + 1, width) for grid, width in zip(grids, channels, strict=True)]
    return [torch.randn(shape, generator=seeded(i), dtype=torch.float64) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize("use_adaptor", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("grids", "channels"), [((6, 3), (5, 7)), ((7, 4), (5, 7)), ((5,), (6,)), ((9, 5, 3), (3, 4, 2))]
)
def test_head_equals_two_plain_layers_forward_and_backward(
    training: bool, grids: tuple[int, ...], channels: tuple[int, ...], use_adaptor: bool
) -> None:
    fused, plain = (head.train(training) for head in heads(channels, use_adaptor))
    inputs = [[m.requires_grad_() for m in maps(3, grids, channels)] for _ in range(2)]
    fast, slow = fused(inputs[0]), plain(inputs[1])
    torch.testing.assert_close(fast, slow, atol=1e-10, rtol=1e-10)
    weights = torch.randn(fast.shape, generator=seeded(9), dtype=torch.float64)
    (fast * weights).sum().backward()
    (slow * weights).sum().backward()
    plain_parameters = dict(plain.named_parameters())
    assert set(plain_parameters) == {name for name, _ in fused.named_parameters()}
    for name, parameter in fused.named_parameters():
        torch.testing.assert_close(parameter.grad, plain_parameters[name].grad, atol=1e-10, rtol=1e-9, msg=name)
    for fused_input, plain_input in zip(*inputs, strict=True):
        torch.testing.assert_close(fused_input.grad, plain_input.grad, atol=1e-10, rtol=1e-9)
    for name, buffer in fused.norm.named_buffers():  # running statistics
        torch.testing.assert_close(buffer, plain.norm.get_buffer(name), atol=1e-10, rtol=1e-10)


def test_parameters_have_the_names_of_plain_layers() -> None:
    head = Head(CHANNELS, HIDDEN_WIDTH, seeded())
    shapes = {name: tuple(value.shape) for name, value in head.state_dict().items()}
    assert shapes == {
        "adaptor.weight": (12, 12), "adaptor.bias": (12,), "hidden.weight": (11, 12), "hidden.bias": (11,),
        "norm.weight": (11,), "norm.bias": (11,), "norm.running_mean": (11,), "norm.running_var": (11,),
        "norm.num_batches_tracked": (), "output.weight": (1, 11), "output.bias": (1,),
    }  # fmt: skip


def test_head_without_adaptor_has_no_adaptor_parameters() -> None:
    head = Head(CHANNELS, HIDDEN_WIDTH, seeded(), use_adaptor=False)
    names = set(Head(CHANNELS, HIDDEN_WIDTH, seeded()).state_dict())
    assert set(head.state_dict()) == names - {"adaptor.weight", "adaptor.bias"}
    assert {id(p) for p in head.parameters()} == {id(p) for p in head.discriminator_parameters()}


def test_identity_adaptor_equals_no_adaptor() -> None:
    without, head = (heads(use_adaptor=on)[0].eval() for on in (False, True))
    identity = {"adaptor.weight": torch.eye(12), "adaptor.bias": torch.zeros(12)}
    head.load_state_dict(without.state_dict() | identity)
    torch.testing.assert_close(without(maps()), head(maps()))


def test_discriminator_parameters_exclude_the_adaptor() -> None:
    head = Head(CHANNELS, HIDDEN_WIDTH, seeded())
    ids = {id(p) for p in head.discriminator_parameters()}
    assert ids == {id(p) for name, p in head.named_parameters() if not name.startswith("adaptor")}


def test_initial_weights_are_xavier_and_depend_on_the_seed() -> None:
    first, again, other = (Head((60, 40), 50, seeded(s)).state_dict() for s in (0, 0, 1))
    for name in ("adaptor.weight", "hidden.weight", "output.weight"):
        assert torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name])
    assert first["adaptor.weight"].std().item() == pytest.approx((2 / 200) ** 0.5, rel=0.03)
    assert first["hidden.weight"].std().item() == pytest.approx((2 / 150) ** 0.5, rel=0.03)
    assert first["adaptor.weight"].max() > 3 * (2 / 200) ** 0.5, "a uniform distribution ends at √3 deviations"
    assert not any(first[f"{layer}.bias"].any() for layer in ("adaptor", "hidden", "output"))


def test_global_generator_has_no_effect() -> None:
    first = Head(CHANNELS, HIDDEN_WIDTH, seeded())
    with torch.random.fork_rng():
        torch.manual_seed(1)
        again = Head(CHANNELS, HIDDEN_WIDTH, seeded())
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_upsample_matches_hand_calculation() -> None:
    """Two cells become four: their centers lie at 0.5 and 2.5, and the edge value is repeated outside."""
    values = torch.tensor([0.0, 4.0]).view(1, 1, 2, 1)
    assert upsample(values, (1, 4)).flatten().tolist() == [0.0, 1.0, 3.0, 4.0]


def test_evaluation_does_not_depend_on_the_batch_size() -> None:
    head = heads()[0].eval()
    inputs = maps(4)
    together = head(inputs)
    assert together.shape == (4, 6, 7)
    for index in range(4):
        torch.testing.assert_close(head([m[index : index + 1] for m in inputs])[0], together[index])
