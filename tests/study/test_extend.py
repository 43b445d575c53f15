"""A study that is extended gives the numbers of one that had all trials from the start."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from las_tune.config.study_spec import MAX_TRIALS, StudySpec
from las_tune.execution.cluster import ray_cluster, resources_of
from las_tune.execution.history import History
from las_tune.execution.observer import TuneResult
from las_tune.execution.tuner import run_finalists, run_trials
from las_tune.reporting.summary import read_summary
from las_tune.selection.finalists import make_retrainings
from tests.execution.fake_trial import Recorder, fake_trial, make_spec, make_tune_input
from tests.parts import SMALL, empty_store, make_part, make_textures

pytestmark = pytest.mark.timeout(400)


def run(spec: StudySpec, finalists: dict[str, dict[str, float]]) -> tuple[TuneResult, TuneResult, Recorder]:
    recorder = Recorder()
    study = make_tune_input(spec, recorder)
    (search,) = run_trials([study], resources_of(spec), fake_trial)
    known = [record for record in History(spec.folder).records.values() if record.finalist]
    jobs = make_retrainings(finalists, first_seed=1, num_seeds=2, known=known)
    (retraining,) = run_finalists([study], [jobs], resources_of(spec), fake_trial)
    return search, retraining, recorder


def test_four_trials_extended_by_two_equal_six(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "extended").mkdir()
    baseline, first, second = {"alpha": 1 / 3}, {"alpha": 0.25}, {"alpha": 0.125}
    spec = make_spec(tmp_path / "extended", trials=4)
    with ray_cluster(None):
        whole, _, _ = run(make_spec(tmp_path / "whole", trials=6), {})
        run(spec, {"baseline": baseline, "trial 1": first})
        History(spec.folder).extend()
        extended, retraining, recorder = run(
            replace(spec, trials=6, extend=2), {"baseline": baseline, "trial 5": second}
        )
    assert [(r.number, r.params, r.status) for r in extended.records] == [
        (r.number, r.params, r.status) for r in whole.records
    ]
    objectives = [[[row["objective"] for row in r.epochs] for r in result.records] for result in (extended, whole)]
    assert str(objectives[0]) == str(objectives[1]), "compared as text, because NaN differs from itself"
    numbers = [(r.number - MAX_TRIALS, r.finalist, r.seed) for r in retraining.records]
    assert numbers == [(0, "baseline", 1), (2, "baseline", 2), (4, "trial 5", 1), (5, "trial 5", 2)]
    assert set(retraining.checkpoints) == {record.number for record in retraining.records}
    started = [number for event, number in recorder.events if event == "started"]
    assert len(set(started)) == len(started), "listeners receive every event once"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished study of three trials that was extended by two."""
    path = tmp_path_factory.mktemp("extend")
    make_part(path / "d", train=8)
    make_textures(path / "t")
    (path / "r").mkdir()
    (path / "r/mlflow.db").write_bytes(empty_store())
    flags = f"--category part --data-root d --textures t --space default --trials 3 --finalists 1 --seeds 2 {SMALL}"
    las_tune(path, f"{flags} --study s --results r --scheduler none")
    las_tune(path, "--extend 2 --study s --results r")
    yield path


def las_tune(folder: Path, flags: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "las_tune", *flags.split()], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_earlier_summary_is_kept(folder: Path) -> None:
    before = read_summary(folder / "r/s/summary_3_trials.json")
    after = read_summary(folder / "r/s/summary.json")
    assert (before.trials.total, after.trials.total) == (3, 5)
    assert (before.test_openings, after.test_openings) == (1, 2), "the sealed test was opened again"
    assert json.loads((folder / "r/s/study.json").read_text())["asked"]["trials"] == 5


@pytest.mark.slow
def test_mlflow_has_one_study_with_all_trials_and_the_latest_metrics(folder: Path) -> None:
    client = MlflowClient(f"sqlite:///{folder}/r/mlflow.db")
    experiment = client.get_experiment_by_name("las_tune")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    (parent,) = [run for run in runs if run.data.tags["kind"] == "study"]
    assert (parent.info.status, parent.data.tags["extended"]) == ("FINISHED", "to 5 trials")
    assert parent.data.metrics["test_openings"] == 2
    numbers = sorted(int(run.data.tags["trial"]) for run in runs if run.data.tags["kind"] == "trial")
    assert numbers[:5] == [0, 1, 2, 3, 4] and len(set(numbers)) == len(numbers)
    assert all(run.info.status == "FINISHED" for run in runs)


@pytest.mark.slow
def test_extended_study_is_consistent_and_not_resumed(folder: Path) -> None:
    assert "5 trials" in las_tune(folder, "doctor --results r")
    command = [sys.executable, "-m", "las_tune", "--resume", "--study", "s", "--results", "r"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: Study s in "), done.stderr
