"""StudySpec: the settings of one search. It is created once, checked here, and passed down."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

from las_tune.config import paths
from las_tune.config.options import (
    BOTH,
    TUNE,
    Check,
    above,
    at_least,
    between,
    check_options,
    inside,
    one_of,
    option,
    required,
)
from las_tune.config.train_spec import TrainSpec
from las_tune.errors import require

Sampler = Literal["tpe", "gp", "cmaes", "random", "grid"]
Scheduler = Literal["asha", "hyperband", "median", "none"]
Validation = Literal["labelled", "synthetic"]
Protocol = Literal["sealed", "paper"]
ModelWeights = Literal["inside", "reference"]

MAX_TRIALS = 100_000
"""Maximum number of trials in a study. Finalists are numbered from here, so that trials can be added later."""
REMOTE_SCHEMES = ("http://", "https://", "ray://")
"""Prefixes of the address of a cluster that this machine is not a node of."""
LIBRARY_COMMAND = "las_tune.tune()"
"""StudySpec.command of a study that was started through the library."""
MPDD_CATEGORIES = ("bracket_black", "bracket_brown", "bracket_white", "connector", "metal_plate", "tubes")
STUDY_NAME = Check(
    "1 to 100 letters, digits, '_', '-' or '.', starting with a letter or digit",
    lambda name: re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name) is not None,
)
"""A name that is valid as a folder, an MLflow run and a Ray job."""


@dataclass(frozen=True, kw_only=True)
class StudySpec:
    """One search over one category. Paths are absolute, because workers run in other folders."""

    category: str = field(
        metadata=required(
            "Folder in --data-root, or 'all' for every category found; can be repeated. MPDD has "
            f"{', '.join(MPDD_CATEGORIES)}; your own parts need the same layout.",
            "Data", BOTH, flag_type=list[str],
        )
    )  # fmt: skip
    data_root: Path = field(
        metadata=required("Folder that contains the categories.", "Data", BOTH, flag_default=paths.DATA_ROOT)
    )
    textures: Path = field(
        metadata=required(
            "Folder of texture images (DTD, or any images) for synthetic defects.",
            "Data", BOTH, flag_default=paths.TEXTURES,
        )
    )  # fmt: skip
    data_digest: str = option(
        "", "SHA-256 that the images must have; set by submit --push-data.", "Data", TUNE, shown_default="any"
    )
    skip_broken: bool = option(False, "Skip unreadable images and report them.", "Data", BOTH)
    holdout: float = option(
        0.5, "Fraction of labeled test images used for validation; the rest is the sealed test.",
        "Data", BOTH, check=inside(0, 1),
    )  # fmt: skip
    validation: Validation = option(
        "labelled", "Images used for model selection: labeled test images, or synthetic defects on held-out good "
        "images (no defective images needed).",
        "Data", BOTH, check=one_of(Validation),
    )  # fmt: skip
    demo: bool = option(False, "Render a small bracket_black and search it; no data needed.", "Data", BOTH)

    train: TrainSpec
    """Settings of every trial; with the reference configuration of the search space, those of the baseline."""

    trials: int = option(32, "Number of trials, including the baseline.", "Search", TUNE, check=between(1, MAX_TRIALS))
    finalists: int = option(
        3, "Number of best trials that are retrained with new seeds.", "Search", TUNE, check=at_least(1)
    )
    seeds: int = option(
        3, "Number of new seeds for each finalist.", "Search", TUNE, check=at_least(2),
        remedy="Use several seeds to measure the noise between training runs",
    )  # fmt: skip
    space: str = option(
        "", "Search space: a name or a TOML file.", "Search", TUNE, shown_default="the category's, else default"
    )
    sampler: Sampler = option("tpe", "Sampler of Optuna.", "Search", TUNE, check=one_of(Sampler))
    scheduler: Scheduler = option(
        "asha", "Scheduler that stops weak trials early.", "Search", TUNE, check=one_of(Scheduler),
        shown_default="asha; none with gp",
    )  # fmt: skip
    patience: int | None = option(
        None, "Stop the search after this many trials without an improvement beyond noise.", "Search", TUNE,
        check=at_least(1), shown_default="all trials", remedy="Leave it out to run all trials",
    )  # fmt: skip
    warm_start: tuple[str, ...] = option(
        (), "Studies or categories whose champions are evaluated right after the baseline.", "Search", TUNE,
        shown_default="none",
    )  # fmt: skip
    protocol: Protocol = option(
        "sealed", "paper: select on all test images, as published tables do; all results are tagged test-selected.",
        "Search", TUNE, check=one_of(Protocol),
    )  # fmt: skip
    leakage_gap: bool = option(False, "Also report the optimistic bias of selecting on the test set.", "Search", TUNE)
    time_budget_s: float | None = option(
        None, "Stop the search after this time, such as 30m or 8h; finalists are still retrained.", "Search",
        TUNE, check=above(0, " seconds"), shown_default="none", flag="--time-budget", flag_type=timedelta,
        remedy="Give a duration such as 30m or 8h",
    )  # fmt: skip
    price_per_gpu_hour: float | None = option(
        None, "Price of a GPU hour, in any currency; the plan then shows the cost.", "Search", TUNE,
        check=above(0), shown_default="none", remedy="Leave it out to omit the cost from the plan",
    )  # fmt: skip

    gpus_per_trial: float | None = option(
        None, "GPUs per trial; can be a fraction.", "Resources", TUNE, check=at_least(0),
        shown_default="1 if there is any",
    )  # fmt: skip
    cpus_per_trial: float | None = option(
        None, "CPU cores per trial; also the number of torch threads.", "Resources", TUNE, check=above(0),
        shown_default="a quarter of the cores",
    )  # fmt: skip
    max_concurrent: int | None = option(
        None, "Maximum number of trials that run at the same time.", "Resources", TUNE, check=at_least(1),
        shown_default="as many as fit",
    )  # fmt: skip
    max_failures: int = option(
        2, "Number of times a failed trial is restarted from its last checkpoint.", "Resources", TUNE,
        check=at_least(0),
    )  # fmt: skip
    store_limit_gb: float | None = option(
        None, "Memory limit of stored features in GB; beyond it, trials recompute them.", "Resources", BOTH,
        check=at_least(0), shown_default="half of the memory",
    )  # fmt: skip
    address: str | None = option(
        None, "Ray cluster: auto or HOST:6379 to join; http:// and ray:// submit the study and follow it.",
        "Resources", TUNE, shown_default="this machine",
    )  # fmt: skip
    storage: str = option("", "Folder or URI for checkpoints.", "Resources", TUNE, shown_default="the study's folder")

    results: Path = field(
        metadata=required("Folder of all studies.", "Results and record", BOTH, flag_default=paths.RESULTS)
    )
    study: str = field(
        metadata=required(
            "Name of the study.", "Results and record", BOTH, check=STUDY_NAME, flag_default=None,
            shown_default="<category>-<time>", remedy="Choose another name",
        )
    )  # fmt: skip
    """Name of the study's folder, its Optuna study and its MLflow parent run."""
    run: str = ""
    """Name of the run that this study shares with studies of other categories; empty for a single study."""
    extend: int = option(
        0, "Number of trials to add to the finished --study; flags that you leave out keep their values.",
        "Results and record", TUNE, check=at_least(0), shown_default="none", remedy="Give the number of trials to add",
    )  # fmt: skip
    """Number of trials, included in `trials`, that are added to a finished study."""
    tracking_uri: str = option(
        "", "URI of the MLflow store.", "Results and record", TUNE, shown_default="SQLite in --results"
    )
    experiment: str = option("las_tune", "MLflow experiment.", "Results and record", TUNE)
    system_metrics: bool = option(
        False, "Log CPU, memory, disk, network and GPU usage of every trial.", "Results and record", TUNE
    )
    tensorboard: bool = option(
        False, "Also log every training run for TensorBoard, to tensorboard/ in the study's folder.",
        "Results and record", BOTH,
    )  # fmt: skip
    model_weights: ModelWeights = option(
        "inside", "Frozen network of the registered model: saved inside the model (inside), or loaded by its name.",
        "Results and record", TUNE, check=one_of(ModelWeights),
    )  # fmt: skip
    command: str = ""
    """Command line that started the study."""

    def __post_init__(self) -> None:
        check_options(self)
        self._check_combinations()
        for name in ("data_root", "textures", "results"):
            assert getattr(self, name).is_absolute(), f"{name} must be absolute"

    def _check_combinations(self) -> None:
        """Raise UserError for options that exclude each other."""
        is_paper, is_grid = self.protocol == "paper", self.sampler == "grid"
        require(
            not (self.extend and is_grid),
            "--extend cannot be used with --sampler grid, because a grid is evaluated completely",
            remedy="Start a new --study with a larger grid",
        )
        for is_given, flag in ((is_paper, "--protocol paper"), (self.leakage_gap, "--leakage-gap")):
            require(
                not (is_given and self.validation == "synthetic"),
                f"{flag} needs labeled test images, so it cannot be used with --validation synthetic",
                remedy="Drop one of the two",
            )
        require(
            not (is_paper and self.leakage_gap),
            "--leakage-gap cannot be used with --protocol paper, because it estimates the bias of that protocol",
            remedy="Drop --protocol paper",
        )
        require(
            not (self.warm_start and is_grid),
            "--warm-start cannot be used with --sampler grid, because a grid is evaluated in any case",
            remedy="Drop one of the two",
        )

    @property
    def is_test_selected(self) -> bool:
        """True if the reported metrics are of images that were used for model selection."""
        return self.protocol == "paper"

    def num_retrainings(self, num_studies: int) -> int:
        """Return the number of retrainings with new seeds in a run of `num_studies` studies.

        The baseline, the finalists and the best trials of the other categories are retrained.
        """
        finalists = min(self.finalists, self.trials - 1)
        return (1 + finalists + num_studies - 1) * self.seeds

    @property
    def folder(self) -> Path:
        """Folder of everything that the study writes, except the MLflow store."""
        return self.results / self.study

    @property
    def run_folder(self) -> Path:
        """Folder that studies of one run share: Ray's checkpoints and the overview."""
        return self.results / (self.run or self.study)


def require_study_name(name: str) -> None:
    """Raise UserError for a name that is not valid as a folder, an MLflow run and a Ray job."""
    require(STUDY_NAME.holds(name), f"--study must be {STUDY_NAME.rule}, got {name!r}", remedy="Choose another name")


def model_name(category: str) -> str:
    """Return the name of the category's model in MLflow's registry, with a hyphen for characters that are not allowed.

    >>> model_name("bolt M6/8")
    'las-bolt M6-8'
    """
    return "las-" + re.sub(r"[:/?#%]", "-", category)


def plain_name(category: str) -> str:
    """Return the name of a category in characters that are valid in the name of a study.

    >>> plain_name("bolt M6/8")
    'bolt-M6-8'
    """
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", category).strip("_.-")[:60] or "category"
