"""Statistics over seeds against SciPy, hand-made arrays and repeated sampling."""

import itertools
import subprocess
import sys
import time

import numpy as np
import pytest
import scipy.stats

from dqx import stats


def normals(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def alias(values, axis):
    """The IQM under another name, so that it takes the path of any statistic."""
    return scipy.stats.trim_mean(values, 0.25, axis=axis)


@pytest.mark.parametrize("n", range(1, 14))
def test_iqm_equals_scipy_for_every_remainder(n):
    values = normals(n, 5, seed=n)
    np.testing.assert_allclose(stats.iqm(values), alias(values, 0), rtol=1e-12)
    np.testing.assert_allclose(stats.iqm(values.T, axis=1), alias(values, 0), rtol=1e-12)


def test_iqm_by_hand():
    assert stats.iqm([100.0, 1.0, 2.0, -100.0]) == 1.5
    assert stats.iqm([0, 0, 1, 2, 3, 4, 9, 9]) == 2.5
    assert stats.iqm([-5, 1, 2, 3, 50]) == 2.0  # five seeds: one cut at each end
    assert stats.iqm([1, 2, 6]) == 3.0  # three: none cut
    assert stats.iqm([7]) == 7.0


@pytest.mark.parametrize("statistic", [stats.iqm, np.mean, np.median])
def test_interval_equals_scipys_percentile_bootstrap(statistic):
    values = np.random.default_rng(3).exponential(size=21)
    oracle = scipy.stats.bootstrap(
        (values,),
        alias if statistic is stats.iqm else statistic,
        n_resamples=40_000,
        method="percentile",
        rng=np.random.default_rng(1),
    )
    low, high = stats.bootstrap_interval(values, statistic, resamples=40_000, seed=5)
    # The Monte Carlo error of either end; an end moves by over 0.1 from level 0.95 to 0.9.
    tolerance = 0.06 * oracle.standard_error
    assert low == pytest.approx(oracle.confidence_interval.low, abs=tolerance)
    assert high == pytest.approx(oracle.confidence_interval.high, abs=tolerance)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_interval_equals_enumeration_of_all_resamples(n):
    values = np.array([1.0, 2.0, 4.0, 8.0])[:n]
    every = [alias(np.array(s), 0) for s in itertools.product(values, repeat=n)]
    low, high = stats.bootstrap_interval(values, level=0.6, resamples=50_000)
    # The distribution is discrete: each end lies on the atom that holds its quantile.
    assert low == pytest.approx(np.quantile(every, 0.2, method="inverted_cdf"))
    assert high == pytest.approx(np.quantile(every, 0.8, method="inverted_cdf"))


@pytest.mark.parametrize("n", [2, 3, 5, 8, 33])
def test_the_fast_path_equals_the_general_one(n):
    values = normals(n, 3, 2, seed=n)
    fast = stats.bootstrap_interval(values, stats.iqm, seed=11, resamples=200)
    general = stats.bootstrap_interval(values, alias, seed=11, resamples=200)
    np.testing.assert_allclose(fast, general, rtol=1e-10)
    fast = stats.bootstrap_interval(values, np.mean, seed=11, resamples=200)
    general = stats.bootstrap_interval(values, lambda v, axis: v.mean(axis), seed=11, resamples=200)
    np.testing.assert_allclose(fast, general, rtol=1e-10)


@pytest.mark.parametrize("statistic", [stats.iqm, np.median])
def test_blocks_do_not_change_the_interval(monkeypatch, statistic):
    values = normals(9, 7)
    whole = stats.bootstrap_interval(values, statistic, resamples=100)
    monkeypatch.setattr(stats, "_BLOCK", 20)
    np.testing.assert_allclose(
        stats.bootstrap_interval(values, statistic, resamples=100), whole, rtol=1e-12
    )


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(8)
    covered = {0.95: 0, 0.5: 0}
    for repeat in range(400):
        values = rng.normal(3.0, 2.0, size=32)  # symmetric, so the true IQM is the mean
        for level in covered:
            low, high = stats.bootstrap_interval(values, level=level, seed=repeat, resamples=1000)
            covered[level] += bool(low <= 3.0 <= high)
    assert 0.88 < covered[0.95] / 400 < 0.99
    assert 0.40 < covered[0.5] / 400 < 0.60


def test_the_seed_decides_the_interval():
    values = normals(16, 4)
    first = stats.bootstrap_interval(values, seed=1)
    np.random.seed(0)  # global state must not matter
    np.testing.assert_array_equal(stats.bootstrap_interval(values, seed=1), first)
    assert (np.asarray(stats.bootstrap_interval(values, seed=2)) != np.asarray(first)).all()
    with pytest.raises(TypeError):
        stats.bootstrap_interval(values, seed=None)  # type: ignore[arg-type]
    x, y = values[:, 0], values[:, 1]
    for function in (stats.difference, stats.probability_of_improvement):
        assert function(x, y, seed=1) == function(x, y, seed=1)
        assert function(x, y, seed=1, resamples=99) != function(x, y, seed=2, resamples=99)


def test_interval_is_independent_of_the_order_of_seeds_and_lies_within_the_values():
    values = normals(12, 6)
    low, high = stats.bootstrap_interval(values)
    np.testing.assert_array_equal(stats.bootstrap_interval(values[::-1]), (low, high))
    assert (low < stats.iqm(values)).all() and (stats.iqm(values) < high).all()
    assert (values.min(axis=0) <= low).all() and (high <= values.max(axis=0)).all()


def test_equal_values_give_exactly_that_value():
    values = np.full((7, 3), 0.1)
    for statistic in (stats.iqm, np.mean):
        np.testing.assert_array_equal(stats.bootstrap_interval(values, statistic), values[:2])


def test_one_seed_has_no_interval():
    assert np.isnan(stats.bootstrap_interval([3.0])).all()
    assert np.isnan(stats.bootstrap_interval(np.ones((1, 4)))).all()
    summary = stats.summarize([3.0])
    assert summary[:2] == (1, 3.0) and (summary.iqm, summary.min, summary.max) == (3.0,) * 3
    assert np.isnan([summary.std, summary.low, summary.high]).all()
    assert np.isnan(stats.difference([1.0], [1.0, 2.0])[1:]).all()
    assert np.isnan(stats.probability_of_improvement([1.0], [1.0, 2.0])[1:]).all()


def test_nonfinite_values_raise_and_say_how_many():
    values = normals(8, 5)
    values[2, 1] = np.nan
    values[2, 3] = np.inf
    values[6, 3] = -np.inf
    with pytest.raises(ValueError, match=r"3 of 40 values .* 2 of 8 seeds.*nan='drop'"):
        stats.bootstrap_interval(values)
    for call in (
        lambda: stats.iqm(values),
        lambda: stats.summarize(values[:, 3]),
        lambda: stats.difference(values, values),
        lambda: stats.probability_of_improvement(values[:, 0], values[:, 3]),
        lambda: stats.performance_profile(values[:, 3], [0.0]),
    ):
        with pytest.raises(ValueError, match="NaN or infinite"):
            call()


def test_dropped_values_leave_the_rest_of_their_column():
    values = normals(8, 3)
    values[[1, 4], 1] = np.nan
    values[:, 2] = np.nan
    rest = np.delete(values[:, 1], [1, 4])
    result = stats.iqm(values, nan="drop")
    np.testing.assert_allclose(result[:2], [alias(values[:, 0], 0), alias(rest, 0)])
    assert np.isnan(result[2])
    low, high = stats.bootstrap_interval(values[:, 1:], nan="drop", seed=4)
    assert (low[0], high[0]) == stats.bootstrap_interval(rest, seed=4)
    assert np.isnan([low[1], high[1]]).all()
    assert stats.summarize(values[:, 1], nan="drop") == stats.summarize(rest)
    with pytest.raises(ValueError, match="no finite value is left"):
        stats.summarize(values[:, 2], nan="drop")


def test_a_number_stands_for_nonfinite_values_and_inputs_stay_untouched():
    values = np.array([5.0, np.nan, 7.0, np.inf, 9.0])
    before = values.copy()
    assert stats.summarize(values, nan=-1) == stats.summarize([5.0, -1.0, 7.0, -1.0, 9.0])
    np.testing.assert_array_equal(values, before)


def test_summary_by_hand():
    summary = stats.summarize([4, 1, 3, 2])
    assert summary[:2] == (4, 2.5) and (summary.iqm, summary.min, summary.max) == (2.5, 1.0, 4.0)
    assert summary.std == pytest.approx(np.sqrt(5 / 3))
    assert (summary.low, summary.high) == stats.bootstrap_interval([4, 1, 3, 2])
    assert all(type(field) is float for field in summary[1:])


def test_probability_of_improvement_equals_mann_whitney():
    x, y = normals(11) > 0, normals(17, seed=1).round()  # with ties
    u = scipy.stats.mannwhitneyu(x, y).statistic
    assert stats.probability_of_improvement(x, y).value == pytest.approx(u / (11 * 17))
    assert stats.probability_of_improvement([2, 3], [0, 1, 1])[:] == (1.0, 1.0, 1.0)
    assert stats.probability_of_improvement([1, 1], [1, 1])[:] == (0.5, 0.5, 0.5)
    assert stats.probability_of_improvement([1, 4], [2, 3]).value == 0.5


def test_probability_of_improvement_interval_equals_scipys():
    x, y = normals(14) + 0.4, normals(9, seed=1)

    def wins(a, b, axis):
        return (np.sign(a[..., :, None] - b[..., None, :]) / 2 + 0.5).mean(axis=(-1, -2))

    oracle = scipy.stats.bootstrap(
        (x, y), wins, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    )
    result = stats.probability_of_improvement(x, y, resamples=20_000)
    tolerance = 0.08 * oracle.standard_error
    assert result[1:] == pytest.approx(tuple(oracle.confidence_interval), abs=tolerance)


def test_paired_comparisons_see_what_unpaired_ones_cannot():
    luck = 100 * normals(20)
    x, y = luck + 1 + 0.1 * normals(20, seed=1), luck
    paired = stats.difference(x, y, paired=True)
    assert paired.value == pytest.approx(stats.iqm(x - y))
    assert paired[1:] == stats.bootstrap_interval(x - y)
    assert 0 < paired.low < paired.value < paired.high
    unpaired = stats.difference(x, y)
    assert unpaired.value == pytest.approx(stats.iqm(x) - stats.iqm(y))
    assert unpaired.low < 0 < unpaired.high
    assert stats.probability_of_improvement(x, y, paired=True)[:] == (1.0, 1.0, 1.0)
    assert stats.probability_of_improvement([1, 2, 0], [0, 2, 1], paired=True).value == 0.5


def test_unpaired_difference_resamples_both_sides_independently():
    x, y = normals(15) * 2, normals(10, seed=1)
    oracle = scipy.stats.bootstrap(
        (x, y),
        lambda a, b, axis: alias(a, axis) - alias(b, axis),
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(2),
    )
    result = stats.difference(x, y, resamples=20_000)
    tolerance = 0.08 * oracle.standard_error
    assert result[1:] == pytest.approx(tuple(oracle.confidence_interval), abs=tolerance)
    # The same data on both sides: were the draws shared, the interval would have no width.
    assert stats.difference(x, x).low < 0 < stats.difference(x, x).high


def test_performance_profile_by_hand():
    scores, taus = np.array([0.0, 1.0, 1.0, 3.0]), np.array([-1.0, 0.0, 1.0, 2.0, 3.0])
    profile = stats.performance_profile(scores, taus)
    np.testing.assert_array_equal(profile.value, [1.0, 0.75, 0.25, 0.25, 0.0])
    oracle = stats.bootstrap_interval(scores[:, None] > taus, np.mean)
    np.testing.assert_array_equal(profile[1:], oracle)
    # A quarter of four seeds: the resampled fraction is binomial(4, 1/4) / 4.
    ends = scipy.stats.binom.ppf([0.025, 0.975], 4, 0.25) / 4
    assert (profile.low[2], profile.high[2]) == tuple(ends)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: stats.iqm([]), "seeds"),
        (lambda: stats.iqm([1.0], nan="skip"), "'raise', 'drop'"),
        (lambda: stats.iqm([1.0], nan=float("nan")), "finite"),
        (lambda: stats.bootstrap_interval(np.zeros((0, 3))), r"\[0, 3\]"),
        (lambda: stats.bootstrap_interval([1.0, 2.0], level=95), "level is 95"),
        (lambda: stats.bootstrap_interval([1.0, 2.0], resamples=0), "resamples is 0"),
        (lambda: stats.bootstrap_interval([1.0, 2.0], seed=-1), "seed is -1"),
        (lambda: stats.difference([1.0, 2.0], [1.0], paired=True), "paired"),
        (lambda: stats.difference(np.ones((2, 3)), np.ones((2, 4))), "only axis 0"),
        (lambda: stats.summarize(np.ones((2, 3))), r"\[2, 3\]"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_large_curve_is_quick_and_small():
    values = normals(2000, 200)
    start = time.process_time()
    low, high = stats.bootstrap_interval(values)
    # About 0.3 s of one core; a gather of all resamples would take 20 s and 6 GB.
    assert time.process_time() - start < 5
    width = np.mean(high - low)
    # The IQM of n normals has standard error close to 1.09 / sqrt(n).
    assert width == pytest.approx(2 * 1.96 * 1.09 / np.sqrt(2000), rel=0.1)


def test_statistics_and_pictures_import_without_jax_or_matplotlib():
    code = (
        "import sys, dqx.stats, dqx.report.plots; "
        "sys.exit(sorted({'jax', 'matplotlib', 'scipy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
