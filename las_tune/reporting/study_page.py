"""A page of a study's figures where people can hover: plotly.js is inside, once; nothing is loaded from elsewhere."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from las_tune.config.formatting import format_value
from las_tune.config.trial_record import TrialRecord
from las_tune.reporting.study_points import BASELINE_COLOR, BEST_COLOR, COLORS, NOT_SET, StudyPoints

SYMBOLS = {"completed": "circle", "pruned": "triangle-down", "failed": "x", "running": "square"}
CONFIG = {"displaylogo": False, "responsive": True}
STYLE = (
    "body{margin:0;padding:1rem;font-family:sans-serif;background:#fff;color:#111}"
    "h1{font-size:1.2rem}section{margin-bottom:1.5rem;overflow-x:auto}"
)


def write_page(path: Path, points: StudyPoints) -> Path:
    """Write it; on white, so that a dark page around it changes nothing."""
    figures = [_history(points), _best_so_far(points), _importance(points), _timeline(points)]
    if points.scored and points.distributions:
        figures += [_parallel_coordinates(points), _slices(points)]
    parts = []
    for figure in figures:
        figure.update_layout(template="plotly_white", paper_bgcolor="white", font_color="#111")
        parts.append(f"<section>{figure.to_html(full_html=False, include_plotlyjs=False, config=CONFIG)}</section>")
    title = escape(f"{points.category}: {len(points.trials)} trials")
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style><script>{get_plotlyjs()}</script>'
    body = f"<h1>{title}</h1>{''.join(parts)}"
    path.write_text(f"<!DOCTYPE html><html><head>{head}</head><body>{body}</body></html>", encoding="utf-8")
    return path


def _text(trial: TrialRecord) -> str:
    """What hovering over a trial shows."""
    lines = [escape(trial.title), trial.status]
    if trial.best:
        lines.append(f"best {trial.best['objective']:.4f} in epoch {int(trial.best['epoch'])}")
    lines += [f"{name} {format_value(value)}" for name, value in trial.params.items()]
    return "<br>".join([*lines, escape(trial.reason)])


def _history(points: StudyPoints) -> go.Figure:
    figure = go.Figure()
    for status in dict.fromkeys(trial.status for trial in points.trials):
        trials = [trial for trial in points.trials if trial.status == status and (trial.epochs or status == "failed")]
        is_scored = status != "failed"
        figure.add_scatter(
            x=[trial.number for trial in trials],
            y=[trial.best["objective"] if is_scored else points.floor for trial in trials] if points.scored else [],
            mode="markers",
            name=status,
            marker={"color": COLORS[status], "symbol": SYMBOLS[status], "size": 9},
            text=[_text(trial) for trial in trials],
            hoverinfo="text",
        )
    best: list[float] = []
    for trial in points.scored:
        best.append(max([trial.best_objective or 0.0, *best[-1:]]))
    numbers = [trial.number for trial in points.scored]
    figure.add_scatter(x=numbers, y=best, mode="lines", name="best so far", line={"color": BEST_COLOR, "shape": "hv"})
    return _finish(figure, points, "Objective of each trial at its best epoch", "trial")


def _best_so_far(points: StudyPoints) -> go.Figure:
    steps = points.best_so_far()
    steps += [(max(points.last_minute, steps[-1][0]), steps[-1][1])] if steps else []
    figure = go.Figure()
    figure.add_scatter(
        x=[minutes for minutes, _ in steps],
        y=[value for _, value in steps],
        mode="lines+markers",
        name="best so far",
        line={"color": BEST_COLOR, "shape": "hv"},
    )
    figure.update_yaxes(range=points.heights())
    return _finish(figure, points, "Best objective against time", "minutes since the first trial started")


def _finish(figure: go.Figure, points: StudyPoints, title: str, x_title: str) -> go.Figure:
    if points.baseline_objective is not None:
        label = f"baseline {points.baseline_objective:.4f}"
        line = {"line_dash": "dash", "line_color": BASELINE_COLOR, "annotation_text": label}
        figure.add_hline(y=points.baseline_objective, annotation_position="bottom right", **line)
    return figure.update_layout(title=title, xaxis_title=x_title, yaxis_title=f"{points.objective}, validation")


def _importance(points: StudyPoints) -> go.Figure:
    importances = points.importances()
    names = list(importances)[::-1]
    figure = go.Figure(
        go.Bar(x=[importances[n] for n in names], y=names, orientation="h", marker_color=COLORS["completed"])
    )
    title = "Importance of hyperparameters (PED-ANOVA)"
    return figure.update_layout(title=title if names else f"{title}: too few trials, or all alike")


def _timeline(points: StudyPoints) -> go.Figure:
    figure = go.Figure()
    ran = [(worker, trial) for worker, trials in points.lanes() for trial in trials]
    for status, is_again in sorted({(trial.status, bool(trial.finalist)) for _, trial in ran}):
        bars = [
            (worker, t, *points.minutes(t)) for worker, t in ran if (t.status, bool(t.finalist)) == (status, is_again)
        ]
        figure.add_bar(
            base=[start for _, _, start, _ in bars],
            x=[end - start for _, _, start, end in bars],
            y=[worker for worker, *_ in bars],
            orientation="h",
            name=f"{status}{', trained again' if is_again else ''}",
            marker={"color": COLORS[status], "pattern": {"shape": "/" if is_again else ""}},
            hovertext=[f"{_text(trial)}<br>{start:.1f} to {end:.1f} min" for _, trial, start, end in bars],
            hoverinfo="text",
        )
    title = "What ran where"
    return figure.update_layout(title=title, barmode="overlay", xaxis_title="minutes since the first trial started")


def _parallel_coordinates(points: StudyPoints) -> go.Figure:
    """Our own: Optuna's differs between its versions, and is slow with a trace a trial from 5 on."""
    objectives = [trial.best["objective"] for trial in points.scored]
    axes: list[dict[str, Any]] = [{"label": points.objective, "values": objectives}]
    for name in points.distributions:
        ticks = dict(points.ticks(name))
        values = points.along(name)
        if NOT_SET in values:
            ticks = {NOT_SET: "not set"} | ticks
        scale = {"tickvals": list(ticks), "ticktext": list(ticks.values()), "range": [min(0.0, *values), 1]}
        axes.append({"label": name, "values": values} | scale)
    low, high = points.colors
    line = {"color": objectives, "colorscale": "Cividis", "cmin": low, "cmax": high, "showscale": True}
    wide = 150 * len(axes)  # wider than the page where there are many: their numbers would lie on each other
    figure = go.Figure(go.Parcoords(dimensions=axes, line=line, labelside="bottom"))
    title = f"Hyperparameters of all trials, colored by {points.objective}: drag along an axis to choose"
    return figure.update_layout(title=title, width=wide if wide > 1000 else None, margin={"l": 90, "b": 60, "t": 90})


def _slices(points: StudyPoints) -> go.Figure:
    names, columns = list(points.distributions), min(3, len(points.distributions))
    rows = -(-len(names) // columns)
    figure = make_subplots(rows, columns, shared_yaxes=True, horizontal_spacing=0.04, vertical_spacing=0.36 / rows)
    for place, name in enumerate(names):
        where = {"row": place // columns + 1, "col": place % columns + 1}
        for status in dict.fromkeys(trial.status for trial in points.scored):
            trials, values, objectives = points.slice(name, status)
            text = [
                f"{escape(t.title)}, {status}<br>{v:.4f}<br>{name} {escape(str(t.params[name]))}"
                for t, v in zip(trials, objectives, strict=True)
            ]
            marker = {"color": COLORS[status], "symbol": SYMBOLS[status], "size": 7, "opacity": 0.8}
            about = {"name": status, "legendgroup": status, "showlegend": place == 0, "hoverinfo": "text"}
            figure.add_scatter(x=values, y=objectives, mode="markers", marker=marker, text=text, **about, **where)
        labels, is_log = points.labels(name), getattr(points.distributions[name], "log", False)
        ticks = {"tickvals": list(range(len(labels))), "ticktext": labels} if labels else {}
        figure.update_xaxes(title=name, type="log" if is_log else "linear", **ticks, **where)
    if points.baseline_objective is not None:
        figure.add_hline(y=points.baseline_objective, line_dash="dash", line_color=BASELINE_COLOR)
    return figure.update_layout(title=f"{points.objective} by each hyperparameter", height=280 * rows + 120)
