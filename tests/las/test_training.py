"""Results of a training: metrics, reproducibility, resuming, the best epoch, and errors."""

from __future__ import annotations

import copy
import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from las_tune.las import training as module
from las_tune.las.backbone import Backbone
from las_tune.las.head import Head
from las_tune.las.scoring import score_features
from las_tune.las.training import TrainData, TrainingDivergedError, pick_device, train
from tests.las.conftest import SPEC, numbers, run, stored, tiny_data, with_maps


def assert_same_state(first: Any, second: Any) -> None:
    """Assert that two nested states are equal to the last bit."""
    assert type(first) is type(second) or isinstance(first, dict)
    if isinstance(first, Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same_state(first[key], second[key])
    elif isinstance(first, list | tuple):
        for a, b in zip(first, second, strict=True):
            assert_same_state(a, b)
    else:
        assert first == second


def test_training_learns(resnet: Backbone) -> None:
    """Both losses fall, and good and defective validation images are separated."""
    spec = SPEC.replace(epochs=15, adaptor_lr=3e-3, discriminator_lr=6e-3)
    results = run(spec, resnet, tiny_data(resnet))
    for loss in ("loss", "loss_normal", "loss_las"):
        first, last = (sum(r[loss] for r in part) for part in (results[:3], results[-3:]))
        assert last < 0.7 * first
    assert results[-1]["image_auroc"] == 1.0 and results[-1]["image_ap"] == 1.0
    assert results[-1]["pixel_auroc"] > 0.85 and results[-1]["pixel_aupro"] > 0.5


def test_numbers_depend_on_the_seed(backbone: Backbone, data: TrainData) -> None:
    first, again = run(SPEC, backbone, data), run(SPEC, backbone, data)
    assert first == again
    other = run(SPEC.replace(seed=1), backbone, data)
    assert [r["loss"] for r in other] != [r["loss"] for r in first]


def test_global_generator_has_no_effect(backbone: Backbone, data: TrainData) -> None:
    first = run(SPEC, backbone, data)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert run(SPEC, backbone, data) == first


@pytest.mark.parametrize("after", [1, 3])
@pytest.mark.parametrize("how", ["copy", "file"])
def test_resume_is_exact(after: int, how: str, backbone: Backbone, data: TrainData) -> None:
    spec = SPEC.replace(epochs=5, adaptor_lr=1e-3, weight_decay=1e-2)
    whole, state, last = [], {}, {}
    for result in train(spec, backbone, data):
        whole.append(result)
        last = result.state
        if result.epoch == after:
            state = copy.deepcopy(result.state) if how == "copy" else through_file(result.state)
    resumed = list(train(spec, backbone, data, resume=state))
    assert [r.epoch for r in resumed] == list(range(after + 1, 6))
    assert numbers(resumed) == numbers(whole)[after:]
    assert_same_state(resumed[-1].state, last)


def through_file(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded


def test_finished_training_yields_nothing(backbone: Backbone, data: TrainData) -> None:
    state = [copy.deepcopy(r.state) for r in train(SPEC, backbone, data)][-1]
    assert list(train(SPEC, backbone, data, resume=state)) == []
    longer = list(train(SPEC.replace(epochs=4), backbone, data, resume=state))
    assert numbers(longer) == run(SPEC.replace(epochs=4), backbone, data)[-1:]


def test_best_objective_never_decreases(backbone: Backbone, data: TrainData, monkeypatch: pytest.MonkeyPatch) -> None:
    objectives = iter([0.3, 0.7, 0.7, 0.2, 0.9, 0.8])
    monkeypatch.setattr(module, "objective_value", lambda objective, metrics: next(objectives))
    results = list(train(SPEC.replace(epochs=6), backbone, data))
    assert [r.objective for r in results] == [0.3, 0.7, 0.7, 0.2, 0.9, 0.8]
    assert [r.best_objective for r in results] == [0.3, 0.7, 0.7, 0.7, 0.9, 0.9]
    assert [r.best_epoch for r in results] == [1, 2, 2, 2, 5, 5]
    assert [r.is_best for r in results] == [True, True, False, False, True, False]
    assert [r.epoch for r in results] == [1, 2, 3, 4, 5, 6]


def test_ties_are_broken_by_the_next_metric(
    backbone: Backbone, data: TrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = iter([{"image_auroc": 0.5, "recall": recall} for recall in (0.25, 0.75, 0.75, 0.5)])
    monkeypatch.setattr(module, "metrics_of", lambda *_: next(rows))
    results = list(train(SPEC.replace(epochs=4, objective="image_auroc"), backbone, data))
    assert [r.best_epoch for r in results] == [1, 2, 2, 2]


def test_tie_breaks_survive_a_resume(backbone: Backbone, data: TrainData, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = iter([{"image_auroc": 0.5, "recall": recall} for recall in (0.25, 0.75, 0.5, 0.8)])
    monkeypatch.setattr(module, "metrics_of", lambda *_: next(rows))
    spec = SPEC.replace(epochs=4, objective="image_auroc")
    state = [through_file(r.state) for r in train(spec.replace(epochs=2), backbone, data)][-1]
    resumed = list(train(spec, backbone, data, resume=state))
    assert [(r.best_epoch, r.is_best) for r in resumed] == [(2, False), (4, True)]


def test_monitored_images_are_scored_without_effect_on_training(backbone: Backbone, data: TrainData) -> None:
    other = dataclasses.replace(data.validation, defects=data.validation.defects.flip(0))
    with_monitored = dataclasses.replace(data, monitored={"labelled": other, "sealed": data.validation})
    spec = SPEC.replace(epochs=4, adaptor_lr=1e-3)
    monitored, alone = (list(train(spec, backbone, variant)) for variant in (with_monitored, data))
    for row, usual in zip(numbers(monitored), numbers(alone), strict=True):
        assert {name: value for name, value in row.items() if "/" not in name} == usual
        assert row["labelled/image_auroc"] == pytest.approx(1 - usual["image_auroc"])
        expected = (row["labelled/image_auroc"] + row["labelled/pixel_aupro"]) / 2
        assert row["labelled/objective"] == pytest.approx(expected)
        sealed = {name.removeprefix("sealed/"): value for name, value in row.items() if name.startswith("sealed/")}
        assert sealed == {name: usual[name] for name in (*monitored[0].metrics, "objective") if "/" not in name}
    assert_same_state(monitored[-1].state, alone[-1].state)


def test_monitored_images_never_select_the_best_epoch(
    backbone: Backbone, data: TrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monitored score rises while the validation score falls; each epoch scores the validation images first."""
    rows = iter([{"image_auroc": value} for pair in ((0.9, 0.1), (0.8, 0.5), (0.7, 1.0)) for value in pair])
    monkeypatch.setattr(module, "metrics_of", lambda *_: next(rows))
    with_monitored = dataclasses.replace(data, monitored={"whole": data.validation})
    results = list(train(SPEC.replace(objective="image_auroc"), backbone, with_monitored))
    assert [r.best_epoch for r in results] == [1, 1, 1]
    assert [r.metrics["whole/objective"] for r in results] == [0.1, 0.5, 1.0]


def test_threshold_comes_from_calibration_images_only(backbone: Backbone, data: TrainData) -> None:
    """If the calibration images are the defective validation images, no score exceeds the threshold."""
    spec = SPEC.replace(objective="recall_at_fpr")
    changed = dataclasses.replace(data, calibration=stored(backbone, data.validation.features.images[3:]))
    for row, usual in zip(run(spec, backbone, changed), run(spec, backbone, data), strict=True):
        assert row["recall"] == row["objective"] == 0
        at_threshold = {"recall", "f1", "false_reject_rate", "objective", "best_objective", "best_epoch"}
        assert {name: row[name] for name in row.keys() - at_threshold} == {
            name: usual[name] for name in usual.keys() - at_threshold
        }


def test_recall_matches_hand_calculation(backbone: Backbone, data: TrainData) -> None:
    """Recall is the fraction of defective images that score above all calibration images, in each epoch."""
    recalls = []
    for result in train(SPEC.replace(epochs=6, adaptor_lr=3e-3, discriminator_lr=6e-3), backbone, data):
        head = Head(backbone.channels, SPEC.hidden_width, torch.Generator())
        head.load_state_dict(result.state["head"])
        scores, normal = (
            score_features(head, features, SPEC.image_size).amax((1, 2))
            for features in (data.validation.features, data.calibration)
        )
        assert result.metrics["recall"] == pytest.approx(float((scores[3:] > normal.max()).float().mean()))
        assert result.metrics["false_reject_rate"] == pytest.approx(float((scores[:3] > normal.max()).float().mean()))
        recalls.append(result.metrics["recall"])
    assert len(set(recalls)) > 1, "otherwise any threshold would pass"


def test_row_contains_the_available_metrics(backbone: Backbone, data: TrainData) -> None:
    result = next(train(SPEC, backbone, data))
    row = result.row()
    assert "state" not in row and row["epoch"] == 1 and row["pixel_aupro"] == result.metrics["pixel_aupro"]
    without = dataclasses.replace(data, validation=dataclasses.replace(data.validation, targets=None))
    spec = SPEC.replace(objective="image_auroc")
    assert set(row) - set(next(train(spec, backbone, without)).row()) == {"pixel_auroc", "pixel_aupro"}


@pytest.mark.parametrize("name", ["cpu", "meta"])
def test_pick_device_returns_the_named_device(name: str) -> None:
    assert pick_device(name) == torch.device(name)


@pytest.mark.parametrize("available", [True, False])
def test_pick_device_auto_prefers_the_gpu(available: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert pick_device("auto").type == ("cuda" if available else "cpu")


@pytest.mark.parametrize("batch_size", [2, 6])
@pytest.mark.parametrize("rate", ["adaptor_lr", "discriminator_lr"])
def test_divergence_raises(rate: str, batch_size: int, backbone: Backbone, data: TrainData) -> None:
    """With three steps per epoch the loss diverges; with one step only the weights do, after the last loss."""
    with pytest.raises(TrainingDivergedError):
        list(train(SPEC.replace(**{rate: 1e30}, batch_size=batch_size), backbone, data))


def test_non_finite_features_raise(backbone: Backbone, data: TrainData) -> None:
    broken = with_maps(data, torch.clone)
    assert broken.features.maps is not None
    broken.features.maps[0][3, 0, 0, 0] = float("nan")
    with pytest.raises(TrainingDivergedError, match="epoch 1"):
        list(train(SPEC, backbone, broken))


def test_without_masks_there_are_no_pixel_metrics(backbone: Backbone, data: TrainData) -> None:
    without = dataclasses.replace(data, validation=dataclasses.replace(data.validation, targets=None))
    spec = SPEC.replace(objective="image_auroc")
    for result, with_masks in zip(run(spec, backbone, without), run(spec, backbone, data), strict=True):
        assert not {"pixel_auroc", "pixel_aupro"} & set(result)
        assert {"pixel_auroc", "pixel_aupro"} < set(with_masks)
        assert result["objective"] == result["image_auroc"] == with_masks["image_auroc"]


def test_training_writes_nothing(
    backbone: Backbone,
    data: TrainData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run(SPEC, backbone, data)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
