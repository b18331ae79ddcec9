"""Paired differences of two levels: intervals over seeds, over images, and over both; corrections; power.

The difference d[s, i] of two levels has, for seed s and image i, an effect of the seed, an effect of the image, and an
effect of both together: ``d = D + a_s + b_i + e_si``. Every seed is scored on the same images, so

    Var(mean d) = var(a) / S  +  var(b) / I  +  var(e) / (S I)

and three intervals answer three questions:

* over seeds: would the difference be there with other seeds, *scored on these images*? Student's t of the S
  differences, ``t = mean / sqrt(s^2 / S)``; s^2 estimates var(a) + var(e) / I.
* over images: would it be there on other images, *with these trained weights*? Bootstrap over images of the mean over
  seeds (:mod:`detector.evaluation.intervals`); its variance is var(b) / I + var(e) / (S I).
* over both: would it be there with other seeds *and* other images? The sum of the three terms. Adding the variances of
  the first two would count var(e) twice; the bootstraps of single seeds tell it apart. The degrees of freedom are
  Satterthwaite's. (The two-way random-effects model behind Owen's pigeonhole bootstrap, Annals of Applied Statistics 1,
  2007; resampling three to five seeds itself gives intervals that are far too short, which t quantiles repair.)

All are equal-tailed at level 0.95. Simulated with 40 images and three to ten seeds, the third covers 0.935 to 0.96 for
any mixture of the variances (tests/detector/ablation/test_paired_differences.py); with two seeds it is mostly wider.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special

from detector.evaluation.intervals import LEVEL, Interval, interval

ALPHA = 1 - LEVEL
POWER = 0.8
MOST_SEEDS = 200  # the search for the number of seeds ends here


class Components(NamedTuple):
    """Variances of a paired difference, estimated from S seeds and I images.

    Attributes:
        seeds: of the difference of one seed on these images, var(a) + var(e) / I; NaN for one seed.
        images: of what all seeds have in common through the choice of the images, var(b) / I.
        image_count: I.
    """

    seeds: float
    images: float
    image_count: int

    def variance(self, seeds: int) -> float:
        """Of the mean over ``seeds`` seeds, for other seeds and other images."""
        return self.seeds / seeds + self.images

    def freedom(self, seeds: int) -> float:
        """Degrees of freedom of that estimate, if it is made from ``seeds`` seeds, at least two.

        Satterthwaite's; 1 for two seeds, as a spread that is small by chance would give too many, and without spread.
        """
        a, b = self.seeds / seeds, self.images
        if seeds < 3 or a + b == 0:
            return 1.0
        return (a + b) ** 2 / (a**2 / (seeds - 1) + b**2 / max(self.image_count - 1, 1))


@dataclass(frozen=True)
class PairedDifference:
    """A paired difference with its intervals.

    Attributes:
        values: of each seed, ``[S]``.
        over_seeds, over_images, over_both: 95 % intervals as above; bounds are NaN where one seed does not tell.
        p: two-sided p-value of no difference, over seeds and images; NaN for one seed.
        components: variances, for planning.
    """

    values: np.ndarray
    over_seeds: Interval
    over_images: Interval
    over_both: Interval
    p: float
    components: Components

    @property
    def intervals(self) -> dict[str, Interval]:
        """The three by what they cover."""
        return {"seeds": self.over_seeds, "images": self.over_images, "both": self.over_both}

    @property
    def seeds(self) -> int:
        """S."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """The estimate."""
        return self.over_both.value


def t_quantile(freedom: float, level: float = LEVEL) -> float:
    """Half width of the central interval of Student's t that holds ``level``."""
    return float(special.stdtrit(freedom, (1 + level) / 2))


def over_seeds(values: np.ndarray) -> Interval:
    """Mean of some seeds' values with its t interval; covers the mean over all seeds, on the images that were scored.

    Args:
        values: ``[S]``; bounds are NaN for S = 1.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan)
    half = t_quantile(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def components(values: np.ndarray, replicates: np.ndarray, images: int) -> Components:
    """The variances of a paired difference.

    Args:
        values: ``[S]``, the difference of each seed.
        replicates: ``[S, B]``, the same in B resamples of the images, which are the same for all seeds. Resamples
            without ground truth are NaN.
        images: I.
    """
    usable = replicates[:, ~np.isnan(replicates).any(axis=0)]
    if not usable.shape[1]:
        return Components(math.nan, math.nan, images)
    # A bootstrap variance of I images is short by (I - 1) / I.
    full = images / max(images - 1, 1)
    together = float(usable.mean(axis=0).var()) * full
    count = len(values)
    if count < 2:
        return Components(math.nan, together, images)
    alone = float(usable.var(axis=1).mean()) * full
    pair = max(alone - together, 0.0) * count / (count - 1)  # var(e) / I
    return Components(float(np.var(values, ddof=1)), max(together - pair / count, 0.0), images)


def paired_difference(values: np.ndarray, replicates: np.ndarray, images: int) -> PairedDifference:
    """The difference with its three intervals.

    Args:
        values: ``[S]``, the difference of each seed.
        replicates: ``[S, B]``, as in :func:`components`.
        images: I.
    """
    mean, seeds = float(np.mean(values)), len(values)
    found = components(values, replicates, images)
    by_images = interval(mean, replicates.mean(axis=0))
    if seeds < 2 or math.isnan(found.images):
        both, p = Interval(mean, math.nan, math.nan), math.nan
    else:
        error, freedom = math.sqrt(found.variance(seeds)), found.freedom(seeds)
        half = t_quantile(freedom) * error
        both, p = Interval(mean, mean - half, mean + half), p_value(mean, error, freedom)
    return PairedDifference(np.asarray(values), over_seeds(values), by_images, both, p, found)


def p_value(mean: float, error: float, freedom: float) -> float:
    """Two-sided p-value of Student's t; 1 for no difference at all, 0 for one without any spread."""
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * special.stdtr(freedom, -abs(mean) / error))


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values: below alpha for any comparison that is not real in at most alpha of all studies.

    Holds for any dependence between the comparisons (Holm, Scandinavian Journal of Statistics 6, 1979). A comparison
    that has no runs yet is NaN and stays NaN, but counts: a verdict should not depend on when one looks.
    """
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = len(p) - np.arange(len(order))
    adjusted = np.full(len(p), math.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0) if len(order) else []
    return adjusted


def power(effect: float, found: Components, seeds: int, alpha: float = ALPHA) -> float:
    """The chance that a study of so many seeds finds a difference of size ``effect``, if the variances are as found.

    Two-sided t-test at level alpha over seeds and images: the non-central t distribution.
    """
    error, freedom = math.sqrt(found.variance(seeds)), found.freedom(seeds)
    if error == 0:
        return 1.0 if effect else 0.0
    limit = t_quantile(freedom, 1 - alpha)
    shift = abs(effect) / error
    if shift > 30:  # beyond what the distribution function resolves
        return 1.0
    missed = special.nctdtr(freedom, shift, limit)
    wrong_side = np.nan_to_num(special.nctdtr(freedom, shift, -limit))  # NaN where it is next to nothing
    return float(np.clip(1 - missed + wrong_side, 0.0, 1.0))


def seeds_needed(effect: float, found: Components, alpha: float = ALPHA, wanted: float = POWER) -> int | None:
    """The smallest number of seeds, at least 2, with which a difference of size ``effect`` is found with power
    ``wanted``; None if :data:`MOST_SEEDS` are not enough, or if one seed leaves the spread between seeds unknown."""
    if math.isnan(found.seeds) or not effect:
        return None
    counts = range(2, MOST_SEEDS + 1)  # the power grows with the number of seeds
    first = bisect_left(counts, wanted, key=lambda seeds: power(effect, found, seeds, alpha))
    return counts[first] if first < len(counts) else None


def limited_by_images(effect: float, found: Components, alpha: float = ALPHA, wanted: float = POWER) -> bool:
    """Whether no number of seeds is enough on this number of images."""
    return power(effect, Components(0.0, found.images, found.image_count), MOST_SEEDS, alpha) < wanted
