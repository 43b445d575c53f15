"""Fair sharing of trial slots among independent studies, without Ray processes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from optuna.trial import TrialState
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from las_tune.config.study_spec import Scheduler, StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.search.multi_study import FairScheduler, FairSearcher
from las_tune.search.schedulers import make_scheduler
from las_tune.search.searcher import METRIC, StudySearcher
from las_tune.space.parameters import Range
from las_tune.space.search_space import Space
from tests.search.test_schedulers import StubController, StubTrial
from tests.search.test_searcher import make_searcher, result, trial_states

TINY = Space("tiny", {"alpha": Range(0.0, 0.5)}, sources=())
EPOCHS = 27


def make_searchers(folder: Path, *num_trials: int, **settings: Any) -> list[StudySearcher]:
    """Return one searcher for each study, with its number of trials."""
    searchers = []
    for index, num in enumerate(num_trials):
        (folder / str(index)).mkdir()
        searchers.append(
            make_searcher(folder / str(index), f"s{index}", "random", index, TINY, num_trials=num, **settings)
        )
    return searchers


class Driver:
    """Stub of Ray Tune: starts the proposed trials in free slots, and ends running trials one at a time."""

    def __init__(self, search: FairSearcher, num_slots: int) -> None:
        self.search, self.num_slots = search, num_slots
        self.running: list[str] = []
        self.started: list[int] = []
        """Study of each trial, in the order of the starts."""
        self.is_finished = False

    def fill(self) -> list[int]:
        """Start trials until no slot is free or the search has ended. Return the number of running trials by study."""
        while len(self.running) < self.num_slots and not self.is_finished:
            trial_id = f"t{len(self.started)}"
            proposal = self.search.suggest(trial_id)
            if proposal == "FINISHED":
                self.is_finished = True
                break
            assert isinstance(proposal, dict) and set(proposal) == {"study", "params", "checkpoint"}
            assert proposal["study"] == self.search.study_of(trial_id)
            self.started.append(proposal["study"])
            self.running.append(trial_id)
        running = [self.search.study_of(trial_id) for trial_id in self.running]
        return [running.count(study) for study in range(len(self.search.searchers))]

    def end(self, slot: int = 0, value: float = 0.5) -> None:
        """End the trial in a slot at its last epoch; slot 0 has the oldest trial."""
        self.search.on_trial_complete(self.running.pop(slot), result(4, value))


# --- slots ---


@pytest.mark.parametrize("num_slots", [1, 2, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_slots_are_shared_fairly_and_none_is_idle(tmp_path: Path, num_slots: int, seed: int) -> None:
    """The order in which trials end does not matter."""
    trials, shuffled = (9, 3, 6), random.Random(seed)
    driver = Driver(FairSearcher(make_searchers(tmp_path, *trials)), num_slots)
    while True:
        running = driver.fill()
        open_studies = [study for study, num in enumerate(trials) if driver.started.count(study) < num]
        shares = [running[study] for study in open_studies]
        assert not open_studies or max(shares) - min(shares) <= 1
        assert not open_studies or sum(running) == num_slots
        if not driver.running:
            break
        driver.end(shuffled.randrange(len(driver.running)))
    assert driver.is_finished
    assert [driver.started.count(study) for study in range(3)] == list(trials)
    assert [trial_states(search) for search in driver.search.searchers] == [
        [TrialState.COMPLETE] * num for num in trials
    ]


def test_equally_busy_studies_alternate(tmp_path: Path) -> None:
    driver = Driver(FairSearcher(make_searchers(tmp_path, 4, 2, 3)), 2)
    while any(driver.fill()):
        driver.end()
    assert driver.started == [0, 1, 2, 0, 1, 2, 0, 2, 0]


def test_slots_of_a_finished_study_go_to_the_others(tmp_path: Path) -> None:
    first, second = make_searchers(tmp_path, 20, 20, patience=2)
    driver = Driver(FairSearcher([first, second]), 2)
    gains = iter(np.linspace(0.1, 0.9, 20))
    while any(driver.fill()):
        study = driver.search.study_of(driver.running[0])
        driver.end(value=0.5 if study == 0 else next(gains))
    assert driver.started.count(0) == 3, "the first trial and two without a gain"
    assert driver.started.count(1) == 20
    assert driver.started[-14:] == [1] * 14


def test_search_finishes_only_when_all_studies_have(tmp_path: Path) -> None:
    """Ray stops asking after the first FINISHED."""
    search = FairSearcher(make_searchers(tmp_path, 1, 3))
    proposals: list[Any] = [search.suggest(trial_id) for trial_id in "abcde"]
    assert [p["study"] for p in proposals[:4]] == [0, 1, 1, 1]
    assert proposals[4] == "FINISHED"


# --- events of the studies ---


def test_each_study_starts_with_its_baseline_and_numbers_its_own_trials(tmp_path: Path) -> None:
    search = FairSearcher(make_searchers(tmp_path, 3, 3))
    proposals: list[Any] = [search.suggest(trial_id) for trial_id in "abcd"]
    assert [p["params"] for p in proposals[:2]] == [TINY.baseline] * 2
    assert [(search.study_of(t), search.number_of(t)) for t in "abcd"] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    for study, own in enumerate(("ac", "bd")):
        params = [trial.params for trial in search.searchers[study].study.trials]
        assert params == [proposals["abcd".index(t)]["params"] for t in own]


def test_results_and_failures_reach_their_study(tmp_path: Path) -> None:
    search = FairSearcher(make_searchers(tmp_path, 9, 9))
    for trial_id in "abcdef":
        search.suggest(trial_id)
    for epoch in range(1, 5):
        search.on_trial_result("a", result(epoch, epoch / 10))
    search.on_trial_complete("a", result(4, 0.4))
    search.on_trial_result("b", result(1, 0.1))
    search.on_trial_complete("b", error=True)
    search.on_trial_complete("c", result(4, math.nan))
    search.on_trial_complete("d", result(2, 0.3))  # the scheduler stopped it
    search.on_trial_complete("f", result(4, 0.7))
    first, second = search.searchers
    assert trial_states(first) == [TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING]
    assert trial_states(second) == [TrialState.FAIL, TrialState.PRUNED, TrialState.COMPLETE]
    assert first.study.trials[0].intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}
    assert [trial.value for trial in second.study.trials] == [None, 0.3, 0.7]
    assert [len(running) for running in search._running] == [1, 0]


def test_second_end_of_a_trial_frees_no_second_slot(tmp_path: Path) -> None:
    search = FairSearcher(make_searchers(tmp_path, 9, 9))
    for trial_id in "abcd":
        search.suggest(trial_id)
    for _ in range(2):
        search.on_trial_complete("a", result(4, 0.4))
    proposals: list[Any] = [search.suggest(trial_id) for trial_id in "efg"]
    assert [p["study"] for p in proposals] == [0, 1, 0]


# --- schedulers ---


def make_own_scheduler(name: str, search: StudySearcher) -> Any:
    here = Path("/nowhere")
    spec = StudySpec(
        category="part", study="s", train=TrainSpec(epochs=EPOCHS), data_root=here, textures=here, results=here,
        scheduler=name,  # type: ignore[arg-type]
    )  # fmt: skip
    return make_scheduler(spec, search)


def reached(scheduler: Any, ceilings: dict[StubTrial, float]) -> list[int]:
    """Run trials concurrently, each towards its ceiling, and return the number of epochs of each."""
    assert scheduler.set_search_properties(METRIC, "max")
    controller, running, epochs = StubController(), dict(ceilings), dict.fromkeys(ceilings, 0)
    for trial in running:
        scheduler.on_trial_add(controller, trial)
    for epoch in range(1, EPOCHS + 1):
        for trial, ceiling in list(running.items()):
            row = {"epoch": epoch, METRIC: ceiling * (1 - 0.5**epoch)}
            decision = scheduler.on_trial_result(controller, trial, row)
            assert decision in (TrialScheduler.CONTINUE, TrialScheduler.STOP)
            epochs[trial] = epoch
            if decision == TrialScheduler.STOP or epoch == EPOCHS:
                scheduler.on_trial_complete(controller, trial, row)
                del running[trial]
    return list(epochs.values())


CEILINGS = {"a": [0.9, *np.linspace(0.99, 0.95, 11)], "b": [0.2, *np.linspace(0.5, 0.1, 11)]}
"""Final objectives of the trials of two categories. The best of b is below the worst of a."""


def suggested(search: StudySearcher | FairSearcher, studies: str) -> dict[StubTrial, float]:
    """Suggest twelve trials for each study, in turn, and return them with their ceilings."""
    trials = {StubTrial(f"{study}{i}"): CEILINGS[study][i] for i in range(12) for study in studies}
    for trial in trials:
        search.suggest(trial.trial_id)
    return trials


@pytest.mark.parametrize("name", get_args(Scheduler))
def test_trials_are_compared_within_their_study_only(tmp_path: Path, name: str) -> None:
    """Each trial has as many epochs with another category in the same run as without it."""
    alone = []
    for study in "ab":
        (tmp_path / study).mkdir()
        (own,) = make_searchers(tmp_path / study, 12)
        alone.append(reached(make_own_scheduler(name, own), suggested(own, study)))
    search = FairSearcher(make_searchers(tmp_path, 12, 12))
    schedulers = [make_own_scheduler(name, own) for own in search.searchers]
    together = reached(FairScheduler(search, schedulers), suggested(search, "ab"))
    assert [together[::2], together[1::2]] == alone
    assert together[1] == together[3] == EPOCHS, "baseline and best trial of the weak category"
    assert name == "none" or min(together[::2]) < EPOCHS, "weak trials of the strong category are stopped"


def test_every_event_reaches_the_scheduler_of_its_study(tmp_path: Path) -> None:
    events_seen: list[tuple[int, str, str]] = []

    class RecordingScheduler(FIFOScheduler):  # type: ignore[misc]
        def __init__(self, study: int) -> None:
            super().__init__()
            self.study = study

        def record(self, event: str) -> Callable[..., str]:
            def handle(controller: Any, trial: StubTrial, row: Any = None) -> str:
                events_seen.append((self.study, event, trial.trial_id))
                return str(TrialScheduler.STOP if self.study else TrialScheduler.CONTINUE)

            return handle

    events = ("on_trial_add", "on_trial_result", "on_trial_complete", "on_trial_error", "on_trial_remove")
    schedulers = [RecordingScheduler(study) for study in range(2)]
    for own in schedulers:
        for event in events:
            setattr(own, event, own.record(event))
    search = FairSearcher(make_searchers(tmp_path, 2, 2))
    scheduler, controller = FairScheduler(search, schedulers), StubController()
    for trial_id in "ab":
        search.suggest(trial_id)
        trial, study = StubTrial(trial_id), search.study_of(trial_id)
        scheduler.on_trial_add(controller, trial)
        decision = scheduler.on_trial_result(controller, trial, result(1, 0.5))
        assert decision == (TrialScheduler.STOP if study else TrialScheduler.CONTINUE)
        scheduler.on_trial_complete(controller, trial, result(4, 0.5))
        scheduler.on_trial_error(controller, trial)
        scheduler.on_trial_remove(controller, trial)
    assert events_seen == [(study, event, "trial 0") for study in range(2) for event in events]
