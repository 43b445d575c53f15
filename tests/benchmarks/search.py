"""Searches on a surrogate of recorded trials: las_tune's default, Ray Tune with Optuna and ASHA, and random search.

    python -m tests.benchmarks.search                    # three minutes on one core
    python -m tests.benchmarks.search --landscape bowl   # an analytic function, as a check of the surrogate

The searchers and schedulers are the real ones; two workers with a simulated clock train the trials
(tests.benchmarks.simulation). Trial n of seed s has the same noise in all searches, and all searches report the best
objective so far.

    ours        TPE and ASHA as make_sampler and make_scheduler make them, the baseline first
    plain       OptunaSearch and ASHAScheduler as in Ray's optuna_example.py, with their defaults except max_t, the
                epochs of a trial; as many proposals as workers; pruned trials are reported as complete, with their
                last value
    random      64 complete trials
    raw         with --more: plain, reporting the objective of each epoch, as in Ray's examples
    baselined   with --more: plain, the baseline first

The incumbent is the trial with the best reported objective so far. Its value is noise-free: the mean objective that its
hyperparameters reach in a complete training (truths of tests.benchmarks.surrogate). Regret is the value of the best
point of a dense sample of the space minus the value of the incumbent. Prints tables and one JSON line:
    epochs_random64       epochs of 64 random trials
    epochs_ours           number of epochs from which on the median value of ours is at least the final value of random
                          search; null if this is not the case after epochs_random64
    epochs_fraction       epochs_ours over epochs_random64
    median_regret_ours, median_regret_plain      after a quarter of epochs_random64
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

import cyclopts
import numpy as np
from rich.console import Console
from rich.table import Table

from tests.benchmarks.simulation import METHODS, MORE_METHODS, RANDOM_TRIALS, WORKERS, Method, simulate
from tests.benchmarks.surrogate import Bowl, Floats, Landscape, Recorded, dense_sample

RESAMPLES = 2000


def epochs_until(medians: Floats, target: float) -> tuple[int | None, int | None]:
    """Return the first epoch whose median reaches a value, and the first from which on all do. None: no such epoch."""
    reached = medians >= target
    if not reached.any():
        return None, None
    first = int(reached.argmax()) + 1
    stays = len(reached) - int(reached[::-1].argmin()) + 1 if not reached.all() else 1
    return first, stays if reached[-1] else None


def interval(statistic: Callable[[Any], Floats], seeds: int) -> str:
    """Return the 95% bootstrap interval over seeds. `statistic` takes resampled indices (RESAMPLES, seeds)."""
    index = np.random.default_rng(0).integers(seeds, size=(RESAMPLES, seeds))
    low, high = np.quantile(statistic(index), (0.025, 0.975))
    return f"[{low:.4f}, {high:.4f}]"


def median_interval(values: Floats) -> str:
    """Return the 95% bootstrap interval of the median over seeds."""
    return interval(lambda index: np.median(values[index], axis=1), len(values))


def show(regrets: dict[str, Floats], at: Sequence[int]) -> None:
    """Print the regret of all searches after the given numbers of epochs."""
    seeds = len(regrets["ours"])
    table = Table(title=f"Regret: median (quartiles) [95% interval of the median], {seeds} seeds, {WORKERS} workers")
    table.add_column("Epochs")
    for name in regrets:
        table.add_column(name)
    for epochs in at:
        cells = []
        for regret in regrets.values():
            column = regret[:, epochs - 1]
            low, median, high = np.quantile(column, (0.25, 0.5, 0.75))
            cells.append(f"{median:.4f} ({low:.4f} to {high:.4f})\n{median_interval(column)}")
        table.add_row(str(epochs), *cells)
    Console(width=60 + 32 * len(regrets)).print(table)


def show_noise(landscape: Landscape, best: dict[str, float], regrets: dict[str, Floats], epochs: int) -> None:
    """Print how much of the difference between searches is due to chance."""
    ours, plain = regrets["ours"][:, epochs - 1], regrets["plain"][:, epochs - 1]
    objectives = [landscape.draw(best, np.random.default_rng([1, number])).max() for number in range(300)]
    spread = interval(lambda index: np.median(ours[index], axis=1) - np.median(plain[index], axis=1), len(ours))
    if isinstance(landscape, Recorded):
        fit = ", ".join(f"{name} {score:.2f}" for name, score in landscape.fit.items())
        print(f"Surrogate of {landscape.num_trials} recorded trials; leave-one-out fit of best objectives: {fit}")
    print(f"Noise: the best objective of a training at the best point has standard deviation {np.std(objectives):.4f}")
    print(
        f"After {epochs} epochs: median regret of ours minus that of plain: {np.median(ours) - np.median(plain):.4f} "
        f"{spread}; ours is better for {np.mean(ours < plain):.0%} of the seeds"
    )


def compare(landscape: Landscape, methods: dict[str, Method], seeds: int) -> dict[str, Any]:
    """Run all searches, print their results, and return the JSON line."""
    budget = RANDOM_TRIALS * landscape.num_epochs
    sample = dense_sample(landscape.space)
    truths = landscape.truths(sample)
    regrets = {
        name: truths.max() - np.array([simulate(landscape, method, seed, budget) for seed in range(seeds)])
        for name, method in methods.items()
    }
    medians = {name: np.median(regret, axis=0) for name, regret in regrets.items()}
    show(regrets, [budget // share for share in (16, 8, 4, 2, 1)])
    show_noise(landscape, sample[int(truths.argmax())], regrets, budget // 4)
    target = medians["random"][-1]
    for name in ("ours", "plain"):
        first, stays = epochs_until(-medians[name], -target)
        print(f"{name} reaches the final median of random search, {target:.4f}, at epoch {first}; for good at {stays}")
    stays = epochs_until(-medians["ours"], -target)[1]
    return {
        "epochs_ours": stays,
        "epochs_random64": budget,
        "epochs_fraction": stays and round(stays / budget, 3),
        "median_regret_ours": round(float(medians["ours"][budget // 4 - 1]), 5),
        "median_regret_plain": round(float(medians["plain"][budget // 4 - 1]), 5),
        "seeds": seeds,
    }


def main(*, landscape: Literal["recorded", "bowl"] = "recorded", seeds: int = 30, more: bool = False) -> None:
    """Run the searches."""
    methods = METHODS | (MORE_METHODS if more else {})
    print(json.dumps(compare(Recorded() if landscape == "recorded" else Bowl(), methods, seeds)))


if __name__ == "__main__":
    app = cyclopts.App()
    app.default(main)
    app()
