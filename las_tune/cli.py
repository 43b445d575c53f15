"""The command line: commands and flags become specs. Nothing is computed here, nothing heavy is imported at the top."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from cyclopts import App, CycloptsError, Group, Parameter

from las_tune import __version__
from las_tune.demo import DEMO, demo_folders
from las_tune.errors import UserError
from las_tune.spec import MPDD_CATEGORIES, Objective, Sampler, Scheduler, StudySpec, TrainSpec

DATA = Group("Data", sort_key=1)
TRAINING = Group("Training", sort_key=2)
SEARCH = Group("Search", sort_key=3)
RESOURCES = Group("Resources", sort_key=4)
RECORD = Group("Results and record", sort_key=5)


def _flag(group: Group, text: str, shown: str | None = None, **options: Any) -> Parameter:
    """A flag of a group; shown stands in for a default that the demo changes."""
    show = (lambda _: shown) if shown else None
    return Parameter(group=group, help=text, show_default=show, **options)


def _shown(name: str, usual: object) -> str:
    return f"{usual}; demo: {DEMO[name]}"


DEFAULTS = TrainSpec()
CATEGORY_HELP = (
    "Folder in --data-root; 'all' is every one found; may be repeated. "
    f"MPDD's: {', '.join(MPDD_CATEGORIES)}; your own parts in the same layout."
)
Category = Annotated[list[str], _flag(DATA, CATEGORY_HELP, negative="")]
DataRoot = Annotated[Path, _flag(DATA, "Folder that holds the categories.")]
Textures = Annotated[Path, _flag(DATA, "Folder of textures (DTD, or any pictures) that defects are painted with.")]
SkipBroken = Annotated[bool, _flag(DATA, "Leave broken pictures out and count them.", negative="")]
Demo = Annotated[bool, _flag(DATA, "Render a small bracket_black and search it: no data needed.", negative="")]
ImageSize = Annotated[
    int | None, _flag(TRAINING, "Side in pixels to which pictures are resized.", _shown("image_size", 288))
]
BatchSize = Annotated[int, _flag(TRAINING, "Normal pictures a step; as many synthesised ones go with them.")]
Epochs = Annotated[int | None, _flag(TRAINING, "Epochs of a training.", _shown("epochs", 50))]
Seed = Annotated[int, _flag(TRAINING, "Seed of the splits, the search and every training.")]
BackboneName = Annotated[
    str | None,
    _flag(
        TRAINING,
        "Frozen network: efficientnet_lite0, or a convolutional one of torchvision (resnet18, ...).",
        _shown("backbone", DEFAULTS.backbone),
    ),
]
BackboneWeights = Annotated[str, _flag(TRAINING, "imagenet, random, or the file of a state dict.")]
ObjectiveName = Annotated[
    Objective,
    _flag(TRAINING, "What is maximised, on validation pictures; auto: combined with masks, else image_auroc."),
]
Results = Annotated[Path, _flag(RECORD, "Folder of all studies.")]
Study = Annotated[str | None, _flag(RECORD, "Name of the study.", "<category>-<time>")]

app = App(
    name="las_tune",
    version=__version__,
    help="Search the hyperparameters of LAS anomaly detectors for metal parts, category by category.",
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
    help_epilogue="Example: python -m las_tune --category bracket_black --demo",
)
data = App(name="data", help="Fetch data sets, look at what a category holds.")
app.command(data)


@app.default
@app.command
def tune(
    *,
    category: Category,
    data_root: DataRoot = Path("data/anomaly_dataset"),
    textures: Textures = Path("data/dtd"),
    skip_broken: SkipBroken = False,
    demo: Demo = False,
    image_size: ImageSize = None,
    batch_size: BatchSize = DEFAULTS.batch_size,
    epochs: Epochs = None,
    seed: Seed = 0,
    backbone: BackboneName = None,
    backbone_weights: BackboneWeights = DEFAULTS.backbone_weights,
    objective: ObjectiveName = "auto",
    trials: Annotated[int | None, _flag(SEARCH, "Trials, the baseline among them.", _shown("trials", 32))] = None,
    space: Annotated[str, _flag(SEARCH, "Search space: a name or a TOML file.", "the category's, else default")] = "",
    sampler: Annotated[Sampler, _flag(SEARCH, "How Optuna proposes trials.")] = "tpe",
    scheduler: Annotated[Scheduler, _flag(SEARCH, "How weak trials are stopped.")] = "asha",
    time_budget: Annotated[
        timedelta | None,
        _flag(SEARCH, "The trials end after this long, like 30m or 8h."),
    ] = None,
    gpus_per_trial: Annotated[float | None, _flag(RESOURCES, "May be a fraction.", "1 where there is any")] = None,
    cpus_per_trial: Annotated[float | None, _flag(RESOURCES, "Also torch's threads.", "a quarter of the cores")] = None,
    max_concurrent: Annotated[int | None, _flag(RESOURCES, "Trials at once.", "as many as fit")] = None,
    address: Annotated[str | None, _flag(RESOURCES, "Ray cluster to join.", "this machine")] = None,
    storage: Annotated[str, _flag(RESOURCES, "Folder or URI of checkpoints.", "the study's folder")] = "",
    results: Results = Path("results/las"),
    study: Study = None,
    tracking_uri: Annotated[str, _flag(RECORD, "MLflow store.", "sqlite in --results")] = "",
    experiment: Annotated[str, _flag(RECORD, "MLflow experiment.")] = "las_tune",
) -> None:
    """Search hyperparameters (the default command).

    Trial 0 is the baseline: the seed program's own hyperparameters. The champion is registered in MLflow as
    las-CATEGORY with alias champion.
    """
    from las_tune.tuning.study import run_study

    settings: dict[str, Any] = {
        "space": str(Path(space).absolute()) if space.endswith(".toml") or "/" in space else space,
        "trials": trials if trials is not None else DEMO["trials"] if demo else 32,
        "sampler": sampler,
        "scheduler": scheduler,
        "time_budget_s": time_budget.total_seconds() if time_budget is not None else None,
        "gpus_per_trial": gpus_per_trial,
        "cpus_per_trial": cpus_per_trial,
        "max_concurrent": max_concurrent,
        "address": address,
        "storage": _absolute_uri(storage),
        "tracking_uri": _absolute_uri(tracking_uri),
        "experiment": experiment,
    }
    train_spec = _train_spec(demo, image_size, batch_size, epochs, seed, backbone, backbone_weights, objective)
    specs = _study_specs(category, data_root, textures, results, study, skip_broken, demo, train_spec, settings)
    from las_tune.console import StudyConsole, print_summary

    for spec in specs:
        title = f"las_tune {__version__}: study {spec.study}, {spec.trials} trials of {spec.train.epochs} epochs"
        title += "  (DEMO: rendered pictures)" if demo else ""
        with StudyConsole(title, spec.trials * spec.train.epochs, spec.train.epochs) as console:
            _render_demo(spec, console.progress)
            summary = run_study(spec, [console], console.progress)
        print_summary(summary, spec.folder)


@app.command
def train(
    *,
    category: Category,
    data_root: DataRoot = Path("data/anomaly_dataset"),
    textures: Textures = Path("data/dtd"),
    skip_broken: SkipBroken = False,
    demo: Demo = False,
    image_size: ImageSize = None,
    batch_size: BatchSize = DEFAULTS.batch_size,
    epochs: Epochs = None,
    seed: Seed = 0,
    backbone: BackboneName = None,
    backbone_weights: BackboneWeights = DEFAULTS.backbone_weights,
    objective: ObjectiveName = "auto",
    adaptor_lr: Annotated[float, _flag(TRAINING, "Learning rate of the adaptor.")] = DEFAULTS.adaptor_lr,
    discriminator_lr: Annotated[
        float, _flag(TRAINING, "Learning rate of the discriminator.")
    ] = DEFAULTS.discriminator_lr,
    alpha: Annotated[float, _flag(TRAINING, "Mask combination, in [0, 1/2].")] = DEFAULTS.alpha,
    beta_mean: Annotated[float, _flag(TRAINING, "Mean of β, in [0, 1].")] = DEFAULTS.beta_mean,
    beta_std: Annotated[float, _flag(TRAINING, "Deviation of β.")] = DEFAULTS.beta_std,
    results: Results = Path("results/las"),
    study: Study = None,
) -> None:
    """Train one detector without Ray: the seed program's job, by the code that a trial runs."""
    from las_tune.console import StudyConsole, print_training
    from las_tune.tuning.single import run_single

    train_spec = _train_spec(demo, image_size, batch_size, epochs, seed, backbone, backbone_weights, objective).replace(
        adaptor_lr=adaptor_lr,
        discriminator_lr=discriminator_lr,
        alpha=alpha,
        beta_mean=beta_mean,
        beta_std=beta_std,
    )
    for spec in _study_specs(category, data_root, textures, results, study, skip_broken, demo, train_spec, {}):
        title = f"las_tune {__version__}: training {spec.study}, {train_spec.epochs} epochs"
        with StudyConsole(title, train_spec.epochs, train_spec.epochs) as console:
            _render_demo(spec, console.progress)
            result = run_single(spec, [console], console.progress)
        print_training(result)


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
    from las_tune.console import print_lines
    from las_tune.data.download import fetch_dtd, fetch_mpdd

    if what == "dtd":
        fetched = fetch_dtd((folder or Path("data/dtd")).absolute())
    else:
        fetched = fetch_mpdd((folder or Path("data/anomaly_dataset")).absolute())
    if not fetched.names:
        print_lines([f"{what} is in {fetched.folder} already"])
    else:
        print_lines([f"{what} is in {fetched.folder}: {', '.join(fetched.names)}"])
        if fetched.sha256:
            print_lines([f"sha256 of the archive: {fetched.sha256} (none is published to compare it with)"])


@data.command
def check(*, category: Category, data_root: DataRoot = Path("data/anomaly_dataset")) -> None:
    """Show what a category holds, and what is wrong with it; exit code 2 if anything is."""
    from las_tune.console import print_check
    from las_tune.data.category import index_category
    from las_tune.data.check import check_category

    problems = 0
    for name in _categories(category, data_root.absolute()):
        checked = check_category(index_category(data_root.absolute(), name))
        print_check(name, checked)
        problems += len(checked.problems)
    if problems:
        sys.exit(2)


def _train_spec(
    demo: bool,
    image_size: int | None,
    batch_size: int,
    epochs: int | None,
    seed: int,
    backbone: str | None,
    backbone_weights: str,
    objective: Objective,
) -> TrainSpec:
    """Flags that were not given take the demo's values with --demo, else the seed's."""
    given = {"image_size": image_size, "epochs": epochs, "backbone": backbone}
    chosen = {name: value for name, value in given.items() if value is not None}
    usual = {name: DEMO[name] for name in given} if demo else {}
    if backbone_weights not in ("imagenet", "random"):
        backbone_weights = str(Path(backbone_weights).absolute())
    return TrainSpec(
        batch_size=batch_size,
        seed=seed,
        backbone_weights=backbone_weights,
        objective=objective,
        **(usual | chosen),
    )


def _study_specs(
    category: list[str],
    data_root: Path,
    textures: Path,
    results: Path,
    study: str | None,
    skip_broken: bool,
    demo: bool,
    train_spec: TrainSpec,
    settings: dict[str, Any],
) -> list[StudySpec]:
    """One spec a category; several categories share the name of the study as a prefix."""
    if demo:
        data_root, textures = demo_folders(category)
    names = category if demo else _categories(category, data_root.absolute())
    now = f"{datetime.now():%Y%m%d-%H%M%S}"
    base = StudySpec(
        category=names[0],
        study="study",
        train=train_spec,
        data_root=data_root.absolute(),
        textures=textures.absolute(),
        results=results.absolute(),
        skip_broken=skip_broken,
        demo=demo,
        command=shlex.join(["python", "-m", "las_tune", *sys.argv[1:]]),
        **settings,
    )
    if study is None:
        return [replace(base, category=name, study=f"{_plain(name)}-{now}") for name in names]
    return [replace(base, category=n, study=study if len(names) == 1 else f"{study}-{_plain(n)}") for n in names]


def _plain(category: str) -> str:
    """A category's name in the letters that a study's name may have."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", category).strip("_.-")[:60] or "category"


def _categories(given: list[str], data_root: Path) -> list[str]:
    """The categories named, each checked before anything runs; 'all' is every one found."""
    from las_tune.data.category import index_category, list_categories

    names = list_categories(data_root) if "all" in given else list(dict.fromkeys(given))
    for name in names:
        index_category(data_root, name)
    return names


def _render_demo(spec: StudySpec, progress: Any) -> None:
    if spec.demo:
        from las_tune.data.demo import render_demo

        render_demo(
            spec.data_root,
            spec.textures,
            progress=lambda done, total: progress("rendering parts", done, total),
        )


def _absolute_uri(text: str) -> str:
    """Paths become absolute: workers run in other folders. URIs stay, but for a relative sqlite file."""
    if text.startswith("sqlite:///") and not text.startswith("sqlite:////"):
        return f"sqlite:///{Path(text.removeprefix('sqlite:///')).absolute()}"
    if not text or "://" in text:
        return text
    return str(Path(text).absolute())


def main() -> NoReturn:
    """Run a command. What a user got wrong is one line on stderr and exit code 2."""
    try:
        app(exit_on_error=False, print_error=False)
    except (UserError, CycloptsError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)
