"""Finalists: the best trials, the baseline and the champion of earlier studies, trained again over new seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from las_tune.errors import UserError
from las_tune.las.backbone import Backbone
from las_tune.las.metrics import aupro_by_picture
from las_tune.las.scoring import picture_scores, score_features
from las_tune.las.train import Scored
from las_tune.spec import TrainSpec, tunable_names
from las_tune.tracking.record import TrialRecord
from las_tune.tuning.evaluate import Trained
from las_tune.tuning.promote import Decision, Interval, Objective, Scores, decide

BASELINE, CURRENT = "baseline", "current"
MAX_SEED = 2**31
"""TrainSpec takes seeds below this."""


@dataclass(frozen=True)
class Job:
    """One training of a finalist with a seed of its own."""

    name: str
    """baseline, current, or the trial that it repeats."""
    params: dict[str, Any]
    seed: int

    def record(self, number: int) -> TrialRecord:
        """Its trial in the ledger."""
        return TrialRecord(number, dict(self.params), finalist=self.name, seed=self.seed)


def require_any(trials: Sequence[TrialRecord]) -> None:
    """Raise UserError where no trial finished an epoch."""
    if not any(trial.status != "failed" and trial.epochs for trial in trials):
        reasons = sorted({trial.reason for trial in trials if trial.reason})
        raise UserError("A study needs a trial that did not fail", "; ".join(reasons) or "none ran", "see the log")


def pick_finalists(trials: Sequence[TrialRecord], number: int) -> list[TrialRecord]:
    """The best trials but the baseline, best first; pruned ones count with what they reached."""
    candidates = [trial for trial in trials if trial.status != "failed" and trial.epochs and not trial.is_baseline]
    return sorted(candidates, key=lambda trial: (-trial.best["objective"], trial.number))[:number]


def make_jobs(
    finalists: Sequence[TrialRecord],
    baseline: Mapping[str, Any],
    current: Mapping[str, Any] | None,
    first_seed: int,
    num_seeds: int,
) -> list[Job]:
    """Everyone with every seed, seed by seed. baseline, current: hyperparameters."""
    everyone = {BASELINE: baseline} | ({CURRENT: current} if current is not None else {})
    everyone |= {f"trial {trial.number}": trial.params for trial in finalists}
    seeds = [(first_seed + index) % MAX_SEED for index in range(num_seeds)]
    return [Job(name, dict(params), seed) for seed in seeds for name, params in everyone.items()]


@dataclass(frozen=True)
class Finalist:
    """One that was trained again: a record and a head a seed, in the same order."""

    name: str
    records: list[TrialRecord]
    heads: list[Trained]

    @property
    def shipped(self) -> int:
        """Index of the seed whose head is handed over: the best on validation pictures."""
        return max(range(len(self.records)), key=lambda index: self.records[index].best["objective"])

    @property
    def mean_objective(self) -> float:
        """Mean over seeds of the objective on validation pictures."""
        return float(np.mean([record.best["objective"] for record in self.records]))


def known_hyperparameters(params: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Those of an earlier study's champion that this version still has; None where it is the baseline or unknown."""
    if params is None:
        return None
    known = {name: value for name, value in params.items() if name in tunable_names()}
    return None if TrainSpec().replace(**known).hyperparameters() == TrainSpec().hyperparameters() else known


def decide_champion(scores: Mapping[str, Scores], objective: Objective, has_current: bool) -> Decision:
    """Who becomes the champion. An earlier champion stays where nobody, or not itself, could be trained to compare.

    Args:
        scores: of the baseline, the finalists, and the current champion where it trained.
        objective: what is compared.
        has_current: whether there is a champion of an earlier study.
    """
    challengers = {name: one for name, one in scores.items() if name not in (BASELINE, CURRENT)}
    current = scores.get(CURRENT)
    if challengers and (current is not None) == has_current:
        return decide(challengers, scores[BASELINE], current, objective)
    kept = "old champion" if has_current else "baseline"
    why = "it failed to train again" if challengers else "no other trial was trained"
    nothing = Interval(0.0, 0.0, 0.0)
    best = next(iter(challengers), BASELINE)
    return Decision(CURRENT if has_current else BASELINE, best, False, nothing, None, (), f"kept the {kept}: {why}")


def score_heads(backbone: Backbone, scored: Scored, heads: Sequence[Trained]) -> Scores:
    """The heads of one finalist on the same pictures."""
    size = scored.features.pictures.shape[-1]
    heats = [score_features(head.load(backbone, scored.labels.device), scored.features, size) for head in heads]
    targets = scored.targets
    return Scores(
        scored.labels.cpu().numpy(),
        np.stack([picture_scores(heat).cpu().double().numpy() for heat in heats]),
        np.stack([aupro_by_picture(heat, targets).cpu().numpy() for heat in heats]) if targets is not None else None,
    )
