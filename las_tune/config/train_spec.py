"""TrainSpec: the settings of one training run, with its hyperparameters. It is created once and passed down.

The defaults are the reference configuration: the published hyperparameters.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, Literal

from las_tune.config.objectives import Objective
from las_tune.config.options import (
    BOTH,
    KEY,
    TRAIN,
    Check,
    above,
    at_least,
    between,
    check_options,
    inside,
    one_of,
    option,
)
from las_tune.errors import UserError, require

Foreground = Literal["otsu", "none"]
ObjectiveChoice = Literal["auto", "image_auroc", "pixel_aupro", "combined", "recall_at_fpr", "worst_defect"]
StoreDtype = Literal["float32", "float16", "bfloat16"]
HeadPrecision = Literal["float32", "tf32"]

DEVICE = Check(
    "auto, cpu, cuda, cuda:INDEX or mps",
    lambda name: re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name) is not None,
)


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """Everything that determines the results of one training run. A search space may hold the tunable options."""

    adaptor_lr: float = option(
        1e-4, "Learning rate of the feature adaptor (Adam).", "Training", TRAIN, check=above(0), tunable=True
    )
    discriminator_lr: float = option(
        2e-4, "Learning rate of the discriminator (AdamW).", "Training", TRAIN, check=above(0), tunable=True
    )
    alpha: float = option(
        1 / 3, "Probability that a mask is the intersection of two noise masks, and probability that it is their union "
        "(α of GLASS eq. 3), in [0, 1/2].",
        "Training", TRAIN, check=Check("in [0, 1/2] (α of GLASS eq. 3)", lambda value: 0 <= value <= 0.5),
        shown_default="1/3", tunable=True,
    )  # fmt: skip
    beta_mean: float = option(
        0.5, "Mean μ of β ~ N(μ, σ²), the weight of the image inside a mask (GLASS eq. 4), in [0, 1].",
        "Training", TRAIN, check=between(0, 1), tunable=True,
    )  # fmt: skip
    beta_std: float = option(
        0.1, "Standard deviation σ of β, in [0, 1].", "Training", TRAIN, check=between(0, 1), tunable=True
    )
    beta_min: float = option(0.2, "Lower clipping bound of β.", "Training", TRAIN, tunable=True)
    beta_max: float = option(0.8, "Upper clipping bound of β.", "Training", TRAIN, tunable=True)
    perlin_max_exponent: int = option(
        5, "Perlin noise has 2^k cells along an axis, with k drawn from 0 to this value, at most 7.",
        "Training", TRAIN, check=between(0, 7), tunable=True,
    )  # fmt: skip
    foreground: Foreground = option(
        "otsu", "Segmentation of the part; defects are synthesized on the foreground only.",
        "Training", TRAIN, check=one_of(Foreground), tunable=True,
    )  # fmt: skip
    focal_gamma: float = option(
        2.0, "γ of the focal loss on synthesized images, in [0, 10].",
        "Training", TRAIN, check=between(0, 10), tunable=True,
    )  # fmt: skip
    hard_share: float = option(
        0.5, "Fraction of the patches, the hardest ones, that the focal loss averages over, in (0, 1].",
        "Training", TRAIN, check=Check("in (0, 1]", lambda value: 0 < value <= 1), tunable=True,
    )  # fmt: skip
    weight_decay: float = option(
        1e-5, "Weight decay of both optimizers, in [0, 1].", "Training", TRAIN, check=between(0, 1), tunable=True
    )
    hidden_width: int = option(
        768, "Width of the discriminator's hidden layer.", "Training", TRAIN, check=at_least(1), tunable=True
    )
    use_adaptor: bool = option(
        True, "Pass features through the adaptor. Without it, --adaptor-lr has no effect.",
        "Training", TRAIN, tunable=True,
    )  # fmt: skip
    batch_size: int = option(
        8, "Normal images per step; as many synthesized images are added.",
        "Training", BOTH, check=at_least(1), tunable=True,
    )  # fmt: skip

    image_size: int = option(
        288, "Side length in pixels to which images are resized.", "Training", BOTH,
        check=between(32, 2048, " pixels"),
    )  # fmt: skip
    epochs: int = option(50, "Epochs per training run.", "Training", BOTH, check=at_least(1))
    seed: int = option(
        0, "Random seed of the data split, the search and every training run.", "Training", BOTH,
        check=between(0, 2**31 - 1),
    )  # fmt: skip
    backbone: str = option(
        "wide_resnet50_2",
        "Frozen network: efficientnet_lite0, or a convolutional network of torchvision (resnet18, ...).",
        "Training", BOTH,
    )  # fmt: skip
    backbone_weights: str = option(
        "imagenet", "Weights of the frozen network: imagenet, random, or the path of a state dict.", "Training", BOTH
    )
    objective: ObjectiveChoice = option(
        "auto", "Metric to maximize on validation images. auto: combined (mean of image_auroc and pixel_aupro) if "
        "there are masks, else image_auroc.",
        "Training", BOTH, check=one_of(ObjectiveChoice),
    )  # fmt: skip
    fpr: float = option(
        0.01, "Fraction of good calibration images above the threshold.", "Training", BOTH, check=inside(0, 1)
    )
    device: str = option("auto", "Device of a training run: auto, cpu or cuda.", "Resources", BOTH, check=DEVICE)
    store_dtype: StoreDtype = option(
        "float32", "Data type of stored features; the 16-bit types halve the memory at lower precision.",
        "Resources", BOTH, check=one_of(StoreDtype),
    )  # fmt: skip
    head_precision: HeadPrecision = option(
        "float32", "Precision of matrix products in the head on a GPU; tf32 is faster and rounds to 10 bits.",
        "Resources", BOTH, check=one_of(HeadPrecision),
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_options(self)
        require(
            0 <= self.beta_min <= self.beta_max <= 1,
            f"beta_min and beta_max must satisfy 0 <= beta_min <= beta_max <= 1, got {self.beta_min} and "
            f"{self.beta_max}",
            remedy="The defaults are 0.2 and 0.8",
        )

    def replace(self, **changes: Any) -> TrainSpec:
        """Return a copy with other values. Raises UserError for unknown names and for values that break a rule."""
        unknown = sorted(set(changes) - {each.name for each in dataclasses.fields(self)})
        if unknown:
            raise UserError(
                f"There is no hyperparameter named {', '.join(unknown)}",
                remedy=f"Choose from {', '.join(tunable_names())}",
            )
        return dataclasses.replace(self, **changes)

    @property
    def resolved_objective(self) -> Objective:
        """Return the objective, after "auto" was resolved."""
        assert self.objective != "auto", "the objective is resolved when the images are known"
        return self.objective

    def hyperparameters(self) -> dict[str, Any]:
        """Return the tunable options and their values."""
        return {name: getattr(self, name) for name in tunable_names()}


def tunable_names() -> tuple[str, ...]:
    """Return the names of the hyperparameters, which a search space may hold."""
    return tuple(each.name for each in dataclasses.fields(TrainSpec) if each.metadata[KEY].tunable)


def known_hyperparameters(params: dict[str, Any]) -> dict[str, Any] | None:
    """Return the hyperparameters of an earlier champion that this version still has; None if they are the defaults."""
    known = {name: value for name, value in params.items() if name in tunable_names()}
    return None if TrainSpec().replace(**known).hyperparameters() == TrainSpec().hyperparameters() else known
