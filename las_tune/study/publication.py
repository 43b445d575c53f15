"""Ledger calls at the start and at the end of a study.

Everything in between comes from the observer, which calls the ledger as a Listener.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from las_tune.config import Progress, StudySpec, paths, write_json
from las_tune.errors import without_password
from las_tune.reporting import Summary, describe_start, describe_study
from las_tune.selection import BASELINE, REGISTERED_CHAMPION, settings_tag
from las_tune.space import Space
from las_tune.study.conclusion import Conclusion
from las_tune.study.outputs import DetectorFiles
from las_tune.tracking import STUDY_RUN, Ledger

NOTE_TAG = "mlflow.note.content"
"""MLflow shows this tag as the description of a run, in Markdown."""
DELIVERY_TIMEOUT_S = 300.0
"""How long the end of a study waits for an MLflow server that does not answer."""


@dataclass(frozen=True)
class StudyFiles:
    """Files that are copied into the study's run."""

    detector: DetectorFiles
    figures: list[Path]
    log: Path


def study_parameters(spec: StudySpec, space: Space) -> dict[str, Any]:
    """Return the parameters of the study's run."""
    return {
        "trials": spec.trials,
        "finalists": spec.finalists,
        "seeds": spec.seeds,
        "epochs": spec.train.epochs,
        "image_size": spec.train.image_size,
        "batch_size": spec.train.batch_size,
        "objective": spec.train.objective,
        "fpr": spec.train.fpr,
        "validation": spec.validation,
        "holdout": spec.holdout,
        "protocol": spec.protocol,
        "sampler": spec.sampler,
        "scheduler": spec.scheduler,
        "patience": spec.patience,
        "warm_start": ", ".join(spec.warm_start),
        "space": space.name,
        "command": without_password(spec.command)[:5000],
    }


def publish_start(
    spec: StudySpec, space: Space, files: Sequence[Path], warm_start: Sequence[str], ledger: Ledger
) -> None:
    """Publish what is known before the first trial.

    Args:
        spec: settings of the study.
        space: search space of the study.
        files: see outputs.write_start_files.
        warm_start: a sentence for each warm start; empty if none has a point.
        ledger: ledger of the study.
    """
    ledger.log_artifacts(STUDY_RUN, files)
    description = describe_start(spec, _ranges(space), without_password(spec.command))
    ledger.tag(STUDY_RUN, {NOTE_TAG: description})
    if warm_start:
        ledger.tag(STUDY_RUN, {"warm_start": "; ".join(warm_start)})


def publish(conclusion: Conclusion, files: StudyFiles, ledger: Ledger, progress: Progress, started: float) -> Summary:
    """Publish the result of a study and end its run in the ledger.

    Writes that MLflow does not accept in time stay in the journal. `summary.json` marks the study as finished. It is
    written here, because it names the registered model and counts those writes.

    Args:
        conclusion: see conclusion.evaluate.
        files: files of the study.
        ledger: ledger of the study.
        progress: reports the delivery to MLflow.
        started: when the run started, by time.monotonic.

    Returns: the complete summary.
    """
    spec, space = conclusion.study.spec, conclusion.study.space
    ledger.log_artifacts(STUDY_RUN, files.detector)
    _publish_finalists(conclusion, ledger)
    _register_champion(conclusion, files.detector.model, ledger)
    ledger.log_metrics(STUDY_RUN, conclusion.report.metrics() | _summary_metrics(conclusion.summary))
    ledger.tag(STUDY_RUN, {"promotion": conclusion.choice.decision.reason, "test": conclusion.images.test_name})
    ledger.log_artifacts(STUDY_RUN, files.figures, "figures")
    ledger.log_artifacts(STUDY_RUN, [files.log])
    description = describe_study(conclusion.summary, _ranges(space), without_password(spec.command))
    ledger.tag(STUDY_RUN, {NOTE_TAG: description})

    unsent = ledger.deliver(progress, DELIVERY_TIMEOUT_S)
    summary = replace(
        conclusion.summary,
        experiment_id=ledger.experiment_id,
        parent_run_id=ledger.parent_run_id,
        seconds=round(time.monotonic() - started, 1),
        model_uri=ledger.model_uri,
        unsent_writes=unsent,
    )
    write_json(spec.folder / paths.SUMMARY, summary.to_json())
    ledger.log_artifacts(STUDY_RUN, [spec.folder / paths.SUMMARY])
    ledger.end_study("FINISHED")
    unsent = ledger.deliver(progress, 0.0 if unsent.waiting else DELIVERY_TIMEOUT_S)
    return replace(summary, unsent_writes=unsent)


def _publish_finalists(conclusion: Conclusion, ledger: Ledger) -> None:
    """Mark finalists, ties and the champion, and log the metrics of the sealed test."""
    choice, decision = conclusion.choice, conclusion.choice.decision
    tied = (decision.best, *decision.tied) if decision.tied else ()
    for name, finalist in conclusion.study.finalists.items():
        tags = {"tied": "true"} if name in tied else {}
        if finalist is choice.champion:
            tags["champion"] = "true"
        if name != REGISTERED_CHAMPION:  # the registered champion has no trial in this search
            trial = "0" if name == BASELINE else name.removeprefix("trial ")
            ledger.tag(trial, {"finalist": name, **tags})
        for record in finalist.records if name in tied else ():
            ledger.tag(str(record.number), {"tied": "true"})
    for role, finalist in choice.roles.items():
        for index, record in enumerate(finalist.records):
            metrics = conclusion.evaluations[f"{finalist.name}/{index}"].metrics
            ledger.log_metrics(str(record.number), {f"test/{name}": value for name, value in metrics.items()})
            if index == finalist.delivered_index:
                ledger.tag(str(record.number), {role: "true", "promotion": decision.reason})


def _register_champion(conclusion: Conclusion, detector: Path, ledger: Ledger) -> None:
    """Register the detector as a version of the category's model.

    If the registered champion was retrained for comparison and won, it keeps its version.
    """
    spec, choice, images = conclusion.study.spec, conclusion.choice, conclusion.images
    champion = choice.records["champion"]
    ledger.register_champion(
        str(champion.number),
        detector,
        images.trials.fit[[0, -1]].transpose(0, 2, 3, 1),
        spec.category,
        _version_tags(conclusion),
        version=choice.champion.name != REGISTERED_CHAMPION,
        promote=not choice.alias_stays,
    )


def _version_tags(conclusion: Conclusion) -> dict[str, str]:
    """Tags of the model version, which later studies read."""
    spec, choice, split = conclusion.study.spec, conclusion.choice, conclusion.images.split
    champion = choice.records["champion"]
    tags = {
        "digest": split.as_dict()["digest"],
        "painted": ", ".join(split.synthetic_parts),
        "promotion": choice.decision.reason,
        "study": spec.study,
        "demo": str(spec.demo).lower(),
        "trial": str(champion.number),
        "hyperparameters": json.dumps(champion.params),
        "settings": settings_tag(spec),
    }
    tags |= {"test-selected": "true"} if spec.is_test_selected else {}
    tags |= {"test-watched": "true"} if spec.leakage_gap else {}
    return tags


def _summary_metrics(summary: Summary) -> dict[str, float]:
    """Metrics of the summary that are used to compare the runs of studies."""
    metrics: dict[str, float] = {"test_openings": summary.test_openings}
    metrics |= {f"cost/{name}": value for name, value in summary.cost.to_json().items() if value is not None}
    if summary.leakage_gap:
        metrics["leakage_gap"] = summary.leakage_gap.gap
    if summary.rank_correlation and summary.rank_correlation.spearman is not None:
        metrics["rank_correlation"] = summary.rank_correlation.spearman
    return metrics


def _ranges(space: Space) -> dict[str, str]:
    """Range of each hyperparameter, as text."""
    return {name: parameter.range_text for name, parameter in space.parameters.items()}
