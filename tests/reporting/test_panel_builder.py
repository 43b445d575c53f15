"""The image panel of a trial: fixed images, worst errors and synthetic examples."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from ray import tune

from las_tune.execution.observer import copy_panel
from las_tune.las.scoring import image_scores
from las_tune.las.training import EpochResult, TrainData, train
from las_tune.reporting.panel import FALSE_REJECT, FIXED, MISS, PANEL_NAME, RENAMED, Panel
from las_tune.reporting.panel_builder import (
    NUM_SYNTHETIC,
    fixed_images,
    make_panel,
    synthesize_examples,
    worst_images,
)
from tests.las.conftest import SIZE, SPEC, tiny_backbone, tiny_data


@pytest.fixture(scope="module")
def data() -> TrainData:
    return tiny_data(tiny_backbone())


@pytest.fixture(scope="module")
def result(data: TrainData) -> EpochResult:
    return next(train(SPEC, tiny_backbone(), data))


@pytest.fixture(scope="module")
def panel(data: TrainData, result: EpochResult) -> Panel:
    return make_panel(result, data, synthesize_examples(SPEC, data), ("good", "square"))


def test_fixed_images_take_each_defect_type_in_turn() -> None:
    defects = np.array([0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 1, 1, 1])
    assert fixed_images(defects, 3).tolist() == [0, 9, 11]
    assert fixed_images(defects, 5).tolist() == [0, 1, 9, 11, 12]
    assert fixed_images(np.array([0, 1])).tolist() == [0, 1]


def test_worst_images_are_on_the_wrong_side_of_the_threshold() -> None:
    scores = np.array([0.9, 0.1, 0.6, 0.2, 0.8, 0.4, 0.5])
    defects = np.array([0, 0, 0, 1, 1, 2, 1])
    missed, rejected = worst_images(scores, defects, threshold=0.5)
    assert missed.tolist() == [3, 5, 6] and rejected.tolist() == [0, 2]
    missed, rejected = worst_images(scores, defects, threshold=0.5, max_images=1)
    assert missed.tolist() == [3] and rejected.tolist() == [0]


def test_panel_holds_scores_and_anomaly_maps_of_the_epoch(data: TrainData, result: EpochResult) -> None:
    scores = image_scores(result.anomaly_maps).numpy()
    # at the median score, good images are rejected and defective ones are missed
    result = dataclasses.replace(result, threshold=float(np.median(scores)))
    panel = make_panel(result, data, synthesize_examples(SPEC, data), ("good", "square"))
    assert np.array_equal(panel.scores, scores) and panel.scores.shape == (6,)
    for position, image in enumerate(panel.index):
        assert np.array_equal(panel.images[position], data.validation.features.images[image].numpy())
        assert np.abs(panel.anomaly_maps[position] / 255 - result.anomaly_maps[image].numpy()).max() <= 0.5 / 255 + 1e-6
        is_defective = data.validation.defects[image] > 0
        assert panel.masks[position].sum() == (16 * 20 if is_defective else 0)
        assert not is_defective or panel.masks[position][20:36, 24:44].all()
        if panel.reasons[position] == MISS:
            assert is_defective and scores[image] <= panel.threshold
        if panel.reasons[position] == FALSE_REJECT:
            assert not is_defective and scores[image] > panel.threshold
    assert (panel.reasons == FIXED).sum() == 6 and (panel.reasons != FIXED).any()


def test_panel_without_masks_has_no_masks(result: EpochResult) -> None:
    data = tiny_data(tiny_backbone(), masks=False)
    panel = make_panel(result, data, synthesize_examples(SPEC, data), ("good", "square"))
    assert panel.masks.shape == (0, SIZE, SIZE)


def test_synthetic_examples_differ_by_hyperparameters_alone(data: TrainData) -> None:
    first, second = synthesize_examples(SPEC, data), synthesize_examples(SPEC, data)
    strong = synthesize_examples(SPEC.replace(beta_mean=0.1, beta_std=0.0), data)
    assert torch.equal(first.images, second.images) and len(first.images) == NUM_SYNTHETIC
    assert torch.equal(first.masks, strong.masks), "the same masks, with a stronger defect"
    assert (strong.beta == 0.2).all() and not torch.equal(first.images, strong.images)
    outside = [torch.where(examples.masks, 0.0, examples.images) for examples in (first, strong)]
    assert torch.equal(*outside), "images are unchanged outside the masks"


def test_panel_is_read_as_written(panel: Panel, tmp_path: Path) -> None:
    panel.save(tmp_path / "panel.npz")
    loaded = Panel.load(tmp_path / "panel.npz")
    for field in dataclasses.fields(Panel):
        assert np.array_equal(getattr(loaded, field.name), getattr(panel, field.name)), field.name


def test_panel_of_version_0_1_0_is_read(panel: Panel, tmp_path: Path) -> None:
    arrays = {RENAMED.get(name, name): array for name, array in vars(panel).items()}
    assert {"painted", "kinds", "why", "pictures", "heat"} < set(arrays)
    np.savez(tmp_path / "panel.npz", **arrays)
    loaded = Panel.load(tmp_path / "panel.npz")
    assert all(np.array_equal(getattr(loaded, name), array) for name, array in vars(panel).items())


def test_panel_is_copied_without_its_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    checkpoint, file = tune.Checkpoint.from_directory(str(folder)), tmp_path / "panels" / "trial_0001.npz"
    missing, reason = copy_panel(checkpoint, file)
    assert missing is None and reason.startswith("FileNotFoundError") and not file.exists()
    (folder / PANEL_NAME).write_bytes(b"arrays")
    (folder / "checkpoint.pth").write_bytes(b"weights")
    assert copy_panel(checkpoint, file) == (file, "")
    assert file.read_bytes() == b"arrays" and list(file.parent.iterdir()) == [file]
