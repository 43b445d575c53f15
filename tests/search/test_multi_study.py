"""Several studies share the places of one run fairly and know nothing of each other: without Ray's processes."""

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
from las_tune.search.multi_study import FairScheduler, FairSearch
from las_tune.search.schedulers import make_scheduler
from las_tune.search.searcher import METRIC, StudySearch
from las_tune.space.knobs import Range
from las_tune.space.search_space import Space
from tests.search.test_schedulers import StubController, StubTrial
from tests.search.test_searcher import make_search, result, told_as

TINY = Space("tiny", {"alpha": Range(0.0, 0.5)}, sources=())
EPOCHS = 27


def make_searches(folder: Path, *num_trials: int, **settings: Any) -> list[StudySearch]:
    """A search of so many trials for each study."""
    searches = []
    for index, num in enumerate(num_trials):
        (folder / str(index)).mkdir()
        searches.append(
            make_search(folder / str(index), f"s{index}", "random", index, TINY, num_trials=num, **settings)
        )
    return searches


class Driver:
    """Gives free places to what the search proposes, as Ray does, and ends the running trials one at a time."""

    def __init__(self, search: FairSearch, num_places: int) -> None:
        self.search, self.num_places = search, num_places
        self.running: list[str] = []
        self.started: list[int] = []
        """Study of each trial, in the order of their starts."""
        self.is_over = False

    def fill(self) -> list[int]:
        """Start trials until nothing is free, or nothing left; returns how many run of each study."""
        while len(self.running) < self.num_places and not self.is_over:
            trial_id = f"t{len(self.started)}"
            proposal = self.search.suggest(trial_id)
            if proposal == "FINISHED":
                self.is_over = True
                break
            assert isinstance(proposal, dict) and set(proposal) == {"study", "params", "checkpoint"}
            assert proposal["study"] == self.search.study_of(trial_id)
            self.started.append(proposal["study"])
            self.running.append(trial_id)
        running = [self.search.study_of(trial_id) for trial_id in self.running]
        return [running.count(study) for study in range(len(self.search.searches))]

    def end(self, place: int = 0, value: float = 0.5) -> None:
        """One comes to its last epoch: by default the one that has run longest."""
        self.search.on_trial_complete(self.running.pop(place), result(4, value))


# --- places ---


@pytest.mark.parametrize("num_places", [1, 2, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_places_are_shared_while_there_is_work_and_none_is_left_empty(
    tmp_path: Path, num_places: int, seed: int
) -> None:
    """Whichever trial ends first."""
    trials, shuffled = (9, 3, 6), random.Random(seed)
    driver = Driver(FairSearch(make_searches(tmp_path, *trials)), num_places)
    while True:
        running = driver.fill()
        have_work = [study for study, num in enumerate(trials) if driver.started.count(study) < num]
        shares = [running[study] for study in have_work]
        assert not have_work or max(shares) - min(shares) <= 1
        assert not have_work or sum(running) == num_places
        if not driver.running:
            break
        driver.end(shuffled.randrange(len(driver.running)))
    assert driver.is_over
    assert [driver.started.count(study) for study in range(3)] == list(trials)
    assert [told_as(search) for search in driver.search.searches] == [[TrialState.COMPLETE] * num for num in trials]


def test_studies_that_are_equally_busy_take_turns(tmp_path: Path) -> None:
    driver = Driver(FairSearch(make_searches(tmp_path, 4, 2, 3)), 2)
    while any(driver.fill()):
        driver.end()
    assert driver.started == [0, 1, 2, 0, 1, 2, 0, 2, 0]


def test_a_study_that_has_no_patience_left_gives_its_places_to_the_others(tmp_path: Path) -> None:
    first, second = make_searches(tmp_path, 20, 20, patience=2)
    driver = Driver(FairSearch([first, second]), 2)
    gains = iter(np.linspace(0.1, 0.9, 20))
    while any(driver.fill()):
        study = driver.search.study_of(driver.running[0])
        driver.end(value=0.5 if study == 0 else next(gains))
    assert driver.started.count(0) == 3, "the first trial, and two without a gain"
    assert driver.started.count(1) == 20
    assert driver.started[-14:] == [1] * 14


def test_while_a_study_may_go_on_the_run_is_not_over(tmp_path: Path) -> None:
    """Ray never asks again once it hears FINISHED."""
    search = FairSearch(make_searches(tmp_path, 1, 3))
    proposals: list[Any] = [search.suggest(trial_id) for trial_id in "abcde"]
    assert [p["study"] for p in proposals[:4]] == [0, 1, 1, 1]
    assert proposals[4] == "FINISHED"


# --- what the studies hear ---


def test_each_study_starts_with_its_baseline_and_counts_its_own_trials(tmp_path: Path) -> None:
    search = FairSearch(make_searches(tmp_path, 3, 3))
    proposals: list[Any] = [search.suggest(trial_id) for trial_id in "abcd"]
    assert [p["params"] for p in proposals[:2]] == [TINY.baseline] * 2
    assert [(search.study_of(t), search.number_of(t)) for t in "abcd"] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    for study, own in enumerate(("ac", "bd")):
        told = [trial.params for trial in search.searches[study]._ot_study.trials]
        assert told == [proposals["abcd".index(t)]["params"] for t in own]


def test_results_and_failures_reach_the_study_that_they_are_of(tmp_path: Path) -> None:
    search = FairSearch(make_searches(tmp_path, 9, 9))
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
    first, second = search.searches
    assert told_as(first) == [TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING]
    assert told_as(second) == [TrialState.FAIL, TrialState.PRUNED, TrialState.COMPLETE]
    assert first._ot_study.trials[0].intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}
    assert [trial.value for trial in second._ot_study.trials] == [None, 0.3, 0.7]
    assert [len(running) for running in search._running] == [1, 0]


def test_an_end_that_is_told_twice_frees_one_place(tmp_path: Path) -> None:
    search = FairSearch(make_searches(tmp_path, 9, 9))
    for trial_id in "abcd":
        search.suggest(trial_id)
    for _ in range(2):
        search.on_trial_complete("a", result(4, 0.4))
    proposals: list[Any] = [search.suggest(trial_id) for trial_id in "efg"]
    assert [p["study"] for p in proposals] == [0, 1, 0]


# --- schedulers ---


def make_own_scheduler(name: str, search: StudySearch) -> Any:
    here = Path("/nowhere")
    spec = StudySpec(
        category="part", study="s", train=TrainSpec(epochs=EPOCHS), data_root=here, textures=here, results=here,
        scheduler=name,  # type: ignore[arg-type]
    )  # fmt: skip
    return make_scheduler(spec, search)


def reached(scheduler: Any, ceilings: dict[StubTrial, float]) -> list[int]:
    """Run trials side by side, each towards its ceiling, and return the epochs that each was let run."""
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
"""Of the trials of two categories: the best of b is behind the worst of a."""


def suggested(search: StudySearch | FairSearch, studies: str) -> dict[StubTrial, float]:
    """The trials of some studies, in turn, with their ceilings."""
    trials = {StubTrial(f"{study}{i}"): CEILINGS[study][i] for i in range(12) for study in studies}
    for trial in trials:
        search.suggest(trial.trial_id)
    return trials


@pytest.mark.parametrize("name", get_args(Scheduler))
def test_trials_are_stopped_by_comparison_with_their_own_study_alone(tmp_path: Path, name: str) -> None:
    """Side by side with another category, each trial runs as long as it does without it."""
    alone = []
    for study in "ab":
        (tmp_path / study).mkdir()
        (own,) = make_searches(tmp_path / study, 12)
        alone.append(reached(make_own_scheduler(name, own), suggested(own, study)))
    search = FairSearch(make_searches(tmp_path, 12, 12))
    schedulers = [make_own_scheduler(name, own) for own in search.searches]
    together = reached(FairScheduler(search, schedulers), suggested(search, "ab"))
    assert [together[::2], together[1::2]] == alone
    assert together[1] == together[3] == EPOCHS, "the weak category's baseline and its best"
    assert name == "none" or min(together[::2]) < EPOCHS, "the strong category's weak ones are stopped"


def test_every_event_reaches_the_scheduler_of_the_trials_study(tmp_path: Path) -> None:
    heard: list[tuple[int, str, str]] = []

    class Noting(FIFOScheduler):  # type: ignore[misc]
        def __init__(self, study: int) -> None:
            super().__init__()
            self.study = study

        def note(self, event: str) -> Callable[..., str]:
            def listen(controller: Any, trial: StubTrial, row: Any = None) -> str:
                heard.append((self.study, event, trial.trial_id))
                return str(TrialScheduler.STOP if self.study else TrialScheduler.CONTINUE)

            return listen

    events = ("on_trial_add", "on_trial_result", "on_trial_complete", "on_trial_error", "on_trial_remove")
    noting = [Noting(study) for study in range(2)]
    for one in noting:
        for event in events:
            setattr(one, event, one.note(event))
    search = FairSearch(make_searches(tmp_path, 2, 2))
    scheduler, controller = FairScheduler(search, noting), StubController()
    for trial_id in "ab":
        search.suggest(trial_id)
        trial, study = StubTrial(trial_id), search.study_of(trial_id)
        scheduler.on_trial_add(controller, trial)
        decision = scheduler.on_trial_result(controller, trial, result(1, 0.5))
        assert decision == (TrialScheduler.STOP if study else TrialScheduler.CONTINUE)
        scheduler.on_trial_complete(controller, trial, result(4, 0.5))
        scheduler.on_trial_error(controller, trial)
        scheduler.on_trial_remove(controller, trial)
    assert heard == [(study, event, "trial 0") for study in range(2) for event in events]
