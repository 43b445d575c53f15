"""StudySpec: one search. It is made once, checked here, and passed down."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from las_tune.config.train_spec import TrainSpec, require

Sampler = Literal["tpe", "gp", "cmaes", "random", "grid"]
Scheduler = Literal["asha", "hyperband", "median", "none"]
Validation = Literal["labelled", "synthetic"]
Protocol = Literal["sealed", "paper"]
ModelWeights = Literal["inside", "reference"]

MOST_TRIALS = 100_000
"""Of a study; its finalists have the numbers above, so that trials can be added."""
ELSEWHERE = ("http://", "https://", "ray://")
"""Start the address of a cluster that this machine is not part of."""
BY_LIBRARY = "las_tune.tune()"
"""The command of a study that no command line began."""
MPDD_CATEGORIES = ("bracket_black", "bracket_brown", "bracket_white", "connector", "metal_plate", "tubes")


def require_study_name(name: str) -> None:
    """Raise UserError for a name that cannot be a folder's, a run's and a job's alike."""
    require(
        re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name) is not None,
        "--study must be letters, digits, '_', '-' and '.', at most 100, the first a letter or digit",
        repr(name),
    )


def model_name(category: str) -> str:
    """The category's model in MLflow's registry; what names of models cannot hold becomes a hyphen.

    >>> model_name("bolt M6/8")
    'las-bolt M6-8'
    """
    return "las-" + re.sub(r"[:/?#%]", "-", category)


@dataclass(frozen=True, kw_only=True)
class StudySpec:
    """One search over one category. Paths are absolute: workers run in other folders."""

    category: str
    study: str
    """Name of the Ray experiment, the Optuna study and the MLflow parent run."""
    run: str = ""
    """Name of the run that this study shares with those of other categories; empty where it is alone."""
    train: TrainSpec
    """What every trial starts from; the baseline as it is."""
    data_root: Path
    textures: Path
    results: Path
    space: str = ""
    """Name or path of a search space; empty: the category's own, else default."""
    trials: int = 32
    sampler: Sampler = "tpe"
    scheduler: Scheduler = "asha"
    patience: int | None = None
    """Trials in a row without a gain beyond noise, after which the search ends. None: all trials."""
    finalists: int = 3
    """How many of the best trials are trained again, with the baseline and the champion of earlier studies."""
    seeds: int = 3
    """New seeds that each of them is trained with."""
    gpus_per_trial: float | None = None
    """None: one where the cluster has any."""
    cpus_per_trial: float | None = None
    """None: a quarter of the machine, at least one."""
    max_concurrent: int | None = None
    max_failures: int = 2
    """How often a trial is tried again, from its last checkpoint, after a worker or its own code failed."""
    time_budget_s: float | None = None
    price_per_gpu_hour: float | None = None
    """For the plan; in whatever money the user thinks."""
    store_limit_gb: float | None = None
    """Most that stored features may take; above it trials compute them again. None: half of the memory."""
    address: str | None = None
    """Ray cluster; None: this machine."""
    extend: int = 0
    """Of the trials, how many are added to those of a study that is finished."""
    storage: str = ""
    """Where Ray keeps checkpoints; empty: in the study's folder."""
    tracking_uri: str = ""
    """MLflow store; empty: sqlite beside the results."""
    experiment: str = "las_tune"
    system_metrics: bool = False
    """Whether trials measure their machine: processors, memory, disk, network, GPUs."""
    tensorboard: bool = False
    """Whether every training is also written for TensorBoard."""
    model_weights: ModelWeights = "inside"
    """reference: the champion names its frozen network instead of holding it."""
    data_digest: str = ""
    """SHA-256 that the images must have, see data/digest.py; empty: it is not asked."""
    skip_broken: bool = False
    holdout: float = 0.5
    """Share of every test folder that validates; the rest is the sealed test."""
    validation: Validation = "labelled"
    """synthetic: good images and defects painted on them, of other families than LAS; no real defect is needed."""
    protocol: Protocol = "sealed"
    """paper: everything is chosen by all test images, as published tables are; there is no sealed test."""
    leakage_gap: bool = False
    """Score all test images in every epoch, to tell how much choosing by them would have flattered."""
    warm_start: tuple[str, ...] = ()
    """Studies or categories whose champions are tried first."""
    demo: bool = False
    command: str = ""
    """The command line, for the record."""

    def __post_init__(self) -> None:
        require_study_name(self.study)
        self._check_kinds()
        self._check_numbers()
        self._check_together()
        for name in ("data_root", "textures", "results"):
            assert getattr(self, name).is_absolute(), f"{name} must be absolute"

    def _check_kinds(self) -> None:
        """Values that are one of a few words."""
        known = {
            "sampler": Sampler, "scheduler": Scheduler, "validation": Validation, "protocol": Protocol,
            "model_weights": ModelWeights,
        }  # fmt: skip
        for name, kinds in known.items():
            value = getattr(self, name)
            rule = f"--{name.replace('_', '-')} must be one of {', '.join(get_args(kinds))}"
            require(value in get_args(kinds), rule, repr(value))

    def _check_numbers(self) -> None:
        """The range of each; None stands for a default that is known later."""
        require(1 <= self.trials <= MOST_TRIALS, f"--trials must be 1 to {MOST_TRIALS}", self.trials)
        require(self.extend >= 0, "--extend must be the number of trials to add, at least 1", self.extend)
        rule = "--holdout must lie between 0 and 1, both excluded"
        require(0 < self.holdout < 1, rule, self.holdout, "the usual value is 0.5")
        require(self.finalists >= 1, "--finalists must be at least 1", self.finalists)
        require(self.seeds >= 2, "--seeds must be at least 2: one tells nothing of the noise", self.seeds)
        require(self.max_failures >= 0, "--max-failures must be at least 0", self.max_failures)
        for name in ("patience", "max_concurrent"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"--{name.replace('_', '-')} must be at least 1", value)
        for name in ("gpus_per_trial", "store_limit_gb"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"--{name.replace('_', '-')} must be at least 0", value)
        for name in ("cpus_per_trial", "price_per_gpu_hour"):
            value = getattr(self, name)
            require(value is None or value > 0, f"--{name.replace('_', '-')} must be above 0", value)
        budget = self.time_budget_s
        require(budget is None or budget > 0, "--time-budget must be above 0 seconds", budget)

    def _check_together(self) -> None:
        """What each may be and both may not."""
        is_paper, is_grid = self.protocol == "paper", self.sampler == "grid"
        require(
            not (self.extend and is_grid),
            "--extend goes on with a search that learns, and a grid is searched whole",
            "--sampler grid",
            "choose another name for a larger grid",
        )
        for holds, what in ((is_paper, "--protocol paper"), (self.leakage_gap, "--leakage-gap")):
            require(
                not (holds and self.validation == "synthetic"),
                f"{what} chooses by labeled test images",
                "--validation synthetic",
                "leave one of them out",
            )
        require(
            not (is_paper and self.leakage_gap),
            "--leakage-gap compares with --protocol paper on the same trials",
            "both",
            "leave --protocol out",
        )
        require(
            not (self.warm_start and is_grid),
            "--warm-start leads searches that learn, and a grid is searched whole",
            "--sampler grid",
            "leave one of them out",
        )

    @property
    def is_test_selected(self) -> bool:
        """Whether what is reported was chosen by the images that it is reported on."""
        return self.protocol == "paper"

    def num_again(self, num_studies: int) -> int:
        """Trainings over new seeds in a run of so many studies: the baseline, finalists, the best of the others."""
        finalists = min(self.finalists, self.trials - 1)
        return (1 + finalists + num_studies - 1) * self.seeds

    @property
    def folder(self) -> Path:
        """Everything that the study leaves behind, but the MLflow store."""
        return self.results / self.study

    @property
    def run_folder(self) -> Path:
        """What studies of one run share: Ray's checkpoints, the overview."""
        return self.results / (self.run or self.study)
