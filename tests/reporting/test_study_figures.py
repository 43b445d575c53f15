"""The figures of a whole study: what they are drawn from, and that they are drawn of whatever a study may be."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from PIL import Image

from las_tune.config.trial_record import TrialRecord
from las_tune.reporting.study_figures import write_study_figures
from las_tune.reporting.study_points import StudyPoints

KNOBS: dict[str, BaseDistribution] = {
    "adaptor_lr": FloatDistribution(1e-5, 1e-3, log=True),
    "beta_mean": FloatDistribution(0.1, 0.9),
    "hidden_width": IntDistribution(64, 1024, log=True),
    "foreground": CategoricalDistribution(("otsu", "none")),
}
NAMES = ["best_so_far", "importance", "optimization_history", "parallel_coordinates", "slices", "timeline"]


def make_trials(number: int, failed: bool = False) -> list[TrialRecord]:
    """Trials whose objective is all but β's mean; two workers; a third of them is stopped early."""
    chance, free, trials = np.random.default_rng(0), [0.0, 0.0], []
    for trial_number in range(number):
        beta_mean = float(chance.uniform(0.1, 0.9))
        params = {
            "adaptor_lr": float(10 ** chance.uniform(-5, -3)), "beta_mean": beta_mean,
            "hidden_width": int(chance.integers(64, 1024)), "foreground": "otsu" if chance.random() < 0.5 else "none",
        }  # fmt: skip
        if trial_number % 5 == 4:
            del params["adaptor_lr"]  # a condition did not hold
        worker = trial_number % 2
        trial = TrialRecord(trial_number, params, started=1e9 + free[worker], worker=f"host{worker}:{100 + worker}")
        for epoch in range(1, 2 if trial_number % 3 == 2 else 5):
            trial.add_epoch({"epoch": epoch, "objective": 1 - beta_mean - 0.5**epoch / 10, "seconds": 3.0})
        trial.status = "failed" if failed else ("completed" if len(trial.epochs) == 4 else "pruned")
        free[worker] += trial.seconds
        trial.ended = 1e9 + free[worker]
        trials.append(trial)
    return trials


def points(trials: list[TrialRecord]) -> StudyPoints:
    return StudyPoints("part", "combined", [t for t in trials if not t.finalist], [], KNOBS)


@pytest.mark.parametrize(("number", "failed"), [(1, False), (2, False), (30, False), (3, True)])
def test_all_are_drawn(tmp_path: Path, number: int, failed: bool) -> None:
    trials = make_trials(number, failed)
    files = write_study_figures(tmp_path, "part", trials, "combined", KNOBS)
    assert sorted(file.stem for file in files if file.suffix == ".png") == NAMES
    for file in files[1:]:
        image = np.asarray(Image.open(file).convert("RGB"))
        assert image.shape[1] > 400 and image.std() > 1, "something is drawn"
        assert (image[0, 0] == 255).all(), "on white, whatever the page around it"


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    page = write_study_figures(tmp_path, "a<b>", make_trials(8), "combined", KNOBS)[0].read_text()
    assert "<b>:" not in page and "a&lt;b&gt;: 8 trials" in page
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", page)
    assert page.count("Plotly.newPlot(") >= 6 and len(re.findall(r"\* plotly\.js v", page)) == 1


def test_the_knob_that_matters_is_first() -> None:
    importances = points(make_trials(60)).importances()
    assert next(iter(importances)) == "beta_mean" and importances["beta_mean"] > 0.5


def test_the_knob_that_matters_is_first_of_few_trials() -> None:
    """The best tenth of 16 trials are two: by these, another came first in 4 of these 20 studies."""
    trials = make_trials(320)
    studies = [trials[start : start + 16] for start in range(0, 320, 16)]
    assert {next(iter(points(study).importances())) for study in studies} == {"beta_mean"}


def test_too_few_or_equal_trials_say_nothing_of_importance() -> None:
    assert points(make_trials(9)).importances() == {}
    alike = make_trials(12)
    for trial in alike:
        trial.epochs = [{"epoch": 1, "objective": 0.5, "seconds": 1.0}]
    assert points(alike).importances() == {}


def test_best_so_far_by_hand() -> None:
    trials = [TrialRecord(0, {}, "completed", started=100.0), TrialRecord(1, {}, "completed", started=130.0)]
    for trial, objectives in zip(trials, ([0.2, 0.6, 0.4], [0.5, 0.7]), strict=True):
        for epoch, objective in enumerate(objectives, start=1):
            trial.add_epoch({"epoch": epoch, "objective": objective, "seconds": 60.0})
    assert points(trials).best_so_far() == [(1.0, 0.2), (1.5, 0.5), (2.0, 0.6), (2.5, 0.7)]


def test_best_so_far_leaves_out_what_failed_and_what_started_nobody_knows_when() -> None:
    trials = [TrialRecord(n, {}, status, started=start) for n, status, start in (
        (0, "completed", 100.0), (1, "failed", 100.0), (2, "completed", 0.0),
    )]  # fmt: skip
    for trial in trials:
        trial.add_epoch({"epoch": 1, "objective": 0.5 + trial.number, "seconds": 60.0})
    assert points(trials).best_so_far() == [(1.0, 0.5)]
    assert points(trials[2:]).best_so_far() == []


def test_choices_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Figure] = {}
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: drawn.update({path.stem: figure}))
    trials = make_trials(12)
    for trial in trials:
        trial.params["foreground"] = "none"  # not the first of the choices
    page = write_study_figures(tmp_path, "part", trials, "combined", KNOBS)[0].read_text()
    (axes,) = (axes for axes in drawn["slices"].axes if axes.get_xlabel() == "foreground")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["otsu", "none"]
    assert all(0.8 < x < 1.2 for dots in axes.collections for x, _ in dots.get_offsets())
    assert '"ticktext":["otsu","none"]' in page and '"not set"' in page
    texts = [text.get_text() for text in drawn["parallel_coordinates"].axes[0].texts]
    assert texts.count("not set") == 1 and {"otsu", "none", "1e-05", "0.001"} <= set(texts)


def test_failed_trials_are_on_the_page(tmp_path: Path) -> None:
    trials = make_trials(6)
    trials[3].status, trials[3].reason = "failed", "out of memory"
    page = write_study_figures(tmp_path, "part", trials, "combined", KNOBS)[0].read_text()
    figures = page.split("Plotly.newPlot(")
    assert any("out of memory" in figure and '"name":"failed"' in figure for figure in figures)


def test_a_thousand_trials(tmp_path: Path) -> None:
    started = time.monotonic()
    write_study_figures(tmp_path, "part", make_trials(1000), "combined", KNOBS)
    assert time.monotonic() - started < 60, "seconds on an idle machine; this one may be busy"


def test_a_lane_a_worker() -> None:
    lanes = points(make_trials(7)).lanes()
    assert [(worker, [t.number for t in trials]) for worker, trials in lanes] == [
        ("host0:100", [0, 2, 4, 6]),
        ("host1:101", [1, 3, 5]),
    ]


def test_positions_in_ranges() -> None:
    study = points([])
    assert study.position("adaptor_lr", 1e-4) == pytest.approx(0.5)
    assert study.position("beta_mean", 0.3) == pytest.approx(0.25)
    assert study.position("hidden_width", 256) == pytest.approx(0.5)
    assert [study.position("foreground", value) for value in ("otsu", "none")] == [0, 1]
    assert math.isfinite(study.position("beta_mean", 0.9))
