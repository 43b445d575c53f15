"""Every trial is told to Optuna as what it was."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any, get_args

import optuna
import pytest
from optuna.trial import TrialState

from las_tune.config.study_spec import Sampler
from las_tune.config.trial_record import TrialRecord
from las_tune.search.samplers import make_sampler
from las_tune.search.searcher import SEED_NOISE, StudySearch
from las_tune.space.knobs import Choice, Knob, Range
from las_tune.space.search_space import Space
from tests.space.test_grid import CONDITIONAL, CORE, MIXED

SAMPLERS = get_args(Sampler)


def make_search(
    folder: Path, study: str = "study", sampler: str = "tpe", seed: int = 0, space: Space = CORE, **settings: Any
) -> StudySearch:
    trials = settings.pop("trials", 32)
    return StudySearch(
        space,
        study=study,
        num_epochs=4,
        sampler=lambda number: make_sampler(sampler, space, trials=trials, seed=seed, number=number),
        folder=folder,
        **settings,
    )


def told_as(search: StudySearch) -> list[TrialState]:
    return [trial.state for trial in search._ot_study.trials]


def result(epoch: int, value: float) -> dict[str, float]:
    return {"epoch": epoch, "training_iteration": epoch, "best_objective": value}


def test_the_baseline_is_trial_0_and_has_the_seeds_values(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    params = search.suggest("a")
    assert search.number_of("a") == 0
    assert params == pytest.approx(
        {"adaptor_lr": 1e-4, "discriminator_lr": 2e-4, "alpha": 1 / 3, "beta_mean": 0.5, "beta_std": 0.1}
    )


def test_trials_end_as_what_they_were(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    for trial_id in "abcde":
        search.suggest(trial_id)
    for epoch in range(1, 5):
        search.on_trial_result("a", result(epoch, epoch / 10))
    search.on_trial_complete("a", result(4, 0.4))
    search.on_trial_result("b", result(1, 0.2))
    search.on_trial_complete("b", result(1, 0.2))  # the scheduler stopped it
    search.on_trial_result("c", result(1, 0.3))
    search.on_trial_complete("c", result(1, 0.3), error=True)
    search.on_trial_complete("d", result(4, math.nan))
    search.on_trial_complete("e", None)  # no report at all
    trials = search._ot_study.trials
    assert [t.state for t in trials] == [
        TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL, TrialState.FAIL,
    ]  # fmt: skip
    assert trials[0].value == 0.4
    assert trials[0].intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}
    assert trials[1].value == 0.2  # Optuna takes a pruned trial's last report


def test_ending_twice_is_told_once(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    search.suggest("a")
    search.on_trial_complete("a", result(4, 0.4))
    search.on_trial_complete("a", result(4, 0.9))
    assert [t.value for t in search._ot_study.trials] == [0.4]


def test_the_optuna_study_has_the_studys_name_and_lies_in_its_file(tmp_path: Path) -> None:
    search = make_search(tmp_path, study="plates")
    search.suggest("a")
    storage = search._ot_study._storage
    assert [s.study_name for s in optuna.get_all_study_summaries(storage)] == ["plates"]
    assert (tmp_path / "optuna.journal").stat().st_size > 0


# --- what every sampler does ---


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_same_seed_same_proposals(tmp_path: Path, sampler: str) -> None:
    def proposals(folder: str, seed: int) -> list[dict[str, float]]:
        (tmp_path / folder).mkdir()
        search = make_search(tmp_path / folder, sampler=sampler, seed=seed)
        drawn: list[Any] = []
        for index in range(12):  # past the ten random ones of TPE and GP
            drawn.append(search.suggest(str(index)))
            search.on_trial_complete(str(index), result(4, drawn[-1]["alpha"]))
        return drawn[1:]

    assert proposals("a", 1) == proposals("b", 1) != proposals("c", 2)


@pytest.mark.parametrize("space", [CORE, MIXED, CONDITIONAL], ids=["numbers", "mixed", "conditional"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_baseline_comes_first_and_proposals_lie_in_the_space(tmp_path: Path, sampler: str, space: Space) -> None:
    search = make_search(tmp_path, sampler=sampler, space=space)
    with warnings.catch_warnings(action="error"):
        for index in range(13 if sampler == "gp" else 24):
            params: Any = search.suggest(str(index))
            assert params == space.active(params) and len(params) >= len(space.knobs) - 1
            assert all(space.knobs[name].contains(value) for name, value in params.items()), params
            assert index or params == pytest.approx(space.baseline)
            search.on_trial_complete(str(index), result(4 if index % 3 else 1, params["alpha"]))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_whatever_happened_to_other_trials_a_sampler_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    """Four trials run at once; of every four one completes, one is pruned, one fails, one has no number."""
    monkeypatch.setattr("las_tune.search.searcher.FIRST", 0)  # as many may fail as will
    search = make_search(tmp_path, sampler=sampler, trials=44)
    for start in range(0, 44, 4):
        a, b, c, d = (str(start + offset) for offset in range(4))
        for trial_id in (a, b, c, d):
            assert isinstance(search.suggest(trial_id), dict)
            search.on_trial_result(trial_id, result(1, 0.5))
        search.on_trial_complete(d, result(4, math.nan))
        search.on_trial_complete(c, result(1, 0.5), error=True)
        search.on_trial_complete(b, result(2, 0.6))
        search.on_trial_complete(a, result(4, 0.7 + start / 1000))
    assert told_as(search) == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL] * 11


@pytest.mark.parametrize("knob", [Range(0.0, 0.5), Choice((1 / 3,))], ids=["a range", "a value"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_space_of_one_knob(tmp_path: Path, sampler: str, knob: Knob) -> None:
    search = make_search(tmp_path, sampler=sampler, space=Space("one", {"alpha": knob}, sources=()), trials=14)
    for index in range(14):
        params: Any = search.suggest(str(index))
        if params == "FINISHED":  # a grid of one value
            assert (sampler, index) == ("grid", 1) and isinstance(knob, Choice)
            break
        assert knob.contains(params["alpha"])
        search.on_trial_complete(str(index), result(4, params["alpha"]))


def test_a_trial_stopped_at_its_first_report_has_a_value_for_the_sampler(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    search.suggest("a")
    search.on_trial_complete("a", result(1, 0.2))  # Ray does not pass on the result that it stops a trial at
    (trial,) = search._ot_study.trials
    assert (trial.state, trial.value, trial.intermediate_values) == (TrialState.PRUNED, 0.2, {1: 0.2})


def test_the_search_ends_where_the_grid_does(tmp_path: Path) -> None:
    """Also while its last trials still run, which Optuna's own sampler proposes again."""
    space = Space("small", {"foreground": Choice(("otsu", "none"))}, sources=())
    search = make_search(tmp_path, sampler="grid", space=space)
    assert [search.suggest(trial_id) for trial_id in "abc"] == [
        {"foreground": "otsu"}, {"foreground": "none"}, "FINISHED",
    ]  # fmt: skip
    for trial_id in "ab":
        search.on_trial_complete(trial_id, result(4, 0.5))
    assert search.suggest("d") == "FINISHED"
    assert told_as(search) == [TrialState.COMPLETE] * 2


# --- patience ---


def ended_after(folder: Path, values: list[float | None], patience: int | None) -> int:
    """How many of the trials that end with these values are proposed. None: the trial fails."""
    search = make_search(folder, sampler="random", patience=patience)
    for index, value in enumerate(values):
        if search.suggest(str(index)) == "FINISHED":
            return index
        search.on_trial_complete(str(index), result(4, value) if value is not None else None, error=value is None)
    return len(values)


@pytest.mark.parametrize(
    ("values", "patience", "proposed"),
    [
        ([0.5] * 6, None, 6),
        ([0.5] * 6, 3, 4),
        ([0.5] * 6, 1, 2),
        ([0.5, 0.6, 0.7, 0.1, 0.2, 0.9], 2, 5),
        ([0.5, 0.5 + SEED_NOISE, 0.5 + SEED_NOISE, 0.9], 2, 3),  # no gain beyond the noise
        ([0.5, 0.504, 0.508, 0.508, 0.508, 0.9], 2, 5),  # small gains add up
        ([0.5, None, None, 0.9], 2, 3),
        ([None, None, 0.9], 2, 2),
        ([0.5, math.nan, math.nan, 0.9], 2, 3),
        ([0.5] * 3, 10, 3),
    ],
)
def test_patience(tmp_path: Path, values: list[float | None], patience: int | None, proposed: int) -> None:
    assert ended_after(tmp_path, values, patience) == proposed


def test_patience_counts_trials_as_they_end(tmp_path: Path) -> None:
    search = make_search(tmp_path, patience=2)
    for trial_id in "abcd":
        search.suggest(trial_id)
    search.on_trial_complete("d", result(4, 0.5))
    search.on_trial_complete("b", result(1, 0.4))  # pruned
    assert search.suggest("e") != "FINISHED"
    search.on_trial_complete("c", result(4, 0.5))
    assert search.suggest("f") == "FINISHED"  # Ray asks no more; a and e come to their ends


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_that_goes_on_proposes_what_the_other_would_have(tmp_path: Path, sampler: str) -> None:
    def tell(search: StudySearch, numbers: range) -> list[Any]:
        params = []
        for number in numbers:
            params.append(search.suggest(str(number)))
            for epoch in range(1, 5):
                search.on_trial_result(str(number), result(epoch, number % 3 * epoch / 10))
            search.on_trial_complete(str(number), result(4, number % 3 * 0.4))
        return params

    (tmp_path / "whole").mkdir()
    whole = tell(make_search(tmp_path / "whole", sampler=sampler, trials=14), range(14))
    first = tell(make_search(tmp_path, sampler=sampler, trials=14), range(12))
    dying = make_search(tmp_path, sampler=sampler, trials=14)
    running = dying.suggest("12")
    going_on = make_search(tmp_path, sampler=sampler, trials=14)
    assert going_on.take_back([TrialRecord(n, p, "completed") for n, p in enumerate(first)]) == {}
    rest = tell(going_on, range(12, 14))
    assert rest[0] == running and going_on.number_of("12") == 12
    assert first + rest == whole


def test_what_records_and_optuna_know_is_made_to_agree(tmp_path: Path) -> None:
    before = make_search(tmp_path)
    params = [before.suggest(name) for name in "abcd"]
    before.on_trial_complete("a", result(4, 0.4))
    search = make_search(tmp_path)
    rows = [{"epoch": epoch, "objective": epoch / 10, "seconds": 1.0} for epoch in (1, 2)]
    records = [
        TrialRecord(1, params[1], "pruned", epochs=rows),  # ended, and Optuna never heard of it
        TrialRecord(2, params[2], "failed"),
        TrialRecord(0, params[0], "running", epochs=rows * 2),  # Optuna heard first
        TrialRecord(3, params[3], "running", epochs=rows[:1]),
    ]
    assert search.take_back(records) == {0: "completed"}
    assert told_as(search) == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING]
    assert search._ot_study.trials[1].intermediate_values == {1: 0.1, 2: 0.2}
    assert search._ot_study.trials[3].intermediate_values == {1: 0.1}
    assert search.suggest("again") == params[3] and search.number_of("again") == 3
