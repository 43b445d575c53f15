"""The images of a trial: the same in every trial, and those that it gets most wrong."""

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
from las_tune.reporting.panel import FALSE_REJECT, FIXED, MISS, PANEL_NAME, Panel
from las_tune.reporting.panel_arrays import NUM_PAINTED, fixed_images, make_panel, paint, worst_images
from tests.las.conftest import SIZE, SPEC, tiny_backbone, tiny_data


@pytest.fixture(scope="module")
def data() -> TrainData:
    return tiny_data(tiny_backbone())


@pytest.fixture(scope="module")
def result(data: TrainData) -> EpochResult:
    return next(train(SPEC, tiny_backbone(), data))


def test_each_kind_is_shown_in_turn_and_none_twice() -> None:
    defects = np.array([0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 1, 1, 1])
    assert fixed_images(defects, 3).tolist() == [0, 9, 11]
    assert fixed_images(defects, 5).tolist() == [0, 1, 9, 11, 12]
    assert fixed_images(np.array([0, 1])).tolist() == [0, 1]


def test_the_worst_are_on_the_wrong_side_of_the_threshold() -> None:
    scores = np.array([0.9, 0.1, 0.6, 0.2, 0.8, 0.4, 0.5])
    defects = np.array([0, 0, 0, 1, 1, 2, 1])
    missed, rejected = worst_images(scores, defects, threshold=0.5)
    assert missed.tolist() == [3, 5, 6] and rejected.tolist() == [0, 2]
    missed, rejected = worst_images(scores, defects, threshold=0.5, most=1)
    assert missed.tolist() == [3] and rejected.tolist() == [0]


def test_a_panel_holds_what_the_detector_says(data: TrainData, result: EpochResult) -> None:
    # a threshold at which good images are rejected and defective ones pass
    scores = image_scores(result.heat).numpy()
    result = dataclasses.replace(result, threshold=float(np.median(scores)))
    panel = make_panel(result, data, paint(SPEC, data), ("good", "square"))
    assert np.array_equal(panel.scores, scores) and panel.scores.shape == (6,)
    for place, image in enumerate(panel.index):
        assert np.array_equal(panel.images[place], data.validation.features.images[image].numpy())
        assert np.abs(panel.heat[place] / 255 - result.heat[image].numpy()).max() <= 0.5 / 255 + 1e-6
        is_defective = data.validation.defects[image] > 0
        assert panel.masks[place].sum() == (16 * 20 if is_defective else 0)
        assert not is_defective or panel.masks[place][20:36, 24:44].all()
        if panel.why[place] == MISS:
            assert is_defective and scores[image] <= panel.threshold
        if panel.why[place] == FALSE_REJECT:
            assert not is_defective and scores[image] > panel.threshold
    assert (panel.why == FIXED).sum() == 6 and (panel.why != FIXED).any()


def test_without_masks_there_are_none(result: EpochResult) -> None:
    data = tiny_data(tiny_backbone(), masks=False)
    assert make_panel(result, data, paint(SPEC, data), ("good", "square")).masks.shape == (0, SIZE, SIZE)


def test_painted_images_differ_by_hyperparameters_alone(data: TrainData) -> None:
    one, again, other = paint(SPEC, data), paint(SPEC, data), paint(SPEC.replace(beta_mean=0.1, beta_std=0.0), data)
    assert torch.equal(one.images, again.images) and len(one.images) == NUM_PAINTED
    assert torch.equal(one.masks, other.masks), "the same places, painted more strongly"
    assert (other.beta == 0.2).all() and not torch.equal(one.images, other.images)
    assert torch.equal(*(torch.where(p.masks, 0.0, p.images) for p in (one, other))), "nothing is painted elsewhere"


def test_a_panel_is_read_as_it_was_written(data: TrainData, result: EpochResult, tmp_path: Path) -> None:
    panel = make_panel(result, data, paint(SPEC, data), ("good", "square"))
    panel.save(tmp_path / "panel.npz")
    loaded = Panel.load(tmp_path / "panel.npz")
    for field in dataclasses.fields(Panel):
        assert np.array_equal(getattr(loaded, field.name), getattr(panel, field.name)), field.name


def test_a_panel_alone_leaves_its_checkpoint_and_why_there_is_none_is_told(tmp_path: Path) -> None:
    place = tmp_path / "checkpoint"
    place.mkdir()
    checkpoint, file = tune.Checkpoint.from_directory(str(place)), tmp_path / "panels" / "trial_0001.npz"
    missing, why = copy_panel(checkpoint, file)
    assert missing is None and why.startswith("FileNotFoundError") and not file.exists()
    (place / PANEL_NAME).write_bytes(b"arrays")
    (place / "checkpoint.pth").write_bytes(b"weights")
    assert copy_panel(checkpoint, file) == (file, "")
    assert file.read_bytes() == b"arrays" and list(file.parent.iterdir()) == [file]
