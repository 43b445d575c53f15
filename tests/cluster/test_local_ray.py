"""Authentication of the Ray cluster of a study on one machine, whose ports are open to the network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from las_tune.errors import UserError
from las_tune.execution.cluster import ray_cluster

STUDY = """
import sys
import ray
from las_tune.execution.cluster import ray_cluster
with ray_cluster(None):
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.readline()
"""
STRANGER = """
import sys
from ray._raylet import GcsClient
print(len(GcsClient(address=sys.argv[1]).get_all_node_info(timeout=15)), "nodes")
"""


def ask(address: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Request the nodes of a study's Ray cluster from another process."""
    return subprocess.run(
        [sys.executable, "-c", STRANGER, address],
        env=os.environ | environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_ray_rejects_connections_without_its_token(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", STUDY], env=os.environ | home, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as study:
        assert study.stdin is not None and study.stdout is not None
        address = study.stdout.readline().strip()
        owner = ask(address, RAY_AUTH_MODE="token", **home)
        assert owner.stdout == "1 nodes\n", owner.stderr
        (tmp_path / "stranger").mkdir()
        for environment in ({}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}):
            stranger = ask(address, HOME=str(tmp_path / "stranger"), **environment)
            assert stranger.returncode and "nodes" not in stranger.stdout, environment
        study.stdin.write("\n")
    token = tmp_path / ".ray/auth_token"
    assert len(token.read_text().strip()) >= 32 and not token.stat().st_mode & 0o077, "readable by its owner only"


def test_ray_without_token_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(UserError, match="RAY_AUTH_MODE must be token, got disabled"), ray_cluster(None):
        pass
