"""What Optuna proposes: the same for the same file, within the space, and better later."""

import math
import sys

import numpy as np
import pytest
import scipy.stats

from dqx.settings import ConfigError
from dqx.study.tuning import proposals
from dqx.study.tuning.file import read_tune
from tests.study.tune_kit import SPACE, table

MIXED = {
    **SPACE,
    "target_period": {"log_uniform": [1, 1000]},
    "hidden_sizes": {"choice": [[8], [16, 16]]},
    "double": {"choice": [False, True]},
}
SAMPLERS = ["tpe", "random", "cmaes"]


def worth(values):
    """Best at a learning rate of 1e-3 and a discount of 0.95."""
    return -abs(math.log10(values["learning_rate"]) + 3) - 10 * abs(values["gamma"] - 0.95)


def proposed(told=worth, generations=4, **changes):
    """The candidates of all generations."""
    pytest.importorskip("optuna")
    proposer, found = proposals.Optuna(read_tune(table(**changes))), []
    for generation in range(generations):
        found.append(proposer.ask(generation))
        proposer.tell([told(values) for values in found[-1]])
    return found


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_file_gives_the_same_candidates(sampler):
    space = SPACE if sampler == "cmaes" else MIXED
    first = proposed(sampler=sampler, space=space)
    assert proposed(sampler=sampler, space=space) == first
    assert proposed(sampler=sampler, space=space, seed=2)[0] != first[0]
    assert [len(generation) for generation in first] == [6] * 4
    names = {str(values) for generation in first for values in generation}
    assert len(names) == 24


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_what_is_told_decides_what_comes_next(sampler):
    one = proposed(sampler=sampler)
    other = proposed(lambda values: -worth(values), sampler=sampler)
    assert one[0] == other[0] and one[-1] != other[-1]


def test_candidates_lie_in_the_space():
    found = [values for born in proposed(space=MIXED, population=40) for values in born]
    for values in found:
        assert list(values) == list(MIXED)
        assert 1e-5 <= values["learning_rate"] <= 0.1 and 0.9 <= values["gamma"] <= 0.999
        assert type(values["target_period"]) is int and 1 <= values["target_period"] <= 1000
        assert values["hidden_sizes"] in ([8], [16, 16]) and values["double"] in (False, True)
        assert float(f"{values['learning_rate']:.6g}") == values["learning_rate"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_first_generation_is_drawn_as_the_rules_say(sampler):
    (born,) = proposed(generations=1, population=300, sampler=sampler)
    rates = [values["learning_rate"] for values in born]
    gammas = [values["gamma"] for values in born]
    assert scipy.stats.kstest(rates, scipy.stats.loguniform(1e-5, 1e-1).cdf).pvalue > 0.01
    assert scipy.stats.kstest(gammas, scipy.stats.uniform(0.9, 0.099).cdf).pvalue > 0.01


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_later_generations_are_better(sampler):
    found = proposed(sampler=sampler, generations=8, population=10)
    means = [np.mean([worth(values) for values in born]) for born in found]
    assert np.mean(means[-2:]) > means[0] + 0.3
    random = proposed(sampler="random", generations=8, population=10)
    by_luck = [np.mean([worth(values) for values in born]) for born in random]
    assert np.mean(means[-2:]) > np.mean(by_luck[-2:]) + 0.3


def test_a_candidate_that_failed_has_no_value():
    found = proposed(lambda values: None, generations=2)
    assert len(found[1]) == 6


def test_optunas_own_settings_stay(capfd):
    optuna = pytest.importorskip("optuna")
    before = optuna.logging.get_verbosity()
    proposed(generations=1)
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("sampler", "lacking"), [("tpe", "optuna"), ("cmaes", "cmaes")])
def test_what_is_not_installed_is_told_with_its_command(sampler, lacking, monkeypatch):
    monkeypatch.setitem(sys.modules, lacking, None)  # importing it fails now
    monkeypatch.setattr(
        proposals.importlib.util, "find_spec", lambda name: None if name == lacking else object()
    )
    with pytest.raises(ConfigError, match=r"pip install 'dqx\[tune\]'") as caught:
        proposals.Optuna(read_tune(table(sampler=sampler)))
    assert lacking in str(caught.value).lower()
