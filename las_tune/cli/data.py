"""Commands about data and search spaces: fetch, lay out, check."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from las_tune.cli.flags import Category, DataRoot, find_categories
from las_tune.config import paths

data = App(name="data", help="Fetch data sets, look at what a category holds.")
space = App(name="space", help="Look at search spaces.")


@data.command
def fetch(what: Literal["dtd", "mpdd"], *, folder: Path | None = None) -> None:
    """Download a data set into the folder where tune looks for it.

    Parameters
    ----------
    what
        dtd: textures, by torchvision. mpdd: the six categories of metal parts, from Google Drive.
    folder
        Where to put it, if not in data/dtd or data/anomaly_dataset.
    """
    from las_tune.data.download import fetch_dtd, fetch_mpdd
    from las_tune.terminal.progress import progress_bar
    from las_tune.terminal.tables import print_lines

    if what == "dtd":
        fetched = fetch_dtd((folder or paths.TEXTURES).absolute())
    else:
        with progress_bar() as progress:
            fetched = fetch_mpdd(
                (folder or paths.DATA_ROOT).absolute(),
                progress=lambda done, total: progress("downloading MPDD (MB)", done // 10**6, total // 10**6),
            )
    if not fetched.names:
        print_lines([f"{what} is in {fetched.folder} already"])
    else:
        print_lines([f"{what} is in {fetched.folder}: {', '.join(fetched.names)}"])
        if fetched.sha256:
            print_lines([f"sha256 of the archive: {fetched.sha256} (none is published to compare it with)"])


@data.command
def check(*, category: Category, data_root: DataRoot = paths.DATA_ROOT) -> None:
    """Show what a category holds, and what is wrong with it; exit code 2 if anything is."""
    from las_tune.data.category import index_category
    from las_tune.data.check import check_category
    from las_tune.terminal.check_tables import print_check
    from las_tune.terminal.progress import progress_bar

    problems = 0
    for name in find_categories(category, data_root.absolute()):
        with progress_bar() as progress:
            category_ = index_category(data_root.absolute(), name)
            checked = check_category(category_, partial(progress, f"reading {name}"))
        print_check(name, checked)
        problems += len(checked.problems)
    if problems:
        sys.exit(2)


@data.command
def init(
    folder: Path,
    *,
    good: Annotated[
        tuple[str, ...], Parameter(help="Images of good parts: files, folders, patterns.", consume_multiple=True)
    ],
    defective: Annotated[tuple[str, ...], Parameter(help="Images of defective parts.", consume_multiple=True)] = (),
    seed: int = 0,
) -> None:
    """Make a category out of loose images: links in the layout that tune reads, nothing is copied.

    Parameters
    ----------
    folder
        The category's folder; its parent is what --data-root takes.
    seed
        Decides which good images are kept for the test.
    """
    from las_tune.data.layout import lay_out
    from las_tune.terminal.check_tables import print_layout

    print_layout(lay_out(folder.absolute(), good, defective, seed))


@space.command(name="check")
def check_space(file: str) -> None:
    """Show what each knob of a search space moves; exit code 2 if one moves nothing.

    Parameters
    ----------
    file
        A TOML file, or the name of a shipped space.
    """
    from las_tune.space.search_space import load_space
    from las_tune.space.sensitivity import knob_effects, require_effects
    from las_tune.terminal.check_tables import print_effects
    from las_tune.terminal.progress import progress_bar

    loaded = load_space(file)
    with progress_bar() as progress:
        effects = knob_effects(loaded, partial(progress, "moving knobs"))
    print_effects(loaded.name, effects)
    require_effects(loaded, effects)
