"""What a trial costs the driver, when a study has 50 children and when it has 1000: fake trials, a real store.

    python -m tests.benchmarks.ledger                                  # sqlite
    python -m tests.benchmarks.ledger --store http                     # a server with sqlite behind it
    python -m tests.benchmarks.ledger --store postgresql

Two studies in two stores: one is filled first. Then they are told of a trial in turn, so that what else the machine
does falls on both. Every trial is waited for until MLflow has all of it. Prints a table and, last, one JSON line:
    ms_per_trial_at_50, ms_per_trial_at_1000    median time from a trial's first event until MLflow has all of it
    told_ms_at_50, told_ms_at_1000              of that, how long the driver's own thread is held up
    requests_at_50, requests_at_1000            calls of MlflowClient a trial
    ratio                                       at 1000 over at 50
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


class Filling:
    """A study that is told of trials, and the clock beside it."""

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

    def tell(self) -> tuple[float, float]:
        """One trial: seconds until MLflow has it, and seconds of the driver's thread."""
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
        told = time.perf_counter() - started
        assert self.ledger.flush(60) and not self.ledger.num_refused
        return time.perf_counter() - started, told


def main(*, store: Store = "sqlite", children: int = 1000, few: int = 50, window: int = 50, epochs: int = 20) -> None:
    """Fill one study, then time both.

    Parameters
    ----------
    store
        Where MLflow keeps them.
    children
        Size of the large study, in the middle of the window.
    few
        Size of the small one.
    window
        Trials that are timed.
    epochs
        Epochs of each.
    """
    with tempfile.TemporaryDirectory() as place, ExitStack() as servers:
        studies = {size: Filling(_open(store, Path(place) / str(size), servers), Path(place) / str(size), epochs)
                   for size in (few, children)}  # fmt: skip
        for size, study in studies.items():
            for _ in track(range(size - window // 2), f"filling the study of {size}", transient=True):
                study.tell()
            study.requests.clear()
        times: dict[int, list[tuple[float, float]]] = {size: [] for size in studies}
        for _ in range(window):
            for size, study in studies.items():
                times[size].append(study.tell())
        _print(store, window, times, studies)


def _open(store: Store, folder: Path, servers: ExitStack) -> str:
    folder.mkdir()
    if store == "sqlite":
        return f"sqlite:///{folder / 'mlflow.db'}"
    if store == "postgresql":
        (folder / "postgresql").mkdir()
        return servers.enter_context(postgresql(folder / "postgresql"))
    return servers.enter_context(mlflow_server(folder)).uri


def _print(store: Store, window: int, times: dict[int, list[tuple[float, float]]], studies: dict[int, Filling]) -> None:
    figures: dict[str, Any] = {"store": store}
    table = Table("children", "ms a trial", "of the driver's thread", "requests a trial", title=f"ledger in {store}")
    for size, measured in times.items():
        figures[f"ms_per_trial_at_{size}"] = round(1000 * statistics.median(t for t, _ in measured), 2)
        figures[f"told_ms_at_{size}"] = round(1000 * statistics.median(t for _, t in measured), 2)
        figures[f"requests_at_{size}"] = sum(studies[size].requests.values()) / window
        table.add_row(
            str(size), *(str(figures[f"{what}_at_{size}"]) for what in ("ms_per_trial", "told_ms", "requests"))
        )
    few, children = times
    figures["ratio"] = round(figures[f"ms_per_trial_at_{children}"] / figures[f"ms_per_trial_at_{few}"], 3)
    Console().print(table)
    print(json.dumps(figures))


if __name__ == "__main__":
    cyclopts.run(main)
