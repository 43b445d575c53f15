"""Finalists: the best trials, the baseline and the champion of earlier studies, trained again over new seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from las_tune.config.objectives import Objective, ranking
from las_tune.config.study_spec import MOST_TRIALS
from las_tune.config.train_spec import TrainSpec
from las_tune.config.trial_record import TrialRecord
from las_tune.errors import UserError
from las_tune.las.backbone import Backbone
from las_tune.las.metrics import aupro_by_image
from las_tune.las.scored_images import threshold_of
from las_tune.las.scoring import image_scores, score_features
from las_tune.las.training import TrainData
from las_tune.selection.evaluation import Trained
from las_tune.selection.promotion import Decision, Interval, Scores, decide

BASELINE, CURRENT = "baseline", "current"
BEST_OF = "best of "
"""Starts the name of another category's best trial, which is trained here as well, to compare, and is no finalist."""
MAX_SEED = 2**31
"""TrainSpec takes seeds below this."""


@dataclass(frozen=True)
class Job:
    """One training of a finalist with a seed of its own."""

    number: int
    """Of its trial in the ledger."""
    name: str
    """baseline, current, the trial that it repeats, or the best of another category."""
    params: dict[str, Any]
    seed: int

    def record(self) -> TrialRecord:
        """Its trial in the ledger."""
        return TrialRecord(self.number, dict(self.params), finalist=self.name, seed=self.seed)


def require_any(trials: Sequence[TrialRecord], is_failing: bool = False) -> None:
    """Raise UserError where no trial finished an epoch, or most of the first ones failed (is_failing)."""
    failed = [trial for trial in trials if trial.status == "failed"]
    reasons = "; ".join(sorted({trial.reason for trial in failed if trial.reason})) or "none ran"
    if is_failing:
        told, do = f"{len(failed)} of {len(trials)} ({reasons})", "mend that, and the same command goes on"
        raise UserError("More than half of the first ten trials of a study must not fail", told, do)
    if not any(trial.status != "failed" and trial.epochs for trial in trials):
        raise UserError("A study needs a trial that did not fail", reasons, "see the log")


def pick_finalists(trials: Sequence[TrialRecord], number: int) -> list[TrialRecord]:
    """The best trials but the baseline, best first; pruned ones count with what they reached."""
    candidates = [trial for trial in trials if trial.status != "failed" and trial.epochs and not trial.is_baseline]
    candidates.sort(key=lambda trial: trial.number)
    return sorted(candidates, key=lambda trial: ranking(trial.best), reverse=True)[:number]


def make_jobs(
    everyone: Mapping[str, Mapping[str, Any]], first_seed: int, num_seeds: int, known: Sequence[TrialRecord] = ()
) -> list[Job]:
    """Everyone (hyperparameters by name) with every seed, seed by seed.

    known: finalists that were trained before the study got more trials; one that is asked for again is not trained
        again.
    """
    seeds = [(first_seed + index) % MAX_SEED for index in range(num_seeds)]
    numbers = {(one.finalist, str(one.params), one.seed): one.number for one in known if one.status == "completed"}
    next_number = max((one.number for one in known), default=MOST_TRIALS - 1) + 1
    jobs = []
    for seed in seeds:
        for name, params in everyone.items():
            number = numbers.get((name, str(dict(params)), seed), next_number)
            next_number += number == next_number
            jobs.append(Job(number, name, dict(params), seed))
    return jobs


@dataclass(frozen=True)
class Finalist:
    """One that was trained again: a record and a head a seed, in the same order."""

    name: str
    records: list[TrialRecord]
    heads: list[Trained]

    def spec(self, train: TrainSpec) -> TrainSpec:
        """What the head that is handed over was trained with."""
        record = self.records[self.shipped]
        return train.replace(**record.params, seed=record.seed)

    @property
    def shipped(self) -> int:
        """Index of the seed whose head is handed over: the best on validation images."""
        return max(range(len(self.records)), key=lambda index: ranking(self.records[index].best))

    @property
    def mean_objective(self) -> float:
        """Mean over seeds of the objective on validation images."""
        return float(np.mean([record.best["objective"] for record in self.records]))


def collect_finalists(
    records: Sequence[TrialRecord], load_head: Callable[[int], Trained | None]
) -> dict[str, Finalist]:
    """Those that were trained again, by name; left out are those that failed in every seed.

    load_head: the head of a trial by its number; None where it left none.
    Raises UserError without the baseline: nothing can be compared.
    """
    finalists: dict[str, Finalist] = {}
    for record in records:
        head = load_head(record.number) if record.status == "completed" else None
        if head is not None:
            one = finalists.setdefault(record.finalist, Finalist(record.finalist, [], []))
            one.records.append(record)
            one.heads.append(head)
    if BASELINE not in finalists:
        reasons = sorted({record.reason for record in records if record.finalist == BASELINE})
        raise UserError("The baseline must train with one of the new seeds", "; ".join(reasons), "see the log")
    return finalists


def decide_champion(
    scores: Mapping[str, Scores], objective: Objective, has_current: bool, candidates: int = 0
) -> Decision:
    """Who becomes the champion. An earlier champion stays where nobody, or not itself, could be trained to compare.

    Args:
        scores: of the baseline, the finalists, and the earlier champion where it trained.
        objective: what is compared.
        has_current: whether there is a champion of an earlier study.
        candidates: trials that the finalists were picked from.

    A finalist that failed with all seeds but one is out: one seed tells nothing of the noise.
    """
    others = {name: one for name, one in scores.items() if name not in (BASELINE, CURRENT)}
    challengers = {name: one for name, one in others.items() if len(one.image) > 1}
    current = scores.get(CURRENT)
    if challengers and (current is not None) == has_current:
        return decide(challengers, scores[BASELINE], current, objective, candidates)
    kept = "earlier champion" if has_current else "baseline"
    why = "it failed to train again" if challengers else "no other trial was trained"
    nothing = Interval(0.0, -math.inf, math.inf)
    best = next(iter(challengers), BASELINE)
    return Decision(CURRENT if has_current else BASELINE, best, False, nothing, None, (), f"kept the {kept}: {why}")


def score_heads(backbone: Backbone, data: TrainData, heads: Sequence[Trained], fpr: float) -> Scores:
    """The heads of one finalist on the validation images."""
    scored, targets = data.validation, data.validation.targets
    size = scored.features.images.shape[-1]
    loaded = [head.load(backbone, scored.defects.device) for head in heads]
    heats = [score_features(head, scored.features, size) for head in loaded]
    normals = [image_scores(score_features(head, data.calibration, size)) for head in loaded]
    return Scores(
        scored.defects.cpu().numpy(),
        np.stack([image_scores(heat).cpu().double().numpy() for heat in heats]),
        np.stack([aupro_by_image(heat, targets).cpu().numpy() for heat in heats]) if targets is not None else None,
        np.array([threshold_of(normal.cpu().numpy(), fpr) for normal in normals]),
    )
