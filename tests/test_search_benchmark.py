"""The searches that the benchmark compares are what it says, and so is the surrogate."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState
from scipy.stats import spearmanr
from sklearn.gaussian_process import GaussianProcessRegressor

from tests.benchmarks import simulation
from tests.benchmarks.search import compare, epochs_until
from tests.benchmarks.simulation import METHODS, MORE_METHODS, RANDOM_TRIALS, WORKERS, Trial, begin, goes_on, simulate
from tests.benchmarks.surrogate import FILE, Bowl, Params, Recorded, dense_sample, from_unit, unit


class Quiet(Bowl):
    """One epoch and no noise."""

    num_epochs = 1
    training_noise = epoch_noise = 0.0


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """The surrogate of trials on the bowl."""
    bowl, rng = Bowl(), np.random.default_rng(0)
    rows = [
        {"params": params, "objective": bowl.draw(params, rng).tolist()} for params in dense_sample(bowl.space, 128)
    ]
    file = tmp_path_factory.mktemp("record") / "trials.json"
    file.write_text(json.dumps({"space": "default", "epochs": bowl.num_epochs, "trials": rows}))
    return Recorded(file)


# --- the surrogate ---


def test_the_surrogate_ranks_points_as_what_it_was_fitted_to(recorded: Recorded) -> None:
    points = dense_sample(recorded.space, 256)[128:]
    assert spearmanr(recorded.truths(points), Bowl().truths(points))[0] > 0.9
    assert recorded.fit["r2_log_odds"] > 0.8 and recorded.fit["rank_correlation"] > 0.8


def test_the_truth_is_the_mean_of_what_trainings_reach(recorded: Recorded) -> None:
    rng = np.random.default_rng(0)
    for landscape in (recorded, Bowl()):
        baseline = landscape.space.baseline
        reached = np.mean([landscape.draw(baseline, rng).max() for _ in range(500)])
        assert landscape.truths([baseline])[0] == pytest.approx(reached, abs=0.006)


def test_residuals_are_those_of_a_fit_without_the_trial(recorded: Recorded) -> None:
    others, index = np.arange(128) != 5, 5
    log_odds = recorded._predicted + recorded._residuals
    scaled = (log_odds - recorded._mean) / recorded._scale
    process = GaussianProcessRegressor(recorded._process.kernel_, optimizer=None)
    process.fit(recorded._points[others], scaled[others])
    predicted = process.predict(recorded._points[[index]])[0] * recorded._scale + recorded._mean
    np.testing.assert_allclose(predicted, recorded._predicted[index], atol=1e-6)


def test_knobs_go_to_the_unit_cube_and_back() -> None:
    space = Bowl().space
    low_high = [{name: getattr(knob, end) for name, knob in space.knobs.items()} for end in ("low", "high")]
    assert [unit(space, params) for params in low_high] == [[0.0] * 5, [1.0] * 5]
    assert from_unit(space, unit(space, space.baseline)) == pytest.approx(space.baseline)
    assert dense_sample(space, 8) == dense_sample(space, 8)


# --- the simulation ---


@pytest.mark.parametrize("name", METHODS | MORE_METHODS)
def test_same_seed_same_search(name: str) -> None:
    method = (METHODS | MORE_METHODS)[name]
    one, same, other = (simulate(Bowl(), method, seed, budget=40) for seed in (1, 1, 2))
    assert len(one) == 40 and np.array_equal(one, same) and not np.array_equal(one, other)


def test_random_search_spends_all_epochs_of_its_trials_and_its_best_never_falls_without_noise() -> None:
    values = simulate(Quiet(), METHODS["random"], seed=0, budget=10_000)
    assert len(values) == RANDOM_TRIALS * Quiet.num_epochs
    assert values[-1] == values.max() > values[0]


class Told:
    """Watches how many trials run at once, and as what Optuna hears of their ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.running = self.most = 0
        self.ends: list[tuple[int, TrialState, float]] = []
        self.first: Params = {}
        monkeypatch.setattr(simulation, "begin", self.begin)
        monkeypatch.setattr(simulation, "goes_on", self.goes_on)

    def begin(self, *arguments: Any) -> Trial:
        trial = begin(*arguments)
        self.first = self.first or trial.params
        self.running += 1
        self.most = max(self.most, self.running)
        return trial

    def goes_on(self, search: Any, scheduler: Any, trial: Trial, row: dict[str, Any]) -> bool:
        going = goes_on(search, scheduler, trial, row)
        if not going:
            self.running -= 1
            told = search._ot_study.trials[int(trial.trial_id)]
            self.ends.append((trial.epoch, told.state, told.value))
        return going


@pytest.mark.parametrize(("name", "early"), [("ours", TrialState.PRUNED), ("plain", TrialState.COMPLETE)])
def test_stopped_trials_are_told_as_each_search_tells_them(
    monkeypatch: pytest.MonkeyPatch, name: str, early: TrialState
) -> None:
    told, landscape = Told(monkeypatch), Bowl()
    simulate(landscape, METHODS[name], seed=0, budget=80)
    assert told.most == WORKERS
    assert {state for epoch, state, _ in told.ends if epoch < landscape.num_epochs} == {early}
    assert {state for epoch, state, _ in told.ends if epoch == landscape.num_epochs} == {TrialState.COMPLETE}
    assert (told.first == pytest.approx(landscape.space.baseline)) == (name == "ours")


# --- the report ---


@pytest.mark.parametrize(
    ("medians", "first", "stays"),
    [([1, 2, 3], 2, 2), ([2, 1, 3], 1, 3), ([2, 2, 2], 1, 1), ([1, 1, 1], None, None), ([1, 2, 1], 2, None)],
)
def test_epochs_until_a_median(medians: list[float], first: int | None, stays: int | None) -> None:
    assert epochs_until(np.array(medians, float), 2.0) == (first, stays)


def test_the_last_line_has_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    figures = compare(Quiet(), METHODS, seeds=2)
    assert list(figures) == [
        "epochs_ours", "epochs_random64", "epochs_fraction", "median_regret_ours", "median_regret_plain", "seeds",
    ]  # fmt: skip
    assert figures["epochs_random64"] == RANDOM_TRIALS * Quiet.num_epochs and figures["seeds"] == 2
    printed = capsys.readouterr().out
    assert "noise" in printed and f"{RANDOM_TRIALS * Quiet.num_epochs}" in printed


# --- the record ---


def test_the_record_holds_whole_trials_and_the_baseline_first() -> None:
    surrogate, record = Recorded(), json.loads(FILE.read_text())
    assert record["trials"][0]["params"] == pytest.approx(surrogate.space.baseline, rel=1e-4)
    assert {len(trial["objective"]) for trial in record["trials"]} == {record["epochs"]}
    assert surrogate.num_trials >= 200 and FILE.stat().st_size < 150_000
