"""A trial cannot reach the sealed test: neither its images nor its paths are in what workers are given."""

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
    """Stands in for Ray: keeps whatever is put or given to a task."""

    def __init__(self) -> None:
        self.held: list[bytes] = []

    def put(self, value: Any) -> Any:
        self.held.append(cloudpickle.dumps(value))
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
    """A function that keeps what it is given, and what it gives."""

    def __init__(self, store: Store, function: Any) -> None:
        self._store, self._function = store, function

    def options(self, **_: Any) -> Any:
        return self

    def remote(self, *arguments: Any) -> Any:
        self._store.held.append(cloudpickle.dumps(arguments))
        results = self._function(*arguments)
        self._store.held.append(cloudpickle.dumps(results))
        return results


class Actor:
    """Takes every call, and forgets it."""

    def options(self, **_: Any) -> Any:
        return self

    def remote(self, *_: Any) -> Any:
        return self

    report = get = property(lambda self: self)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a part of noise images, and textures."""
    make_part(tmp_path, train=20)
    make_textures(tmp_path / "textures")
    return tmp_path


def left_the_driver(place: Path, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> tuple[StudyImages, list[bytes]]:
    """The images of a study, and everything that was put into the store, given to workers, or came back."""
    spec = part_spec(place, SPEC, **fields)
    images = load_images(spec)
    store = Store()
    monkeypatch.setattr(remote, "ray", store)
    monkeypatch.setattr(remote, "alive_nodes", store.nodes)
    network = load_backbone("resnet18", "random")
    shared, _ = remote.prepare_remotely(spec, network, images.trials, Resources(1, 0, 1), no_progress)
    return images, [*store.held, cloudpickle.dumps(shared)]


def sealed_seen(images: StudyImages, held: list[bytes]) -> list[bool]:
    """Of each sealed image, whether a row of its pixels left the driver. All are noise: it is nowhere else."""
    return [any(image[0, 16].tobytes() in one for one in held) for image in images.sealed_test.images]


@pytest.mark.parametrize("validation", ["labelled", "synthetic"])
def test_no_sealed_image_or_path_leaves_the_driver(
    validation: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, held = left_the_driver(place, monkeypatch, validation=validation)
    seen = images.trials
    assert any(seen.fit[0].tobytes() in one for one in held), "the search would find what is there"
    for labelled in (seen.validation, *seen.monitored.values()):
        assert any(labelled.images.tobytes() in one for one in held)
    assert set(seen.monitored) == ({"labelled"} if validation == "synthetic" else set())
    assert len(images.sealed_test.images) == 4 and not any(sealed_seen(images, held))
    for path in images.split.sealed_test:
        assert not any(str(path.path).encode() in one or path.key.encode() in one for one in held)


def test_synthetic_sealed_test_does_not_leave_the_driver(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its good images nor the defective copies, which share most of their pixels."""
    shutil.rmtree(place / "part/test")
    images, held = left_the_driver(place, monkeypatch, validation="synthetic")
    assert images.split.synthetic_parts == ("validation", "sealed_test") and len(images.sealed_test.images) == 8
    assert any(images.trials.validation.images.tobytes() in one for one in held)
    assert not any(sealed_seen(images, held))


def test_only_the_leakage_gap_monitors_the_sealed_test(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, held = left_the_driver(place, monkeypatch, leakage_gap=True)
    assert images.trials.monitored["sealed"] is images.sealed_test
    assert all(sealed_seen(images, held)), "watched, and by this option only"
    sealed = {image.tobytes() for image in images.sealed_test.images}
    chosen_by = (images.trials.validation.images, images.trials.fit, images.trials.calibration)
    assert not any(image.tobytes() in sealed for part in chosen_by for image in part)


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
    """Each head rejects above its own threshold; the champion's second one rejects nothing."""
    report = SealedReport.of({"baseline": BASELINE, "champion": CHAMPION}, EVALUATIONS, DEFECTS, objective)
    assert set(report.gains) == {"image_auroc", objective}
    assert report.gains[objective].mean == pytest.approx(gain)


# --- how often it was opened ---


def test_openings_of_a_sealed_test_are_counted(tmp_path: Path) -> None:
    plate, tubes = tmp_path / "plate", tmp_path / "tubes"
    first = {"folder": str(plate), "study": "one", "time": "", "pictures": ["a", "b"]}  # by a version without trials
    (tmp_path / "test_openings.jsonl").write_text(json.dumps(first) + "\n")
    assert count_opening(tmp_path, plate, ["c"], "two", 8) == 1
    assert count_opening(tmp_path, tubes, ["a", "b"], "three", 8) == 1, "of another category nothing was seen"
    assert count_opening(tmp_path, plate, ["a", "b"], "four", 8) == 2
    assert count_opening(tmp_path, plate, ["b", "c", "d"], "five", 8) == 4, "another split that shares images"
    assert count_opening(tmp_path, plate, ["d"], "six", 8) == 2
    assert count_opening(tmp_path, plate, ["d"], "six", 8) == 2, "a driver that goes on"
    assert count_opening(tmp_path, plate, ["d"], "six", 12) == 3, "with more trials it was opened again"
    lines = [json.loads(line) for line in (tmp_path / "test_openings.jsonl").read_text().splitlines()]
    assert [line["study"] for line in lines] == ["one", "two", "three", "four", "five", "six", "six"]
    assert count_opening(tmp_path, plate, ["a", "b"], "one", 8) == 4, "a line without the number of trials is read"
