"""Commands for data and search spaces: download, create and check categories, check a search space."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from las_tune.cli.flags import Category, DataRoot
from las_tune.config import paths

data = App(name="data", help="Download data sets, create and check categories.")
space = App(name="space", help="Check search spaces.")


@data.command
def fetch(what: Literal["dtd", "mpdd"], *, folder: Path | None = None) -> None:
    """Download a data set into the default folder of tune.

    Parameters
    ----------
    what
        dtd: textures, from torchvision. mpdd: six categories of metal parts, from Google Drive.
    folder
        Target folder; the default is data/dtd or data/anomaly_dataset.
    """
    from las_tune.data import fetch_dtd, fetch_mpdd
    from las_tune.terminal import print_lines, progress_bar

    if what == "dtd":
        fetched = fetch_dtd((folder or paths.TEXTURES).absolute())
    else:
        with progress_bar() as progress:
            fetched = fetch_mpdd((folder or paths.DATA_ROOT).absolute(), progress=progress)
    if not fetched.names:
        print_lines([f"{what} is already in {fetched.folder}"])
    else:
        print_lines([f"{what} is in {fetched.folder}: {', '.join(fetched.names)}"])
        if fetched.sha256:
            print_lines([f"SHA-256 of the archive: {fetched.sha256} (no published value to compare with)"])


@data.command
def check(*, category: Category, data_root: DataRoot = paths.DATA_ROOT) -> None:
    """List the images of a category and report problems; exit code 2 if there are any."""
    from las_tune.data import check_category, find_categories, index_category
    from las_tune.terminal import print_check, progress_bar

    num_problems = 0
    for name in find_categories(category, data_root.absolute()):
        with progress_bar() as progress:
            category_ = index_category(data_root.absolute(), name)
            checked = check_category(category_, progress)
        print_check(name, checked)
        num_problems += len(checked.problems)
    if num_problems:
        sys.exit(2)


@data.command
def init(
    folder: Path,
    *,
    good: Annotated[
        tuple[str, ...], Parameter(help="Images of good parts: files, folders or glob patterns.", consume_multiple=True)
    ],
    defective: Annotated[
        tuple[str, ...],
        Parameter(help="Images of defective parts: files, folders or glob patterns.", consume_multiple=True),
    ] = (),
    seed: int = 0,
) -> None:
    """Create a category from loose images, as links in the required layout; nothing is copied.

    Parameters
    ----------
    folder
        Folder of the category; pass its parent as --data-root.
    seed
        Random seed that selects the good images for testing.
    """
    from las_tune.data import lay_out
    from las_tune.terminal import print_layout

    print_layout(lay_out(folder.absolute(), good, defective, seed))


@space.command(name="check")
def check_space(file: str) -> None:
    """Measure the effect of each parameter of a search space; exit code 2 if one has none.

    Parameters
    ----------
    file
        A TOML file, or the name of a search space of the package.
    """
    from las_tune.space import load_space, measure_sensitivity, require_effects
    from las_tune.terminal import print_effects, progress_bar

    loaded = load_space(file)
    with progress_bar() as progress:
        effects = measure_sensitivity(loaded, progress)
    print_effects(loaded.name, effects)
    require_effects(loaded, effects)
