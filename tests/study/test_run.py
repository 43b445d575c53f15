"""A complete study from the command line, on rendered parts: files, MLflow and output agree."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image

from las_tune.cli.app import main
from las_tune.config.study_spec import MAX_TRIALS
from las_tune.las.checkpoint import load_detector
from las_tune.reporting.summary import Summary, TrialSummary, read_summary
from tests.parts import run_command

TRIALS = 3
FINALISTS = 3 * 2
"""Retrainings: the baseline and two trials, with two seeds each."""
CATEGORY = "bracket_black"


@dataclass
class Finished:
    """A finished study."""

    folder: Path
    summary: Summary
    client: MlflowClient
    parent: Run
    children: list[Run]
    printed: str

    @classmethod
    def read(cls, folder: Path, printed: str) -> Finished:
        summary = read_summary(folder / "summary.json")
        client = MlflowClient(summary.tracking_uri)
        runs = client.search_runs([summary.experiment_id])
        parent = next(run for run in runs if run.info.run_id == summary.parent_run_id)
        children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
        return cls(folder, summary, client, parent, children, printed)


def run_in(folder: Path, arguments: str) -> str:
    """Run a command in a folder and return its output."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COLUMNS", "200")
        patch.setattr(sys, "argv", ["las_tune", *arguments.split()])
        with (folder / "printed.txt").open("w") as printed:
            patch.setattr(sys, "stdout", printed)
            with pytest.raises(SystemExit) as ended:
                main()
    assert ended.value.code == 0
    return (folder / "printed.txt").read_text()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("folder")
    printed = run_in(
        folder,
        f"--category {CATEGORY} --demo --trials {TRIALS} --epochs 2 --image-size 64 --study small --space default "
        "--finalists 2 --seeds 2",
    )
    return Finished.read(folder / "results/las/small", printed)


def child(finished: Finished, number: int) -> Run:
    return next(run for run in finished.children if run.data.tags["trial"] == str(number))


def test_one_parent_run_and_one_child_run_per_training(finished: Finished) -> None:
    numbers = sorted(int(run.data.tags["trial"]) for run in finished.children)
    assert numbers == [*range(TRIALS), *range(MAX_TRIALS, MAX_TRIALS + FINALISTS)]
    assert finished.parent.info.status == "FINISHED"
    assert all(run.info.status == "FINISHED" for run in finished.children)


def test_trial_0_is_the_baseline(finished: Finished) -> None:
    assert child(finished, 0).data.tags["baseline"] == "true"
    assert finished.summary.baseline.finalist == "baseline"
    assert finished.summary.baseline.params["adaptor_lr"] == pytest.approx(1e-4)
    assert float(child(finished, 0).data.params["discriminator_lr"]) == pytest.approx(2e-4)


@pytest.mark.parametrize("role", ["baseline", "champion"])
def test_summary_agrees_with_mlflow(finished: Finished, role: str) -> None:
    summary: TrialSummary = getattr(finished.summary, role)
    run = child(finished, summary.number)
    assert run.data.tags[role] == "true"
    assert run.data.params == {name: str(value) for name, value in summary.params.items()}
    assert summary.test is not None
    for name, value in summary.test.items():
        assert run.data.metrics[f"test/{name}"] == pytest.approx(value)
        mean = getattr(finished.summary.test_mean, role)[name]
        assert finished.parent.data.metrics[f"{role}/test_{name}"] == pytest.approx(mean)
    for name in ("objective", "image_auroc", "pixel_aupro"):
        assert run.data.metrics[f"best/{name}"] == pytest.approx(summary.validation[name])


def test_every_epoch_is_in_the_ledger(finished: Finished) -> None:
    for run in finished.children:
        history = finished.client.get_metric_history(run.info.run_id, "image_auroc")
        assert [point.step for point in history] == list(range(1, len(history) + 1))
    searched = [run for run in finished.children if "finalist_seed" not in run.data.tags]
    completed = [run for run in searched if run.data.tags["status"] == "completed"]
    assert len(completed) == finished.summary.trials.completed >= 1


def test_finalists_are_retrained_with_the_same_new_seeds(finished: Finished) -> None:
    seeds_of: dict[str, list[str]] = {}
    for run in finished.children:
        if "finalist_seed" in run.data.tags:
            seeds_of.setdefault(run.data.tags["finalist"], []).append(run.data.tags["finalist_seed"])
            original = run.data.tags["finalist"].removeprefix("trial ").replace("baseline", "0")
            assert run.data.params == child(finished, int(original)).data.params
    assert len(seeds_of) == 3 and {tuple(sorted(seeds)) for seeds in seeds_of.values()} == {("1", "2")}


def test_promotion_is_recorded_everywhere(finished: Finished) -> None:
    promotion = finished.summary.promotion
    assert finished.summary.champion.finalist == (promotion.best if promotion.promoted else "baseline")
    assert finished.parent.data.tags["promotion"] == promotion.reason
    version = finished.client.get_model_version_by_alias(f"las-{CATEGORY}", "champion")
    assert version.tags["promotion"] == promotion.reason in finished.printed.replace("\n", " ")
    assert json.loads(version.tags["hyperparameters"]) == finished.summary.champion.params


def test_memory_bank_and_openings_are_recorded(finished: Finished) -> None:
    assert finished.parent.data.metrics["memory_bank/test_image_auroc"] == pytest.approx(
        finished.summary.test_mean.memory_bank["image_auroc"]
    )
    assert 0 < finished.summary.validation_mean.memory_bank <= 1
    reference, means = finished.summary.reference, finished.summary.test_mean
    for objective, metrics in (
        (reference.memory_bank, means.memory_bank),
        (reference.champion, means.champion),
    ):
        assert objective == pytest.approx((metrics["image_auroc"] + metrics["pixel_aupro"]) / 2)
    assert ("outperforms the champion on the sealed test" in finished.printed) is reference.memory_bank_wins
    assert finished.summary.test_openings == 1 == finished.parent.data.metrics["test_openings"]
    assert "memory bank" in finished.printed and "has been opened once" in finished.printed


def test_cost_counts_every_epoch(finished: Finished) -> None:
    seconds = sum(
        point.value
        for run in finished.children
        for point in finished.client.get_metric_history(run.info.run_id, "seconds")
    )
    cost, metrics = finished.summary.cost, finished.parent.data.metrics
    assert cost.trial_seconds == pytest.approx(seconds, abs=0.1)
    assert cost.lost_seconds == cost.lost_device_seconds == 0
    cpus = cost.device_seconds / cost.trial_seconds
    spent = sum(run.data.metrics["cost/cpu_seconds"] for run in finished.children)
    assert cpus == pytest.approx(round(cpus), rel=0.01) and spent == pytest.approx(cost.device_seconds, abs=0.1 * cpus)
    promotion, per_point = finished.summary.promotion, cost.device_seconds_per_point
    points = 100 * promotion.gain.mean
    assert per_point == (pytest.approx(spent / points, abs=0.1) if promotion.promoted else None)
    logged = {name: value for name, value in metrics.items() if name.startswith("cost/")}
    assert logged == {f"cost/{name}": value for name, value in cost.to_json().items() if value is not None}
    assert f"{cost.device_seconds:.0f} CPU seconds" in finished.printed


def test_outputs_and_records_are_complete(finished: Finished) -> None:
    names = {path.name for path in finished.folder.iterdir() if path.is_file()}
    artifacts = {file.path for file in finished.client.list_artifacts(finished.parent.info.run_id)}
    log = next(name for name in names if name.startswith(f"training_log_{CATEGORY}_LAS_"))
    for name in (
        f"training_curves_{CATEGORY}.png", f"roc_curve_{CATEGORY}.png", f"best_model_{CATEGORY}.pth", log,
        "summary.json", "splits.json",
    ):  # fmt: skip
        assert name in names
        assert name in artifacts
    assert "default.toml" in artifacts
    assert not [name for name in names if name.endswith(".part")]


def test_splits_are_disjoint(finished: Finished) -> None:
    splits = json.loads((finished.folder / "splits.json").read_text())
    parts = [splits[part] for part in ("fit", "calibration", "validation", "sealed_test")]
    keys = [key for part in parts for key in part]
    assert len(keys) == len(set(keys)) == 48 + 20 + 10 + 14
    assert finished.summary.splits.to_json() == {
        name: len(splits[name]) for name in ("fit", "calibration", "validation", "sealed_test")
    }


def test_champion_loads_from_its_alias_with_the_scores_of_the_study(finished: Finished) -> None:
    mlflow.set_tracking_uri(finished.summary.tracking_uri)
    model = mlflow.pyfunc.load_model(finished.summary.model_uri)
    splits = json.loads((finished.folder / "splits.json").read_text())
    part = finished.folder.parents[2] / "data/demo/anomaly_dataset" / CATEGORY
    paths = [part / key for key in splits["sealed_test"]]
    table = model.predict(np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths]))
    assert table["score"].between(0, 1).all()
    defective = np.array(["/good/" not in key for key in splits["sealed_test"]])
    recall = table["is_defective"][defective].mean()
    assert recall == pytest.approx((finished.summary.champion.test or {})["recall"])
    version = finished.client.get_model_version_by_alias(f"las-{CATEGORY}", "champion")
    assert version.tags["study"] == "small"


def test_detector_file_loads_without_mlflow(finished: Finished) -> None:
    _, spec, about = load_detector(finished.folder / f"best_model_{CATEGORY}.pth")
    assert about["category"] == CATEGORY
    assert spec.alpha == pytest.approx(finished.summary.champion.params["alpha"])
    assert about["test"] == finished.summary.champion.test


def test_demo_results_are_marked(finished: Finished) -> None:
    assert finished.summary.demo is True
    assert "demo results" in finished.printed
    assert all(run.data.tags["demo"] == "true" for run in [finished.parent, *finished.children])


def test_output_ends_with_the_command_that_opens_mlflow(finished: Finished) -> None:
    assert f"mlflow ui --backend-store-uri {finished.summary.tracking_uri}" in finished.printed
    assert finished.summary.parent_run_id in finished.printed


@pytest.mark.slow
def test_second_study_competes_and_a_demo_does_not_replace_a_real_champion(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"las-{CATEGORY}"
    version = finished.client.get_model_version_by_alias(name, "champion").version
    finished.client.set_model_version_tag(name, version, "hyperparameters", '{"alpha": 0.125}')
    monkeypatch.chdir(finished.folder.parents[2])
    common = (
        f"--category {CATEGORY} --demo --trials 2 --epochs 1 --image-size 64 --space default --finalists 1 --seeds 2"
    )
    first = run_command(monkeypatch, capsys, [*common.split(), "--study", "second"])
    assert first.code == 0
    summary = read_summary(finished.folder.parent / "second" / "summary.json")
    assert summary.test_openings == 2 and summary.promotion.gain_over_registered is not None
    assert "current, seed 1" in first.out
    version = finished.client.get_model_version_by_alias(name, "champion").version
    finished.client.set_model_version_tag(name, version, "demo", "false")
    second = run_command(monkeypatch, capsys, [*common.split(), "--study", "third"])
    assert second.code == 0 and "current, seed 1" not in second.out
    assert finished.client.get_model_version_by_alias(name, "champion").version == version
