"""Every function of `dqx.stats` with every argument wrong in turn: an error of ours says so."""

import inspect

import numpy as np
import pytest

from dqx import stats
from tests.wrong_calls import WRONG, refusals

RNG = np.random.default_rng(0)
VALUES, MATRIX = RNG.normal(20, 5, 8), RNG.normal(20, 5, (8, 3))
STEPS, TIMES, REACHED = [10.0, 20.0, 30.0], [1.0, 2.0, 3.0], [True, True, False]
BOUNDS = {"bounds": (0, 100)}
PAIR = {"x": VALUES, "y": VALUES + 1}
# What each function takes, beside what several do by the same names.
TAKES = {
    "aggregate_iqm": {"scores": MATRIX},
    "aggregate_mean": {"scores": MATRIX},
    "aggregate_median": {"scores": MATRIX},
    "aggregate_optimality_gap": {"scores": MATRIX, "gamma": 1.0},
    "area_under_curve": {"steps": STEPS, "values": MATRIX},
    "bootstrap_interval": {"values": VALUES},
    "cliffs_delta": PAIR,
    "confidence_sequence": {"values": VALUES, **BOUNDS},
    "create_performance_profile": {
        "score_dict": {"a": MATRIX}, "tau_list": [1.0, 2.0], "use_score_distribution": True,
    },
    "cvar": {"values": VALUES, "share": 0.25},
    "decide": {**PAIR, **BOUNDS},
    "difference": PAIR,
    "get_interval_estimates": {"score_dict": {"a": MATRIX}, "func": stats.aggregate_iqm},
    "holm": {"p_values": [0.1, 0.2]},
    "improvement_over_tasks": {"x": MATRIX, "y": MATRIX},
    "interval": {"values": VALUES, **BOUNDS},
    "iqm": {"values": VALUES},
    "lowered": {"scores": VALUES, "difference": 1.0},
    "median": {"values": VALUES},
    "median_steps": {"steps": TIMES, "reached": REACHED},
    "min_max_normalize": {"scores": {"a": MATRIX, "b": MATRIX + 1}},
    "normalize": {"scores": MATRIX, "low": 0.0, "high": 1.0},
    "optimality_gap": {"values": VALUES, "target": 1.0},
    "performance_profile": {"values": VALUES, "thresholds": [1.0, 2.0]},
    "permutation_test": {**PAIR, "permutations": 10},
    "probability_of_improvement": PAIR,
    "quantile": {"values": VALUES, "share": 0.5},
    "reference_presets": {},
    "reference_scores": {"preset": "cartpole"},
    "restricted_mean_steps": {"steps": TIMES, "reached": REACHED, "until": 2.0},
    "robust_effect": PAIR,
    "seeds_needed": {"a": VALUES, "b": VALUES + 9, "power": 0.8, "most": 30},
    "sequential_difference": {**PAIR, **BOUNDS},
    "share_reaching": {"values": VALUES, "bar": 20.0},
    "simultaneous_band": {"values": MATRIX},
    "steps_to_threshold": {"steps": STEPS, "values": MATRIX, "threshold": 20.0, "window": 1},
    "stratified": {"scores": MATRIX, "resamples": 4},
    "summarize": {"values": VALUES},
    "survival_curve": {"steps": TIMES, "reached": REACHED},
    "why_none": {"n": 3, "low": 1.0},
    "wrong_winner": {"a": VALUES, "b": VALUES + 1, "seeds": (3, 5)},
}  # fmt: skip
SHARED = {
    "level": 0.95, "resamples": 10, "seed": 0, "nan": "raise", "paired": False, "axis": 0,
    "statistic": stats.iqm, "method": "scaled", "task_bootstrap": False,
}  # fmt: skip
# No argument of these kinds takes these of the wrong values, whatever it is for.
NEVER = ("", "abc", b"x", 1j)


def given(name):
    takes = inspect.signature(getattr(stats, name)).parameters
    return {**{n: v for n, v in SHARED.items() if n in takes}, **TAKES[name]}


def test_every_public_function_and_argument_is_in_the_table():
    functions = {n for n in stats.__all__ if inspect.isfunction(getattr(stats, n))}
    assert functions == TAKES.keys()
    for name in functions:
        assert given(name).keys() == inspect.signature(getattr(stats, name)).parameters.keys()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numbers near the largest there are
@pytest.mark.parametrize("name", TAKES)
def test_a_wrong_argument_is_an_error_of_ours(name):
    call, arguments = getattr(stats, name), given(name)
    call(**arguments)
    for argument in arguments:
        said = dict(zip(map(repr, WRONG), refusals(call, arguments, argument), strict=True))
        for value in NEVER:
            assert argument in said[repr(value)], (argument, value, said)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: stats.iqm(None), r"values must be real numbers in an array .*, got None"),
        (lambda: stats.iqm([[1, 2], [3]]), r"array of one shape, got \[\[1, 2\], \[3\]\]"),
        (lambda: stats.iqm([1, 2], axis=1), r"axis is 1: values of shape \[2\] have no such axis"),
        (lambda: stats.iqm([1, 2], nan=None), "nan must be 'raise', 'drop' or the number"),
        (lambda: stats.difference([1], [2], paired=1), "paired must be True or False, got 1"),
        (lambda: stats.interval([1, 2], resamples=10**9), "resamples is 10+: .* at most 1,000,000"),
        (lambda: stats.permutation_test([1], [2], permutations=10**9), "at most 1,000,000"),
        (lambda: stats.wrong_winner([1], [2], [10**9]), "10,000 at most"),
        (lambda: stats.wrong_winner([1], [2], []), "seeds must be a list .*, at least one"),
        (lambda: stats.seeds_needed([1, 2], [3, 4], most=10**9), "most is 10+: give 2 to 10,000"),
        (lambda: stats.bootstrap_interval([1, 2], len), "statistic must take .*: len raised T"),
        (lambda: stats.bootstrap_interval([1, 2], lambda a, axis: a), "numbers without the axis"),
        (lambda: stats.get_interval_estimates({}, np.mean), "by the algorithms' names, at least"),
        (lambda: stats.get_interval_estimates({"a": MATRIX}, print), "func must give a number"),
        (lambda: stats.interval([1, 2], bounds=None), r"bounds must be two numbers, such as \(0, "),
        (lambda: stats.decide([1], [2], (0, np.inf)), "bounds is inf: give a finite number"),
        (lambda: stats.normalize([1.0], 0, np.inf), "high must be finite, got inf"),
        (lambda: stats.survival_curve([1.0], [np.nan]), "reached must be True or False for each"),
        (lambda: stats.steps_to_threshold(STEPS, MATRIX, np.nan), "threshold is nan"),
    ],
)  # fmt: skip
def test_what_is_allowed_is_said(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_what_was_taken_before_is_taken_still():
    whole = [1, 2, 3, 4]
    for values in (whole, tuple(whole), np.array(whole, np.float16), np.array(whole, object)):
        assert stats.iqm(values) == 2.5
    assert stats.iqm([True, False]) == 0.5
    assert stats.iqm([1.0, None], nan="drop") == 1.0  # as JSON has it
    assert stats.quantile(whole, np.float64(0.5)).value == 2.5
    assert stats.interval(whole, level=np.float32(0.5), seed=np.int64(3)).value == 2.5
    assert stats.difference(whole, whole, paired=np.True_).value == 0
