"""What a run will take: so many trainings of so many epochs, each as long as a few measured steps say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from las_tune.las.backbone import Backbone
from las_tune.las.features import FeatureStore
from las_tune.las.train import TrainData, TrainingDivergedError, train
from las_tune.spec import TrainSpec
from las_tune.study_spec import StudySpec
from las_tune.tuning.cluster import Resources
from las_tune.tuning.history import History
from las_tune.tuning.scheduler import usual_share
from las_tune.units import format_seconds

TIMED_STEPS = 3


def measure_epoch_s(spec: TrainSpec, backbone: Backbone, data: TrainData) -> float:
    """Seconds of an epoch of the baseline, validation included, reckoned from a few steps; NaN where it diverges.

    Args: as train() takes them. An epoch of one step and one of three tell what a step takes and what the rest does.
    """
    few = min(TIMED_STEPS * spec.batch_size, len(data.pictures))

    def timed(num_pictures: int) -> float:
        some = replace(
            data,
            features=FeatureStore(
                data.pictures[:num_pictures],
                [m[:num_pictures] for m in data.features.maps] if data.features.maps is not None else None,
                backbone,
            ),
            foreground=data.foreground[:num_pictures],
        )
        return next(train(spec.replace(epochs=1), backbone, some)).seconds

    try:
        timed(min(spec.batch_size, few))  # the first is slower: kernels are chosen, memory is asked for
        one, all_of_them = timed(min(spec.batch_size, few)), timed(few)
    except TrainingDivergedError:
        return math.nan
    if few <= spec.batch_size:
        return all_of_them
    picture_s = max(0.0, all_of_them - one) / (few - spec.batch_size)
    return all_of_them + (len(data.pictures) - few) * picture_s


@dataclass(frozen=True)
class Plan:
    """What is about to run, all studies of a run together."""

    trials: int
    """Those that are yet to be run."""
    again: int
    """Trainings over new seeds, at least: a champion of earlier studies is trained, too."""
    epochs: int
    """Of each training, at most."""
    epoch_s: float
    """Of one epoch, as measured; the mean of the studies."""
    at_once: int
    most_hours: float
    """Where no trial is stopped early."""
    usual_hours: float
    """Where the scheduler stops as many as it is made to; as most_hours where that cannot be told."""
    device: str
    """What a trial runs on, as people say it."""
    gpus: float
    """What a trial holds."""
    price_per_gpu_hour: float | None

    @classmethod
    def of(cls, specs: Sequence[StudySpec], epochs_s: Sequence[float], resources: Resources) -> Plan:
        """Args:
        specs: the studies.
        epochs_s: what an epoch of each takes.
        resources: what a trial gets.
        """
        first = specs[0]
        most = usual = 0.0
        num_trials = num_again = 0
        for spec, epoch_s in zip(specs, epochs_s, strict=True):
            trials, again = _left(spec), spec.num_again(len(specs))
            seconds = spec.train.epochs * epoch_s / resources.max_concurrent
            limit = first.time_budget_s if first.time_budget_s is not None else math.inf
            most += min(trials * seconds, limit) + again * seconds
            whole = min(trials, 1 + (trials - 1) * usual_share(spec)) if trials else 0  # the baseline is never stopped
            usual += min(whole * seconds, limit) + again * seconds
            num_trials, num_again = num_trials + trials, num_again + again
        gpus = f"{resources.gpus:g} GPU{'s' if resources.gpus > 1 else ''}"
        cpus = f"{resources.cpus:g} CPU{'s' if resources.cpus > 1 else ''}"
        return cls(
            trials=num_trials, again=num_again, epochs=first.train.epochs, epoch_s=sum(epochs_s) / len(epochs_s),
            at_once=resources.max_concurrent, most_hours=most / 3600, usual_hours=usual / 3600,
            device=gpus if resources.gpus else cpus, gpus=resources.gpus, price_per_gpu_hour=first.price_per_gpu_hour,
        )  # fmt: skip

    def sentence(self) -> str:
        """For a person."""
        what = (
            f"plan: {self.trials} trials and {self.again} trainings over new seeds of {self.epochs} epochs, "
            f"{self.at_once} at a time on {self.device} each"
        )
        if math.isnan(self.epoch_s):
            return f"{what}; how long they take could not be measured: the baseline's loss is not finite"
        return (
            f"{what}; an epoch takes {format_seconds(self.epoch_s)}: {self._range(3600, format_seconds)}{self._price()}"
        )

    def _price(self) -> str:
        if not self.gpus:
            return ""
        gpus, price = self.gpus * self.at_once, self.price_per_gpu_hour
        told = f"; GPU hours: {self._range(gpus, '{:.2g}'.format)}"
        return told if price is None else f"{told}; price: {self._range(gpus * price, '{:.2f}'.format)}"

    def _range(self, unit: float, shown: Callable[[float], str]) -> str:
        usual, most = shown(self.usual_hours * unit), shown(self.most_hours * unit)
        return f"at most {most}" if usual == most else f"about {usual}, at most {most}"


def _left(spec: StudySpec) -> int:
    """Trials that are yet to end."""
    history = History(spec.folder)
    ended = [record for record in history.ended if not record.finalist and record.number not in history.given_up]
    return max(0, spec.trials - len(ended))
