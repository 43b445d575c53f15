"""Schedulers stop weak trials, exempt the baseline and never pause. Without Ray processes, on one learning curve."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from las_tune.config.study_spec import Scheduler, StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.search.schedulers import BRACKET_TRIALS, TimeBudget, make_scheduler
from las_tune.search.searcher import METRIC

STOPPING = [name for name in get_args(Scheduler) if name != "none"]
EPOCHS = 27


@dataclass(frozen=True)
class StubTrial:
    """The attributes of a trial that schedulers read. Its ID is its number."""

    trial_id: str
    status: str = Trial.PENDING


class StubController:
    """Another trial is pending. Ray's median rule could pause a running trial for it."""

    def get_live_trials(self) -> list[StubTrial]:
        return [StubTrial("pending")]


class StubSearch:
    def number_of(self, trial_id: str) -> int:
        return int(trial_id)


def scheduler_of(name: str, epochs: int = EPOCHS, seed: int = 0) -> Any:
    here = Path("/nowhere")
    spec = StudySpec(
        category="part", study="s", train=TrainSpec(epochs=epochs, seed=seed), data_root=here, textures=here,
        results=here, scheduler=name,  # type: ignore[arg-type]
    )  # fmt: skip
    scheduler = make_scheduler(spec, StubSearch())  # type: ignore[arg-type]
    scheduler.set_search_properties(METRIC, "max")
    return scheduler


def epochs_reached(scheduler: Any, ceilings: list[float], epochs: int = EPOCHS) -> list[int]:
    """Run trials concurrently, trial n towards ceilings[n], and return the last epoch of each."""
    controller = StubController()
    running = {StubTrial(str(number)): ceiling for number, ceiling in enumerate(ceilings)}
    reached = [0] * len(ceilings)
    for trial in running:
        scheduler.on_trial_add(controller, trial)
    for epoch in range(1, epochs + 1):
        for trial, ceiling in list(running.items()):
            row = {"epoch": epoch, METRIC: ceiling * (1 - 0.5**epoch)}
            decision = scheduler.on_trial_result(controller, trial, row)
            assert decision in (TrialScheduler.CONTINUE, TrialScheduler.STOP)
            reached[int(trial.trial_id)] = epoch
            if decision == TrialScheduler.STOP or epoch == epochs:
                scheduler.on_trial_complete(controller, trial, row)
                del running[trial]
    return reached


@pytest.mark.parametrize("name", STOPPING)
def test_weak_trials_are_stopped_but_not_the_baseline(name: str) -> None:
    ceilings = [0.1, *np.linspace(0.95, 0.3, 17)]  # the baseline is the worst; the best trial reports first
    reached = epochs_reached(scheduler_of(name), ceilings)
    assert reached[0] == reached[1] == EPOCHS
    assert min(reached) >= EPOCHS // 9, "no trial is stopped before the first rung"
    weak = reached[9:]
    assert sum(epoch < EPOCHS for epoch in weak) >= len(weak) // 2


@pytest.mark.parametrize("epochs", [1, 2, 3, 8, 9, 50])
@pytest.mark.parametrize("name", get_args(Scheduler))
def test_any_number_of_epochs_is_accepted(name: str, epochs: int) -> None:
    reached = epochs_reached(scheduler_of(name, epochs), [0.5, 0.9, 0.8, 0.7, 0.6, 0.5], epochs)
    assert reached[:2] == [epochs, epochs]
    if name == "none":
        assert reached == [epochs] * 6


def test_hyperband_brackets_have_their_shares_and_depend_on_the_seed() -> None:
    def brackets(seed: int) -> list[int]:
        scheduler = scheduler_of("hyperband", seed=seed)
        for number in range(340):
            scheduler.on_trial_add(StubController(), StubTrial(str(number)))
        return [scheduler._brackets.index(scheduler._trial_info[str(number)]) for number in range(340)]

    drawn = brackets(0)
    assert drawn[0] == 0, "the baseline is compared at every rung"
    assert drawn == brackets(0) != brackets(1)
    counts = Counter(drawn)
    assert [counts[index] / 20 for index in range(3)] == pytest.approx(BRACKET_TRIALS, rel=0.25)
    first_rungs = [bracket._rungs[-1][0] for bracket in scheduler_of("hyperband")._brackets]
    assert first_rungs == [3, 9, 27]


@pytest.mark.parametrize("name", get_args(Scheduler))
def test_global_generator_of_numpy_is_unchanged(name: str) -> None:
    before = np.random.get_state()[1].tolist(), np.random.get_state()[2]
    epochs_reached(scheduler_of(name), [0.5, 0.9, 0.8, 0.7])
    assert (np.random.get_state()[1].tolist(), np.random.get_state()[2]) == before


def test_median_rule_needs_three_other_trials() -> None:
    assert epochs_reached(scheduler_of("median"), [0.9, 0.8, 0.1]) == [EPOCHS] * 3
    assert epochs_reached(scheduler_of("median"), [0.9, 0.8, 0.7, 0.1])[3] == EPOCHS // 9


def test_time_budget_ignores_changes_of_the_system_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    budget, now = TimeBudget(60.0), time.monotonic()
    monkeypatch.setattr(time, "time", lambda: 1e12)
    assert not budget.stop_all() and not budget("trial", {})
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    assert budget.stop_all()
