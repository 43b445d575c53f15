"""Replay searches on a surrogate of recorded trials: our default, plain Ray Tune with Optuna and ASHA, random search.

    python -m tests.benchmarks.search                    # three minutes on one core
    python -m tests.benchmarks.search --landscape bowl   # an analytic function: is it the record, or the method?

No process is started: a clock moves two workers (tests.benchmarks.simulation), and what decides is the real thing.
Trial n of seed s has the same luck in all searches, and all report the best objective so far.

    ours        tpe and asha as make_sampler and make_scheduler build them, the baseline first
    plain       OptunaSearch and ASHAScheduler as in Ray's optuna_example.py: their defaults but for max_t, the epochs
                of a trial; no more proposals than workers; pruned trials are told as complete, with their last value
    random      64 whole trials
    raw         with --more: plain, reporting each epoch's own objective, as Ray's examples do
    baselined   with --more: plain, the baseline first

The incumbent is the trial with the best objective seen so far, and its value is noise-free: what its hyperparameters
reach on average in a whole training (truths of tests.benchmarks.surrogate). Regret is that of the best of a dense
sample of the space, less this value. Prints tables and, last, one JSON line:
    epochs_random64       what random search spends on 64 trials
    epochs_ours           from there to the end (as many epochs as random search has), the median value of ours is at
                          least random search's last; null where it is not even at the end
    epochs_fraction       the quotient
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


def epochs_until(medians: Floats, wanted: float) -> tuple[int | None, int | None]:
    """The first epoch with at least this median, and the first from which on all have; None where there is none."""
    reached = medians >= wanted
    if not reached.any():
        return None, None
    first = int(reached.argmax()) + 1
    stays = len(reached) - int(reached[::-1].argmin()) + 1 if not reached.all() else 1
    return first, stays if reached[-1] else None


def interval(statistic: Callable[[Any], Floats], seeds: int) -> str:
    """95% of a statistic of resampled seeds; it takes indices (RESAMPLES, seeds)."""
    index = np.random.default_rng(0).integers(seeds, size=(RESAMPLES, seeds))
    low, high = np.quantile(statistic(index), (0.025, 0.975))
    return f"[{low:.4f}, {high:.4f}]"


def median_interval(values: Floats) -> str:
    """95% of the median of resampled seeds."""
    return interval(lambda index: np.median(values[index], axis=1), len(values))


def show(regrets: dict[str, Floats], at: Sequence[int]) -> None:
    """Print the regret of all searches after some numbers of epochs."""
    seeds = len(regrets["ours"])
    table = Table(title=f"regret: median (quartiles) [95% interval of the median], {seeds} seeds, {WORKERS} workers")
    table.add_column("epochs")
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
    """Print how much of the differences is chance."""
    one, other = regrets["ours"][:, epochs - 1], regrets["plain"][:, epochs - 1]
    luck = [landscape.draw(best, np.random.default_rng([1, number])).max() for number in range(300)]
    spread = interval(lambda index: np.median(one[index], axis=1) - np.median(other[index], axis=1), len(one))
    if isinstance(landscape, Recorded):
        fit = ", ".join(f"{name} {score:.2f}" for name, score in landscape.fit.items())
        print(
            f"surrogate of {landscape.num_trials} recorded trials; without the trial itself, its best objective: {fit}"
        )
    print(
        f"noise: at the best point, the best objective of one training has a standard deviation of {np.std(luck):.4f}"
    )
    print(
        f"after {epochs} epochs: median regret of ours less that of plain {np.median(one) - np.median(other):.4f} "
        f"{spread}; ours is the better one in {np.mean(one < other):.0%} of the seeds"
    )


def compare(landscape: Landscape, methods: dict[str, Method], seeds: int) -> dict[str, Any]:
    """Run all searches, print what they reach, and return the line of figures."""
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
    wanted = medians["random"][-1]
    for name in ("ours", "plain"):
        first, stays = epochs_until(-medians[name], -wanted)
        print(f"{name} first reaches random search's last median of {wanted:.4f} at epoch {first}; stays from {stays}")
    stays = epochs_until(-medians["ours"], -wanted)[1]
    return {
        "epochs_ours": stays,
        "epochs_random64": budget,
        "epochs_fraction": stays and round(stays / budget, 3),
        "median_regret_ours": round(float(medians["ours"][budget // 4 - 1]), 5),
        "median_regret_plain": round(float(medians["plain"][budget // 4 - 1]), 5),
        "seeds": seeds,
    }


def main(*, landscape: Literal["recorded", "bowl"] = "recorded", seeds: int = 30, more: bool = False) -> None:
    """Replay the searches."""
    methods = METHODS | (MORE_METHODS if more else {})
    print(json.dumps(compare(Recorded() if landscape == "recorded" else Bowl(), methods, seeds)))


if __name__ == "__main__":
    app = cyclopts.App()
    app.default(main)
    app()
