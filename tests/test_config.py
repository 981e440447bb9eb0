"""Configuration: every preset is valid, and every mistake is named with what would be allowed."""

import dataclasses
import itertools
import math
import re
import tomllib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import dqx
from dqx import config as module
from dqx.config import (
    CONFIG_FIELDS,
    HYPER_FIELDS,
    Config,
    ConfigError,
    Hyper,
    override,
    parse_field,
    preset,
    preset_names,
    validate,
)
from dqx.seeds import check_seeds

# Every period has a length of its own, so that a mix-up of two shows.
GOOD = Config(
    num_envs=2,
    total_steps=480,
    learning_starts=40,
    train_period=4,
    log_period=24,
    eval_period=120,
    replay_capacity=96,
    batch_size=16,
)


def changed(**fields):
    return override(GOOD, Hyper(), **fields)


def test_the_defaults_are_valid():
    validate(Config(), Hyper())
    validate(GOOD, Hyper())


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_valid(name):
    validate(*preset(name))


def test_presets_hold_what_their_files_say():
    files = Path(module.__file__).parent.glob("presets/*.toml")
    tables = {k: v for file in files for k, v in tomllib.loads(file.read_text()).items()}
    assert preset_names() == tuple(sorted(tables))
    assert {"cartpole", "cartpole/cleanrl", "mountain-car", "mountain-car/toptal"} <= set(tables)
    for name, table in tables.items():
        config, hyper = preset(name)
        for field, value in table.items():
            got = getattr(config if field in CONFIG_FIELDS else hyper, field)
            assert got == (tuple(value) if isinstance(value, list) else value), (name, field)
            assert field in CONFIG_FIELDS or type(got) is float


def test_lists_become_tuples():
    config = dataclasses.replace(Config(), hidden_sizes=[64, 32], annealed=["learning_rate"])
    assert config.hidden_sizes == (64, 32) and config.annealed == ("learning_rate",)
    assert hash(config) == hash(Config(hidden_sizes=(64, 32), annealed=("learning_rate",)))


@pytest.mark.parametrize(
    ("name", "close"), [("cartpol", "cartpole"), ("cartpole/cleanlr", "cartpole/cleanrl")]
)
def test_an_unknown_preset_names_the_closest(name, close):
    with pytest.raises(ConfigError, match=f"unknown preset '{name}'; the closest are .*{close}"):
        preset(name)
    with pytest.raises(ConfigError, match="dqx presets"):
        preset("zzzzzzzz")


@pytest.mark.parametrize(
    ("name", "close"), [("learning_rat", "learning_rate"), ("total_step", "total_steps")]
)
def test_an_unknown_field_names_the_closest(name, close):
    for use in (lambda: changed(**{name: 1}), lambda: parse_field(name, "1")):
        with pytest.raises(ConfigError, match=f"unknown field '{name}'; the closest are .*{close}"):
            use()


def test_config_error_is_a_value_error():
    assert issubclass(ConfigError, ValueError) and dqx.ConfigError is ConfigError


POSITIVE = (
    "num_envs", "total_steps", "train_period", "updates_per_train", "batch_size",
    "replay_capacity", "target_period", "log_period", "eval_episodes", "learning_starts",
    "embedding_size",
)  # fmt: skip
FINITE = tuple(
    name
    for name in HYPER_FIELDS
    if name not in ("max_grad_norm", "reward_clip", "td_error_clip", "huber_delta")
)
NEVER_ZERO = (
    "learning_rate", "epsilon_steps", "tau", "max_grad_norm", "reward_clip", "td_error_clip",
    "huber_delta", "temperature", "anneal_steps",
)  # fmt: skip
SHARES = (
    "gamma", "epsilon_start", "epsilon_end", "epsilon_decay", "tau", "momentum", "rmsprop_decay",
    "visit_power",
)  # fmt: skip

BAD = [
    *[({name: 0}, [name, "at least 1", "0"]) for name in POSITIVE],
    *[({name: -3}, [name, "at least 1", "-3"]) for name in POSITIVE],
    ({"eval_period": -1}, ["eval_period", "at least 0", "-1"]),
    ({"chunk_width": 0}, ["chunk_width", "at least 1 or none", "0"]),
    ({"chunk_width": -2}, ["chunk_width", "at least 1 or none", "-2"]),
    ({"hidden_sizes": (8, 0)}, ["hidden_sizes", "at least 1", "(8, 0)"]),
    ({"total_steps": 2**31}, ["total_steps", "below 2**31", str(2**31)]),
    ({"replay_capacity": 2**31}, ["replay_capacity", "below 2**31", str(2**31)]),
    ({"batch_size": 97}, ["batch_size 97", "replay_capacity 96", "raise the capacity"]),
    ({"learning_starts": 480}, ["learning_starts 480", "total_steps 480", "below 480"]),
    ({"learning_starts": 4800}, ["learning_starts 4800", "total_steps 480"]),
    *[
        ({name: "nonsense"}, [name, "must be one of", allowed, "'nonsense'"])
        for name, allowed in [
            ("network", "mlp"),
            ("activation", "relu, tanh, swish"),
            ("initializer", "lecun_normal, glorot_uniform, torch"),
            ("loss", "squared, huber, keras_mse"),
            ("optimizer", "adam, sgd, rmsprop"),
            ("exploration", "constant, linear, exponential, per_episode"),
            ("convolution", "blocks, plain"),
            ("sampling", "uniform, newest"),
            ("policy", "epsilon_greedy, greedy, boltzmann, max_boltzmann, boltzmann_gumbel, soft"),
        ]
    ],
    ({"network": "natur_cnn"}, ["'natur_cnn'; the closest are nature_cnn"]),
    ({"policy": "bolzmann"}, ["'bolzmann'; the closest are boltzmann"]),
    ({"initial_q": math.nan}, ["initial_q must be finite", "nan"]),
    ({"initial_q": math.inf}, ["initial_q must be finite", "inf"]),
    ({"initial_q": 1.0}, ["initial_q is for tables", "'mlp'", "network = table"]),
    ({"visit_power": 1.0}, ["visit_power is for tables", "'mlp'", "network = table"]),
    *[
        (
            {"network": "table", name: value},
            [f"{name} = {value}".lower(), missing, f"at {default}".lower()],
        )
        for name, value, missing, default in [
            ("double", True, "no target network", False),
            ("tau", 0.1, "no target network", 1.0),
            ("optimizer", "sgd", "no optimizer", "adam"),
            ("momentum", 0.9, "no optimizer", 0.0),
            ("loss", "huber", "no loss", "squared"),
            ("max_grad_norm", 10.0, "no gradient", math.inf),
        ]
    ],
    ({"sampling": "newest"}, ["batch_size must be train_period 4", "got 16"]),
    (
        {"sampling": "newest", "batch_size": 4, "updates_per_train": 2},
        ["updates_per_train must be 1", "got 2"],
    ),
    *[
        ({"epsilon_ladder": True, "policy": policy}, ["epsilon_ladder needs", f"'{policy}'"])
        for policy in ("greedy", "boltzmann", "softmax", "boltzmann_gumbel")
    ],
    ({"epsilon_ladder": True, "num_envs": 1}, ["num_envs is 1", "raise num_envs"]),
    ({"annealed": ("gama",)}, ["'gama' is no hyperparameter", "closest are gamma"]),
    ({"annealed": ("batch_size",)}, ["'batch_size' is no hyperparameter"]),
    ({"annealed": ("epsilon_steps",)}, ["'epsilon_steps' cannot be annealed"]),
    ({"annealed": ("anneal_scale",)}, ["'anneal_scale' cannot be annealed"]),
    ({"annealed": ("gamma", "gamma")}, ["twice", "gamma, gamma"]),
    ({"annealed": ("max_grad_norm",)}, ["max_grad_norm is infinite", "finite value"]),
    ({"annealed": ("gamma",), "anneal_scale": 2.0}, ["at the end gamma", "1.98", "anneal_scale"]),
    ({"annealed": ("tau",)}, ["at the end tau", "greater than 0", "anneal_scale"]),
    *[({name: -0.5}, [name, "at least 0", "-0.5"]) for name in HYPER_FIELDS],
    *[({name: math.nan}, [name, "at least 0", "nan"]) for name in HYPER_FIELDS],
    *[({name: -math.inf}, [name, "at least 0", "-inf"]) for name in HYPER_FIELDS],
    *[({name: math.inf}, [name, "finite", "inf"]) for name in FINITE],
    *[({name: 0.0}, [name, "greater than 0", "0.0"]) for name in NEVER_ZERO],
    *[({name: 1.5}, [name, "between 0 and 1", "1.5"]) for name in SHARES],
]


@pytest.mark.parametrize(("fields", "words"), BAD, ids=lambda x: str(x) if len(x) == 1 else "")
def test_what_cannot_work_is_refused_by_name_and_value(fields, words):
    config, hyper = changed(**fields)
    with pytest.raises(ConfigError) as caught:
        validate(config, hyper)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


WRONG_TYPES = [
    *[(name, 2.0, "a whole number") for name in ("total_steps", "batch_size", "num_envs")],
    ("total_steps", True, "a whole number"),
    ("total_steps", "100", "a whole number"),
    ("total_steps", None, "a whole number"),
    ("double", 1, "true or false"),
    ("double", "true", "true or false"),
    ("env", 3, "a text"),
    ("hidden_sizes", 64, "a list of whole numbers"),
    ("hidden_sizes", (64.0,), "a list of whole numbers"),
    ("hidden_sizes", (True,), "a list of whole numbers"),
    ("hidden_sizes", "64,64", "a list of whole numbers"),
    ("chunk_width", 1.5, "a whole number or none"),
    ("chunk_width", "none", "a whole number or none"),
    *[("gamma", value, "a number") for value in ("0.9", True, None, [0.9])],
    ("initial_q", "0", "a number"),
    ("annealed", "gamma", "a list of names"),
    ("annealed", (1,), "a list of names"),
]


@pytest.mark.parametrize(("name", "value", "words"), WRONG_TYPES)
def test_wrong_types_are_refused(name, value, words):
    message = re.escape(f"{name} must be {words}") + ".*" + re.escape(f"got {value!r}")
    with pytest.raises(ConfigError, match=message):
        changed(**{name: value})
    config, hyper = GOOD, Hyper()
    if name in CONFIG_FIELDS:  # what did not come through `override`
        config = dataclasses.replace(config, **{name: value})
    else:
        hyper = hyper.replace(**{name: value})
    with pytest.raises(ConfigError, match=message):
        validate(config, hyper)


RELATIONS = [
    ({"replay_capacity": 97}, "replay_capacity", "num_envs"),
    ({"train_period": 5}, "train_period", "num_envs"),
    ({"learning_starts": 42}, "learning_starts", "train_period"),
    ({"log_period": 30}, "log_period", "train_period"),
    ({"total_steps": 500}, "total_steps", "log_period"),
    ({"eval_period": 100}, "eval_period", "log_period"),
    ({"eval_period": 192}, "total_steps", "eval_period"),
    # Values whose nearest multiples or divisors break another rule.
    ({"num_envs": 10, "batch_size": 95}, "replay_capacity", "num_envs"),
    ({"learning_starts": 479}, "learning_starts", "train_period"),
    ({"total_steps": 121, "learning_starts": 100}, "total_steps", "log_period"),
    ({"total_steps": 2**31 - 1}, "total_steps", "log_period"),
    ({"total_steps": 50}, "total_steps", "log_period"),
    ({"train_period": 36, "log_period": 48}, "learning_starts", "train_period"),
]


@pytest.mark.parametrize(("fields", "multiple", "divisor"), RELATIONS)
def test_periods_that_do_not_divide_name_values_that_would(fields, multiple, divisor):
    config, hyper = changed(**fields)
    with pytest.raises(ConfigError) as caught:
        validate(config, hyper)
    message = str(caught.value)
    assert message.startswith(f"{multiple} must be a multiple of {divisor}")
    assert str(getattr(config, multiple)) in message and str(getattr(config, divisor)) in message
    proposals = re.findall(r"(\w+) = (\d+)", message)
    assert {name for name, _ in proposals} <= {multiple, divisor} and proposals
    if "would do" in message:
        for name, value in proposals:
            validate(dataclasses.replace(config, **{name: int(value)}), hyper)
    else:  # it promises less: that this one rule holds then
        assert "other fields must change too" in message
        for name, value in proposals:
            fixed = dataclasses.replace(config, **{name: int(value)})
            assert getattr(fixed, multiple) % getattr(fixed, divisor) == 0


def test_a_value_that_would_do_is_found_where_there_is_one():
    # By trying every value of the two fields that the message may propose.
    for fields, multiple, divisor in RELATIONS[:10]:
        config, hyper = changed(**fields)
        with pytest.raises(ConfigError) as caught:
            validate(config, hyper)
        exists = False
        for name, value in itertools.product((multiple, divisor), range(1, 500)):
            try:
                validate(dataclasses.replace(config, **{name: value}), hyper)
            except ConfigError:
                continue
            exists = True
            break
        assert exists == ("would do" in str(caught.value)), fields


def test_the_nearest_values_are_proposed():
    with pytest.raises(ConfigError, match="total_steps = 480 or total_steps = 600 would do"):
        validate(*changed(total_steps=500))
    with pytest.raises(ConfigError, match="train_period = 4 or train_period = 6"):
        validate(*changed(train_period=5, learning_starts=48, eval_period=0))


def test_evaluation_may_be_off():
    validate(*changed(eval_period=0))
    validate(*changed(eval_period=0, total_steps=24 * 7, log_period=24))


@pytest.mark.parametrize(
    "fields",
    [
        {"network": "table", "initial_q": -1.5, "visit_power": 1.0},
        {"network": "table", "sampling": "newest", "batch_size": 4, "td_error_clip": 1.0},
        {"sampling": "newest", "batch_size": 4},
        {"policy": "max_boltzmann", "epsilon_ladder": True},
        {"annealed": ["learning_rate", "temperature"]},  # down to nothing
        {"annealed": ["gamma"], "anneal_scale": 1.01, "gamma": 0.9},
    ],
)
def test_variants_that_fit_pass(fields):
    validate(*changed(**fields))


def test_infinite_limits_mean_no_limit():
    for name in ("max_grad_norm", "reward_clip", "td_error_clip", "huber_delta"):
        validate(*changed(**{name: math.inf}))


@pytest.mark.parametrize("value", [np.float32(0.5), jnp.float32(0.5), np.float64(0.5), 0.5])
def test_hyperparameters_may_be_scalars_of_numpy_and_jax(value):
    validate(GOOD, Hyper().replace(gamma=value))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("total_steps", "500000", 500_000),
        ("total_steps", "500_000", 500_000),
        ("total_steps", "5e5", 500_000),
        ("total_steps", " 1E3 ", 1000),
        ("total_steps", "1000.0", 1000),
        ("total_steps", "-3", -3),
        ("learning_rate", "1e-3", 1e-3),
        ("max_grad_norm", "inf", math.inf),
        ("gamma", "1", 1.0),
        ("hidden_sizes", "64,32", (64, 32)),
        ("hidden_sizes", "(64, 32)", (64, 32)),
        ("hidden_sizes", "[64]", (64,)),
        ("hidden_sizes", "64,", (64,)),
        ("hidden_sizes", "", ()),
        ("double", "true", True),
        ("double", "False", False),
        ("env", "CartPole-v1", "CartPole-v1"),
        ("chunk_width", "none", None),
        ("chunk_width", "None", None),
        ("chunk_width", "8", 8),
        ("initial_q", "-2.5", -2.5),
        ("annealed", "learning_rate, temperature", ("learning_rate", "temperature")),
        ("annealed", "", ()),
    ],
)
def test_parse_field(name, text, value):
    parsed = parse_field(name, text)
    assert parsed == value and type(parsed) is type(value)
    override(Config(), Hyper(), **{name: parsed})  # of the type that the field takes


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("total_steps", "many", "a whole number"),
        ("total_steps", "1.5", "a whole number"),
        ("total_steps", "", "a whole number"),
        ("total_steps", "inf", "a whole number"),
        ("total_steps", "nan", "a whole number"),
        ("total_steps", "none", "a whole number"),
        ("learning_rate", "fast", "a number"),
        ("learning_rate", "none", "a number"),
        ("double", "yes", "true or false"),
        ("double", "1", "true or false"),
        ("hidden_sizes", "a,b", "a list of whole numbers"),
        ("hidden_sizes", "1.5,2", "a list of whole numbers"),
        ("chunk_width", "wide", "a whole number or none"),
    ],
)
def test_parse_field_refuses_other_texts(name, text, words):
    with pytest.raises(ConfigError, match=re.escape(f"{name} = {text!r} is not {words}")):
        parse_field(name, text)


def test_parse_field_reads_back_every_default():
    for name, field in {**CONFIG_FIELDS, **HYPER_FIELDS}.items():
        default = field.default
        text = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
        assert parse_field(name, text) == default, name


def test_override_reaches_both_and_leaves_the_rest():
    config, hyper = override(GOOD, Hyper(tau=0.5), gamma=0.5, total_steps=960, hidden_sizes=[3, 4])
    assert config == dataclasses.replace(GOOD, total_steps=960, hidden_sizes=(3, 4))
    assert hyper == Hyper(tau=0.5, gamma=0.5)
    assert isinstance(override(GOOD, Hyper(), gamma=1)[1].gamma, float)


def test_replace_works_on_both():
    config, hyper = preset("cartpole")
    longer = dataclasses.replace(config, total_steps=config.total_steps * 2)
    assert longer.total_steps == 2 * config.total_steps and longer.env == config.env
    assert hyper.replace(gamma=0.5).gamma == 0.5 and hyper.gamma != 0.5
    assert hyper.replace(gamma=0.5).learning_rate == hyper.learning_rate
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.total_steps = 3


def test_every_field_is_documented():
    for name, field in {**CONFIG_FIELDS, **HYPER_FIELDS}.items():
        assert len(field.metadata["doc"]) > 3, name


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        (3, [0, 1, 2]),
        (np.int64(2), [0, 1]),
        (range(5, 8), [5, 6, 7]),
        ([17, 3], [17, 3]),
        ((np.int32(4),), [4]),
        (np.array([9, 1]), [9, 1]),
        (iter([2, 1]), [2, 1]),
        ([2**32 - 1], [2**32 - 1]),
    ],
)
def test_seeds_that_are_fine(given, numbers):
    seeds = check_seeds(given)
    assert seeds.dtype == np.int64
    np.testing.assert_array_equal(seeds, numbers)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "none are given"),
        (0, "none are given"),
        (-3, "none are given"),
        (range(0), "none are given"),
        ([1, 2, 1], "more than once: 1"),
        ([5, 5, 6, 6], "more than once: 5, 6"),
        ([0, -1], "from 0 to 2.*got -1"),
        ([1.0], "whole numbers.*got 1.0"),
        ([True], "whole numbers.*got True"),
        ([2**32], f"from 0 to 2.*got {2**32}"),
        (["1"], "whole numbers.*got '1'"),
        (True, "whole number"),
        (2.5, "whole number"),
        (None, "whole number"),
        ("12", "whole numbers"),
    ],
)
def test_seeds_that_are_refused(given, words):
    with pytest.raises(ConfigError, match=words):
        check_seeds(given)
