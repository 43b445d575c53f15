"""Shared data of trials: features are stored within a limit and in a given dtype, or computed again."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from las_tune.config.train_spec import TrainSpec
from las_tune.data.study_images import Array, StudyImages, load_images, resolve_objective
from las_tune.data.trial_data import SharedData, SharedImages, SharedLabeledImages, share, store_limit_bytes
from las_tune.las.backbone import Backbone, load_backbone
from las_tune.las.training import train
from tests.parts import make_part, make_textures, part_spec

SPEC = TrainSpec(image_size=64, batch_size=4, epochs=2, backbone="resnet18", backbone_weights="random", hidden_width=16)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("resnet18", "random")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> StudyImages:
    """Images of a small part, with the monitored images of --leakage-gap."""
    root = tmp_path_factory.mktemp("parts")
    make_part(root)
    make_textures(root / "textures")
    return load_images(part_spec(root, SPEC, leakage_gap=True))


def feature_sets(shared: SharedData) -> list[SharedImages]:
    """Return all images that have features."""
    return [
        shared.fit,
        shared.calibration,
        shared.validation.features,
        *(scored.features for scored in shared.monitored.values()),
    ]


def losses(backbone: Backbone, images: StudyImages, dtype: str, limit: float = math.inf) -> list[float]:
    shared, _ = share(backbone, images.trials, dtype, limit)
    spec = resolve_objective(SPEC, images)
    return [v for r in train(spec, backbone, shared.to_device(backbone)) for v in (r.loss, r.objective)]


@pytest.mark.parametrize(("dtype", "relative"), [("float32", 1e-6), ("float16", 1e-2), ("bfloat16", 3e-2)])
def test_features_are_stored_in_the_given_dtype(
    dtype: str, relative: float, backbone: Backbone, images: StudyImages
) -> None:
    shared, sentence = share(backbone, images.trials, dtype)
    exact, _ = share(backbone, images.trials)
    assert f"of {dtype} features" in sentence and sentence.startswith("stored ")
    rounded, full = shared.to_device(backbone), exact.to_device(backbone)
    stores = [(rounded.features, full.features), (rounded.calibration, full.calibration)]
    stores += [(rounded.validation.features, full.validation.features)]
    stores += [(rounded.monitored[name].features, full.monitored[name].features) for name in ("sealed", "whole")]
    for store, other in stores:
        assert store.maps is not None and {m.dtype for m in store.maps} == {getattr(torch, dtype)}
        for a, b in zip(store.take(slice(None)), other.take(slice(None)), strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=relative)
    assert losses(backbone, images, dtype) == pytest.approx(losses(backbone, images, "float32"), rel=0.05)


def test_results_are_the_same_without_stored_features(backbone: Backbone, images: StudyImages) -> None:
    shared, sentence = share(backbone, images.trials, "float32", 1000.0)
    assert len(feature_sets(shared)) == 5 and all(part.maps is None for part in feature_sets(shared))
    assert "exceed --store-limit-gb 0.00, so trials recompute them" in sentence
    again, stored = losses(backbone, images, "float32", limit=1000.0), losses(backbone, images, "float32")
    # Convolutions of another batch size round differently in the last digit, which changes ranks of noisy pixels.
    assert again[::2] == pytest.approx(stored[::2], rel=1e-3)
    assert again[1::2] == pytest.approx(stored[1::2], abs=0.02)


def test_limit_is_inclusive_and_counts_all_features(backbone: Backbone, images: StudyImages) -> None:
    shared, _ = share(backbone, images.trials, "float16")
    assert all(part.maps is not None for part in feature_sets(shared))
    size = sum(m.nbytes for part in feature_sets(shared) for m in part.maps or [])
    for limit, fits in ((size, True), (size - 1, False)):
        limited, _ = share(backbone, images.trials, "float16", limit)
        assert all((part.maps is not None) is fits for part in feature_sets(limited))


def arrays_in(value: object) -> list[Array]:
    """Return all arrays in nested data, and assert that it contains nothing else except dtype names."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, SharedData | SharedImages | SharedLabeledImages):
        return arrays_in([getattr(value, field.name) for field in dataclasses.fields(value)])
    if isinstance(value, dict):
        return arrays_in(list(value.values()))
    assert value is None or isinstance(value, str | list | tuple), value
    return [array for part in value for array in arrays_in(part)] if isinstance(value, list | tuple) else []


def test_shared_data_consists_of_arrays_that_ray_shares_without_a_copy(backbone: Backbone, images: StudyImages) -> None:
    shared, _ = share(backbone, images.trials, "bfloat16")
    arrays = arrays_in(shared)
    # Five parts with images and two maps, foreground and textures, three scored parts with defects and three targets.
    assert len(arrays) == 5 * (1 + 2) + 2 + 3 * (1 + 3)
    assert all(array.dtype != object for array in arrays)


def test_images_and_labels_are_unchanged(backbone: Backbone, images: StudyImages) -> None:
    data = share(backbone, images.trials, "float16")[0].to_device(backbone)
    trials = images.trials
    assert np.array_equal(data.images, trials.fit) and np.array_equal(data.calibration.images, trials.calibration)
    for scored, labeled in ((data.validation, trials.validation), (data.monitored["whole"], trials.monitored["whole"])):
        assert np.array_equal(scored.features.images, labeled.images)
        assert np.array_equal(scored.defects, labeled.defects) and scored.targets is not None
        assert labeled.masks is not None
        assert scored.targets.positive.tolist() == np.flatnonzero(labeled.masks).tolist()


@pytest.mark.parametrize(("limit_gb", "expected"), [(None, 4e9), (0.5, 5e8), (0.0, 0.0)])
def test_default_limit_is_half_of_the_memory(limit_gb: float | None, expected: float) -> None:
    assert store_limit_bytes(limit_gb, 8e9) == expected


def test_limit_of_zero_stores_nothing(backbone: Backbone, images: StudyImages) -> None:
    shared, _ = share(backbone, images.trials, "float32", 0.0)
    assert all(part.maps is None for part in feature_sets(shared))
