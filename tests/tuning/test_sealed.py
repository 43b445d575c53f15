"""A trial cannot reach the sealed test: neither its pictures nor its paths are in what workers are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import cloudpickle

from las_tune.las.backbone import load_backbone
from las_tune.spec import StudySpec, TrainSpec
from las_tune.tuning import remote
from las_tune.tuning.cluster import Resources
from las_tune.tuning.evaluate import Evaluation
from las_tune.tuning.finalists import Finalist
from las_tune.tuning.prepare import load_pictures
from las_tune.tuning.sealed import SealedReport
from tests.parts import make_part, make_textures, make_trial

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
        return [{"Alive": True, "Resources": {"object_store_memory": 1e9}}]

    def remote(self, function: Any) -> Any:
        store = self

        class Task:
            def options(self, **_: Any) -> Any:
                return self

            def remote(self, *arguments: Any) -> Any:
                store.held.append(cloudpickle.dumps(arguments))
                results = function(*arguments)
                store.held.append(cloudpickle.dumps(results))
                return results

        return Task()


def test_no_sealed_picture_and_no_path_of_one_leaves_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_part(tmp_path)
    textures = make_textures(tmp_path / "textures")
    pictures = load_pictures(tmp_path, "part", textures, SPEC)
    spec = StudySpec(
        category="part", study="s", train=SPEC, data_root=tmp_path, textures=textures, results=tmp_path / "results"
    )
    store = Store()
    monkeypatch.setattr(remote, "ray", store)
    shared, _ = remote.prepare_remotely(spec, load_backbone("resnet18", "random"), pictures, Resources(1, 0, 1))
    held = [*store.held, cloudpickle.dumps(shared)]
    assert any(pictures.fit[0].tobytes() in one for one in held), "the search would find what is there"
    assert any(pictures.validation.pictures.tobytes() in one for one in held)
    for picture, path in zip(pictures.sealed_test.pictures, pictures.split.sealed_test, strict=True):
        row = picture[0, 16].tobytes()  # of a noise picture: nowhere else
        assert not any(row in one for one in held)
        assert not any(str(path.path).encode() in one or path.key.encode() in one for one in held)


def evaluation(scores: list[float], auroc: float) -> Evaluation:
    return Evaluation({"image_auroc": auroc, "recall": 1.0}, np.array(scores), None, 0.5)


def test_the_report_has_means_gains_and_the_memory_bank() -> None:
    labels = np.array([False, False, True, True])
    records = [make_trial(n, [v], status="completed") for n, v in ((7, 0.5), (8, 0.75))]
    baseline, champion = Finalist("baseline", records, [None, None]), Finalist("trial 1", records, [None, None])  # type: ignore[list-item]
    evaluations = {
        "baseline/0": evaluation([0, 1, 0, 1], 0.5), "baseline/1": evaluation([0, 1, 1, 0], 0.5),
        "champion/0": evaluation([0, 0, 1, 1], 1.0), "champion/1": evaluation([0, 1, 1, 1], 0.75),
        "memory_bank": evaluation([0, 0, 1, 1], 1.0),
    }  # fmt: skip
    report = SealedReport.of({"baseline": baseline, "champion": champion}, evaluations, labels)
    assert report.means["champion"] == {"image_auroc": 0.875, "recall": 1.0}
    assert report.means["memory_bank"]["image_auroc"] == 1.0
    assert report.gains["image_auroc"].mean == pytest.approx(0.375)
    assert set(report.gains) == {"image_auroc"}
    assert report.shipped["champion"] is evaluations["champion/1"]
    assert report.metrics()["baseline/test_image_auroc"] == 0.5
    assert report.bank_against_champion("image_auroc") == {
        "memory_bank": 1.0, "champion": 0.875, "memory_bank_wins": True
    }  # fmt: skip
    same = SealedReport.of({"baseline": baseline, "champion": baseline}, evaluations, labels)
    assert same.gains == {}
