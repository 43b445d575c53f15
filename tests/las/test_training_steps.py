"""Steps of a training, compared with the reference and through the arguments of their parts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from las_tune.config.train_spec import tunable_names
from las_tune.las import training as module
from las_tune.las.backbone import Backbone
from las_tune.las.losses import focal_loss, normal_loss
from las_tune.las.synthesis import Synthesized, synthesize
from las_tune.las.training import TrainData, Training, train
from tests.las.conftest import SPEC, run, tiny_data, with_maps
from tests.reference.masks import grid_labels
from tests.reference.training import train_losses


@pytest.mark.parametrize(("hard_share", "use_adaptor"), [(0.5, True), (1.0, True), (0.5, False)])
def test_training_equals_reference(hard_share: float, use_adaptor: bool, backbone: Backbone, data: TrainData) -> None:
    """The reference recomputes features, uses two plain layers and labels by loops; an epoch has 4 + 2 images."""
    spec = SPEC.replace(
        adaptor_lr=1e-3, discriminator_lr=2e-3, weight_decay=1e-2, hard_share=hard_share, use_adaptor=use_adaptor
    )
    slow = train_losses(spec, backbone, data)
    for result, (normal, las) in zip(run(spec, backbone, data), slow, strict=True):
        assert result["loss_normal"] == pytest.approx(normal, rel=1e-4)
        assert result["loss_las"] == pytest.approx(las, rel=1e-4)
        assert result["loss"] == result["loss_normal"] + result["loss_las"]


def test_training_equals_reference_on_a_resnet(resnet: Backbone) -> None:
    data, spec = tiny_data(resnet, num_images=3), SPEC.replace(epochs=2, batch_size=2)
    for result, (normal, las) in zip(run(spec, resnet, data), train_losses(spec, resnet, data), strict=True):
        assert result["loss_normal"] == pytest.approx(normal, rel=1e-3)
        assert result["loss_las"] == pytest.approx(las, rel=1e-3)


CHANGES = {
    "adaptor_lr": 1e-3, "discriminator_lr": 1e-3, "alpha": 0.0, "beta_mean": 0.7, "beta_std": 0.3,
    "beta_min": 0.5, "beta_max": 0.45, "perlin_max_exponent": 1, "foreground": "none",
    "focal_gamma": 1.0, "hard_share": 0.9, "weight_decay": 0.5, "hidden_width": 12, "use_adaptor": False,
    "batch_size": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", tunable_names())
def test_every_hyperparameter_has_an_effect(name: str, backbone: Backbone, data: TrainData) -> None:
    before, after = run(SPEC, backbone, data), run(SPEC.replace(**{name: CHANGES[name]}), backbone, data)
    assert before[-1]["loss"] != after[-1]["loss"]


@pytest.mark.parametrize(("frozen", "trained"), [("adaptor", "hidden"), ("hidden", "adaptor")])
def test_learning_rates_apply_to_their_parts(frozen: str, trained: str, backbone: Backbone, data: TrainData) -> None:
    rate = "adaptor_lr" if frozen == "adaptor" else "discriminator_lr"
    spec = SPEC.replace(**{rate: 1e-30})
    before = copy.deepcopy(Training(spec, backbone.channels, torch.device("cpu")).head.state_dict())
    after = [r.state["head"] for r in train(spec, backbone, data)][-1]
    assert torch.equal(after[f"{frozen}.weight"], before[f"{frozen}.weight"])
    change = (after[f"{trained}.weight"] - before[f"{trained}.weight"]).abs()
    assert 0.5 * 1e-4 < change.max() < 6 * 2e-4 * 1.1  # each of 6 steps of Adam is at most about the rate


def test_optimizers_are_adam_and_adamw_with_the_rates_of_the_spec() -> None:
    spec = SPEC.replace(adaptor_lr=3e-4, discriminator_lr=5e-4, weight_decay=0.25)
    adam, adamw = Training(spec, (3, 2), torch.device("cpu")).optimizers
    assert type(adam) is torch.optim.Adam and type(adamw) is torch.optim.AdamW
    assert [(o.defaults["lr"], o.defaults["weight_decay"]) for o in (adam, adamw)] == [
        (3e-4, 0.25),
        (5e-4, 0.25),
    ]


def test_adaptor_rate_has_no_effect_without_an_adaptor(backbone: Backbone, data: TrainData) -> None:
    spec = SPEC.replace(use_adaptor=False)
    (adamw,) = Training(spec, (3, 2), torch.device("cpu")).optimizers
    assert type(adamw) is torch.optim.AdamW and adamw.defaults["lr"] == spec.discriminator_lr
    losses = [[row["loss"] for row in run(spec.replace(adaptor_lr=rate), backbone, data)] for rate in (1e-5, 1e-1)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("batch_size", [1, 5, 8])
def test_every_image_is_used_once_per_epoch(
    batch_size: int, backbone: Backbone, data: TrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[Tensor] = []

    def spy(images: Tensor, *args: Any) -> Synthesized:
        batches.append(images)
        return synthesize(images, *args)

    monkeypatch.setattr(module, "synthesize", spy)
    run(SPEC.replace(batch_size=batch_size, epochs=2), backbone, data)
    per_epoch = len(batches) // 2
    assert max(len(p) for p in batches) == min(batch_size, 6)
    for part in (batches[:per_epoch], batches[per_epoch:]):
        found = sorted(p.flatten().tolist() for p in torch.cat(part))
        assert found == sorted(p.flatten().tolist() for p in data.images)
    orders = [torch.cat(part) for part in (batches[:per_epoch], batches[per_epoch:])]
    assert not torch.equal(*orders), "shuffled in each epoch"


def test_only_patches_under_the_mask_are_labeled_defective(
    backbone: Backbone, data: TrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthesized: list[Synthesized] = []
    labels: list[Tensor] = []

    def spy_synthesize(*args: Any) -> Synthesized:
        synthesized.append(synthesize(*args))
        return synthesized[-1]

    def spy_focal(logits: Tensor, on_patches: Tensor, *args: Any) -> Tensor:
        labels.append(on_patches)
        return focal_loss(logits, on_patches, *args)

    monkeypatch.setattr(module, "synthesize", spy_synthesize)
    monkeypatch.setattr(module, "focal_loss", spy_focal)
    run(SPEC, backbone, data)
    assert len(labels) == len(synthesized) == 6
    for step, found in zip(synthesized, labels, strict=True):
        for mask, label in zip(step.masks, found, strict=True):
            assert label.tolist() == grid_labels(mask[0].numpy(), 8, 8).tolist()
    assert 0.02 < torch.cat(labels).mean() < 0.6


def test_normal_loss_uses_images_and_focal_loss_synthesized_images(
    backbone: Backbone, data: TrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shifting the stored maps changes only the normal half of the logits of the first step."""
    logits: dict[str, list[Tensor]] = {"normal": [], "las": []}

    def spy_normal(on_normal: Tensor) -> Tensor:
        logits["normal"].append(on_normal.detach())
        return normal_loss(on_normal)

    def spy_focal(on_las: Tensor, *args: Any) -> Tensor:
        logits["las"].append(on_las.detach())
        return focal_loss(on_las, *args)

    monkeypatch.setattr(module, "normal_loss", spy_normal)
    monkeypatch.setattr(module, "focal_loss", spy_focal)
    monkeypatch.setattr(torch.nn.BatchNorm1d, "forward", lambda self, x: x)  # batch norm would mix the halves
    moved = with_maps(data, lambda m: m + 5)
    for variant in (data, moved):
        run(SPEC.replace(epochs=1, batch_size=6), backbone, variant)
    assert torch.equal(*logits["las"])
    assert (logits["normal"][0] - logits["normal"][1]).abs().min() > 0.1


def test_half_precision_store_trains_nearly_the_same(backbone: Backbone, data: TrainData) -> None:
    half = with_maps(data, torch.Tensor.half)
    for found, expected in zip(run(SPEC, backbone, half), run(SPEC, backbone, data), strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-2)
