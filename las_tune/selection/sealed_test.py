"""What the sealed test says: means over seeds, gains with intervals, and the memory bank beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from las_tune.config.objectives import NEED_MASKS, Objective, objective_value
from las_tune.data.study_images import Array
from las_tune.selection.evaluation import MEMORY_BANK, Evaluation
from las_tune.selection.finalists import Finalist
from las_tune.selection.promotion import Interval, Scores, paired_bootstrap

GAINS: tuple[Objective, ...] = ("image_auroc", "pixel_aupro")
"""What has an interval of its gain, beside the study's objective."""


@dataclass(frozen=True)
class SealedReport:
    """The sealed test of a study.

    means    metrics of baseline and champion, each the mean over seeds, and of the memory bank
    gains    of the champion over the baseline in objectives, with the interval of images and seeds; none where
             they are one
    shipped  the evaluation of the head that is handed over, by role
    """

    means: dict[str, dict[str, float]]
    gains: dict[str, Interval]
    shipped: dict[str, Evaluation]

    @classmethod
    def of(
        cls,
        roles: Mapping[str, Finalist],
        evaluations: Mapping[str, Evaluation],
        defects: Array,
        objective: Objective,
    ) -> SealedReport:
        """From the evaluations of every head (name/index) and of the memory bank; defects (N,) as in LabeledImages."""
        by_role = {role: [evaluations[f"{one.name}/{i}"] for i in range(len(one.heads))] for role, one in roles.items()}
        means = {role: _mean(several) for role, several in by_role.items()}
        means[MEMORY_BANK] = evaluations[MEMORY_BANK].metrics
        gains: dict[str, Interval] = {}
        if roles["champion"] is not roles["baseline"]:
            scores = {role: _scores(several, defects) for role, several in by_role.items()}
            gains = {
                name: paired_bootstrap(scores["champion"], scores["baseline"], name)
                for name in dict.fromkeys((*GAINS, objective))
                if name not in NEED_MASKS or scores["champion"].per_image is not None
            }
        return cls(means, gains, {role: by_role[role][one.shipped] for role, one in roles.items()})

    def bank_against_champion(self, objective: Objective) -> dict[str, float | bool]:
        """The objective of the memory bank and of the champion on the sealed test, and whether the bank wins."""
        bank, champion = (objective_value(objective, self.means[role]) for role in (MEMORY_BANK, "champion"))
        return {"memory_bank": bank, "champion": champion, "memory_bank_wins": bank > champion}

    def metrics(self) -> dict[str, float]:
        """For the study's run: role/test_metric, the means."""
        return {f"{role}/test_{name}": value for role, mean in self.means.items() for name, value in mean.items()}


def _mean(several: list[Evaluation]) -> dict[str, float]:
    return {name: float(np.mean([one.metrics[name] for one in several])) for name in several[0].metrics}


def _scores(several: list[Evaluation], defects: Array) -> Scores:
    image = np.stack([one.scores for one in several]).astype(np.float64)
    per_image = [one.per_image for one in several if one.per_image is not None]
    thresholds = np.array([one.threshold for one in several])
    return Scores(defects, image, np.stack(per_image) if per_image else None, thresholds)
