"""Cost of logging a trial to MLflow, in a study with 50 trials and in one with 1000. Fake trials, a real store.

    python -m tests.benchmarks.ledger                                  # sqlite
    python -m tests.benchmarks.ledger --store http                     # a server with an sqlite database
    python -m tests.benchmarks.ledger --store postgresql

Two studies in two stores are filled first. Then trials are logged to both in turn, so that other load on the machine
affects both. The next trial starts when MLflow has stored the last one. Prints a table and one JSON line:
    ms_per_trial_at_50, ms_per_trial_at_1000    median time from a trial's first event until MLflow has stored it
    driver_ms_at_50, driver_ms_at_1000          part of that time in which the driver's thread is blocked
    requests_at_50, requests_at_1000            calls of MlflowClient per trial
    ratio                                       ms_per_trial at 1000 over that at 50
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import cyclopts
from rich.console import Console
from rich.progress import track
from rich.table import Table

from las_tune.tracking.ledger import Ledger
from tests.parts import make_trial
from tests.servers import mlflow_server, postgresql

Store = Literal["sqlite", "postgresql", "http"]


class TimedStudy:
    """A study to which trials are logged, with a clock and a count of requests."""

    def __init__(self, uri: str, folder: Path, num_epochs: int) -> None:
        self.ledger = Ledger(uri, "las_tune", folder / "artifacts", {f"tag{i}": str(i) for i in range(16)})
        self.ledger.start_study(folder, folder.name, {"trials": 1000}, ("cpu_seconds", 1.0))
        self.num_trials = 0
        self._num_epochs = num_epochs
        self.requests: Counter[str] = Counter()
        client = self.ledger.client
        for name in ("search_runs", "create_run", "log_batch", "set_terminated", "get_run", "set_tag", "log_metric"):
            setattr(client, name, self._counted(name, getattr(client, name)))

    def _counted(self, name: str, request: Any) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.requests[name] += 1
            return request(*arguments, **options)

        return counted

    def log_trial(self) -> tuple[float, float]:
        """Log one trial. Return the seconds until MLflow has stored it, and those of the driver's thread."""
        rows = make_trial(self.num_trials, [0.5 + i / 64 for i in range(self._num_epochs)]).epochs
        trial = make_trial(self.num_trials, [])
        self.num_trials += 1
        started = time.perf_counter()
        self.ledger.trial_started(trial)
        for row in rows:
            trial.add_epoch(row)
            self.ledger.epoch_ended(trial)
        trial.status = "completed"
        self.ledger.trial_ended(trial)
        driver_s = time.perf_counter() - started
        assert self.ledger.flush(60) and not self.ledger.num_refused
        return time.perf_counter() - started, driver_s


def main(*, store: Store = "sqlite", children: int = 1000, few: int = 50, window: int = 50, epochs: int = 20) -> None:
    """Fill both studies, then time them.

    Parameters
    ----------
    store
        MLflow store.
    children
        Size of the large study, in the middle of the timed trials.
    few
        Size of the small study.
    window
        Number of timed trials.
    epochs
        Epochs of each trial.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        studies = {size: TimedStudy(_open(store, Path(folder) / str(size), servers), Path(folder) / str(size), epochs)
                   for size in (few, children)}  # fmt: skip
        for size, study in studies.items():
            for _ in track(range(size - window // 2), f"Filling the study of {size} trials", transient=True):
                study.log_trial()
            study.requests.clear()
        times: dict[int, list[tuple[float, float]]] = {size: [] for size in studies}
        for _ in range(window):
            for size, study in studies.items():
                times[size].append(study.log_trial())
        _print(store, window, times, studies)


def _open(store: Store, folder: Path, servers: ExitStack) -> str:
    folder.mkdir()
    if store == "sqlite":
        return f"sqlite:///{folder / 'mlflow.db'}"
    if store == "postgresql":
        (folder / "postgresql").mkdir()
        return servers.enter_context(postgresql(folder / "postgresql"))
    return servers.enter_context(mlflow_server(folder)).uri


def _print(
    store: Store, window: int, times: dict[int, list[tuple[float, float]]], studies: dict[int, TimedStudy]
) -> None:
    result: dict[str, Any] = {"store": store}
    table = Table("Trials", "ms per trial", "of the driver's thread", "Requests per trial", title=f"Logging to {store}")
    for size, measured in times.items():
        result[f"ms_per_trial_at_{size}"] = round(1000 * statistics.median(t for t, _ in measured), 2)
        result[f"driver_ms_at_{size}"] = round(1000 * statistics.median(t for _, t in measured), 2)
        result[f"requests_at_{size}"] = sum(studies[size].requests.values()) / window
        table.add_row(
            str(size), *(str(result[f"{measure}_at_{size}"]) for measure in ("ms_per_trial", "driver_ms", "requests"))
        )
    few, children = times
    result["ratio"] = round(result[f"ms_per_trial_at_{children}"] / result[f"ms_per_trial_at_{few}"], 3)
    Console().print(table)
    print(json.dumps(result))


if __name__ == "__main__":
    cyclopts.run(main)
