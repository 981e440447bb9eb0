"""Areas, bands over whole curves, and steps to a threshold with seeds that never get there."""

import warnings

import numpy as np
import pytest
import scipy.stats

from dqx import stats


def walks(rng, seeds, points):
    """Curves whose points hang together, with mean 0."""
    return np.cumsum(rng.normal(size=(seeds, points)), axis=1) + rng.normal(size=(seeds, 1))


def test_the_area_by_hand_and_by_numpy():
    area = stats.area_under_curve([0, 10, 40], [[0.0, 10.0, 10.0], [4.0, 4.0, 4.0]])
    np.testing.assert_allclose(area, [(50 + 300) / 40, 4.0])
    steps, values = np.sort(np.random.default_rng(0).random(9)), walks(np.random, 3, 9)
    expected = np.trapezoid(values, steps, axis=1) / (steps[-1] - steps[0])
    np.testing.assert_allclose(stats.area_under_curve(steps, values), expected)


@pytest.mark.parametrize("seeds", [5, 12])
def test_the_band_holds_whole_curves_and_the_pointwise_one_does_not(seeds):
    rng = np.random.default_rng(seeds)
    whole = point = each = 0
    for repeat in range(200):
        band = stats.simultaneous_band(walks(rng, seeds, 15), resamples=200, seed=repeat)
        whole += bool(((band.low <= 0) & (band.high >= 0)).all())
        inside = (band.point_low <= 0) & (band.point_high >= 0)
        point += bool(inside.all())
        each += inside.mean()
    assert whole / 200 > 0.90  # 0.95 is meant
    assert point / 200 < 0.88 and each / 200 > 0.91
    assert 0.95 < band.point_level < 1


def test_the_band_of_one_point_or_of_points_that_move_together_is_the_pointwise_one():
    values = np.random.default_rng(1).normal(size=(30, 1))
    band = stats.simultaneous_band(np.hstack([values, 5 * values + 1, -values]), np.mean)
    np.testing.assert_allclose(band.low, band.point_low, atol=0.12 * 5)
    assert band.point_level < 0.97
    same = stats.simultaneous_band(np.hstack([values, np.full((30, 1), 7.0)]))
    assert np.isnan([same.low[1], same.high[1]]).all() and same.low[0] < same.value[0]
    one = stats.simultaneous_band([[1.0, 2.0]])
    assert np.isnan(one.low).all() and one.value.tolist() == [1, 2]


@pytest.mark.parametrize("statistic", [stats.iqm, np.mean])
def test_resampled_curves_are_those_of_a_loop(statistic):
    from dqx.stats.bootstrap import draw_ranks
    from dqx.stats.curves import _whole_curves

    values = walks(np.random.default_rng(2), 7, 4)
    found = _whole_curves(values, statistic, 50, np.random.default_rng(9))
    draws = draw_ranks(np.random.default_rng(9), 7, 50)
    expected = [statistic(values[rows], axis=0) for rows in draws]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_steps_to_a_threshold_by_hand():
    values = [[0, 5, 3, 6], [9, 9, 9, 9], [0, 1, np.nan, 2], [np.inf, 1, 1, 5]]
    found = stats.steps_to_threshold([10, 20, 30, 40], values, 5)
    assert found.steps.tolist() == [20, 10, 40, 40]
    assert found.reached.tolist() == [True, True, False, True]
    found = stats.steps_to_threshold([10, 20, 30, 40], values, 5, window=2)
    assert found.steps.tolist() == [40, 20, 40, 40] and found.reached.tolist() == [0, 1, 0, 0]


def censored(seed, n):
    rng = np.random.default_rng(seed)
    truth, watched = rng.exponential(100, n).round() + 1, rng.exponential(150, n).round() + 1
    return np.minimum(truth, watched), truth <= watched


@pytest.mark.parametrize("n", [6, 25, 80])
def test_the_survival_curve_equals_scipys(n):
    steps, reached = censored(n, n)
    found = stats.survival_curve(steps, reached)
    data = scipy.stats.CensoredData(uncensored=steps[reached], right=steps[~reached])
    oracle = scipy.stats.ecdf(data).sf
    np.testing.assert_allclose(found.value, oracle.evaluate(found.steps), atol=1e-12)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of 0 and 1, which are left out below
        ends = oracle.confidence_interval(method="log-log")
    inside = (found.value > 0) & (found.value < 1)
    for mine, theirs in ((found.low, ends.low), (found.high, ends.high)):
        np.testing.assert_allclose(mine[inside], theirs.evaluate(found.steps)[inside], rtol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_where_nobody_is_left_the_upper_end_is_that_of_none_of_all(n):
    found = stats.survival_curve(np.arange(1, n + 1), np.ones(n, bool))
    exact = scipy.stats.binomtest(0, n).proportion_ci(0.95, method="exact").high
    assert found.value[-1] == 0 == found.low[-1]
    assert found.high[-1] == pytest.approx(exact)
    assert (np.diff(found.high) < 0).all()
    # Nothing is known of those that were lost sight of before.
    lost = stats.survival_curve(np.arange(1, n + 4), [False] * 3 + [True] * n)
    assert lost.high[-1] == pytest.approx(exact)


def test_the_median_counts_seeds_that_never_get_there():
    steps, reached = [10, 20, 30, 100, 100], [True, True, True, False, False]
    found = stats.median_steps(steps, reached)
    assert found.value == 30 and found.low == 10 and found.high == np.inf
    assert stats.median_steps(steps, [True, True, False, False, False]).value == np.inf
    assert stats.median_steps([5, 5], [False, False])[:] == (np.inf, np.inf, np.inf)


def test_the_restricted_mean_is_the_area_under_the_curve():
    steps, reached = censored(3, 40)
    found = stats.restricted_mean_steps(steps, reached, 80)
    grid = np.arange(0, 80) + 0.5
    curve = stats.survival_curve(steps, reached)
    heights = np.concatenate([[1.0], curve.value])[np.searchsorted(curve.steps, grid)]
    assert found.value == pytest.approx(heights.mean() * 80, rel=1e-9)
    assert found.low < found.value < found.high
    # Where all are watched until the end it is a plain mean, with its interval.
    steps, reached = np.array([10.0, 20, 60, 100]), np.array([True, True, True, False])
    found = stats.restricted_mean_steps(steps, reached, 50)
    assert found == pytest.approx(stats.interval(np.minimum(steps, 50), np.mean))


def test_the_restricted_mean_holds_the_truth():
    rng = np.random.default_rng(1)
    truth = 100 * (1 - np.exp(-0.8))
    held = 0
    for repeat in range(200):
        needed, watched = rng.exponential(100, 15), rng.uniform(60, 200, 15)
        steps, reached = np.minimum(needed, watched), needed <= watched
        until = min(80.0, steps.max())
        found = stats.restricted_mean_steps(steps, reached, until, seed=repeat)
        held += bool(found.low <= truth <= found.high)
    assert held / 200 > 0.90


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: stats.area_under_curve([1], [[2.0]]), "at least two"),
        (lambda: stats.area_under_curve([2, 1], [[2.0, 3.0]]), "rise"),
        (lambda: stats.area_under_curve([1, 2], [[2.0, np.nan]]), "NaN"),
        (lambda: stats.area_under_curve([1, 2], [[2.0, np.nan]], nan="drop"), "'drop'"),
        (lambda: stats.simultaneous_band([1.0, 2.0]), r"\[2\]"),
        (lambda: stats.simultaneous_band([[1.0], [2.0]], nan="drop"), "'drop'"),
        (lambda: stats.steps_to_threshold([1, 2], [[1, 2]], 1, window=3), "window is 3"),
        (lambda: stats.survival_curve([1, 2], [True]), "one of each"),
        (lambda: stats.survival_curve([0, 2], [True, True]), "above 0"),
        (lambda: stats.restricted_mean_steps([1, 2], [True, True], 3), "up to 2"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
