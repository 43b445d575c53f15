"""The end of one study: who becomes the champion, the sealed test, the model, the summary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from las_tune.config.objectives import Objective, objective_value
from las_tune.config.study_spec import StudySpec, model_name
from las_tune.config.trial_record import TrialRecord
from las_tune.data.study_images import Progress, StudyImages
from las_tune.errors import without_password
from las_tune.execution.cluster import Resources
from las_tune.execution.remote import evaluate_remotely, score_remotely
from las_tune.execution.trainable import SharedStudy
from las_tune.las.backbone import Backbone
from las_tune.reporting.summary import count_trials, describe_cost, describe_trial
from las_tune.selection.agreement import leakage_gap, rank_correlation
from las_tune.selection.alias import settings_tag, why_alias_stays
from las_tune.selection.evaluation import MEMORY_BANK, Evaluation
from las_tune.selection.finalists import (
    BASELINE,
    BEST_OF,
    CURRENT,
    Finalist,
    decide_champion,
    pick_finalists,
)
from las_tune.selection.openings import count_opening
from las_tune.selection.promotion import Decision, Scores, paired_bootstrap
from las_tune.selection.sealed_test import SealedReport
from las_tune.study.outputs import write_outputs
from las_tune.study.searched import Searched
from las_tune.tracking.journal import STUDY_RUN
from las_tune.tracking.ledger import Ledger


def conclude(
    study: Searched,
    shared: SharedStudy,
    backbone: Backbone,
    images: StudyImages,
    ledger: Ledger,
    resources: Resources,
    progress: Progress,
) -> dict[str, Any]:
    """Decide, open the sealed test for baseline and champion, write and register the champion; the summary."""
    spec, finalists = study.spec, study.finalists
    objective = spec.train.resolved_objective
    scores = score_remotely(shared, {name: one.heads for name, one in finalists.items()}, resources)
    decision, why_not = _decide(study, scores, ledger)
    champion = decision.champion if decision.champion in finalists else BASELINE
    handed_over = finalists[champion]

    progress("opening the sealed test", 0, 1)
    sealed_keys = images.split.as_dict()["sealed_test"]
    openings = count_opening(spec.results, spec.data_root / spec.category, sealed_keys, spec.study, spec.trials)
    roles = {"baseline": finalists[BASELINE], "champion": handed_over}
    heads = {f"{one.name}/{index}": head for one in roles.values() for index, head in enumerate(one.heads)}
    evaluations = evaluate_remotely(shared, heads, images.sealed_test, resources)
    report = SealedReport.of(roles, evaluations, images.sealed_test.defects, objective)

    progress("writing the champion", 0, 1)
    shipped = {role: one.records[one.shipped] for role, one in roles.items()}
    files = write_outputs(
        spec.folder, spec.category, handed_over.spec(spec.train), backbone, shipped,
        {role: one.heads[one.shipped] for role, one in roles.items()}, report.shipped, images.sealed_test.labels,
        images.test_name, spec.model_weights == "inside",
    )  # fmt: skip
    ledger.log_artifacts(STUDY_RUN, files)
    _log_finalists(ledger, finalists, roles, evaluations, decision)
    # A earlier champion was trained again to compare: the version that is there stays.
    how = {"version": champion != CURRENT, "promote": not why_not}
    _hand_over(spec, images, shipped["champion"], ledger, files[-1], decision, how)
    validation = {role: one.mean_objective for role, one in roles.items()}
    validation[MEMORY_BANK] = objective_value(objective, evaluations[MEMORY_BANK].validation)
    summary = _describe(spec, images, study.trials, ledger) | {
        "best_trial": describe_trial(study.best_trial, None),
        **{role: describe_trial(shipped[role], report.shipped[role].metrics) for role in roles},
        "validation_mean": validation,
        "validation_gain": _gain_of(champion, decision, scores, objective),
        "test_mean": report.means,
        "test_gain": {name: asdict(interval) for name, interval in report.gains.items()},
        "reference": report.bank_against_champion(objective),
        "promotion": asdict(decision),
        "tie_break": {"search": study.tie_break, "finalists": decision.tie_break},
        "test_openings": openings,
        **_watched(study, images),
        "cost": describe_cost(
            [*study.trials, *(r for r in study.again if not r.finalist.startswith(BEST_OF))],
            decision.gain.mean if decision.promoted else 0.0,
            *resources.cost_unit,
        ),
    }
    ledger.log_metrics(STUDY_RUN, report.metrics() | _figures(summary))
    ledger.tag(STUDY_RUN, {"promotion": decision.reason, "test": images.test_name})
    return summary


def _decide(study: Searched, scores: Mapping[str, Scores], ledger: Ledger) -> tuple[Decision, str]:
    """Who is promoted, and why the alias stays where it is; empty where it may move."""
    has_current = any(record.finalist == CURRENT for record in study.again)
    num_tried = len(pick_finalists(study.trials, len(study.trials)))
    decision = decide_champion(scores, study.spec.train.resolved_objective, has_current, num_tried)
    why_not = why_alias_stays(study.spec, decision, ledger.champion_tags(model_name(study.spec.category)))
    if decision.promoted and why_not:
        decision = replace(decision, promoted=False, reason=f"{decision.reason}; {why_not}")
    return decision, why_not


def _watched(study: Searched, images: StudyImages) -> dict[str, Any]:
    """What was scored in every epoch and never chosen by."""
    sizes = len(images.trials.validation.defects), len(images.sealed_test.defects)
    return {
        "rank_correlation": rank_correlation(study.trials) if "labelled" in images.trials.watched else None,
        "leakage_gap": leakage_gap(study.trials, *sizes) if study.spec.leakage_gap else None,
    }


def _hand_over(
    spec: StudySpec,
    images: StudyImages,
    champion: TrialRecord,
    ledger: Ledger,
    detector: Path,
    decision: Decision,
    how: dict[str, bool],
) -> None:
    """Register the detector as a version of the category's model, with all that later studies ask of it."""
    split = images.split
    tags = {"digest": split.as_dict()["digest"], "painted": ", ".join(split.painted), "promotion": decision.reason}
    tags |= {"study": spec.study, "demo": str(spec.demo).lower(), "trial": str(champion.number)}
    tags |= {"hyperparameters": json.dumps(champion.params), "settings": settings_tag(spec)}
    tags |= {"test-selected": "true"} if spec.is_test_selected else {}
    tags |= {"test-watched": "true"} if spec.leakage_gap else {}
    example = images.trials.fit[[0, -1]].transpose(0, 2, 3, 1)
    ledger.hand_over(str(champion.number), detector, example, spec.category, tags, **how)


def _gain_of(
    champion: str, decision: Decision, scores: dict[str, Scores], objective: Objective
) -> dict[str, float] | None:
    """The gain of the one handed over on validation images; None where it is the baseline."""
    if champion == BASELINE:
        return None
    same = champion == decision.best
    return asdict(decision.gain if same else paired_bootstrap(scores[champion], scores[BASELINE], objective))


def _log_finalists(
    ledger: Ledger,
    finalists: dict[str, Finalist],
    roles: dict[str, Finalist],
    evaluations: dict[str, Evaluation],
    decision: Decision,
) -> None:
    """The sealed test's numbers into the runs of the heads that were scored, and who was what."""
    champion = roles["champion"]
    tied = (decision.best, *decision.tied) if decision.tied else ()
    for name, one in finalists.items():
        tags = ({"tied": "true"} if name in tied else {}) | ({"champion": "true"} if one is champion else {})
        if name != CURRENT:  # the search's own run of these hyperparameters
            ledger.tag("0" if name == BASELINE else name.removeprefix("trial "), {"finalist": name, **tags})
        for record in one.records if name in tied else ():
            ledger.tag(str(record.number), {"tied": "true"})
    for role, one in roles.items():
        for index, record in enumerate(one.records):
            metrics = evaluations[f"{one.name}/{index}"].metrics
            ledger.log_metrics(str(record.number), {f"test/{name}": value for name, value in metrics.items()})
            if index == one.shipped:
                ledger.tag(str(record.number), {role: "true", "promotion": decision.reason})


def _figures(summary: dict[str, Any]) -> dict[str, float]:
    """Of the summary, the numbers that the study's run is compared by."""
    figures = {"test_openings": summary["test_openings"]} | {
        f"cost/{name}": value for name, value in summary["cost"].items() if value is not None
    }
    if summary["leakage_gap"]:
        figures["leakage_gap"] = summary["leakage_gap"]["gap"]
    if summary["rank_correlation"] and summary["rank_correlation"]["spearman"] is not None:
        figures["rank_correlation"] = summary["rank_correlation"]["spearman"]
    return figures


def _describe(spec: StudySpec, images: StudyImages, trials: Sequence[TrialRecord], ledger: Ledger) -> dict[str, Any]:
    """What the summary says besides the numbers."""
    return {
        "study": spec.study,
        "category": spec.category,
        "demo": spec.demo,
        "objective": spec.train.objective,
        "validation": spec.validation,
        "protocol": spec.protocol,
        "test_selected": spec.is_test_selected,
        "test_name": images.test_name,
        "test_watched": spec.leakage_gap,
        "painted": list(images.split.painted),
        "splits": {part: len(keys) for part, keys in images.split.as_dict().items() if isinstance(keys, list)},
        "skipped": list(images.skipped),
        "masks_missing": images.masks_missing,
        "trials": count_trials(trials),
        "tracking_uri": without_password(spec.tracking_uri),
        "experiment": spec.experiment,
        "experiment_id": ledger.experiment_id,
        "parent_run_id": ledger.parent_run_id,
    }
