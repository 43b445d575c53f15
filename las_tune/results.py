"""Results of the library's functions. In a notebook they are displayed as tables and figures."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from las_tune.config import paths
from las_tune.execution import History
from las_tune.inference import Predictor
from las_tune.reporting import GAIN, Summary, gain_rows
from las_tune.study import SingleResult

SHOWN = ("optimization_history.png", "optimisation_history.png", "importance.png")
"""Figures of a study that a notebook displays, in addition to training curves and ROC curve (old name: 0.1.0)."""


@dataclass(frozen=True)
class StudyResult:
    """A finished study."""

    summary: Summary = field(repr=False)
    """Content of summary.json."""
    folder: Path
    """Folder of everything that the study wrote, except the MLflow store."""

    @property
    def champion(self) -> dict[str, Any]:
        """Hyperparameters of the champion; those of the baseline if no gain was proven."""
        return dict(self.summary.champion.params)

    @property
    def is_promoted(self) -> bool:
        """True if the gain over the baseline is larger than the noise."""
        return self.summary.promotion.promoted

    @property
    def reason(self) -> str:
        """Reason for the promotion, or for keeping the baseline, as a sentence."""
        return self.summary.promotion.reason

    @property
    def model_uri(self) -> str:
        """URI of the champion in MLflow's model registry."""
        return self.summary.model_uri

    @property
    def scores(self) -> pd.DataFrame:
        """Scores of baseline, champion and memory bank: a row for validation, and one per metric of the sealed test."""
        columns = ["baseline", "champion", "memory_bank", GAIN]
        rows = {
            f"{row.images} {row.metric}": [row.baseline, row.champion, row.memory_bank, row.gain]
            for row in gain_rows(self.summary)
        }
        return pd.DataFrame.from_dict(rows, "index", columns=columns)

    @property
    def trials(self) -> pd.DataFrame:
        """One row per training run, trials of the search first."""
        rows = [
            {
                "trial": record.number,
                "finalist": record.finalist,
                "seed": record.seed,
                "status": record.status,
                "objective": record.best_objective,
                "image_auroc": record.best.get("image_auroc"),
                "pixel_aupro": record.best.get("pixel_aupro"),
                "epochs": len(record.epochs),
                "seconds": round(record.seconds, 1),
                **record.params,
            }
            for record in History(self.folder).ended
        ]
        return pd.DataFrame(rows).sort_values("trial").set_index("trial")

    @property
    def figures(self) -> list[Path]:
        """All figures of the study."""
        return [*sorted(self.folder.glob("*.png")), *sorted((self.folder / "figures").glob("*.png"))]

    def predictor(self, device: str = "cpu") -> Predictor:
        """Load the champion from the study's folder."""
        return Predictor(self.folder / paths.model_file(self.summary.category), device)

    def _repr_html_(self) -> str:
        shown = [file for file in self.figures if file.parent == self.folder or file.name in SHOWN]
        title = f"{self.summary.category}: study {self.summary.study}, means over seeds"
        return _page(title, self.reason, self.scores, shown)


@dataclass(frozen=True)
class TrainingResult:
    """A finished training run."""

    single: SingleResult = field(repr=False)
    folder: Path

    @property
    def scores(self) -> pd.DataFrame:
        """Scores of the detector and the memory bank on the sealed test, one row per metric."""
        single = self.single
        rows = {
            f"{single.test_name} {name}": [value, single.memory_bank.metrics[name]]
            for name, value in single.evaluation.metrics.items()
        }
        return pd.DataFrame.from_dict(rows, "index", columns=["detector", "memory_bank"])

    @property
    def epochs(self) -> pd.DataFrame:
        """One row per epoch: losses, and metrics on validation images."""
        return pd.DataFrame(self.single.trial.epochs).set_index("epoch")

    @property
    def figures(self) -> list[Path]:
        """Training curves and ROC curve."""
        return sorted(self.folder.glob("*.png"))

    def predictor(self, device: str = "cpu") -> Predictor:
        """Load the detector of the best epoch."""
        return Predictor(next(self.folder.glob(paths.model_file("*"))), device)

    def _repr_html_(self) -> str:
        best = self.single.trial.best
        text = f"Best epoch {int(best['epoch'])}: objective {best['objective']:.4f} on validation images"
        return _page(self.folder.name, text, self.scores, self.figures)


def _page(title: str, text: str, table: pd.DataFrame, figures: list[Path]) -> str:
    """Return a table and images as HTML."""
    images = "".join(
        f'<img alt="{html.escape(file.stem)}" style="max-width: 48%" '
        f'src="data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}">'
        for file in figures
    )
    scores = table.to_html(float_format="{:.4f}".format)
    return f"<h4>{html.escape(title)}</h4>{scores}<p>{html.escape(text)}</p>{images}"
