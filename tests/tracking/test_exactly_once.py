"""Every run and every number once, whatever is killed: real processes, a real server, a real database."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from las_tune.tracking.journal import Journal
from las_tune.tracking.ledger import Ledger
from tests.parts import empty_store, make_trial
from tests.servers import mlflow_server, postgresql
from tests.tracking.told_ledger import check, start, tell

TRIALS, EPOCHS = 6, 5


@pytest.fixture(autouse=True)
def same_store_afterwards() -> Iterator[None]:
    """The store that was in use is in use again afterwards."""
    yield
    mlflow.set_tracking_uri("")


@pytest.fixture(params=["sqlite", "postgresql", "http"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A store of each kind."""
    if request.param == "sqlite":
        (tmp_path / "mlflow.db").write_bytes(empty_store())
        yield f"sqlite:///{tmp_path / 'mlflow.db'}"
    elif request.param == "postgresql":
        (tmp_path / "postgresql").mkdir()
        with postgresql(tmp_path / "postgresql") as address:
            yield address
    else:
        (tmp_path / "server.db").write_bytes(empty_store())
        with mlflow_server(tmp_path) as server:
            yield server.uri


def test_a_driver_that_is_killed(uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    arguments = [uri, str(folder), str(TRIALS), str(EPOCHS), "0.1"]
    command = [sys.executable, "-m", "tests.tracking.told_ledger", *arguments]
    chance = random.Random(5)
    for _ in range(2 if uri.startswith("sqlite") else 1):
        driver = subprocess.Popen(command)
        journal = folder / "ledger.jsonl"
        before = journal.stat().st_size if journal.is_file() else 0
        while not journal.is_file() or journal.stat().st_size < before + 300:  # past its start, in the middle of it
            assert driver.poll() is None
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.6))
        driver.kill()
        assert driver.wait() == -signal.SIGKILL
    assert subprocess.run(command, timeout=180, check=False).returncode == 0
    check(uri, TRIALS, EPOCHS)
    ids = {Journal(folder).study_id}
    assert len(ids) == 1 and not Journal(folder).num_waiting


def test_a_server_that_is_killed_and_one_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials are told of at once, whatever the server does; afterwards it has everything."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    (tmp_path / "server.db").write_bytes(empty_store())
    folder = tmp_path / "study"
    folder.mkdir()
    with mlflow_server(tmp_path) as server:
        ledger = start(server.uri, folder, TRIALS)

        def disturb() -> None:
            time.sleep(0.5)
            server.kill()
            time.sleep(2)
            server.start()
            server.signal(signal.SIGSTOP)
            time.sleep(4)
            server.signal(signal.SIGCONT)

        disturbing = threading.Thread(target=disturb)
        disturbing.start()
        started = time.monotonic()
        tell(ledger, folder, TRIALS, EPOCHS, 0.1)
        took = time.monotonic() - started
        assert ledger.num_waiting, "the server was away"
        disturbing.join()
        assert ledger.flush(120)
        check(server.uri, TRIALS, EPOCHS)
    assert took < TRIALS / 2 * EPOCHS * 0.1 + 2, "trials waited for the server"


def test_what_mlflow_refuses_is_set_aside_alone(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_store())
    said: list[str] = []
    ledger = Ledger(f"sqlite:///{tmp_path / 'mlflow.db'}", "las_tune", tmp_path / "artifacts", {})
    ledger.start_study(tmp_path, "study", {"alpha": 1}, ("cpu_seconds", 1.0), said.append)
    trial = make_trial(0, [0.5])
    ledger.trial_started(trial)
    ledger.log_metrics("0", {"fine": 1.0})
    ledger.log_metrics("0", {"not; a name": 1.0})
    ledger.log_artifacts("0", [tmp_path / "gone.txt"])
    ledger.log_metrics("0", {"fine too": 2.0})
    assert ledger.flush(60)
    assert ledger.num_refused == 2 and len(said) == 2 and "gone.txt" in said[1]
    assert len((tmp_path / "ledger.jsonl.refused").read_text().splitlines()) == 2
    runs = ledger.client.search_runs([ledger.experiment_id], "tags.kind = 'trial'")
    assert runs[0].data.metrics == {"fine": 1.0, "fine too": 2.0}


def test_half_a_line_is_cut_off(tmp_path: Path) -> None:
    from las_tune.tracking.journal import Write

    journal = Journal(tmp_path)
    journal.append(Write("0", "trial 0"))
    with journal.path.open("a") as file:
        file.write('{"run": "1", "na')
    again = Journal(tmp_path)
    assert again.study_id == journal.study_id
    assert [write.run for write in again.waiting(10)] == ["0"]
    again.append(Write("2", "trial 2"))
    assert [write.run for write in Journal(tmp_path).waiting(10)] == ["0", "2"]


def test_a_store_that_goes_away_before_the_study_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "server.db").write_bytes(empty_store())
    environment = {**os.environ, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    code = (
        "import sys; from pathlib import Path; from las_tune.tracking.ledger import Ledger\n"
        "from las_tune.errors import UserError\n"
        "try: Ledger(sys.argv[1], 'las_tune', Path(sys.argv[2]), {})\n"
        "except UserError as error: print(error)"
    )
    address = "http://127.0.0.1:9"
    asked = [sys.executable, "-c", code, address, str(tmp_path)]
    told = subprocess.run(asked, env=environment, capture_output=True, text=True, timeout=120, check=True).stdout
    assert told.count("\n") == 1 and "--tracking-uri" in told and address in told
