"""A worker process runs several trials, and no trial affects the next one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from las_tune.config.progress import no_progress
from las_tune.config.study_spec import StudySpec
from las_tune.config.trial_record import METRICS
from las_tune.data.study_images import load_images
from las_tune.execution.cluster import ray_cluster, resources_of
from las_tune.execution.observer import TuneInput
from las_tune.execution.remote import prepare_remotely
from las_tune.execution.trainable import SharedStudy, run_trial
from las_tune.execution.tuner import run_trials
from las_tune.las.backbone import load_backbone
from las_tune.las.training import train
from las_tune.space.search_space import load_space
from tests.parts import TRAIN, make_part, make_textures

SAME = """
[alpha]
values = [0.3333333333333333]
baseline = 0.3333333333333333
reason = "all trials are the same one"
"""


def numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("epoch", *METRICS)}


def test_reused_worker_matches_a_fresh_process(tmp_path: Path) -> None:
    make_part(tmp_path)
    (tmp_path / "same.toml").write_text(SAME)
    spec = StudySpec(
        category="part", study="same", train=TRAIN, data_root=tmp_path, textures=make_textures(tmp_path / "textures"),
        results=tmp_path / "results", trials=4, scheduler="none", max_concurrent=1,
    )  # fmt: skip
    spec.folder.mkdir(parents=True)
    images = load_images(spec)
    backbone = load_backbone(TRAIN.backbone, "random")
    pids = tmp_path / "pids"

    def with_pid(config: dict[str, Any], shared: SharedStudy, checkpoint: Any) -> None:
        with pids.open("a") as file:
            file.write(f"{os.getpid()}\n")
        run_trial(config, shared, checkpoint)

    with ray_cluster(None):
        resources = resources_of(spec)
        shared, _ = prepare_remotely(spec, backbone, images.trials, resources, no_progress)
        study = TuneInput(spec, load_space(str(tmp_path / "same.toml")), shared, [])
        (result,) = run_trials([study], resources, with_pid)

        import ray

        threads = torch.get_num_threads()
        torch.set_num_threads(resources.num_threads)
        fresh = [r.row() for r in train(TRAIN, backbone, ray.get(shared.data).to_device(backbone))]
        torch.set_num_threads(threads)
    assert len(pids.read_text().split()) == 4 and len(set(pids.read_text().split())) == 1
    expected = [numbers(row) for row in fresh]
    for trial in result.records:
        assert [numbers(row) for row in trial.epochs] == [pytest.approx(row, rel=1e-12) for row in expected]
        assert trial.epochs[-1]["peak_memory_mb"] > 0
