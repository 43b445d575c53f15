"""The result of a study as typed values: the content of `summary.json`, and the source of all tables and texts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from las_tune.config import Interval, Objective, Protocol, Status, TrialRecord, Validation
from las_tune.errors import UserError, type_and_message

T = TypeVar("T")


@dataclass(frozen=True)
class Splits:
    """Number of images in each part of the category."""

    fit: int
    calibration: int
    validation: int
    sealed_test: int
    labelled: int | None = None
    """Labeled images that were scored alongside a synthetic validation; None without them."""

    def to_json(self) -> dict[str, int]:
        """Return the sizes by part, without absent parts."""
        return {part: size for part, size in asdict(self).items() if size is not None}


@dataclass(frozen=True)
class TrialCounts:
    """Number of trials of the search, by final status."""

    total: int
    completed: int
    pruned: int
    failed: int

    @classmethod
    def of(cls, trials: Sequence[TrialRecord]) -> TrialCounts:
        """Count the trials of a search."""
        statuses = [trial.status for trial in trials]
        return cls(len(trials), *(statuses.count(status) for status in ("completed", "pruned", "failed")))


@dataclass(frozen=True)
class TrialSummary:
    """One training run: its hyperparameters and its metrics."""

    number: int
    finalist: str
    """Name of the finalist that was retrained; empty for a trial of the search."""
    seed: int | None
    """Seed of a retraining; None for a trial of the search."""
    status: Status
    params: dict[str, Any]
    validation: dict[str, float]
    """Metrics on the validation images, at the best epoch."""
    test: dict[str, float] | None
    """Metrics on the sealed test; None for a trial that was not tested."""

    @classmethod
    def of(cls, trial: TrialRecord, test: dict[str, float] | None) -> TrialSummary:
        """Summarize a trial by its best epoch."""
        return cls(trial.number, trial.finalist, trial.seed, trial.status, trial.params, trial.best, test)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object, with the number under the key `trial`."""
        content = asdict(self)
        return {"trial": content.pop("number"), **content}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> TrialSummary:
        """Restore the object from the output of `to_json`."""
        return cls(number=content["trial"], **{name: value for name, value in content.items() if name != "trial"})


@dataclass(frozen=True)
class ByRole(Generic[T]):
    """A value for the baseline, for the champion and for the memory bank."""

    baseline: T
    champion: T
    memory_bank: T


@dataclass(frozen=True)
class Reference:
    """The objective of champion and memory bank on the sealed test."""

    memory_bank: float
    champion: float
    memory_bank_wins: bool


@dataclass(frozen=True)
class Promotion:
    """Which finalist became the champion, and why; see selection.promotion.Decision."""

    champion: str
    best: str
    promoted: bool
    gain: Interval
    gain_over_registered: Interval | None
    """Gain over the registered champion of an earlier study; None without one."""
    tied: tuple[str, ...]
    reason: str
    tie_break: str

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        registered = self.gain_over_registered
        return {
            "champion": self.champion,
            "best": self.best,
            "promoted": self.promoted,
            "gain": self.gain.to_json(),
            "gain_over_current": registered.to_json() if registered else None,
            "tied": list(self.tied),
            "reason": self.reason,
            "tie_break": self.tie_break,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Promotion:
        """Restore the object from the output of `to_json`."""
        registered = content["gain_over_current"]
        return cls(
            champion=content["champion"],
            best=content["best"],
            promoted=content["promoted"],
            gain=Interval.from_json(content["gain"]),
            gain_over_registered=Interval.from_json(registered) if registered else None,
            tied=tuple(content["tied"]),
            reason=content["reason"],
            tie_break=content["tie_break"],
        )


@dataclass(frozen=True)
class TieBreaks:
    """The metric that decided between two equal objectives; empty if the objectives differed."""

    search: str
    finalists: str


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's ρ of synthetic and labeled validation over trials; see selection.agreement."""

    spearman: float | None
    low: float | None
    high: float | None
    trials: int
    spearman_with_pruned: float | None


@dataclass(frozen=True)
class ChosenEpoch:
    """The trial and epoch that are best on one set of images."""

    trial: int
    epoch: int


@dataclass(frozen=True)
class LeakageGap:
    """Optimistic bias of selecting on the test set; see selection.agreement."""

    paper: float
    honest: float
    gap: float
    chosen: dict[str, ChosenEpoch]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> LeakageGap:
        """Read the JSON object."""
        chosen = {part: ChosenEpoch(**where) for part, where in content["chosen"].items()}
        return cls(content["paper"], content["honest"], content["gap"], chosen)


@dataclass(frozen=True)
class CostSummary:
    """Cost of the training runs of a study, in seconds of time and of devices."""

    device: Literal["gpu", "cpu"]
    trial_seconds: float
    """Seconds in epochs, summed over trials, retrainings included."""
    device_seconds: float
    """The same, times the number of devices of one trial."""
    lost_seconds: float
    """Seconds in epochs that were repeated after a fault, or in trials that failed."""
    lost_device_seconds: float
    device_seconds_per_point: float | None
    """Price of 0.01 of the objective; None without a gain."""

    @classmethod
    def of(cls, trials: Sequence[TrialRecord], gain: float, unit: str, num_devices: float) -> CostSummary:
        """Sum up the cost of training runs.

        Args:
            trials: all of them, retrainings included.
            gain: gain of the objective on validation images; 0 if the baseline was kept.
            unit: gpu_seconds or cpu_seconds.
            num_devices: number of devices of one trial.
        """
        spent = sum(trial.seconds + trial.repeated_seconds for trial in trials)
        lost = sum(trial.lost_seconds for trial in trials)
        return cls(
            device="gpu" if unit == "gpu_seconds" else "cpu",
            trial_seconds=round(spent, 1),
            device_seconds=round(spent * num_devices, 1),
            lost_seconds=round(lost, 1),
            lost_device_seconds=round(lost * num_devices, 1),
            device_seconds_per_point=round(spent * num_devices / (100 * gain), 1) if gain > 0 else None,
        )

    def to_json(self) -> dict[str, float | None]:
        """Return the JSON object. Its keys contain the device: `gpu_seconds` or `cpu_seconds`."""
        unit = f"{self.device}_seconds"
        return {
            "trial_seconds": self.trial_seconds,
            unit: self.device_seconds,
            "lost_seconds": self.lost_seconds,
            f"lost_{unit}": self.lost_device_seconds,
            f"{unit}_per_point": self.device_seconds_per_point,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> CostSummary:
        """Restore the object from the output of `to_json`."""
        device: Literal["gpu", "cpu"] = "gpu" if "gpu_seconds" in content else "cpu"
        unit = f"{device}_seconds"
        return cls(
            device=device,
            trial_seconds=content["trial_seconds"],
            device_seconds=content[unit],
            lost_seconds=content["lost_seconds"],
            lost_device_seconds=content[f"lost_{unit}"],
            device_seconds_per_point=content[f"{unit}_per_point"],
        )


@dataclass(frozen=True)
class UnsentWrites:
    """Writes of the ledger that the MLflow store has not received."""

    waiting: int = 0
    refused: int = 0


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A finished study."""

    study: str
    category: str
    demo: bool
    objective: Objective
    validation: Validation
    protocol: Protocol
    is_test_selected: bool
    """Whether epochs and trials were selected on the test images that the metrics are reported on."""
    test_name: str
    """The test in words, such as "sealed test" or "synthetic test"."""
    is_test_monitored: bool
    """Whether the sealed test was scored in every epoch (--leakage-gap)."""
    synthetic_parts: tuple[str, ...]
    """Parts whose defects are synthetic: validation, or validation and sealed_test."""
    splits: Splits
    skipped: tuple[str, ...]
    """Broken images that were left out, each with its reason."""
    masks_missing: int
    """Defective images without a mask."""
    trials: TrialCounts
    tracking_uri: str
    """MLflow store, without password."""
    experiment: str
    experiment_id: str = ""
    parent_run_id: str = ""
    best_trial: TrialSummary
    """Best trial of the search."""
    baseline: TrialSummary
    """Retrained baseline with its best seed."""
    champion: TrialSummary
    """Delivered detector."""
    validation_mean: ByRole[float]
    """Objective on the validation images; mean over seeds."""
    validation_gain: Interval | None
    """Gain of the champion on the validation images; None if the baseline was kept."""
    test_mean: ByRole[dict[str, float]]
    """Metrics on the sealed test; means over seeds."""
    test_gain: dict[str, Interval]
    """Gain of the champion on the sealed test, by objective; empty if the baseline was kept."""
    reference: Reference
    promotion: Promotion
    tie_break: TieBreaks
    test_openings: int
    """How often images of the sealed test were scored so far, this study included."""
    rank_correlation: RankCorrelation | None
    leakage_gap: LeakageGap | None
    cost: CostSummary
    seconds: float = 0.0
    """Wall-clock time of the run."""
    model_uri: str = ""
    """The registered model; empty until MLflow has it."""
    unsent_writes: UnsentWrites = field(default_factory=UnsentWrites)

    def to_json(self) -> dict[str, Any]:
        """Return the content of `summary.json`."""
        gain = self.validation_gain
        return {
            "study": self.study,
            "category": self.category,
            "demo": self.demo,
            "objective": self.objective,
            "validation": self.validation,
            "protocol": self.protocol,
            "test_selected": self.is_test_selected,
            "test_name": self.test_name,
            "test_watched": self.is_test_monitored,
            "painted": list(self.synthetic_parts),
            "splits": self.splits.to_json(),
            "skipped": list(self.skipped),
            "masks_missing": self.masks_missing,
            "trials": asdict(self.trials),
            "tracking_uri": self.tracking_uri,
            "experiment": self.experiment,
            "experiment_id": self.experiment_id,
            "parent_run_id": self.parent_run_id,
            "best_trial": self.best_trial.to_json(),
            "baseline": self.baseline.to_json(),
            "champion": self.champion.to_json(),
            "validation_mean": asdict(self.validation_mean),
            "validation_gain": gain.to_json() if gain else None,
            "test_mean": asdict(self.test_mean),
            "test_gain": {name: interval.to_json() for name, interval in self.test_gain.items()},
            "reference": asdict(self.reference),
            "promotion": self.promotion.to_json(),
            "tie_break": asdict(self.tie_break),
            "test_openings": self.test_openings,
            "rank_correlation": asdict(self.rank_correlation) if self.rank_correlation else None,
            "leakage_gap": asdict(self.leakage_gap) if self.leakage_gap else None,
            "cost": self.cost.to_json(),
            "seconds": self.seconds,
            "model_uri": self.model_uri,
            "ledger": asdict(self.unsent_writes),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Summary:
        """Restore the object from the output of `to_json`. Raises KeyError or TypeError if a field is missing."""
        gain, rank, gap = (content[key] for key in ("validation_gain", "rank_correlation", "leakage_gap"))
        return cls(
            study=content["study"],
            category=content["category"],
            demo=content["demo"],
            objective=content["objective"],
            validation=content["validation"],
            protocol=content["protocol"],
            is_test_selected=content["test_selected"],
            test_name=content["test_name"],
            is_test_monitored=content["test_watched"],
            synthetic_parts=tuple(content["painted"]),
            splits=Splits(**content["splits"]),
            skipped=tuple(content["skipped"]),
            masks_missing=content["masks_missing"],
            trials=TrialCounts(**content["trials"]),
            tracking_uri=content["tracking_uri"],
            experiment=content["experiment"],
            experiment_id=content["experiment_id"],
            parent_run_id=content["parent_run_id"],
            best_trial=TrialSummary.from_json(content["best_trial"]),
            baseline=TrialSummary.from_json(content["baseline"]),
            champion=TrialSummary.from_json(content["champion"]),
            validation_mean=ByRole(**content["validation_mean"]),
            validation_gain=Interval.from_json(gain) if gain else None,
            test_mean=ByRole(**content["test_mean"]),
            test_gain={name: Interval.from_json(interval) for name, interval in content["test_gain"].items()},
            reference=Reference(**content["reference"]),
            promotion=Promotion.from_json(content["promotion"]),
            tie_break=TieBreaks(**content["tie_break"]),
            test_openings=content["test_openings"],
            rank_correlation=RankCorrelation(**rank) if rank else None,
            leakage_gap=LeakageGap.from_json(gap) if gap else None,
            cost=CostSummary.from_json(content["cost"]),
            seconds=content["seconds"],
            model_uri=content["model_uri"],
            unsent_writes=UnsentWrites(**content["ledger"]),
        )


def parse_summary(text: str, source: str) -> Summary:
    """Read the text of a `summary.json`.

    Args:
        text: the file's content.
        source: the file, for the error.

    Raises: UserError for a text that no version of las_tune wrote.
    """
    try:
        return Summary.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        problem = f"{source} is not the summary of a study of this version: {type_and_message(error)}"
        raise UserError(problem, remedy="Read it with the version that wrote it") from error


def read_summary(file: Path) -> Summary:
    """Read a `summary.json`. Raises UserError like `parse_summary`, and if the file cannot be read."""
    try:
        return parse_summary(file.read_text(encoding="utf-8"), str(file))
    except OSError as error:
        problem = f"The summary of a study could not be read: {type_and_message(error)}"
        raise UserError(problem, remedy="Check that the file exists and is readable") from error
