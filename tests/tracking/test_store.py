"""Reading studies back: found by name, trials best first, one line for each error."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from las_tune.config.interval import Interval
from las_tune.errors import UserError
from las_tune.tracking.store import find_study, open_to_read, search_all
from las_tune.tracking.tables import sealed_table, study_table, trial_table
from las_tune.tracking.ui import SHARED_VIEW, study_address
from tests.studies import OBJECTIVES, FilledStore, add_trial, make_store, make_study, start_study


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FilledStore:
    """A finished study, an older one of the same name, and one that has just started."""
    store = make_store(tmp_path_factory.mktemp("results"))
    start_study(store, "found", start_ms=1_600_000_000_000)
    make_study(store, "found")
    running = start_study(store, "running", start_ms=1_700_000_500_000)
    add_trial(store, running, "running", 0, 0.8, start_ms=1_700_000_501_000)
    return store


# --- studies ---


def test_the_newest_study_of_a_name_is_found(store: FilledStore) -> None:
    study = find_study(store.client, store.experiment_id, "found")
    assert (study.name, study.parent.info.start_time, len(study.children)) == ("found", 1_700_000_000_000, 12)


def test_without_a_name_the_newest_study_is_found(store: FilledStore) -> None:
    study = find_study(store.client, store.experiment_id, None)
    assert study.name == "running"


def test_trials_and_finalists_are_separate_and_best_first(store: FilledStore) -> None:
    study = find_study(store.client, store.experiment_id, "found")
    best_first = sorted(range(len(OBJECTIVES)), key=lambda number: -OBJECTIVES[number])
    assert [int(run.data.tags["trial"]) for run in study.trials] == best_first
    names = ["trial 3, seed 2", "trial 3, seed 1", "baseline, seed 2", "baseline, seed 1"]
    assert [run.info.run_name for run in study.finalists] == names


def test_a_trial_without_an_epoch_comes_last(store: FilledStore) -> None:
    parent = start_study(store, "failing", start_ms=1_500_000_000_000)
    tags = {"mlflow.parentRunId": parent, "kind": "trial", "study": "failing", "trial": "0", "status": "failed"}
    store.client.create_run(store.experiment_id, tags=tags, run_name="trial 0 (baseline)")
    add_trial(store, parent, "failing", 1, 0.1, start_ms=1_500_000_001_000)
    study = find_study(store.client, store.experiment_id, "failing")
    assert [run.data.tags["trial"] for run in study.trials] == ["1", "0"]
    assert trial_table(study, study.trials).rows[1][3:] == ["–"] * len(study.columns[1:])


def test_columns_are_the_parameters_that_differ(store: FilledStore) -> None:
    study = find_study(store.client, store.experiment_id, "found")
    assert study.columns == [
        ("tags", "status"),
        ("metrics", "best/objective"),
        ("metrics", "best/image_auroc"),
        ("metrics", "best/pixel_aupro"),
        ("params", "adaptor_lr"),
        ("params", "alpha"),
        ("metrics", "total_seconds"),
    ], "beta_mean and width are the same in every trial"


def test_a_single_trial_shows_all_hyperparameters(store: FilledStore) -> None:
    study = find_study(store.client, store.experiment_id, "running")
    assert study.searched_params == ["adaptor_lr", "alpha", "beta_mean", "width"]


def test_every_page_of_a_search_is_read(store: FilledStore, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = search_all(store.client, store.experiment_id, "tags.kind = 'trial'")
    search_runs = MlflowClient.search_runs

    def two_at_a_time(
        self: MlflowClient, ids: list[str], query: str, max_results: int, page_token: str | None
    ) -> object:
        return search_runs(self, ids, query, max_results=2, page_token=page_token)

    monkeypatch.setattr(MlflowClient, "search_runs", two_at_a_time)
    paged = search_all(store.client, store.experiment_id, "tags.kind = 'trial'")
    assert [run.info.run_id for run in paged] == [run.info.run_id for run in runs] and len(runs) > 12


# --- tables ---


def test_trial_table_has_one_row_per_trial(store: FilledStore) -> None:
    study = find_study(store.client, store.experiment_id, "found")
    table = trial_table(study, study.trials)
    assert table.head[:4] == ["trial", "role", "status", "best/objective"]
    assert table.rows[0] == ["trial 3", "", "completed", "0.9100", "0.9600", "0.8600", "0.0004", "0.393", "16"]
    assert table.rows[5][:3] == ["trial 0 (baseline)", "baseline", "completed"]


def test_study_table_has_one_row_per_study(store: FilledStore) -> None:
    found, running = (find_study(store.client, store.experiment_id, name) for name in ("found", "running"))
    rows = study_table(store.client, [found, running]).rows
    gain = "+0.1000 (+0.0200 to +0.1700)"
    assert rows[0] == ["found", "part", "8", "combined", "0.8200", "0.9200", gain, "0.8700"]
    assert rows[1] == ["running", "part", "1", "combined", "–", "–", "no sealed test: running", "–"]


def test_sealed_table_has_one_row_per_metric(store: FilledStore) -> None:
    study = find_study(store.client, store.experiment_id, "found")
    table = sealed_table(study, {"image_auroc": Interval(0.1, -math.inf, math.inf)})
    assert table.head == ["metric", "baseline", "champion", "memory bank", "gain (95% interval)"]
    assert [row[0] for row in table.rows] == ["combined", "image_auroc", "pixel_aupro"]
    assert [row[-1] for row in table.rows] == [
        "+0.1000",
        "+0.1000 (noise unknown: too few images or seeds)",
        "+0.1000",
    ]
    kept = sealed_table(study, {})
    assert [row[-1] for row in kept.rows] == ["baseline kept"] * 3
    assert sealed_table(find_study(store.client, store.experiment_id, "running"), None).rows == []


# --- addresses in the UI ---


def views(store: FilledStore) -> dict[str, str]:
    tags = store.client.get_experiment(store.experiment_id).tags
    return {key: value for key, value in tags.items() if key.startswith(SHARED_VIEW)}


def test_the_address_is_reproducible(store: FilledStore) -> None:
    first = study_address(store.client, "http://127.0.0.1:5000", store.experiment_id, "found")
    first_views = views(store)
    assert study_address(store.client, "http://127.0.0.1:5000/", store.experiment_id, "found") == first
    assert views(store) == first_views
    assert first == (
        f"http://127.0.0.1:5000/#/experiments/{store.experiment_id}/runs"
        "?workflowType=machine_learning&viewStateShareKey=las_tune.found.study"
    )


def test_an_address_contains_no_password(store: FilledStore) -> None:
    address = study_address(store.client, "https://me:secret@mlflow.example/ml/", store.experiment_id, "found")
    assert address.startswith("https://mlflow.example/ml/#/experiments/") and "secret" not in address


def test_a_read_only_store_has_an_address(store: FilledStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise MlflowException("Permission denied")

    monkeypatch.setattr(MlflowClient, "set_experiment_tag", refuse)
    address = study_address(store.client, "http://127.0.0.1:5000", store.experiment_id, "running", "best_first")
    assert "viewStateShareKey" not in address
    assert "searchFilter=tags.study%20%3D%20%27running%27%20AND%20tags.kind%20%3D%20%27trial%27" in address


# --- errors ---


def test_an_unknown_study_lists_the_known_ones(store: FilledStore) -> None:
    with pytest.raises(
        UserError, match=r"Study other'; -- does not exist in the store\. Known studies: running, found"
    ):
        find_study(store.client, store.experiment_id, "other'; --")


def test_an_unknown_study_lists_at_most_ten(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    with pytest.raises(UserError, match="The experiment has no study"):
        find_study(store.client, store.experiment_id, None)
    for number in range(12):
        start_study(store, f"s{number}", start_ms=number + 1)
    with pytest.raises(UserError, match=r"Known studies: s11, s10, .*, s2 and 2 more\."):
        find_study(store.client, store.experiment_id, "s")


@pytest.mark.parametrize("uri", ["sqlite:///{}/mlflow.db", "{}/mlruns", "file://{}/mlruns"])
def test_no_store_is_created(uri: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist or is not an MLflow store"):
        open_to_read(uri.format(tmp_path), "las_tune")
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_database_is_not_changed(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "optuna.db") as foreign:
        foreign.execute("create table studies (name text)")
    foreign.close()
    before = (tmp_path / "optuna.db").read_bytes()
    with pytest.raises(UserError, match="does not exist or is not an MLflow store"):
        open_to_read(f"sqlite:///{tmp_path / 'optuna.db'}", "las_tune")
    assert (tmp_path / "optuna.db").read_bytes() == before


def test_a_file_that_is_not_a_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database" * 100)
    with pytest.raises(UserError) as error:
        open_to_read(f"sqlite:///{tmp_path / 'mlflow.db'}", "las_tune")
    assert "--tracking-uri" in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_experiment_is_not_created(store: FilledStore) -> None:
    with pytest.raises(UserError, match="--experiment other does not exist in "):
        open_to_read(store.uri, "other")
    assert store.client.get_experiment_by_name("other") is None
    assert open_to_read(store.uri, "las_tune").find("found").name == "found"
