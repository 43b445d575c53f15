"""MLflow's UI as a child process: on loopback only, for one store, until it is told to end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import IO
from urllib.error import URLError

from las_tune.errors import UserError

LOOPBACK = "127.0.0.1"
"""Never another: MLflow's server has no accounts unless it is given some, and its API can delete every run."""
PORTS_TRIED = 20
STARTS_WITHIN_S = 120.0
ENDS_WITHIN_S = 10.0
QUIET = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ENABLE_AI_GATEWAY": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Parts of the server that a study has no use for."""


@contextmanager
def running_ui(tracking_uri: str, port: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start the UI of a store; gives its address and process once it answers, and ends it on the way out.

    Args:
        tracking_uri: a store that is there.
        port: the first that is tried; 0 takes any that is free.
    """
    port = _free_port(port)
    command = [sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    command += ["--uvicorn-opts", "--log-level warning --timeout-graceful-shutdown 2"]
    environment = QUIET | dict(os.environ) | {"MLFLOW_BACKEND_STORE_URI": tracking_uri}  # a password is no argument
    with tempfile.TemporaryFile() as log, _ended_by_signals():
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            address = f"http://{LOOPBACK}:{port}"
            _wait_until_it_answers(address, process, log)
            yield address, process
        finally:
            _end(process)


def _free_port(first: int) -> int:
    """The first port from there on that nobody listens on."""
    if not 0 <= first <= 65535:
        raise UserError("--port must lie in 0 to 65535", first)
    for port in range(first, min(first + PORTS_TRIED, 65536)) if first else (0,):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that has just ended is free
            probe.bind((LOOPBACK, port))
            return int(probe.getsockname()[1])
    raise UserError("--port must be free", f"{first}, taken as the {PORTS_TRIED} after it", "choose another")


def _wait_until_it_answers(address: str, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(URLError, OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
            return
        time.sleep(0.2)
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
    raise UserError("MLflow's UI must start", lines[-1][:300], "see whether `python -m mlflow server` starts by itself")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server and its workers, which are its process group."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with suppress(subprocess.TimeoutExpired):
            process.wait(ENDS_WITHIN_S)
            return


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C among them: a process that a script starts in the background ignores it otherwise."""


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let a closed terminal and `kill` end this process as Ctrl-C does, so that no server is left behind."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
