"""The end of a study as pure functions of the workers' results: `decide` the champion, then `evaluate` it.

Neither writes a file or touches the ledger; see outputs.py and publication.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from las_tune.config import Interval, TrialRecord, objective_value
from las_tune.data import StudyImages
from las_tune.errors import without_password
from las_tune.reporting import (
    ByRole,
    CostSummary,
    LeakageGap,
    Promotion,
    RankCorrelation,
    Reference,
    Splits,
    Summary,
    TieBreaks,
    TrialCounts,
    TrialSummary,
)
from las_tune.selection import (
    BASELINE,
    BEST_OF,
    MEMORY_BANK,
    REGISTERED_CHAMPION,
    Decision,
    Evaluation,
    Finalist,
    Scores,
    SealedReport,
    TrainedHead,
    decide_champion,
    leakage_gap,
    paired_bootstrap,
    pick_finalists,
    rank_correlation,
    why_alias_stays,
)
from las_tune.study.trained_study import TrainedStudy


@dataclass(frozen=True)
class ChampionChoice:
    """The champion of a study, chosen on validation images."""

    decision: Decision
    baseline: Finalist
    champion: Finalist
    """The finalist that becomes the champion; the baseline if no gain was proven."""
    validation_gain: Interval | None
    """Gain of the champion on the validation images; None if it is the baseline."""
    alias_stays: str
    """Why the alias `champion` of the registered model does not move to this champion; empty if it moves."""

    @property
    def roles(self) -> dict[str, Finalist]:
        """Baseline and champion, by role."""
        return {"baseline": self.baseline, "champion": self.champion}

    @property
    def records(self) -> dict[str, TrialRecord]:
        """The retraining with the best head, by role."""
        return {role: finalist.records[finalist.delivered_index] for role, finalist in self.roles.items()}

    @property
    def heads(self) -> dict[str, TrainedHead]:
        """The best head on validation images, by role."""
        return {role: finalist.heads[finalist.delivered_index] for role, finalist in self.roles.items()}

    @property
    def heads_to_test(self) -> dict[str, TrainedHead]:
        """Every head of baseline and champion, as name/index, for the sealed test."""
        return {
            f"{finalist.name}/{index}": head
            for finalist in self.roles.values()
            for index, head in enumerate(finalist.heads)
        }


@dataclass(frozen=True)
class Conclusion:
    """The result of a study, ready to be written and published."""

    study: TrainedStudy
    images: StudyImages
    choice: ChampionChoice
    evaluations: Mapping[str, Evaluation]
    """On the sealed test: the heads to test, and the memory bank."""
    report: SealedReport
    summary: Summary
    """Complete except for the fields that MLflow determines: run ids, model and unsent writes."""


def decide(study: TrainedStudy, scores: Mapping[str, Scores], registered_tags: Mapping[str, str]) -> ChampionChoice:
    """Choose the champion of a study.

    Args:
        study: trials and retrained finalists.
        scores: scores of every finalist on the validation images, by name.
        registered_tags: tags of the registered champion of the category; empty without one.
    """
    objective = study.spec.train.resolved_objective
    has_registered = any(record.finalist == REGISTERED_CHAMPION for record in study.retrained)
    num_candidates = len(pick_finalists(study.trials, len(study.trials)))
    decision = decide_champion(scores, objective, has_registered, num_candidates)
    alias_stays = why_alias_stays(study.spec, decision, registered_tags)
    if decision.promoted and alias_stays:
        decision = replace(decision, promoted=False, reason=f"{decision.reason}; {alias_stays}")
    champion = decision.champion if decision.champion in study.finalists else BASELINE
    if champion == BASELINE:
        gain = None
    elif champion == decision.best:
        gain = decision.gain
    else:
        gain = paired_bootstrap(scores[champion], scores[BASELINE], objective)
    return ChampionChoice(decision, study.finalists[BASELINE], study.finalists[champion], gain, alias_stays)


def evaluate(
    study: TrainedStudy,
    images: StudyImages,
    choice: ChampionChoice,
    evaluations: Mapping[str, Evaluation],
    test_openings: int,
    cost_unit: tuple[str, float],
) -> Conclusion:
    """Evaluate the champion on the sealed test, and summarize the study.

    Args:
        study: trials and retrained finalists.
        images: images of the study.
        choice: result of `decide`.
        evaluations: of `choice.heads_to_test` and of the memory bank, on the sealed test.
        test_openings: how often the sealed test was scored so far.
        cost_unit: unit and amount of the cost of one second of a trial, such as gpu_seconds and 1.
    """
    objective = study.spec.train.resolved_objective
    report = SealedReport.of(choice.roles, evaluations, images.sealed_test.defects, objective)
    summary = _summarize(study, images, choice, evaluations, report, test_openings, cost_unit)
    return Conclusion(study, images, choice, evaluations, report, summary)


def _summarize(
    study: TrainedStudy,
    images: StudyImages,
    choice: ChampionChoice,
    evaluations: Mapping[str, Evaluation],
    report: SealedReport,
    test_openings: int,
    cost_unit: tuple[str, float],
) -> Summary:
    spec, decision = study.spec, choice.decision
    objective = spec.train.resolved_objective
    delivered = {role: TrialSummary.of(choice.records[role], report.delivered[role].metrics) for role in choice.roles}
    memory_bank = objective_value(objective, evaluations[MEMORY_BANK].validation)
    return Summary(
        study=spec.study,
        category=spec.category,
        demo=spec.demo,
        objective=objective,
        validation=spec.validation,
        protocol=spec.protocol,
        is_test_selected=spec.is_test_selected,
        test_name=images.test_name,
        is_test_monitored=spec.leakage_gap,
        synthetic_parts=tuple(images.split.synthetic_parts),
        splits=_splits(images),
        skipped=tuple(images.skipped),
        masks_missing=images.masks_missing,
        trials=TrialCounts.of(study.trials),
        tracking_uri=without_password(spec.tracking_uri),
        experiment=spec.experiment,
        best_trial=TrialSummary.of(study.best_trial, None),
        baseline=delivered["baseline"],
        champion=delivered["champion"],
        validation_mean=ByRole(choice.baseline.mean_objective, choice.champion.mean_objective, memory_bank),
        validation_gain=choice.validation_gain,
        test_mean=ByRole(**report.means),
        test_gain=report.gains,
        reference=Reference(**report.bank_against_champion(objective)),
        promotion=_promotion(decision),
        tie_break=TieBreaks(study.tie_break, decision.tie_break),
        test_openings=test_openings,
        rank_correlation=_rank_correlation(study, images),
        leakage_gap=_leakage_gap(study, images),
        cost=_cost(study, decision, cost_unit),
    )


def _splits(images: StudyImages) -> Splits:
    split = images.split
    labelled = len(split.labelled) or None
    return Splits(len(split.fit), len(split.calibration), len(split.validation), len(split.sealed_test), labelled)


def _promotion(decision: Decision) -> Promotion:
    return Promotion(
        champion=decision.champion,
        best=decision.best,
        promoted=decision.promoted,
        gain=decision.gain,
        gain_over_registered=decision.gain_over_registered,
        tied=decision.tied,
        reason=decision.reason,
        tie_break=decision.tie_break,
    )


def _rank_correlation(study: TrainedStudy, images: StudyImages) -> RankCorrelation | None:
    if "labelled" not in images.trials.monitored:
        return None
    return RankCorrelation(**rank_correlation(study.trials))


def _leakage_gap(study: TrainedStudy, images: StudyImages) -> LeakageGap | None:
    if not study.spec.leakage_gap:
        return None
    num_validation, num_sealed = len(images.trials.validation.defects), len(images.sealed_test.defects)
    return LeakageGap.from_json(leakage_gap(study.trials, num_validation, num_sealed))


def _cost(study: TrainedStudy, decision: Decision, cost_unit: tuple[str, float]) -> CostSummary:
    """Cost of the search and of the finalists; the best trials of other categories are not part of this study."""
    own = [record for record in study.retrained if not record.finalist.startswith(BEST_OF)]
    gain = decision.gain.mean if decision.promoted else 0.0
    return CostSummary.of([*study.trials, *own], gain, *cost_unit)
