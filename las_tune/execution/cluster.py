"""The Ray cluster: start it on this machine or join it, what it can become, and what of it a trial gets."""

from __future__ import annotations

import logging
import os
import secrets
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import ray
import yaml

from las_tune.config.files import make_folder
from las_tune.config.study_spec import StudySpec
from las_tune.errors import UserError, one_line, said
from las_tune.execution.checkpoint_storage import Storage
from las_tune.execution.nodes import alive_nodes, ask_node, check_nodes

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves the cluster file on the head, for the autoscaler."""
KUBERAY = "KUBERAY_GEN_RAY_START_CMD"
"""Environment variable of Ray's containers in Kubernetes, where nobody tells the driver what workers there may be."""
HEAD = "node:__internal_head__"
"""Ray's mark among the resources of a head."""


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

    def fitting(self, machine: Mapping[str, float]) -> int:
        """How many trials a machine of these resources holds."""
        by_cpus = int(machine.get("CPU", 0.0) / self.cpus + 1e-9)
        return min(by_cpus, int(machine.get("GPU", 0.0) / self.gpus + 1e-9)) if self.gpus else by_cpus

    def places_now(self) -> int:
        """Of trials, on the machines that are there; where none is there yet, the first that comes."""
        there = sum(self.fitting(node["Resources"]) for node in alive_nodes())
        return max(1, min(self.max_concurrent, there))


@contextmanager
def ray_cluster(address: str | None) -> Iterator[None]:
    """Start Ray on this machine, or join the cluster at address; leave it at the end."""
    if ray.is_initialized():
        raise UserError("Ray must not run in this process: a study starts its own", "ray.init()", "call ray.shutdown()")
    if address is None and os.environ.get("RAY_AUTH_MODE", "token") != "token":
        raise UserError(
            "RAY_AUTH_MODE must be token: Ray listens for the whole network, and runs what it is told",
            os.environ["RAY_AUTH_MODE"],
            "unset it: a token is made where there is none",
        )
    if address is None and "RAY_AUTH_TOKEN" not in os.environ:
        keep_token()
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # listeners record what is to be recorded
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # verbose=0 is silent in the old output only
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ray would take Ctrl-C for the end of the search
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "600")  # nobody reads Ray's snapshot, which grows with the study
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what trials failed of is told by us, and in files
    try:
        ray.init(address or "local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, SystemExit) as error:  # Ray itself exits where nobody answers
        if address is None and not isinstance(error, RuntimeError):
            raise
        raise _no_ray(address, error) from error
    except Exception as error:
        if address is None and type(error) is Exception:  # as Ray says that its start took too long
            raise _no_ray(address, error) from error
        raise
    try:
        if address is not None:
            check_nodes()
        yield
    finally:
        ray.shutdown()


def _no_ray(address: str | None, error: BaseException) -> UserError:
    told = said(error).rstrip(".")
    if address is not None:
        return UserError("--address must be that of a running Ray cluster", f"{address} ({told})", "start it")
    return UserError(
        "Ray must start on this machine", told, "try again when it is less busy; /tmp/ray has Ray's own logs"
    )


def keep_token() -> None:
    """Make Ray's token where there is none, for this user's eyes: one that Ray itself makes, others can read."""
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    if not file.exists():
        make_folder(file.parent, "RAY_AUTH_TOKEN_PATH")
        whole = file.with_name(f"{file.name}.{os.getpid()}")
        whole.touch(0o600)
        whole.write_text(secrets.token_hex(32))
        with suppress(FileExistsError):  # another study was faster
            file.hardlink_to(whole)
        whole.unlink()
    elif file.stat().st_uid == os.getuid():
        file.chmod(file.stat().st_mode & 0o700)


@dataclass(frozen=True)
class Machines:
    """Machines of one kind."""

    resources: dict[str, float]
    number: int


def machines_of_cluster(address: str | None, bootstrap: Path = BOOTSTRAP) -> list[Machines]:
    """What the cluster can become: its head, and of the other kinds as many as the autoscaler may start.

    Args:
        address: None for this machine alone, which stays as it is.
        bootstrap: the cluster file on the head; where it is missing, or names no resources, the cluster stays as it is.
    """
    there = [Machines(node["Resources"], 1) for node in alive_nodes()]
    if address is None or not bootstrap.expanduser().is_file():
        return there
    try:
        config = yaml.safe_load(bootstrap.expanduser().read_text(encoding="utf-8"))
        left = config["max_workers"]
        kinds = [kind for name, kind in config["available_node_types"].items() if name != config["head_node_type"]]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(
            "The cluster file on the head must be as `ray up` left it",
            f"{bootstrap} ({one_line(error)})",
            "run `ray up` again",
        ) from error
    workers = []
    for kind in sorted(kinds, key=lambda kind: -kind.get("resources", {}).get("GPU", 0)):
        number = min(kind.get("max_workers", left), left) if kind.get("resources") else 0
        workers += [Machines(kind["resources"], number)] if number else []
        left -= number
    heads = [machine for machine in there if HEAD in machine.resources]
    return [*heads, *workers] if workers else there


def resources_of(spec: StudySpec) -> Resources:
    """What the flags say, else one GPU where any can be had, a quarter of a machine's cores, and all that fit.

    A cluster that grows is asked for as many trials as it can become to hold: pending ones are what makes it grow.
    """
    machines = machines_of_cluster(spec.address)
    most_cpus, most_gpus = (max(one.resources.get(kind, 0.0) for one in machines) for kind in ("CPU", "GPU"))
    gpus = spec.gpus_per_trial if spec.gpus_per_trial is not None else min(1.0, most_gpus)
    useful = [one for one in machines if not gpus or one.resources.get("GPU", 0.0) >= gpus]
    cores = max((one.resources.get("CPU", 0.0) for one in useful), default=most_cpus)
    cpus = spec.cpus_per_trial or max(1, int(cores) // 4)

    one = Resources(cpus, gpus, 1)
    fit = sum(one.fitting(machine.resources) * machine.number for machine in machines)
    on_kubernetes = spec.address is not None and KUBERAY in os.environ
    if not fit and not (on_kubernetes and spec.max_concurrent):
        do = f"the largest has {most_cpus:g} CPUs and {most_gpus:g} GPUs"
        raise UserError(
            "--cpus-per-trial and --gpus-per-trial must fit on one machine of the cluster",
            f"{cpus:g} CPUs and {gpus:g} GPUs",
            f"{do}; for workers that are yet to come, give --max-concurrent" if on_kubernetes else do,
        )
    return replace(one, max_concurrent=spec.max_concurrent or fit)


def check_storage(spec: StudySpec) -> None:
    """Raise UserError where checkpoints would lie in a folder, which is there, that other machines do not see."""
    storage = Storage.of(spec)
    if not storage.is_local or sum(machine.number for machine in machines_of_cluster(spec.address)) < 2:
        return
    rule = "--storage must be seen by every machine of a cluster: s3://, gs:// or a shared folder"
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in alive_nodes() if node["NodeID"] != here]
    folder = Path(storage.root).parent  # the run's own would look like a study that was begun
    marker = folder / f".seen-{uuid.uuid4().hex}"
    marker.touch()
    try:
        blind = [node["NodeManagerHostname"] for node in others if not ask_node(node["NodeID"], _sees, str(marker))]
    finally:
        marker.unlink()
    if blind:
        raise UserError(rule, f"{storage.root}, which {', '.join(sorted(blind))} cannot see", "give --storage")
    if not others and _is_of_this_machine(folder):
        raise UserError(rule, f"{storage.root}, a disk of this machine, and the cluster can grow", "give --storage")


def _sees(path: str) -> bool:
    return Path(path).exists()


def _is_of_this_machine(path: Path) -> bool:
    """Whether a folder lies on a disk of this machine, by the kind of its file system."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    above = [(point, kind) for point, kind in mounts if path.is_relative_to(point)]
    kind = max(above, key=lambda mount: len(mount[0]), default=("", ""))[1]
    return kind in {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "overlay", "tmpfs", "f2fs"}
