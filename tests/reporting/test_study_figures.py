"""Figures of a study: their content, and that every study, however small, has all of them."""

from __future__ import annotations

import re
import time
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import optuna
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import get_param_importances
from PIL import Image

from las_tune.config.trial_record import TrialRecord
from las_tune.reporting.study_figures import MAX_LINES, importance_evaluator, make_optuna_study, write_study_figures
from las_tune.reporting.time_figures import StudyTimes

PARAMETERS: dict[str, BaseDistribution] = {
    "adaptor_lr": FloatDistribution(1e-5, 1e-3, log=True),
    "beta_mean": FloatDistribution(0.1, 0.9),
    "hidden_width": IntDistribution(64, 1024, log=True),
    "foreground": CategoricalDistribution(("otsu", "none")),
}
NAMES = ["best_so_far", "importance", "optimization_history", "parallel_coordinates", "slices", "timeline"]


def make_trials(number: int, failed: bool = False) -> list[TrialRecord]:
    """Trials on two workers whose objective depends on beta_mean and slightly on the epoch; a third is pruned."""
    random, free, trials = np.random.default_rng(0), [0.0, 0.0], []
    for trial_number in range(number):
        beta_mean = float(random.uniform(0.1, 0.9))
        params = {
            "adaptor_lr": float(10 ** random.uniform(-5, -3)), "beta_mean": beta_mean,
            "hidden_width": int(random.integers(64, 1024)), "foreground": "otsu" if random.random() < 0.5 else "none",
        }  # fmt: skip
        if trial_number % 5 == 4:
            del params["adaptor_lr"]  # a conditional parameter
        worker = trial_number % 2
        trial = TrialRecord(trial_number, params, started=1e9 + free[worker], worker=f"host{worker}:{100 + worker}")
        for epoch in range(1, 2 if trial_number % 3 == 2 else 5):
            trial.add_epoch({"epoch": epoch, "objective": 1 - beta_mean - 0.5**epoch / 10, "seconds": 3.0})
        trial.status = "failed" if failed else ("completed" if len(trial.epochs) == 4 else "pruned")
        free[worker] += trial.seconds
        trial.ended = 1e9 + free[worker]
        trials.append(trial)
    return trials


def make_times(trials: list[TrialRecord]) -> StudyTimes:
    return StudyTimes("part", "combined", trials, [])


def importances(trials: list[TrialRecord]) -> dict[str, float]:
    study = make_optuna_study(trials, PARAMETERS)
    evaluator = importance_evaluator(study)
    return get_param_importances(study, evaluator=evaluator) if evaluator else {}


@pytest.mark.parametrize(("number", "failed"), [(1, False), (2, False), (30, False), (3, True)])
def test_all_figures_are_drawn(tmp_path: Path, number: int, failed: bool) -> None:
    trials = make_trials(number, failed)
    files = write_study_figures(tmp_path, "part", trials, "combined", PARAMETERS)
    assert files[0].name == "study.html"
    assert sorted(file.stem for file in files if file.suffix == ".png") == NAMES
    for file in files[1:]:
        image = np.asarray(Image.open(file).convert("RGB"))
        assert image.shape[1] > 400 and image.std() > 1, "the image is not empty"
        assert (image[0, 0] == 255).all(), "the background is white"


def test_page_is_self_contained(tmp_path: Path) -> None:
    page = write_study_figures(tmp_path, "a<b>", make_trials(12), "combined", PARAMETERS)[0].read_text()
    assert "<b>:" not in page and "a&lt;b&gt;: 12 trials" in page
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=(?!\"data:)", page)
    assert page.count("Plotly.newPlot(") >= 4 and len(re.findall(r"\* plotly\.js v", page)) == 1
    assert len(re.findall(r"<img[^>]*src=.data:image/png;base64,", page)) == 2


def test_host_process_is_unchanged(tmp_path: Path) -> None:
    """Optuna's matplotlib backend sets a style, keeps figures open and warns that it is experimental."""
    before = dict(matplotlib.rcParams), plt.get_fignums(), optuna.logging.get_verbosity(), warnings.filters[:]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write_study_figures(tmp_path, "part", make_trials(12), "combined", PARAMETERS)
    assert not caught
    after = dict(matplotlib.rcParams), plt.get_fignums(), optuna.logging.get_verbosity(), warnings.filters[:]
    assert after == before


def test_trials_keep_their_numbers_in_optuna() -> None:
    trials = make_trials(6)
    trials[1].status = "failed"
    study = make_optuna_study([trial for trial in trials if trial.number != 3], PARAMETERS)
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "FAIL", "COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[4].value == trials[4].best_objective and study.trials[5].params == trials[5].params


def test_relevant_parameter_is_most_important() -> None:
    found = importances(make_trials(60))
    assert next(iter(found)) == "beta_mean" and found["beta_mean"] > 0.5


def test_relevant_parameter_is_most_important_of_few_trials() -> None:
    """The best tenth of 16 trials are two; with them, another parameter ranked first in 4 of these 20 studies."""
    trials = make_trials(320)
    studies = [trials[start : start + 16] for start in range(0, 320, 16)]
    assert {next(iter(importances(study))) for study in studies} == {"beta_mean"}


def test_importance_needs_enough_and_different_trials() -> None:
    assert importances(make_trials(9)) == {}
    equal = make_trials(12)
    for trial in equal:
        trial.epochs = [{"epoch": 1, "objective": 0.5, "seconds": 1.0}]
    assert importances(equal) == {}


def test_best_so_far_matches_hand_calculation() -> None:
    trials = [TrialRecord(0, {}, "completed", started=100.0), TrialRecord(1, {}, "completed", started=130.0)]
    for trial, objectives in zip(trials, ([0.2, 0.6, 0.4], [0.5, 0.7]), strict=True):
        for epoch, objective in enumerate(objectives, start=1):
            trial.add_epoch({"epoch": epoch, "objective": objective, "seconds": 60.0})
    assert make_times(trials).best_so_far() == [(1.0, 0.2), (1.5, 0.5), (2.0, 0.6), (2.5, 0.7)]


def test_best_so_far_excludes_failed_trials_and_unknown_starts() -> None:
    trials = [
        TrialRecord(0, {}, "completed", started=100.0),
        TrialRecord(1, {}, "failed", started=100.0),
        TrialRecord(2, {}, "completed", started=0.0),
    ]
    for trial in trials:
        trial.add_epoch({"epoch": 1, "objective": 0.5 + trial.number, "seconds": 60.0})
    assert make_times(trials).best_so_far() == [(1.0, 0.5)]
    assert make_times(trials[2:]).best_so_far() == []


def test_slices_mark_choices_and_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    trials = make_trials(12)
    write_study_figures(tmp_path, "part", trials, "combined", PARAMETERS)
    by_label = {axes.get_xlabel(): axes for figure in drawn for axes in figure.axes}
    labels = {label.get_text() for label in by_label["foreground"].get_xticklabels()}
    assert labels == {"'otsu'", "'none'"}
    for name in (*PARAMETERS, "Trial"):
        (baseline,) = (line for line in by_label[name].lines if str(line.get_label()).startswith("baseline"))
        assert set(baseline.get_ydata()) == {trials[0].best_objective}  # type: ignore[arg-type]


def test_failed_trials_are_listed_on_the_page(tmp_path: Path) -> None:
    trials = make_trials(6)
    trials[3].status, trials[3].reason = "failed", "out of memory <1 GB"
    page = write_study_figures(tmp_path, "part", trials, "combined", PARAMETERS)[0].read_text()
    assert "<li>trial 3: out of memory &lt;1 GB</li>" in page


def test_thousand_trials_take_seconds(tmp_path: Path) -> None:
    started = time.monotonic()
    page = write_study_figures(tmp_path, "part", make_trials(1000), "combined", PARAMETERS)[0].read_text()
    assert time.monotonic() - started < 60, "about 10 s on an idle machine; this one may be busy"
    assert f"of the best {MAX_LINES} trials" in page


def test_timeline_groups_trials_by_worker() -> None:
    workers = make_times(make_trials(7)).workers()
    assert {worker: [trial.number for trial in trials] for worker, trials in workers.items()} == {
        "host0:100": [0, 2, 4, 6],
        "host1:101": [1, 3, 5],
    }
