"""submit, status, logs, stop and list, against a Ray head on this machine with a token, over http and Ray Client."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.parts import SMALL, make_part, make_textures
from tests.servers import free_port
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Head:
    """A head, and an environment with its token."""

    http: str
    client: str
    environment: dict[str, str]
    home: Path

    def run(self, *arguments: str, expect: int = 0) -> str:
        """Run a las_tune command and return its output."""
        done = subprocess.run(
            [sys.executable, "-m", "las_tune", *arguments],
            env=self.environment, cwd=self.home, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    pytest.importorskip("aiohttp_cors", reason="needs the extra 'cluster' (ray[default])")
    home = tmp_path_factory.mktemp("home")
    (home / ".ray").mkdir()
    (home / ".ray/auth_token").write_text(secrets.token_hex(32))
    gcs, dashboard, client = free_port(), free_port(), free_port()
    checkout = str(Path(__file__).parents[2])
    environment = os.environ | {"HOME": str(home), "RAY_AUTH_MODE": "token", "PYTHONPATH": checkout}
    environment |= {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}", "PYTHONUNBUFFERED": "1"}
    environment |= {"GRPC_ENABLE_FORK_SUPPORT": "0"}  # as in the cluster files
    temporary = Path(f"/tmp/las-ray-{os.getpid()}")  # contains sockets, whose paths must be short
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--node-ip-address=127.0.0.1",
        f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", "--num-cpus=4",
        f"--ray-client-server-port={client}", "--object-store-memory=300000000",
        f"--temp-dir={temporary}", "--disable-usage-stats",
    ]  # fmt: skip
    log = (home / "head.log").open("w")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        running_head = Head(f"http://127.0.0.1:{dashboard}", f"ray://127.0.0.1:{client}", environment, home)
        wait_until(
            lambda: "No study" in list_or_error(running_head),
            lambda: list_or_error(running_head) + (home / "head.log").read_text(), 90, every_s=1, process=process,
        )  # fmt: skip
        yield running_head
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(temporary, ignore_errors=True)


def list_or_error(head: Head) -> str:
    command = [sys.executable, "-m", "las_tune", "list", "--address", head.http]
    done = subprocess.run(command, env=head.environment, capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def parts(head: Head) -> list[str]:
    """Flags of a small study whose images are on this machine."""
    make_part(head.home / "laptop/parts", "bolt", train=14)
    make_textures(head.home / "laptop/textures")
    folders = ["--data-root", str(head.home / "laptop/parts"), "--textures", str(head.home / "laptop/textures")]
    return ["--category", "bolt", *folders, "--tracking-uri", f"sqlite:///{head.home / 'mlflow.db'}"]


def test_pushed_study_is_stopped_and_resumed(head: Head, parts: list[str]) -> None:
    small = ["--space", "default", "--trials", "2", "--finalists", "1", "--seeds", "2", "--scheduler", "none"]
    small += SMALL.replace("--epochs 1", "--epochs 8").split()
    submit = ["submit", *parts, "--address", head.http, "--study", "pushed", "--push-data", *small]
    assert "Study pushed runs as job pushed-" in head.run(*submit)
    rejected = head.run(*submit, expect=2)
    assert "Study pushed is already running in job pushed-" in rejected
    history = head.home / "results/las/pushed/trials.jsonl"
    wait_until(
        lambda: history.exists() and '"ended"' in history.read_text(), lambda: head.run("logs", "--address", head.http)
    )
    assert "was stopped. Submit it again to resume" in head.run("stop", "pushed", "--address", head.http)
    assert "stopped" in head.run("list", "--address", head.http)
    before = history.read_text()
    printed = head.run(*submit, "--follow")
    assert "checking the digest of the images" in printed
    assert "resuming study pushed" in printed and "champion" in printed
    assert history.read_text().startswith(before), "finished trials are not repeated"
    assert history.read_text().count('"event": "ended", "trial": {"number": 0,') == 1
    assert "Study pushed: succeeded" in head.run("status", "--address", head.client)
    assert "champion" in head.run("logs", "pushed", "--address", head.client)
    again = head.run(*submit, "--follow", expect=1)
    assert "is already finished" in again


def test_user_errors_are_one_line(head: Head, parts: list[str]) -> None:
    other = head.environment | {"HOME": "/nonexistent", "RAY_AUTH_TOKEN": "0" * 64}
    stranger = Head(head.http, head.client, other, head.home)
    for printed in (
        head.run("submit", *parts, "--address", head.http, "--trials", "many", expect=2),
        head.run("submit", *parts, "--address", head.http, "--study", "a/b", expect=2),
        head.run("submit", "--category", "bolt", "--data-root", "parts", "--address", head.http, expect=2),
        head.run("submit", *parts, "--address", head.client, "--push-data", expect=2),
        head.run("status", "nobody", "--address", head.http, expect=2),
        stranger.run("list", "--address", head.http, expect=2),
    ):
        assert printed.startswith("error: ") and printed.count("\n") == 1, printed
