"""Searches with a simulated clock: real search algorithms and schedulers, simulated trials, no Ray processes."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from las_tune.config.study_spec import StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.search.samplers import distribution, make_sampler
from las_tune.search.schedulers import make_scheduler
from las_tune.search.searcher import METRIC, StudySearcher
from las_tune.space.search_space import Space
from tests.benchmarks.surrogate import Floats, Landscape

WORKERS = 2
RANDOM_TRIALS = 64
EPOCH_TIMES = (0.9, 1.1)
"""Range of the duration of an epoch, drawn for each trial, so that trials end in no fixed order."""

SearchParts = tuple[Searcher, TrialScheduler]
Maker = Callable[[Space, int, int, Path], SearchParts]
"""Takes a space, the epochs of a trial, a seed and a temporary folder."""


@dataclass
class Trial:
    """State of a running trial, with the attributes that schedulers read."""

    trial_id: str
    params: dict[str, Any]
    reported: Floats
    """Objective by epoch."""
    epoch_time: float
    epoch: int = 0

    def report(self) -> dict[str, Any]:
        """Return the report of the next epoch."""
        self.epoch += 1
        row = {"epoch": self.epoch, "training_iteration": self.epoch, METRIC: float(self.reported[self.epoch - 1])}
        return row | {"trial_id": self.trial_id}


def seeded_sampler(spec: StudySpec, space: Space, number: int) -> BaseSampler:
    """Make the sampler for the trial with a number."""
    return make_sampler(spec.sampler, space, trials=spec.trials, seed=spec.train.seed, number=number)


def ours(space: Space, epochs: int, seed: int, folder: Path) -> SearchParts:
    """Make searcher and scheduler with the defaults of a study."""
    spec = StudySpec(
        category="part", study="simulated", data_root=folder, textures=folder, results=folder,
        train=TrainSpec(epochs=epochs, seed=seed),
    )  # fmt: skip
    sampler = partial(seeded_sampler, spec, space)
    search = StudySearcher(space, study_name=spec.study, num_epochs=epochs, make_sampler=sampler, folder=folder)
    return search, make_scheduler(spec, search)


def plain(space: Space, epochs: int, seed: int, folder: Path, baseline_first: bool = False) -> SearchParts:
    """Make Ray's searcher and scheduler, as in its documentation."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: distribution(parameter) for name, parameter in space.parameters.items()}
    points = [space.baseline] if baseline_first else None
    search = OptunaSearch(distributions, metric=METRIC, mode="max", seed=seed, points_to_evaluate=points)
    return search, ASHAScheduler(time_attr="training_iteration", max_t=epochs)


def random(space: Space, epochs: int, seed: int, folder: Path) -> SearchParts:
    """Make random search without early stopping."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: distribution(parameter) for name, parameter in space.parameters.items()}
    sampler = optuna.samplers.RandomSampler(seed=seed)
    return OptunaSearch(distributions, metric=METRIC, mode="max", sampler=sampler), FIFOScheduler()


@dataclass(frozen=True)
class Method:
    """A search algorithm and its settings."""

    make: Maker
    max_trials: int | None = None
    best_so_far: bool = True
    """Whether trials report the best objective so far, or the one of each epoch."""


METHODS = {"ours": Method(ours), "plain": Method(plain), "random": Method(random, max_trials=RANDOM_TRIALS)}
MORE_METHODS = {"raw": Method(plain, best_so_far=False), "baselined": Method(partial(plain, baseline_first=True))}


def simulate(landscape: Landscape, method: Method, seed: int, budget: int) -> Floats:
    """Run one search. Return the true value of the incumbent after each epoch, up to `budget` epochs."""
    with tempfile.TemporaryDirectory() as folder, patch("os.fsync"):  # takes most of the time, for a temporary journal
        search, scheduler = method.make(landscape.space, landscape.num_epochs, seed, Path(folder))
        scheduler.set_search_properties(METRIC, "max")
        trials, incumbents, best = list[Trial](), list[int](), -np.inf
        queue = list[tuple[float, int]]()  # time of the next report, and trial number

        def start(now: float) -> None:
            if method.max_trials is None or len(trials) < method.max_trials:
                trials.append(begin(landscape, method, search, seed, len(trials)))
                scheduler.on_trial_add(None, trials[-1])
                heapq.heappush(queue, (now + trials[-1].epoch_time, len(trials) - 1))

        for _ in range(WORKERS):
            start(0)
        while queue and len(incumbents) < budget:
            now, number = heapq.heappop(queue)
            row = trials[number].report()
            if row[METRIC] > best:
                best, incumbent = row[METRIC], number
            incumbents.append(incumbent)
            if continues(search, scheduler, trials[number], row):
                heapq.heappush(queue, (now + trials[number].epoch_time, number))
            else:
                start(now)
    truths = landscape.truths([trial.params for trial in trials])
    return truths[incumbents]


def begin(landscape: Landscape, method: Method, search: Searcher, seed: int, number: int) -> Trial:
    """Suggest a trial, and draw its noise from seed and number."""
    params: Any = search.suggest(str(number))
    generator = np.random.default_rng([seed, number])
    curve = landscape.draw(params, generator)
    reported = np.maximum.accumulate(curve) if method.best_so_far else curve
    return Trial(str(number), params, reported, epoch_time=generator.uniform(*EPOCH_TIMES))


def continues(search: Searcher, scheduler: TrialScheduler, trial: Trial, row: dict[str, Any]) -> bool:
    """Pass a report to scheduler and searcher in the order of Ray's controller. Return whether the trial continues."""
    is_stopped = scheduler.on_trial_result(None, trial, row) == TrialScheduler.STOP
    if not is_stopped:
        search.on_trial_result(trial.trial_id, row)
        if trial.epoch < len(trial.reported):
            return True
    scheduler.on_trial_complete(None, trial, row)
    search.on_trial_complete(trial.trial_id, row)
    return False
