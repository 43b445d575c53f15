"""The searcher reports every trial to Optuna with its final status."""

from __future__ import annotations

import json
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
from las_tune.search.searcher import MIN_GAIN, StudySearcher
from las_tune.space.parameters import Choice, Parameter, Range
from las_tune.space.search_space import Space
from tests.space.test_grid import CONDITIONAL, CORE, MIXED

SAMPLERS = get_args(Sampler)


def make_searcher(
    folder: Path, study_name: str = "study", sampler: str = "tpe", seed: int = 0, space: Space = CORE, **settings: Any
) -> StudySearcher:
    trials = settings.pop("trials", 32)
    return StudySearcher(
        space,
        study_name=study_name,
        num_epochs=4,
        make_sampler=lambda number: make_sampler(sampler, space, trials=trials, seed=seed, number=number),
        folder=folder,
        **settings,
    )


def trial_states(search: StudySearcher) -> list[TrialState]:
    return [trial.state for trial in search.study.trials]


def result(epoch: int, value: float) -> dict[str, float]:
    return {"epoch": epoch, "training_iteration": epoch, "best_objective": value}


def test_trial_0_is_the_baseline(tmp_path: Path) -> None:
    search = make_searcher(tmp_path)
    params = search.suggest("a")
    assert search.number_of("a") == 0
    assert params == pytest.approx(
        {"adaptor_lr": 1e-4, "discriminator_lr": 2e-4, "alpha": 1 / 3, "beta_mean": 0.5, "beta_std": 0.1}
    )


def test_final_status_is_reported(tmp_path: Path) -> None:
    search = make_searcher(tmp_path)
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
    search.on_trial_complete("e", None)  # without any report
    trials = search.study.trials
    assert [t.state for t in trials] == [
        TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL, TrialState.FAIL,
    ]  # fmt: skip
    assert trials[0].value == 0.4
    assert trials[0].intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}
    assert trials[1].value == 0.2  # Optuna uses a pruned trial's last report


def test_second_end_of_a_trial_is_ignored(tmp_path: Path) -> None:
    search = make_searcher(tmp_path)
    search.suggest("a")
    search.on_trial_complete("a", result(4, 0.4))
    search.on_trial_complete("a", result(4, 0.9))
    assert [t.value for t in search.study.trials] == [0.4]


def test_optuna_study_has_the_name_and_the_folder_of_the_study(tmp_path: Path) -> None:
    search = make_searcher(tmp_path, study_name="plates")
    search.suggest("a")
    storage = search._storage
    assert [s.study_name for s in optuna.get_all_study_summaries(storage)] == ["plates"]
    assert (tmp_path / "optuna.journal").stat().st_size > 0


RECORDED_SPACE = Space(
    "recorded",
    {
        "adaptor_lr": Range(1e-5, 1e-3, log=True, when={"use_adaptor": (True,)}),
        "alpha": Range(0.1, 0.4),
        "perlin_max_exponent": Range(4, 6, integer=True),
        "use_adaptor": Choice((True, False)),
    },
    sources=(),
)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_proposals_are_those_of_version_0_1_0(tmp_path: Path, sampler: str) -> None:
    """Two trials run concurrently on an analytic objective, and every fourth is pruned."""
    recorded = json.loads((Path(__file__).parent / "recorded_proposals.json").read_text())[sampler]
    search = make_searcher(tmp_path, sampler=sampler, space=RECORDED_SPACE)
    for number, expected in enumerate(recorded):
        assert search.suggest(str(number)) == pytest.approx(expected, rel=1e-12)
        if number:
            previous = recorded[number - 1]
            value = 1 - (previous["alpha"] - 0.25) ** 2 + 0.1 * previous["use_adaptor"]
            value += -0.01 * previous["perlin_max_exponent"] + 100 * previous.get("adaptor_lr", 0)
            num_epochs = 4 if (number - 1) % 4 else 2
            for epoch in range(1, num_epochs + 1):
                search.on_trial_result(str(number - 1), result(epoch, value * epoch / 4))
            search.on_trial_complete(str(number - 1), result(num_epochs, value * num_epochs / 4))


def test_host_process_keeps_its_log_levels(tmp_path: Path) -> None:
    verbosity = optuna.logging.get_verbosity()
    make_searcher(tmp_path, sampler="gp").suggest("a")
    assert optuna.logging.get_verbosity() == verbosity


# --- contract of all samplers ---


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_same_seed_yields_same_proposals(tmp_path: Path, sampler: str) -> None:
    def proposals(folder: str, seed: int) -> list[dict[str, float]]:
        (tmp_path / folder).mkdir()
        search = make_searcher(tmp_path / folder, sampler=sampler, seed=seed)
        drawn: list[Any] = []
        for index in range(12):  # more than the ten random trials of TPE and GP
            drawn.append(search.suggest(str(index)))
            search.on_trial_complete(str(index), result(4, drawn[-1]["alpha"]))
        return drawn[1:]

    assert proposals("a", 1) == proposals("b", 1) != proposals("c", 2)


@pytest.mark.parametrize("space", [CORE, MIXED, CONDITIONAL], ids=["numbers", "mixed", "conditional"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_baseline_comes_first_and_proposals_are_inside_the_space(tmp_path: Path, sampler: str, space: Space) -> None:
    search = make_searcher(tmp_path, sampler=sampler, space=space)
    with warnings.catch_warnings(action="error"):
        for index in range(13 if sampler == "gp" else 24):
            params: Any = search.suggest(str(index))
            assert params == space.active(params) and len(params) >= len(space.parameters) - 1
            assert all(space.parameters[name].contains(value) for name, value in params.items()), params
            assert index or params == pytest.approx(space.baseline)
            search.on_trial_complete(str(index), result(4 if index % 3 else 1, params["alpha"]))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_accept_all_final_statuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str) -> None:
    """Of every four concurrent trials one completes, one is pruned, one fails, and one has no finite objective."""
    monkeypatch.setattr("las_tune.search.searcher.FAILURE_WINDOW", 0)  # no limit of failures
    search = make_searcher(tmp_path, sampler=sampler, trials=44)
    for start in range(0, 44, 4):
        a, b, c, d = (str(start + offset) for offset in range(4))
        for trial_id in (a, b, c, d):
            assert isinstance(search.suggest(trial_id), dict)
            search.on_trial_result(trial_id, result(1, 0.5))
        search.on_trial_complete(d, result(4, math.nan))
        search.on_trial_complete(c, result(1, 0.5), error=True)
        search.on_trial_complete(b, result(2, 0.6))
        search.on_trial_complete(a, result(4, 0.7 + start / 1000))
    assert trial_states(search) == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL] * 11


@pytest.mark.parametrize("parameter", [Range(0.0, 0.5), Choice((1 / 3,))], ids=["range", "value"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_space_with_a_single_parameter_is_searched(tmp_path: Path, sampler: str, parameter: Parameter) -> None:
    search = make_searcher(
        tmp_path, sampler=sampler, space=Space("single", {"alpha": parameter}, sources=()), trials=14
    )
    for index in range(14):
        params: Any = search.suggest(str(index))
        if params == "FINISHED":  # a grid of one value
            assert (sampler, index) == ("grid", 1) and isinstance(parameter, Choice)
            break
        assert parameter.contains(params["alpha"])
        search.on_trial_complete(str(index), result(4, params["alpha"]))


def test_trial_stopped_at_its_first_report_has_a_value(tmp_path: Path) -> None:
    search = make_searcher(tmp_path)
    search.suggest("a")
    search.on_trial_complete("a", result(1, 0.2))  # Ray does not pass the result that stops a trial to on_trial_result
    (trial,) = search.study.trials
    assert (trial.state, trial.value, trial.intermediate_values) == (TrialState.PRUNED, 0.2, {1: 0.2})


def test_search_ends_with_the_grid(tmp_path: Path) -> None:
    """Trials that are still running are not proposed again, as they would be by Optuna's GridSampler."""
    space = Space("small", {"foreground": Choice(("otsu", "none"))}, sources=())
    search = make_searcher(tmp_path, sampler="grid", space=space)
    assert [search.suggest(trial_id) for trial_id in "abc"] == [
        {"foreground": "otsu"}, {"foreground": "none"}, "FINISHED",
    ]  # fmt: skip
    for trial_id in "ab":
        search.on_trial_complete(trial_id, result(4, 0.5))
    assert search.suggest("d") == "FINISHED"
    assert trial_states(search) == [TrialState.COMPLETE] * 2


# --- patience ---


def num_proposed(folder: Path, values: list[float | None], patience: int | None) -> int:
    """Return how many trials are proposed if they end with these objectives. None: the trial fails."""
    search = make_searcher(folder, sampler="random", patience=patience)
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
        ([0.5, 0.5 + MIN_GAIN, 0.5 + MIN_GAIN, 0.9], 2, 3),  # no gain beyond the noise
        ([0.5, 0.504, 0.508, 0.508, 0.508, 0.9], 2, 5),  # small gains add up
        ([0.5, None, None, 0.9], 2, 3),
        ([None, None, 0.9], 2, 2),
        ([0.5, math.nan, math.nan, 0.9], 2, 3),
        ([0.5] * 3, 10, 3),
    ],
)
def test_patience_ends_the_search(
    tmp_path: Path, values: list[float | None], patience: int | None, proposed: int
) -> None:
    assert num_proposed(tmp_path, values, patience) == proposed


def test_patience_counts_trials_in_the_order_of_their_ends(tmp_path: Path) -> None:
    search = make_searcher(tmp_path, patience=2)
    for trial_id in "abcd":
        search.suggest(trial_id)
    search.on_trial_complete("d", result(4, 0.5))
    search.on_trial_complete("b", result(1, 0.4))  # pruned
    assert search.suggest("e") != "FINISHED"
    search.on_trial_complete("c", result(4, 0.5))
    assert search.suggest("f") == "FINISHED"  # a and e are still trained to their end


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_resumed_search_continues_the_proposals(tmp_path: Path, sampler: str) -> None:
    def run_trials(search: StudySearcher, numbers: range) -> list[Any]:
        params = []
        for number in numbers:
            params.append(search.suggest(str(number)))
            for epoch in range(1, 5):
                search.on_trial_result(str(number), result(epoch, number % 3 * epoch / 10))
            search.on_trial_complete(str(number), result(4, number % 3 * 0.4))
        return params

    (tmp_path / "whole").mkdir()
    whole = run_trials(make_searcher(tmp_path / "whole", sampler=sampler, trials=14), range(14))
    first = run_trials(make_searcher(tmp_path, sampler=sampler, trials=14), range(12))
    dying = make_searcher(tmp_path, sampler=sampler, trials=14)
    running = dying.suggest("12")
    resumed = make_searcher(tmp_path, sampler=sampler, trials=14)
    assert resumed.restore_trials([TrialRecord(n, p, "completed") for n, p in enumerate(first)]) == {}
    rest = run_trials(resumed, range(12, 14))
    assert rest[0] == running and resumed.number_of("12") == 12
    assert first + rest == whole


def test_resume_reconciles_records_and_optuna(tmp_path: Path) -> None:
    before = make_searcher(tmp_path)
    params = [before.suggest(name) for name in "abcd"]
    before.on_trial_complete("a", result(4, 0.4))
    search = make_searcher(tmp_path)
    rows = [{"epoch": epoch, "objective": epoch / 10, "seconds": 1.0} for epoch in (1, 2)]
    records = [
        TrialRecord(1, params[1], "pruned", epochs=rows),  # ended, unknown to Optuna
        TrialRecord(2, params[2], "failed"),
        TrialRecord(0, params[0], "running", epochs=rows * 2),  # ended in Optuna only
        TrialRecord(3, params[3], "running", epochs=rows[:1]),
    ]
    assert search.restore_trials(records) == {0: "completed"}
    assert trial_states(search) == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING]
    assert search.study.trials[1].intermediate_values == {1: 0.1, 2: 0.2}
    assert search.study.trials[3].intermediate_values == {1: 0.1}
    assert search.suggest("again") == params[3] and search.number_of("again") == 3
