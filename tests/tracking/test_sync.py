"""`sync` sends the writes that a study could not send, and ends the runs that a killed driver left open."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from las_tune.reporting.summary import UnsentWrites
from las_tune.tracking.journal import STUDY_RUN, Journal
from tests.parts import empty_store, make_trial
from tests.servers import mlflow_server
from tests.tracking.recording_ledger import start

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("same_store_afterwards")]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "las_tune", "sync", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_sync_sends_waiting_writes(tmp_path: Path) -> None:
    (tmp_path / "server.db").write_bytes(empty_store())
    folder = tmp_path / "results" / "recorded"
    folder.mkdir(parents=True)
    with mlflow_server(tmp_path) as server:
        ledger = start(server.uri, folder, 1)
        server.kill()
        trial = make_trial(0, [0.5], status="completed")
        ledger.trial_started(trial)
        ledger.epoch_ended(trial)
        ledger.trial_ended(trial)
        ledger.end_study("FINISHED")
        stages: list[str] = []
        unsent = ledger.deliver(lambda what, done, total: stages.append(f"{what} {done}/{total}"), 3.0)
        assert unsent == UnsentWrites(waiting=4, refused=0) and "writing to MLflow 0/4" in stages
        ledger.close()

        options = ["--results", str(folder.parent)]
        unreachable = run("recorded", *options)
        assert unreachable.returncode == 2 and unreachable.stderr.count("\n") == 1 and server.uri in unreachable.stderr
        wrong = run("recorded", *options, "--tracking-uri", f"sqlite:///{tmp_path / 'other.db'}")
        assert wrong.returncode == 2 and server.uri in wrong.stderr and not (tmp_path / "other.db").exists()
        server.start()
        sent = run("recorded", *options)
        assert sent.returncode == 0 and "Study recorded: 4 writes sent, 0 waiting, 0 refused" in sent.stdout
        assert "0 writes sent, 0 waiting" in run("recorded", *options).stdout
        runs = ledger.client.search_runs([ledger.experiment_id])
        assert {(r.data.tags["kind"], r.info.status) for r in runs} == {("study", "FINISHED"), ("trial", "FINISHED")}
    journal = Journal(folder)
    assert not journal.num_waiting and journal.earlier[0].run == STUDY_RUN


def test_sync_ends_open_runs_of_a_killed_study(tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    folder.mkdir()
    (tmp_path / "mlflow.db").write_bytes(empty_store())
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    code = (
        "import os, sys; from pathlib import Path\n"
        "from tests.tracking.recording_ledger import start; from tests.parts import make_trial\n"
        "ledger = start(sys.argv[1], Path(sys.argv[2]), 1); ledger.trial_started(make_trial(0, []))\n"
        "ledger.trial_started(make_trial(1, [], status='completed')); ledger.trial_ended(make_trial(1, [0.5]))\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, uri, str(folder)], timeout=120, check=False)
    assert run("recorded", "--results", str(tmp_path)).returncode == 0
    runs = MlflowClient(uri).search_runs(["1"])
    statuses = {run.data.tags.get("trial", "study"): run.info.status for run in runs}
    assert statuses == {"study": "KILLED", "0": "KILLED", "1": "FINISHED"}


def test_an_unknown_study_is_one_line(tmp_path: Path) -> None:
    ended = run("gone", "--results", str(tmp_path))
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1 and "gone" in ended.stderr
    assert not list(tmp_path.iterdir())
