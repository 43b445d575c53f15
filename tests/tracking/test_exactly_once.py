"""Every run and every number once, whatever is killed: real processes, a real server, a real database."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from las_tune.tracking import sender
from las_tune.tracking.journal import Journal
from las_tune.tracking.ledger import Ledger
from tests.parts import empty_store, make_trial
from tests.servers import mlflow_server, postgresql
from tests.tracking.recording_ledger import check, start, tell
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("same_store_afterwards")]

TRIALS, EPOCHS = 6, 5


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


def has_grown(file: Path, to: int) -> bool:
    return file.is_file() and file.stat().st_size >= to


def test_a_driver_that_is_killed(uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    arguments = [uri, str(folder), str(TRIALS), str(EPOCHS), "0.1"]
    command = [sys.executable, "-m", "tests.tracking.recording_ledger", *arguments]
    chance, journal = random.Random(5), folder / "ledger.jsonl"
    for _ in range(2 if uri.startswith("sqlite") else 1):
        driver = subprocess.Popen(command)
        grown = journal.stat().st_size + 300 if journal.is_file() else 300
        wait_until(partial(has_grown, journal, grown), "the middle of a study", every_s=0.01, process=driver)
        time.sleep(chance.uniform(0, 0.6))
        driver.kill()
        assert driver.wait() == -signal.SIGKILL
    assert subprocess.run(command, timeout=180, check=False).returncode == 0
    check(uri, TRIALS, EPOCHS)
    assert not Journal(folder).num_waiting


def test_a_server_that_is_killed_and_one_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials are told of at once, whatever the server does; afterwards it has everything."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
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


class Failing:
    """A client that fails as told, then does as it should."""

    def __init__(self, client: MlflowClient, name: str, errors: list[Exception], does: bool = False) -> None:
        self.calls, self._errors, self._does = 0, errors, does
        self._real = getattr(client, name)
        setattr(client, name, self)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        if self._errors:
            if self._does:
                self._real(*arguments, **options)
            raise self._errors.pop(0)
        return self._real(*arguments, **options)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Of a study that has started, over sqlite; what it says is kept."""
    (tmp_path / "mlflow.db").write_bytes(empty_store())
    made = Ledger(f"sqlite:///{tmp_path / 'mlflow.db'}", "las_tune", tmp_path / "artifacts", {})
    made.said = []  # type: ignore[attr-defined]
    made.start_study(tmp_path, "study", {}, ("cpu_seconds", 1.0), made.said.append)  # type: ignore[attr-defined]
    yield made
    made.close()


def run_of_trial(ledger: Ledger) -> Run:
    (run,) = ledger.client.search_runs([ledger.experiment_id], "tags.kind = 'trial'")
    return run


def test_a_run_that_was_made_without_saying_so_is_not_made_again(ledger: Ledger) -> None:
    failing = Failing(ledger.client, "create_run", [MlflowException("no answer")], does=True)
    ledger.trial_started(make_trial(0, []))
    assert ledger.flush(60) and failing.calls == 1
    assert run_of_trial(ledger).data.tags["trial"] == "0"


def test_a_second_run_that_a_hung_server_made_late_is_deleted(ledger: Ledger) -> None:
    """Its look-up finds nothing yet, so the run is made again; at its end one of the two goes."""
    failing = Failing(ledger.client, "create_run", [MlflowException("no answer")], does=True)
    looking = ledger.client.search_runs
    blind = [True, True]
    ledger.client.search_runs = lambda *a, **o: [] if blind and blind.pop() else looking(*a, **o)
    trial = make_trial(0, [0.5], status="completed")
    ledger.trial_started(trial)
    assert ledger.flush(60) and failing.calls == 2
    ledger.trial_ended(trial)
    assert ledger.flush(60)
    assert run_of_trial(ledger).info.status == "FINISHED"


def test_an_unknown_error_is_tried_again_and_then_set_aside(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "LONGEST_DELAY_S", 0.01)
    monkeypatch.setattr(sender, "FIRST_DELAY_S", 0.01)
    ledger.trial_started(make_trial(0, []))
    assert ledger.flush(60)
    failing = Failing(ledger.client, "log_batch", [KeyError("away") for _ in range(3)])
    ledger.log_metrics("0", {"fine": 1.0})
    assert ledger.flush(60) and failing.calls == 4 and not ledger.num_refused

    def picky(run_id: str, metrics: Any = (), *others: Any) -> None:
        if any(metric.key == "lost" for metric in metrics):
            raise KeyError("a mistake")
        failing(run_id, metrics, *others)

    ledger.client.log_batch = picky
    ledger.log_metrics("0", {"lost": 1.0})
    ledger.log_metrics("0", {"after": 1.0})
    assert ledger.flush(60) and ledger.num_refused == 1
    assert "a mistake" in (ledger.journal.path.parent / "ledger.jsonl.refused").read_text()
    assert {"fine", "after"} <= run_of_trial(ledger).data.metrics.keys()


def test_pauses_grow_whatever_is_told_meanwhile(ledger: Ledger) -> None:
    failing = Failing(ledger.client, "log_batch", [MlflowException("away") for _ in range(100)])
    ledger.trial_started(make_trial(0, []))
    ends = time.monotonic() + 2.2
    while time.monotonic() < ends:  # tries at 0, 0.5 and 1.5 s
        ledger.log_metrics("0", {"more": 1.0})
        time.sleep(0.02)
    assert 2 <= failing.calls <= 4
    assert len(ledger.said) == 1  # type: ignore[attr-defined]


def test_what_is_said_of_a_store_holds_no_password(ledger: Ledger) -> None:
    Failing(ledger.client, "log_batch", [MlflowException("at http://me:secret@host/api?token=secret&x=1")])
    ledger.trial_started(make_trial(0, []))
    assert ledger.flush(60)
    said = " ".join(ledger.said)  # type: ignore[attr-defined]
    assert "http://***@host/api?token=***&x=1" in said and "secret" not in said


def test_a_trial_ends_even_if_its_images_cannot_be_drawn(ledger: Ledger, tmp_path: Path) -> None:
    trial = make_trial(0, [0.5], status="completed")
    trial.panel = tmp_path / "panels" / "trial_0000.npz"
    trial.panel.parent.mkdir()
    trial.panel.write_bytes(b"no arrays")
    ledger.trial_started(trial)
    ledger.trial_ended(trial)
    assert ledger.flush(60) and ledger.num_refused == 1
    assert run_of_trial(ledger).info.status == "FINISHED"


def test_a_listener_that_fails_does_not_end_the_sending(ledger: Ledger) -> None:
    def broken(_: str) -> None:
        raise BrokenPipeError

    ledger._sender._notify = broken
    Failing(ledger.client, "log_batch", [MlflowException("away")])
    ledger.trial_started(make_trial(0, []))
    assert ledger.flush(60) and ledger._sender.is_alive()


def test_a_store_that_goes_away_before_the_study_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "server.db").write_bytes(empty_store())
    code = (
        "import sys; from pathlib import Path; from las_tune.tracking.ledger import Ledger\n"
        "from las_tune.errors import UserError\n"
        "try: Ledger(sys.argv[1], 'las_tune', Path(sys.argv[2]), {})\n"
        "except UserError as error: print(error)"
    )
    address = "http://127.0.0.1:9"
    asked = [sys.executable, "-c", code, address, str(tmp_path)]
    told = subprocess.run(asked, capture_output=True, text=True, timeout=120, check=True).stdout
    assert told.count("\n") == 1 and "--tracking-uri" in told and address in told
