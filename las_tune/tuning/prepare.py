"""From a category on disk to what trials share: pictures decoded once, frozen features computed once."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from las_tune.data.category import GOOD, index_category
from las_tune.data.pictures import Decoded, decode_masks, decode_pictures
from las_tune.data.split import Split, split_category
from las_tune.data.textures import Textures, load_textures
from las_tune.errors import DataError, UserError
from las_tune.las.backbone import Backbone
from las_tune.las.features import FeatureStore, bytes_per_picture, store_features
from las_tune.las.masks import otsu_foreground
from las_tune.las.metrics import PixelTargets, pixel_targets
from las_tune.las.train import Scored, TrainData
from las_tune.spec import TrainSpec

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""
Array = NDArray[Any]


@dataclass(frozen=True)
class Labelled:
    """Decoded pictures with labels.

    pictures  (N, 3, S, S) uint8 RGB
    labels    (N,) bool, 1 = defective
    masks     (N, S, S) bool, 1 = defective pixel; None where masks are missing
    """

    pictures: Array
    labels: Array
    masks: Array | None


@dataclass(frozen=True)
class StudyPictures:
    """All pictures of a study, on the driver. Only fit, validation and textures ever leave it before promotion."""

    split: Split
    fit: Array
    calibration: Array
    validation: Labelled
    sealed_test: Labelled
    textures: Array
    skipped: tuple[str, ...]
    """One line for each broken file that was left out."""
    masks_missing: int
    """Defective pictures without a mask; above 0, pixel metrics are left out."""

    @property
    def threshold_pictures(self) -> Array:
        """Good pictures that set the threshold: calibration, or fit where a category is too small to have any."""
        return self.calibration if len(self.calibration) else self.fit


@dataclass(frozen=True)
class SharedData:
    """What every trial of a study sees, as numpy arrays: Ray's object store shares them without a copy.

    Maps are stored features, finest first, as bytes of store_dtype (numpy has no bfloat16); None where they were
    above the limit and trials compute them again.
    """

    pictures: Array
    foreground: Array
    textures: Array
    fit_maps: list[Array] | None
    validation_pictures: Array
    validation_maps: list[Array] | None
    validation_labels: Array
    targets: tuple[Array, Array, Array] | None
    store_dtype: str

    def to_device(self, backbone: Backbone) -> TrainData:
        """The same as tensors, where the backbone is."""
        device = backbone.mean.device

        def tensor(array: Array) -> torch.Tensor:
            with warnings.catch_warnings():  # the store is read-only, and nothing here writes to it
                warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
                return torch.from_numpy(array).to(device)

        def features(pictures: Array, maps: list[Array] | None) -> FeatureStore:
            dtype = getattr(torch, self.store_dtype)
            stored = [tensor(m).view(dtype) for m in maps] if maps is not None else None
            return FeatureStore(tensor(pictures), stored, backbone)

        targets = PixelTargets(*map(tensor, self.targets)) if self.targets else None
        return TrainData(
            features=features(self.pictures, self.fit_maps),
            foreground=tensor(self.foreground),
            textures=tensor(self.textures),
            validation=Scored(
                features(self.validation_pictures, self.validation_maps), tensor(self.validation_labels), targets
            ),
        )


def load_pictures(
    data_root: Path,
    category_name: str,
    textures_folder: Path,
    spec: TrainSpec,
    skip_broken: bool = False,
    progress: Progress | None = None,
    holdout: float = 0.5,
) -> StudyPictures:
    """Index, split and decode a category and its textures. Raises DataError with one line for what is wrong."""

    def report(what: str) -> Callable[[int, int], None] | None:
        return (lambda done, total: progress(what, done, total)) if progress else None

    category = index_category(data_root, category_name)
    split = split_category(category, spec.seed, holdout)
    size = spec.image_size

    def decode(what: str, pictures: Any) -> Decoded:
        return decode_pictures(pictures, size, skip_broken, report(f"reading {what} pictures"))

    good = decode("good", (*split.fit, *split.calibration))  # in this order
    num_fit = len(set(split.fit) & set(good.kept))
    if not num_fit:
        raise DataError(
            "At least one fit picture must be readable", f"{len(split.fit)} broken ones", "replace the files"
        )
    validation, sealed = decode("validation", split.validation), decode("sealed test", split.sealed_test)
    textures: Textures = load_textures(
        textures_folder, size, spec.seed, skip_broken=skip_broken, progress=report("reading textures")
    )
    return StudyPictures(
        split=split,
        fit=good.pictures[:num_fit],
        calibration=good.pictures[num_fit:],
        validation=_labelled(validation, size, category.has_masks),
        sealed_test=_labelled(sealed, size, category.has_masks),
        textures=textures.pictures,
        skipped=sum((d.skipped for d in (good, validation, sealed, textures)), ()),
        masks_missing=category.masks_missing,
    )


def _labelled(decoded: Decoded, size: int, has_masks: bool) -> Labelled:
    labels = np.array([picture.defect != GOOD for picture in decoded.kept])
    if labels.all() or not labels.any():
        raise UserError(
            "Validation and sealed test each need a good and a defective picture",
            f"{int((~labels).sum())} good and {int(labels.sum())} defective after broken files were left out",
            "repair the broken files",
        )
    return Labelled(decoded.pictures, labels, decode_masks(decoded.kept, size) if has_masks else None)


def resolve_objective(spec: TrainSpec, has_masks: bool) -> TrainSpec:
    """Settle auto (combined with masks, image_auroc without); an objective that masks are missing for is an error."""
    if spec.objective == "auto":
        return spec.replace(objective="combined" if has_masks else "image_auroc")
    if spec.objective != "image_auroc" and not has_masks:
        raise UserError(
            "--objective pixel_aupro and combined need a mask for every defective picture",
            f"{spec.objective} with masks missing",
            "use --objective image_auroc, or add the masks (python -m las_tune data check names them)",
        )
    return spec


def share(
    backbone: Backbone,
    fit: Array,
    validation: Labelled,
    textures: Array,
    store_dtype: str = "float32",
    limit_bytes: float = math.inf,
    progress: Progress | None = None,
) -> tuple[SharedData, str]:
    """Pass every picture that is not synthesised through the frozen network, once, where the features fit the limit.

    Returns: the data, and a sentence on what was stored.
    """
    dtype: torch.dtype = getattr(torch, store_dtype)
    needed = bytes_per_picture(backbone, fit.shape[-1], dtype) * (len(fit) + len(validation.pictures))
    fits = needed <= limit_bytes
    targets = pixel_targets(validation.masks) if validation.masks is not None else None

    def maps(pictures: Array, what: str) -> list[Array] | None:
        return features_of(backbone, pictures, dtype, f"features of {what} pictures", progress) if fits else None

    data = SharedData(
        pictures=fit,
        foreground=foreground_of(fit),
        textures=textures,
        fit_maps=maps(fit, "fit"),
        validation_pictures=validation.pictures,
        validation_maps=maps(validation.pictures, "validation"),
        validation_labels=validation.labels,
        targets=(targets.positive.numpy(), targets.negative.numpy(), targets.region_weight.numpy())
        if targets
        else None,
        store_dtype=store_dtype,
    )
    size = f"{needed / 1e9:.2f} GB of {store_dtype} features"
    if fits:
        return data, f"stored {size}"
    return data, f"{size} are above --store-limit-gb {limit_bytes / 1e9:.2f}: trials compute them again (slower)"


def store_limit_bytes(limit_gb: float | None, memory_bytes: float) -> float:
    """What stored features may take: as the user says, else half of the memory that there is."""
    return limit_gb * 1e9 if limit_gb is not None else memory_bytes / 2


def foreground_of(pictures: Array, batch_size: int = 16) -> Array:
    """Otsu foreground of (N, 3, S, S) uint8 pictures: (N, 1, S, S) bool."""
    batches = torch.split(torch.from_numpy(pictures), batch_size)
    return torch.cat([otsu_foreground(batch) for batch in batches]).numpy()


def features_of(
    backbone: Backbone, pictures: Array, dtype: torch.dtype, what: str, progress: Progress | None
) -> list[Array]:
    """Stored features of (N, 3, S, S) uint8 pictures, as arrays of 16 or 32 bits whose bytes are of dtype."""
    report = (lambda done, total: progress(what, done, total)) if progress else None
    maps = store_features(backbone, torch.from_numpy(pictures), dtype, progress=report)
    bits = torch.int16 if dtype.itemsize == 2 else torch.int32
    return [m.cpu().view(bits).numpy() for m in maps]
