"""Servers on loopback, started and stopped by the tests that use them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.waiting import wait_for_response, wait_until


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def is_open(port: int) -> bool:
    """Whether a server listens on a port."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def start_ui(*arguments: str, cwd: Path) -> tuple[subprocess.Popen[str], list[str]]:
    """Start `python -m las_tune ui`. Returns the process and the lines that it printed until it was ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "las_tune", "ui", *arguments, "--port", "0"],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.strip())
        if "Ctrl-C" in line:
            break
    return process, lines


class MlflowServer:
    """`mlflow server` with its own database; artifacts go through the server."""

    def __init__(self, folder: Path, backend: str = "") -> None:
        self.folder = folder
        self.backend = backend or f"sqlite:///{folder / 'server.db'}"
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and wait until it responds."""
        command = [
            sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self.backend, "--host", "127.0.0.1",
            "--port", str(self.port), "--workers", "1", "--artifacts-destination", str(self.folder / "artifacts"),
        ]  # fmt: skip
        log = (self.folder / "server.log").open("ab")
        self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True)
        self.wait()

    def wait(self, timeout_s: float = 90) -> None:
        """Wait until the server responds."""
        wait_for_response(f"{self.uri}/health", lambda: (self.folder / "server.log").read_text()[-2000:], timeout_s)

    def signal(self, number: int) -> None:
        """Send a signal to the server and its workers."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """Kill the server."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def mlflow_server(folder: Path, backend: str = "") -> Iterator[MlflowServer]:
    """Run a server."""
    server = MlflowServer(folder, backend)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def postgresql_program(name: str) -> str | None:
    """Return the path of a program of the PostgreSQL server; Debian does not put them on the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """Run a PostgreSQL server with an empty database. Yields its URI; skips the test if PostgreSQL is not installed."""
    initdb, postgres = postgresql_program("initdb"), postgresql_program("postgres")
    if not initdb or not postgres:
        pytest.skip("PostgreSQL's server is not installed (Debian: postgresql)")
    as_user: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        if not shutil.which("setpriv"):
            pytest.skip("PostgreSQL does not run as root, and there is no setpriv to become another user")
        as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        os.chown(folder, 65534, 65534)
        for parent in folder.parents:  # pytest makes them accessible to its own user only
            if str(parent).startswith(str(Path("/tmp"))) and parent != Path("/tmp"):
                parent.chmod(0o755)
    data, port = folder / "data", free_port()
    environment = {**os.environ, "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    made = subprocess.run(
        [*as_user, initdb, "-D", str(data), "-U", "las", "--auth=trust", "--no-sync"],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip(f"PostgreSQL cannot make a database here: {made.stderr[-300:]}")
    settings = ["-c", "listen_addresses=127.0.0.1", "-c", f"port={port}", "-c", f"unix_socket_directories={folder}"]
    with (folder / "postgres.log").open("ab") as log:
        process = subprocess.Popen([*as_user, postgres, "-D", str(data), *settings], env=environment, cwd=folder,
                                   stdout=log, stderr=log)  # fmt: skip
    try:
        wait_until(lambda: is_open(port), lambda: (folder / "postgres.log").read_text(), 30, process=process)
        yield f"postgresql://las@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)  # fast shutdown
        process.wait(60)
