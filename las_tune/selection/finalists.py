"""Finalists: the best trials, the baseline and the registered champion, retrained with new seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from las_tune.config import MAX_TRIALS, Interval, Objective, TrainSpec, TrialRecord, ranking
from las_tune.errors import UserError, require
from las_tune.las import Backbone, TrainData, aupro_by_image, image_scores, score_features, threshold_of
from las_tune.selection.evaluation import TrainedHead
from las_tune.selection.promotion import Decision, Scores, decide

BASELINE = "baseline"
REGISTERED_CHAMPION = "current"
"""Stored name of the finalist that repeats the registered champion of an earlier study."""
BEST_OF = "best of "
"""Prefix of the best trial of another category, which is retrained for comparison and is not a finalist."""
MAX_SEED = 2**31
"""Upper bound of seeds in TrainSpec, excluded."""


@dataclass(frozen=True)
class Retraining:
    """One training run of a finalist with a new seed."""

    number: int
    """Number of the trial in the ledger."""
    name: str
    """Name of the finalist: baseline, current, trial 7, or best of another category."""
    params: dict[str, Any]
    seed: int

    def record(self) -> TrialRecord:
        """Return the record of its trial."""
        return TrialRecord(self.number, dict(self.params), finalist=self.name, seed=self.seed)


def require_successful_trial(trials: Sequence[TrialRecord], is_failing: bool = False) -> None:
    """Raise UserError if no trial finished an epoch, or if the search stopped because most trials failed.

    Args:
        trials: all trials of the search.
        is_failing: whether the search stopped because of failing trials.
    """
    failed = [trial for trial in trials if trial.status == "failed"]
    reasons = "; ".join(sorted({trial.reason for trial in failed if trial.reason})) or "no trial was started"
    if is_failing:
        raise UserError(
            f"{len(failed)} of the first {len(trials)} trials failed, so the search stopped: {reasons}",
            remedy=_failure_remedy(reasons),
        )
    has_result = any(trial.status != "failed" and trial.epochs for trial in trials)
    require(has_result, f"All trials failed: {reasons}", remedy=_failure_remedy(reasons))


def _failure_remedy(reasons: str) -> str:
    if "out of memory" in reasons.lower():
        return "Lower --batch-size and rerun the same command to resume"
    return "See the log, fix the cause, and rerun the same command to resume"


def pick_finalists(trials: Sequence[TrialRecord], number: int) -> list[TrialRecord]:
    """Return the best trials except the baseline, best first. Pruned trials count with their best epoch."""
    candidates = [trial for trial in trials if trial.status != "failed" and trial.epochs and not trial.is_baseline]
    candidates.sort(key=lambda trial: trial.number)
    return sorted(candidates, key=lambda trial: ranking(trial.best), reverse=True)[:number]


def make_retrainings(
    configurations: Mapping[str, Mapping[str, Any]],
    first_seed: int,
    num_seeds: int,
    known: Sequence[TrialRecord] = (),
) -> list[Retraining]:
    """Return one retraining per configuration and seed, ordered by seed.

    Args:
        configurations: hyperparameters by name of the finalist.
        first_seed: the first seed.
        num_seeds: number of consecutive seeds.
        known: retrained finalists from before the study was extended. Completed ones keep their numbers, so that they
            are not trained again.
    """
    seeds = [(first_seed + index) % MAX_SEED for index in range(num_seeds)]
    numbers = {
        (record.finalist, str(record.params), record.seed): record.number
        for record in known
        if record.status == "completed"
    }
    next_number = max((record.number for record in known), default=MAX_TRIALS - 1) + 1
    retrainings = []
    for seed in seeds:
        for name, params in configurations.items():
            number = numbers.get((name, str(dict(params)), seed), next_number)
            next_number += number == next_number
            retrainings.append(Retraining(number, name, dict(params), seed))
    return retrainings


@dataclass(frozen=True)
class Finalist:
    """A retrained configuration: one record and one head per seed, in the same order."""

    name: str
    records: list[TrialRecord]
    heads: list[TrainedHead]

    def spec(self, train: TrainSpec) -> TrainSpec:
        """Return the spec of the head at `delivered_index`, based on the spec of the study."""
        record = self.records[self.delivered_index]
        return train.replace(**record.params, seed=record.seed)

    @property
    def delivered_index(self) -> int:
        """Index of the head that becomes the detector: the best one on validation images."""
        return max(range(len(self.records)), key=lambda index: ranking(self.records[index].best))

    @property
    def mean_objective(self) -> float:
        """Objective on validation images, averaged over seeds."""
        return float(np.mean([record.best["objective"] for record in self.records]))


def collect_finalists(
    records: Sequence[TrialRecord], load_head: Callable[[int], TrainedHead | None]
) -> dict[str, Finalist]:
    """Return the retrained finalists by name, without those that failed with every seed.

    Args:
        records: records of the retrainings.
        load_head: returns the head of a trial by its number, or None if there is none.

    Raises: UserError if the baseline failed with every seed, since nothing can be compared then.
    """
    finalists: dict[str, Finalist] = {}
    for record in records:
        head = load_head(record.number) if record.status == "completed" else None
        if head is not None:
            finalist = finalists.setdefault(record.finalist, Finalist(record.finalist, [], []))
            finalist.records.append(record)
            finalist.heads.append(head)
    if BASELINE not in finalists:
        reasons = "; ".join(sorted({record.reason for record in records if record.finalist == BASELINE}))
        raise UserError(f"The baseline failed with every new seed: {reasons}", remedy="See the log")
    return finalists


def decide_champion(
    scores: Mapping[str, Scores], objective: Objective, has_registered: bool, candidates: int = 0
) -> Decision:
    """Decide the champion from the finalists that could be retrained.

    Finalists that failed with all seeds but one are left out, because one seed gives no estimate of the noise. Without
    finalists, or if the registered champion could not be retrained, the registered champion stays.

    Args:
        scores: scores of the baseline, the finalists, and the registered champion if it could be retrained.
        objective: the objective to compare.
        has_registered: whether there is a registered champion of an earlier study.
        candidates: number of trials that the finalists were selected from.
    """
    finalists = {name: each for name, each in scores.items() if name not in (BASELINE, REGISTERED_CHAMPION)}
    challengers = {name: each for name, each in finalists.items() if len(each.image) > 1}
    registered = scores.get(REGISTERED_CHAMPION)
    if challengers and (registered is not None) == has_registered:
        return decide(challengers, scores[BASELINE], registered, objective, candidates)
    kept = "registered champion" if has_registered else "baseline"
    cause = "its retraining failed" if challengers else "no other trial was retrained"
    champion = REGISTERED_CHAMPION if has_registered else BASELINE
    unknown = Interval(0.0, -math.inf, math.inf)
    best = next(iter(challengers), BASELINE)
    return Decision(champion, best, False, unknown, None, (), f"kept the {kept}: {cause}")


def score_heads(backbone: Backbone, data: TrainData, heads: Sequence[TrainedHead], fpr: float) -> Scores:
    """Score the heads of one finalist on the validation images."""
    validation, targets = data.validation, data.validation.targets
    size = validation.features.images.shape[-1]
    loaded = [head.load(backbone, validation.defects.device) for head in heads]
    maps = [score_features(head, validation.features, size) for head in loaded]
    normal_scores = [image_scores(score_features(head, data.calibration, size)) for head in loaded]
    return Scores(
        validation.defects.cpu().numpy(),
        np.stack([image_scores(m).cpu().double().numpy() for m in maps]),
        np.stack([aupro_by_image(m, targets).cpu().numpy() for m in maps]) if targets is not None else None,
        np.array([threshold_of(scores.cpu().numpy(), fpr) for scores in normal_scores]),
    )
