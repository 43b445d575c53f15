"""The search benchmark: surrogate, simulation and report."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState
from scipy.stats import spearmanr
from sklearn.gaussian_process import GaussianProcessRegressor

from las_tune.search.searcher import StudySearcher
from tests.benchmarks import simulation
from tests.benchmarks.search import compare, epochs_until
from tests.benchmarks.simulation import METHODS, MORE_METHODS, RANDOM_TRIALS, WORKERS, Trial, begin, continues, simulate
from tests.benchmarks.surrogate import FILE, Bowl, Params, Recorded, dense_sample, from_unit, unit


class Quiet(Bowl):
    """A bowl with one epoch and no noise."""

    num_epochs = 1
    training_noise = epoch_noise = 0.0


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Surrogate fitted to trials on the bowl."""
    bowl, rng = Bowl(), np.random.default_rng(0)
    rows = [
        {"params": params, "objective": bowl.draw(params, rng).tolist()} for params in dense_sample(bowl.space, 128)
    ]
    file = tmp_path_factory.mktemp("record") / "trials.json"
    file.write_text(json.dumps({"space": "default", "epochs": bowl.num_epochs, "trials": rows}))
    return Recorded(file)


# --- the surrogate ---


def test_surrogate_ranks_points_like_its_data(recorded: Recorded) -> None:
    points = dense_sample(recorded.space, 256)[128:]
    assert spearmanr(recorded.truths(points), Bowl().truths(points))[0] > 0.9
    assert recorded.fit["r2_log_odds"] > 0.8 and recorded.fit["rank_correlation"] > 0.8


def test_truth_is_the_mean_best_objective(recorded: Recorded) -> None:
    rng = np.random.default_rng(0)
    for landscape in (recorded, Bowl()):
        baseline = landscape.space.baseline
        reached = np.mean([landscape.draw(baseline, rng).max() for _ in range(500)])
        assert landscape.truths([baseline])[0] == pytest.approx(reached, abs=0.006)


def test_residuals_match_a_fit_without_the_trial(recorded: Recorded) -> None:
    rest, index = np.arange(128) != 5, 5
    log_odds = recorded._predicted + recorded._residuals
    scaled = (log_odds - recorded._mean) / recorded._scale
    process = GaussianProcessRegressor(recorded._process.kernel_, optimizer=None)
    process.fit(recorded._points[rest], scaled[rest])
    predicted = process.predict(recorded._points[[index]])[0] * recorded._scale + recorded._mean
    np.testing.assert_allclose(predicted, recorded._predicted[index], atol=1e-6)


def test_unit_cube_conversion_round_trips() -> None:
    space = Bowl().space
    ends = {name: parameter.ends for name, parameter in space.parameters.items()}
    low_high = [{name: pair[index] for name, pair in ends.items()} for index in (0, 1)]
    assert [unit(space, params) for params in low_high] == [[0.0] * 5, [1.0] * 5]
    assert from_unit(space, unit(space, space.baseline)) == pytest.approx(space.baseline)
    assert dense_sample(space, 8) == dense_sample(space, 8)


# --- the simulation ---


@pytest.mark.parametrize("name", METHODS | MORE_METHODS)
def test_same_seed_yields_same_search(name: str) -> None:
    method = (METHODS | MORE_METHODS)[name]
    first, repeated, other_seed = (simulate(Bowl(), method, seed, budget=40) for seed in (1, 1, 2))
    assert len(first) == 40 and np.array_equal(first, repeated) and not np.array_equal(first, other_seed)


def test_random_search_trains_all_epochs_and_never_loses_its_best_without_noise() -> None:
    values = simulate(Quiet(), METHODS["random"], seed=0, budget=10_000)
    assert len(values) == RANDOM_TRIALS * Quiet.num_epochs
    assert values[-1] == values.max() > values[0]


class SearchMonitor:
    """Records the number of concurrent trials, and the final state of each trial in Optuna."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_running = self.max_running = 0
        self.ends: list[tuple[int, TrialState, float]] = []
        self.first: Params = {}
        monkeypatch.setattr(simulation, "begin", self.begin)
        monkeypatch.setattr(simulation, "continues", self.continues)

    def begin(self, *arguments: Any) -> Trial:
        trial = begin(*arguments)
        self.first = self.first or trial.params
        self.num_running += 1
        self.max_running = max(self.max_running, self.num_running)
        return trial

    def continues(self, search: Any, scheduler: Any, trial: Trial, row: dict[str, Any]) -> bool:
        is_continuing = continues(search, scheduler, trial, row)
        if not is_continuing:
            self.num_running -= 1
            study = search.study if isinstance(search, StudySearcher) else search._ot_study
            frozen = study.trials[int(trial.trial_id)]
            self.ends.append((trial.epoch, frozen.state, frozen.value))
        return is_continuing


@pytest.mark.parametrize(("name", "early"), [("ours", TrialState.PRUNED), ("plain", TrialState.COMPLETE)])
def test_stopped_trials_have_the_state_of_each_search(
    monkeypatch: pytest.MonkeyPatch, name: str, early: TrialState
) -> None:
    monitor, landscape = SearchMonitor(monkeypatch), Bowl()
    simulate(landscape, METHODS[name], seed=0, budget=80)
    assert monitor.max_running == WORKERS
    assert {state for epoch, state, _ in monitor.ends if epoch < landscape.num_epochs} == {early}
    assert {state for epoch, state, _ in monitor.ends if epoch == landscape.num_epochs} == {TrialState.COMPLETE}
    assert (monitor.first == pytest.approx(landscape.space.baseline)) == (name == "ours")


# --- the report ---


@pytest.mark.parametrize(
    ("medians", "first", "stays"),
    [([1, 2, 3], 2, 2), ([2, 1, 3], 1, 3), ([2, 2, 2], 1, 1), ([1, 1, 1], None, None), ([1, 2, 1], 2, None)],
)
def test_epochs_until_finds_the_first_and_the_lasting_epoch(
    medians: list[float], first: int | None, stays: int | None
) -> None:
    assert epochs_until(np.array(medians, float), 2.0) == (first, stays)


def test_compare_returns_the_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    result = compare(Quiet(), METHODS, seeds=2)
    assert list(result) == [
        "epochs_ours", "epochs_random64", "epochs_fraction", "median_regret_ours", "median_regret_plain", "seeds",
    ]  # fmt: skip
    assert result["epochs_random64"] == RANDOM_TRIALS * Quiet.num_epochs and result["seeds"] == 2
    printed = capsys.readouterr().out
    assert "Noise" in printed and f"{RANDOM_TRIALS * Quiet.num_epochs}" in printed


# --- the record ---


def test_record_has_complete_trials_and_the_baseline_first() -> None:
    surrogate, record = Recorded(), json.loads(FILE.read_text())
    assert record["trials"][0]["params"] == pytest.approx(surrogate.space.baseline, rel=1e-4)
    assert {len(trial["objective"]) for trial in record["trials"]} == {record["epochs"]}
    assert surrogate.num_trials >= 200 and FILE.stat().st_size < 150_000
