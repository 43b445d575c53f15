"""Figures of a study as PNG files and as one interactive page.

Optuna draws what it can: optimization history, importance, parallel coordinates and slices. The figures against
wall-clock time are in `time_figures`.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import plotly.graph_objects as go
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna import visualization
from optuna.distributions import BaseDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState, create_trial
from plotly.offline import get_plotlyjs

from las_tune.config import TrialRecord
from las_tune.reporting.time_figures import StudyTimes, draw_best_so_far, draw_timeline

DPI = 100
MIN_TRIALS = 10
"""Importance is not computed from fewer trials."""
MIN_TOP_TRIALS = 5
"""Minimum size of the group of best trials that PED-ANOVA compares with all trials, as its authors recommend.

With one relevant parameter of six, that parameter ranked first in 65% of searches of 10 trials and in 78% of 16
trials. With the best tenth instead, it ranked first in 25% and 32%.
"""
MAX_LINES = 200
"""Number of trials in the interactive parallel coordinates. Plotly draws one SVG trace per trial, which is slow."""
PAGE_CONFIG = {"displaylogo": False, "responsive": True}
PAGE_STYLE = (
    "body{margin:0;padding:1rem;font-family:sans-serif;background:#fff;color:#111}"
    "h1{font-size:1.2rem}h2{font-size:1rem}section{margin-bottom:1.5rem;overflow-x:auto}img{max-width:100%}"
)


@dataclass(frozen=True)
class OptunaFigure:
    """A figure that `optuna.visualization` and `optuna.visualization.matplotlib` both have."""

    name: str
    """File name of the PNG, without its suffix."""
    function: str
    title: str
    missing: str
    """Reason why there is nothing to draw; empty if there is something."""
    shows_baseline: bool = False
    """Whether the y axis is the objective, so that a line marks the baseline."""
    size: tuple[float, float] = (6.4, 4.8)
    """Width and height of the PNG in inches; slices have half of the width each."""
    options: dict[str, Any] = field(default_factory=dict)


def write_study_figures(
    folder: Path,
    category: str,
    trials: Sequence[TrialRecord],
    objective: str,
    distributions: Mapping[str, BaseDistribution],
) -> list[Path]:
    """Draw the figures of a study.

    Args:
        folder: an existing folder for the files.
        category: shown in the titles.
        trials: trials of the search and retrained finalists.
        objective: name of the objective that was maximized.
        distributions: search space by parameter.

    Returns: study.html, then the PNG files.
    """
    search = [trial for trial in trials if not trial.finalist]
    times = StudyTimes(category, objective, search, [trial for trial in trials if trial.finalist])
    with _isolated_state():
        study = make_optuna_study(search, distributions)
        plots = _optuna_figures(study, objective)
        pages = [_draw_page_figure(plot, study, times.baseline_objective) for plot in plots]
        images = {plot.name: _draw_image(plot, study, times) for plot in plots}
    static = {"best_so_far": _as_png(draw_best_so_far(times)), "timeline": _as_png(draw_timeline(times))}
    page = folder / "study.html"
    pages += [_embed(name, png) for name, png in static.items()]
    page.write_text(_page(category, search, pages), encoding="utf-8")
    files = [page]
    for name, png in (images | static).items():
        files.append(folder / f"{name}.png")
        files[-1].write_bytes(png)
    return files


def make_optuna_study(trials: Sequence[TrialRecord], distributions: Mapping[str, BaseDistribution]) -> optuna.Study:
    """Return an Optuna study in memory that holds the trials of a search, under the same numbers.

    A pruned trial counts as complete, with its best objective: Optuna's figures show complete trials only.
    """
    study = optuna.create_study(direction="maximize")
    by_number = {trial.number: trial for trial in trials}
    for number in range(max(by_number, default=-1) + 1):
        study.add_trial(_frozen_trial(by_number.get(number), distributions))
    return study


def _frozen_trial(trial: TrialRecord | None, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    """Convert a record; a number without a record becomes a failed trial."""
    if trial is None or not trial.epochs or trial.status == "failed":
        return create_trial(state=TrialState.FAIL)
    known = {name: distributions[name] for name in distributions if name in trial.params}
    params = {name: trial.params[name] for name in known}
    return create_trial(params=params, distributions=known, value=trial.best_objective)


def importance_evaluator(study: optuna.Study) -> PedAnovaImportanceEvaluator | None:
    """Return the evaluator of hyperparameter importance; None if the trials do not suffice."""
    values = [trial.value for trial in _complete(study)]
    if len(values) < MIN_TRIALS or len(set(values)) < 2:
        return None
    return PedAnovaImportanceEvaluator(target_quantile=max(0.1, MIN_TOP_TRIALS / len(values)))


def _complete(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _optuna_figures(study: optuna.Study, objective: str) -> list[OptunaFigure]:
    evaluator = importance_evaluator(study)
    named: dict[str, Any] = {"target_name": objective}
    no_trial = "" if _complete(study) else "No trial finished an epoch."
    num_params = len({name for trial in _complete(study) for name in trial.params})
    no_params = no_trial or ("" if num_params else "No parameter was searched.")
    no_importance = no_params or ("" if evaluator else f"Fewer than {MIN_TRIALS} trials, or all objectives are equal.")
    wide = (2.0 + 1.3 * num_params, 4.8)
    return [
        OptunaFigure(
            "optimization_history", "plot_optimization_history", "Optimization history", no_trial,
            shows_baseline=True, options=named,
        ),
        OptunaFigure(
            "importance", "plot_param_importances", "Hyperparameter importance (PED-ANOVA)", no_importance,
            options=named | {"evaluator": evaluator},
        ),
        OptunaFigure(
            "parallel_coordinates", "plot_parallel_coordinate", "Parallel coordinates", no_params,
            size=wide, options=named,
        ),
        OptunaFigure(
            "slices", "plot_slice", "Objective by hyperparameter", no_params, shows_baseline=True, options=named
        ),
    ]  # fmt: skip


def _draw_image(plot: OptunaFigure, study: optuna.Study, times: StudyTimes) -> bytes:
    """Draw a figure with the matplotlib backend of Optuna. Returns the PNG."""
    size = {"figure.figsize": plot.size}
    with plt.style.context(["default", size]):  # restores the style, which Optuna sets for the whole process
        if plot.missing:
            axes = [plt.subplots(figsize=(6.4, 2.4))[1]]
            axes[0].set_axis_off()
            axes[0].text(0.5, 0.5, plot.missing, ha="center", va="center")
        else:
            axes = list(np.ravel(getattr(visualization.matplotlib, plot.function)(study, **plot.options)))
            if plot.shows_baseline and times.baseline_objective is not None:
                _mark_baseline(axes, times.baseline_objective)
        figure = axes[0].figure
        for panel in axes:
            panel.set_title("")
            panel.set_title("", loc="left")
        figure.suptitle(f"{times.category}: {plot.title[0].lower()}{plot.title[1:]}", y=1.0)
        png = _as_png(figure)
    plt.close(figure)
    return png


def _mark_baseline(axes: Sequence[Axes], objective: float) -> None:
    for panel in axes:
        panel.axhline(objective, color="black", linestyle="--", linewidth=1, label=f"baseline {objective:.4f}")
        if panel.get_legend():
            panel.legend(bbox_to_anchor=(1.05, 1.0), loc="upper left")


def _draw_page_figure(plot: OptunaFigure, study: optuna.Study, baseline: float | None) -> str:
    """Draw a figure with the plotly backend of Optuna. Returns a part of the page."""
    if plot.missing:
        return f"<h2>{escape(plot.title)}</h2><p>{escape(plot.missing)}</p>"
    title = plot.title
    if plot.function == "plot_parallel_coordinate" and len(_complete(study)) > MAX_LINES:
        study, title = _best_trials(study), f"{title} of the best {MAX_LINES} trials"
    figure: go.Figure = getattr(visualization, plot.function)(study, **plot.options)
    if plot.shows_baseline and baseline is not None:
        figure.add_hline(y=baseline, line_dash="dash", line_color="black")
    figure.update_layout(title=title, template="plotly_white", paper_bgcolor="white", font_color="#111")
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=PAGE_CONFIG))


def _best_trials(study: optuna.Study) -> optuna.Study:
    best = sorted(_complete(study), key=lambda trial: trial.value or 0.0)[-MAX_LINES:]
    selected = optuna.create_study(direction="maximize")
    selected.add_trials(best)
    return selected


def _embed(name: str, png: bytes) -> str:
    return f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _page(category: str, trials: Sequence[TrialRecord], parts: Sequence[str]) -> str:
    """Return an HTML page that contains plotly.js once and loads nothing else. It is white in every theme."""
    title = escape(f"{category}: {len(trials)} trials")
    failed = [f"<li>{escape(f'{trial.title}: {trial.reason}')}</li>" for trial in trials if trial.status == "failed"]
    sections = [*parts, *([f"<h2>Failed trials</h2><ul>{''.join(failed)}</ul>"] if failed else [])]
    body = "".join(f"<section>{section}</section>" for section in sections)
    head = f'<meta charset="utf-8"><title>{title}</title><style>{PAGE_STYLE}</style><script>{get_plotlyjs()}</script>'
    return f"<!DOCTYPE html><html><head>{head}</head><body><h1>{title}</h1>{body}</body></html>"


def _as_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, bbox_inches="tight", pad_inches=0.2, facecolor="white")
    return buffer.getvalue()


@contextmanager
def _isolated_state() -> Iterator[None]:
    """Silence Optuna's experimental warnings and log lines, and restore filters, verbosity and pyplot afterwards."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"), plt.ioff():
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
