"""Commands of a cluster: studies as its jobs, and what its nodes ask before they join."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from las_tune.cli import flags
from las_tune.cli.flags import find_categories, plain_name
from las_tune.cli.search import tune
from las_tune.config import paths
from las_tune.config.study_spec import require_study_name
from las_tune.config.train_spec import require
from las_tune.errors import INTERRUPTED

if TYPE_CHECKING:
    from las_tune.execution.jobs import Jobs

USUAL = {"--results": '"$HOME/results/las"', "--tracking-uri": "http://127.0.0.1:5000"}
"""What submitted studies get where it is not given, for the head's shell: a folder that outlives `ray down`, and the
MLflow that cluster files start."""
JobAddress = Annotated[
    str, Parameter(help="The cluster: auto (this machine is its head), http://HOST:8265, ray://HOST:10001.")
]
OnCluster = Annotated[
    str | None, Parameter(help="Name of the study.", show_default=lambda _: "the latest that was submitted")
]

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
    from las_tune.config.versions import CONSTRAINTS, installed_versions, require_same, wanted_versions
    from las_tune.terminal.tables import print_lines

    file = (constraints or CONSTRAINTS).absolute()
    do = f"pip install -c {file} -e '{file.parent}[demo,cluster]'"
    found = installed_versions()
    require_same(wanted_versions(file), found, f"This machine and {file}", do)
    if head:
        from las_tune.execution.nodes import check_against_head

        check_against_head(head)
    print_lines([f"versions are as they should be: {', '.join(f'{name} {found[name]}' for name in found)}"])


@node.command
def labels() -> None:
    """Print this machine's versions as ray start --labels takes them."""
    from las_tune.config.versions import as_labels, installed_versions

    print(",".join(f"{name}={value}" for name, value in as_labels(installed_versions()).items()))


@contextmanager
def _jobs(address: str) -> Iterator[Jobs]:
    from las_tune.execution.jobs import jobs_at

    with jobs_at(address) as jobs:
        yield jobs


def submit(
    *flags_of_tune: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    category: flags.Category,
    address: JobAddress = "auto",
    study: flags.Study = None,
    data_root: flags.DataRoot = paths.DATA_ROOT,
    textures: flags.Textures = paths.TEXTURES,
    push_data: Annotated[
        bool,
        Parameter(help="Send the images from this machine, once; else the folders are the cluster's.", negative=""),
    ] = False,
    follow: Annotated[bool, Parameter(help="Print what the study prints until it ends.", negative="")] = False,
) -> None:
    """Run a study on a cluster as a Ray job: all flags of tune; it goes on when this machine is switched off.

    The name of a study that was stopped, or whose driver died, goes on with that study.
    """
    from las_tune.terminal.tables import print_lines

    names = [part for name in category for part in ("--category", name)]
    _check_flags([*names, *flags_of_tune])
    study = study or f"{plain_name(category[0] if len(category) == 1 else 'run')}-{datetime.now():%Y%m%d-%H%M%S}"
    require_study_name(study)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "images.zip" if push_data else None
        where = _pushed(package, category, data_root, textures) if package else _on_cluster(data_root, textures)
        command = shlex.join(["python", "-m", "las_tune", "tune", *names, "--study", study, *where, *flags_of_tune])
        given = {flag.partition("=")[0] for flag in flags_of_tune}
        usual = [f"{flag} {value}" for flag, value in USUAL.items() if flag not in given]
        command = " ".join([command, "--address auto", *usual])
        with _jobs(address) as jobs:
            job_id = jobs.submit(study, command, package)
            print_lines([f"study {study} runs as job {job_id}", *_next_steps(address, study)])
            if follow:
                _follow(jobs, job_id)


def _check_flags(flags_of_tune: Sequence[str]) -> None:
    """Raise here, not on the cluster, for a flag that tune does not have, or a value that it does not take."""
    App(default_command=tune).parse_args(list(flags_of_tune), exit_on_error=False, print_error=False)


def _on_cluster(data_root: Path, textures: Path) -> list[str]:
    """Folders of the cluster, where what they hold is checked: a job has no folder that names could be relative to."""
    for flag, folder in (("--data-root", data_root), ("--textures", textures)):
        do = "give the cluster's folder, or --push-data to send this machine's"
        require(folder.is_absolute(), f"{flag} of a study that is submitted must be absolute", folder, do)
    return ["--data-root", str(data_root), "--textures", str(textures)]


def _pushed(package: Path, category: list[str], data_root: Path, textures: Path) -> list[str]:
    """Pack the images; where they will be, and their digest."""
    from las_tune.data.digest import PARTS, TEXTURES, digest_of, images_of, pack

    images = images_of(data_root.absolute(), find_categories(category, data_root.absolute()), textures.absolute())
    pack(images, package)
    return ["--data-root", PARTS, "--textures", TEXTURES, "--data-digest", digest_of(images)]


def _next_steps(address: str, study: str) -> list[str]:
    where = "" if address == "auto" else f" --address {address}"
    return [f"  python -m las_tune {command} {study}{where}" for command in ("status", "logs --follow", "stop")]


def _follow(jobs: Jobs, job_id: str) -> None:
    """Print what a job prints; exit code 1 where it does not succeed. Ctrl-C leaves it running."""
    try:
        for text in jobs.follow(job_id):
            print(text, end="", flush=True)
    except KeyboardInterrupt:
        print("\nthe study goes on; `stop` ends it", file=sys.stderr)
        sys.exit(INTERRUPTED)
    if (job := jobs.find(job_id)).status != "SUCCEEDED":
        print(f"error: job {job_id} {job.status.lower()}: {job.message}", file=sys.stderr)
        sys.exit(1)


def status(study: OnCluster = None, *, address: JobAddress = "auto") -> None:
    """Print what became of a study that was submitted."""
    from las_tune.terminal.tables import print_lines

    with _jobs(address) as jobs:
        job = jobs.latest(study)
        last = jobs.logs(job.job_id).strip().splitlines()[-1:]
    print_lines(
        [f"study {job.study}: {job.status.lower()} since {job.started:%Y-%m-%d %H:%M}, job {job.job_id}", *last]
    )


def logs(
    study: OnCluster = None,
    *,
    follow: Annotated[bool, Parameter(help="Go on until the study ends.", negative="")] = False,
    address: JobAddress = "auto",
) -> None:
    """Print what a submitted study has printed."""
    with _jobs(address) as jobs:
        job = jobs.latest(study)
        if follow:
            _follow(jobs, job.job_id)
        else:
            print(jobs.logs(job.job_id), end="")


def stop(study: Annotated[str, Parameter(help="Name of the study.")], *, address: JobAddress = "auto") -> None:
    """Stop a submitted study; submitted again under its name it goes on."""
    from las_tune.terminal.tables import print_lines

    with _jobs(address) as jobs:
        job = jobs.latest(study)
        if not job.has_ended:
            jobs.stop(job.job_id)
            print_lines([f"study {study} is stopped; the same submit goes on with it"])
        else:
            print_lines([f"study {study} has {job.status.lower()} already"])


def list_studies(*, address: JobAddress = "auto") -> None:
    """List the studies that were submitted to a cluster."""
    from las_tune.terminal.tables import print_lines

    with _jobs(address) as jobs:
        rows = [f"{job.started:%Y-%m-%d %H:%M}  {job.status.lower():9s}  {job.study}" for job in jobs.all()]
    print_lines(rows or ["no study was submitted to this cluster"])
