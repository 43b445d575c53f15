"""Drain this node through Ray when the cloud announces that it takes the machine back.

Run on every spot worker; needs nothing but Python and the `ray` command:
    python spot_watch.py aws      asks EC2's metadata service (two minutes' notice)
    python spot_watch.py gcp      asks Compute Engine's (30 seconds' notice)
    python spot_watch.py now      drains at once: for a Kubernetes preStop hook
A drained node gets no new work, and studies that see the notice hand their trials over before the machine is gone.
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
"""Of both clouds; an address and not a name, so that it needs no name server."""
GCP_NOTICE_S = 30
"""Compute Engine says that it happens, not when."""
LOCK = Path.home() / ".las_tune_spot_watch.lock"
"""Held while one runs: start commands may be run again on the same machine."""

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy reaches the metadata service


def _ask(url: str, headers: dict[str, str], method: str = "GET") -> str:
    request = urllib.request.Request(url, headers=headers, method=method)
    with _opener.open(request, timeout=2) as reply:
        return str(reply.read().decode())


def aws_notice_s(metadata: str) -> int | None:
    """Seconds until EC2 stops this machine, None while it does not mean to (IMDSv2: a token first)."""
    lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    token = _ask(f"{metadata}/latest/api/token", lifetime, "PUT")
    try:
        reply = _ask(f"{metadata}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token})
    except urllib.error.HTTPError as error:
        if error.code == 404:  # the documented answer while there is no notice
            return None
        raise
    when = datetime.fromisoformat(json.loads(reply)["time"].replace("Z", "+00:00"))
    return max(0, int((when - datetime.now(UTC)).total_seconds()))


def gcp_notice_s(metadata: str) -> int | None:
    """Seconds until Compute Engine stops this machine, None while it does not mean to."""
    reply = _ask(f"{metadata}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return GCP_NOTICE_S if reply.strip() == "TRUE" else None


def raylets() -> list[dict[str, str]]:
    """The flags of every raylet of this machine: they name its node and its cluster, which no command of Ray prints."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # ended meanwhile, or another user's
            continue
        if Path(words[0]).name == "raylet":
            found.append(dict(word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word))
    return found


def drain(deadline_s: int, address: str | None) -> bool:
    """Ask Ray's head to drain this machine's node; whether it agreed."""
    nodes = [flags for flags in raylets() if address in (None, flags.get("gcs-address"))]
    if not nodes:
        print("no Ray node runs on this machine: nothing to drain", flush=True)
    agreed = [_drain_node(flags, deadline_s) for flags in nodes]
    return bool(agreed) and all(agreed)


def _drain_node(flags: dict[str, str], deadline_s: int) -> bool:
    words = ["ray", "drain-node", "--address", flags["gcs-address"], "--node-id", flags["node_id"]]
    words += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "the cloud takes this machine back"]
    words += ["--deadline-remaining-seconds", str(deadline_s)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    outcome = "agreed" if done.returncode == 0 else f"refused: {(done.stderr or done.stdout).strip()[-400:]}"
    print(f"drain node {flags['node_id']}, {deadline_s} s left: {outcome}", flush=True)
    return done.returncode == 0


def watch(notice_s: Callable[[str], int | None], metadata: str, interval_s: float, address: str | None) -> None:
    """Ask until there is a notice and the node is drained; a service that does not answer is asked again."""
    trouble = ""
    while True:
        try:
            left_s = notice_s(metadata)
        except (OSError, ValueError, KeyError) as error:  # URLError is an OSError; the others: not the reply we know
            left_s = None
            if trouble != (trouble := f"metadata service: {error}"):
                print(trouble, flush=True)
        if left_s is not None and drain(left_s, address):
            return
        time.sleep(interval_s)


def main() -> int:
    """Read the flags and watch, or drain at once."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("cloud", choices=["aws", "gcp", "now"])
    parser.add_argument("--address", help="drain only the node of this cluster (default: every Ray node here)")
    parser.add_argument("--deadline-s", type=int, default=60, help="with now: seconds until the machine stops")
    parser.add_argument("--interval-s", type=float, default=5.0, help="seconds between two questions")
    parser.add_argument("--metadata", default=METADATA, help="where the metadata service answers")
    parser.add_argument("--lock", type=Path, default=LOCK, help="file that lets only one run")
    given = parser.parse_args()
    if given.cloud == "now":
        return 0 if drain(given.deadline_s, given.address) else 1
    with given.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another one watches this machine already", flush=True)
            return 0
        watch({"aws": aws_notice_s, "gcp": gcp_notice_s}[given.cloud], given.metadata, given.interval_s, given.address)
    return 0


if __name__ == "__main__":
    sys.exit(main())
