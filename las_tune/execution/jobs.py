"""Studies as Ray jobs: the driver runs on the cluster, so that the submitting machine can be switched off."""

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

from las_tune.config import REMOTE_SCHEMES
from las_tune.errors import UserError, short_message
from las_tune.execution.cluster import HEAD_RESOURCE

DASHBOARD = os.environ.get("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:8265")
"""Address of the dashboard on the head, where it listens on localhost only. Ray's own variable selects another port."""
STUDY_KEY = "las_tune.study"
"""Key of the study's name in a job's metadata."""
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
POLL_INTERVAL_S = 2.0
HEAD_STARTING = "No available agent"
"""Part of the error message of a head that has just been started."""
HEAD_START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class RayJob:
    """A job that runs the driver of a study."""

    job_id: str
    study: str
    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    message: str
    started: datetime

    @property
    def has_ended(self) -> bool:
        """Whether the status is final."""
        return self.status in ENDED


class Jobs:
    """The studies that run as jobs of one cluster."""

    def __init__(self, call: Callable[..., Any]) -> None:
        """Wrap Ray's job client.

        Args:
            call: calls a method of Ray's JobSubmissionClient by name, with the arguments that follow.
        """
        self._call = call

    def submit(self, study: str, command: str, package: Path | None = None) -> str:
        """Run a study's command in a shell on the head and return the job's id.

        Args:
            study: name of the study.
            command: the shell command.
            package: a zip file that is unpacked into the command's working directory. Ray uploads it only if the
                cluster does not have it yet.

        Raises:
            UserError: if the study is already running.
        """
        running = [job.job_id for job in self.all() if job.study == study and not job.has_ended]
        if running:
            raise UserError(
                f"Study {study} is already running in job {running[0]}",
                remedy=f"Wait for it to finish, or stop it with `python -m las_tune stop {study}`",
            )
        job_id = f"{study}-{datetime.now():%Y%m%d-%H%M%S}"
        settings = {
            "entrypoint": command,
            "submission_id": job_id,
            "metadata": {STUDY_KEY: study},
            "runtime_env": {"working_dir": str(package)} if package else {},
            "entrypoint_num_cpus": 0,
        }
        deadline = time.monotonic() + HEAD_START_TIMEOUT_S
        while True:
            try:
                return str(self._call("submit_job", **settings))
            except RuntimeError as error:
                if HEAD_STARTING not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(1.0)

    def all(self) -> list[RayJob]:
        """Return the jobs that run studies, the oldest first."""
        jobs = [
            RayJob(
                details.submission_id,
                details.metadata[STUDY_KEY],
                details.status.value,
                " ".join((details.message or "").split()),
                datetime.fromtimestamp((details.start_time or 0) / 1000),
            )
            for details in self._call("list_jobs")
            if STUDY_KEY in (details.metadata or {})
        ]
        return sorted(jobs, key=lambda job: job.started)

    def latest(self, study: str | None) -> RayJob:
        """Return the latest job of a study, or of any study if no name is given."""
        jobs = self.all()
        jobs_of_study = [job for job in jobs if study in (None, job.study)]
        if not jobs_of_study:
            known = ", ".join(dict.fromkeys(job.study for job in jobs))
            raise UserError(
                f"Study {study} was not submitted to this cluster" if study else "This cluster has no submitted study",
                remedy=f"Known studies: {known}" if known else "Submit one with `python -m las_tune submit`",
            )
        return jobs_of_study[-1]

    def find(self, job_id: str) -> RayJob:
        """Return a job by its id."""
        return next(job for job in self.all() if job.job_id == job_id)

    def follow(self, job_id: str) -> Iterator[str]:
        """Yield what a job prints, piece by piece, until it has ended."""
        num_printed = 0
        while True:
            has_ended = self._call("get_job_status", job_id).value in ENDED
            text = self.logs(job_id)
            if text[num_printed:]:
                yield text[num_printed:]
            num_printed = len(text)
            if has_ended:
                return
            time.sleep(POLL_INTERVAL_S)

    def logs(self, job_id: str) -> str:
        """Return everything that a job has printed."""
        return str(self._call("get_job_logs", job_id))

    def stop(self, job_id: str) -> None:
        """Stop a job and wait until it has ended."""
        self._call("stop_job", job_id)
        while self._call("get_job_status", job_id).value not in ENDED:
            time.sleep(POLL_INTERVAL_S / 4)


@contextmanager
def jobs_at(address: str) -> Iterator[Jobs]:
    """Connect to the jobs of a cluster.

    Args:
        address: auto (this machine is the head), http://HOST:8265 or ray://HOST:10001.
    """
    if address != "auto" and not address.startswith(REMOTE_SCHEMES):
        raise UserError(
            f"--address of a job must be auto, http://HOST:8265 or ray://HOST:10001, got {address}",
            remedy="HOST:6379 is for `tune` on a machine of the cluster",
        )
    logging.getLogger("ray.dashboard").setLevel(logging.ERROR)
    try:
        if address.startswith("ray://"):
            with _joined(address):
                yield Jobs(_call_on_head)
        else:
            client = JobSubmissionClient(DASHBOARD if address == "auto" else address)
            yield Jobs(lambda name, *args, **kwargs: getattr(client, name)(*args, **kwargs))
    except (OSError, RuntimeError, ConnectionError, ray.exceptions.RayError) as error:
        raise UserError(
            f"No Ray cluster answers at --address {address} ({short_message(error, 200)})",
            remedy="Start the cluster, open the tunnel, and set RAY_AUTH_MODE=token and the token in ~/.ray/auth_token",
        ) from error


@contextmanager
def _joined(address: str) -> Iterator[None]:
    ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _call_on_head(name: str, *args: Any, **kwargs: Any) -> Any:
    """Call Ray's job client on the head through Ray Client, because the dashboard listens on localhost only."""
    if kwargs.get("runtime_env"):
        raise UserError(
            "--push-data needs an http address, got --address ray://...", remedy="Give --address http://HOST:8265"
        )
    call = ray.remote(_call_here).options(num_cpus=0, resources={HEAD_RESOURCE: 0.001})
    return ray.get(call.remote(name, args, kwargs))


def _call_here(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return getattr(JobSubmissionClient(DASHBOARD), name)(*args, **kwargs)
