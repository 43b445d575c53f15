"""What a simulated trial reports: learned from recorded trials, or an analytic function to check against.

Recorded: the log-odds of the objective, all epochs at once, follow a Gaussian process of the knobs (each scaled to
[0, 1], learning rates by their logarithm). The noise of a trial is a whole leave-one-out residual curve of a recorded
trial that was predicted to end near it, so noise keeps its correlation over the epochs and its size at this level. Each
recorded trial has one seed, so what the process cannot explain counts as noise too: a standard deviation of some 0.45
in the log-odds of the best objective, where 22 repeats of six of the trials gave 0.32 (95%: 0.24 to 0.49). Without the
trial itself, 57% of the variance of its best objective is explained; the rank correlation is 0.82.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import qmc, spearmanr
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from las_tune.space.knobs import Range
from las_tune.space.search_space import Space, load_space

Floats = NDArray[np.float64]
Params = Mapping[str, Any]
FILE = Path(__file__).with_name("recorded_trials.json")
DENSE_POINTS = 4096
NOISE_CURVES = 81
"""A trial's noise is one of that many residual curves: a third of the record."""


class Landscape(Protocol):
    """What a search moves over. Curves hold the objective by epoch, and truths are of its best so far at the end."""

    space: Space
    num_epochs: int

    def draw(self, params: Params, rng: np.random.Generator) -> Floats:
        """One training's curve, (num_epochs,)."""

    def truths(self, params: Sequence[Params]) -> Floats:
        """The means over seeds of the best objective of a whole training."""


def unit(space: Space, params: Params) -> list[float]:
    """Knobs in [0, 1], by their order in the space."""
    values = []
    for name, knob in space.knobs.items():
        assert isinstance(knob, Range), "a surrogate knows ranges only"
        low, high, value = (np.log(v) if knob.log else v for v in (knob.low, knob.high, params[name]))
        values.append((value - low) / (high - low))
    return values


def from_unit(space: Space, point: Sequence[float]) -> dict[str, float]:
    """Knobs from [0, 1]."""
    params = {}
    for (name, knob), share in zip(space.knobs.items(), point, strict=True):
        assert isinstance(knob, Range), "a surrogate knows ranges only"
        low, high = (np.log(knob.low), np.log(knob.high)) if knob.log else (knob.low, knob.high)
        value = low + share * (high - low)
        params[name] = float(np.exp(value) if knob.log else value)
    return params


def dense_sample(space: Space, number: int = DENSE_POINTS) -> list[dict[str, float]]:
    """The same points spread evenly over the space, always."""
    points = qmc.Sobol(len(space.knobs), seed=0).random(number)
    return [from_unit(space, point) for point in points]


class Recorded:
    """The surrogate of a file of recorded trials."""

    def __init__(self, file: Path = FILE) -> None:
        record = json.loads(file.read_text())
        self.space = load_space(record["space"])
        self.num_epochs: int = record["epochs"]
        self.num_trials = len(record["trials"])
        self._points = np.array([unit(self.space, trial["params"]) for trial in record["trials"]])
        curves = np.array([trial["objective"] for trial in record["trials"]])
        log_odds = logit(curves.clip(1e-3, 1 - 1e-3))
        self._observed = curves.max(1)
        self._mean, self._scale = log_odds.mean(0), log_odds.std(0)
        scaled = (log_odds - self._mean) / self._scale
        kernel = ConstantKernel() * Matern([0.5] * len(self.space.knobs), (0.05, 20), nu=2.5) + WhiteKernel(0.3)
        self._process = GaussianProcessRegressor(kernel)
        with warnings.catch_warnings(action="ignore"):  # a knob that does not matter has its length at the bound
            self._process.fit(self._points, scaled)
        inverse = np.linalg.inv(self._process.kernel_(self._points))
        left_out = inverse @ scaled / np.diag(inverse)[:, None]  # Rasmussen and Williams 2006, eq. 5.12
        self._residuals = left_out * self._scale
        self._predicted = log_odds - self._residuals

    def draw(self, params: Params, rng: np.random.Generator) -> Floats:
        mean, noise = self._mean_and_noise([params])
        curve: Floats = expit(mean[0] + noise[0, rng.integers(noise.shape[1])])
        return curve

    def truths(self, params: Sequence[Params]) -> Floats:
        mean, noise = self._mean_and_noise(params)
        truths: Floats = expit((mean[:, None] + noise).max(-1)).mean(1)
        return truths

    def _mean_and_noise(self, params: Sequence[Params]) -> tuple[Floats, Floats]:
        """Log-odds (N, epochs), and what is added to them by chance, (N, NOISE_CURVES, epochs)."""
        points = np.array([unit(self.space, each) for each in params])
        mean = self._process.predict(points) * self._scale + self._mean
        distance = np.abs(mean[:, -1:] - self._predicted[:, -1])
        return mean, self._residuals[np.argsort(distance, 1)[:, :NOISE_CURVES]]

    @cached_property
    def fit(self) -> dict[str, float]:
        """How well a trial's best objective is predicted without the trial: R² of it and of its log-odds, and ranks.

        The lengths of the process are those of all trials.
        """
        predicted = self._predicted.max(1)
        errors = {"r2": (self._observed, expit(predicted)), "r2_log_odds": (logit(self._observed), predicted)}
        scores = {name: float(1 - ((y - p) ** 2).mean() / y.var()) for name, (y, p) in errors.items()}
        return scores | {"rank_correlation": float(spearmanr(self._observed, predicted)[0])}


class Bowl:
    """An analytic landscape: a round optimum off the middle, and trials that start slower the better they end.

    The log-odds rise towards their ceiling as 1 - 2^(-epoch / half-life); noise is one draw a training plus one an
    epoch. It shares nothing with the recorded trials but the space.
    """

    num_epochs = 9
    optimum = (0.7, 0.35, 0.6, 0.25, 0.5)
    training_noise, epoch_noise = 0.25, 0.15

    def __init__(self) -> None:
        self.space = load_space("default")

    def draw(self, params: Params, rng: np.random.Generator) -> Floats:
        noise = self.training_noise * rng.standard_normal() + self.epoch_noise * rng.standard_normal(self.num_epochs)
        curve: Floats = expit(self._means([params])[0] + noise)
        return curve

    def truths(self, params: Sequence[Params]) -> Floats:
        rng = np.random.default_rng(0)
        noise = self.epoch_noise * rng.standard_normal((256, self.num_epochs))
        noise += self.training_noise * rng.standard_normal((256, 1))
        truths: Floats = expit((self._means(params)[:, None] + noise).max(-1)).mean(1)
        return truths

    def _means(self, params: Sequence[Params]) -> Floats:
        """Log-odds, (N, epochs)."""
        points = np.array([unit(self.space, each) for each in params])
        distance = ((points - self.optimum) ** 2).sum(1, keepdims=True)
        ceiling, half_life = 3 - 5 * distance, 2.5 - 2 * distance.clip(max=0.75)
        means: Floats = (ceiling + 1) * (1 - 2 ** (-np.arange(1, self.num_epochs + 1) / half_life)) - 1
        return means
