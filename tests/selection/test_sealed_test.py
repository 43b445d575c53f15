"""A trial cannot reach the sealed test: neither its images nor its paths are sent to workers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import cloudpickle

from las_tune.config.objectives import Objective
from las_tune.config.progress import no_progress
from las_tune.config.train_spec import TrainSpec
from las_tune.data.study_images import StudyImages, load_images
from las_tune.execution import remote
from las_tune.execution.cluster import Resources
from las_tune.las.backbone import load_backbone
from las_tune.selection.evaluation import Evaluation
from las_tune.selection.finalists import Finalist
from las_tune.selection.openings import count_opening
from las_tune.selection.sealed_test import SealedReport
from tests.parts import make_part, make_textures, make_trial, part_spec

SPEC = TrainSpec(image_size=32, backbone="resnet18", backbone_weights="random", objective="combined")


class Store:
    """A replacement for Ray that records whatever is put or passed to a task."""

    def __init__(self) -> None:
        self.records: list[bytes] = []

    def put(self, value: Any) -> Any:
        self.records.append(cloudpickle.dumps(value))
        return value

    def get(self, value: Any) -> Any:
        return value

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Resources": {"object_store_memory": 1e9}}]

    def wait(self, references: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return references, []

    def remote(self, function: Any = None, **_: Any) -> Any:
        if function is None:
            return self.remote
        return Actor() if isinstance(function, type) else Task(self, function)


class Task:
    """A remote function that records its arguments and results."""

    def __init__(self, store: Store, function: Any) -> None:
        self._store, self._function = store, function

    def options(self, **_: Any) -> Any:
        return self

    def remote(self, *arguments: Any) -> Any:
        self._store.records.append(cloudpickle.dumps(arguments))
        results = self._function(*arguments)
        self._store.records.append(cloudpickle.dumps(results))
        return results


class Actor:
    """An actor that accepts and ignores every call."""

    def options(self, **_: Any) -> Any:
        return self

    def remote(self, *_: Any) -> Any:
        return self

    report = get = property(lambda self: self)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a part of noise images, and textures."""
    make_part(tmp_path, train=20)
    make_textures(tmp_path / "textures")
    return tmp_path


def data_sent(folder: Path, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> tuple[StudyImages, list[bytes]]:
    """Return the images of a study, and everything that was put into the store, passed to workers, or returned."""
    spec = part_spec(folder, SPEC, **fields)
    images = load_images(spec)
    store = Store()
    monkeypatch.setattr(remote, "ray", store)
    monkeypatch.setattr(remote, "alive_nodes", store.nodes)
    network = load_backbone("resnet18", "random")
    shared, _ = remote.prepare_remotely(spec, network, images.trials, Resources(1, 0, 1), no_progress)
    return images, [*store.records, cloudpickle.dumps(shared)]


def sealed_sent(images: StudyImages, sent: list[bytes]) -> list[bool]:
    """Return for each sealed image whether a row of its pixels left the driver; the rows are noise, hence unique."""
    return [any(image[0, 16].tobytes() in record for record in sent) for image in images.sealed_test.images]


@pytest.mark.parametrize("validation", ["labelled", "synthetic"])
def test_no_sealed_image_or_path_leaves_the_driver(
    validation: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, sent = data_sent(folder, monkeypatch, validation=validation)
    trials = images.trials
    assert any(trials.fit[0].tobytes() in record for record in sent), "the check finds images that were sent"
    for labeled in (trials.validation, *trials.monitored.values()):
        assert any(labeled.images.tobytes() in record for record in sent)
    assert set(trials.monitored) == ({"labelled"} if validation == "synthetic" else set())
    assert len(images.sealed_test.images) == 4 and not any(sealed_sent(images, sent))
    for image in images.split.sealed_test:
        assert not any(str(image.path).encode() in record or image.key.encode() in record for record in sent)


def test_synthetic_sealed_test_does_not_leave_the_driver(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the good images nor their defective copies, which share most of the pixels, are sent."""
    shutil.rmtree(folder / "part/test")
    images, sent = data_sent(folder, monkeypatch, validation="synthetic")
    assert images.split.synthetic_parts == ("validation", "sealed_test") and len(images.sealed_test.images) == 8
    assert any(images.trials.validation.images.tobytes() in record for record in sent)
    assert not any(sealed_sent(images, sent))


def test_only_the_leakage_gap_monitors_the_sealed_test(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, sent = data_sent(folder, monkeypatch, leakage_gap=True)
    assert images.trials.monitored["sealed"] is images.sealed_test
    assert all(sealed_sent(images, sent)), "monitored by this option only"
    sealed = {image.tobytes() for image in images.sealed_test.images}
    used_by_trials = (images.trials.validation.images, images.trials.fit, images.trials.calibration)
    assert not any(image.tobytes() in sealed for part in used_by_trials for image in part)


def evaluation(scores: list[float], auroc: float, threshold: float = 0.5) -> Evaluation:
    return Evaluation({"image_auroc": auroc, "recall": 1.0}, np.array(scores), None, threshold)


DEFECTS = np.array([0, 0, 1, 2])
RECORDS = [make_trial(n, [v], status="completed") for n, v in ((7, 0.5), (8, 0.75))]
BASELINE, CHAMPION = Finalist("baseline", RECORDS, [None, None]), Finalist("trial 1", RECORDS, [None, None])  # type: ignore[list-item]
EVALUATIONS = {
    "baseline/0": evaluation([0, 1, 0, 1], 0.5), "baseline/1": evaluation([0, 1, 1, 0], 0.5),
    "trial 1/0": evaluation([0, 0, 1, 1], 1.0), "trial 1/1": evaluation([0, 1, 1, 1], 0.75, threshold=1.5),
    "memory_bank": evaluation([0, 0, 1, 1], 1.0),
}  # fmt: skip


def test_report_has_means_gains_and_the_memory_bank() -> None:
    roles = {"baseline": BASELINE, "champion": CHAMPION}
    report = SealedReport.of(roles, EVALUATIONS, DEFECTS, "image_auroc")
    assert report.means["champion"] == {"image_auroc": 0.875, "recall": 1.0}
    assert report.means["memory_bank"]["image_auroc"] == 1.0
    assert report.gains["image_auroc"].mean == pytest.approx(0.375)
    assert set(report.gains) == {"image_auroc"}
    assert report.delivered["champion"] is EVALUATIONS["trial 1/1"]
    assert report.metrics()["baseline/test_image_auroc"] == 0.5
    assert report.bank_against_champion("image_auroc") == {
        "memory_bank": 1.0, "champion": 0.875, "memory_bank_wins": True
    }  # fmt: skip
    same = SealedReport.of({"baseline": BASELINE, "champion": BASELINE}, EVALUATIONS, DEFECTS, "image_auroc")
    assert same.gains == {}


@pytest.mark.parametrize(
    ("objective", "gain"),
    [("recall_at_fpr", (1.0 + 0.0) / 2 - (0.5 + 0.5) / 2), ("worst_defect", (1 + 0.75) / 2 - (0.25 + 0.25) / 2)],
)
def test_objective_of_the_study_has_a_gain(objective: Objective, gain: float) -> None:
    """Each head has its own threshold; the second head of the champion rejects nothing."""
    report = SealedReport.of({"baseline": BASELINE, "champion": CHAMPION}, EVALUATIONS, DEFECTS, objective)
    assert set(report.gains) == {"image_auroc", objective}
    assert report.gains[objective].mean == pytest.approx(gain)


# --- number of openings ---


def test_openings_of_a_sealed_test_are_counted(tmp_path: Path) -> None:
    plate, tubes = tmp_path / "plate", tmp_path / "tubes"
    first = {"folder": str(plate), "study": "one", "time": "", "pictures": ["a", "b"]}  # by a version without trials
    (tmp_path / "test_openings.jsonl").write_text(json.dumps(first) + "\n")
    assert count_opening(tmp_path, plate, ["c"], "two", 8) == 1
    assert count_opening(tmp_path, tubes, ["a", "b"], "three", 8) == 1, "another category has its own count"
    assert count_opening(tmp_path, plate, ["a", "b"], "four", 8) == 2
    assert count_opening(tmp_path, plate, ["b", "c", "d"], "five", 8) == 4, "another split that shares images"
    assert count_opening(tmp_path, plate, ["d"], "six", 8) == 2
    assert count_opening(tmp_path, plate, ["d"], "six", 8) == 2, "a resumed driver"
    assert count_opening(tmp_path, plate, ["d"], "six", 12) == 3, "an extended study opens it again"
    lines = [json.loads(line) for line in (tmp_path / "test_openings.jsonl").read_text().splitlines()]
    assert [line["study"] for line in lines] == ["one", "two", "three", "four", "five", "six", "six"]
    assert count_opening(tmp_path, plate, ["a", "b"], "one", 8) == 4, "a line without the number of trials is read"
