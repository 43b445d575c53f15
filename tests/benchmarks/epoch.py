"""Time one epoch of training and validation: the engine against a straightforward loop, in turn, in one process.

    python -m tests.benchmarks.epoch                              # CPU: 54 + 97 images, as MPDD's metal_plate
    python -m tests.benchmarks.epoch --num-fit 289 --num-test 79  # GPU: as bracket_black

Rendered images and random weights: the arithmetic is that of real ones. Prints a table and, last, one JSON line.
The floor is the arithmetic that the engine's own epoch holds (counted by torch), at the measured rate of a large matrix
product: float32 on a CPU, bfloat16 on a GPU.
"""

from __future__ import annotations

import json
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import cyclopts
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from las_tune.config.train_spec import TrainSpec
from las_tune.data.demo_part import Surfaces, colored_noise, render_image
from las_tune.data.study_images import LabeledImages, TrialImages
from las_tune.data.trial_data import share
from las_tune.las.backbone import Backbone, load_backbone
from las_tune.las.features import FeatureStore
from las_tune.las.memory import keep_freed_memory
from las_tune.las.scored_images import metrics_of, threshold_of
from las_tune.las.scoring import image_scores, score_features
from las_tune.las.training import TrainData, Training, pick_device, train, train_epoch
from tests.benchmarks.plain import PlainTraining

NUM_TEXTURES = 40


@dataclass(frozen=True)
class Images:
    """fit and textures (N, 3, S, S) uint8; test with labels and masks."""

    fit: np.ndarray[Any, Any]
    textures: np.ndarray[Any, Any]
    test: LabeledImages


def render(num_fit: int, num_test: int, size: int) -> Images:
    """Rendered brackets, half of the test pierced, and colored noise as textures."""
    surfaces = Surfaces.draw(np.random.default_rng(0), size)
    defects = ["good"] * num_fit + ["good", "hole"] * num_test
    drawn = [
        render_image(np.random.default_rng(index), surfaces, size, defect)
        for index, defect in enumerate(defects[: num_fit + num_test])
    ]
    images = np.stack([image.transpose(2, 0, 1) for image, _ in drawn])
    masks = np.stack([np.zeros((size, size), bool) if mask is None else mask > 0 for _, mask in drawn[num_fit:]])
    labels = masks.any((1, 2))
    textures = colored_noise(NUM_TEXTURES, size).transpose(0, 3, 1, 2)
    return Images(images[:num_fit], textures.copy(), LabeledImages(images[num_fit:], labels.astype(np.int64), masks))


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Wall time, the device's queue included."""
    synchronize(device)
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(device: torch.device) -> float:
    """Multiplications and additions a second in a large matrix product: float32 on a CPU, bfloat16 on a GPU."""
    side, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (2048, torch.float32)
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / min(seconds_of(lambda: left @ right, device) for _ in range(7))


def count_flops(work: Callable[[], object]) -> int:
    """Multiplications and additions of the matrix products and convolutions in work."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def peak_memory_mb(device: torch.device) -> float:
    """Of the device where it is a GPU, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def validate(training: Training, spec: TrainSpec, data: TrainData) -> None:
    """Score the validation images; all metrics."""
    normal = image_scores(score_features(training.head, data.calibration, spec.image_size))
    heat = score_features(training.head, data.validation.features, spec.image_size)
    metrics_of(heat, data.validation, threshold_of(normal.cpu().numpy(), spec.fpr))


def first(data: TrainData, number: int) -> TrainData:
    """The same with few images, repeated where there are not enough."""
    index = torch.arange(number, device=data.images.device) % len(data.images)
    features = FeatureStore(data.images[index], data.features.take(index), data.features.backbone)
    return TrainData(features, data.foreground[index], data.textures, data.calibration, data.validation)


def epoch_flops(spec: TrainSpec, backbone: Backbone, data: TrainData) -> tuple[float, float]:
    """Arithmetic of the steps of an epoch, and of its validation."""
    batch = min(spec.batch_size, len(data.images))
    training = Training(spec, backbone.channels, data.images.device)
    step = count_flops(lambda: train_epoch(training, spec, backbone, first(data, batch)))
    scoring = count_flops(lambda: score_features(training.head, data.validation.features, spec.image_size))
    return step * len(data.images) / batch, float(scoring)


def arithmetic_share(spec: TrainSpec, backbone: Backbone, data: TrainData, rate: float) -> float:
    """Share of the machine's matrix rate that training steps reach at the batch size of spec."""
    device = data.images.device
    few = first(data, spec.batch_size * 4)
    training = Training(spec, backbone.channels, device)
    seconds_of(lambda: train_epoch(training, spec, backbone, few), device)
    taken = min(seconds_of(lambda: train_epoch(training, spec, backbone, few), device) for _ in range(3))
    return epoch_flops(spec, backbone, few)[0] / taken / rate


def show(rows: Sequence[tuple[str, str]], title: str) -> None:
    """Print a table of two columns."""
    table = Table(title=title, show_header=False)
    for row in rows:
        table.add_row(*row)
    Console(width=110).print(table)


def main(
    *,
    device: str = "auto",
    backbone: str = "wide_resnet50_2",
    image_size: int = 288,
    batch_size: int = 8,
    num_fit: int = 54,
    num_test: int = 97,
    rounds: Annotated[int, cyclopts.Parameter(help="Epochs of each, in turn; the median counts.")] = 1,
    keep_memory: Annotated[bool, cyclopts.Parameter(help="The allocator keeps freed memory, for both.")] = True,
    share_at_batch: Annotated[tuple[int, ...], cyclopts.Parameter(help="Report the arithmetic share there.")] = (),
) -> None:
    """Time ours and the plain loop."""
    on = pick_device(device)
    if keep_memory:
        keep_freed_memory()
    spec = TrainSpec(
        image_size=image_size, batch_size=batch_size, backbone=backbone, backbone_weights="random",
        objective="combined", epochs=rounds + 1,
    )  # fmt: skip
    images = render(num_fit, num_test, image_size)
    network = load_backbone(backbone, "random").to(on)
    calibration = images.fit[: max(1, num_fit // 10)]
    seen = TrialImages(images.fit, calibration, images.test, images.textures)
    data = share(network, seen)[0].to_device(network)
    rate = matrix_rate(on)
    train_flops, validation_flops = epoch_flops(spec, network, data)

    epochs = train(spec, network, data)
    next(epochs)  # warms caches up, as any study does
    plain = PlainTraining(spec, *map(torch.from_numpy, (images.fit, images.textures, images.test.images, images.test.labels)), device=str(on))  # fmt: skip  # noqa: E501
    warm_up(plain)
    ours, others, memory = [], [], 0.0
    for _ in range(rounds):
        if on.type == "cuda":
            torch.cuda.reset_peak_memory_stats(on)
        ours.append(seconds_of(lambda: next(epochs), on))
        memory = memory or peak_memory_mb(on)
        others.append(seconds_of(plain.epoch, on))
    training = Training(spec, network.channels, on)
    validation_s = seconds_of(lambda: validate(training, spec, data), on)

    seconds_ours, seconds_plain = statistics.median(ours), statistics.median(others)
    floor = (train_flops + validation_flops) / rate
    shares = {at: arithmetic_share(spec.replace(batch_size=at), network, data, rate) for at in share_at_batch}
    name = torch.cuda.get_device_name(on) if on.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    show(
        [
            ("ours", f"{seconds_ours:.2f} s an epoch"),
            ("validation", f"{validation_s:.2f} s: {validation_s / seconds_ours:.1%} of the epoch"),
            ("plain loop", f"{seconds_plain:.2f} s an epoch"),
            ("ratio", f"{seconds_plain / seconds_ours:.2f}"),
            ("matrix rate", f"{rate / 1e9:.0f} GFLOP/s"),
            ("arithmetic of the epoch", f"{(train_flops + validation_flops) / 1e9:.0f} GFLOP: at least {floor:.2f} s"),
            ("share of the floor", f"{floor / seconds_ours:.0%}"),
            *((f"share of the rate in training at batch {at}", f"{share:.0%}") for at, share in shares.items()),
        ],
        f"{backbone}, {image_size} px, batch {batch_size}, {num_fit} + {num_test} images, {name}",
    )
    result = {
        "device": name,
        "backbone": backbone,
        "image_size": image_size,
        "seconds_ours": round(seconds_ours, 3),
        "seconds_plain": round(seconds_plain, 3),
        "ratio": round(seconds_plain / seconds_ours, 2),
        "images_per_s": round(num_fit / seconds_ours, 2),
        "flop_floor_s": round(floor, 3),
        "fraction_of_floor": round(floor / seconds_ours, 3),
        "peak_memory_mb": round(memory),
    }
    print(json.dumps(result | ({"training_share_at_batch": shares} if shares else {})))


def warm_up(plain: PlainTraining) -> None:
    """One batch of each part, unmeasured."""
    fit, test, labels = plain.fit, plain.test, plain.labels
    plain.fit, plain.test, plain.labels = fit[: plain.spec.batch_size], test[:8], labels[:8]
    plain.epoch()
    plain.fit, plain.test, plain.labels = fit, test, labels


if __name__ == "__main__":
    app = cyclopts.App()
    app.default(main)
    app()
