"""Drain this node through Ray when the cloud provider announces that it will reclaim the machine.

Run it on every spot worker; it needs only Python and the `ray` command:
    python spot_watch.py aws      polls EC2's metadata service (two minutes' notice)
    python spot_watch.py gcp      polls Compute Engine's metadata service (30 seconds' notice)
    python spot_watch.py now      drains immediately, for a Kubernetes preStop hook
A drained node receives no new work, and its trials move to other nodes before the machine stops.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

METADATA = "http://169.254.169.254"
"""Address of the metadata service of both clouds. An IP address needs no name server."""
GCP_NOTICE_S = 30
"""Compute Engine announces that the machine will stop, but not when."""
LOCK = Path.home() / ".las_tune_spot_watch.lock"
"""Locked while a watcher runs, because start commands may run repeatedly on one machine."""

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot reach the metadata service


def _fetch(url: str, headers: dict[str, str], method: str = "GET") -> str:
    request = urllib.request.Request(url, headers=headers, method=method)
    with _opener.open(request, timeout=2) as reply:
        return str(reply.read().decode())


def aws_notice_s(metadata: str) -> int | None:
    """Return the seconds until EC2 stops this machine, or None without a notice. Uses IMDSv2, which needs a token."""
    lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    token = _fetch(f"{metadata}/latest/api/token", lifetime, "PUT")
    try:
        reply = _fetch(f"{metadata}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token})
    except urllib.error.HTTPError as error:
        if error.code == 404:  # the documented reply without a notice
            return None
        raise
    stop_time = datetime.fromisoformat(json.loads(reply)["time"].replace("Z", "+00:00"))
    return max(0, int((stop_time - datetime.now(UTC)).total_seconds()))


def gcp_notice_s(metadata: str) -> int | None:
    """Return the seconds until Compute Engine stops this machine, or None without a notice."""
    reply = _fetch(f"{metadata}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return GCP_NOTICE_S if reply.strip() == "TRUE" else None


def raylets() -> list[dict[str, str]]:
    """Return the flags of every raylet on this machine: node and cluster address, which no Ray command prints."""
    raylet_flags = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # the process has ended, or belongs to another user
            continue
        if Path(words[0]).name == "raylet":
            raylet_flags.append(dict(word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word))
    return raylet_flags


def drain(deadline_s: int, address: str | None) -> bool:
    """Ask Ray's head to drain this machine's nodes; return whether it accepted."""
    nodes = [flags for flags in raylets() if address in (None, flags.get("gcs-address"))]
    if not nodes:
        print("no Ray node runs on this machine: nothing to drain", flush=True)
    accepted = [_drain_node(flags, deadline_s) for flags in nodes]
    return bool(accepted) and all(accepted)


def _drain_node(flags: dict[str, str], deadline_s: int) -> bool:
    words = ["ray", "drain-node", "--address", flags["gcs-address"], "--node-id", flags["node_id"]]
    words += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "the spot machine is being reclaimed"]
    words += ["--deadline-remaining-seconds", str(deadline_s)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    outcome = "accepted" if done.returncode == 0 else f"rejected: {(done.stderr or done.stdout).strip()[-400:]}"
    print(f"drain node {flags['node_id']}, {deadline_s} s left: {outcome}", flush=True)
    return done.returncode == 0


def watch(notice_s: Callable[[str], int | None], metadata: str, interval_s: float, address: str | None) -> None:
    """Poll the metadata service until there is a notice and the node is drained. Errors of the service are retried."""
    last_error = ""
    while True:
        try:
            left_s = notice_s(metadata)
        except (OSError, ValueError, KeyError) as error:  # URLError is an OSError; the others are malformed replies
            left_s = None
            if last_error != (last_error := f"metadata service: {error}"):
                print(last_error, flush=True)
        if left_s is not None and drain(left_s, address):
            return
        time.sleep(interval_s)


def main() -> int:
    """Parse the flags and watch, or drain immediately."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("cloud", choices=["aws", "gcp", "now"])
    parser.add_argument("--address", help="drain only the node of this cluster (default: every Ray node here)")
    parser.add_argument("--deadline-s", type=int, default=60, help="with now: seconds until the machine stops")
    parser.add_argument("--interval-s", type=float, default=5.0, help="seconds between two polls")
    parser.add_argument("--metadata", default=METADATA, help="address of the metadata service")
    parser.add_argument("--lock", type=Path, default=LOCK, help="lock file that allows one watcher per machine")
    arguments = parser.parse_args()
    if arguments.cloud == "now":
        return 0 if drain(arguments.deadline_s, arguments.address) else 1
    with arguments.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another watcher is already running on this machine", flush=True)
            return 0
        notice_s = {"aws": aws_notice_s, "gcp": gcp_notice_s}[arguments.cloud]
        watch(notice_s, arguments.metadata, arguments.interval_s, arguments.address)
    return 0


if __name__ == "__main__":
    sys.exit(main())
