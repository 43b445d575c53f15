"""Checkpoints in a bucket (--storage s3://...), with moto's S3 server and a local Ray cluster."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import torch
from moto.server import ThreadedMotoServer
from ray import tune

from las_tune.config.progress import no_progress
from las_tune.config.study_spec import StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.data.study_images import load_images
from las_tune.execution.checkpoint_storage import ROWS_NAME
from las_tune.execution.cluster import ray_cluster, resources_of
from las_tune.execution.observer import TuneInput, TuneResult
from las_tune.execution.remote import prepare_remotely
from las_tune.execution.trainable import EpochReporter, SharedStudy
from las_tune.execution.tuner import load_trained, run_trials
from las_tune.las.backbone import load_backbone
from las_tune.las.checkpoint import CHECKPOINT_NAME
from las_tune.las.head import Head
from las_tune.reporting.panel import PANEL_NAME
from las_tune.space.search_space import load_space
from tests.execution.fake_trial import fake_study
from tests.parts import TRAIN, make_part, make_textures

BUCKET = "las"
BEST_EPOCH, LAST_EPOCH = 2, 5
TRIALS = 3


@dataclass(frozen=True)
class Bucket:
    """A bucket on moto's S3 server."""

    address: str
    client: Any

    def files(self) -> dict[str, int]:
        """Return the size in bytes by key, without folders."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        listed = [each for page in pages for each in page.get("Contents", [])]
        return {each["Key"]: each["Size"] for each in listed if not each["Key"].endswith("/")}

    def load(self, key: str) -> dict[str, Any]:
        body = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return dict(torch.load(io.BytesIO(body), weights_only=True))


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    """An empty bucket. Its address is in the environment of this process and of Ray's processes."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (settings | {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}).items():
            patch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        yield Bucket(settings["AWS_ENDPOINT_URL"], client)
    server.stop()


@pytest.fixture(scope="module", autouse=True)
def cluster(bucket: Bucket) -> Iterator[None]:
    with ray_cluster(None):
        yield


def make_spec(folder: Path, storage: str, **changes: Any) -> StudySpec:
    settings: dict[str, Any] = {
        "category": "part", "study": "stored", "train": TrainSpec(epochs=LAST_EPOCH, seed=1), "trials": TRIALS,
        "data_root": folder, "textures": folder, "results": folder / "results", "max_concurrent": 1,
        "storage": storage, "scheduler": "none",
    }  # fmt: skip
    spec = StudySpec(**(settings | changes))
    spec.folder.mkdir(parents=True)
    return spec


def peaked_trial(config: dict[str, Any], shared: SharedStudy, checkpoint: tune.Checkpoint | None) -> None:
    """Report an objective that is highest at BEST_EPOCH."""
    reporter = EpochReporter(shared.train.replace(**config), checkpoint)
    for epoch in range(1, LAST_EPOCH + 1):
        objective = 0.9 - 0.1 * abs(epoch - BEST_EPOCH)
        best = 0.9 if epoch >= BEST_EPOCH else objective
        row = dict.fromkeys(("loss", "loss_normal", "loss_las", "image_auroc", "image_ap", "seconds"), 0.5)
        row |= {"epoch": epoch, "objective": objective, "best_objective": best}
        reporter.report(row, epoch <= BEST_EPOCH, {"head": {"epoch": torch.tensor(epoch)}, "epoch": epoch})


def run_peaked(spec: StudySpec) -> TuneResult:
    study = TuneInput(spec, load_space("default"), fake_study(spec.train, 1), [])
    (result,) = run_trials([study], resources_of(spec), peaked_trial)
    return result


def checkpoints(bucket: Bucket, prefix: str) -> dict[str, list[int]]:
    """Return the epochs of the stored checkpoints by trial folder."""
    found: dict[str, list[int]] = {}
    for key in bucket.files():
        if key.startswith(prefix) and key.endswith(f"/{CHECKPOINT_NAME}"):
            trial = key.removeprefix(prefix).split("/")[-3]
            found.setdefault(trial, []).append(bucket.load(key)["state"]["epoch"])
    return found


def test_bucket_keeps_best_and_latest_checkpoint_of_each_trial(bucket: Bucket, tmp_path: Path) -> None:
    result = run_peaked(make_spec(tmp_path, f"s3://{BUCKET}/kept"))
    assert [record.status for record in result.records] == ["completed"] * TRIALS
    found = checkpoints(bucket, "kept/")
    assert len(found) == TRIALS and all(sorted(epochs) == [BEST_EPOCH, LAST_EPOCH] for epochs in found.values())
    for record in result.records:
        assert int(load_trained(result.checkpoints[record.number]).head["epoch"]) == BEST_EPOCH
    assert not list((tmp_path / "results").rglob(CHECKPOINT_NAME)), "checkpoints are in the bucket only"


@pytest.mark.slow
def test_storage_uri_may_name_the_server(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MinIO and other self-hosted servers need an endpoint in the URI."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")  # unset in the driver only: Ray's workers have inherited it
    server = bucket.address.removeprefix("http://")
    spec = make_spec(tmp_path, f"s3://{BUCKET}/named?endpoint_override={server}&scheme=http", trials=1)
    result = run_peaked(spec)
    (epochs,) = checkpoints(bucket, "named/").values()
    assert sorted(epochs) == [BEST_EPOCH, LAST_EPOCH]
    assert int(load_trained(result.checkpoints[0]).head["epoch"]) == BEST_EPOCH


@pytest.mark.slow
def test_checkpoint_excludes_the_frozen_network(bucket: Bucket, tmp_path: Path) -> None:
    """A real training stores adaptor, discriminator, optimizer states and a few numbers."""
    make_part(tmp_path)
    textures = make_textures(tmp_path / "textures")
    spec = make_spec(tmp_path, f"s3://{BUCKET}/real", train=TRAIN, trials=2, textures=textures)
    backbone = load_backbone(TRAIN.backbone, "random")
    resources = resources_of(spec)
    shared, _ = prepare_remotely(spec, backbone, load_images(spec).trials, resources, no_progress)
    (result,) = run_trials([TuneInput(spec, load_space("default"), shared, [])], resources)
    assert [record.status for record in result.records] == ["completed"] * 2

    sizes = {key: size for key, size in bucket.files().items() if key.startswith("real/") and "/checkpoint_" in key}
    assert {key.rpartition("/")[2] for key in sizes} <= {CHECKPOINT_NAME, ROWS_NAME, PANEL_NAME, ".metadata.json"}
    files = [key for key in sizes if key.endswith(CHECKPOINT_NAME)]
    assert len(files) >= 2
    for key in files:
        content = bucket.load(key)
        state, trained = content["state"], TrainSpec(**content["spec"])
        head = Head(backbone.channels, trained.hidden_width, torch.Generator(), trained.use_adaptor)
        assert set(content) == {"format", "kind", "spec", "state"}
        assert set(state) == {"head", "optimizers", "generator", "epoch", "best_ranking", "best_epoch"}
        assert set(state["head"]) == set(head.state_dict())
        head_bytes = sum(value.nbytes for value in head.state_dict().values())
        assert sizes[key] < 3 * head_bytes + 64 * 1024, "Adam keeps two numbers for each weight"
        assert sizes[key] < sum(value.nbytes for value in backbone.state_dict().values()) / 4
    for record in result.records:
        assert load_trained(result.checkpoints[record.number]).head.keys() == state["head"].keys()
