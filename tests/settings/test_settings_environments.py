"""Settings of the environment: read from all that people write, sorted, drawn, and refused."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats

import envs
from dqx.settings import (
    Config,
    ConfigError,
    Hyper,
    environments,
    from_record,
    override,
    parse_assignments,
    to_record,
)
from dqx.settings.environments import Draw, resolved


def given(**fields):
    return override(Config(), Hyper(), **fields)


def test_nothing_given_asks_for_nothing(monkeypatch):
    monkeypatch.setattr(envs, "describe", None)
    assert resolved(Config(), Hyper()) == (Config(), Hyper())


def test_python_toml_and_the_command_line_say_the_same():
    texts = ["env.gravity=12", "env.tau=uniform(0.01, 0.03)"]
    pairs = [
        given(env={"gravity": 12, "tau": {"uniform": [0.01, 0.03]}}),
        given(**{"env.gravity": 12, "env.tau": Draw("uniform", 0.01, 0.03)}),
        given(**parse_assignments(texts)),
        given(
            env={"name": "CartPole-v1", "gravity": np.int32(12), "tau": Draw("uniform", 0.01, 0.03)}
        ),
    ]
    assert all(resolved(*pair) == resolved(*pairs[0]) for pair in pairs)
    config, hyper = resolved(*pairs[0])
    assert config.env_options == ()
    assert config.env_inputs == (("gravity", None), ("tau", Draw("uniform", 0.01, 0.03)))
    assert hyper.extra == {"env.gravity": 12.0, "env.tau": 0.02}
    assert type(hyper.extra["env.gravity"]) is float
    # To do it again changes nothing.
    assert resolved(config, hyper) == (config, hyper)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12), ("1e1", 10.0), (" 0.5 ", 0.5), ("true", True), ("False", False), ("4x4", "4x4"),
        ("log_uniform(1,100)", Draw("log_uniform", 1.0, 100.0)),
    ],
)  # fmt: skip
def test_texts_are_what_they_look_like(text, value):
    parsed = environments.parse("env.x", text)
    assert parsed == value and type(parsed) is type(value)


def test_floats_are_traced_and_everything_else_is_compiled_in():
    pair = given(
        env={
            "name": "Taxi-v4",
            "is_rainy": True,
            "rainy_probability": 0.7,
            "max_steps_in_episode": 50.0,
        }
    )
    config, hyper = resolved(*pair)
    assert config.env_options == (("is_rainy", True), ("max_steps_in_episode", 50))
    assert config.env_inputs == (("rainy_probability", None),)
    assert hyper.extra == {"env.rainy_probability": 0.7}
    assert getattr(config, "env.is_rainy") is True
    hash(config)


def test_records_read_back_without_loading_an_environment(monkeypatch):
    pair = resolved(
        *given(env={"name": "Taxi-v4", "is_rainy": True, "rainy_probability": {"uniform": [0.5, 1]},
                    "fickle_probability": 0.25})
    )  # fmt: skip
    record = to_record(*pair)
    assert record["config"]["env.is_rainy"] is True
    assert record["config"]["env.rainy_probability"] == {"uniform": [0.5, 1.0]}
    assert record["hyper"]["env.fickle_probability"] == 0.25
    assert "env.rainy_probability" not in record["hyper"]
    monkeypatch.setattr(envs, "describe", None)
    assert from_record(record["config"], record["hyper"]) == pair


def test_another_environment_forgets_and_another_agent_keeps():
    pair = resolved(*given(env={"gravity": 12.0}))
    config, hyper = override(*pair, env="MountainCar-v0")
    assert config.env_options == config.env_inputs == () and hyper.extra == {}
    config, hyper = resolved(*override(*pair, **{"env.length": 0.7}))
    assert hyper.extra == {"env.gravity": 12.0, "env.length": 0.7}
    config, hyper = override(*pair, agent="tabular")
    assert hyper.extra == {"env.gravity": 12.0} and config.env_inputs == (("gravity", None),)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gravty": 9}, "CartPole-v1 has no env.gravty; the closest are env.gravity, .*; it has "
         ".*env.gravity.*dqx envs CartPole-v1"),
        ({"gravity": "high"}, "env.gravity must be a finite number, got 'high'"),
        ({"gravity": True}, "env.gravity must be a finite number, got True"),
        ({"gravity": math.inf}, "env.gravity must be a finite number, got inf"),
        ({"gravity": [8, 9]}, r"env.gravity must be a number, .* got \[8, 9\]"),
        ({"max_steps_in_episode": 9.5}, "env.max_steps_in_episode must be a whole number, got 9.5"),
        ({"max_steps_in_episode": {"uniform": [9, 12]}},
         r"env.max_steps_in_episode decides what is compiled, .* under \[grid\]"),
        ({"gravity": {"uniform": [12, 8]}}, "two rising numbers.*, got .*12, 8"),
        ({"gravity": {"log_uniform": [0, 8]}}, "two rising positive numbers"),
        ({"gravity": {"normal": [0, 8]}}, "drawn by uniform or log_uniform"),
        ({"gravity": {}}, "drawn by uniform or log_uniform"),
        ({"name": "CartPole-v9", "gravity": 9}, "unknown environment 'CartPole-v9'"),
        ({"name": "no.such:Game", "size": 9}, "there is no module 'no.such'"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_a_line(fields, message):
    with pytest.raises(ConfigError, match=message) as caught:
        resolved(*given(env=fields))
    assert "\n" not in str(caught.value)


def test_given_twice_is_refused():
    with pytest.raises(ConfigError, match="env.gravity is given twice"):
        environments.flattened({"env": {"gravity": 9}, "env.gravity": 9})


def drawn(rule, seeds, root_seed=0, name="gravity"):
    config = dataclasses.replace(Config(), env_inputs=((name, rule),))
    return environments.drawn(config, root_seed, seeds)[f"env.{name}"]


@pytest.mark.parametrize("rule", [Draw("uniform", 8, 12), Draw("log_uniform", 0.1, 10)])
def test_draws_have_their_distribution(rule):
    values = drawn(rule, range(2000))
    low, high = rule.low, rule.high
    expected = (
        scipy.stats.uniform(low, high - low)
        if rule.rule == "uniform"
        else scipy.stats.loguniform(low, high)
    )
    assert low <= values.min() and values.max() <= high
    assert scipy.stats.kstest(values, expected.cdf).pvalue > 0.01


def test_a_draw_hangs_on_seed_root_seed_and_name_alone():
    rule = Draw("uniform", 8, 12)
    values = drawn(rule, [5, 3, 17])
    assert drawn(rule, [3])[0] == values[1]
    assert not set(values) & set(drawn(rule, [5, 3, 17], root_seed=1))
    assert not set(values) & set(drawn(rule, [5, 3, 17], name="length"))
    assert all(float(f"{value:.6g}") == value for value in values)


def test_settings_alone_load_no_environment():
    code = (
        "import sys\nfrom dqx.settings import Config, Hyper, override, to_record\n"
        "pair = override(Config(), Hyper(), env={'gravity': 12, 'tau': {'uniform': [1, 2]}})\n"
        "to_record(*pair); assert 'envs' not in sys.modules"
    )
    subprocess.run(
        [
            sys.executable,
            "-c",
            code,
        ],
        check=True,
    )
