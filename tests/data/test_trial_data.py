"""What trials share: features stored within a limit, in the type asked for, or computed again."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from las_tune.config.train_spec import TrainSpec
from las_tune.data.study_images import Array, StudyImages, load_images, resolve_objective
from las_tune.data.trial_data import SharedData, SharedImages, SharedScored, share, store_limit_bytes
from las_tune.las.backbone import Backbone, load_backbone
from las_tune.las.training import train
from tests.parts import make_part, make_textures, part_spec

SPEC = TrainSpec(image_size=64, batch_size=4, epochs=2, backbone="resnet18", backbone_weights="random", hidden_width=16)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("resnet18", "random")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> StudyImages:
    """With something to watch: what the leakage gap is told from."""
    root = tmp_path_factory.mktemp("parts")
    make_part(root)
    make_textures(root / "textures")
    return load_images(part_spec(root, SPEC, leakage_gap=True))


def held(shared: SharedData) -> list[SharedImages]:
    """Everything that has features."""
    return [shared.fit, shared.calibration, shared.validation.features, *(w.features for w in shared.watched.values())]


def losses(backbone: Backbone, images: StudyImages, dtype: str, limit: float = math.inf) -> list[float]:
    shared, _ = share(backbone, images.trials, dtype, limit)
    spec = resolve_objective(SPEC, images)
    return [v for r in train(spec, backbone, shared.to_device(backbone)) for v in (r.loss, r.objective)]


@pytest.mark.parametrize(("dtype", "relative"), [("float32", 1e-6), ("float16", 1e-2), ("bfloat16", 3e-2)])
def test_maps_come_back_in_the_type_asked_for(
    dtype: str, relative: float, backbone: Backbone, images: StudyImages
) -> None:
    shared, sentence = share(backbone, images.trials, dtype)
    exact, _ = share(backbone, images.trials)
    assert f"of {dtype} features" in sentence and sentence.startswith("stored ")
    one, two = shared.to_device(backbone), exact.to_device(backbone)
    stores = [(one.features, two.features), (one.calibration, two.calibration)]
    stores += [(one.validation.features, two.validation.features)]
    stores += [(one.watched[name].features, two.watched[name].features) for name in ("sealed", "whole")]
    for store, other in stores:
        assert store.maps is not None and {m.dtype for m in store.maps} == {getattr(torch, dtype)}
        for a, b in zip(store.take(slice(None)), other.take(slice(None)), strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=relative)
    assert losses(backbone, images, dtype) == pytest.approx(losses(backbone, images, "float32"), rel=0.05)


def test_above_the_limit_trials_compute_them_again_with_the_same_numbers(
    backbone: Backbone, images: StudyImages
) -> None:
    shared, sentence = share(backbone, images.trials, "float32", 1000.0)
    assert len(held(shared)) == 5 and all(part.maps is None for part in held(shared))
    assert "are above --store-limit-gb 0.00: trials compute them again" in sentence
    again, stored = losses(backbone, images, "float32", limit=1000.0), losses(backbone, images, "float32")
    # Convolutions of another batch round otherwise in the last digit; on noise, ranks of pixels hang on it.
    assert again[::2] == pytest.approx(stored[::2], rel=1e-3)
    assert again[1::2] == pytest.approx(stored[1::2], abs=0.02)


def test_the_limit_is_inclusive_and_counts_every_stored_map(backbone: Backbone, images: StudyImages) -> None:
    shared, _ = share(backbone, images.trials, "float16")
    assert all(part.maps is not None for part in held(shared))
    size = sum(m.nbytes for part in held(shared) for m in part.maps or [])
    for limit, fits in ((size, True), (size - 1, False)):
        found, _ = share(backbone, images.trials, "float16", limit)
        assert all((part.maps is not None) is fits for part in held(found))


def arrays_in(value: object) -> list[Array]:
    """Every array, whatever it is nested in; anything else but the name of a type is a mistake."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, SharedData | SharedImages | SharedScored):
        return arrays_in([getattr(value, field.name) for field in dataclasses.fields(value)])
    if isinstance(value, dict):
        return arrays_in(list(value.values()))
    assert value is None or isinstance(value, str | list | tuple), value
    return [array for part in value for array in arrays_in(part)] if isinstance(value, list | tuple) else []


def test_shared_data_are_arrays_that_ray_shares_without_a_copy(backbone: Backbone, images: StudyImages) -> None:
    shared, _ = share(backbone, images.trials, "bfloat16")
    arrays = arrays_in(shared)
    # Images and two maps of five parts, foregrounds and textures, kinds and three targets of three scored parts.
    assert len(arrays) == 5 * (1 + 2) + 2 + 3 * (1 + 3)
    assert all(array.dtype != object for array in arrays)


def test_images_and_labels_come_back_as_they_were(backbone: Backbone, images: StudyImages) -> None:
    data = share(backbone, images.trials, "float16")[0].to_device(backbone)
    seen = images.trials
    assert np.array_equal(data.images, seen.fit) and np.array_equal(data.calibration.images, seen.calibration)
    for scored, labelled in ((data.validation, seen.validation), (data.watched["whole"], seen.watched["whole"])):
        assert np.array_equal(scored.features.images, labelled.images)
        assert np.array_equal(scored.defects, labelled.defects) and scored.targets is not None
        assert labelled.masks is not None
        assert scored.targets.positive.tolist() == np.flatnonzero(labelled.masks).tolist()


@pytest.mark.parametrize(("limit_gb", "expected"), [(None, 4e9), (0.5, 5e8), (0.0, 0.0)])
def test_the_limit_is_the_users_or_half_of_the_memory(limit_gb: float | None, expected: float) -> None:
    assert store_limit_bytes(limit_gb, 8e9) == expected


def test_a_limit_of_nothing_is_a_choice(backbone: Backbone, images: StudyImages) -> None:
    shared, _ = share(backbone, images.trials, "float32", 0.0)
    assert all(part.maps is None for part in held(shared))
