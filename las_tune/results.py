"""What the library's functions return; in a notebook it shows itself as tables and figures."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from las_tune.config import paths
from las_tune.execution.history import History
from las_tune.inference.predictor import Predictor
from las_tune.reporting.gains import GAIN, gain_rows
from las_tune.study.single import SingleResult

SHOWN = ("optimization_history.png", "importance.png")
"""Figures of a study that a notebook shows, beside curves and ROC."""


@dataclass(frozen=True)
class StudyResult:
    """A finished study."""

    summary: dict[str, Any] = field(repr=False)
    """What summary.json holds."""
    folder: Path
    """Everything that the study left, but the MLflow store."""

    @property
    def champion(self) -> dict[str, Any]:
        """Hyperparameters of the detector that was handed over: the baseline's where no gain was proven."""
        return dict(self.summary["champion"]["params"])

    @property
    def is_promoted(self) -> bool:
        """Whether the gain over the baseline lies beyond the noise."""
        return bool(self.summary["promotion"]["promoted"])

    @property
    def reason(self) -> str:
        """Why it was promoted, or was not, in a sentence."""
        return str(self.summary["promotion"]["reason"])

    @property
    def model_uri(self) -> str:
        """Of the champion in MLflow's model registry."""
        return str(self.summary["model_uri"])

    @property
    def scores(self) -> pd.DataFrame:
        """Baseline, champion, gain and memory bank: a row for the validation, and one a metric of the sealed test."""
        columns = ["baseline", "champion", "memory_bank", GAIN]
        rows = {
            f"{row.where} {row.metric}": [row.baseline, row.champion, row.memory_bank, row.gain]
            for row in gain_rows(self.summary)
        }
        return pd.DataFrame.from_dict(rows, "index", columns=columns)

    @property
    def trials(self) -> pd.DataFrame:
        """One row a training, trials of the search first."""
        rows = [
            {
                "trial": record.number,
                "trained again": record.finalist,
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
        """All that was drawn of the study."""
        return [*sorted(self.folder.glob("*.png")), *sorted((self.folder / "figures").glob("*.png"))]

    def predictor(self, device: str = "cpu") -> Predictor:
        """The champion, from the study's folder."""
        return Predictor(self.folder / paths.model_file(self.summary["category"]), device)

    def _repr_html_(self) -> str:
        shown = [file for file in self.figures if file.parent == self.folder or file.name in SHOWN]
        title = f"{self.summary['category']}: study {self.summary['study']}, means over seeds"
        return _page(title, self.reason, self.scores, shown)


@dataclass(frozen=True)
class TrainingResult:
    """A finished training."""

    single: SingleResult = field(repr=False)
    folder: Path

    @property
    def scores(self) -> pd.DataFrame:
        """The detector and the memory bank on the sealed test, one row a metric."""
        found = self.single
        table = {name: [value, found.memory_bank.metrics[name]] for name, value in found.evaluation.metrics.items()}
        named = {f"{found.test_name} {name}": row for name, row in table.items()}
        return pd.DataFrame.from_dict(named, "index", columns=["detector", "memory_bank"])

    @property
    def epochs(self) -> pd.DataFrame:
        """One row an epoch: losses and metrics on validation images."""
        return pd.DataFrame(self.single.trial.epochs).set_index("epoch")

    @property
    def figures(self) -> list[Path]:
        """Curves and ROC."""
        return sorted(self.folder.glob("*.png"))

    def predictor(self, device: str = "cpu") -> Predictor:
        """The detector of the best epoch."""
        return Predictor(next(self.folder.glob(paths.model_file("*"))), device)

    def _repr_html_(self) -> str:
        best = self.single.trial.best
        told = f"best epoch {int(best['epoch'])}: objective {best['objective']:.4f} on validation images"
        return _page(self.folder.name, told, self.scores, self.figures)


def _page(title: str, told: str, table: pd.DataFrame, figures: list[Path]) -> str:
    """A table and images, as notebooks show them."""
    images = "".join(
        f'<img alt="{html.escape(file.stem)}" style="max-width: 48%" '
        f'src="data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}">'
        for file in figures
    )
    shown = table.to_html(float_format="{:.4f}".format)
    return f"<h4>{html.escape(title)}</h4>{shown}<p>{html.escape(told)}</p>{images}"
