"""MLflow's UI on a study: a server process on this machine, and addresses that open the study's runs."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import IO, Any, Literal
from urllib.error import URLError
from urllib.parse import quote, urlencode, urlsplit

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from las_tune.errors import UserError, require
from las_tune.tracking.store import StudyRuns, find_study

LOOPBACK = "127.0.0.1"
"""The only address the server listens on: it has no accounts by default, and its API can delete every run."""
NUM_PORTS = 20
"""Number of ports that are tried."""
START_TIMEOUT_S = 120.0
END_TIMEOUT_S = 10.0
SERVER_ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ENABLE_AI_GATEWAY": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Settings that turn off parts of the server that studies do not use."""
END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""SIGINT is included because shells let background processes of a script ignore it."""
View = Literal["study", "best_first"]
SHARED_VIEW = "mlflow.sharedViewState."
NAME_COLUMN, CREATED_COLUMN = "attributes.`Run Name`", "runDateAndNestInfo"


@contextmanager
def running_ui(tracking_uri: str, port: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run the UI of an existing store; yields its address and process once it responds, and ends it on exit.

    Args:
        tracking_uri: URI of the store.
        port: first port to try; 0 picks any free one.

    Raises: UserError if no port is free, or the server does not start.
    """
    port = _free_port(port)
    command = [sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    command += ["--uvicorn-opts", "--log-level warning --timeout-graceful-shutdown 2"]
    store = {"MLFLOW_BACKEND_STORE_URI": tracking_uri}  # not an argument: other users can read those, and a password
    environment = SERVER_ENVIRONMENT | dict(os.environ) | store
    with tempfile.TemporaryFile() as log, _interrupted_by_signals():
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            address = f"http://{LOOPBACK}:{port}"
            _wait_for_response(address, process, log)
            yield address, process
        finally:
            _end(process)


def _free_port(first: int) -> int:
    """Return the first free port from `first` on."""
    require(0 <= first <= 65535, f"--port must be between 0 and 65535, got {first}", remedy="Choose another port")
    for port in range(first, min(first + NUM_PORTS, 65536)) if first else (0,):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just released is free
            probe.bind((LOOPBACK, port))
            return int(probe.getsockname()[1])
    raise UserError(f"--port {first} and the {NUM_PORTS - 1} ports after it are in use", remedy="Choose another port")


def _wait_for_response(address: str, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(URLError, OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
            return
        time.sleep(0.2)
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines() or ["no output"]
    raise UserError(
        f"MLflow's UI failed to start ({lines[-1][:300]})", remedy="Run `python -m mlflow server` to see the cause"
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server and its workers, which form a process group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_TIMEOUT_S)
            return


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt for `kill` and a closed terminal as for Ctrl-C, so that the server is always ended."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in END_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def study_address(client: MlflowClient, base_url: str, experiment_id: str, study: str, view: View = "study") -> str:
    """Return the address that opens a study in MLflow's UI, with its columns selected.

    MLflow's UI keeps the state of a page in the browser, except for shared views: a tag of the experiment,
    mlflow.sharedViewState.KEY, which an address with viewStateShareKey=KEY opens. This function writes that tag. A view
    cannot unfold rows, and child runs are folded only when ordered by start time, hence the two views.

    Args:
        client: client of the store.
        base_url: URL of the UI, such as http://127.0.0.1:5000; a password in it is left out of the address.
        experiment_id: experiment of the study.
        study: name of the study.
        view: `study` shows the study with its trials folded; `best_first` shows the trials alone, best first.
    """
    runs = find_study(client, experiment_id, study)
    search = _search(study, view)
    key = f"las_tune.{study}.{view}"
    parts = urlsplit(base_url)
    page = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}/#/experiments/{experiment_id}"
    query = {"workflowType": "machine_learning"}  # MLflow 3 opens its menu for language models otherwise
    try:
        _write_view(client, experiment_id, f"{SHARED_VIEW}{key}", _view_state(runs, search, view))
        query["viewStateShareKey"] = key
    except (MlflowException, SQLAlchemyError):  # a read-only store: show the same runs in the default columns
        query |= search
    return f"{page}/runs?{urlencode(query, quote_via=quote)}"


def _search(study: str, view: View) -> dict[str, str]:
    """Return filter and order of the runs as query parameters of an address."""
    runs_of_study = f"tags.study = '{study}'"
    if view == "study":
        return {"searchFilter": runs_of_study, "orderByKey": "attributes.start_time", "orderByAsc": "true"}
    return {
        "searchFilter": f"{runs_of_study} AND tags.kind = 'trial'",
        "orderByKey": "metrics.`best/objective`",
        "orderByAsc": "false",
    }


def _view_state(runs: StudyRuns, search: dict[str, str], view: View) -> str:
    """Return a shared view in both formats: newer servers read a named saved view, older ones the state of the page."""
    columns = [f"{kind}.`{key}`" for kind, key in runs.columns]
    state: dict[str, Any] = search | {
        "orderByAsc": search["orderByAsc"] == "true",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": columns,
        "columnOrder": [NAME_COLUMN, CREATED_COLUMN, *columns],
        "columnWidths": {NAME_COLUMN: 250, **{column: 8 * len(column.split(".", 1)[1]) + 30 for column in columns}},
        "runsHiddenMode": "SHOW_ALL",
    }
    created = runs.parent.info.start_time  # not the current time: the same study gets the same view
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    saved = {
        "name": runs.name + (", best first" if view == "best_first" else ""),
        "createdAt": created,
        "updatedAt": created,
        "state": f"deflate;{packed}",
    }
    return json.dumps(state | saved)


def _write_view(client: MlflowClient, experiment_id: str, tag: str, text: str) -> None:
    if client.get_experiment(experiment_id).tags.get(tag) != text:
        client.set_experiment_tag(experiment_id, tag, text)
