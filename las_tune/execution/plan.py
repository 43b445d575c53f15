"""The plan of a run: number and duration of the remaining training runs, estimated from a few measured steps."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from las_tune.config import StudySpec, TrainSpec, format_seconds
from las_tune.execution.cluster import Resources
from las_tune.execution.history import History
from las_tune.las import Backbone, FeatureStore, TrainData, train
from las_tune.search import expected_epoch_fraction

TIMED_STEPS = 3


def measure_epoch_s(spec: TrainSpec, backbone: Backbone, data: TrainData) -> float:
    """Estimate the duration of one epoch of the baseline in seconds, validation included.

    An epoch of one step and an epoch of three steps are timed: their difference gives the time of a step, the rest is
    the time of everything else.

    Args:
        spec: settings of the training run.
        backbone: the frozen network, on the device.
        data: training data, on the device.
    """
    num_timed = min(TIMED_STEPS * spec.batch_size, len(data.images))

    def measure_s(num_images: int) -> float:
        return next(train(spec.replace(epochs=1), backbone, _first_images(data, num_images, backbone))).seconds

    num_first = min(spec.batch_size, num_timed)
    measure_s(num_first)  # warm-up: the first epoch selects kernels and allocates memory
    one_step_s, timed_s = measure_s(num_first), measure_s(num_timed)
    if num_timed <= spec.batch_size:
        return timed_s
    image_s = max(0.0, timed_s - one_step_s) / (num_timed - spec.batch_size)
    return timed_s + (len(data.images) - num_timed) * image_s


def _first_images(data: TrainData, num_images: int, backbone: Backbone) -> TrainData:
    """Return the same data with only the first images to train on."""
    maps = [feature_map[:num_images] for feature_map in data.features.maps] if data.features.maps is not None else None
    features = FeatureStore(data.images[:num_images], maps, backbone)
    return replace(data, features=features, foreground=data.foreground[:num_images])


@dataclass(frozen=True)
class Plan:
    """The remaining work of a run, over all its studies."""

    num_trials: int
    """Trials that are left."""
    num_retrainings: int
    """Retrainings with new seeds that are left, without those of a registered champion."""
    num_epochs: int
    """Maximum number of epochs of a training run."""
    epoch_s: float
    """Duration of one epoch in seconds, averaged over the studies; NaN if it could not be measured."""
    num_slots: int
    """Number of training runs in parallel."""
    upper_bound: Cost
    """Cost if no trial is stopped early."""
    expected: Cost
    """Cost if the scheduler stops as many trials as it is designed to; the upper bound if that is unknown."""
    device: str
    """Resources of a training run, for display."""
    has_gpus: bool
    price_per_gpu_hour: float | None

    @classmethod
    def of(cls, specs: Sequence[StudySpec], epochs_s: Sequence[float], resources: Resources) -> Plan:
        """Make the plan of a run.

        Args:
            specs: the studies. The settings of the run itself are taken from the first one.
            epochs_s: duration of one epoch of each study in seconds.
            resources: resources of a training run.
        """
        missing = [_missing_trainings(spec, len(specs)) for spec in specs]
        trials_s, expected_s, retrainings_s = list[float](), list[float](), list[float]()
        for spec, epoch_s, (num_trials, num_retrainings) in zip(specs, epochs_s, missing, strict=True):
            training_s, fraction = spec.train.epochs * epoch_s, expected_epoch_fraction(spec)
            trials_s += [training_s] * num_trials
            expected_s += [training_s * (fraction if trial else 1) for trial in range(num_trials)]  # 0 is the baseline
            retrainings_s += [training_s] * num_retrainings
        budget_s = specs[0].time_budget_s
        number, unit = (resources.gpus, "GPU") if resources.gpus else (resources.cpus, "CPU")
        return cls(
            num_trials=len(trials_s),
            num_retrainings=len(retrainings_s),
            num_epochs=specs[0].train.epochs,
            epoch_s=sum(epochs_s) / len(epochs_s),
            num_slots=resources.max_concurrent,
            upper_bound=Cost.of(trials_s, retrainings_s, resources, budget_s),
            expected=Cost.of(expected_s, retrainings_s, resources, budget_s),
            device=f"{number:g} {unit}{'s' if number > 1 else ''}",
            has_gpus=resources.gpus > 0,
            price_per_gpu_hour=specs[0].price_per_gpu_hour,
        )

    def sentence(self) -> str:
        """Return the plan in one line."""
        work = (
            f"plan: {self.num_trials} trials and {self.num_retrainings} retrainings with new seeds, "
            f"up to {self.num_epochs} epochs each, {self.num_slots} at a time on {self.device} each"
        )
        if math.isnan(self.epoch_s):
            return f"{work}; duration unknown: the baseline failed to train for a few steps"
        duration = self._range(self.expected.seconds, self.upper_bound.seconds, format_seconds)
        return f"{work}; {format_seconds(self.epoch_s)} per epoch; total time: {duration}{self._price()}"

    def _price(self) -> str:
        if not self.has_gpus:
            return ""
        expected, upper_bound = self.expected.gpu_hours, self.upper_bound.gpu_hours
        gpu_hours = f"; GPU hours: {self._range(expected, upper_bound, '{:.1f}'.format)}"
        price = self.price_per_gpu_hour
        if price is None:
            return gpu_hours
        return f"{gpu_hours}; price: {self._range(expected * price, upper_bound * price, '{:.2f}'.format)}"

    @staticmethod
    def _range(expected: float, upper_bound: float, format_value: Callable[[float], str]) -> str:
        low, high = format_value(expected), format_value(upper_bound)
        return high if low == high else f"about {low}, at most {high}"


@dataclass(frozen=True)
class Cost:
    """Duration of a run, and the GPU time that it uses."""

    seconds: float
    gpu_hours: float

    @classmethod
    def of(
        cls,
        trials_s: Sequence[float],
        retrainings_s: Sequence[float],
        resources: Resources,
        time_budget_s: float | None,
    ) -> Cost:
        """Return the cost of trials and retrainings of the given durations; a time budget ends all trials."""
        num_slots = resources.max_concurrent
        elapsed_s, used_s = _makespan_s(trials_s, num_slots), sum(trials_s)
        if time_budget_s is not None and elapsed_s > time_budget_s:
            elapsed_s, used_s = time_budget_s, min(used_s, time_budget_s * num_slots)
        gpu_hours = (used_s + sum(retrainings_s)) * resources.gpus / 3600
        return cls(elapsed_s + _makespan_s(retrainings_s, num_slots), gpu_hours)


def _makespan_s(durations_s: Sequence[float], num_slots: int) -> float:
    """Return when the last training run ends, if each starts in the first free slot."""
    ends_s = [0.0] * min(num_slots, max(1, len(durations_s)))
    for duration_s in durations_s:
        heapq.heapreplace(ends_s, ends_s[0] + duration_s)
    return max(ends_s)


def _missing_trainings(spec: StudySpec, num_studies: int) -> tuple[int, int]:
    """Return the numbers of trials and of retrainings that have not ended."""
    history = History(spec.folder)
    counted = [record for record in history.ended if record.number not in history.discarded]
    num_trials = sum(not record.finalist for record in counted)
    is_searched = history.is_searched and not spec.extend
    num_missing = 0 if is_searched else max(0, spec.trials - num_trials)
    num_retrained = 0 if num_missing else len(counted) - num_trials
    return num_missing, max(0, spec.num_retrainings(num_studies) - num_retrained)
