"""The ledger, in MLflow's own words: what its client finds after a study."""

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
from las_tune.tracking.registry import Holder
from tests.parts import empty_store, make_trial

TAGS = {"category": "part", "seed": "0"}
Open = Callable[..., Ledger]


def fill(ledger: Ledger, trial: TrialRecord, *, end: bool = True) -> TrialRecord:
    """Tell a ledger of a trial as a study does: row by row."""
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


def watching(trial: TrialRecord) -> TrialRecord:
    """A trial whose epochs were scored on another part as well."""
    for row in trial.epochs:
        row |= {"whole/objective": 1 - row["objective"], "whole/recall": row["recall"]}
    return trial


@dataclass
class Filled:
    """A store with two studies in it."""

    client: MlflowClient
    ledger: Ledger
    second: Ledger
    trials: list[TrialRecord]

    def runs(self, ledger: Ledger) -> list[Run]:
        """All runs of a study, its parent aside."""
        wanted = f"tags.`mlflow.parentRunId` = '{ledger.parent_run_id}'"
        return list(self.client.search_runs([ledger.experiment_id], wanted))

    def run(self, number: int) -> Run:
        """The run of a trial of the first study, found by its tags alone."""
        (run,) = [run for run in self.runs(self.ledger) if run.data.tags["trial"] == str(number)]
        return run

    def history(self, number: int, metric: str) -> list[tuple[int, float]]:
        """(step, value) of a metric of a trial."""
        return [(m.step, m.value) for m in self.client.get_metric_history(self.run(number).info.run_id, metric)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with an MLflow database; the store that was in use is in use again afterwards."""
    folder = tmp_path_factory.mktemp("store")
    (folder / "mlflow.db").write_bytes(empty_store())
    yield folder
    mlflow.set_tracking_uri("")


@pytest.fixture(scope="module")
def filled(store: Path) -> Filled:
    """A study with a trial of each kind, and a second one with the baseline alone."""
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
    second = Ledger(uri, "las_tune", store / "elsewhere", TAGS)
    (store / "second").mkdir()
    second.start_study(store / "second", "second", {"trials": 1}, ("cpu_seconds", 4.0))
    fill(second, watching(make_trial(0, [0.5, 0.75, 0.25], status="completed")))
    second.end_study("KILLED")
    assert ledger.flush(60) and second.flush(60)
    return Filled(MlflowClient(uri), ledger, second, trials)


def test_one_parent_and_one_run_a_trial(filled: Filled) -> None:
    parent = filled.client.get_run(filled.ledger.parent_run_id)
    assert (parent.info.run_name, parent.info.status) == ("first", "FINISHED")
    assert parent.data.params == {"trials": "5", "sampler": "tpe"}
    assert parent.data.tags.items() >= {**TAGS, "kind": "study"}.items()
    assert "mlflow.parentRunId" not in parent.data.tags
    children = filled.runs(filled.ledger)
    assert sorted(run.data.tags["trial"] for run in children) == ["0", "1", "2", "3", "4"]
    assert all(run.data.tags.items() >= {**TAGS, "kind": "trial"}.items() for run in children)


def test_hyperparameters_are_params(filled: Filled) -> None:
    for trial in filled.trials:
        assert filled.run(trial.number).data.params == {name: str(value) for name, value in trial.params.items()}


def test_the_baseline_is_told_apart(filled: Filled) -> None:
    assert filled.run(0).info.run_name == "trial 0 (baseline)"
    assert [filled.run(number).data.tags["baseline"] for number in range(5)] == ["true", *["false"] * 4]
    assert filled.run(1).info.run_name == "trial 1"


def test_the_epoch_is_the_step(filled: Filled) -> None:
    rows = filled.trials[0].epochs
    for name in (*METRICS, "seconds"):
        assert filled.history(0, name) == [(1, rows[0][name]), (2, rows[1][name]), (3, rows[2][name])]
    assert "epoch" not in filled.run(0).data.metrics


def test_the_best_epoch_has_names_of_its_own(filled: Filled) -> None:
    """The runs table shows the last value of a metric; of equals, the first epoch counts."""
    metrics = filled.run(0).data.metrics
    best = {name.removeprefix("best/"): value for name, value in metrics.items() if name.startswith("best/")}
    row = filled.trials[0].epochs[1]
    assert best == {"epoch": 2, **{name: row[name] for name in METRICS}}
    assert metrics["loss"] == filled.trials[0].epochs[2]["loss"] != best["loss"]
    assert metrics["total_seconds"] == 4.5


def test_what_was_watched_has_names_of_its_own_and_no_best(filled: Filled) -> None:
    (run,) = filled.runs(filled.second)
    history = filled.client.get_metric_history(run.info.run_id, "whole/objective")
    assert [(m.step, m.value) for m in history] == [(1, 0.5), (2, 0.25), (3, 0.75)]
    assert run.data.metrics["best/epoch"] == 2 and not [name for name in run.data.metrics if "best/whole" in name]


def test_what_a_trial_cost_is_in_devices_and_what_was_lost_beside_it(filled: Filled) -> None:
    """Half a GPU; trial 2 failed after 1.5 s and 2 s of repeats. In the second study four CPUs."""
    cost = {"total_seconds": 3.5, "cost/gpu_seconds": 1.75, "cost/lost_gpu_seconds": 1.75}
    assert filled.run(2).data.metrics.items() >= cost.items()
    cost = {"total_seconds": 4.5, "cost/gpu_seconds": 2.25, "cost/lost_gpu_seconds": 0.0}
    assert filled.run(0).data.metrics.items() >= cost.items()
    (run,) = filled.runs(filled.second)
    assert run.data.metrics.items() >= {"cost/cpu_seconds": 18.0, "cost/lost_cpu_seconds": 0.0}.items()


def test_metrics_that_masks_are_missing_for_are_left_out(filled: Filled) -> None:
    metrics = filled.run(1).data.metrics
    assert {"image_auroc", "best/image_auroc"} <= metrics.keys()
    assert not [name for name in metrics if "pixel" in name]


def test_statuses(filled: Filled) -> None:
    found = [(run.info.status, run.data.tags["status"]) for run in map(filled.run, range(5))]
    assert found == [
        ("FINISHED", "completed"),
        ("FINISHED", "pruned"),
        ("FAILED", "failed"),
        ("FAILED", "failed"),
        ("KILLED", "failed"),
    ]
    reasons = [filled.run(number).data.tags.get("reason") for number in range(5)]
    assert reasons == [None, "stopped after epoch 1", "x" * 8000, "lost its GPU", "the study ended first"]


def test_a_trial_that_failed_first_has_no_best(filled: Filled) -> None:
    nothing = {"total_seconds": 0, "cost/gpu_seconds": 0, "cost/lost_gpu_seconds": 0}
    assert filled.run(3).data.metrics == nothing
    assert filled.run(2).data.metrics["best/objective"] == 0.5


def test_nothing_is_open_at_the_end(filled: Filled) -> None:
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


def test_artifacts_lie_in_an_absolute_folder(
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


def test_final_numbers_and_tags(filled: Filled) -> None:
    filled.ledger.log_metrics("1", {"test/image_auroc": 0.875})
    filled.ledger.tag("1", {"champion": "true"})
    assert filled.ledger.flush(60)
    run = filled.run(1)
    assert (run.data.metrics["test/image_auroc"], run.data.tags["champion"]) == (0.875, "true")


@pytest.fixture
def hand_over(filled: Filled, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Hands a model over whose content does not matter; gives its URI."""

    def log_model(tracking_uri: str, run_id: str, *_: object) -> str:
        logged = filled.client.create_logged_model(filled.ledger.experiment_id, "detector", source_run_id=run_id)
        return str(filled.client.finalize_logged_model(logged.model_id, "READY").model_id)

    monkeypatch.setattr(registry, "log_model", log_model)

    def hand_over(run: str, category: str, tags: dict[str, str], promote: bool = True, version: bool = True) -> str:
        images = np.zeros((2, 8, 8, 3), np.uint8)
        filled.ledger.holder(f"las-{category}")
        filled.ledger.hand_over(run, tmp_path, images, category, tags, version=version, promote=promote)
        assert filled.ledger.flush(60) and not filled.ledger.num_refused
        return filled.ledger.model_uri

    return hand_over


def test_promotion_moves_the_alias_and_keeps_the_old_version(filled: Filled, hand_over: Callable[..., str]) -> None:
    for number in (0, 1):
        assert hand_over(str(number), "part", {"trial": str(number)}) == "models:/las-part@champion"
        version = filled.client.get_model_version_by_alias("las-part", "champion")
        assert (version.run_id, version.tags) == (filled.run(number).info.run_id, {"trial": str(number)})
        assert int(version.version) == number + 1
    old = filled.client.get_model_version("las-part", "1")
    assert (old.tags, old.aliases) == ({"trial": "0"}, [])


def test_a_model_that_is_not_promoted_leaves_the_alias(filled: Filled, hand_over: Callable[..., str]) -> None:
    assert filled.ledger.holder("las-other").tags == {}
    tags = {"hyperparameters": '{"alpha": 0.25}'}
    for run, (promote, uri) in enumerate(
        [(False, "models:/las-other/1"), (True, "models:/las-other@champion"), (False, "models:/las-other/3")]
    ):
        assert hand_over(str(run), "other", tags, promote) == uri
        assert filled.ledger.holder("las-other").tags == ({} if uri.endswith("1") else tags)
    assert filled.ledger.holder("las-other").version == "2"


def test_the_alias_stays_where_another_study_took_it_in_the_meantime(
    filled: Filled, hand_over: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hand_over("0", "contested", {"trial": "0"}) == "models:/las-contested@champion"
    monkeypatch.setattr(filled.ledger, "holder", lambda name: None)  # this study knows of no champion
    filled.ledger._holders.clear()
    assert hand_over("1", "contested", {"trial": "1"}) == "models:/las-contested/2"
    assert "promoted in the meantime" in filled.client.get_model_version("las-contested", "2").tags["alias"]
    assert int(filled.client.get_model_version_by_alias("las-contested", "champion").version) == 1


def test_a_model_of_a_champion_that_stays_is_no_version(filled: Filled, hand_over: Callable[..., str]) -> None:
    assert hand_over("2", "staying", {}, version=False) == "models:/las-staying@champion"
    assert not filled.client.search_registered_models("name = 'las-staying'")


@pytest.mark.parametrize(
    ("name", "tags", "demo", "rival"),
    [
        ("real", {"hyperparameters": '{"alpha": 0.25, "gone": 1}', "demo": "false"}, False, {"alpha": 0.25}),
        ("real-for-demo", {"hyperparameters": '{"alpha": 0.25}', "demo": "false"}, True, None),
        ("demo", {"hyperparameters": '{"alpha": 0.25}', "demo": "true"}, False, None),
        ("demo-for-demo", {"hyperparameters": '{"alpha": 0.25}', "demo": "true"}, True, {"alpha": 0.25}),
        ("baseline", {"hyperparameters": '{"batch_size": 8}', "demo": "false"}, False, None),
        ("strange", {"demo": "false"}, False, None),
    ],
)
def test_an_earlier_champion_is_a_rival_of_its_kind(
    name: str, tags: dict[str, str], demo: bool, rival: dict[str, float] | None
) -> None:
    assert Holder().hyperparameters(demo) is None
    assert Holder("1", tags).hyperparameters(demo) == rival


def test_a_finalist_has_its_own_name_and_tags(filled: Filled) -> None:
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


def test_an_experiment_that_was_deleted_is_one_line(filled: Filled, store: Path) -> None:
    """MLflow keeps its name until it is purged, and refuses runs in it."""
    uri = f"sqlite:///{store / 'mlflow.db'}"
    filled.client.delete_experiment(Ledger(uri, "gone", store / "mlartifacts", TAGS).experiment_id)
    with pytest.raises(UserError) as error:
        Ledger(uri, "gone", store / "mlartifacts", TAGS)
    assert "--experiment" in str(error.value) and "gone" in str(error.value) and "\n" not in str(error.value)


def test_the_default_store_lies_beside_the_results() -> None:
    assert paths.default_store(Path("/my results/las")) == "sqlite:////my results/las/mlflow.db"


def test_a_clock_that_is_set_back_loses_nothing(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is a minute before the last one."""
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
    assert sorted((one.step, one.value) for one in history) == [(1, 0.5), (2, 0.25), (3, 0.75)]
    assert child.data.metrics["objective"] == 0.75, "the last step is the latest number, whatever the clock said"


def test_a_final_number_is_logged_once(store: Path) -> None:
    """The baseline's, where it stays champion, is asked for in both roles."""
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
