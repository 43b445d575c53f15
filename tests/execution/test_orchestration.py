"""Consistency of Ray, Optuna and the records of a study, with an analytic fake trial on a local Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from ray import tune

from las_tune.config.study_spec import MAX_TRIALS, StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.config.trial_record import TrialRecord
from las_tune.execution.cluster import Resources, ray_cluster, resources_of
from las_tune.execution.observer import TuneResult
from las_tune.execution.trainable import SharedStudy
from las_tune.execution.tuner import load_trained, run_finalists, run_trials
from las_tune.selection.finalists import make_retrainings
from las_tune.space.parameters import Choice, Range
from las_tune.space.search_space import Space
from tests.execution.fake_trial import (
    DEFAULT,
    EPOCHS,
    TRIALS,
    Recorder,
    ceiling,
    fake_trial,
    make_spec,
    make_tune_input,
)


@dataclass
class FinishedSearch:
    """The result of one search with fake trials."""

    spec: StudySpec
    trials: list[TrialRecord]
    checkpoints: dict[int, tune.Checkpoint]
    recorder: Recorder
    resources: Resources


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with ray_cluster(None):
        yield


def run(spec: StudySpec, space: Space = DEFAULT, points: Sequence[dict[str, Any]] = ()) -> FinishedSearch:
    recorder, resources = Recorder(), resources_of(spec)
    (result,) = run_trials([make_tune_input(spec, recorder, space, points=points)], resources, fake_trial)
    return FinishedSearch(spec, result.records, result.checkpoints, recorder, resources)


def optuna_trials(spec: StudySpec) -> list[FrozenTrial]:
    storage = JournalStorage(JournalFileBackend(str(spec.folder / "optuna.journal")))
    return optuna.load_study(study_name=spec.study, storage=storage).trials


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> FinishedSearch:
    return run(make_spec(tmp_path_factory.mktemp("study")))


def test_every_trial_has_one_record_and_one_end_event(search: FinishedSearch) -> None:
    assert [trial.number for trial in search.trials] == list(range(TRIALS))
    for kind in ("started", "ended"):
        assert sorted(n for event, n in search.recorder.events if event == kind) == list(range(TRIALS))
    for trial in search.trials:
        assert [row["epoch"] for row in trial.epochs] == list(range(1, len(trial.epochs) + 1))


def test_status_matches_how_the_trial_ended(search: FinishedSearch) -> None:
    for trial in search.trials:
        if trial.params["beta_std"] > 0.25:
            assert (trial.status, trial.reason) == ("failed", "RuntimeError: the disk is full")
        elif trial.status == "completed":
            assert len(trial.epochs) == EPOCHS
        else:
            assert trial.status == "pruned" and len(trial.epochs) < EPOCHS
    assert {trial.status for trial in search.trials} == {"completed", "pruned", "failed"}


def test_optuna_states_match_the_records(search: FinishedSearch) -> None:
    names = {"completed": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
    states = {t.number: t.state.name for t in optuna_trials(search.spec)}
    expected = {t.number: names[t.status] for t in search.trials if t.params["alpha"] <= 0.45}
    assert {number: states[number] for number in expected} == expected
    assert "RUNNING" not in states.values()


def test_trials_with_nan_objective_fail_in_optuna(search: FinishedSearch) -> None:
    lost = [t for t in optuna_trials(search.spec) if t.params["alpha"] > 0.45]
    assert lost and all(t.state.name == "FAIL" for t in lost)


def test_baseline_completes_with_the_reference_configuration(search: FinishedSearch) -> None:
    baseline = search.trials[0]
    assert baseline.is_baseline and baseline.status == "completed"
    assert baseline.params["alpha"] == pytest.approx(1 / 3)


def test_checkpoint_is_from_the_best_epoch(search: FinishedSearch) -> None:
    for trial in search.trials:
        if trial.status != "failed" and trial.params["alpha"] <= 0.45:
            epoch = int(load_trained(search.checkpoints[trial.number]).head["epoch"])
            assert epoch == trial.best["epoch"]


def test_best_trial_has_the_highest_ceiling(search: FinishedSearch) -> None:
    champion = max((t for t in search.trials if t.epochs), key=lambda t: t.best["objective"])
    reached = [t for t in search.trials if t.status == "completed" and t.params["alpha"] <= 0.45]
    assert champion.params["alpha"] == max(reached, key=lambda t: ceiling(t.params["alpha"])).params["alpha"]


def test_every_trial_has_its_own_folder(search: FinishedSearch) -> None:
    assert search.resources.num_threads >= 1
    folders = [path for path in (search.spec.folder / "ray").iterdir() if path.name.startswith("trial_")]
    assert len(folders) == TRIALS


def test_same_seed_gives_the_same_search(search: FinishedSearch, tmp_path: Path) -> None:
    again = run(make_spec(tmp_path, trials=6))
    assert [t.params for t in again.trials] == [t.params for t in search.trials[:6]]


def test_failed_finalist_does_not_affect_the_others(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, max_concurrent=2)
    everyone = {"baseline": {"alpha": 1 / 3}, "trial 5": {"alpha": 0.25}, "trial 6": {"beta_std": 0.3}}
    jobs = make_retrainings(everyone, first_seed=1, num_seeds=2)
    (again,) = run_finalists([make_tune_input(spec, Recorder())], [jobs], resources_of(spec), fake_trial)
    assert [record.number for record in again.records] == list(range(MAX_TRIALS, MAX_TRIALS + 6))
    assert [(r.finalist, r.seed, r.status) for r in again.records] == [
        (name, seed, "failed" if name == "trial 6" else "completed")
        for seed in (1, 2)
        for name in ("baseline", "trial 5", "trial 6")
    ]
    assert all(len(record.epochs) == EPOCHS for record in again.records if record.status == "completed")
    assert set(again.checkpoints) == {MAX_TRIALS + index for index in (0, 1, 3, 4)}
    assert again.records[1].best_objective == pytest.approx(ceiling(0.25) * (1 - 0.5**EPOCHS))


def test_warm_start_points_follow_the_baseline(tmp_path: Path) -> None:
    points = [DEFAULT.baseline | {"alpha": alpha} for alpha in (0.125, 0.375)]
    trials = run(make_spec(tmp_path, trials=4), points=points).trials
    assert [trial.params for trial in trials[:3]] == [pytest.approx(p) for p in (DEFAULT.baseline, *points)]
    assert [trial.is_baseline for trial in trials] == [True, False, False, False]
    assert trials[3].params not in points


# --- two studies in one run ---

PEAKS = {"bolt": 0.1, "nut": 0.4}
"""The best α of two categories."""
NUMBERS = {"bolt": 9, "nut": 6}


@dataclass
class ParallelSearches:
    """The results of two studies of one run, by category."""

    specs: dict[str, StudySpec]
    results: dict[str, TuneResult]
    recorders: dict[str, Recorder]
    started: list[str]
    """Category of each trial, in the order of starts."""
    workers: dict[str, set[str]]
    """Ids of the processes that trained."""


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> ParallelSearches:
    folder = tmp_path_factory.mktemp("together")
    specs = {
        name: make_spec(folder, category=name, study=f"run-{name}", run="run", trials=NUMBERS[name]) for name in PEAKS
    }
    started: list[str] = []
    recorders = {name: Recorder(category=name, started=started) for name in PEAKS}

    def with_pid(config: dict[str, Any], shared: SharedStudy, checkpoint: Any) -> None:
        with (folder / f"workers of {shared.data}").open("a") as file:
            file.write(f"{os.getpid()}\n")
        fake_trial(config, shared, checkpoint)

    studies = [make_tune_input(spec, recorders[name], peak=PEAKS[name]) for name, spec in specs.items()]
    results = run_trials(studies, resources_of(specs["bolt"]), with_pid)
    workers = {name: set((folder / f"workers of {PEAKS[name]}").read_text().split()) for name in PEAKS}
    return ParallelSearches(specs, dict(zip(PEAKS, results, strict=True)), recorders, started, workers)


@pytest.mark.parametrize("name", PEAKS)
def test_two_studies_have_separate_trials(together: ParallelSearches, name: str) -> None:
    trials, numbers = together.results[name].records, list(range(NUMBERS[name]))
    assert [trial.number for trial in trials] == numbers
    assert trials[0].is_baseline and trials[0].status == "completed"
    for kind in ("started", "ended"):
        assert sorted(n for event, n in together.recorders[name].events if event == kind) == numbers
    for trial in trials:
        if trial.status == "completed" and trial.params["alpha"] <= 0.45:
            reached = ceiling(trial.params["alpha"], PEAKS[name]) * (1 - 0.5**EPOCHS)
            assert trial.best_objective == pytest.approx(reached), "the trial was trained on its own category"
            head = load_trained(together.results[name].checkpoints[trial.number]).head
            assert int(head["epoch"]) == EPOCHS


@pytest.mark.parametrize("name", PEAKS)
def test_two_studies_have_separate_optuna_studies(together: ParallelSearches, name: str) -> None:
    states = optuna_trials(together.specs[name])
    assert [trial.params for trial in states] == [trial.params for trial in together.results[name].records]
    for record, optuna_trial in zip(together.results[name].records, states, strict=True):
        if record.status == "completed" and record.params["alpha"] <= 0.45:
            assert (optuna_trial.state.name, optuna_trial.value) == ("COMPLETE", record.best_objective)


def test_two_studies_alternate_on_the_same_worker(together: ParallelSearches) -> None:
    assert together.started[:12] == ["bolt", "nut"] * 6
    assert together.started[12:] == ["bolt"] * 3, "a finished study leaves its slots to the other"
    failed = sum(trial.status == "failed" for result in together.results.values() for trial in result.records)
    assert together.workers["bolt"] & together.workers["nut"]
    assert len(together.workers["bolt"] | together.workers["nut"]) <= 1 + failed, "only an error ends a worker process"


def test_finalists_of_two_studies_share_one_experiment(tmp_path: Path) -> None:
    """A third study, whose trials all failed, has no finalists."""
    train, recorders = TrainSpec(epochs=2), [Recorder(), Recorder(), Recorder()]
    specs = [make_spec(tmp_path, study=name, run="run", train=train, max_concurrent=2) for name in (*PEAKS, "pin")]
    peaks = (*PEAKS.values(), 0.0)
    studies = [make_tune_input(s, r, peak=p) for s, r, p in zip(specs, recorders, peaks, strict=True)]
    jobs = [
        make_retrainings({"baseline": {"alpha": 1 / 3}, "best of nut": {"alpha": 0.5}}, first_seed=1, num_seeds=2),
        make_retrainings({"baseline": {"alpha": 1 / 3}, "best of bolt": {"alpha": 0.3}}, first_seed=1, num_seeds=1),
        [],
    ]
    results = run_finalists(studies, jobs, resources_of(specs[0]), fake_trial)
    assert [[(r.number - MAX_TRIALS, r.finalist, r.seed) for r in result.records] for result in results] == [
        [(0, "baseline", 1), (1, "best of nut", 1), (2, "baseline", 2), (3, "best of nut", 2)],
        [(0, "baseline", 1), (1, "best of bolt", 1)],
        [],
    ]
    for result, peak, recorder in zip(results, peaks, recorders, strict=True):
        numbers = [record.number for record in result.records]
        assert {number for _, number in recorder.events} == set(result.checkpoints) == set(numbers)
        for record in result.records:
            if record.params["alpha"] <= 0.45:
                reached = ceiling(record.params["alpha"], peak) * (1 - 0.5**train.epochs)
                assert record.best_objective == pytest.approx(reached)


# --- how a study ends ---


def test_time_budget_ends_the_search(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, trials=5000, time_budget_s=25.0, scheduler="none")
    trials = run(spec).trials
    assert 1 <= len(trials) < 5000
    assert all(trial.status != "running" for trial in trials) and any(trial.epochs for trial in trials)


@pytest.mark.parametrize("scheduler", ["hyperband", "median"])
def test_other_schedulers_never_stop_the_baseline(tmp_path: Path, scheduler: str) -> None:
    space = Space("good", {"alpha": Range(0.1, 0.4)}, sources=())  # no trial fails in this space
    trials = run(make_spec(tmp_path, trials=6, scheduler=scheduler, sampler="random"), space).trials
    assert [trial.number for trial in trials] == list(range(6))
    assert trials[0].status == "completed"
    for trial in trials:
        assert [row["epoch"] for row in trial.epochs] == list(range(1, len(trial.epochs) + 1)), "no trial was paused"


def test_patience_ends_the_search_after_running_trials_complete(tmp_path: Path) -> None:
    """No α near the baseline improves beyond noise: three trials follow it, and at most one runs in parallel."""
    space = Space("near", {"alpha": Range(0.32, 0.34)}, sources=())
    spec = make_spec(tmp_path, trials=50, patience=3, max_concurrent=2, scheduler="none", cpus_per_trial=0.5)
    trials = run(spec, space).trials
    assert len(trials) in (4, 5)
    assert all((trial.status, len(trial.epochs)) == ("completed", EPOCHS) for trial in trials)


def test_exhausted_grid_ends_the_search(tmp_path: Path) -> None:
    space = Space("grid", {"foreground": Choice(("otsu", "none"))}, sources=())
    trials = run(make_spec(tmp_path, trials=6, sampler="grid", max_concurrent=2, cpus_per_trial=0.5), space).trials
    assert [(trial.params["foreground"], trial.status) for trial in trials] == [
        ("otsu", "completed"), ("none", "completed"),
    ]  # fmt: skip
