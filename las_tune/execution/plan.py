"""What a run will take: so many trainings of so many epochs, each as long as a few measured steps say."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from las_tune.config.formatting import format_seconds
from las_tune.config.study_spec import StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.execution.cluster import Resources
from las_tune.execution.history import History
from las_tune.las.backbone import Backbone
from las_tune.las.features import FeatureStore
from las_tune.las.training import TrainData, train
from las_tune.search.schedulers import usual_share

TIMED_STEPS = 3


def measure_epoch_s(spec: TrainSpec, backbone: Backbone, data: TrainData) -> float:
    """Seconds of an epoch of the baseline, validation included, reckoned from a few steps.

    Args: as train() takes them. An epoch of one step and one of three tell what a step takes and what the rest does.
    """
    few = min(TIMED_STEPS * spec.batch_size, len(data.images))

    def timed(num_images: int) -> float:
        some = replace(
            data,
            features=FeatureStore(
                data.images[:num_images],
                [m[:num_images] for m in data.features.maps] if data.features.maps is not None else None,
                backbone,
            ),
            foreground=data.foreground[:num_images],
        )
        return next(train(spec.replace(epochs=1), backbone, some)).seconds

    timed(min(spec.batch_size, few))  # the first is slower: kernels are chosen, memory is asked for
    one, all_of_them = timed(min(spec.batch_size, few)), timed(few)
    if few <= spec.batch_size:
        return all_of_them
    image_s = max(0.0, all_of_them - one) / (few - spec.batch_size)
    return all_of_them + (len(data.images) - few) * image_s


@dataclass(frozen=True)
class Plan:
    """What is about to run, all studies of a run together."""

    trials: int
    """Those that are yet to be run."""
    again: int
    """Trainings over new seeds that are yet to be run; a champion of an earlier study adds its own."""
    epochs: int
    """Of each training, at most."""
    epoch_s: float
    """Of one epoch, as measured; the mean of the studies."""
    at_once: int
    most: Spent
    """Where no trial is stopped early."""
    usual: Spent
    """Where the scheduler stops as many as it is made to; as most where that cannot be told."""
    device: str
    """What a trial runs on, as people say it."""
    has_gpus: bool
    price_per_gpu_hour: float | None

    @classmethod
    def of(cls, specs: Sequence[StudySpec], epochs_s: Sequence[float], resources: Resources) -> Plan:
        """Args:
        specs: the studies.
        epochs_s: what an epoch of each takes.
        resources: what a trial gets.
        """
        left = [_left(spec, len(specs)) for spec in specs]
        whole = [spec.train.epochs * epoch_s for spec, epoch_s in zip(specs, epochs_s, strict=True)]
        shares = [usual_share(spec) for spec in specs]
        trials = [seconds for seconds, (number, _) in zip(whole, left, strict=True) for _ in range(number)]
        usual = [  # the baseline is never stopped
            seconds * (share if index else 1)
            for seconds, share, (number, _) in zip(whole, shares, left, strict=True)
            for index in range(number)
        ]
        again = [seconds for seconds, (_, number) in zip(whole, left, strict=True) for _ in range(number)]
        gpus = f"{resources.gpus:g} GPU{'s' if resources.gpus > 1 else ''}"
        cpus = f"{resources.cpus:g} CPU{'s' if resources.cpus > 1 else ''}"
        return cls(
            trials=len(trials), again=len(again), epochs=specs[0].train.epochs, epoch_s=sum(epochs_s) / len(epochs_s),
            at_once=resources.max_concurrent, most=Spent.of(trials, again, resources, specs[0].time_budget_s),
            usual=Spent.of(usual, again, resources, specs[0].time_budget_s),
            device=gpus if resources.gpus else cpus, has_gpus=resources.gpus > 0,
            price_per_gpu_hour=specs[0].price_per_gpu_hour,
        )  # fmt: skip

    def sentence(self) -> str:
        """For a person."""
        what = (
            f"plan: {self.trials} trials and {self.again} trainings over new seeds of {self.epochs} epochs, "
            f"{self.at_once} at a time on {self.device} each"
        )
        if math.isnan(self.epoch_s):
            return (
                f"{what}; how long they take could not be measured: the baseline could not be trained for a few steps"
            )
        took = self._range(self.usual.seconds, self.most.seconds, format_seconds)
        return f"{what}; an epoch takes {format_seconds(self.epoch_s)}: {took}{self._price()}"

    def _price(self) -> str:
        if not self.has_gpus:
            return ""
        told = f"; GPU hours: {self._range(self.usual.gpu_hours, self.most.gpu_hours, '{:.1f}'.format)}"
        price = self.price_per_gpu_hour
        if price is None:
            return told
        return (
            f"{told}; price: {self._range(self.usual.gpu_hours * price, self.most.gpu_hours * price, '{:.2f}'.format)}"
        )

    @staticmethod
    def _range(usual: float, most: float, shown: Callable[[float], str]) -> str:
        low, high = shown(usual), shown(most)
        return high if low == high else f"about {low}, at most {high}"


@dataclass(frozen=True)
class Spent:
    """Time on the clock, and of GPUs."""

    seconds: float
    gpu_hours: float

    @classmethod
    def of(
        cls, trials: Sequence[float], again: Sequence[float], resources: Resources, time_budget_s: float | None
    ) -> Spent:
        """Of trainings of so many seconds each; a time budget ends the trials of all studies."""
        places = resources.max_concurrent
        clock, held = _clock(trials, places), sum(trials)
        if time_budget_s is not None and clock > time_budget_s:
            clock, held = time_budget_s, min(held, time_budget_s * places)
        return cls(clock + _clock(again, places), (held + sum(again)) * resources.gpus / 3600)


def _clock(seconds: Sequence[float], places: int) -> float:
    """When the last of some trainings ends, each started as soon as there is a place."""
    ends = [0.0] * min(places, max(1, len(seconds)))
    for one in seconds:
        heapq.heapreplace(ends, ends[0] + one)
    return max(ends)


def _left(spec: StudySpec, num_studies: int) -> tuple[int, int]:
    """Trials, and trainings over new seeds, that are yet to end."""
    history = History(spec.folder)
    counted = [record for record in history.ended if record.number not in history.given_up]
    num_trials = sum(not record.finalist for record in counted)
    trials = 0 if history.is_searched and not spec.extend else max(0, spec.trials - num_trials)
    done = 0 if trials else len(counted) - num_trials
    return trials, max(0, spec.num_again(num_studies) - done)
