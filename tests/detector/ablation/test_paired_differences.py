"""Intervals and tests of a study against simulated studies whose truth is known, and against numbers by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from detector.ablation.paired_differences import (
    ALPHA,
    MOST_SEEDS,
    Components,
    components,
    holm,
    limited_by_images,
    over_seeds,
    p_value,
    paired_difference,
    power,
    seeds_needed,
    t_quantile,
)
from detector.evaluation.intervals import resample

IMAGES, RESAMPLES = 60, 200
WEIGHTS = resample(IMAGES, RESAMPLES, seed=1) / IMAGES


def simulate(rng, studies, seeds, variances, effect=0.0, levels=1):
    """Paired differences [studies, levels, seeds, images] with the given variances of a seed, of the images, of pairs.

    The three are those of the mean over images. Arms share the baseline's part of each, half of the variance.
    """

    def part(*shape):
        own, shared = (rng.normal(size=(studies, n, *shape)) for n in (levels, 1))
        return own if levels == 1 else (own + shared) / math.sqrt(2)

    a, b, e = variances
    by_seed = part(seeds, 1) * math.sqrt(a)
    by_image = part(1, IMAGES) * math.sqrt(b * IMAGES)
    return effect + by_seed + by_image + part(seeds, IMAGES) * math.sqrt(e * IMAGES), by_seed, by_image


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("variances", [(1, 0, 0), (0, 1, 0), (0.2, 0.2, 1), (1, 0.3, 0.3)])
def test_coverage_of_the_interval_over_both(seeds, variances):
    """The stated rate is 0.95; the standard error of the share is 0.008."""
    rng = np.random.default_rng(7)
    found, _, _ = simulate(rng, 800, seeds, variances, effect=1.0)
    covered = 0
    for study in found[:, 0]:
        low, high = paired_difference(study.mean(axis=1), study @ WEIGHTS.T, IMAGES).over_both[1:]
        covered += low <= 1.0 <= high
    assert 0.92 <= covered / 800 <= 0.975


def test_coverage_of_the_other_two_intervals():
    """Over seeds: the mean of all seeds on these images. Over images: the mean on all images of these seeds."""
    rng = np.random.default_rng(8)
    found, by_seed, by_image = simulate(rng, 800, 4, (1.0, 1.0, 1.0), effect=2.0)
    seeds_covered = images_covered = 0
    for study, a, b in zip(found[:, 0], by_seed[:, 0], by_image[:, 0], strict=True):
        result = paired_difference(study.mean(axis=1), study @ WEIGHTS.T, IMAGES)
        seeds_covered += result.over_seeds.low <= 2.0 + b.mean() <= result.over_seeds.high
        images_covered += result.over_images.low <= 2.0 + a.mean() <= result.over_images.high
    assert 0.92 <= seeds_covered / 800 <= 0.975
    assert 0.91 <= images_covered / 800 <= 0.975


def test_two_seeds_are_not_overconfident():
    rng = np.random.default_rng(9)
    found, _, _ = simulate(rng, 800, 2, (1.0, 0.1, 0.1))
    false = sum(paired_difference(s.mean(axis=1), s @ WEIGHTS.T, IMAGES).p < ALPHA for s in found[:, 0])
    assert false / 800 <= 0.065


def test_studies_without_any_effect_rarely_call_one_real():
    """Five levels against one baseline, nothing real: a verdict "real" anywhere in at most 5 % of the studies."""
    rng = np.random.default_rng(10)
    found, _, _ = simulate(rng, 500, 5, (0.5, 0.3, 0.5), levels=5)
    wrong = uncorrected = 0
    for study in found:
        p = np.array([paired_difference(level.mean(axis=1), level @ WEIGHTS.T, IMAGES).p for level in study])
        wrong += (holm(p) < ALPHA).any()
        uncorrected += (p < ALPHA).any()
    assert wrong / 500 <= 0.075  # standard error 0.01
    assert uncorrected / 500 >= 0.1  # what the correction is for


def test_power_is_what_simulated_studies_reach():
    rng = np.random.default_rng(11)
    truth = Components(1.0, 0.1, IMAGES)
    found, _, _ = simulate(rng, 800, 6, (1.0, 0.1, 0.0), effect=1.5)
    real = sum(paired_difference(s.mean(axis=1), s @ WEIGHTS.T, IMAGES).p < ALPHA for s in found[:, 0]) / 800
    assert real == pytest.approx(power(1.5, truth, 6), abs=0.06)


def test_components_are_found():
    """Variances of the simulation, from many seeds and images."""
    rng = np.random.default_rng(12)
    images = 400
    weights = resample(images, 800, seed=2) / images
    d = (rng.normal(size=(60, 1)) * 2 + rng.normal(size=images) * math.sqrt(3 * images)
         + rng.normal(size=(60, images)) * math.sqrt(5 * images))  # fmt: skip
    found = components(d.mean(axis=1), d @ weights.T, images)
    assert found.seeds == pytest.approx(4 + 5, rel=0.4)
    assert found.images == pytest.approx(3, rel=0.3)


def test_interval_over_seeds_by_hand():
    """1, 2, 3: mean 2, standard error 1 / sqrt(3), t(0.975, 2) = 4.3027."""
    found = over_seeds(np.array([1.0, 2.0, 3.0]))
    assert found == pytest.approx((2, 2 - 4.30265 / math.sqrt(3), 2 + 4.30265 / math.sqrt(3)), abs=1e-4)
    assert math.isnan(over_seeds(np.array([1.0])).low)


def test_without_spread_over_images_it_is_the_t_test():
    values = np.array([0.4, 1.1, 0.9, 0.2])
    found = paired_difference(values, np.repeat(values[:, None], 50, axis=1), 100)
    assert found.over_both == pytest.approx(found.over_seeds)
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_one_seed_tells_nothing_of_seeds():
    found = paired_difference(np.array([3.0]), np.random.default_rng(0).normal(3, 1, (1, 500)), 100)
    assert math.isnan(found.p)
    assert math.isnan(found.over_both.low)
    assert math.isnan(found.over_seeds.low)
    assert found.over_images.low == pytest.approx(3 - 1.96, abs=0.3)
    assert seeds_needed(1.0, found.components) is None


def test_equal_runs_do_not_differ():
    found = paired_difference(np.zeros(4), np.zeros((4, 100)), 50)
    assert found.p == 1
    assert found.over_both == (0, 0, 0)


def test_holm_by_hand():
    """0.01 x 4, 0.02 x 3, 0.03 x 2, 0.5 x 1; never below the one before."""
    assert holm(np.array([0.03, 0.01, 0.5, 0.02])) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    # A comparison without runs counts: 0.01 x 2.
    found = holm(np.array([0.01, math.nan]))
    assert found[0] == pytest.approx(0.02)
    assert math.isnan(found[1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_plain_and_bonferroni(p):
    p = np.array(p)
    found = holm(p)
    assert (found >= p).all()
    assert (found <= np.minimum(p * len(p), 1) + 1e-12).all()


def test_seeds_needed():
    """Paired t-test, standard deviation 1, effect 1, power 0.8: 10 pairs, as in every table of sample sizes."""
    alone = Components(1.0, 0.0, 100)
    assert seeds_needed(1.0, alone) == 10
    assert power(1.0, alone, 10) >= 0.8 > power(1.0, alone, 9)
    assert seeds_needed(10.0, alone) == 3
    assert seeds_needed(0.05, alone) is None  # thousands
    assert not limited_by_images(0.05, alone)


def test_images_limit_what_seeds_can_do():
    found = Components(1.0, 1.0, 100)
    assert seeds_needed(2.0, found) is None  # the images alone leave +- 2
    assert limited_by_images(2.0, found)
    needed = seeds_needed(4.0, found)
    assert needed is not None
    assert needed < MOST_SEEDS


@given(st.floats(0.1, 5), st.floats(0.05, 4), st.floats(0, 0.2))
def test_more_seeds_never_hurt(effect, seeds, images):
    found = Components(seeds, images, 200)
    reached = [power(effect, found, n) for n in (3, 5, 10, 40)]
    assert reached == sorted(reached) or np.allclose(reached, sorted(reached), atol=1e-3)


def test_quantiles_and_p_values():
    assert t_quantile(4) == pytest.approx(2.7764, abs=1e-4)
    assert t_quantile(1e6) == pytest.approx(1.96, abs=1e-3)
    assert p_value(2.7764, 1.0, 4) == pytest.approx(0.05, abs=1e-4)
    assert p_value(0.1, 0.0, 4) == 0
