"""Inconsistencies between history, Optuna and MLflow are found, and repaired where that is possible."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from las_tune.config.progress import no_progress
from las_tune.config.study_spec import MAX_TRIALS
from las_tune.config.train_spec import TrainSpec
from las_tune.config.trial_record import TrialRecord
from las_tune.errors import UserError
from las_tune.execution.history import History
from las_tune.search.searcher import METRIC, StudySearcher, make_searcher
from las_tune.space.search_space import load_space
from las_tune.study.doctor import diagnose, repair, studies_in
from las_tune.tracking.journal import Journal
from las_tune.tracking.ledger import Ledger
from las_tune.tracking.runs import KEY_TAG
from tests.execution.fake_trial import make_spec
from tests.parts import empty_store, make_trial, run_command

EPOCHS = 3

pytestmark = pytest.mark.usefixtures("same_store_afterwards")


class Study:
    """A study without Ray, whose events are recorded in history, Optuna and MLflow."""

    def __init__(self, results: Path) -> None:
        results.mkdir(exist_ok=True)
        (results / "mlflow.db").write_bytes(empty_store())
        self.uri = f"sqlite:///{results / 'mlflow.db'}"
        spec = make_spec(results, train=TrainSpec(epochs=EPOCHS), trials=4)
        self.folder = spec.folder
        self.folder.mkdir()
        self.search: StudySearcher = make_searcher(spec, load_space("default"))
        self.history = History(self.folder)
        self.ledger = Ledger(self.uri, "las_tune", results / "artifacts", {"category": "part", "study": spec.study})
        self.ledger.start_study(self.folder, spec.study, {"trials": 4}, ("cpu_seconds", 1.0))
        self.listeners = (self.history, self.ledger)

    def start(self, record: TrialRecord) -> None:
        for listener in self.listeners:
            listener.trial_started(record)
        rows, record.epochs = record.epochs, []
        for row in rows:
            record.add_epoch(row)
            for listener in self.listeners:
                listener.epoch_ended(record)

    def end(self, record: TrialRecord, status: Any) -> None:
        record.status = status
        for listener in self.listeners:
            listener.trial_ended(record)

    def trial(self, number: int, status: Any, num_epochs: int = EPOCHS) -> None:
        """Add a trial of the search, and end it unless it is running."""
        self.search.suggest(str(number))
        record = make_trial(number, [0.5 + 0.1 * epoch for epoch in range(num_epochs)])
        record.seconds = 0.0
        self.start(record)
        if status == "running":
            return
        row = {METRIC: record.best_objective, "epoch": num_epochs} if num_epochs else None
        self.search.on_trial_complete(str(number), row, error=status == "failed")
        self.end(record, status)

    def finalist(self, index: int) -> None:
        record = make_trial(MAX_TRIALS + index, [0.5, 0.6, 0.7], finalist="baseline", seed=index)
        record.seconds = 0.0
        self.start(record)
        self.end(record, "completed")

    def close(self, *, is_finished: bool) -> Path:
        if is_finished:
            (self.folder / "summary.json").write_text(json.dumps({}))
            self.ledger.end_study("FINISHED")
        assert self.ledger.flush(60)
        self.ledger.close()
        return self.folder


def make_study(results: Path, *, is_finished: bool = True) -> Study:
    study = Study(results)
    study.trial(0, "completed")
    study.trial(1, "pruned", 2)
    study.trial(2, "failed", 0)
    study.trial(3, "completed" if is_finished else "running")
    if is_finished:
        study.finalist(0)
        study.finalist(1)
    study.close(is_finished=is_finished)
    return study


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_study(tmp_path / "r")


def run_of(study: Study, trial: int | None) -> Run:
    """Return the run of a trial; the run of the study for None."""
    client = MlflowClient(study.uri)
    experiment = client.get_experiment_by_name("las_tune")
    wanted = f"tags.trial = '{trial}'" if trial is not None else "tags.kind = 'study'"
    (run,) = client.search_runs([experiment.experiment_id], wanted)
    return run


def problems(study: Study) -> list[tuple[str, str]]:
    return [(problem.kind, problem.text) for problem in diagnose(study.folder, "").problems]


def test_undamaged_study_has_no_problems(study: Study) -> None:
    found = diagnose(study.folder, "")
    assert (found.problems, found.is_finished, found.num_trials, found.num_retrainings) == ([], True, 4, 2)
    assert studies_in(study.folder.parent) == ["fake"]


# --- problems that can be repaired ---


def set_running(study: Study) -> None:
    MlflowClient(study.uri).update_run(run_of(study, 1).info.run_id, "RUNNING")


def set_study_running(study: Study) -> None:
    MlflowClient(study.uri).update_run(run_of(study, None).info.run_id, "RUNNING")


def add_second_run(study: Study) -> None:
    run = run_of(study, 3)
    tags = {name: value for name, value in run.data.tags.items() if name == KEY_TAG}
    MlflowClient(study.uri).create_run(run.info.experiment_id, run.info.start_time + 5, tags)


def add_unknown_run(study: Study) -> None:
    run = run_of(study, 3)
    tags = {KEY_TAG: run.data.tags[KEY_TAG].replace("/3", "/77")}
    MlflowClient(study.uri).create_run(run.info.experiment_id, run.info.start_time, tags)


def delete_run(study: Study) -> None:
    MlflowClient(study.uri).delete_run(run_of(study, 0).info.run_id)


def delete_finalist(study: Study) -> None:
    MlflowClient(study.uri).delete_run(run_of(study, MAX_TRIALS + 1).info.run_id)


def change_status(study: Study) -> None:
    MlflowClient(study.uri).set_tag(run_of(study, 1).info.run_id, "status", "completed")


def forget_sent_writes(study: Study) -> None:
    count = study.folder / "ledger.jsonl.sent"
    count.write_text(str(int(count.read_text()) - 2))


def suggest_and_forget(study: Study) -> None:
    make_searcher(make_spec(study.folder.parent, trials=9), load_space("default")).suggest("new")


@pytest.mark.parametrize(
    ("damage", "kind", "text"),
    [
        (set_running, "zombie", "MLflow lists trial 1 as running, but no process runs it"),
        (set_study_running, "zombie", "MLflow lists the study as running, but no process runs it"),
        (add_second_run, "duplicate", "MLflow has 2 runs of trial 3: "),
        (add_unknown_run, "orphan", "MLflow has a run of trial 77, which is not in the study"),
        (delete_run, "missing", "MLflow has no run of trial 0"),
        (delete_finalist, "missing", f"MLflow has no run of trial {MAX_TRIALS + 1}"),
        (change_status, "different", "trial 1 is pruned, but completed in MLflow"),
        (forget_sent_writes, "waiting", "MLflow has not received 2 of the writes"),
        (suggest_and_forget, "zombie", "Optuna lists trial 4 as running, but the study is finished"),
    ],
)
def test_problem_is_found_and_repaired(study: Study, damage: Callable[[Study], None], kind: str, text: str) -> None:
    before = {trial: run_of(study, trial).data.metrics for trial in (0, 1, 3)}
    damage(study)
    ((found_kind, found_text),) = problems(study)
    assert found_kind == kind and found_text.startswith(text)
    assert problems(study) == [(found_kind, found_text)], "diagnose changes nothing"
    assert repair(study.folder, "", no_progress).problems == []
    assert {trial: run_of(study, trial).data.metrics for trial in (0, 1, 3)} == before


def test_several_problems_are_repaired_at_once(study: Study) -> None:
    for damage in (set_running, add_unknown_run, delete_run, delete_finalist):
        damage(study)
    assert sorted(kind for kind, _ in problems(study)) == ["missing", "missing", "orphan", "zombie"]
    assert repair(study.folder, "", no_progress).problems == []


# --- problems that cannot ---


def test_duplicate_value_remains_a_problem(study: Study) -> None:
    client = MlflowClient(study.uri)
    client.log_metric(run_of(study, 0).info.run_id, "loss", 7.0, timestamp=1, step=2)
    assert problems(study) == [("duplicate", "trial 0 has 3 epochs, but MLflow has 4 values for them")]
    assert len(repair(study.folder, "", no_progress).problems) == 1


def test_different_status_in_optuna_is_found(study: Study) -> None:
    lines = (study.folder / "trials.jsonl").read_text()
    (study.folder / "trials.jsonl").write_text(lines.replace('"status": "pruned"', '"status": "completed"'))
    assert ("different", "trial 1 is completed, but pruned in Optuna") in problems(study)


def test_trials_are_missing_without_the_journal_of_optuna(study: Study) -> None:
    (study.folder / "optuna.journal").unlink()
    assert [text for _, text in problems(study)] == [f"Optuna has no trial {n}" for n in range(4)]


# --- studies that are not finished ---


def test_killed_study_has_zombies_in_mlflow_and_resumes_after_the_repair(tmp_path: Path) -> None:
    study = make_study(tmp_path / "r", is_finished=False)
    assert sorted(problems(study)) == [
        ("zombie", "MLflow lists the study as running, but no process runs it"),
        ("zombie", "MLflow lists trial 3 as running, but no process runs it"),
    ]
    assert repair(study.folder, "", no_progress).problems == []
    assert run_of(study, 3).info.status == "KILLED"
    again = make_searcher(
        make_spec(study.folder.parent, train=TrainSpec(epochs=EPOCHS), trials=4), load_space("default")
    )
    history = History(study.folder)
    again.restore_trials([*history.ended, *history.unfinished])
    again.suggest("new")
    assert again.number_of("new") == 3, "Optuna keeps the running trial"


def test_running_study_is_refused(study: Study) -> None:
    journal = Journal(study.folder)
    try:
        with pytest.raises(UserError, match="Study fake is already running"):
            diagnose(study.folder, "")
    finally:
        journal.close()


# --- the command ---


def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], study: Study, *flags: str) -> Any:
    return run_command(monkeypatch, capsys, ["doctor", "--results", str(study.folder.parent), *flags])


def test_command_reports_and_repairs_problems(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    consistent = doctor(monkeypatch, capsys, study)
    assert (consistent.code, consistent.err) == (0, "")
    assert "study fake (finished): 4 trials, 2 retrainings: consistent" in consistent.out
    delete_run(study)
    found = doctor(monkeypatch, capsys, study, "--study", "fake")
    assert found.code == 2
    assert "1 problems\n  missing: MLflow has no run of trial 0\n  Run `doctor --fix`" in found.out
    assert doctor(monkeypatch, capsys, study, "--fix").code == 0
    assert doctor(monkeypatch, capsys, study).code == 0


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--study", "other"), "error: There is no study other in {results}. Known studies: fake.\n"),
        (
            ("--study", "fake", "--tracking-uri", "sqlite:////tmp/other.db"),
            "error: --tracking-uri sqlite:////tmp/other.db is not the store of study fake. Use ",
        ),
    ],
)
def test_wrong_input_is_one_clear_line(
    study: Study,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
    line: str,
) -> None:
    ended = doctor(monkeypatch, capsys, study, *flags)
    assert ended.code == 2 and ended.err.startswith(line.format(results=study.folder.parent))
    assert ended.err.count("\n") == 1
