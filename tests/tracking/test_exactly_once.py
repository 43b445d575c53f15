"""Every run and every value is written exactly once, whatever is killed: real processes, servers and databases."""

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
from tests.tracking.recording_ledger import check, record, start
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("same_store_afterwards")]

TRIALS, EPOCHS = 6, 5


@pytest.fixture(params=["sqlite", "postgresql", "http"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A store of each type."""
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


def has_size(file: Path, min_size: int) -> bool:
    return file.is_file() and file.stat().st_size >= min_size


def test_a_killed_driver_loses_and_repeats_nothing(uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    arguments = [uri, str(folder), str(TRIALS), str(EPOCHS), "0.1"]
    command = [sys.executable, "-m", "tests.tracking.recording_ledger", *arguments]
    generator, journal = random.Random(5), folder / "ledger.jsonl"
    for _ in range(2 if uri.startswith("sqlite") else 1):
        driver = subprocess.Popen(command)
        min_size = journal.stat().st_size + 300 if journal.is_file() else 300
        wait_until(partial(has_size, journal, min_size), "the middle of a study", every_s=0.01, process=driver)
        time.sleep(generator.uniform(0, 0.6))
        driver.kill()
        assert driver.wait() == -signal.SIGKILL
    assert subprocess.run(command, timeout=180, check=False).returncode == 0
    check(uri, TRIALS, EPOCHS)
    assert not Journal(folder).num_waiting


def test_a_killed_and_a_hanging_server_lose_nothing_and_delay_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recording never waits for the server, and in the end the server has everything."""
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

        disturbance = threading.Thread(target=disturb)
        disturbance.start()
        started = time.monotonic()
        record(ledger, folder, TRIALS, EPOCHS, 0.1)
        seconds = time.monotonic() - started
        assert ledger.num_waiting, "the server was unreachable"
        disturbance.join()
        assert ledger.flush(120)
        check(server.uri, TRIALS, EPOCHS)
    assert seconds < TRIALS / 2 * EPOCHS * 0.1 + 2, "trials waited for the server"


def test_only_refused_writes_are_set_aside(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_store())
    messages: list[str] = []
    ledger = Ledger(f"sqlite:///{tmp_path / 'mlflow.db'}", "las_tune", tmp_path / "artifacts", {})
    ledger.start_study(tmp_path, "study", {"alpha": 1}, ("cpu_seconds", 1.0), messages.append)
    trial = make_trial(0, [0.5])
    ledger.trial_started(trial)
    ledger.log_metrics("0", {"fine": 1.0})
    ledger.log_metrics("0", {"not; a name": 1.0})
    ledger.log_artifacts("0", [tmp_path / "gone.txt"])
    ledger.log_metrics("0", {"fine too": 2.0})
    assert ledger.flush(60)
    assert ledger.num_refused == 2 and len(messages) == 2 and "gone.txt" in messages[1]
    assert len((tmp_path / "ledger.jsonl.refused").read_text().splitlines()) == 2
    runs = ledger.client.search_runs([ledger.experiment_id], "tags.kind = 'trial'")
    assert runs[0].data.metrics == {"fine": 1.0, "fine too": 2.0}


class Failing:
    """Wraps a method of a client: it raises the given errors first, and then works."""

    def __init__(self, client: MlflowClient, name: str, errors: list[Exception], applies: bool = False) -> None:
        self.calls, self._errors, self._applies = 0, errors, applies
        self._real = getattr(client, name)
        setattr(client, name, self)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        if self._errors:
            if self._applies:
                self._real(*arguments, **options)
            raise self._errors.pop(0)
        return self._real(*arguments, **options)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Ledger of a started study over sqlite, which keeps its messages."""
    (tmp_path / "mlflow.db").write_bytes(empty_store())
    ledger = Ledger(f"sqlite:///{tmp_path / 'mlflow.db'}", "las_tune", tmp_path / "artifacts", {})
    ledger.messages = []  # type: ignore[attr-defined]
    ledger.start_study(tmp_path, "study", {}, ("cpu_seconds", 1.0), ledger.messages.append)  # type: ignore[attr-defined]
    yield ledger
    ledger.close()


def run_of_trial(ledger: Ledger) -> Run:
    (run,) = ledger.client.search_runs([ledger.experiment_id], "tags.kind = 'trial'")
    return run


def test_a_run_whose_confirmation_was_lost_is_not_created_again(ledger: Ledger) -> None:
    failing = Failing(ledger.client, "create_run", [MlflowException("no response")], applies=True)
    ledger.trial_started(make_trial(0, []))
    assert ledger.flush(60) and failing.calls == 1
    assert run_of_trial(ledger).data.tags["trial"] == "0"


def test_a_duplicate_run_that_a_slow_server_created_is_deleted(ledger: Ledger) -> None:
    """The look-up does not find the run yet, so it is created twice. The duplicate is deleted when the run ends."""
    failing = Failing(ledger.client, "create_run", [MlflowException("no response")], applies=True)
    search_runs = ledger.client.search_runs
    is_empty = [True, True]
    ledger.client.search_runs = lambda *a, **o: [] if is_empty and is_empty.pop() else search_runs(*a, **o)
    trial = make_trial(0, [0.5], status="completed")
    ledger.trial_started(trial)
    assert ledger.flush(60) and failing.calls == 2
    ledger.trial_ended(trial)
    assert ledger.flush(60)
    assert run_of_trial(ledger).info.status == "FINISHED"


def test_an_unknown_error_is_retried_and_then_set_aside(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "MAX_DELAY_S", 0.01)
    monkeypatch.setattr(sender, "MIN_DELAY_S", 0.01)
    ledger.trial_started(make_trial(0, []))
    assert ledger.flush(60)
    failing = Failing(ledger.client, "log_batch", [KeyError("unreachable") for _ in range(3)])
    ledger.log_metrics("0", {"fine": 1.0})
    assert ledger.flush(60) and failing.calls == 4 and not ledger.num_refused

    def refuse_lost(run_id: str, metrics: Any = (), *rest: Any) -> None:
        if any(metric.key == "lost" for metric in metrics):
            raise KeyError("a bug")
        failing(run_id, metrics, *rest)

    ledger.client.log_batch = refuse_lost
    ledger.log_metrics("0", {"lost": 1.0})
    ledger.log_metrics("0", {"after": 1.0})
    assert ledger.flush(60) and ledger.num_refused == 1
    assert "a bug" in (ledger.journal.path.parent / "ledger.jsonl.refused").read_text()
    assert {"fine", "after"} <= run_of_trial(ledger).data.metrics.keys()


def test_new_writes_do_not_shorten_the_pauses(ledger: Ledger) -> None:
    failing = Failing(ledger.client, "log_batch", [MlflowException("unreachable") for _ in range(100)])
    ledger.trial_started(make_trial(0, []))
    deadline = time.monotonic() + 2.2
    while time.monotonic() < deadline:  # attempts at 0, 0.5 and 1.5 s
        ledger.log_metrics("0", {"more": 1.0})
        time.sleep(0.02)
    assert 2 <= failing.calls <= 4
    assert len(ledger.messages) == 1  # type: ignore[attr-defined]


def test_messages_hide_passwords(ledger: Ledger) -> None:
    Failing(ledger.client, "log_batch", [MlflowException("at http://me:secret@host/api?token=secret&x=1")])
    ledger.trial_started(make_trial(0, []))
    assert ledger.flush(60)
    messages = " ".join(ledger.messages)  # type: ignore[attr-defined]
    assert "http://***@host/api?token=***&x=1" in messages and "secret" not in messages


def test_a_trial_ends_although_its_panel_cannot_be_drawn(ledger: Ledger, tmp_path: Path) -> None:
    trial = make_trial(0, [0.5], status="completed")
    trial.panel = tmp_path / "panels" / "trial_0000.npz"
    trial.panel.parent.mkdir()
    trial.panel.write_bytes(b"no arrays")
    ledger.trial_started(trial)
    ledger.trial_ended(trial)
    assert ledger.flush(60) and ledger.num_refused == 1
    assert run_of_trial(ledger).info.status == "FINISHED"


def test_a_failing_notification_does_not_stop_the_sender(ledger: Ledger) -> None:
    def broken(_: str) -> None:
        raise BrokenPipeError

    ledger._sender._notify = broken
    Failing(ledger.client, "log_batch", [MlflowException("unreachable")])
    ledger.trial_started(make_trial(0, []))
    assert ledger.flush(60) and ledger._sender.is_alive()


def test_an_unreachable_store_is_one_line_before_a_study(tmp_path: Path) -> None:
    (tmp_path / "server.db").write_bytes(empty_store())
    code = (
        "import sys; from pathlib import Path; from las_tune.tracking.ledger import Ledger\n"
        "from las_tune.errors import UserError\n"
        "try: Ledger(sys.argv[1], 'las_tune', Path(sys.argv[2]), {})\n"
        "except UserError as error: print(error)"
    )
    address = "http://127.0.0.1:9"
    command = [sys.executable, "-c", code, address, str(tmp_path)]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert printed.count("\n") == 1 and "--tracking-uri" in printed and address in printed
