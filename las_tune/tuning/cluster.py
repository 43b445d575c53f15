"""The Ray cluster: start it on this machine or join it, and what of it a trial gets."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from las_tune.errors import UserError
from las_tune.study_spec import StudySpec


@dataclass(frozen=True)
class Resources:
    """What one trial gets, and how many trials run at once."""

    cpus: float
    gpus: float
    max_concurrent: int

    @property
    def cost_unit(self) -> tuple[str, float]:
        """What a second of a trial costs: GPU seconds where it has one, else CPU seconds, and how many."""
        return ("gpu_seconds", self.gpus) if self.gpus else ("cpu_seconds", self.cpus)

    @property
    def num_threads(self) -> int:
        """Threads of torch in a trial, so that parallel trials do not fight for cores."""
        return max(1, int(self.cpus))


@contextmanager
def ray_cluster(address: str | None) -> Iterator[None]:
    """Start Ray on this machine, or join the cluster at address; leave it at the end."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # listeners record what is to be recorded
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # verbose=0 is silent in the old output only
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, SystemExit) as error:  # Ray itself exits where nobody answers
        if address is None:
            raise
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            "--address must be that of a running Ray cluster", f"{address} ({reason})", "start it"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def resources_of(spec: StudySpec) -> Resources:
    """What the flags say, else one GPU where the cluster has any, a quarter of a machine's cores, and all that fit."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most_cpus, most_gpus = (max(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    gpus = spec.gpus_per_trial if spec.gpus_per_trial is not None else min(1.0, most_gpus)
    cpus = spec.cpus_per_trial or max(1, int(most_cpus) // 4)

    def fitting(node: dict[str, float]) -> int:
        by_cpus = int(node.get("CPU", 0.0) / cpus + 1e-9)
        return min(by_cpus, int(node.get("GPU", 0.0) / gpus + 1e-9)) if gpus else by_cpus

    fit = sum(map(fitting, nodes))
    if not fit:
        raise UserError(
            "--cpus-per-trial and --gpus-per-trial must fit on one machine of the cluster",
            f"{cpus:g} CPUs and {gpus:g} GPUs",
            f"the largest has {most_cpus:g} CPUs and {most_gpus:g} GPUs",
        )
    return Resources(cpus, gpus, spec.max_concurrent or fit)
