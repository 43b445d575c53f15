"""Ray, Optuna and the records of a study agree: with an analytic fake trial, on a real local Ray."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from ray import tune

from las_tune.spec import StudySpec, TrainSpec
from las_tune.tracking.record import TrialRecord
from las_tune.tuning.cluster import Resources, ray_cluster, resources_of
from las_tune.tuning.finalists import make_jobs
from las_tune.tuning.knobs import Choice, Range
from las_tune.tuning.space import Space, load_space
from las_tune.tuning.trainable import SharedStudy
from las_tune.tuning.tuner import load_trained, run_finalists, run_trials
from tests.parts import make_trial
from tests.tuning.fake_trial import ceiling, fake_trial

EPOCHS = 9
TRIALS = 20
DEFAULT = load_space("default")


@dataclass
class Recorder:
    """A Listener that keeps what it heard."""

    events: list[tuple[str, int]] = field(default_factory=list)

    def trial_started(self, trial: TrialRecord) -> None:
        self.events.append(("started", trial.number))

    def epoch_ended(self, trial: TrialRecord) -> None:
        self.events.append(("epoch", trial.number))

    def trial_ended(self, trial: TrialRecord) -> None:
        self.events.append(("ended", trial.number))


@dataclass
class Ran:
    """What a study of fake trials left."""

    spec: StudySpec
    trials: list[TrialRecord]
    checkpoints: dict[int, tune.Checkpoint]
    recorder: Recorder
    resources: Resources


def make_spec(folder: Path, **changes: Any) -> StudySpec:
    settings: dict[str, Any] = {
        "category": "part", "study": "fake", "train": TrainSpec(epochs=EPOCHS), "trials": TRIALS,
        "data_root": folder, "textures": folder, "results": folder, "max_concurrent": 1,
    }  # fmt: skip
    return StudySpec(**(settings | changes))


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with ray_cluster(None):
        yield


def run(spec: StudySpec, space: Space = DEFAULT) -> Ran:
    spec.folder.mkdir()
    recorder = Recorder()
    resources = resources_of(spec)
    shared = SharedStudy(spec.train, None, None, resources.num_threads)  # type: ignore[arg-type]
    trials, checkpoints = run_trials(spec, space, shared, resources, [recorder], fake_trial)
    return Ran(spec, trials, checkpoints, recorder, resources)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run(make_spec(tmp_path_factory.mktemp("study")))


def test_every_trial_has_one_record_and_one_end(ran: Ran) -> None:
    assert [trial.number for trial in ran.trials] == list(range(TRIALS))
    for kind in ("started", "ended"):
        assert sorted(n for event, n in ran.recorder.events if event == kind) == list(range(TRIALS))
    for trial in ran.trials:
        assert [row["epoch"] for row in trial.epochs] == list(range(1, len(trial.epochs) + 1))


def test_statuses_are_what_happened(ran: Ran) -> None:
    for trial in ran.trials:
        if trial.params["beta_std"] > 0.25:
            assert (trial.status, trial.reason) == ("failed", "RuntimeError: the disk is full")
        elif trial.status == "completed":
            assert len(trial.epochs) == EPOCHS
        else:
            assert trial.status == "pruned" and len(trial.epochs) < EPOCHS
    assert {trial.status for trial in ran.trials} == {"completed", "pruned", "failed"}


def test_optuna_knows_the_same(ran: Ran) -> None:
    storage = JournalStorage(JournalFileBackend(str(ran.spec.folder / "optuna.journal")))
    study = optuna.load_study(study_name="fake", storage=storage)
    names = {"completed": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
    told = {t.number: t.state.name for t in study.trials}
    ours = {t.number: names[t.status] for t in ran.trials if t.params["alpha"] <= 0.45}
    assert {number: told[number] for number in ours} == ours
    assert "RUNNING" not in told.values()


def test_trials_without_a_number_are_failed_for_optuna(ran: Ran) -> None:
    storage = JournalStorage(JournalFileBackend(str(ran.spec.folder / "optuna.journal")))
    trials = optuna.load_study(study_name="fake", storage=storage).trials
    lost = [t for t in trials if t.params["alpha"] > 0.45]
    assert lost and all(t.state.name == "FAIL" for t in lost)


def test_the_baseline_runs_to_its_end_with_the_seeds_values(ran: Ran) -> None:
    baseline = ran.trials[0]
    assert baseline.is_baseline and baseline.status == "completed"
    assert baseline.params["alpha"] == pytest.approx(1 / 3)


def test_the_checkpoint_is_of_the_best_epoch(ran: Ran) -> None:
    for trial in ran.trials:
        if trial.status != "failed" and trial.params["alpha"] <= 0.45:
            epoch = int(load_trained(ran.checkpoints[trial.number]).head["epoch"])
            assert epoch == trial.best["epoch"]


def test_the_champion_is_the_best_of_all(ran: Ran) -> None:
    champion = max((t for t in ran.trials if t.epochs), key=lambda t: t.best["objective"])
    reached = [t for t in ran.trials if t.status == "completed" and t.params["alpha"] <= 0.45]
    assert champion.params["alpha"] == max(reached, key=lambda t: ceiling(t.params["alpha"])).params["alpha"]


def test_processes_are_reused(ran: Ran) -> None:
    assert ran.resources.num_threads >= 1
    folders = [path for path in (ran.spec.folder / "ray").iterdir() if path.name.startswith("trial_")]
    assert len(folders) == TRIALS


def test_same_seed_same_search(ran: Ran, tmp_path: Path) -> None:
    again = run(make_spec(tmp_path, trials=6))
    assert [t.params for t in again.trials] == [t.params for t in ran.trials[:6]]


def test_finalists_are_trials_of_the_ledger_and_one_that_fails_fails_alone(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, max_concurrent=2)
    spec.folder.mkdir()
    resources = resources_of(spec)
    shared = SharedStudy(spec.train, None, None, resources.num_threads)  # type: ignore[arg-type]
    good = make_trial(5, [0.5], status="completed")
    good.params = {"alpha": 0.25}
    bad = make_trial(6, [0.5], status="completed")
    bad.params = {"beta_std": 0.3}
    jobs = make_jobs([good, bad], {"alpha": 1 / 3}, None, first_seed=1, num_seeds=2)
    recorder = Recorder()
    records, checkpoints = run_finalists(spec, jobs, 20, shared, resources, [recorder], fake_trial)
    assert [record.number for record in records] == list(range(20, 26))
    assert [(r.finalist, r.seed, r.status) for r in records] == [
        (name, seed, "failed" if name == "trial 6" else "completed")
        for seed in (1, 2)
        for name in ("baseline", "trial 5", "trial 6")
    ]
    assert all(len(record.epochs) == EPOCHS for record in records if record.status == "completed")
    assert set(checkpoints) == {20, 21, 23, 24}
    assert records[1].best_objective == pytest.approx(ceiling(0.25) * (1 - 0.5**EPOCHS))


def test_a_time_budget_ends_the_study(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, trials=500, time_budget_s=20.0, scheduler="none")
    trials = run(spec).trials
    assert 1 <= len(trials) < 500
    assert all(trial.status != "running" for trial in trials)


@pytest.mark.parametrize("scheduler", ["hyperband", "median"])
def test_other_schedulers_keep_the_baseline_too(tmp_path: Path, scheduler: str) -> None:
    trials = run(make_spec(tmp_path, trials=6, scheduler=scheduler, sampler="random")).trials
    assert [trial.number for trial in trials] == list(range(6))
    assert trials[0].status == "completed"
    for trial in trials:
        assert [row["epoch"] for row in trial.epochs] == list(range(1, len(trial.epochs) + 1)), "none was paused"


def test_a_study_ends_with_its_patience_and_leaves_running_trials_to_their_ends(tmp_path: Path) -> None:
    """No α near the baseline's brings a gain beyond the noise: three trials after it, and one that ran beside them."""
    space = Space("near", {"alpha": Range(0.32, 0.34)}, sources=())
    spec = make_spec(tmp_path, trials=50, patience=3, max_concurrent=2, scheduler="none", cpus_per_trial=0.5)
    trials = run(spec, space).trials
    assert len(trials) in (4, 5)
    assert all((trial.status, len(trial.epochs)) == ("completed", EPOCHS) for trial in trials)


def test_a_study_ends_with_its_grid(tmp_path: Path) -> None:
    space = Space("grid", {"foreground": Choice(("otsu", "none"))}, sources=())
    trials = run(make_spec(tmp_path, trials=6, sampler="grid", max_concurrent=2, cpus_per_trial=0.5), space).trials
    assert [(trial.params["foreground"], trial.status) for trial in trials] == [
        ("otsu", "completed"), ("none", "completed"),
    ]  # fmt: skip
