"""What trials share: features stored within a limit, in the type asked for, or computed again."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from las_tune.las.backbone import Backbone, load_backbone
from las_tune.las.train import train
from las_tune.spec import TrainSpec
from las_tune.tuning.prepare import StudyPictures, load_pictures, resolve_objective, share, store_limit_bytes
from tests.parts import make_part, make_textures

SPEC = TrainSpec(image_size=64, batch_size=4, epochs=2, backbone="resnet18", backbone_weights="random", hidden_width=16)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("resnet18", "random")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> StudyPictures:
    root = tmp_path_factory.mktemp("parts")
    make_part(root)
    return load_pictures(root, "part", make_textures(root / "textures"), SPEC)


def losses(backbone: Backbone, pictures: StudyPictures, dtype: str, limit: float = math.inf) -> list[float]:
    shared, _ = share(backbone, pictures.fit, pictures.validation, pictures.textures, dtype, limit)
    spec = resolve_objective(SPEC, has_masks=True)
    return [v for r in train(spec, backbone, shared.to_device(backbone)) for v in (r.loss, r.objective)]


@pytest.mark.parametrize(("dtype", "relative"), [("float32", 1e-6), ("float16", 1e-2), ("bfloat16", 3e-2)])
def test_maps_come_back_in_the_type_asked_for(
    dtype: str, relative: float, backbone: Backbone, pictures: StudyPictures
) -> None:
    shared, sentence = share(backbone, pictures.fit, pictures.validation, pictures.textures, dtype)
    exact, _ = share(backbone, pictures.fit, pictures.validation, pictures.textures)
    assert f"of {dtype} features" in sentence and sentence.startswith("stored ")
    for ours, theirs in ((shared, exact),):
        one, two = ours.to_device(backbone), theirs.to_device(backbone)
        for store, other in ((one.features, two.features), (one.validation.features, two.validation.features)):
            assert store.maps is not None and {m.dtype for m in store.maps} == {getattr(torch, dtype)}
            for a, b in zip(store.take(slice(None)), other.take(slice(None)), strict=True):
                torch.testing.assert_close(a, b, atol=1e-6, rtol=relative)
    assert losses(backbone, pictures, dtype) == pytest.approx(losses(backbone, pictures, "float32"), rel=0.05)


def test_above_the_limit_trials_compute_them_again_with_the_same_numbers(
    backbone: Backbone, pictures: StudyPictures
) -> None:
    shared, sentence = share(backbone, pictures.fit, pictures.validation, pictures.textures, "float32", 1000.0)
    assert shared.fit_maps is None and shared.validation_maps is None
    assert "are above --store-limit-gb 0.00: trials compute them again" in sentence
    again, stored = losses(backbone, pictures, "float32", limit=1000.0), losses(backbone, pictures, "float32")
    # Convolutions of another batch round otherwise in the last digit; on noise, ranks of pixels hang on it.
    assert again[::2] == pytest.approx(stored[::2], rel=1e-3)
    assert again[1::2] == pytest.approx(stored[1::2], abs=0.02)


def test_the_limit_is_inclusive_and_counts_every_stored_map(backbone: Backbone, pictures: StudyPictures) -> None:
    shared, _ = share(backbone, pictures.fit, pictures.validation, pictures.textures, "float16")
    assert shared.fit_maps is not None and shared.validation_maps is not None
    held = sum(m.nbytes for m in (*shared.fit_maps, *shared.validation_maps))
    for limit, fits in ((held, True), (held - 1, False)):
        found, _ = share(backbone, pictures.fit, pictures.validation, pictures.textures, "float16", limit)
        assert (found.fit_maps is not None) is fits


def test_shared_data_are_arrays_that_ray_shares_without_a_copy(backbone: Backbone, pictures: StudyPictures) -> None:
    shared, _ = share(backbone, pictures.fit, pictures.validation, pictures.textures, "bfloat16")
    for field in dataclasses.fields(shared):
        value = getattr(shared, field.name)
        for part in value if isinstance(value, list | tuple) else [value]:
            assert isinstance(part, np.ndarray) or field.name == "store_dtype"
            assert not isinstance(part, np.ndarray) or part.dtype != object


@pytest.mark.parametrize(("limit_gb", "expected"), [(None, 4e9), (0.5, 5e8), (0.0, 0.0)])
def test_the_limit_is_the_users_or_half_of_the_memory(limit_gb: float | None, expected: float) -> None:
    assert store_limit_bytes(limit_gb, 8e9) == expected


def test_a_limit_of_nothing_is_a_choice(tmp_path: Path, backbone: Backbone, pictures: StudyPictures) -> None:
    shared, _ = share(backbone, pictures.fit, pictures.validation, pictures.textures, "float32", 0.0)
    assert shared.fit_maps is None
