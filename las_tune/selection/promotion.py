"""Decide whether a finalist becomes the champion: its gain must exceed the noise of images and of seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from las_tune.config import Interval, Objective, deciding_tie_break, objective_value, ranking

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Scores:
    """Scores of the R heads of one finalist, one per seed, on the same N validation images.

    defects     (N,) int, 0 = good, k = the k-th defect type; both classes are present
    image       (R, N) float, image scores
    per_image   (R, N) float, contribution of each image to AUPRO; None without masks. Only values of defective images
                are used, and their mean is the AUPRO. In a resample the false positive rate remains that of all images,
                so the result approximates the AUPRO of the resample; without resampling it is exact.
    thresholds  (R,) float or None, score above which each head rejects. They are not resampled, so the uncertainty
                from few calibration images is only reflected in the differences between seeds.
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
        """Return the objective (B,) of one head on B resamples, where image n occurs counts[b, n] times."""
        if objective == "combined":
            image, pixel = (self.objective(counts, seed, part) for part in ("image_auroc", "pixel_aupro"))
            return np.asarray((image + pixel) / 2, np.float64)
        image, labels = self.image[seed], self.labels
        if objective == "image_auroc":
            return auroc_of_counts(image, labels, counts)
        if objective == "worst_defect":  # defect types that are missing from a resample are NaN and ignored
            subsets = [~labels | (self.defects == defect) for defect in np.unique(self.defects[labels])]
            by_type = [auroc_of_counts(image[kept], labels[kept], counts[:, kept]) for kept in subsets]
            return np.asarray(np.fmin.reduce(by_type), np.float64)
        if objective == "recall_at_fpr":
            assert self.thresholds is not None
            values = (image > self.thresholds[seed]).astype(np.float64)
        else:
            assert self.per_image is not None, f"{objective} needs masks"
            values = self.per_image[seed]
        return weighted_mean(values[labels], counts[:, labels])

    def means(self, objective: Objective) -> dict[str, float]:
        """Return the objective and its tie breaks on all images without resampling, averaged over seeds."""
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
        """Return the objective (R, B) of every head on every resample."""
        return np.stack([self.objective(counts, seed, objective) for seed in range(len(self.image))])


def auroc_of_counts(scores: Floats, labels: NDArray[np.bool_], counts: Counts) -> Floats:
    """Return the AUROC (B,) of B resamples: the fraction of (defective, good) pairs in the right order, ties half.

    Args:
        scores: (N,) float, image scores.
        labels: (N,) bool, 1 = defective.
        counts: (B, N) int, number of times each image occurs. The AUROC of a row without both classes is NaN.
    """
    defective, good = scores[labels, None], scores[None, ~labels]
    wins = (defective > good) + 0.5 * (defective == good)
    num_ordered = ((counts[:, labels] @ wins) * counts[:, ~labels]).sum(1)
    pairs = (counts[:, labels].sum(1) * counts[:, ~labels].sum(1)).astype(np.float64)
    return np.asarray(np.divide(num_ordered, pairs, out=np.full_like(pairs, np.nan), where=pairs > 0), np.float64)


def weighted_mean(values: Floats, counts: Counts) -> Floats:
    """Return the mean (B,) of values (P,) float that occur counts (B, P) int times."""
    return np.asarray(counts @ values / counts.sum(1), np.float64)


def paired_bootstrap(
    a: Scores,
    b: Scores,
    objective: Objective,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    image_noise: float = 1.0,
) -> Interval:
    """Return the gain of a over b in the mean objective over seeds, with its two-sided confidence interval.

    Images are resampled within each class, with the same resamples for a and b. A class of n images is resampled to
    n - 1, because resampling n gives a variance that is too small by (n - 1) / n (Rao and Wu, JASA 1988).

    Three seeds are too few to resample (ten outcomes, variance too small by a third). Their contribution to the error
    of the gain is drawn from Student's t with Welch's degrees of freedom. It is unpaired: equal seeds of a and b share
    nothing but the number. Seeds differ partly because each misjudges different images. This part is already
    included in the resampling of images, so it is subtracted.

    Args:
        a: scores of the first finalist.
        b: scores of the second finalist on the same images.
        objective: the objective to compare.
        draws: number of bootstrap draws.
        seed: random seed of the bootstrap.
        level: confidence level.
        image_noise: factor on the deviations due to images, if the detectors were selected on these images.

    Returns: the gain and its interval, which is infinite with fewer than two seeds or two images of a class.
    """
    assert np.array_equal(a.defects, b.defects), "a and b must have the same images in the same order"
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
    """Return how often each image occurs in each resample, (draws, N)."""
    counts = np.empty((draws, len(labels)), np.int64)
    for members in (labels, ~labels):
        num = int(members.sum())
        counts[:, members] = generator.multinomial(num - 1, np.full(num, 1 / num), size=draws)
    return counts


def _seed_noise(on_whole: list[Floats], resampled: list[Floats], generator: np.random.Generator) -> Floats:
    """Draw the error (B,) of the gain due to the choice of seeds.

    Args:
        on_whole: for a and for b, (R,) float, objective of each seed on all images.
        resampled: for a and for b, (R, B) float, objective of each seed on each resample.
        generator: source of all random numbers.
    """
    num = np.array([len(values) for values in on_whole])
    variance = np.array([values.var(ddof=1) for values in on_whole]) / num
    by_images = np.array([(values - values.mean(0)).var(1).sum() for values in resampled]) / (num - 1) / num
    remaining = variance.sum() - by_images.sum()
    if remaining <= 0:
        return np.zeros_like(resampled[0][0])
    freedom = variance.sum() ** 2 / (variance**2 / (num - 1)).sum()  # Welch, Biometrika 1947
    return np.asarray(math.sqrt(remaining) * generator.standard_t(freedom, resampled[0].shape[1]), np.float64)


@dataclass(frozen=True)
class Decision:
    """The champion of a study, and the reason.

    champion              name of a finalist, "baseline", or "current" for the registered champion of an earlier study
    best                  the finalist with the highest mean objective over seeds, then by the tie breaks
    promoted              whether `best` is the champion
    gain                  gain of `best` over the baseline
    gain_over_registered  gain of `best` over the registered champion; None if there is none
    tied                  the other finalists whose difference from `best` is within the noise
    tie_break             metric that decided between finalists with equal mean objective; else empty
    reason                one sentence, also stored as a tag
    """

    champion: str
    best: str
    promoted: bool
    gain: Interval
    gain_over_registered: Interval | None
    tied: tuple[str, ...]
    reason: str
    tie_break: str = ""


def decide(
    finalists: Mapping[str, Scores],
    baseline: Scores,
    registered: Scores | None,
    objective: Objective,
    candidates: int = 0,
    draws: int = 2000,
    seed: int = 0,
) -> Decision:
    """Promote the best finalist if the 95% interval of its gain lies entirely above zero.

    The best of K finalists is selected with the same seeds and images as the comparison, so each interval has level
    1 - 0.05 / K (Bonferroni). The finalists are the best of N trials on the same images, but with other seeds. The
    noise of images is therefore multiplied by a ratio of normal quantiles, such that any of the N gains by chance in 5%
    of studies.

    Args:
        finalists: scores by name.
        baseline: scores of the baseline.
        registered: scores of the registered champion; None if there is none.
        objective: the objective to compare.
        candidates: N, the number of trials that the finalists were selected from.
        draws: number of bootstrap draws.
        seed: random seed of the bootstrap.
    """
    num = len(finalists)
    level = 1 - 0.05 / num
    image_noise = max(1.0, float(norm.ppf(1 - 0.05 / max(candidates, num)) / norm.ppf(1 - 0.025 / num)))
    assert finalists and not {"baseline", "current"} & set(finalists)
    means = {name: scores.means(objective) for name, scores in finalists.items()}
    best, *runners_up = sorted(means, key=lambda name: ranking(means[name]), reverse=True)
    tie_break = deciding_tie_break(means[best], means[runners_up[0]]) if runners_up else ""

    def gain_over(other: Scores) -> Interval:
        return paired_bootstrap(finalists[best], other, objective, draws, seed, level, image_noise)

    gain = gain_over(baseline)
    over_registered = gain_over(registered) if registered is not None else None
    behind = {name: gain_over(scores) for name, scores in finalists.items() if name != best}
    tied = tuple(name for name, interval in behind.items() if interval.low <= 0)
    promoted = gain.low > 0 and (over_registered is None or over_registered.low > 0)
    champion = best if promoted else "baseline" if over_registered is None else "current"
    reason = _reason(best, gain, over_registered)
    return Decision(champion, best, promoted, gain, over_registered, tied, reason, tie_break)


def _reason(best: str, gain: Interval, over_registered: Interval | None) -> str:
    outperforms = f"{best} outperforms the baseline by {gain}"
    if over_registered is None:
        return (
            outperforms
            if gain.low > 0
            else f"kept the baseline: the gain of the best finalist, {best}, does not exceed the noise: {gain}"
        )
    if over_registered.low <= 0:
        return f"kept the registered champion: the gain of {best} over it does not exceed the noise: {over_registered}"
    if gain.low <= 0:
        return f"kept the registered champion: the gain of {best} over the baseline does not exceed the noise: {gain}"
    return f"{outperforms} and the registered champion by {over_registered}"
