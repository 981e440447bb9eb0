"""Random searches: drawn as the rules say, the same every time, and extended by more draws."""

import numpy as np
import scipy.stats

from dqx.study import read_plan

SMALL = {"total_steps": 400, "learning_starts": 100, "log_period": 100, "eval_period": 200}


def search(draws, seed=3, **rules):
    return read_plan({"base": SMALL, "search": {"draws": draws, "seed": seed, **rules}}).points


def test_log_uniform_draws_are_log_uniform():
    points = search(2000, learning_rate={"log_uniform": [1e-5, 1e-1]})
    drawn = np.array([p.hyper.learning_rate for p in points])
    assert len(drawn) == 2000 and drawn.min() >= 1e-5 and drawn.max() <= 0.1
    test = scipy.stats.kstest(drawn, scipy.stats.loguniform(1e-5, 1e-1).cdf)
    assert test.pvalue > 0.01
    # The test can fail: uniform numbers are no log-uniform ones.
    uniform = [p.hyper.learning_rate for p in search(2000, learning_rate={"uniform": [1e-5, 0.1]})]
    assert scipy.stats.kstest(uniform, scipy.stats.loguniform(1e-5, 1e-1).cdf).pvalue < 1e-9
    assert scipy.stats.kstest(uniform, scipy.stats.uniform(1e-5, 0.1 - 1e-5).cdf).pvalue > 0.01


def test_choices_are_equally_frequent_and_fields_independent():
    points = search(
        3000, loss={"choice": ["squared", "huber", "keras_mse"]}, gamma={"uniform": [0.9, 1]}
    )
    # gamma has 100,000 values of six digits, so that some points of 3,000 may be equal.
    assert len(points) > 2950
    losses = [p.config.loss for p in points]
    counts = [losses.count(name) for name in ("squared", "huber", "keras_mse")]
    assert scipy.stats.chisquare(counts).pvalue > 0.01
    gammas = [[p.hyper.gamma for p in points if p.config.loss == name] for name in set(losses)]
    assert scipy.stats.f_oneway(*gammas).pvalue > 0.01


def test_search_is_the_same_every_time():
    rules = {"learning_rate": {"log_uniform": [1e-5, 1e-1]}, "double": {"choice": [False, True]}}
    assert search(20, **rules) == search(20, **rules)
    assert search(20, seed=4, **rules) != search(20, **rules)
    # Written out, so that the same plan means the same study in later versions.
    assert [p.hyper.learning_rate for p in search(3, **rules)] == [
        0.0636219,
        0.000129612,
        0.00078303,
    ]


def test_more_draws_extend_a_search_and_another_field_changes_no_draw():
    rate = {"learning_rate": {"log_uniform": [1e-5, 1e-1]}}
    few = [p.hyper.learning_rate for p in search(10, **rate)]
    assert [p.hyper.learning_rate for p in search(50, **rate)][:10] == few
    both = search(10, gamma={"uniform": [0.9, 0.999]}, **rate)
    assert [p.hyper.learning_rate for p in both] == few
    assert [p.hyper.gamma for p in search(10, gamma={"uniform": [0.9, 0.999]})] == [
        p.hyper.gamma for p in both
    ]


def test_whole_numbers_are_drawn_for_whole_fields():
    points = search(
        300, target_period={"log_uniform": [1, 1000]}, eval_episodes={"uniform": [1, 9]}
    )
    periods = [p.config.target_period for p in points]
    assert all(type(n) is int for n in periods) and {1, 2} < set(periods) and max(periods) > 500
    assert {p.config.eval_episodes for p in points} == set(range(1, 10))


def test_equal_draws_are_one_point_and_more_draws_still_extend():
    few = search(5, double={"choice": [False, True]}, loss={"choice": ["squared", "huber"]})
    many = search(99, double={"choice": [False, True]}, loss={"choice": ["squared", "huber"]})
    assert len(many) == 4 and many[: len(few)] == few
    assert len({p.config for p in many}) == 4


def test_search_beside_grid_and_cases():
    plan = read_plan(
        {
            "grid": {"gamma": [0.9]},
            "case": [{"name": "c"}],
            "search": {"draws": 2, "learning_rate": {"choice": [1e-3, 1e-4, 1e-2]}},
        }
    )
    names = [point.name for point in plan.points]
    assert names[:2] == ["gamma=0.9", "c"] and 3 <= len(names) <= 4
