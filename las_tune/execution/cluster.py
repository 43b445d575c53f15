"""The Ray cluster: starting or joining it, its maximum size, and the resources of a trial."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import ray
import yaml
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # not in its stub

from las_tune.config import StudySpec, make_folder
from las_tune.errors import UserError, short_message, type_and_message
from las_tune.execution.checkpoint_storage import CheckpointStorage
from las_tune.execution.nodes import alive_nodes, check_nodes, run_on_node

BOOTSTRAP_FILE = Path("~/ray_bootstrap_config.yaml")
"""The cluster file that `ray up` writes on the head for the autoscaler."""
KUBERAY_VARIABLE = "KUBERAY_GEN_RAY_START_CMD"
"""Environment variable of Ray's containers on Kubernetes, where the driver cannot see which workers may be added."""
HEAD_RESOURCE = "node:__internal_head__"
"""Resource by which Ray marks the head."""
LOCAL_FILE_SYSTEMS = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "overlay", "tmpfs", "f2fs"}


@dataclass(frozen=True)
class Resources:
    """Resources of one trial, and the number of trials that run in parallel."""

    cpus: float
    gpus: float
    max_concurrent: int

    @property
    def cost_unit(self) -> tuple[str, float]:
        """Unit of a trial's cost, gpu_seconds or cpu_seconds, and number of units per second."""
        return ("gpu_seconds", self.gpus) if self.gpus else ("cpu_seconds", self.cpus)

    @property
    def num_threads(self) -> int:
        """Number of torch threads of a trial, so that parallel trials do not compete for cores."""
        return max(1, int(self.cpus))

    def num_slots(self, machine: Mapping[str, float]) -> int:
        """Return the number of trials that fit on a machine with the given resources."""
        by_cpus = int(machine.get("CPU", 0.0) / self.cpus + 1e-9)
        return min(by_cpus, int(machine.get("GPU", 0.0) / self.gpus + 1e-9)) if self.gpus else by_cpus

    def num_available_slots(self) -> int:
        """Return the number of trials that fit on the nodes that are alive; at least 1, since a node may be added."""
        num_slots = sum(self.num_slots(node["Resources"]) for node in alive_nodes())
        return max(1, min(self.max_concurrent, num_slots))


@contextmanager
def ray_cluster(address: str | None) -> Iterator[None]:
    """Start Ray on this machine, or join the cluster at an address, and disconnect at the end.

    Args:
        address: None for this machine alone.

    Raises:
        UserError: if Ray does not start or does not answer, or a node has other versions.
    """
    _check_process(address)
    if address is None and "RAY_AUTH_TOKEN" not in os.environ:
        create_token()
    with _restored_process(), _ray_settings():
        try:
            ray.init(address or "local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError, SystemExit) as error:  # Ray exits if no head answers
            if address is None and not isinstance(error, RuntimeError):
                raise
            raise _start_error(address, error) from error
        except Exception as error:
            if address is None and type(error) is Exception:  # raised by Ray if its start times out
                raise _start_error(address, error) from error
            raise
        try:
            if address is not None:
                check_nodes()
            yield
        finally:
            ray.shutdown()


def _check_process(address: str | None) -> None:
    """Raise UserError if Ray already runs in this process, or would start without a token."""
    if ray.is_initialized():
        raise UserError(
            "Ray is already running in this process, and a study starts its own", remedy="Call ray.shutdown() first"
        )
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if address is None and mode != "token":
        raise UserError(
            f"RAY_AUTH_MODE must be token, got {mode}: Ray listens on the network and executes any code it receives",
            remedy="Unset it. A token is created if there is none",
        )


@contextmanager
def _ray_settings() -> Iterator[None]:
    """Set Ray's environment variables, and silence its log of failed trials: the study stores their tracebacks."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # the listeners record all results
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # verbose=0 silences the old output only
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ray would treat Ctrl-C as the end of the search
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "600")  # Ray's snapshot grows with the study and is not read
    logger = logging.getLogger("ray.tune")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _restored_process() -> Iterator[None]:
    """Restore what Ray changes in this process: environment, warning filters, log level and signal handlers."""
    environment = dict(os.environ)
    logger = logging.getLogger("ray")
    level = logger.level
    is_main_thread = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with warnings.catch_warnings():
            yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        _reset_authentication()
        logger.setLevel(level)
        for number, handler in handlers.items():
            if is_main_thread and handler is not None:  # only the main thread may set handlers
                signal.signal(number, handler)


def _reset_authentication() -> None:
    """Drop the authentication mode and token that Ray has cached, so that it reads the environment again.

    With the cached token, this process would reject every call of a cluster that runs without tokens.
    """
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _start_error(address: str | None, error: BaseException) -> UserError:
    reason = short_message(error).rstrip(".")
    if address is not None:
        return UserError(f"No Ray cluster answers at --address {address} ({reason})", remedy="Start the cluster first")
    return UserError(
        f"Ray failed to start on this machine ({reason})",
        remedy="Try again when the machine is less busy. Ray's logs are in /tmp/ray",
    )


def create_token() -> None:
    """Create Ray's authentication token if there is none, readable by this user only (Ray's own is not)."""
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    if not file.exists():
        make_folder(file.parent, "RAY_AUTH_TOKEN_PATH")
        complete = file.with_name(f"{file.name}.{os.getpid()}")
        complete.touch(0o600)
        complete.write_text(secrets.token_hex(32))
        with suppress(FileExistsError):  # another study has just created it; it must not be replaced
            file.hardlink_to(complete)
        complete.unlink()
    elif file.stat().st_uid == os.getuid():
        file.chmod(file.stat().st_mode & 0o700)


@dataclass(frozen=True)
class MachineGroup:
    """Machines with the same resources."""

    resources: dict[str, float]
    count: int


def machines_of_cluster(address: str | None, bootstrap: Path = BOOTSTRAP_FILE) -> list[MachineGroup]:
    """Return the machines that the cluster can grow to: the head, and the workers that the autoscaler may add.

    Args:
        address: None for this machine alone, which cannot grow.
        bootstrap: the cluster file on the head. If it is missing or has no resources, the cluster cannot grow.

    Raises:
        UserError: if the cluster file cannot be read.
    """
    machines = [MachineGroup(node["Resources"], 1) for node in alive_nodes()]
    file = bootstrap.expanduser()
    if address is None or not file.is_file():
        return machines
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        num_left = config["max_workers"]
        node_types = config["available_node_types"]
        worker_types = [node_type for name, node_type in node_types.items() if name != config["head_node_type"]]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(
            f"The cluster file on the head cannot be read: {bootstrap} ({type_and_message(error)})",
            remedy="Run `ray up` again, which writes it",
        ) from error
    workers = []
    for node_type in sorted(worker_types, key=lambda node_type: -node_type.get("resources", {}).get("GPU", 0)):
        count = min(node_type.get("max_workers", num_left), num_left) if node_type.get("resources") else 0
        workers += [MachineGroup(node_type["resources"], count)] if count else []
        num_left -= count
    heads = [machine for machine in machines if HEAD_RESOURCE in machine.resources]
    return [*heads, *workers] if workers else machines


def resources_of(spec: StudySpec) -> Resources:
    """Return the resources of a trial: those of the flags, by default a quarter of a machine's cores and one GPU.

    The number of parallel trials is what the cluster can grow to, because pending trials are what makes it grow.

    Raises:
        UserError: if a trial fits on no machine.
    """
    machines = machines_of_cluster(spec.address)
    max_cpus, max_gpus = (max(m.resources.get(name, 0.0) for m in machines) for name in ("CPU", "GPU"))
    gpus = spec.gpus_per_trial if spec.gpus_per_trial is not None else min(1.0, max_gpus)
    usable = [machine for machine in machines if not gpus or machine.resources.get("GPU", 0.0) >= gpus]
    cores = max((machine.resources.get("CPU", 0.0) for machine in usable), default=max_cpus)
    cpus = spec.cpus_per_trial or max(1, int(cores) // 4)

    resources = Resources(cpus, gpus, 1)
    num_slots = sum(resources.num_slots(machine.resources) * machine.count for machine in machines)
    is_kubernetes = spec.address is not None and KUBERAY_VARIABLE in os.environ
    if not num_slots and not (is_kubernetes and spec.max_concurrent):
        remedy = "Lower --cpus-per-trial or --gpus-per-trial"
        raise UserError(
            f"A trial with {cpus:g} CPUs and {gpus:g} GPUs fits on no machine of the cluster: "
            f"the largest has {max_cpus:g} CPUs and {max_gpus:g} GPUs",
            remedy=f"{remedy}, or give --max-concurrent if larger workers are yet to be added"
            if is_kubernetes
            else remedy,
        )
    return replace(resources, max_concurrent=spec.max_concurrent or num_slots)


def check_storage(spec: StudySpec) -> None:
    """Raise UserError if checkpoints would be stored in a folder that other machines of the cluster cannot see.

    The parent of the run's folder must exist.
    """
    storage = CheckpointStorage.of(spec)
    if not storage.is_local or sum(machine.count for machine in machines_of_cluster(spec.address)) < 2:
        return
    remedy = "Give --storage a shared folder, s3://... or gs://..."
    driver_node = ray.get_runtime_context().get_node_id()
    other_nodes = [node for node in alive_nodes() if node["NodeID"] != driver_node]
    folder = Path(storage.root).parent  # the run's own folder would look like a study that was started
    marker = folder / f".seen-{uuid.uuid4().hex}"
    marker.touch()
    try:
        blind = [
            node["NodeManagerHostname"] for node in other_nodes if not run_on_node(node["NodeID"], _exists, str(marker))
        ]
    finally:
        marker.unlink()
    if blind:
        raise UserError(
            f"The checkpoint folder {storage.root} cannot be seen from {', '.join(sorted(blind))}", remedy=remedy
        )
    if not other_nodes and _is_local_disk(folder):
        raise UserError(
            f"The checkpoint folder {storage.root} is on a local disk, and the cluster can grow", remedy=remedy
        )


def _exists(path: str) -> bool:
    return Path(path).exists()


def _is_local_disk(path: Path) -> bool:
    """Whether a folder is on a disk of this machine, by the type of its file system."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    parents = [(point, file_system) for point, file_system in mounts if path.is_relative_to(point)]
    return max(parents, key=lambda mount: len(mount[0]), default=("", ""))[1] in LOCAL_FILE_SYSTEMS
