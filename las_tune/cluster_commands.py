"""Commands of a cluster: what its nodes ask before they join."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

node = App(name="node", help="What a machine of a cluster asks before it joins; cluster files call it.")


@node.command
def check(
    *,
    head: Annotated[str, Parameter(help="HOST:PORT of the cluster's head, to be compared with.")] = "",
    constraints: Annotated[
        Path | None, Parameter(help="Versions that must be installed.", show_default=lambda _: "the checkout's")
    ] = None,
) -> None:
    """Refuse a machine whose versions are not those of constraints.txt, or not the head's: exit code 2, one line."""
    from las_tune.printing import print_lines
    from las_tune.versions import CONSTRAINTS, installed_versions, require_same, wanted_versions

    file = (constraints or CONSTRAINTS).absolute()
    do = f"pip install -c {file} -e '{file.parent}[demo,cluster]'"
    found = installed_versions()
    require_same(wanted_versions(file), found, f"This machine and {file}", do)
    if head:
        from las_tune.tuning.nodes import check_against_head

        check_against_head(head)
    print_lines([f"versions are as they should be: {', '.join(f'{name} {found[name]}' for name in found)}"])


@node.command
def labels() -> None:
    """Print this machine's versions as ray start --labels takes them."""
    from las_tune.versions import as_labels, installed_versions

    print(",".join(f"{name}={value}" for name, value in as_labels(installed_versions()).items()))
