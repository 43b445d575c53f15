"""The machines of a cluster have the same versions: asked before a node joins, and before a study starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray

# Ray has no public way to ask a cluster that this machine is not part of.
from ray._raylet import GcsClient  # type: ignore[attr-defined]

from las_tune.config.versions import as_labels, from_labels, installed_versions, require_same
from las_tune.errors import UserError, said

ASK_HEAD_S = 30.0
ASK_NODE_S = 120.0
DO = "install both from the same checkout with its constraints.txt"


def check_against_head(address: str) -> None:
    """Raise UserError where this machine differs from the head of the cluster at address (HOST:PORT)."""
    try:
        nodes = GcsClient(address=address).get_all_node_info(timeout=ASK_HEAD_S).values()
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        do = "start the head first; the token in ~/.ray/auth_token must be the head's, and RAY_AUTH_MODE must be token"
        raise UserError("--head must be that of a running cluster", f"{address} ({said(error)})", do) from error
    heads = [dict(node.labels) for node in nodes if node.is_head_node]
    versions = from_labels(heads[-1]) if heads else {}
    if not versions:
        do = 'start it with --labels "$(python -m las_tune node labels)"'
        raise UserError("The head must say which versions it has", f"none from {address}", do)
    require_same(versions, _versions_here(), f"This machine and the head {address}", DO)


def check_nodes() -> None:
    """Raise UserError where a machine of the cluster that this process has joined differs from this one."""
    here = _versions_here()
    for node in alive_nodes():
        there = from_labels(node["Labels"]) or ask_node(node["NodeID"], _versions_here)
        require_same(here, there, f"Node {node['NodeManagerHostname']} and the driver", DO)


def alive_nodes() -> list[dict[str, Any]]:
    """The machines of the cluster that are there, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


def ask_node(node_id: str, question: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns on one machine; raises UserError where that has no las_tune to run it with."""
    task = ray.remote(question).options(num_cpus=0, scheduling_strategy=_on_node(node_id))
    try:
        return ray.get(task.remote(*arguments), timeout=ASK_NODE_S)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1][:160]
        raise UserError("Every machine of the cluster must have las_tune", f"{node_id} ({reason})", DO) from error


def _versions_here() -> dict[str, str]:
    return from_labels(as_labels(installed_versions()))


def is_draining() -> bool:
    """Whether the machine that this worker runs on was told to go, as spot machines are some time before."""
    return ray.get_runtime_context().get_node_id() in ray._private.state.state.get_draining_nodes()


def _on_node(node_id: str) -> Any:
    """Ray's strategy for work that must run on one node, or fail."""
    return ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=False)
