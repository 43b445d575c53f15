"""Report of the sealed test: means over seeds, gains with intervals, and the memory bank for comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from las_tune.config import PIXEL_OBJECTIVES, Interval, Objective, objective_value
from las_tune.data import Array
from las_tune.selection.evaluation import MEMORY_BANK, Evaluation
from las_tune.selection.finalists import Finalist
from las_tune.selection.promotion import Scores, paired_bootstrap

GAINS: tuple[Objective, ...] = ("image_auroc", "pixel_aupro")
"""Objectives for which a gain is reported, in addition to the objective of the study."""


@dataclass(frozen=True)
class SealedReport:
    """Results of a study on the sealed test.

    means      metrics of baseline and champion, averaged over seeds, and of the memory bank
    gains      gains of the champion over the baseline by objective, with their intervals over images and seeds; empty
               if the baseline is the champion
    delivered  evaluation of the head that becomes the detector, by role
    """

    means: dict[str, dict[str, float]]
    gains: dict[str, Interval]
    delivered: dict[str, Evaluation]

    @classmethod
    def of(
        cls,
        roles: Mapping[str, Finalist],
        evaluations: Mapping[str, Evaluation],
        defects: Array,
        objective: Objective,
    ) -> SealedReport:
        """Build the report.

        Args:
            roles: finalists by role, baseline and champion.
            evaluations: evaluations of all heads, named finalist/index, and of the memory bank.
            defects: (N,) int64, see LabeledImages.
            objective: the objective of the study.
        """
        by_role = {
            role: [evaluations[f"{finalist.name}/{index}"] for index in range(len(finalist.heads))]
            for role, finalist in roles.items()
        }
        means = {role: _mean(group) for role, group in by_role.items()}
        means[MEMORY_BANK] = evaluations[MEMORY_BANK].metrics
        gains: dict[str, Interval] = {}
        if roles["champion"] is not roles["baseline"]:
            scores = {role: _scores(group, defects) for role, group in by_role.items()}
            gains = {
                name: paired_bootstrap(scores["champion"], scores["baseline"], name)
                for name in dict.fromkeys((*GAINS, objective))
                if name not in PIXEL_OBJECTIVES or scores["champion"].per_image is not None
            }
        return cls(means, gains, {role: by_role[role][finalist.delivered_index] for role, finalist in roles.items()})

    def bank_against_champion(self, objective: Objective) -> dict[str, Any]:
        """Return the objectives of memory bank and champion on the sealed test, and whether the bank scores higher."""
        bank, champion = (objective_value(objective, self.means[role]) for role in (MEMORY_BANK, "champion"))
        return {"memory_bank": bank, "champion": champion, "memory_bank_wins": bank > champion}

    def metrics(self) -> dict[str, float]:
        """Return the means as metrics of the study's MLflow run, named role/test_metric."""
        return {f"{role}/test_{name}": value for role, mean in self.means.items() for name, value in mean.items()}


def _mean(evaluations: list[Evaluation]) -> dict[str, float]:
    return {name: float(np.mean([each.metrics[name] for each in evaluations])) for name in evaluations[0].metrics}


def _scores(evaluations: list[Evaluation], defects: Array) -> Scores:
    image = np.stack([each.scores for each in evaluations]).astype(np.float64)
    per_image = [each.per_image for each in evaluations if each.per_image is not None]
    thresholds = np.array([each.threshold for each in evaluations])
    return Scores(defects, image, np.stack(per_image) if per_image else None, thresholds)
