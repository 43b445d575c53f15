"""Commands for a cluster: submit studies as Ray jobs and follow them, and check a node before it joins."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from las_tune.cli.flags import with_options
from las_tune.cli.search import tune
from las_tune.config import paths, plain_name, require_study_name
from las_tune.errors import INTERRUPTED, require

if TYPE_CHECKING:
    from las_tune.execution import Jobs

DEFAULT_FLAGS = {"--results": '"$HOME/results/las"', "--tracking-uri": "http://127.0.0.1:5000"}
"""Defaults of submitted studies, for the shell of the head: a folder that survives `ray down`, and the MLflow server
that the cluster files start."""
JobAddress = Annotated[
    str, Parameter(help="Cluster: auto (this machine is its head), http://HOST:8265 or ray://HOST:10001.")
]
SubmittedStudy = Annotated[
    str | None, Parameter(help="Name of the study.", show_default=lambda _: "the last submitted study")
]

node = App(name="node", help="Checks of a machine before it joins a cluster; called by the cluster files.")


@node.command
def check(
    *,
    head: Annotated[str, Parameter(help="HOST:PORT of the cluster's head; its versions are compared, too.")] = "",
    constraints: Annotated[
        Path | None, Parameter(help="File with the versions to compare with.", show_default=lambda _: "the checkout's")
    ] = None,
) -> None:
    """Compare the installed versions with constraints.txt, and with the head; exit code 2 if they differ."""
    from las_tune.config import CONSTRAINTS, installed_versions, pinned_versions, require_same_versions
    from las_tune.terminal import print_lines

    file = (constraints or CONSTRAINTS).absolute()
    installed = installed_versions()
    remedy = f"Run pip install -c {file} -e '{file.parent}[demo,cluster]'"
    require_same_versions(pinned_versions(file), installed, f"This machine and {file}", remedy)
    if head:
        from las_tune.execution import check_against_head

        check_against_head(head)
    print_lines([f"All versions match: {', '.join(f'{name} {version}' for name, version in installed.items())}"])


@node.command
def labels() -> None:
    """Print this machine's versions in the format of `ray start --labels`."""
    from las_tune.config import as_labels, installed_versions

    print(",".join(f"{name}={value}" for name, value in as_labels(installed_versions()).items()))


@contextmanager
def _jobs(address: str) -> Iterator[Jobs]:
    from las_tune.execution import jobs_at

    with jobs_at(address) as jobs:
        yield jobs


@with_options("tune", ("category", "data_root", "textures", "study"))
def submit(
    *flags_of_tune: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    address: JobAddress = "auto",
    push_data: Annotated[
        bool,
        Parameter(help="Upload the images from this machine; else the folders are paths on the cluster.", negative=""),
    ] = False,
    follow: Annotated[bool, Parameter(help="Print the output of the study until it ends.", negative="")] = False,
    **options: Any,
) -> None:
    """Run a study on a cluster as a Ray job, independent of this machine. Accepts all flags of tune.

    The name of a study that was stopped, or whose driver died, resumes that study.
    """
    from las_tune.terminal import print_lines

    category: list[str] = options["category"]
    data_root, textures = options.get("data_root", paths.DATA_ROOT), options.get("textures", paths.TEXTURES)
    names = [part for name in category for part in ("--category", name)]
    _check_flags([*names, *flags_of_tune])
    prefix = plain_name(category[0] if len(category) == 1 else "run")
    study = options.get("study") or f"{prefix}-{datetime.now():%Y%m%d-%H%M%S}"
    require_study_name(study)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "images.zip" if push_data else None
        folders = _pack(package, category, data_root, textures) if package else _on_cluster(data_root, textures)
        command = shlex.join(["python", "-m", "las_tune", "tune", *names, "--study", study, *folders, *flags_of_tune])
        given = {flag.partition("=")[0] for flag in flags_of_tune}
        defaults = [f"{flag} {value}" for flag, value in DEFAULT_FLAGS.items() if flag not in given]
        command = " ".join([command, "--address auto", *defaults])
        with _jobs(address) as jobs:
            job_id = jobs.submit(study, command, package)
            print_lines([f"Study {study} runs as job {job_id}.", *_next_steps(address, study)])
            if follow:
                _follow(jobs, job_id)


def _check_flags(flags_of_tune: Sequence[str]) -> None:
    """Parse the flags of tune on this machine, so that mistakes are reported before the job is submitted."""
    App(default_command=tune).parse_args(list(flags_of_tune), exit_on_error=False, print_error=False)


def _on_cluster(data_root: Path, textures: Path) -> list[str]:
    """Return the flags of the folders on the cluster. They must be absolute, because a job has no working directory."""
    for flag, folder in (("--data-root", data_root), ("--textures", textures)):
        require(
            folder.is_absolute(),
            f"{flag} of a submitted study must be an absolute path, got {folder}",
            remedy="Give the folder on the cluster, or upload the images of this machine with --push-data",
        )
    return ["--data-root", str(data_root), "--textures", str(textures)]


def _pack(package: Path, category: list[str], data_root: Path, textures: Path) -> list[str]:
    """Write the images to a package, and return the flags of their folders in the job and of their digest."""
    from las_tune.data import PARTS, TEXTURES, digest_of, find_categories, images_of, pack

    images = images_of(data_root.absolute(), find_categories(category, data_root.absolute()), textures.absolute())
    pack(images, package)
    return ["--data-root", PARTS, "--textures", TEXTURES, "--data-digest", digest_of(images)]


def _next_steps(address: str, study: str) -> list[str]:
    flag = "" if address == "auto" else f" --address {address}"
    return [f"  python -m las_tune {command} {study}{flag}" for command in ("status", "logs --follow", "stop")]


def _follow(jobs: Jobs, job_id: str) -> None:
    """Print the output of a job; exit code 1 if it does not succeed. Ctrl-C leaves the job running."""
    try:
        for text in jobs.follow(job_id):
            print(text, end="", flush=True)
    except KeyboardInterrupt:
        print("\nThe study is still running; `stop` ends it.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    if (job := jobs.find(job_id)).status != "SUCCEEDED":
        print(f"error: job {job_id} {job.status.lower()}: {job.message}", file=sys.stderr)
        sys.exit(1)


def status(study: SubmittedStudy = None, *, address: JobAddress = "auto") -> None:
    """Print the status of a submitted study."""
    from las_tune.terminal import print_lines

    with _jobs(address) as jobs:
        job = jobs.latest(study)
        last = jobs.logs(job.job_id).strip().splitlines()[-1:]
    print_lines(
        [f"Study {job.study}: {job.status.lower()} since {job.started:%Y-%m-%d %H:%M}, job {job.job_id}", *last]
    )


def logs(
    study: SubmittedStudy = None,
    *,
    follow: Annotated[bool, Parameter(help="Keep printing until the study ends.", negative="")] = False,
    address: JobAddress = "auto",
) -> None:
    """Print the output of a submitted study."""
    with _jobs(address) as jobs:
        job = jobs.latest(study)
        if follow:
            _follow(jobs, job.job_id)
        else:
            print(jobs.logs(job.job_id), end="")


def stop(study: Annotated[str, Parameter(help="Name of the study.")], *, address: JobAddress = "auto") -> None:
    """Stop a submitted study; submitting it again under the same name resumes it."""
    from las_tune.terminal import print_lines

    with _jobs(address) as jobs:
        job = jobs.latest(study)
        if not job.has_ended:
            jobs.stop(job.job_id)
            print_lines([f"Study {study} was stopped. Submit it again to resume."])
        else:
            print_lines([f"Study {study} has already ended: {job.status.lower()}."])


def list_studies(*, address: JobAddress = "auto") -> None:
    """List the submitted studies of a cluster."""
    from las_tune.terminal import print_lines

    with _jobs(address) as jobs:
        rows = [f"{job.started:%Y-%m-%d %H:%M}  {job.status.lower():9s}  {job.study}" for job in jobs.all()]
    print_lines(rows or ["No study was submitted to this cluster."])
