"""The flags that several commands share, and the specs that their values become."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from las_tune.config import paths
from las_tune.config.demo_settings import DEMO, demo_folders
from las_tune.config.study_spec import MPDD_CATEGORIES, ModelWeights, Protocol, StudySpec, Validation
from las_tune.config.train_spec import HeadPrecision, ObjectiveChoice, StoreDtype, TrainSpec

DATA = Group("Data", sort_key=1)
TRAINING = Group("Training", sort_key=2)
SEARCH = Group("Search", sort_key=3)
RESOURCES = Group("Resources", sort_key=4)
RECORD = Group("Results and record", sort_key=5)


def flag(group: Group, text: str, default: str | None = None, **options: Any) -> Parameter:
    """A flag of a group; default stands in for one that the demo changes."""
    show = (lambda _: default) if default else None
    return Parameter(group=group, help=text, show_default=show, **options)


def shown(name: str, usual: object) -> str:
    """A default that the demo changes, as help shows it."""
    return f"{usual}; demo: {DEMO[name]}"


DEFAULTS = TrainSpec()
TRAIN_FIELDS = {field.name for field in fields(TrainSpec)}
CATEGORY_HELP = (
    "Folder in --data-root; 'all' is every one found; may be repeated. "
    f"MPDD's: {', '.join(MPDD_CATEGORIES)}; your own parts in the same layout."
)
Category = Annotated[list[str], flag(DATA, CATEGORY_HELP, negative="")]
DataRoot = Annotated[Path, flag(DATA, "Folder that holds the categories.")]
Textures = Annotated[Path, flag(DATA, "Folder of textures (DTD, or any images) that defects are painted with.")]
Holdout = Annotated[float, flag(DATA, "Share of the labeled test images that validates; the rest is sealed.")]
ValidationKind = Annotated[
    Validation,
    flag(
        DATA,
        "Images that select: labeled test images, or good ones and defects painted on them (no real ones needed).",
    ),
]
DataDigest = Annotated[str, flag(DATA, "SHA-256 that the images must have; submit --push-data gives it.", "any")]
SkipBroken = Annotated[bool, flag(DATA, "Leave broken images out and count them.", negative="")]
Demo = Annotated[bool, flag(DATA, "Render a small bracket_black and search it: no data needed.", negative="")]
ImageSize = Annotated[
    int | None, flag(TRAINING, "Side in pixels to which images are resized.", shown("image_size", 288))
]
BatchSize = Annotated[
    int | None,
    flag(TRAINING, "Normal images a step; as many synthesized ones go with them.", shown("batch_size", 8)),
]
Epochs = Annotated[int | None, flag(TRAINING, "Epochs of a training.", shown("epochs", 50))]
Seed = Annotated[int, flag(TRAINING, "Seed of the splits, the search and every training.")]
BackboneName = Annotated[
    str | None,
    flag(
        TRAINING,
        "Frozen network: efficientnet_lite0, or a convolutional one of torchvision (resnet18, ...).",
        shown("backbone", DEFAULTS.backbone),
    ),
]
BackboneWeights = Annotated[str, flag(TRAINING, "imagenet, random, or the file of a state dict.")]
ObjectiveName = Annotated[
    ObjectiveChoice,
    flag(
        TRAINING,
        "What is maximized, on validation images; auto: combined (mean of image_auroc and pixel_aupro) with masks, "
        "else image_auroc.",
    ),
]
FalsePositiveRate = Annotated[float, flag(TRAINING, "Share of good calibration images that the threshold rejects.")]
Patience = Annotated[
    int | None, flag(SEARCH, "End after this many trials without a gain beyond noise.", "all trials are run")
]
Trials = Annotated[int | None, flag(SEARCH, "Trials, the baseline among them.", shown("trials", 32))]
Finalists = Annotated[
    int | None, flag(SEARCH, "Best trials that are trained again with new seeds.", shown("finalists", 3))
]
Seeds = Annotated[int | None, flag(SEARCH, "New seeds for each of them.", shown("seeds", 3))]
SpaceName = Annotated[str, flag(SEARCH, "Search space: a name or a TOML file.", "the category's, else default")]
WarmStart = Annotated[
    tuple[str, ...],
    flag(SEARCH, "Studies or categories whose champions are tried first.", "none", negative="", consume_multiple=True),
]
ProtocolName = Annotated[
    Protocol,
    flag(SEARCH, "paper: choose by all test images, as published tables do; everything is tagged test-selected."),
]
LeakageGap = Annotated[bool, flag(SEARCH, "Also tell how much choosing by the test would have flattered.", negative="")]
AdaptorRate = Annotated[float, flag(TRAINING, "Learning rate of the adaptor.")]
DiscriminatorRate = Annotated[float, flag(TRAINING, "Learning rate of the discriminator.")]
Alpha = Annotated[float, flag(TRAINING, "Mask combination, in [0, 1/2].")]
BetaMean = Annotated[float, flag(TRAINING, "Mean of β, in [0, 1].")]
BetaStd = Annotated[float, flag(TRAINING, "Deviation of β.")]
StoreType = Annotated[StoreDtype, flag(RESOURCES, "What stored features are kept in.")]
StoreLimit = Annotated[
    float | None,
    flag(RESOURCES, "Most that stored features may take, in GB; above it trials compute them again.", "half of memory"),
]
Precision = Annotated[HeadPrecision, flag(RESOURCES, "How a GPU multiplies the head's matrices.")]
TrackingUri = Annotated[str, flag(RECORD, "MLflow store.", "sqlite in --results")]
Experiment = Annotated[str, flag(RECORD, "MLflow experiment.")]
SystemMetrics = Annotated[
    bool, flag(RECORD, "Trials record processors, memory, disk, network and GPUs of their machine.", negative="")
]
Weights = Annotated[
    ModelWeights, flag(RECORD, "Frozen network of the champion's model: inside it, or named and loaded when it is.")
]
TensorBoard = Annotated[
    bool, flag(RECORD, "Also write every training for TensorBoard, into tensorboard/ of the study.", negative="")
]
Results = Annotated[Path, flag(RECORD, "Folder of all studies.")]
Study = Annotated[str | None, flag(RECORD, "Name of the study.", "<category>-<time>")]


def make_specs(
    category: Sequence[str], data_root: Path, textures: Path, results: Path, study: str | None, demo: bool,
    **settings: Any,
) -> list[StudySpec]:  # fmt: skip
    """One spec a category; several categories are one run, whose name is the prefix of their studies' names.

    settings: fields of TrainSpec and StudySpec; those that are None take the demo's values with demo, else the usual.
    """
    if demo:
        data_root, textures = demo_folders(list(category))
    given = (DEMO if demo else {}) | {name: value for name, value in settings.items() if value is not None}
    given.setdefault(
        "scheduler", "none" if given.get("sampler") == "gp" else "asha"
    )  # gp learns from whole trials only
    names = list(category) if demo else find_categories(list(category), data_root.absolute())
    now = f"{datetime.now():%Y%m%d-%H%M%S}"
    run = study or f"run-{now}"
    base = StudySpec(
        category=names[0],
        study=study or f"{plain_name(names[0])}-{now}",
        train=_train_spec({name: value for name, value in given.items() if name in TRAIN_FIELDS}),
        data_root=data_root.absolute(),
        textures=textures.absolute(),
        results=results.absolute(),
        demo=demo,
        **{name: _absolute(name, value) for name, value in given.items() if name not in TRAIN_FIELDS},
    )
    if len(names) == 1:
        return [base]
    plain = [plain_name(name) for name in names]
    labels = [p if plain.count(p) == 1 else f"{p}-{index}" for index, p in enumerate(plain, start=1)]
    return [replace(base, category=n, study=f"{run}-{label}", run=run) for n, label in zip(names, labels, strict=True)]


def _train_spec(given: dict[str, Any]) -> TrainSpec:
    weights = given.get("backbone_weights", "imagenet")
    if weights not in ("imagenet", "random"):
        given = given | {"backbone_weights": str(Path(weights).absolute())}
    return TrainSpec(**given)


def _absolute(name: str, value: Any) -> Any:
    """Paths become absolute: workers run in other folders."""
    if name in ("storage", "tracking_uri"):
        return absolute_uri(value)
    is_file = name == "space" and (value.endswith(".toml") or "/" in value)
    return str(Path(value).absolute()) if is_file else value


def plain_name(category: str) -> str:
    """A category's name in the letters that a study's name may have.

    >>> plain_name("bolt M6/8")
    'bolt-M6-8'
    """
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", category).strip("_.-")[:60] or "category"


def find_categories(given: list[str], data_root: Path) -> list[str]:
    """The categories named, each checked before anything runs; 'all' is every one found."""
    from las_tune.data.category import index_category, list_categories

    names = list_categories(data_root) if "all" in given else list(dict.fromkeys(given))
    for name in names:
        index_category(data_root, name)
    return names


def absolute_uri(text: str) -> str:
    """Paths become absolute: workers run in other folders. URIs stay, but for a relative sqlite file."""
    if text.startswith("sqlite:///") and not text.startswith("sqlite:////"):
        return f"sqlite:///{Path(text.removeprefix('sqlite:///')).absolute()}"
    if not text or "://" in text:
        return text
    return str(Path(text).absolute())


def store_of(tracking_uri: str, results: Path) -> str:
    """The MLflow store that flags name: the one of the results, unless there is another."""
    return absolute_uri(tracking_uri) or paths.default_store(results.absolute())
