"""Sensitivity check: the effect of each parameter of a space. A parameter that changes nothing is an error.

The check compares masks, images, labels and the loss after two epochs at different values of a parameter. It trains on
rendered parts with a small network of random weights, so it needs no data and takes seconds. Except where batch_size is
tuned, one step sees all images.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from las_tune.config import Progress, TrainSpec
from las_tune.data import Surfaces, colored_noise, render_image
from las_tune.errors import SpaceError, UserError
from las_tune.las import (
    Backbone,
    FeatureStore,
    LabeledFeatures,
    TrainData,
    Training,
    grid_labels,
    load_backbone,
    otsu_foreground,
    store_features,
    synthesize,
    train_epoch,
)
from las_tune.space.parameters import Choice, Parameter
from las_tune.space.search_space import Space, holds

IMAGE_SIZE = 64
MIN_IMAGES = 16
"""With so many images an epoch is one step, or two with the baseline batch size."""
NUM_RANDOM_POINTS = 8
"""Points at which a parameter that changes nothing at the baseline is tried again."""


@dataclass(frozen=True)
class Observation:
    """Results of one setting.

    masks   (N, 1, S, S) bool, 1 = synthetic defect
    images  (N, 3, S, S) float in [0, 1], with synthetic defects
    labels  (N, 1, rows, columns) bool, 1 = defective patch
    loss    loss after two epochs
    """

    masks: Tensor
    images: Tensor
    labels: Tensor
    loss: float


@dataclass(frozen=True)
class Effect:
    """The difference between two values of a parameter.

    masks   fraction of pixels whose mask changed
    images  mean absolute change of a color, in [0, 1]
    labels  fraction of patches whose label changed
    loss    absolute change of the loss after two epochs
    """

    parameter: str
    start: Any
    end: Any
    masks: float
    images: float
    labels: float
    loss: float

    @property
    def is_any(self) -> bool:
        """Whether anything changed."""
        return any((self.masks, self.images, self.labels, self.loss))


def measure_sensitivity(space: Space, progress: Progress | None = None) -> list[Effect]:
    """Return one effect per parameter, from one end of its range to the other.

    For a choice it is the weakest effect between consecutive values. The other parameters have their baseline values. A
    parameter without effect there is tried again at random points of the space. At every point the condition of the
    parameter holds, and parameters whose own condition does not hold are left out.

    Meanwhile torch uses one thread: the work is small, and more threads are ten times slower on a busy machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure(space, progress or (lambda what, done, total: None))
    finally:
        torch.set_num_threads(threads)


def _measure(space: Space, progress: Progress) -> list[Effect]:
    backbone = load_backbone("resnet18", "random")
    num_images = _num_images(space)
    data = _rendered(backbone, num_images)
    base = TrainSpec(image_size=IMAGE_SIZE, batch_size=num_images)
    observations: dict[str, Observation] = {}

    def observe(settings: dict[str, Any]) -> Observation:
        settings = space.active(settings)
        key = repr(sorted(settings.items()))
        if key not in observations:
            observations[key] = _observe(base.replace(**settings), backbone, data)
        return observations[key]

    def effect_of(name: str, start: Any, end: Any) -> Effect:
        effect = Effect(name, start, end, 0.0, 0.0, 0.0, 0.0)
        for point in _points(space, name):
            try:
                effect = _compare(name, start, end, observe(point | {name: start}), observe(point | {name: end}))
            except UserError:  # the point breaks a rule between two parameters, so it is not in the space
                continue
            if effect.is_any:
                break
        return effect

    effects: list[Effect] = []
    for name, parameter in space.parameters.items():
        progress("sensitivity check", len(effects), len(space.parameters))
        candidates = (effect_of(name, *step) for step in _steps(parameter))
        effects.append(min(candidates, key=lambda effect: (effect.is_any, effect.loss)))
    return effects


def require_effects(space: Space, effects: list[Effect]) -> None:
    """Raise SpaceError if a parameter changed nothing."""
    insensitive = [f"{effect.parameter} ({effect.start} to {effect.end})" for effect in effects if not effect.is_any]
    if insensitive:
        raise SpaceError(
            f"{space.sources[-1]}: no effect on masks, images, labels or the loss: {', '.join(insensitive)}",
            remedy="Widen the range, or drop the parameter",
        )


def _steps(parameter: Parameter) -> list[tuple[Any, Any]]:
    """Return the pairs of values to compare: both ends of a range, or consecutive values of a choice."""
    if isinstance(parameter, Choice):
        return list(itertools.pairwise(parameter.values)) or [(parameter.values[0], parameter.values[0])]
    return [(parameter.low, parameter.high)]


def _points(space: Space, name: str) -> Iterator[dict[str, Any]]:
    """Yield values of the other parameters for which the condition of `name` holds: the baseline, then random ones.

    Where the condition does not hold at the baseline, only the parameters that it names differ from the baseline.
    """
    parameter = space.parameters[name]
    remaining = {other: candidate for other, candidate in space.parameters.items() if other != name}
    baseline = {other: getattr(TrainSpec(), other) for other in remaining}
    first_allowed = {required: allowed[0] for required, allowed in parameter.when.items()}
    yield baseline if holds(parameter, baseline) else baseline | first_allowed
    generator = random.Random(0)
    for _ in range(NUM_RANDOM_POINTS):
        drawn = {other: _draw(candidate, generator) for other, candidate in remaining.items()}
        yield drawn | {required: generator.choice(allowed) for required, allowed in parameter.when.items()}


def _num_images(space: Space) -> int:
    """Return the number of images, at least the largest batch size, so that each batch size gives other steps."""
    parameter = space.parameters.get("batch_size")
    return max(MIN_IMAGES, *map(int, parameter.ends)) if parameter else MIN_IMAGES


def _draw(parameter: Parameter, generator: random.Random) -> Any:
    if isinstance(parameter, Choice):
        return generator.choice(parameter.values)
    if parameter.log:
        value = math.exp(generator.uniform(math.log(parameter.low), math.log(parameter.high)))
    else:
        value = generator.uniform(parameter.low, parameter.high)
    return round(value) if parameter.integer else min(max(value, parameter.low), parameter.high)


def _rendered(backbone: Backbone, num_images: int) -> TrainData:
    """Return rendered brackets and textures of colored noise. The validation images are never scored."""
    surfaces = Surfaces.draw(np.random.default_rng(0), IMAGE_SIZE)
    rendered = [render_image(np.random.default_rng(i), surfaces, IMAGE_SIZE, "good")[0] for i in range(num_images)]
    images = torch.from_numpy(np.stack(rendered)).permute(0, 3, 1, 2).contiguous()
    textures = torch.from_numpy(colored_noise(8, IMAGE_SIZE)).permute(0, 3, 1, 2).contiguous()
    features = FeatureStore(images, store_features(backbone, images), backbone)
    defects = torch.zeros(num_images, dtype=torch.int64)
    return TrainData(features, otsu_foreground(images), textures, features, LabeledFeatures(features, defects, None))


def _observe(spec: TrainSpec, backbone: Backbone, data: TrainData) -> Observation:
    """Synthesize defects once, then train. The loss of the third epoch is the loss after two epochs."""
    generator = torch.Generator().manual_seed(spec.seed)
    synthesized = synthesize(data.images, data.foreground, data.textures, spec, generator)
    training = Training(spec, backbone.channels, torch.device("cpu"))
    for _ in range(3):
        loss = sum(train_epoch(training, spec, backbone, data))
    labels = grid_labels(synthesized.masks, (IMAGE_SIZE // 8, IMAGE_SIZE // 8)) > 0
    return Observation(synthesized.masks, synthesized.images, labels, loss)


def _compare(name: str, start: Any, end: Any, first: Observation, second: Observation) -> Effect:
    return Effect(
        name,
        start,
        end,
        masks=float((first.masks != second.masks).float().mean()),
        images=float((first.images - second.images).abs().mean()),
        labels=float((first.labels != second.labels).float().mean()),
        loss=abs(first.loss - second.loss),
    )
