"""The spot watcher, against a fake of the clouds' metadata services."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.waiting import wait_until

WATCH = Path(__file__).parents[2] / "cluster/spot_watch.py"
NODE = "6b" * 28
GCS = "192.0.2.77:6379"
"""Address of a cluster that does not exist, so that Ray clusters of other tests are not affected."""


class Metadata(ThreadingHTTPServer):
    """Fake of both clouds' metadata services, for notices only."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.notice = ""
        """EC2's reply when it reclaims the machine; empty before."""
        self.preempted = "FALSE"
        self.num_requests = 0
        self.address = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Metadata

    def do_PUT(self) -> None:
        lifetime = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        self._reply(*(200, "secret") if self.path == "/latest/api/token" and lifetime else (400, ""))

    def do_GET(self) -> None:
        self.server.num_requests += 1
        if self.path == "/latest/meta-data/spot/instance-action":
            allowed = self.headers.get("X-aws-ec2-metadata-token") == "secret"  # IMDSv2 only
            self._reply(*(401, "") if not allowed else (200, self.server.notice) if self.server.notice else (404, ""))
        elif self.path == "/computeMetadata/v1/instance/preempted":
            allowed = self.headers.get("Metadata-Flavor") == "Google"
            self._reply(*(200, self.server.preempted) if allowed else (403, ""))
        else:
            self._reply(404, "")

    def _reply(self, status: int, body: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing."""


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    with Metadata() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def fake_ray(tmp_path: Path) -> Iterator[Path]:
    """A folder with a fake `ray` that records its arguments, and a process that looks like a raylet."""
    programs = tmp_path / "bin"
    programs.mkdir()
    script = (
        f'#!/bin/sh\necho "$@" >> {tmp_path}/called\n[ -e {tmp_path}/refuse ] && echo refused >&2 && exit 1\nexit 0\n'
    )
    (programs / "ray").write_text(script, encoding="utf-8")
    (programs / "ray").chmod(0o755)
    (programs / "raylet").symlink_to("/bin/sh")
    flags = ["-c", "read line", "sh", f"--node_id={NODE}", f"--gcs-address={GCS}"]
    raylet = subprocess.Popen([programs / "raylet", *flags], stdin=subprocess.PIPE)
    yield tmp_path
    raylet.communicate(b"\n")


def start_watcher(folder: Path, metadata: Metadata, cloud: str) -> subprocess.Popen[str]:
    command = [sys.executable, WATCH, cloud, "--address", GCS, "--metadata", metadata.address, "--interval-s", "0.05"]
    return subprocess.Popen(
        [*map(str, command), "--lock", str(folder / "lock")], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"},
    )  # fmt: skip


def wait_for_requests(metadata: Metadata) -> None:
    """Wait until three requests were answered."""
    start = metadata.num_requests
    wait_until(lambda: metadata.num_requests >= start + 3, "three requests", 20, every_s=0.02)


def in_seconds(seconds: float) -> str:
    when = datetime.now(UTC) + timedelta(seconds=seconds)
    return json.dumps({"action": "terminate", "time": when.strftime("%Y-%m-%dT%H:%M:%SZ")})


def drained(folder: Path) -> list[str]:
    """Return the recorded arguments of `ray`, with the remaining seconds replaced by S."""
    text = (folder / "called").read_text(encoding="utf-8") if (folder / "called").exists() else ""
    return [re.sub(r"\d+$", "S", line) for line in text.splitlines()]


EXPECTED = (
    f"drain-node --address {GCS} --node-id {NODE} --reason DRAIN_NODE_REASON_PREEMPTION "
    "--reason-message the spot machine is being reclaimed --deadline-remaining-seconds S"
)


def test_ec2_notice_drains_the_node_with_the_time_left(fake_ray: Path, metadata: Metadata) -> None:
    with start_watcher(fake_ray, metadata, "aws") as process:
        wait_for_requests(metadata)
        assert process.poll() is None and drained(fake_ray) == []
        metadata.notice = in_seconds(120)
        printed, _ = process.communicate(timeout=20)
    assert process.returncode == 0 and drained(fake_ray) == [EXPECTED]
    left_s = int((fake_ray / "called").read_text(encoding="utf-8").split()[-1])
    assert 100 < left_s <= 120 and f"{left_s} s left: accepted" in printed


def test_compute_engine_notice_drains_the_node(fake_ray: Path, metadata: Metadata) -> None:
    with start_watcher(fake_ray, metadata, "gcp") as process:
        wait_for_requests(metadata)
        assert process.poll() is None and drained(fake_ray) == []
        metadata.preempted = "TRUE"
        process.communicate(timeout=20)
    assert process.returncode == 0 and drained(fake_ray) == [EXPECTED]


def test_rejected_drain_is_retried(fake_ray: Path, metadata: Metadata) -> None:
    (fake_ray / "refuse").touch()
    metadata.notice = in_seconds(120)
    with start_watcher(fake_ray, metadata, "aws") as process:
        wait_for_requests(metadata)
        assert process.poll() is None
        (fake_ray / "refuse").unlink()
        printed, _ = process.communicate(timeout=20)
    assert "rejected: refused" in printed and process.returncode == 0 and len(drained(fake_ray)) > 1


def test_malformed_reply_is_retried(fake_ray: Path, metadata: Metadata) -> None:
    metadata.notice = "<html>"
    with start_watcher(fake_ray, metadata, "aws") as process:
        wait_for_requests(metadata)
        assert process.poll() is None and drained(fake_ray) == []
        metadata.notice = in_seconds(0)
        printed, _ = process.communicate(timeout=20)
    assert printed.count("metadata service:") == 1  # printed once, not at every poll
    assert process.returncode == 0 and drained(fake_ray) == [EXPECTED]


def test_only_one_watcher_runs_per_machine(fake_ray: Path, metadata: Metadata) -> None:
    with start_watcher(fake_ray, metadata, "gcp") as first:
        wait_for_requests(metadata)
        with start_watcher(fake_ray, metadata, "gcp") as second:
            printed, _ = second.communicate(timeout=20)
        assert second.returncode == 0 and printed == "another watcher is already running on this machine\n"
        assert first.poll() is None
        metadata.preempted = "TRUE"
        first.communicate(timeout=20)
    assert drained(fake_ray) == [EXPECTED]


REAL = """
import subprocess, sys
import ray
from ray._private.state import state

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)

@ray.remote(num_cpus=1)
class Busy:
    def here(self):
        return ray.get_runtime_context().get_node_id()

busy = Busy.remote()
node = ray.get(busy.here.remote())
assert node not in state.get_draining_nodes()
address = ray.get_runtime_context().gcs_address
subprocess.run([sys.executable, sys.argv[1], "now", "--address", address, "--deadline-s", "100"], check=True)
assert node in state.get_draining_nodes()
assert ray.get(busy.here.remote()) == node  # a running actor is not stopped
print("drained")
"""


@pytest.mark.cluster
def test_ray_drains_a_real_node(tmp_path: Path) -> None:
    """Uses a separate Ray cluster with a token, in a separate process."""
    token = tmp_path / "token"
    token.write_text("5a" * 32, encoding="utf-8")
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [sys.executable, "-c", REAL, str(WATCH)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert "drained" in done.stdout, done.stderr
