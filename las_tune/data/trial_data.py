"""What trials share: images and frozen features, computed once, as arrays that Ray shares without a copy."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch

from las_tune.data.study_images import Array, LabeledImages, Progress, TrialImages, foreground_of
from las_tune.las.backbone import Backbone
from las_tune.las.features import FeatureStore, bytes_per_image, store_features
from las_tune.las.metrics import PixelTargets, pixel_targets
from las_tune.las.scored_images import Scored
from las_tune.las.training import TrainData


@dataclass(frozen=True)
class SharedImages:
    """Images and their stored features.

    images  (N, 3, S, S) uint8 RGB
    maps      finest first, as bytes of store_dtype (numpy has no bfloat16); None where all of them together were
              above the limit, and trials compute them again
    """

    images: Array
    maps: list[Array] | None

    def to_device(self, backbone: Backbone, dtype: torch.dtype) -> FeatureStore:
        """The same as tensors, where the backbone is."""
        device = backbone.mean.device
        stored = [_tensor(m, device).view(dtype) for m in self.maps] if self.maps is not None else None
        return FeatureStore(_tensor(self.images, device), stored, backbone)


@dataclass(frozen=True)
class SharedScored:
    """Images to be scored: their features, kinds of defects (N,) int64, and the fields of PixelTargets."""

    features: SharedImages
    defects: Array
    targets: tuple[Array, Array, Array] | None

    def to_device(self, backbone: Backbone, dtype: torch.dtype) -> Scored:
        """The same as tensors, where the backbone is."""
        device = backbone.mean.device
        targets = PixelTargets(*(_tensor(t, device) for t in self.targets)) if self.targets else None
        return Scored(self.features.to_device(backbone, dtype), _tensor(self.defects, device), targets)


@dataclass(frozen=True)
class SharedData:
    """What every trial of a study sees, see TrainData, as numpy arrays."""

    fit: SharedImages
    foreground: Array
    textures: Array
    calibration: SharedImages
    validation: SharedScored
    watched: dict[str, SharedScored]
    store_dtype: str

    def to_device(self, backbone: Backbone) -> TrainData:
        """The same as tensors, where the backbone is."""
        device, dtype = backbone.mean.device, getattr(torch, self.store_dtype)
        return TrainData(
            features=self.fit.to_device(backbone, dtype),
            foreground=_tensor(self.foreground, device),
            textures=_tensor(self.textures, device),
            calibration=self.calibration.to_device(backbone, dtype),
            validation=self.validation.to_device(backbone, dtype),
            watched={name: scored.to_device(backbone, dtype) for name, scored in self.watched.items()},
        )


def _tensor(array: Array, device: torch.device) -> torch.Tensor:
    with warnings.catch_warnings():  # the store is read-only, and nothing here writes to it
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array).to(device)


def share(
    backbone: Backbone,
    images: TrialImages,
    store_dtype: str = "float32",
    limit_bytes: float = math.inf,
    progress: Progress | None = None,
) -> tuple[SharedData, str]:
    """Pass every image that is not synthesized through the frozen network, once, where the features fit the limit.

    Returns: the data, and a sentence on what was stored.
    """
    dtype: torch.dtype = getattr(torch, store_dtype)
    scored = {"validation": images.validation, **images.watched}
    parts = {"fit": images.fit, "calibration": images.calibration}
    parts |= {name: labelled.images for name, labelled in scored.items()}
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
        watched={name: _scored(shared[name], labelled) for name, labelled in images.watched.items()},
        store_dtype=store_dtype,
    )
    size = f"{needed / 1e9:.2f} GB of {store_dtype} features"
    if fits:
        return data, f"stored {size}"
    return data, f"{size} are above --store-limit-gb {limit_bytes / 1e9:.2f}: trials compute them again (slower)"


def _scored(shared: SharedImages, labelled: LabeledImages) -> SharedScored:
    if labelled.masks is None:
        return SharedScored(shared, labelled.defects, None)
    targets = pixel_targets(labelled.masks)
    return SharedScored(
        shared, labelled.defects, (targets.positive.numpy(), targets.negative.numpy(), targets.region_weight.numpy())
    )


def store_limit_bytes(limit_gb: float | None, memory_bytes: float) -> float:
    """What stored features may take: as the user says, else half of the memory that there is."""
    return limit_gb * 1e9 if limit_gb is not None else memory_bytes / 2


def features_of(
    backbone: Backbone, images: Array, dtype: torch.dtype, what: str, progress: Progress | None
) -> list[Array]:
    """Stored features of (N, 3, S, S) uint8 images, as arrays of 16 or 32 bits whose bytes are of dtype."""
    report = (lambda done, total: progress(f"features of {what} images", done, total)) if progress else None
    maps = store_features(backbone, torch.from_numpy(images), dtype, progress=report)
    bits = torch.int16 if dtype.itemsize == 2 else torch.int32
    return [m.cpu().view(bits).numpy() for m in maps]
