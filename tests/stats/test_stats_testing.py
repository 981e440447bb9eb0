"""Permutation tests against SciPy, effect sizes by hand, Holm's rule."""

import numpy as np
import pytest
import scipy.stats

from dqx import stats
from dqx.stats import bootstrap


def trimmed(x, axis):
    return scipy.stats.trim_mean(x, 0.25, axis=axis)


def squared_error(x, axis):
    """Of an IQM: the values winsorized by one fewer at each end than are trimmed."""
    n = x.shape[axis]
    kept = max(n // 4 - 1, 0)
    held = np.asarray(scipy.stats.mstats.winsorize(x, (kept / n, kept / n), axis=axis))
    error = held.var(axis=axis, ddof=1) / (1 - 2 * kept / n) ** 2 / (n - 0.5)
    return error + 0.01 * x.var(axis=axis, ddof=1) / n


def trimmed_difference(x, y, axis):
    return trimmed(x, axis) - trimmed(y, axis)


def in_errors(x, y, axis):
    gap = trimmed_difference(x, y, axis)
    return gap / np.sqrt(squared_error(x, axis) + squared_error(y, axis))


@pytest.mark.parametrize(("n", "m"), [(3, 3), (4, 5), (6, 6), (9, 4)])
@pytest.mark.parametrize(
    ("statistic", "distance"), [(stats.iqm, in_errors), (trimmed, trimmed_difference)]
)
def test_all_rearrangements_give_scipys_p(n, m, statistic, distance):
    rng = np.random.default_rng(n)
    x, y = rng.normal(0.8, 1, n), rng.normal(0, 1, m)
    found = stats.permutation_test(x, y, statistic)
    oracle = scipy.stats.permutation_test((x, y), distance, n_resamples=np.inf)
    assert found.exact and found.value == pytest.approx(trimmed(x, 0) - trimmed(y, 0))
    # SciPy doubles the smaller tail; ours counts what is as far on either side.
    far = np.abs(oracle.null_distribution) >= abs(oracle.statistic) * (1 - 1e-9)
    assert found.p == pytest.approx(far.mean())
    if n == m:
        assert found.p == pytest.approx(oracle.pvalue)


def test_paired_rearrangements_give_scipys_p():
    rng = np.random.default_rng(5)
    x = rng.normal(0.5, 1, 9)
    y = x + rng.normal(-0.4, 0.5, 9)

    def one_sample_t(a, b, axis):
        gaps = a - b
        return gaps.mean(axis) / gaps.std(axis, ddof=1)  # the tie break changes no order here

    found = stats.permutation_test(x, y, np.mean, paired=True)
    oracle = scipy.stats.permutation_test(
        (x, y), one_sample_t, permutation_type="samples", n_resamples=np.inf
    )
    assert found.exact and found.p == pytest.approx(oracle.pvalue)
    assert found.least == 2 / 2**9


def test_sides_that_are_apart_in_every_seed_are_told_apart():
    """An IQM alone hardly sees a difference between 12 seeds out of 12 and 10 out of 12."""
    y = np.random.default_rng(0).normal(0, 30, 12)
    x = y + np.random.default_rng(1).normal(75, 5, 12)
    assert stats.permutation_test(x, y, trimmed, paired=True).p > 0.003
    assert stats.permutation_test(x, y, paired=True).p <= 10 / 2**12
    assert stats.permutation_test(np.arange(12) + 100, np.arange(12)).p < 0.001
    assert stats.permutation_test(np.full(8, 200.0), np.zeros(8), paired=True).p == 2 / 2**8
    # No spread and a difference: as far as anything can be.
    assert stats.permutation_test([5, 5, 5, 5], [1, 1, 1, 1]).p == pytest.approx(2 / 70)


def test_the_level_is_kept_where_only_the_spread_differs():
    rng = np.random.default_rng(3)
    p = [stats.permutation_test(rng.normal(0, 5, 12), rng.normal(0, 1, 36), permutations=300).p
         for _ in range(300)]  # fmt: skip
    assert np.mean(np.array(p) <= 0.05) < 0.10


def test_drawn_rearrangements_come_close_to_all():
    rng = np.random.default_rng(2)
    x, y = rng.normal(0.7, 1, 8), rng.normal(0, 1, 8)
    every = stats.permutation_test(x, y, permutations=20_000)
    drawn = stats.permutation_test(x, y, permutations=12_869)
    assert every.exact and not drawn.exact
    assert drawn.p == pytest.approx(every.p, abs=0.01)
    pairs = stats.permutation_test(x, y, paired=True)
    drawn = stats.permutation_test(x, y, paired=True, permutations=255)
    assert pairs.exact and not drawn.exact and drawn.p == pytest.approx(pairs.p, abs=0.08)
    assert stats.permutation_test(x, y, permutations=500) == stats.permutation_test(
        x, y, permutations=500
    )


def test_the_least_p_says_what_few_seeds_can_tell():
    found = stats.permutation_test([5, 6, 7], [1, 2, 3])
    assert found.p == found.least == pytest.approx(2 / 20)
    found = stats.permutation_test(np.arange(60) + 100, np.arange(60))
    assert 0 < found.p == pytest.approx(1 / 10_001) and found.least < 1e-30
    assert stats.permutation_test([1, 1, 1], [1, 1, 1]).p == 1


def test_where_nothing_differs_small_p_are_as_rare_as_they_say():
    rng = np.random.default_rng(4)
    p = [stats.permutation_test(*rng.exponential(size=(2, 6)), permutations=300).p
         for _ in range(500)]  # fmt: skip
    assert 0.02 < np.mean(np.array(p) <= 0.05) < 0.08
    assert 0.4 < np.mean(np.array(p) <= 0.5) < 0.6


@pytest.mark.parametrize("paired", [False, True])
def test_p_is_never_0_even_of_a_statistic_that_makes_no_number(paired):
    found = stats.permutation_test(
        [1.0, 2, 3], [7.0, 8, 9], lambda x, axis: np.full(x.shape[0], np.nan), paired=paired
    )
    assert np.isnan(found.value) and found.p == 1


def test_draws_that_are_kept_are_those_that_would_be_drawn():
    """Whatever was asked before, in whatever order, and as often as one likes."""
    rng = np.random.default_rng(0)
    sides = [(rng.normal(size=20), rng.normal(size=n)) for n in (20, 31)]

    def everything():
        for x, y in sides:
            for seed in (0, 1):
                yield stats.probability_of_improvement(x, y, seed=seed)
                yield stats.difference(x, y, seed=seed)
                yield stats.bootstrap_interval(x, np.mean, seed=seed)
                yield stats.permutation_test(x, x[::-1] + 0.1, paired=True, seed=seed)

    warm = [*everything()]
    assert len(bootstrap._KEPT) == bootstrap._KEPT_COUNT and [*everything()] == warm
    cold = []
    given = everything()
    while True:
        bootstrap._KEPT.clear()
        try:
            cold.append(next(given))
        except StopIteration:
            break
    assert cold == warm and len(set(map(str, warm))) == len(warm)
    # By hand, from a generator of one's own.
    drawn = np.random.default_rng(1).integers(20, size=(2000, 20), dtype=np.int32)
    ends = np.quantile(sides[0][0][drawn].mean(axis=1), [0.025, 0.975])
    np.testing.assert_allclose(warm[6], ends, atol=0.2)


def test_cliffs_delta_by_hand():
    assert stats.cliffs_delta([3, 4], [1, 2]) == 1 and stats.cliffs_delta([1, 2], [1, 2]) == 0
    assert stats.cliffs_delta([1, 5], [2, 3, 1]) == pytest.approx((0 - 2 + 3) / 6)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=9).round(), rng.normal(size=12).round()
    share = stats.probability_of_improvement(x, y).value
    assert stats.cliffs_delta(x, y) == pytest.approx(2 * share - 1)


def test_the_robust_effect_is_cohens_for_normal_values_and_heeds_no_outlier():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.8, 1, 20_000), rng.normal(0, 1, 20_000)
    assert stats.robust_effect(x, y) == pytest.approx(0.8, abs=0.04)
    x[:1000] = 1e6
    assert stats.robust_effect(x, y) == pytest.approx(0.86, abs=0.1)
    # By hand: winsorized 2 2 3 3 and 0 0 1 1, IQMs 2.5 and 0.5, pooled variance (1 + 1) / 6.
    # Of four normal values the middle two have means of -0.2970 and 0.2970, variances of 0.3605
    # and a covariance of 0.2359 (Teichroew 1956); the winsorized squares sum to their distance's.
    left = (2 * (0.3605 - 0.2359) + (2 * 0.2970) ** 2) / 3
    pooled = np.sqrt(2 / 6 / left)
    assert stats.robust_effect([1, 2, 3, 9], [-8, 0, 1, 5]) == pytest.approx(2 / pooled, rel=0.01)
    assert stats.robust_effect([5, 5], [5, 5]) == 0 and stats.robust_effect([5, 5], [4, 4]) > 1e300
    assert np.isnan(stats.robust_effect([5], [4]))


@pytest.mark.parametrize("seeds", [3, 4, 6, 7, 8, 11, 32, 101])
def test_of_few_seeds_too_the_effect_is_in_standard_deviations_of_a_normal_seed(seeds):
    rng = np.random.default_rng(seeds)
    variances = []
    for x, y in rng.normal(size=(2000, 2, seeds)):
        gap = float(stats.iqm(x) - stats.iqm(y))
        variances.append((gap / stats.robust_effect(x, y)) ** 2)
    assert np.mean(variances) == pytest.approx(1, abs=0.05)


def test_holm_by_hand():
    np.testing.assert_allclose(stats.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(stats.holm([0.9, 0.8]), [1.0, 1.0])
    assert stats.holm([]).size == 0 and stats.holm([0.2]) == [0.2]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: stats.holm([0.1, 2]), "from 0 to 1"),
        (lambda: stats.holm([np.nan]), "from 0 to 1"),
        (lambda: stats.permutation_test([1, 2], [1], paired=True), "paired"),
        (lambda: stats.permutation_test([1, 2], [1], permutations=0), "permutations is 0"),
        (lambda: stats.permutation_test([1, np.nan], [1]), "NaN or infinite"),
        (lambda: stats.permutation_test([1], [1], seed=-1), "seed is -1"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
