"""Statistics over seeds against SciPy, hand-made arrays and repeated sampling."""

import itertools
import subprocess
import sys
import time

import numpy as np
import pytest
import scipy.stats

from dqx import stats
from dqx.stats.intervals import student_quantile


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
    monkeypatch.setattr("dqx.stats.bootstrap._BLOCK", 20)
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


def half_by_hand(values):
    """Half the width of the t part of `interval`, in the sum notation of its description."""
    rising = sorted(values)
    n = len(rising)
    kept = max(n // 4 - 1, 0)  # winsorized at each end
    held = rising[kept : n - kept]
    winsorized = [held[0]] * kept + held + [held[-1]] * kept
    error = np.std(winsorized, ddof=1) / (len(held) / n) / np.sqrt(n - 0.5)
    return scipy.stats.t.ppf(0.975, len(held) - 1) * error


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 13, 32])
def test_the_interval_is_the_hull_of_t_and_bootstrap(n):
    values = np.random.default_rng(n).exponential(size=n)
    value, low, high = stats.interval(values, seed=3)
    plain = stats.bootstrap_interval(values, seed=3)
    half = half_by_hand(values)
    assert value == pytest.approx(alias(values, 0))
    assert low == pytest.approx(min(plain.low, value - half))
    assert high == pytest.approx(max(plain.high, value + half))
    value, low, high = stats.interval(values, np.mean, level=0.8)
    half = scipy.stats.t.ppf(0.9, n - 1) * values.std(ddof=1) / np.sqrt(n - 0.5)
    plain = stats.bootstrap_interval(values, np.mean, level=0.8)
    assert low == pytest.approx(min(plain.low, values.mean() - half))
    assert high == pytest.approx(max(plain.high, values.mean() + half))


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 10, 31, 100, 1999])
def test_quantiles_of_t_equal_scipys(freedom):
    for level in (0.5, 0.95, 0.999):
        expected = scipy.stats.t.ppf((1 + level) / 2, freedom)
        assert student_quantile(level, freedom) == pytest.approx(expected, rel=1e-9)


def test_where_the_middle_seeds_agree_there_is_no_interval():
    for agreeing in ([500.0] * 5, [0.1] * 7, [3.0] + [500.0] * 31, [-200.0] * 40 + [-100.0]):
        found = stats.summarize(agreeing)
        assert np.isnan([found.low, found.high]).all()
        assert found.interval_text() == "all middle seeds agree, no interval"
    # A quarter of the seeds fails: the middle half agrees, but other seeds could well differ.
    found = stats.summarize([0.0] * 8 + [500.0] * 24)
    assert found.iqm == found.high == 500 and 200 < found.low < 450
    # Of a curve some points may have an interval and others not.
    values = np.stack([np.full(6, 7.0), np.arange(6.0)], axis=1)
    _, low, high = stats.interval(values)
    assert np.isnan([low[0], high[0]]).all() and low[1] < 2.5 < high[1]
    assert np.isnan(stats.difference([1, 1, 1], [2, 2, 2])[1:]).all()
    # Nor is a side known exactly whose middle seeds agree; seed by seed it is not asked for.
    tied, spread = [500.0] * 5, [290.0, 295, 300, 305, 310]
    for one, other in ((tied, spread), (spread, tied)):
        assert np.isnan(stats.difference(one, other)[1:]).all()
        assert np.isfinite(stats.difference(one, other, paired=True)).all()


def test_with_many_seeds_the_ends_of_the_iqm_stay_within_the_values():
    few, many = [0.0] * 5 + [1.0] * 14, [0.0] * 5 + [1.0] * 15
    assert stats.interval(few).high > 1.0 == stats.interval(many).high
    assert stats.interval([0.0] * 20 + [1.0] * 20, np.mean, level=1 - 1e-12).high > 1


def test_ends_are_clipped_to_what_a_score_can_be():
    values = [350.0, 500.0, 500.0]
    free, bound = stats.interval(values), stats.interval(values, bounds=(0, 500))
    assert free.high > 500 == bound.high and bound.low == max(free.low, 0)


def held(kind, rng, seeds, samples, interval):
    """The share of samples whose interval holds the truth, among those that have one."""
    if kind == "normal":
        values, truth = rng.normal(5.0, 2.0, (seeds, samples)), 5.0
    elif kind == "t3":
        values, truth = rng.standard_t(3, (seeds, samples)), 0.0
    elif kind == "lognormal":
        values, truth = rng.lognormal(size=(seeds, samples)), 1.0729227
    else:  # 30 % of the seeds fail: of the middle half a tenth does
        values, truth = np.where(rng.random((seeds, samples)) < 0.3, 0.0, 500.0), 450.0
    low, high = interval(values)
    has = high > low
    assert has.mean() > 0.5
    return np.mean((low <= truth + 1e-9)[has] & (truth - 1e-9 <= high)[has])


@pytest.mark.parametrize("kind", ["normal", "lognormal", "t3", "bimodal"])
def test_the_interval_keeps_its_word_with_few_seeds(kind):
    rng = np.random.default_rng(12)

    def shown(values):
        return stats.interval(values, resamples=500)[1:]

    for seeds, least in ((3, 0.93), (5, 0.90), (10, 0.92), (32, 0.92)):
        # 3,000 samples: the Monte Carlo error of the share is below 0.005.
        assert held(kind, rng, seeds, 3_000, shown) >= least - 0.01, seeds


@pytest.mark.parametrize("kind", ["normal", "lognormal", "t3"])
def test_the_percentile_bootstrap_alone_would_fail_that(kind):
    rng = np.random.default_rng(12)

    def plain(values):
        return stats.bootstrap_interval(values, resamples=500)

    assert held(kind, rng, 3, 3_000, plain) < 0.80
    assert held(kind, rng, 5, 3_000, plain) < 0.92


def test_the_seed_decides_the_interval():
    values = normals(16, 4)
    first = stats.bootstrap_interval(values, seed=1)
    np.random.seed(0)  # global state must not matter
    np.testing.assert_array_equal(stats.bootstrap_interval(values, seed=1), first)
    assert (np.asarray(stats.bootstrap_interval(values, seed=2)) != np.asarray(first)).all()
    with pytest.raises(ValueError, match="seed must be a whole number, got None"):
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
    assert summary.interval_text() == stats.ONE_SEED
    assert np.isnan(stats.interval([3.0])[1:]).all()
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
    assert (summary.low, summary.high) == stats.interval([4, 1, 3, 2])[1:]
    assert all(type(field) is float for field in summary[1:-1]) and summary.note == ""
    assert summary.interval_text(2) == f"{summary.low:.2f} to {summary.high:.2f}"


def test_probability_of_improvement_equals_mann_whitney():
    x, y = normals(11) > 0, normals(17, seed=1).round()  # with ties
    u = scipy.stats.mannwhitneyu(x, y).statistic
    assert stats.probability_of_improvement(x, y).value == pytest.approx(u / (11 * 17))
    assert stats.probability_of_improvement([2, 3], [0, 1, 1]).value == 1.0
    assert stats.probability_of_improvement([1, 1], [1, 1]).value == 0.5
    assert stats.probability_of_improvement([1, 4], [2, 3]).value == 0.5


def test_probability_of_improvement_interval_equals_scipys():
    x, y = normals(14) + 0.4, normals(9, seed=1)

    def wins(a, b, axis):
        return (np.sign(a[..., :, None] - b[..., None, :]) / 2 + 0.5).mean(axis=(-1, -2))

    oracle = scipy.stats.bootstrap(
        (x, y), wins, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    )
    value, low, high = stats.probability_of_improvement(x, y, resamples=20_000)
    tolerance = 0.08 * oracle.standard_error
    # Newcombe's interval: the p that lie 1.96 of their own standard errors from the share.
    p = np.linspace(0.001, 0.999, 9981)
    error = np.sqrt(p * (1 - p) * (1 + 10.5 * ((1 - p) / (2 - p) + p / (1 + p))) / (14 * 9))
    near = p[np.abs(value - p) <= 1.959964 * error]
    assert low == pytest.approx(min(oracle.confidence_interval.low, near[0]), abs=tolerance)
    assert high == pytest.approx(max(oracle.confidence_interval.high, near[-1]), abs=tolerance)


def test_what_always_wins_has_an_interval_all_the_same():
    few = stats.probability_of_improvement([5, 6, 7], [1, 2, 3])
    many = stats.probability_of_improvement(np.arange(20) + 30, np.arange(20))
    assert few.value == few.high == many.value == many.high == 1.0 and few.low < many.low < 1
    # Two equal sides of three come to that one time in ten: a half must not be ruled out.
    assert few.low == pytest.approx(scipy.stats.binomtest(3, 3).proportion_ci(method="wilson").low)
    assert few.low < 0.5 and stats.probability_of_improvement([1, 2], [8, 9]).high > 0.5
    pairs = stats.probability_of_improvement([5, 6, 7], [1, 2, 3], paired=True)
    wilson = scipy.stats.binomtest(3, 3).proportion_ci(method="wilson")
    assert pairs[1:] == pytest.approx((wilson.low, wilson.high))


def test_paired_comparisons_see_what_unpaired_ones_cannot():
    luck = 100 * normals(20)
    x, y = luck + 1 + 0.1 * normals(20, seed=1), luck
    paired = stats.difference(x, y, paired=True)
    assert paired.value == pytest.approx(stats.iqm(x - y))
    assert paired[1:] == stats.interval(x - y)[1:]
    assert 0 < paired.low < paired.value < paired.high
    unpaired = stats.difference(x, y)
    assert unpaired.value == pytest.approx(stats.iqm(x) - stats.iqm(y))
    assert unpaired.low < 0 < unpaired.high
    assert stats.probability_of_improvement(x, y, paired=True).value == 1.0
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
    result = stats.difference(x, y, alias, resamples=20_000)  # whose name is not known
    tolerance = 0.08 * oracle.standard_error
    assert result[1:] == pytest.approx(tuple(oracle.confidence_interval), abs=tolerance)
    # Of the IQM it is the hull with both sides' intervals put together.
    hull = stats.difference(x, y, resamples=20_000)
    a, b = stats.interval(x, resamples=20_000), stats.interval(y, resamples=20_000)
    apart = a.value - b.value
    low = apart - np.hypot(a.value - a.low, b.high - b.value)
    high = apart + np.hypot(a.high - a.value, b.value - b.low)
    assert hull.low == pytest.approx(min(low, result.low))
    assert hull.high == pytest.approx(max(high, result.high))
    # The same data on both sides: were the draws shared, the interval would have no width.
    assert stats.difference(x, x).low < 0 < stats.difference(x, x).high


def test_performance_profile_by_hand():
    scores, taus = np.array([0.0, 1.0, 1.0, 3.0]), np.array([-1.0, 0.0, 1.0, 2.0, 3.0])
    profile = stats.performance_profile(scores, taus)
    np.testing.assert_array_equal(profile.value, [1.0, 0.75, 0.25, 0.25, 0.0])
    oracle = np.array(stats.bootstrap_interval(scores[:, None] > taus, np.mean))
    wilson = np.array(
        [scipy.stats.binomtest(k, 4).proportion_ci(method="wilson") for k in (4, 3, 1, 1, 0)]
    ).T
    np.testing.assert_allclose(profile.low, np.minimum(oracle[0], wilson[0]), atol=1e-12)
    np.testing.assert_allclose(profile.high, np.maximum(oracle[1], wilson[1]), atol=1e-12)
    assert (profile.low < profile.high).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: stats.iqm([]), "seeds"),
        (lambda: stats.iqm([1.0], nan="skip"), "'raise', 'drop'"),
        (lambda: stats.iqm([1.0], nan=float("nan")), "finite"),
        (lambda: stats.bootstrap_interval(np.zeros((0, 3))), r"\[0, 3\]"),
        (lambda: stats.bootstrap_interval([1.0, 2.0], level=95), "level is 95"),
        (lambda: stats.interval([1.0, 2.0], level=95), "level is 95"),
        (lambda: stats.interval([1.0, 2.0], np.median), "'median'.*bootstrap_interval"),
        (lambda: stats.interval([1.0, 2.0], bounds=(1, 0)), "bounds are 1 and 0"),
        (lambda: stats.interval([1.0, 2.0], bounds=(0, 1.5)), "beyond the bounds 0 to 1.5"),
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


def test_statistics_stand_on_nothing_else_of_dqx_but_checks_of_arguments():
    code = (
        "import sys, dqx.stats; "
        "sys.exit([m for m in sys.modules if m.startswith('dqx.') and "
        "not m.startswith(('dqx.stats', 'dqx.arguments'))] or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(hasattr(stats, name) for name in stats.__all__)
