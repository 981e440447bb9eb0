"""The score of a run: which metric, and which of its rows."""

import dataclasses

import numpy as np
import pytest

from dqx.compute.score import score, score_metric
from dqx.settings import Config

NAN = np.nan


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "eval_return"),
        ({"exact_metrics": True}, "exact_return"),
        ({"eval_period": 0}, "episode_return"),
    ],
)
def test_the_best_metric_that_there_is_counts(fields, name):
    config = dataclasses.replace(Config(), **fields)
    assert score_metric(config) == name
    metrics = dict.fromkeys(("eval_return", "exact_return", "episode_return"), np.array([-1.0]))
    metrics[name] = np.array([3.0])
    assert score(config, metrics) == 3.0


def test_of_evaluations_the_last_row_counts_whatever_it_holds():
    values = np.array([[1.0, NAN, 2.0], [5.0, 4.0, NAN], [1.0, 2.0, -np.inf]])
    np.testing.assert_array_equal(score(Config(), {"eval_return": values}), [2.0, NAN, -np.inf])


def test_of_training_the_last_number_counts():
    values = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, NAN], [1.0, NAN, NAN], [NAN, NAN, NAN]])
    config = Config(eval_period=0)
    np.testing.assert_array_equal(score(config, {"episode_return": values}), [3.0, 2.0, 1.0, NAN])
    grid = np.stack([values, values[::-1]])
    found = score(config, {"episode_return": grid})
    np.testing.assert_array_equal(found, [[3.0, 2.0, 1.0, NAN], [NAN, 1.0, 2.0, 3.0]])
    assert score(config, {"episode_return": values[1]}) == 2.0
