"""Tune files: read, kept as JSON, and refused in one line."""

import json
import math

import pytest

from dqx.settings import ConfigError
from dqx.study.folder import StudyError
from dqx.study.tuning.file import read_tune
from tests.study.tune_kit import SPACE, table

TEXT = """
name = "mine"
root_seed = 7
[base]
preset = "cartpole"
max_grad_norm = inf
env.gravity = 9.0
[tune]
generations = 2
population = 4
rungs = [1, 3]
seeds = "10:13"
fresh_seeds = "100:132"
sampler = "random"
seed = 5
keep = 0.5
level = 0.9
[tune.space]
learning_rate = { log_uniform = [1e-4, 1e-2] }
hidden_sizes = { choice = [[64, 64], [120, 84]] }
target_period = { uniform = [10, 400] }
env.length = { uniform = [0.3, 0.7] }
"""


def test_a_file_is_read(tmp_path):
    (tmp_path / "t.toml").write_text(TEXT)
    tune = read_tune(tmp_path / "t.toml")
    assert (tune.name, tune.root_seed, tune.sampler, tune.seed) == ("mine", 7, "random", 5)
    assert tune.base == {"preset": "cartpole", "max_grad_norm": math.inf, "env.gravity": 9.0}
    assert list(tune.space) == ["learning_rate", "hidden_sizes", "target_period", "env.length"]
    assert tune.space["hidden_sizes"].values == ([64, 64], [120, 84])
    assert [rule.whole for rule in tune.space.values()] == [False, False, True, False]
    assert (tune.rungs, tune.seeds) == ((1, 3), (10, 11, 12))
    assert tune.fresh == tuple(range(100, 132))
    assert (tune.keep, tune.level) == (0.5, 0.9)
    assert tune.most_runs == 2 * 4 * 3 + 32


def test_what_is_left_out_has_defaults(tmp_path):
    (tmp_path / "short.toml").write_text("[tune.space]\ngamma = { uniform = [0.9, 0.99] }\n")
    tune = read_tune(tmp_path / "short.toml")
    assert (tune.name, tune.base, tune.root_seed) == ("short", {}, 0)
    assert (tune.generations, tune.population, tune.rungs) == (4, 16, (2, 4, 8, 16))
    assert (tune.seeds, tune.fresh) == (tuple(range(16)), tuple(range(16, 48)))
    assert (tune.sampler, tune.seed, tune.keep, tune.level) == ("tpe", 0, 1.0, 0.95)


def test_the_record_is_strict_json_and_the_same_search(tmp_path):
    (tmp_path / "t.toml").write_text(TEXT)
    tune = read_tune(tmp_path / "t.toml")
    text = json.dumps(tune.record, allow_nan=False)
    again = read_tune(json.loads(text))
    assert again.record == tune.record
    assert (again.space.keys(), again.fresh, again.seeds) == (
        tune.space.keys(), tune.fresh, tune.seeds,
    )  # fmt: skip
    assert [r.kind for r in again.space.values()] == [r.kind for r in tune.space.values()]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"fresh_seeds": 2},
        {"seeds": [9, 3], "rungs": [1, 2]},
        {"seeds": "50:54", "fresh_seeds": "0:20"},
        {"seeds": [1, 3, 5, 7], "fresh_seeds": [0, 2, 4, 6]},
    ],
)
def test_fresh_seeds_are_none_of_the_search(given):
    tune = read_tune(table(**given))
    assert len(tune.fresh) >= 2 and not set(tune.fresh) & set(tune.seeds)


MISTAKES = [
    ({"space": {**SPACE, "learning_rat": {"uniform": [0, 1]}}}, "learning_rat'.*learning_rate"),
    ({"space": {}}, "no field"),
    ({"space": {"gamma": {"choice": [0.9, 0.9]}}}, "gamma has one value only.*\\[base\\]"),
    ({"space": {"gamma": {"uniform": [0.9, 0.9]}}}, "two rising numbers"),
    ({"space": {"gamma": {"normal": [0.9, 1]}}}, "log_uniform, uniform, choice"),
    ({"space": {"gamma": {"uniform": [0.9, 1.5]}}}, "gamma.*1.5"),
    ({"space": {"double": {"uniform": [0, 1]}}}, "double takes no number"),
    ({"space": {"double": {"choice": [True, 3]}}}, "double.*3"),
    ({"space": {"preset": {"choice": ["cartpole", "cartpol"]}}}, "cartpol"),
    ({"space": {"env.gravty": {"uniform": [8, 12]}}}, "gravty.*gravity"),
    (
        {"space": {"eval_period": {"choice": [0, 10_000]}}},
        "episode_return of CartPole-v1 and eval_period = 10000 by the eval_return",
    ),
    (
        {"space": {"time_limit": {"choice": [100, 200]}}},
        "CartPole-v1 with time_limit 100 and time_limit = 200 by",
    ),
    ({"rungs": [4, 2]}, "rungs must rise.*\\[4, 2\\]"),
    ({"rungs": [2, 2]}, "rungs must rise"),
    ({"rungs": []}, "rungs must be a list"),
    ({"rungs": [2, "4"]}, "rungs must be a list"),
    ({"seeds": "0:3"}, "seeds must be 4"),
    ({"seeds": [1, 1, 2, 3]}, "more than once: 1"),
    ({"fresh_seeds": "3:9"}, "fresh_seeds has 3.*from 4 on"),
    ({"fresh_seeds": 1}, "2 or more"),
    ({"fresh_seeds": [77]}, "2 or more"),
    ({"population": 0}, "population must be a whole number from 1"),
    ({"generations": 2.5}, "generations must be"),
    ({"generations": 200, "population": 200}, "more than 10,000"),
    ({"sampler": "tpo"}, "tpe, cmaes, random.*closest are tpe"),
    ({"sampler": "cmaes", "space": {**SPACE, "double": {"choice": [True, False]}}}, "double is a"),
    ({"sampler": "cmaes", "space": {"gamma": {"uniform": [0.9, 1]}}}, "two fields"),
    ({"keep": 0}, "keep must be above 0"),
    ({"level": 1.0}, "level must be"),
    ({"fresh_seed": 3}, "fresh_seed'.*fresh_seeds"),
]


def test_presets_of_different_games_are_not_searched_together():
    def space(*names):
        return {"tune": {"space": {"preset": {"choice": list(names)}}}}

    words = "preset = 'acrobot' is scored by the eval_return of Acrobot-v1 and preset = 'taxi' by "
    with pytest.raises(StudyError, match=f"{words}the exact_return of Taxi-v4, which cannot be"):
        read_tune(space("acrobot", "taxi"))
    assert read_tune(space("cartpole", "cartpole/per")).space.keys() == {"preset"}


@pytest.mark.parametrize(("changes", "words"), MISTAKES, ids=[words for _, words in MISTAKES])
def test_a_mistake_is_told(changes, words):
    with pytest.raises((StudyError, ConfigError), match=words) as caught:
        read_tune(table(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": 8}, "unknown entry 'seeds'"),
        ({"tune": None}, "no table \\[tune\\].*dqx study"),
        ({"name": "../x"}, "name must be"),
        ({"root_seed": -1}, "root_seed"),
        ({"base": {"learning_rat": 1}}, "learning_rate"),
        ({"base": 3}, "base must be a table"),
    ],
)
def test_a_mistake_outside_of_the_table_is_told(change, words):
    with pytest.raises((StudyError, ConfigError), match=words):
        read_tune({**table(), **change})


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(StudyError, match="No such file"):
        read_tune(tmp_path / "none.toml")
    (tmp_path / "t.toml").write_text("a = [")
    with pytest.raises(StudyError, match="is no TOML"):
        read_tune(tmp_path / "t.toml")
