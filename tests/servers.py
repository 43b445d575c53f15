"""Real servers for tests, on loopback, each started and ended by the test that asks for it."""

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

from tests.waiting import wait_for_answer, wait_until


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def is_open(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def start_ui(*arguments: str, cwd: Path) -> tuple[subprocess.Popen[str], list[str]]:
    """`python -m las_tune ui`, as a user starts it, and what it printed until it answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "las_tune", "ui", *arguments, "--port", "0"],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.strip())
        if line.startswith("Ctrl-C"):
            break
    return process, lines


class MlflowServer:
    """`mlflow server` with a database of its own and artifacts through the server."""

    def __init__(self, folder: Path, backend: str = "") -> None:
        self.folder = folder
        self.backend = backend or f"sqlite:///{folder / 'server.db'}"
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [
            sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self.backend, "--host", "127.0.0.1",
            "--port", str(self.port), "--workers", "1", "--artifacts-destination", str(self.folder / "artifacts"),
        ]  # fmt: skip
        log = (self.folder / "server.log").open("ab")
        self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True)
        self.wait()

    def wait(self, timeout_s: float = 90) -> None:
        """Wait until it answers."""
        wait_for_answer(f"{self.uri}/health", lambda: (self.folder / "server.log").read_text()[-2000:], timeout_s)

    def signal(self, number: int) -> None:
        """Send a signal to it and to its workers."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """End it without a word."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def mlflow_server(folder: Path, backend: str = "") -> Iterator[MlflowServer]:
    """A running server."""
    server = MlflowServer(folder, backend)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def postgresql_program(name: str) -> str | None:
    """Where one of PostgreSQL's server programs lies; Debian keeps them off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A PostgreSQL server with an empty database; its URI. Skips where there is none to start."""
    initdb, postgres = postgresql_program("initdb"), postgresql_program("postgres")
    if not initdb or not postgres:
        pytest.skip("PostgreSQL's server is not installed (Debian: postgresql)")
    as_user: list[str] = []
    if os.geteuid() == 0:  # it refuses to run as root
        if not shutil.which("setpriv"):
            pytest.skip("PostgreSQL does not run as root, and there is no setpriv to become another user")
        as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        os.chown(folder, 65534, 65534)
        for parent in folder.parents:  # made by pytest for its own user alone
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
