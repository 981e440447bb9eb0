"""Quantiles with exact intervals, the worst seeds, and the gap to a target."""

import numpy as np
import pytest
import scipy.stats

from dqx import stats


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("n", [4, 20, 100, 1500])
def test_quantiles_and_their_intervals_equal_scipys(share, n):
    values = np.random.default_rng(n).normal(size=n)
    found = stats.quantile(values, share)
    assert found.value == pytest.approx(np.quantile(values, share))
    oracle = scipy.stats.quantile_test(values, p=share).confidence_interval(0.95)
    ends = [-np.inf if np.isnan(oracle.low) else oracle.low,
            np.inf if np.isnan(oracle.high) else oracle.high]  # fmt: skip
    assert [found.low, found.high] == ends


def test_the_median_needs_six_seeds_for_an_interval():
    assert stats.quantile(np.arange(6), 0.5)[:] == (2.5, 0.0, 5.0)
    assert np.isinf(stats.quantile(np.arange(5), 0.5)[1:]).all()
    assert stats.quantile([1, 2, 3, np.nan], 0.5, nan="drop").value == 2
    assert stats.median([[1, 5], [2, 6], [9, 0]]).tolist() == [2, 5]
    assert stats.median([[1, 2, 9]], axis=1) == 2


def test_quantile_intervals_hold_as_often_as_they_say():
    rng = np.random.default_rng(0)
    truth = -np.log(0.9)  # the tenth percentile of an exponential value
    inside = [
        (e := stats.quantile(rng.exponential(size=40), 0.1)).low <= truth <= e.high
        for _ in range(800)
    ]
    assert 0.93 < np.mean(inside) <= 1 and np.mean(inside) < 0.995


def test_the_worst_seeds_by_hand():
    values = [10.0, 0.0, 30.0, 20.0]
    assert stats.cvar(values) == 0 and stats.cvar(values, 0.5) == 5 and stats.cvar(values, 1) == 15
    # 0.375 of 4 seeds are one and a half: (0 + 10 / 2) / 1.5.
    assert stats.cvar(values, 0.375) == pytest.approx(10 / 3)
    np.testing.assert_allclose(stats.cvar(np.array([values, values]).T), [0, 0])
    # As the mean of a fine quantile function.
    many = np.random.default_rng(1).normal(size=500)
    assert stats.cvar(many, 0.1) == pytest.approx(np.sort(many)[:50].mean())


def test_the_gap_to_a_target_by_hand():
    assert stats.optimality_gap([0.5, 2.0, 1.0, 0.0]) == pytest.approx(1.5 / 4)
    assert stats.optimality_gap([[400, 500], [500, 600]], 500).tolist() == [50, 0]
    assert stats.optimality_gap([1.0, np.nan], 2, nan=0) == 1.5


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: stats.quantile([1, 2], 1.5), "share is 1.5"),
        (lambda: stats.cvar([1, 2], 0), "share is 0"),
        (lambda: stats.median([1, np.nan]), "NaN or infinite"),
        (lambda: stats.quantile([[1, 2]], 0.5), r"\[1, 2\]"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_share_reaching_a_bar_by_hand_and_by_scipy():
    scores = [499.9, 500.0, 100.0, 500.0, np.nan]
    found = stats.share_reaching(scores, 500, nan=0)
    assert found.value == 2 / 5  # a score that equals the bar reaches it
    for good, n, level in ((2, 5, 0.95), (0, 7, 0.95), (990, 1000, 0.9), (1000, 1000, 0.99)):
        share = stats.share_reaching([1.0] * good + [0.0] * (n - good), 0.5, level=level)
        expected = scipy.stats.binomtest(good, n).proportion_ci(level, method="wilson")
        assert share == pytest.approx((good / n, *expected))
    with pytest.raises(ValueError, match="1 of 5 values are NaN or infinite"):
        stats.share_reaching(scores, 500)
