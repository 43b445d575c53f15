"""TrainSpec: one training. It is made once, checked here, and passed down.

The defaults are the seed program's values.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from las_tune.config.objectives import Objective
from las_tune.errors import UserError

Foreground = Literal["otsu", "none"]
ObjectiveChoice = Literal["auto", "image_auroc", "pixel_aupro", "combined", "recall_at_fpr", "worst_defect"]
StoreDtype = Literal["float32", "float16", "bfloat16"]
HeadPrecision = Literal["float32", "tf32"]


def require(holds: bool, rule: str, received: object, do: str = "") -> None:
    """Raise the one line that a user reads when a value breaks a rule."""
    if not holds:
        raise UserError(rule, received, do)


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """Everything that decides the numbers of one training. Fields marked tunable may stand in a search space."""

    adaptor_lr: float = field(default=1e-4, metadata={"tunable": True})
    """Learning rate of the feature adaptor (Adam)."""
    discriminator_lr: float = field(default=2e-4, metadata={"tunable": True})
    """Learning rate of the discriminator (AdamW)."""
    alpha: float = field(default=1 / 3, metadata={"tunable": True})
    """α of GLASS eq. 3: share of intersections and of unions among the masks, in [0, 1/2]."""
    beta_mean: float = field(default=0.5, metadata={"tunable": True})
    """μ of β ~ N(μ, σ²), the share of the image kept inside a mask (GLASS eq. 4), in [0, 1]."""
    beta_std: float = field(default=0.1, metadata={"tunable": True})
    """σ of β ~ N(μ, σ²), at least 0."""
    beta_min: float = field(default=0.2, metadata={"tunable": True})
    """β is clipped from below at this value (the authors' code: 0.2)."""
    beta_max: float = field(default=0.8, metadata={"tunable": True})
    """β is clipped from above at this value (the authors' code: 0.8)."""
    perlin_max_exponent: int = field(default=5, metadata={"tunable": True})
    """Perlin noise has 2^k cells along an axis, k drawn from 0..perlin_max_exponent."""
    foreground: Foreground = field(default="otsu", metadata={"tunable": True})
    """How the part is told from its background: defects are painted on the part only."""
    focal_gamma: float = field(default=2.0, metadata={"tunable": True})
    """γ of the focal loss on synthesized images, at least 0."""
    hard_share: float = field(default=0.5, metadata={"tunable": True})
    """Share of the patches, the hardest to tell, that the focal loss looks at, in (0, 1]."""
    weight_decay: float = field(default=1e-5, metadata={"tunable": True})
    """Weight decay of both optimizers, at least 0."""
    hidden_width: int = field(default=768, metadata={"tunable": True})
    """Width of the discriminator's hidden layer."""
    use_adaptor: bool = field(default=True, metadata={"tunable": True})
    """Whether features pass the adaptor; without one, adaptor_lr has no effect."""
    batch_size: int = field(default=8, metadata={"tunable": True})
    """Normal images a step; as many synthesized ones go with them."""

    image_size: int = 288
    """Side of the square to which images are resized, in pixels."""
    epochs: int = 50
    seed: int = 0
    backbone: str = "wide_resnet50_2"
    backbone_weights: str = "imagenet"
    """imagenet, random, or the path of a state dict."""
    objective: ObjectiveChoice = "auto"
    """What the best epoch is chosen by, on validation images; auto is combined with masks, image_auroc without."""
    fpr: float = 0.01
    """Share of good calibration images that the threshold rejects, in (0, 1)."""
    device: str = "auto"
    store_dtype: StoreDtype = "float32"
    """What stored features are kept in: the half types take half the memory and round to 3 or 2 digits."""
    head_precision: HeadPrecision = "float32"
    """How a GPU multiplies the head's matrices; tf32 is faster and rounds factors to 10 bits."""

    def __post_init__(self) -> None:
        for name in ("adaptor_lr", "discriminator_lr"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"{name} must be above 0", value, "the seed's values are 1e-4 and 2e-4")
        require(
            0 <= self.alpha <= 0.5,
            "alpha must lie in [0, 1/2] (GLASS eq. 3)",
            self.alpha,
            "the seed's value is 1/3",
        )
        require(
            0 <= self.beta_mean <= 1,
            "beta_mean must lie in [0, 1]",
            self.beta_mean,
            "the seed's value is 0.5",
        )
        require(0 <= self.beta_std <= 1, "beta_std must lie in [0, 1]", self.beta_std, "the seed's value is 0.1")
        require(
            0 <= self.beta_min <= self.beta_max <= 1,
            "beta_min and beta_max must satisfy 0 <= beta_min <= beta_max <= 1",
            (self.beta_min, self.beta_max),
        )
        require(
            0 <= self.perlin_max_exponent <= 7,
            "perlin_max_exponent must lie in 0..7",
            self.perlin_max_exponent,
        )
        require(self.foreground in get_args(Foreground), "foreground must be otsu or none", repr(self.foreground))
        require(0 <= self.focal_gamma <= 10, "focal_gamma must lie in [0, 10]", self.focal_gamma)
        require(0 < self.hard_share <= 1, "hard_share must lie in (0, 1]", self.hard_share)
        require(0 <= self.weight_decay <= 1, "weight_decay must lie in [0, 1]", self.weight_decay)
        require(self.hidden_width >= 1, "hidden_width must be at least 1", self.hidden_width)
        require(32 <= self.image_size <= 2048, "--image-size must lie in 32..2048 pixels", self.image_size)
        require(self.batch_size >= 1, "--batch-size must be at least 1", self.batch_size)
        require(self.epochs >= 1, "--epochs must be at least 1", self.epochs)
        require(
            self.objective in get_args(ObjectiveChoice),
            f"--objective must be one of {', '.join(get_args(ObjectiveChoice))}",
            repr(self.objective),
        )
        require(0 < self.fpr < 1, "--fpr must lie between 0 and 1, both excluded", self.fpr, "the usual value is 0.01")
        require(
            self.store_dtype in get_args(StoreDtype),
            "--store-dtype must be float32, float16 or bfloat16",
            repr(self.store_dtype),
        )
        require(
            self.head_precision in get_args(HeadPrecision),
            "--head-precision must be float32 or tf32",
            repr(self.head_precision),
        )
        require(0 <= self.seed < 2**31, "--seed must lie in 0..2147483647", self.seed)

    def replace(self, **changes: Any) -> TrainSpec:
        """A copy with other values, checked again; unknown names are errors that list the known ones."""
        unknown = sorted(set(changes) - {f.name for f in dataclasses.fields(self)})
        if unknown:
            raise UserError(
                "Every hyperparameter must be known",
                ", ".join(unknown),
                f"known: {', '.join(tunable_names())}",
            )
        return dataclasses.replace(self, **changes)

    @property
    def resolved_objective(self) -> Objective:
        """The objective, once auto is settled."""
        assert self.objective != "auto", "the objective is resolved when the images are known"
        return self.objective

    def hyperparameters(self) -> dict[str, Any]:
        """The tunable fields and their values."""
        return {name: getattr(self, name) for name in tunable_names()}


def tunable_names() -> tuple[str, ...]:
    """Names of the TrainSpec fields that a search space may hold."""
    return tuple(f.name for f in dataclasses.fields(TrainSpec) if f.metadata.get("tunable"))


def known_hyperparameters(params: dict[str, Any]) -> dict[str, Any] | None:
    """Those of an earlier study's champion that this version still has; None where it is the baseline."""
    known = {name: value for name, value in params.items() if name in tunable_names()}
    return None if TrainSpec().replace(**known).hyperparameters() == TrainSpec().hyperparameters() else known
