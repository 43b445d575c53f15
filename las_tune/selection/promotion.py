"""Which finalist becomes the champion: one whose gain lies beyond the noise of images and of seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from las_tune.config.objectives import Objective, broken_by, objective_value, ranking

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Scores:
    """The heads of one finalist, one a seed, on the same validation images.

    defects      (N,) int, 0 = good, k = the k-th kind of defect; both good and defective present
    image        (R, N) float, score of every image by the head of every seed
    per_image  (R, N) float or None without masks; only defective images count. Any number whose mean over the
                 defective images is the AUPRO: the sum of the areas of an image's regions, times defective
                 images / regions. The false positive rate stays that of all images when they are resampled;
                 this approximates the AUPRO of a resample, and is exact on the images themselves.
    thresholds   (R,) float or None: score above which each seed's head rejects. They stay in a resample: what the
                 few calibration images leave open shows in the differences between seeds only
    """

    defects: NDArray[Any]
    image: Floats
    per_image: Floats | None = None
    thresholds: Floats | None = None

    def __post_init__(self) -> None:
        assert self.labels.any() and not self.labels.all(), "both good and defective images"
        assert self.image.shape[1:] == self.labels.shape
        assert self.per_image is None or self.per_image.shape == self.image.shape

    @property
    def labels(self) -> NDArray[np.bool_]:
        """(N,) bool, 1 = defective."""
        return np.asarray(self.defects) > 0

    def objective(self, counts: Counts, seed: int, objective: Objective) -> Floats:
        """The objective (B,) of one seed's head where image n occurs counts[b, n] times; counts (B, N) int."""
        if objective == "combined":
            image, pixel = (self.objective(counts, seed, one) for one in ("image_auroc", "pixel_aupro"))
            return np.asarray((image + pixel) / 2, np.float64)
        image, labels = self.image[seed], self.labels
        if objective == "image_auroc":
            return auroc_of_counts(image, labels, counts)
        if objective == "worst_defect":  # a kind that does not occur in a resample tells nothing in it
            kinds = [~labels | (self.defects == kind) for kind in np.unique(self.defects[labels])]
            by_kind = [auroc_of_counts(image[kept], labels[kept], counts[:, kept]) for kept in kinds]
            return np.asarray(np.fmin.reduce(by_kind), np.float64)
        if objective == "recall_at_fpr":
            assert self.thresholds is not None
            values = (image > self.thresholds[seed]).astype(np.float64)
        else:
            assert self.per_image is not None, f"{objective} needs masks: the spec is resolved before"
            values = self.per_image[seed]
        return weighted_mean(values[labels], counts[:, labels])

    def means(self, objective: Objective) -> dict[str, float]:
        """The objective and its tie breaks on the images as they are, means over seeds."""
        whole = np.ones((1, len(self.defects)), np.int64)
        metrics = {
            "image_auroc": self.by_seed(whole, "image_auroc"),
            "worst_defect": self.by_seed(whole, "worst_defect"),
        }
        if self.per_image is not None:
            metrics["pixel_aupro"] = self.by_seed(whole, "pixel_aupro")
        if self.thresholds is not None:
            metrics["recall"] = self.by_seed(whole, "recall_at_fpr")
        means = {name: float(values.mean()) for name, values in metrics.items()}
        return {"objective": objective_value(objective, means)} | means

    def by_seed(self, counts: Counts, objective: Objective) -> Floats:
        """The objective (R, B) of every seed's head."""
        return np.stack([self.objective(counts, seed, objective) for seed in range(len(self.image))])


def auroc_of_counts(scores: Floats, labels: NDArray[np.bool_], counts: Counts) -> Floats:
    """AUROC (B,) of multisets of images: the share of pairs (defective, good) in the right order, ties count half.

    scores (N,) float; labels (N,) bool; counts (B, N) int; NaN for a row without both kinds.
    """
    defective, good = scores[labels, None], scores[None, ~labels]
    wins = (defective > good) + 0.5 * (defective == good)
    won = ((counts[:, labels] @ wins) * counts[:, ~labels]).sum(1)
    pairs = (counts[:, labels].sum(1) * counts[:, ~labels].sum(1)).astype(np.float64)
    return np.asarray(np.divide(won, pairs, out=np.full_like(pairs, np.nan), where=pairs > 0), np.float64)


def weighted_mean(values: Floats, counts: Counts) -> Floats:
    """Mean (B,) of values (P,) float, each of which occurs counts (B, P) times."""
    return np.asarray(counts @ values / counts.sum(1), np.float64)


@dataclass(frozen=True)
class Interval:
    """A gain in the objective and the ends of its interval; as text for reasons, where all hold at once at 95%."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} (95% interval {self.low:.3f} to {self.high:.3f})"


def paired_bootstrap(
    a: Scores,
    b: Scores,
    objective: Objective,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    image_noise: float = 1.0,
) -> Interval:
    """The gain of a over b in the objective's mean over seeds, with its two-sided interval.

    Images: resampled within good and within defective, the same ones for a and b. A class of n gives n - 1, for
    with n the variance comes out (n - 1) / n too small (Rao and Wu, JASA 1988).
    Seeds: three are too few to resample (ten outcomes, variance a third too small). Their error in the gain is drawn
    from Student's t with Welch's degrees of freedom instead, unpaired, for seed r of both shares but the number. Seeds
    differ in part because each errs on images of its own; the resample of images holds that part: it is taken off.
    image_noise: what the deviations by images are multiplied by, where the detectors were chosen on these images.
    Without two seeds and two images of each class nothing is known of the noise: the interval is infinite.
    """
    assert np.array_equal(a.defects, b.defects), "the same images in the same order"
    labels = a.labels
    whole = np.ones((1, len(labels)), np.int64)
    on_whole = [scores.by_seed(whole, objective)[:, 0] for scores in (a, b)]
    gain = float(on_whole[0].mean() - on_whole[1].mean())
    if min(len(a.image), len(b.image), labels.sum(), (~labels).sum()) < 2:
        return Interval(gain, -math.inf, math.inf)
    generator = np.random.default_rng(seed)
    counts = _resample(labels, draws, generator)
    resampled = [scores.by_seed(counts, objective) for scores in (a, b)]
    gains = gain + image_noise * (resampled[0].mean(0) - resampled[1].mean(0) - gain)
    gains += _seed_noise(on_whole, resampled, generator)
    low, high = np.quantile(gains, [(1 - level) / 2, (1 + level) / 2])
    return Interval(gain, float(low), float(high))


def _resample(labels: NDArray[np.bool_], draws: int, generator: np.random.Generator) -> Counts:
    """How often each image occurs, (draws, N)."""
    counts = np.empty((draws, len(labels)), np.int64)
    for members in (labels, ~labels):
        num = int(members.sum())
        counts[:, members] = generator.multinomial(num - 1, np.full(num, 1 / num), size=draws)
    return counts


def _seed_noise(on_whole: list[Floats], resampled: list[Floats], generator: np.random.Generator) -> Floats:
    """Draws (B,) of the error that the choice of seeds makes in the gain.

    on_whole   of a and of b, (R,) float: each seed's objective on the images
    resampled  of a and of b, (R, B) float: the same on each resample of them
    """
    num = np.array([len(values) for values in on_whole])
    variance = np.array([values.var(ddof=1) for values in on_whole]) / num
    own = np.array([(values - values.mean(0)).var(1).sum() for values in resampled]) / (num - 1) / num
    remaining = variance.sum() - own.sum()
    if remaining <= 0:
        return np.zeros_like(resampled[0][0])
    freedom = variance.sum() ** 2 / (variance**2 / (num - 1)).sum()  # Welch, Biometrika 1947
    return np.asarray(math.sqrt(remaining) * generator.standard_t(freedom, resampled[0].shape[1]), np.float64)


@dataclass(frozen=True)
class Decision:
    """Who becomes the champion, and why.

    champion           what the alias champion belongs to: a finalist's name, "baseline", or "current" (unchanged)
    best               the finalist of the greatest mean objective over seeds; of equals by the tie breaks
    promoted           whether best became the champion
    gain               of best over the baseline
    gain_over_current  of best over the champion of an earlier study
    tied               the other finalists whose difference from best lies within the noise
    tie_break          the metric by which best is ahead of one with the very same mean objective; else empty
    reason             one sentence, for a tag
    """

    champion: str
    best: str
    promoted: bool
    gain: Interval
    gain_over_current: Interval | None
    tied: tuple[str, ...]
    reason: str
    tie_break: str = ""


def decide(
    finalists: Mapping[str, Scores],
    baseline: Scores,
    current: Scores | None,
    objective: Objective,
    candidates: int = 0,
    draws: int = 2000,
    seed: int = 0,
) -> Decision:
    """Promote the best finalist if the whole 95% interval of its gain lies above zero.

    The best of K finalists is picked by the seeds and images that then judge it, so each interval holds at
    1 - 0.05 / K (Bonferroni). They are the best of N trials on the same images, but by other seeds: the noise of
    images is widened, by the ratio of the normal quantiles, to where any of the N gains by luck in 5% of studies.

    candidates: N; at least as many as there are finalists.
    """
    num = len(finalists)
    level = 1 - 0.05 / num
    image_noise = max(1.0, float(norm.ppf(1 - 0.05 / max(candidates, num)) / norm.ppf(1 - 0.025 / num)))
    assert finalists and not {"baseline", "current"} & set(finalists)
    means = {name: scores.means(objective) for name, scores in finalists.items()}
    best, *others = sorted(means, key=lambda name: ranking(means[name]), reverse=True)
    tie_break = broken_by(means[best], means[others[0]]) if others else ""

    def gain_over(other: Scores) -> Interval:
        return paired_bootstrap(finalists[best], other, objective, draws, seed, level, image_noise)

    gain = gain_over(baseline)
    over_current = gain_over(current) if current is not None else None
    behind = {name: gain_over(scores) for name, scores in finalists.items() if name != best}
    tied = tuple(name for name, interval in behind.items() if interval.low <= 0)
    promoted = gain.low > 0 and (over_current is None or over_current.low > 0)
    champion = best if promoted else "baseline" if over_current is None else "current"
    return Decision(champion, best, promoted, gain, over_current, tied, _reason(best, gain, over_current), tie_break)


def _reason(best: str, gain: Interval, over_current: Interval | None) -> str:
    beaten = f"{best} beats the baseline by {gain}"
    if over_current is None:
        return (
            beaten
            if gain.low > 0
            else f"kept the baseline: no finalist beats it, {best}'s gain, {gain}, does not exceed the noise"
        )
    if over_current.low <= 0:
        return f"kept the earlier champion: {best}'s gain over it, {over_current}, does not exceed the noise"
    if gain.low <= 0:
        return f"kept the earlier champion: {best}'s gain over the baseline, {gain}, does not exceed the noise"
    return f"{beaten} and the earlier champion by {over_current}"
