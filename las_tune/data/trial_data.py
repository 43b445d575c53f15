"""Images and frozen features shared by all trials, computed once, as arrays that Ray shares without a copy."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch

from las_tune.config import Progress
from las_tune.data.study_images import Array, LabeledImages, TrialImages, foreground_of
from las_tune.las import (
    Backbone,
    FeatureStore,
    LabeledFeatures,
    PixelTargets,
    TrainData,
    bytes_per_image,
    pixel_targets,
    store_features,
)


@dataclass(frozen=True)
class SharedImages:
    """Images and their stored features.

    images  (N, 3, S, S) uint8 RGB
    maps    feature maps, finest first, as bytes of store_dtype, because numpy has no bfloat16; None if the features of
            all images exceed the limit, so that trials recompute them
    """

    images: Array
    maps: list[Array] | None

    def to_device(self, backbone: Backbone, dtype: torch.dtype) -> FeatureStore:
        """Return the features as tensors on the device of the backbone."""
        device = backbone.mean.device
        stored = [_tensor(m, device).view(dtype) for m in self.maps] if self.maps is not None else None
        return FeatureStore(_tensor(self.images, device), stored, backbone)


@dataclass(frozen=True)
class SharedLabeledImages:
    """Features and labels of images that are scored.

    features  features of N images
    defects   (N,) int64, 0 = good, k = the k-th defect type
    targets   fields of PixelTargets; None without masks
    """

    features: SharedImages
    defects: Array
    targets: tuple[Array, Array, Array] | None

    def to_device(self, backbone: Backbone, dtype: torch.dtype) -> LabeledFeatures:
        """Return the images as tensors on the device of the backbone."""
        device = backbone.mean.device
        targets = PixelTargets(*(_tensor(t, device) for t in self.targets)) if self.targets else None
        return LabeledFeatures(self.features.to_device(backbone, dtype), _tensor(self.defects, device), targets)


@dataclass(frozen=True)
class SharedData:
    """The TrainData of a study as numpy arrays."""

    fit: SharedImages
    foreground: Array
    textures: Array
    calibration: SharedImages
    validation: SharedLabeledImages
    monitored: dict[str, SharedLabeledImages]
    store_dtype: str

    def to_device(self, backbone: Backbone) -> TrainData:
        """Return the data as tensors on the device of the backbone."""
        device, dtype = backbone.mean.device, getattr(torch, self.store_dtype)
        return TrainData(
            features=self.fit.to_device(backbone, dtype),
            foreground=_tensor(self.foreground, device),
            textures=_tensor(self.textures, device),
            calibration=self.calibration.to_device(backbone, dtype),
            validation=self.validation.to_device(backbone, dtype),
            monitored={name: scored.to_device(backbone, dtype) for name, scored in self.monitored.items()},
        )


def _tensor(array: Array, device: torch.device) -> torch.Tensor:
    with warnings.catch_warnings():  # arrays in the object store are read-only, and nothing writes to them
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array).to(device)


def share(
    backbone: Backbone,
    images: TrialImages,
    store_dtype: str = "float32",
    limit_bytes: float = math.inf,
    progress: Progress | None = None,
) -> tuple[SharedData, str]:
    """Compute the features of all images with the frozen network, once, if they fit the limit.

    Args:
        backbone: the frozen network.
        images: the images of the trials.
        store_dtype: float32, float16 or bfloat16.
        limit_bytes: maximum size of all features. Above it no features are stored.
        progress: called with the number of images processed so far.

    Returns: the data, and a sentence on the size of the stored features.
    """
    dtype: torch.dtype = getattr(torch, store_dtype)
    scored = {"validation": images.validation, **images.monitored}
    parts = {"fit": images.fit, "calibration": images.calibration}
    parts |= {name: labeled.images for name, labeled in scored.items()}
    needed = bytes_per_image(backbone, images.fit.shape[-1], dtype) * sum(map(len, parts.values()))
    fits = needed <= limit_bytes
    shared = {
        name: SharedImages(part, features_of(backbone, part, dtype, name, progress) if fits else None)
        for name, part in parts.items()
    }
    data = SharedData(
        fit=shared["fit"],
        foreground=foreground_of(images.fit),
        textures=images.textures,
        calibration=shared["calibration"],
        validation=_scored(shared["validation"], images.validation),
        monitored={name: _scored(shared[name], labeled) for name, labeled in images.monitored.items()},
        store_dtype=store_dtype,
    )
    size = f"{needed / 1e9:.2f} GB of {store_dtype} features"
    if fits:
        return data, f"stored {size}"
    return data, f"{size} exceed --store-limit-gb {limit_bytes / 1e9:.2f}, so trials recompute them (slower)"


def _scored(shared: SharedImages, labeled: LabeledImages) -> SharedLabeledImages:
    if labeled.masks is None:
        return SharedLabeledImages(shared, labeled.defects, None)
    targets = pixel_targets(labeled.masks)
    return SharedLabeledImages(
        shared, labeled.defects, (targets.positive.numpy(), targets.negative.numpy(), targets.region_weight.numpy())
    )


def store_limit_bytes(limit_gb: float | None, memory_bytes: float) -> float:
    """Return the maximum size of stored features in bytes: limit_gb, or half of the available memory if it is None."""
    return limit_gb * 1e9 if limit_gb is not None else memory_bytes / 2


def features_of(
    backbone: Backbone, images: Array, dtype: torch.dtype, what: str, progress: Progress | None
) -> list[Array]:
    """Return the features of (N, 3, S, S) uint8 images as integer arrays whose bytes are values of dtype."""
    maps = store_features(
        backbone, torch.from_numpy(images), dtype, progress=progress, what=f"features of {what} images"
    )
    bits = torch.int16 if dtype.itemsize == 2 else torch.int32
    return [m.cpu().view(bits).numpy() for m in maps]
