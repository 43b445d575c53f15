"""The nodes of a cluster. All have the same versions: checked before a node joins and before a study starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray

# Ray has no public API to query a cluster that this machine is not part of.
from ray._raylet import GcsClient  # type: ignore[attr-defined]

from las_tune.config import as_labels, from_labels, installed_versions, require_same_versions
from las_tune.errors import UserError, short_message

HEAD_TIMEOUT_S = 30.0
NODE_TIMEOUT_S = 120.0
REMEDY = "Install both from the same checkout with its constraints.txt"


def check_against_head(address: str) -> None:
    """Compare the versions of this machine with those of a cluster's head.

    Args:
        address: HOST:PORT of the head.

    Raises:
        UserError: if the head does not answer, has no version labels, or has other versions.
    """
    try:
        nodes = GcsClient(address=address).get_all_node_info(timeout=HEAD_TIMEOUT_S).values()
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise UserError(
            f"No Ray head answers at --head {address} ({short_message(error)})",
            remedy="Start the head first. This machine needs the head's ~/.ray/auth_token and RAY_AUTH_MODE=token",
        ) from error
    heads = [dict(node.labels) for node in nodes if node.is_head_node]
    versions = from_labels(heads[-1]) if heads else {}
    if not versions:
        raise UserError(
            f"The head {address} was started without version labels",
            remedy='Start it with --labels "$(python -m las_tune node labels)"',
        )
    require_same_versions(versions, _local_versions(), f"This machine and the head {address}", REMEDY)


def check_nodes() -> None:
    """Raise UserError if a node of the joined cluster has other versions than the driver."""
    expected = _local_versions()
    for node in alive_nodes():
        versions = from_labels(node["Labels"]) or run_on_node(node["NodeID"], _local_versions)
        require_same_versions(expected, versions, f"Node {node['NodeManagerHostname']} and the driver", REMEDY)


def alive_nodes() -> list[dict[str, Any]]:
    """Return the nodes of the cluster that are alive, in the format of `ray.nodes()`."""
    return [node for node in ray.nodes() if node["Alive"]]


def run_on_node(node_id: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function on one node and return its result; raise UserError if las_tune is not installed there."""
    task = ray.remote(function).options(num_cpus=0, scheduling_strategy=_on_node(node_id))
    try:
        return ray.get(task.remote(*arguments), timeout=NODE_TIMEOUT_S)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1][:160]
        raise UserError(f"las_tune cannot run on node {node_id} ({reason})", remedy=REMEDY) from error


def _local_versions() -> dict[str, str]:
    return from_labels(as_labels(installed_versions()))


def is_draining() -> bool:
    """Whether this worker's node is being drained, as a spot machine is some time before it is taken away."""
    # Ray has no public API for the draining state of a node.
    return ray.get_runtime_context().get_node_id() in ray._private.state.state.get_draining_nodes()


def _on_node(node_id: str) -> Any:
    """Return the scheduling strategy that runs a task on this node or fails."""
    return ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=False)
