"""Time of one epoch of training and validation: las_tune against a plain loop, alternating in one process.

    python -m tests.benchmarks.epoch                              # CPU: 54 + 97 images, like metal_plate of MPDD
    python -m tests.benchmarks.epoch --num-fit 289 --num-test 79  # GPU: like bracket_black

Images are rendered and weights are random; the arithmetic is the same as with real ones. Prints a table and one JSON
line. The floor is the time of the epoch's arithmetic (counted by torch) at the measured rate of a large matrix product:
float32 on a CPU, bfloat16 on a GPU.
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
from las_tune.las.image_metrics import metrics_of, threshold_of
from las_tune.las.memory import keep_freed_memory
from las_tune.las.scoring import image_scores, score_features
from las_tune.las.training import TrainData, Training, pick_device, train, train_epoch
from tests.benchmarks.plain import PlainTraining

NUM_TEXTURES = 40


@dataclass(frozen=True)
class Images:
    """Images of a benchmark: fit and textures (N, 3, S, S) uint8, and test with labels and masks."""

    fit: np.ndarray[Any, Any]
    textures: np.ndarray[Any, Any]
    test: LabeledImages


def render(num_fit: int, num_test: int, size: int) -> Images:
    """Render brackets, half of the test images with a hole, and colored noise as textures."""
    surfaces = Surfaces.draw(np.random.default_rng(0), size)
    defects = ["good"] * num_fit + ["good", "hole"] * num_test
    rendered = [
        render_image(np.random.default_rng(index), surfaces, size, defect)
        for index, defect in enumerate(defects[: num_fit + num_test])
    ]
    images = np.stack([image.transpose(2, 0, 1) for image, _ in rendered])
    masks = np.stack([np.zeros((size, size), bool) if mask is None else mask > 0 for _, mask in rendered[num_fit:]])
    labels = masks.any((1, 2))
    textures = colored_noise(NUM_TEXTURES, size).transpose(0, 3, 1, 2)
    return Images(images[:num_fit], textures.copy(), LabeledImages(images[num_fit:], labels.astype(np.int64), masks))


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Return the wall time of some work, until the device has finished it."""
    synchronize(device)
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(device: torch.device) -> float:
    """Measure the FLOP/s of a large matrix product: float32 on a CPU, bfloat16 on a GPU."""
    side, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (2048, torch.float32)
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / min(seconds_of(lambda: left @ right, device) for _ in range(7))


def count_flops(work: Callable[[], object]) -> int:
    """Count the multiplications and additions of all matrix products and convolutions in some work."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory of the GPU, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def validate(training: Training, spec: TrainSpec, data: TrainData) -> None:
    """Score the validation images and compute all metrics."""
    normal = image_scores(score_features(training.head, data.calibration, spec.image_size))
    maps = score_features(training.head, data.validation.features, spec.image_size)
    metrics_of(maps, data.validation, threshold_of(normal.cpu().numpy(), spec.fpr))


def take_images(data: TrainData, number: int) -> TrainData:
    """Return the data with the first images only, repeated if there are too few."""
    index = torch.arange(number, device=data.images.device) % len(data.images)
    features = FeatureStore(data.images[index], data.features.take(index), data.features.backbone)
    return TrainData(features, data.foreground[index], data.textures, data.calibration, data.validation)


def epoch_flops(spec: TrainSpec, backbone: Backbone, data: TrainData) -> tuple[float, float]:
    """Count the FLOPs of the training steps of an epoch, and of its validation."""
    batch = min(spec.batch_size, len(data.images))
    training = Training(spec, backbone.channels, data.images.device)
    step = count_flops(lambda: train_epoch(training, spec, backbone, take_images(data, batch)))
    scoring = count_flops(lambda: score_features(training.head, data.validation.features, spec.image_size))
    return step * len(data.images) / batch, float(scoring)


def rate_fraction(spec: TrainSpec, backbone: Backbone, data: TrainData, rate: float) -> float:
    """Return the fraction of the matrix rate that training steps reach at the batch size of spec."""
    device = data.images.device
    few = take_images(data, spec.batch_size * 4)
    training = Training(spec, backbone.channels, device)
    seconds_of(lambda: train_epoch(training, spec, backbone, few), device)
    seconds = min(seconds_of(lambda: train_epoch(training, spec, backbone, few), device) for _ in range(3))
    return epoch_flops(spec, backbone, few)[0] / seconds / rate


def show(rows: Sequence[tuple[str, str]], title: str) -> None:
    """Print a table with two columns."""
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
    rounds: Annotated[int, cyclopts.Parameter(help="Epochs of each loop, alternating. The median is reported.")] = 1,
    keep_memory: Annotated[bool, cyclopts.Parameter(help="Let the allocator keep freed memory, in both loops.")] = True,
    fraction_at_batch: Annotated[
        tuple[int, ...], cyclopts.Parameter(help="Report the fraction of the matrix rate at these batch sizes.")
    ] = (),
) -> None:
    """Time las_tune and the plain loop."""
    torch_device = pick_device(device)
    if keep_memory:
        keep_freed_memory()
    spec = TrainSpec(
        image_size=image_size, batch_size=batch_size, backbone=backbone, backbone_weights="random",
        objective="combined", epochs=rounds + 1,
    )  # fmt: skip
    images = render(num_fit, num_test, image_size)
    network = load_backbone(backbone, "random").to(torch_device)
    calibration = images.fit[: max(1, num_fit // 10)]
    trial_images = TrialImages(images.fit, calibration, images.test, images.textures)
    data = share(network, trial_images)[0].to_device(network)
    rate = matrix_rate(torch_device)
    train_flops, validation_flops = epoch_flops(spec, network, data)

    epochs = train(spec, network, data)
    next(epochs)  # fills caches, as in every study
    plain = PlainTraining(spec, *map(torch.from_numpy, (images.fit, images.textures, images.test.images, images.test.labels)), device=str(torch_device))  # fmt: skip  # noqa: E501
    warm_up(plain)
    ours_s, plain_s, memory_mb = [], [], 0.0
    for _ in range(rounds):
        if torch_device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(torch_device)
        ours_s.append(seconds_of(lambda: next(epochs), torch_device))
        memory_mb = memory_mb or peak_memory_mb(torch_device)
        plain_s.append(seconds_of(plain.epoch, torch_device))
    training = Training(spec, network.channels, torch_device)
    validation_s = seconds_of(lambda: validate(training, spec, data), torch_device)

    seconds_ours, seconds_plain = statistics.median(ours_s), statistics.median(plain_s)
    floor = (train_flops + validation_flops) / rate
    fractions = {at: rate_fraction(spec.replace(batch_size=at), network, data, rate) for at in fraction_at_batch}
    name = (
        torch.cuda.get_device_name(torch_device)
        if torch_device.type == "cuda"
        else f"cpu, {torch.get_num_threads()} threads"
    )
    show(
        [
            ("las_tune", f"{seconds_ours:.2f} s per epoch"),
            ("validation", f"{validation_s:.2f} s: {validation_s / seconds_ours:.1%} of the epoch"),
            ("plain loop", f"{seconds_plain:.2f} s per epoch"),
            ("ratio", f"{seconds_plain / seconds_ours:.2f}"),
            ("matrix rate", f"{rate / 1e9:.0f} GFLOP/s"),
            ("arithmetic of the epoch", f"{(train_flops + validation_flops) / 1e9:.0f} GFLOP: at least {floor:.2f} s"),
            ("fraction of the floor", f"{floor / seconds_ours:.0%}"),
            *(
                (f"fraction of the matrix rate in training at batch {at}", f"{fraction:.0%}")
                for at, fraction in fractions.items()
            ),
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
        "peak_memory_mb": round(memory_mb),
    }
    print(json.dumps(result | ({"training_fraction_at_batch": fractions} if fractions else {})))


def warm_up(plain: PlainTraining) -> None:
    """Run one batch of training and of evaluation."""
    fit, test, labels = plain.fit, plain.test, plain.labels
    plain.fit, plain.test, plain.labels = fit[: plain.spec.batch_size], test[:8], labels[:8]
    plain.epoch()
    plain.fit, plain.test, plain.labels = fit, test, labels


if __name__ == "__main__":
    app = cyclopts.App()
    app.default(main)
    app()
