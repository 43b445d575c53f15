"""What each knob of a space moves: masks, images, labels, or the loss after two epochs. None may move nothing.

Rendered parts and a small network with random weights: it needs no data and takes seconds. A step sees all images.
Where batch_size is a knob, each setting has its own, and there are at least as many images as the largest batch.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from las_tune.config.train_spec import TrainSpec
from las_tune.data.demo_part import Surfaces, colored_noise, render_image
from las_tune.errors import SpaceError, UserError
from las_tune.las.backbone import Backbone, load_backbone
from las_tune.las.features import FeatureStore, store_features
from las_tune.las.masks import grid_labels, otsu_foreground
from las_tune.las.scored_images import Scored
from las_tune.las.synthesis import synthesize
from las_tune.las.training import TrainData, Training, train_epoch
from las_tune.space.knobs import Choice, Knob
from las_tune.space.search_space import Space, holds

SIZE = 64
NUM_IMAGES = 16
"""At least; an epoch is then one step, or two at the seed's batch size."""
OTHER_PLACES = 8
"""A knob that moves nothing at the baseline is tried at so many other places of the space."""


@dataclass(frozen=True)
class Seen:
    """What one setting gave: masks and labels (bool), images in [0, 1], the loss after two epochs."""

    masks: Tensor
    images: Tensor
    labels: Tensor
    loss: float


@dataclass(frozen=True)
class Effect:
    """What moved when a knob went from one value to another.

    masks, labels  share of pixels and of patches that changed
    images       mean change of a color, of 1
    loss           change of the loss after two epochs
    """

    knob: str
    start: Any
    end: Any
    masks: float
    images: float
    labels: float
    loss: float

    @property
    def is_any(self) -> bool:
        """Whether anything moved at all."""
        return any((self.masks, self.images, self.labels, self.loss))


def knob_effects(space: Space, progress: Callable[[int, int], None] | None = None) -> list[Effect]:
    """One effect a knob, from one end of its range to the other; for choices the weakest step from value to value.

    The other knobs are at the baseline; a knob that moves nothing there is tried at other places of the space. All
    places fulfil the condition of the knob that moves, and hold no knob whose own condition they do not fulfil.

    On one thread: the work is small, and threads that wait for one another on a busy machine take ten times as long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _knob_effects(space, progress or (lambda done, total: None))
    finally:
        torch.set_num_threads(threads)


def _knob_effects(space: Space, progress: Callable[[int, int], None]) -> list[Effect]:
    backbone = load_backbone("resnet18", "random")
    num_images = _num_images(space)
    data = _rendered(backbone, num_images)
    base = TrainSpec(image_size=SIZE, batch_size=num_images)
    seen: dict[str, Seen] = {}

    def look(settings: dict[str, Any]) -> Seen:
        settings = space.active(settings)
        key = repr(sorted(settings.items()))
        if key not in seen:
            seen[key] = _observe(base.replace(**settings), backbone, data)
        return seen[key]

    def effect(name: str, start: Any, end: Any) -> Effect:
        found = Effect(name, start, end, 0.0, 0.0, 0.0, 0.0)
        for others in _places(space, name):
            try:
                found = _compare(name, start, end, look(others | {name: start}), look(others | {name: end}))
            except UserError:  # two knobs with a rule between them: not a place of the space
                continue
            if found.is_any:
                break
        return found

    effects: list[Effect] = []
    for name, knob in space.knobs.items():
        progress(len(effects), len(space.knobs))
        effects.append(min((effect(name, *step) for step in _steps(knob)), key=lambda e: (e.is_any, e.loss)))
    return effects


def require_effects(space: Space, effects: list[Effect]) -> None:
    """Raise SpaceError where a knob moved nothing."""
    dead = [f"{effect.knob} from {effect.start} to {effect.end}" for effect in effects if not effect.is_any]
    if dead:
        raise SpaceError(
            f"{space.sources[-1]}: every knob must move masks, images, labels or the loss",
            ", ".join(dead),
            "widen it, or drop it",
        )


def _steps(knob: Knob) -> list[tuple[Any, Any]]:
    """From end to end, or from each value of a choice to the next; a single value goes nowhere."""
    if isinstance(knob, Choice):
        return list(itertools.pairwise(knob.values)) or [(knob.values[0], knob.values[0])]
    return [(knob.low, knob.high)]


def _places(space: Space, moved: str) -> Iterator[dict[str, Any]]:
    """Values of the other knobs where the moved one's condition holds: at the baseline if it does, then drawn ones."""
    knob = space.knobs[moved]
    others = {name: other for name, other in space.knobs.items() if name != moved}
    seeds = {name: getattr(TrainSpec(), name) for name in others}
    yield seeds if holds(knob, seeds) else seeds | {name: wanted[0] for name, wanted in knob.when.items()}
    generator = random.Random(0)
    for _ in range(OTHER_PLACES):
        drawn = {name: _draw(other, generator) for name, other in others.items()}
        yield drawn | {name: generator.choice(wanted) for name, wanted in knob.when.items()}


def _num_images(space: Space) -> int:
    """As many as the largest batch, so that each batch size is another number of steps."""
    knob = space.knobs.get("batch_size")
    return max(NUM_IMAGES, *map(int, knob.ends)) if knob else NUM_IMAGES


def _draw(knob: Knob, generator: random.Random) -> Any:
    if isinstance(knob, Choice):
        return generator.choice(knob.values)
    if knob.log:
        value = math.exp(generator.uniform(math.log(knob.low), math.log(knob.high)))
    else:
        value = generator.uniform(knob.low, knob.high)
    return round(value) if knob.integer else min(max(value, knob.low), knob.high)


def _rendered(backbone: Backbone, num_images: int) -> TrainData:
    """Rendered brackets, and textures of colored noise; the validation is never looked at."""
    surfaces = Surfaces.draw(np.random.default_rng(0), SIZE)
    drawn = [render_image(np.random.default_rng(i), surfaces, SIZE, "good")[0] for i in range(num_images)]
    images = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()
    textures = torch.from_numpy(colored_noise(8, SIZE)).permute(0, 3, 1, 2).contiguous()
    features = FeatureStore(images, store_features(backbone, images), backbone)
    defects = torch.zeros(num_images, dtype=torch.int64)
    return TrainData(features, otsu_foreground(images), textures, features, Scored(features, defects, None))


def _observe(spec: TrainSpec, backbone: Backbone, data: TrainData) -> Seen:
    """Synthesize once, then train: the loss of the third epoch is that after two."""
    generator = torch.Generator().manual_seed(spec.seed)
    synthesized = synthesize(data.images, data.foreground, data.textures, spec, generator)
    training = Training(spec, backbone.channels, torch.device("cpu"))
    for _ in range(3):
        loss = sum(train_epoch(training, spec, backbone, data))
    labels = grid_labels(synthesized.masks, (SIZE // 8, SIZE // 8)) > 0
    return Seen(synthesized.masks, synthesized.images, labels, loss)


def _compare(name: str, start: Any, end: Any, one: Seen, two: Seen) -> Effect:
    return Effect(
        name,
        start,
        end,
        masks=float((one.masks != two.masks).float().mean()),
        images=float((one.images - two.images).abs().mean()),
        labels=float((one.labels != two.labels).float().mean()),
        loss=abs(one.loss - two.loss),
    )
