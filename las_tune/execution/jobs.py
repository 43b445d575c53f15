"""Studies as Ray jobs: their drivers run on the cluster, so that they survive a closed laptop."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import ray
from ray.job_submission import JobSubmissionClient

from las_tune.config.study_spec import ELSEWHERE
from las_tune.errors import UserError, said
from las_tune.execution.cluster import HEAD

DASHBOARD = os.environ.get("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:8265")
"""Of a head, seen from itself: it listens there only. The variable is Ray's own, for another port."""
STUDY = "las_tune.study"
"""Of a job's metadata: the study that it runs."""
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
POLL_S = 2.0
NOT_YET = "No available agent"
"""What a head says that has just been started."""
HEAD_IS_READY_S = 60.0


@dataclass(frozen=True)
class RayJob:
    """A study's driver on a cluster."""

    job_id: str
    study: str
    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED, STOPPED."""
    message: str
    started: datetime

    @property
    def has_ended(self) -> bool:
        """Whether it will not change any more."""
        return self.status in ENDED


class Jobs:
    """The jobs of one cluster."""

    def __init__(self, call: Callable[..., Any]) -> None:
        """call: a method of Ray's JobSubmissionClient by its name, with its arguments."""
        self._call = call

    def submit(self, study: str, command: str, package: Path | None = None) -> str:
        """Start a study's command in a shell on the head; returns the job's id.

        Args:
            study: its name; a study that is running is refused.
            command: for the shell.
            package: a zip file to be unpacked where the command runs; one that is there already is not sent again.
        """
        running = [job.job_id for job in self.all() if job.study == study and not job.has_ended]
        if running:
            raise UserError("A study must not be running", f"{study}, in job {running[0]}", "wait, or stop it")
        job_id = f"{study}-{datetime.now():%Y%m%d-%H%M%S}"
        settings = {
            "entrypoint": command,
            "submission_id": job_id,
            "metadata": {STUDY: study},
            "runtime_env": {"working_dir": str(package)} if package else {},
            "entrypoint_num_cpus": 0,
        }
        ends = time.monotonic() + HEAD_IS_READY_S
        while True:
            try:
                return str(self._call("submit_job", **settings))
            except RuntimeError as error:
                if NOT_YET not in str(error) or time.monotonic() > ends:
                    raise
                time.sleep(1.0)

    def all(self) -> list[RayJob]:
        """Jobs that are studies, the oldest first."""
        details = [one for one in self._call("list_jobs") if STUDY in (one.metadata or {})]
        jobs = [
            RayJob(
                one.submission_id,
                one.metadata[STUDY],
                one.status.value,
                " ".join((one.message or "").split()),
                datetime.fromtimestamp((one.start_time or 0) / 1000),
            )
            for one in details
        ]
        return sorted(jobs, key=lambda job: job.started)

    def latest(self, study: str | None) -> RayJob:
        """The latest job of a study; of any where no name is given."""
        jobs = self.all()
        named = [job for job in jobs if study in (None, job.study)]
        if not named:
            known = ", ".join(dict.fromkeys(job.study for job in jobs)) or "none"
            raise UserError("The study must have been submitted to this cluster", study, f"Known: {known}")
        return named[-1]

    def find(self, job_id: str) -> RayJob:
        """A job by its id."""
        return next(job for job in self.all() if job.job_id == job_id)

    def follow(self, job_id: str) -> Iterator[str]:
        """What a job prints, as it comes, until it has ended."""
        printed = 0
        while True:
            has_ended = self._call("get_job_status", job_id).value in ENDED
            text = self.logs(job_id)
            if text[printed:]:
                yield text[printed:]
            printed = len(text)
            if has_ended:
                return
            time.sleep(POLL_S)

    def logs(self, job_id: str) -> str:
        """All that a job has printed."""
        return str(self._call("get_job_logs", job_id))

    def stop(self, job_id: str) -> None:
        """Ask a job to end, and wait until it has."""
        self._call("stop_job", job_id)
        while self._call("get_job_status", job_id).value not in ENDED:
            time.sleep(POLL_S / 4)


@contextmanager
def jobs_at(address: str) -> Iterator[Jobs]:
    """The jobs of a cluster: auto (this machine is its head), http://HOST:8265, or ray://HOST:10001."""
    if address != "auto" and not address.startswith(ELSEWHERE):
        rule = "--address of a job must be auto, http://HOST:8265 or ray://HOST:10001"
        raise UserError(rule, address, "HOST:6379 is for studies that are started on a machine of the cluster")
    logging.getLogger("ray.dashboard").setLevel(logging.ERROR)
    try:
        if address.startswith("ray://"):
            with _joined(address):
                yield Jobs(_on_head)
        else:
            client = JobSubmissionClient(DASHBOARD if address == "auto" else address)
            yield Jobs(lambda name, *given, **named: getattr(client, name)(*given, **named))
    except (OSError, RuntimeError, ConnectionError, ray.exceptions.RayError) as error:
        do = "start the cluster, open the tunnel, and set RAY_AUTH_MODE=token with its token in ~/.ray/auth_token"
        raise UserError(
            "--address must be that of a running Ray cluster", f"{address} ({said(error, 200)})", do
        ) from error


@contextmanager
def _joined(address: str) -> Iterator[None]:
    ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _on_head(name: str, *given: Any, **named: Any) -> Any:
    """Call Ray's job client on the head, through Ray Client: its dashboard listens there only."""
    if named.get("runtime_env"):
        raise UserError("--push-data goes over http", "--address ray://...", "give --address http://HOST:8265")
    call = ray.remote(_call_here).options(num_cpus=0, resources={HEAD: 0.001})
    return ray.get(call.remote(name, given, named))


def _call_here(name: str, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    return getattr(JobSubmissionClient(DASHBOARD), name)(*given, **named)
