"""Aggregates over tasks against fixed values of rliable, and stratified intervals.

The fixed values are those of rliable 1.2.0 with arch 8.0.0 (whose `random_state` argument is now
`seed`; rliable's two calls were changed to say so), 20,000 resamples:

    library.get_interval_estimates({"A": A, "B": B}, lambda x: np.array([
        metrics.aggregate_median(x), metrics.aggregate_iqm(x),
        metrics.aggregate_mean(x), metrics.aggregate_optimality_gap(x)]), reps=20000)
"""

import numpy as np
import pytest
import scipy.stats

from dqx import stats

A = np.array([[0.6, 0.69, 0.52, 0.33], [0.46, 0.3, 0.62, 1.0], [0.45, 0.41, 0.75, 0.71],
              [0.63, 0.32, 0.59, 0.81], [0.2, 0.46, 0.03, 0.21]])  # fmt: skip
B = np.array([[-0.15, 0.33, 0.02, 0.48], [0.45, 0.34, -0.36, 0.24], [0.39, 0.43, -0.06, 0.26],
              [0.11, 0.16, 0.72, 0.16], [0.39, 0.67, 0.22, 0.37], [0.43, 0.42, 0.03, 0.42],
              [0.81, -0.06, 0.66, 0.44]])  # fmt: skip
TAUS = [0, 0.25, 0.5, 0.75, 1.0]


def four(scores):
    return [
        stats.aggregate_median(scores),
        stats.aggregate_iqm(scores),
        stats.aggregate_mean(scores),
        stats.aggregate_optimality_gap(scores),
    ]


def test_aggregates_equal_rliables():
    assert four(A) == pytest.approx([0.485, 0.507, 0.5045, 0.4955])
    assert four(B) == pytest.approx([0.33285714, 0.32571429, 0.29714286, 0.70285714])
    assert stats.aggregate_iqm(B) == pytest.approx(scipy.stats.trim_mean(B, 0.25, axis=None))
    assert stats.improvement_over_tasks(A, B).value == pytest.approx(0.6928571428571428)
    assert stats.probability_of_improvement(A, B) == stats.improvement_over_tasks(A, B)
    with pytest.raises(ValueError, match="one axis"):
        stats.probability_of_improvement(A, A, paired=True)


def test_intervals_equal_rliables():
    found = stats.get_interval_estimates(
        {"A": A, "B": B}, four, method="percentile", resamples=4_000
    )
    # Monte Carlo error of an end at 4,000 resamples is below 0.006.
    np.testing.assert_allclose(
        found.interval_estimates["A"],
        [[0.392, 0.393, 0.406, 0.403], [0.590, 0.608, 0.597, 0.594]],
        atol=0.012,
    )
    np.testing.assert_allclose(
        found.interval_estimates["B"],
        [[0.2179, 0.2186, 0.2029, 0.6064], [0.4014, 0.4079, 0.3936, 0.7971]],
        atol=0.016,
    )
    tasks = stats.get_interval_estimates(
        {"A": A}, four, method="percentile", resamples=4_000, task_bootstrap=True
    )
    np.testing.assert_allclose(
        tasks.interval_estimates["A"],
        [[0.388, 0.379, 0.399, 0.3685], [0.635, 0.655, 0.6315, 0.601]],
        atol=0.016,
    )
    improvement = stats.improvement_over_tasks(A, B)
    assert improvement[1:] == pytest.approx((0.5214, 0.8464), abs=0.03)


@pytest.mark.parametrize(
    ("runs", "value", "low", "high"),
    [
        (True, [1.0, 0.85, 0.5, 0.1, 0.0], [1.0, 0.7, 0.3, 0.0, 0.0], [1.0, 1.0, 0.7, 0.2, 0.0]),
        (False, [1.0, 1.0, 0.5, 0.0, 0.0], [1.0, 0.75, 0.0, 0, 0], [1.0, 1.0, 0.75, 0.25, 0.0]),
    ],
)
def test_profiles_equal_rliables(runs, value, low, high):
    found = stats.create_performance_profile(
        {"A": A}, TAUS, use_score_distribution=runs, method="percentile"
    )
    np.testing.assert_allclose(found.point_estimates["A"], value, atol=1e-12)
    np.testing.assert_allclose(found.interval_estimates["A"], [low, high], atol=1e-12)


def test_scaled_intervals_are_those_of_the_spread_around_the_truth():
    plain, scaled = (
        stats.get_interval_estimates({"A": A}, stats.aggregate_mean, method=m).interval_estimates[
            "A"
        ]
        for m in ("percentile", "scaled")
    )
    mean = A.mean()
    np.testing.assert_allclose(scaled - mean, (plain - mean) * np.sqrt(5 / 4))
    # Of the mean over tasks it is the textbook's: the variance of each task's mean, added up.
    error = np.sqrt((A.var(axis=0, ddof=1) / 5).sum()) / 4
    assert (scaled[1] - scaled[0]).item() == pytest.approx(2 * 1.96 * error, rel=0.08)


@pytest.mark.parametrize(
    ("method", "least", "most"), [("scaled", 0.91, 0.98), ("percentile", 0.80, 0.905)]
)
def test_of_three_seeds_on_ten_tasks_scaled_intervals_hold_and_percentiles_do_not(
    method, least, most
):
    rng = np.random.default_rng(3)
    held = 0
    for repeat in range(300):
        scores = rng.normal(np.arange(10) / 10, 1.0, (3, 10))
        found = stats.get_interval_estimates(
            {"x": scores}, np.mean, method=method, resamples=200, seed=repeat
        )
        low, high = found.interval_estimates["x"]
        held += bool(low <= 0.45 <= high)
    assert least < held / 300 < most


def test_each_task_is_resampled_on_its_own():
    scores = np.arange(3)[:, None] + 100 * np.arange(4)  # seeds 0 to 2 of tasks 0, 100, 200, 300
    samples = stats.stratified(scores, 200, seed=1)
    assert samples.shape == (200, 3, 4)
    assert (samples // 100 == np.arange(4)).all()
    seeds = samples % 100
    assert {0, 1, 2} == set(seeds.ravel()) and (seeds[..., 0] != seeds[..., 1]).any()
    other = stats.stratified(scores, 200, seed=1, task_bootstrap=True)
    tasks = other[:, 0] // 100
    assert (tasks != np.arange(4)).any() and (other // 100 == tasks[:, None]).all()


def test_normalisation_by_hand():
    scores = [[-200.0, 250.0], [-100.0, 500.0]]
    np.testing.assert_allclose(stats.normalize(scores, [-200, 0], [-100, 500]), [[0, 0.5], [1, 1]])
    np.testing.assert_allclose(stats.normalize([5.0, np.nan], 0, 10), [0.5, np.nan])
    human = stats.normalize([[300.0]], low=22.2, high=322.2)  # a random policy's and a human's
    assert human.item() == pytest.approx(0.926)
    both = stats.min_max_normalize({"a": [[1.0, 0], [3, 0]], "b": [[5.0, 10], [np.nan, 4]]})
    np.testing.assert_allclose(both["a"], [[0, 0], [0.5, 0]])
    np.testing.assert_allclose(both["b"], [[1, 1], [np.nan, 0.4]])


def test_a_single_seed_has_no_interval_and_nan_is_never_left_out_in_silence():
    found = stats.get_interval_estimates({"x": A[:1]}, stats.aggregate_iqm)
    assert np.isnan(found.interval_estimates["x"]).all() and found.point_estimates["x"] > 0
    broken = A.copy()
    broken[0, 0] = np.nan
    for function in (stats.aggregate_mean, stats.aggregate_median, stats.aggregate_iqm):
        with pytest.raises(ValueError, match="NaN or infinite"):
            function(broken)
    worst = np.where(np.isnan(broken), -1.0, broken)
    assert stats.aggregate_median(broken, nan=-1) == stats.aggregate_median(worst)
    assert stats.aggregate_iqm(broken, nan="drop") == pytest.approx(
        scipy.stats.trim_mean(broken[np.isfinite(broken)], 0.25)
    )
    assert stats.aggregate_mean(broken, nan="drop") == pytest.approx(
        np.nanmean(broken, axis=0).mean()
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: stats.normalize([[1, 2]], [1, 2, 3], 5), r"low has shape \[3\]"),
        (lambda: stats.normalize([[1, 2]], 1, [1, 2]), "high must lie above low"),
        (lambda: stats.get_interval_estimates({"a": A}, np.mean, method="bca"), "'bca'"),
        (lambda: stats.get_interval_estimates({"a": A}, np.mean, nan="drop"), "'drop'"),
        (lambda: stats.improvement_over_tasks(A, B[:, :3]), "same tasks"),
        (lambda: stats.get_interval_estimates({"a": A[None]}, np.mean), r"\[1, 5, 4\]"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
