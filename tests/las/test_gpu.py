"""Behavior that only a GPU shows. Run with `pytest -m gpu`."""

from __future__ import annotations

import pytest
import torch

from las_tune.las.backbone import Backbone
from las_tune.las.features import FeatureStore, store_features
from las_tune.las.image_metrics import LabeledFeatures
from las_tune.las.scoring import score_features
from las_tune.las.training import TrainData, Training, train, train_epoch
from tests.las.conftest import SPEC, run, tiny_backbone, tiny_data

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")]
GPU = torch.device("cuda")


@pytest.fixture
def on_gpu() -> tuple[Backbone, TrainData]:
    backbone, data = tiny_backbone(), tiny_data(tiny_backbone())
    backbone.to(GPU)

    def store(features: FeatureStore) -> FeatureStore:
        images = features.images.to(GPU)
        return FeatureStore(images, store_features(backbone, images), backbone)

    targets = data.validation.targets
    assert targets is not None
    labeled = LabeledFeatures(store(data.validation.features), data.validation.defects.to(GPU), targets.to(GPU))
    on_gpu = store(data.features), data.foreground.to(GPU), data.textures.to(GPU), store(data.calibration), labeled
    return backbone, TrainData(*on_gpu)


def test_epoch_has_no_host_sync(on_gpu: tuple[Backbone, TrainData]) -> None:
    backbone, data = on_gpu
    training = Training(SPEC, backbone.channels, GPU)
    train_epoch(training, SPEC, backbone, data)  # loads kernels
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning, match="synchroniz") as caught:
            train_epoch(training, SPEC, backbone, data)  # reads the losses, once
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len([warning for warning in caught if "synchroniz" in str(warning.message)]) == 1


def test_same_seed_gives_the_same_numbers(on_gpu: tuple[Backbone, TrainData]) -> None:
    first, again = run(SPEC, *on_gpu), run(SPEC, *on_gpu)
    for row, row_again in zip(first, again, strict=True):
        assert row == pytest.approx(row_again, rel=1e-4)


def test_features_and_scores_equal_those_of_a_cpu(on_gpu: tuple[Backbone, TrainData]) -> None:
    backbone, data = on_gpu
    on_cpu = tiny_data(tiny_backbone())
    for found, expected in zip(data.features.take(slice(None)), on_cpu.features.take(slice(None)), strict=True):
        torch.testing.assert_close(found.cpu(), expected, atol=2e-2, rtol=2e-2)  # bfloat16
    head = Training(SPEC, backbone.channels, GPU).head
    maps = score_features(head, data.validation.features, SPEC.image_size).cpu()
    expected = score_features(head.cpu(), on_cpu.validation.features, SPEC.image_size)
    torch.testing.assert_close(maps, expected, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_training_learns_and_measures_memory(precision: str, on_gpu: tuple[Backbone, TrainData]) -> None:
    results = list(train(SPEC.replace(head_precision=precision, epochs=6), *on_gpu))
    assert results[-1].loss < results[0].loss
    assert results[-1].peak_memory_mb > 0
