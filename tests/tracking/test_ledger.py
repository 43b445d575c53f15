"""The ledger: what MLflow's client returns after a study."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from las_tune.config import paths
from las_tune.config.trial_record import METRICS, TrialRecord
from las_tune.errors import UserError
from las_tune.tracking import registry
from las_tune.tracking.journal import STUDY_RUN
from las_tune.tracking.ledger import Ledger
from las_tune.tracking.registry import RegisteredChampion
from tests.parts import empty_store, make_trial

TAGS = {"category": "part", "seed": "0"}
Open = Callable[..., Ledger]


def fill(ledger: Ledger, trial: TrialRecord, *, end: bool = True) -> TrialRecord:
    """Record a trial as a study does, epoch by epoch."""
    rows, trial.epochs, trial.seconds = trial.epochs, [], 0.0
    status, trial.status = trial.status, "running"
    ledger.trial_started(trial)
    for row in rows:
        trial.add_epoch(row)
        ledger.epoch_ended(trial)
    if end:
        trial.status = status
        ledger.trial_ended(trial)
    return trial


def with_other_part(trial: TrialRecord) -> TrialRecord:
    """Add the metrics of an additional set of images to every epoch."""
    for row in trial.epochs:
        row |= {"whole/objective": 1 - row["objective"], "whole/recall": row["recall"]}
    return trial


@dataclass
class Filled:
    """A store with two studies."""

    client: MlflowClient
    ledger: Ledger
    second: Ledger
    trials: list[TrialRecord]

    def runs(self, ledger: Ledger) -> list[Run]:
        """Return the child runs of a study."""
        query = f"tags.`mlflow.parentRunId` = '{ledger.parent_run_id}'"
        return list(self.client.search_runs([ledger.experiment_id], query))

    def run(self, number: int) -> Run:
        """Return the run of a trial of the first study."""
        (run,) = [run for run in self.runs(self.ledger) if run.data.tags["trial"] == str(number)]
        return run

    def history(self, number: int, metric: str) -> list[tuple[int, float]]:
        """Return (step, value) of a metric of a trial."""
        return [(m.step, m.value) for m in self.client.get_metric_history(self.run(number).info.run_id, metric)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder with an MLflow database; the tracking URI is reset afterwards."""
    folder = tmp_path_factory.mktemp("store")
    (folder / "mlflow.db").write_bytes(empty_store())
    yield folder
    mlflow.set_tracking_uri("")


@pytest.fixture(scope="module")
def filled(store: Path) -> Filled:
    """A study with a trial of each status, and a second one with the baseline alone."""
    uri = f"sqlite:///{store / 'mlflow.db'}"
    ledger = Ledger(uri, "las_tune", store / "mlartifacts", TAGS)
    ledger.start_study(store, "first", {"trials": 5, "sampler": "tpe"}, ("gpu_seconds", 0.5))
    trials = [
        fill(ledger, make_trial(0, [0.5, 0.75, 0.75], status="completed")),
        fill(ledger, make_trial(1, [0.25], status="pruned", reason="stopped after epoch 1", masks=False)),
        fill(ledger, make_trial(2, [0.5], status="failed", reason="x" * 9000, repeated_seconds=2.0)),
        fill(ledger, make_trial(3, [], status="failed", reason="lost its GPU")),
        fill(ledger, make_trial(4, [0.5]), end=False),
    ]
    (store / "summary.json").write_text("{}")
    ledger.log_artifacts(STUDY_RUN, [store / "summary.json"])
    ledger.end_study("FINISHED")
    second = Ledger(uri, "las_tune", store / "unused", TAGS)
    (store / "second").mkdir()
    second.start_study(store / "second", "second", {"trials": 1}, ("cpu_seconds", 4.0))
    fill(second, with_other_part(make_trial(0, [0.5, 0.75, 0.25], status="completed")))
    second.end_study("KILLED")
    assert ledger.flush(60) and second.flush(60)
    return Filled(MlflowClient(uri), ledger, second, trials)


def test_a_study_has_one_parent_and_one_child_per_trial(filled: Filled) -> None:
    parent = filled.client.get_run(filled.ledger.parent_run_id)
    assert (parent.info.run_name, parent.info.status) == ("first", "FINISHED")
    assert parent.data.params == {"trials": "5", "sampler": "tpe"}
    assert parent.data.tags.items() >= {**TAGS, "kind": "study"}.items()
    assert "mlflow.parentRunId" not in parent.data.tags
    children = filled.runs(filled.ledger)
    assert sorted(run.data.tags["trial"] for run in children) == ["0", "1", "2", "3", "4"]
    assert all(run.data.tags.items() >= {**TAGS, "kind": "trial"}.items() for run in children)


def test_hyperparameters_are_logged_as_params(filled: Filled) -> None:
    for trial in filled.trials:
        assert filled.run(trial.number).data.params == {name: str(value) for name, value in trial.params.items()}


def test_the_baseline_is_marked(filled: Filled) -> None:
    assert filled.run(0).info.run_name == "trial 0 (baseline)"
    assert [filled.run(number).data.tags["baseline"] for number in range(5)] == ["true", *["false"] * 4]
    assert filled.run(1).info.run_name == "trial 1"


def test_the_step_of_a_metric_is_the_epoch(filled: Filled) -> None:
    rows = filled.trials[0].epochs
    for name in (*METRICS, "seconds"):
        assert filled.history(0, name) == [(1, rows[0][name]), (2, rows[1][name]), (3, rows[2][name])]
    assert "epoch" not in filled.run(0).data.metrics


def test_metrics_of_the_best_epoch_have_a_prefix(filled: Filled) -> None:
    """The runs table shows the last value of a metric. Of equal epochs, the first is the best."""
    metrics = filled.run(0).data.metrics
    best = {name.removeprefix("best/"): value for name, value in metrics.items() if name.startswith("best/")}
    row = filled.trials[0].epochs[1]
    assert best == {"epoch": 2, **{name: row[name] for name in METRICS}}
    assert metrics["loss"] == filled.trials[0].epochs[2]["loss"] != best["loss"]
    assert metrics["total_seconds"] == 4.5


def test_metrics_of_other_parts_have_a_prefix_and_no_best(filled: Filled) -> None:
    (run,) = filled.runs(filled.second)
    history = filled.client.get_metric_history(run.info.run_id, "whole/objective")
    assert [(m.step, m.value) for m in history] == [(1, 0.5), (2, 0.25), (3, 0.75)]
    assert run.data.metrics["best/epoch"] == 2 and not [name for name in run.data.metrics if "best/whole" in name]


def test_the_cost_of_a_trial_includes_its_lost_seconds(filled: Filled) -> None:
    """Half a GPU per trial; trial 2 failed after 1.5 s and 2 s of repeats. In the second study, 4 CPUs."""
    cost = {"total_seconds": 3.5, "cost/gpu_seconds": 1.75, "cost/lost_gpu_seconds": 1.75}
    assert filled.run(2).data.metrics.items() >= cost.items()
    cost = {"total_seconds": 4.5, "cost/gpu_seconds": 2.25, "cost/lost_gpu_seconds": 0.0}
    assert filled.run(0).data.metrics.items() >= cost.items()
    (run,) = filled.runs(filled.second)
    assert run.data.metrics.items() >= {"cost/cpu_seconds": 18.0, "cost/lost_cpu_seconds": 0.0}.items()


def test_pixel_metrics_are_omitted_without_masks(filled: Filled) -> None:
    metrics = filled.run(1).data.metrics
    assert {"image_auroc", "best/image_auroc"} <= metrics.keys()
    assert not [name for name in metrics if "pixel" in name]


def test_statuses_of_runs_match_their_trials(filled: Filled) -> None:
    statuses = [(run.info.status, run.data.tags["status"]) for run in map(filled.run, range(5))]
    assert statuses == [
        ("FINISHED", "completed"),
        ("FINISHED", "pruned"),
        ("FAILED", "failed"),
        ("FAILED", "failed"),
        ("KILLED", "failed"),
    ]
    reasons = [filled.run(number).data.tags.get("reason") for number in range(5)]
    assert reasons == [None, "stopped after epoch 1", "x" * 8000, "lost its GPU", "the study ended first"]


def test_a_trial_that_failed_in_its_first_epoch_has_no_best(filled: Filled) -> None:
    zero_cost = {"total_seconds": 0, "cost/gpu_seconds": 0, "cost/lost_gpu_seconds": 0}
    assert filled.run(3).data.metrics == zero_cost
    assert filled.run(2).data.metrics["best/objective"] == 0.5


def test_all_runs_are_ended(filled: Filled) -> None:
    runs = filled.client.search_runs([filled.ledger.experiment_id])
    assert len(runs) == 1 + 5 + 1 + 1
    assert not [run for run in runs if run.info.status == "RUNNING"]
    assert all(run.info.end_time for run in runs)


def test_a_second_study_is_separate(filled: Filled) -> None:
    assert filled.second.experiment_id == filled.ledger.experiment_id
    assert filled.second.parent_run_id != filled.ledger.parent_run_id
    (child,) = filled.runs(filled.second)
    assert child.info.run_id != filled.run(0).info.run_id
    parent = filled.client.get_run(filled.second.parent_run_id)
    assert (parent.info.run_name, parent.info.status) == ("second", "KILLED")
    assert len(filled.client.search_experiments(filter_string="name = 'las_tune'")) == 1


def test_artifacts_are_stored_in_an_absolute_folder(
    filled: Filled, store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    location = filled.client.get_experiment(filled.ledger.experiment_id).artifact_location
    assert Path(location.removeprefix("file://")) == store / "mlartifacts"
    assert len(list((store / "mlartifacts").rglob("summary.json"))) == 1
    monkeypatch.chdir(tmp_path)
    (tmp_path / "late.txt").write_text("late")
    filled.ledger.log_artifacts(STUDY_RUN, [Path("late.txt")])
    assert filled.ledger.flush(60)
    names = [file.path for file in filled.client.list_artifacts(filled.ledger.parent_run_id)]
    assert names == ["late.txt", "summary.json"]
    assert len(list((store / "mlartifacts").rglob("late.txt"))) == 1


def test_final_metrics_and_tags_are_logged(filled: Filled) -> None:
    filled.ledger.log_metrics("1", {"test/image_auroc": 0.875})
    filled.ledger.tag("1", {"champion": "true"})
    assert filled.ledger.flush(60)
    run = filled.run(1)
    assert (run.data.metrics["test/image_auroc"], run.data.tags["champion"]) == (0.875, "true")


@pytest.fixture
def register(filled: Filled, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Return a function that registers a dummy model and returns its URI."""

    def log_model(tracking_uri: str, run_id: str, *_: object) -> str:
        logged = filled.client.create_logged_model(filled.ledger.experiment_id, "detector", source_run_id=run_id)
        return str(filled.client.finalize_logged_model(logged.model_id, "READY").model_id)

    monkeypatch.setattr(registry, "log_model", log_model)

    def register(run: str, category: str, tags: dict[str, str], promote: bool = True, version: bool = True) -> str:
        images = np.zeros((2, 8, 8, 3), np.uint8)
        filled.ledger.registered_champion(f"las-{category}")
        filled.ledger.register_champion(run, tmp_path, images, category, tags, version=version, promote=promote)
        assert filled.ledger.flush(60) and not filled.ledger.num_refused
        return filled.ledger.model_uri

    return register


def test_promotion_moves_the_alias_and_keeps_the_old_version(filled: Filled, register: Callable[..., str]) -> None:
    for number in (0, 1):
        assert register(str(number), "part", {"trial": str(number)}) == "models:/las-part@champion"
        version = filled.client.get_model_version_by_alias("las-part", "champion")
        assert (version.run_id, version.tags) == (filled.run(number).info.run_id, {"trial": str(number)})
        assert int(version.version) == number + 1
    old = filled.client.get_model_version("las-part", "1")
    assert (old.tags, old.aliases) == ({"trial": "0"}, [])


def test_a_model_that_is_not_promoted_does_not_get_the_alias(filled: Filled, register: Callable[..., str]) -> None:
    assert filled.ledger.registered_champion("las-other").tags == {}
    tags = {"hyperparameters": '{"alpha": 0.25}'}
    for run, (promote, uri) in enumerate(
        [(False, "models:/las-other/1"), (True, "models:/las-other@champion"), (False, "models:/las-other/3")]
    ):
        assert register(str(run), "other", tags, promote) == uri
        assert filled.ledger.registered_champion("las-other").tags == ({} if uri.endswith("1") else tags)
    assert filled.ledger.registered_champion("las-other").version == "2"


def test_an_alias_that_another_study_moved_in_the_meantime_stays(
    filled: Filled, register: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert register("0", "contested", {"trial": "0"}) == "models:/las-contested@champion"
    monkeypatch.setattr(filled.ledger, "registered_champion", lambda name: None)
    filled.ledger._registered.clear()  # no champion was registered when this study decided
    assert register("1", "contested", {"trial": "1"}) == "models:/las-contested/2"
    assert "promoted in the meantime" in filled.client.get_model_version("las-contested", "2").tags["alias"]
    assert int(filled.client.get_model_version_by_alias("las-contested", "champion").version) == 1


def test_a_confirmed_champion_gets_no_new_version(filled: Filled, register: Callable[..., str]) -> None:
    assert register("2", "confirmed", {}, version=False) == "models:/las-confirmed@champion"
    assert not filled.client.search_registered_models("name = 'las-confirmed'")


@pytest.mark.parametrize(
    ("name", "tags", "demo", "expected"),
    [
        ("real", {"hyperparameters": '{"alpha": 0.25, "gone": 1}', "demo": "false"}, False, {"alpha": 0.25}),
        ("real-for-demo", {"hyperparameters": '{"alpha": 0.25}', "demo": "false"}, True, None),
        ("demo", {"hyperparameters": '{"alpha": 0.25}', "demo": "true"}, False, None),
        ("demo-for-demo", {"hyperparameters": '{"alpha": 0.25}', "demo": "true"}, True, {"alpha": 0.25}),
        ("baseline", {"hyperparameters": '{"batch_size": 8}', "demo": "false"}, False, None),
        ("untagged", {"demo": "false"}, False, None),
    ],
)
def test_only_comparable_champions_have_hyperparameters(
    name: str, tags: dict[str, str], demo: bool, expected: dict[str, float] | None
) -> None:
    assert RegisteredChampion().hyperparameters(demo) is None
    assert RegisteredChampion("1", tags).hyperparameters(demo) == expected


def test_a_finalist_is_named_and_tagged_with_its_seed(filled: Filled) -> None:
    trial = make_trial(9, [0.5], finalist="trial 3", seed=2)
    filled.ledger.trial_started(trial)
    assert filled.ledger.flush(60)
    run = filled.run(9)
    assert run.info.run_name == "trial 3, seed 2"
    assert (run.data.tags["finalist"], run.data.tags["finalist_seed"], run.data.tags["baseline"]) == (
        "trial 3",
        "2",
        "false",
    )


def test_a_deleted_experiment_is_one_line(filled: Filled, store: Path) -> None:
    """MLflow reserves the name of a deleted experiment, and accepts no runs in it."""
    uri = f"sqlite:///{store / 'mlflow.db'}"
    filled.client.delete_experiment(Ledger(uri, "gone", store / "mlartifacts", TAGS).experiment_id)
    with pytest.raises(UserError) as error:
        Ledger(uri, "gone", store / "mlartifacts", TAGS)
    assert "--experiment" in str(error.value) and "gone" in str(error.value) and "\n" not in str(error.value)


def test_the_default_store_is_in_the_results_folder() -> None:
    assert paths.default_store(Path("/my results/las")) == "sqlite:////my results/las/mlflow.db"


def test_a_clock_that_runs_backward_loses_nothing(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every reading of the clock is a minute earlier than the previous one."""
    clock = itertools.count(2_000_000_000, -60)
    monkeypatch.setattr("las_tune.tracking.ledger.time.time", lambda: float(next(clock)))
    folder = store / "back"
    folder.mkdir()
    ledger = Ledger(f"sqlite:///{store / 'mlflow.db'}", "clock", store / "mlartifacts", TAGS)
    ledger.start_study(folder, "back", {}, ("cpu_seconds", 1.0))
    fill(ledger, make_trial(0, [0.5, 0.25, 0.75], status="completed"))
    ledger.end_study("FINISHED")
    assert ledger.flush(60)
    ledger.close()
    parent, child = sorted(ledger.client.search_runs([ledger.experiment_id]), key=lambda run: "trial" in run.data.tags)
    assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
    history = ledger.client.get_metric_history(child.info.run_id, "objective")
    assert sorted((metric.step, metric.value) for metric in history) == [(1, 0.5), (2, 0.25), (3, 0.75)]
    assert child.data.metrics["objective"] == 0.75, "the last step counts, not the last timestamp"


def test_a_final_metric_is_logged_once(store: Path) -> None:
    """A baseline that is also the champion logs its metrics in both roles."""
    folder = store / "once"
    folder.mkdir()
    ledger = Ledger(f"sqlite:///{store / 'mlflow.db'}", "once", store / "mlartifacts", TAGS)
    ledger.start_study(folder, "once", {}, ("cpu_seconds", 1.0))
    for _ in range(2):
        ledger.log_metrics(STUDY_RUN, {"test/image_auroc": 0.75})
        assert ledger.flush(60)
    ledger.end_study("FINISHED")
    assert ledger.flush(60)
    ledger.close()
    assert len(ledger.client.get_metric_history(ledger.parent_run_id, "test/image_auroc")) == 1
