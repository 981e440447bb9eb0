"""What must divide is rounded up, and rows come where they should, found by counting."""

import dataclasses
import random

import pytest

from dqx.settings import (
    Config,
    ConfigError,
    Hyper,
    evaluates_at,
    notes,
    override,
    rounded,
    row_steps,
    validate,
)

# What has to be a multiple of what, bases first.
MULTIPLES = [
    ("train_period", "num_envs"),
    ("replay_capacity", "num_envs"),
    ("total_steps", "train_period"),
    ("learning_starts", "train_period"),
    ("log_period", "train_period"),
    ("eval_period", "train_period"),
    ("eval_states", "eval_episodes"),
]


def drawn(rng):
    return Config(
        num_envs=rng.randint(1, 20),
        train_period=rng.randint(1, 40),
        total_steps=rng.randint(1, 400),
        learning_starts=rng.randint(1, 300),
        log_period=rng.randint(1, 300),
        eval_period=rng.choice([0, rng.randint(1, 300)]),
        replay_capacity=rng.randint(200, 400),
        eval_episodes=rng.randint(1, 9),
        eval_states=rng.choice([0, rng.randint(1, 50)]),
        batch_size=1,
    )


def counted_up(value, base):
    while value % base:
        value += 1
    return value


def test_random_sizes_are_rounded_to_the_least_multiples():
    rng = random.Random(7)
    for _ in range(2000):
        config = drawn(rng)
        expected = dataclasses.asdict(config)
        changes = []
        for name, base in MULTIPLES:
            given = expected[name]
            expected[name] = counted_up(given, expected[base])
            if expected[name] != given:
                changes.append(
                    f"{name} {given} is rounded up to {expected[name]}, the next multiple of "
                    f"{base} {expected[base]}"
                )
        found, lines = rounded(config)
        assert dataclasses.asdict(found) == expected
        assert sorted(lines) == sorted(changes)
        assert rounded(found) == (found, ())
        validate(config, Hyper())
        validate(found, Hyper())


def test_random_rows_are_where_counting_finds_them():
    rng = random.Random(11)
    for draw in range(2000):
        config = drawn(rng)
        config = rounded(config)[0] if draw % 2 else config
        rows, evaluations = [], []
        for step in range(1, config.total_steps + 1):
            end = step == config.total_steps
            evaluated = config.eval_period != 0 and (step % config.eval_period == 0 or end)
            if step % config.log_period == 0 or evaluated or end:
                rows.append(step)
            if evaluated:
                evaluations.append(step)
        assert row_steps(config) == rows
        steps = range(1, config.total_steps + 1)
        assert [step for step in steps if evaluates_at(config, step)] == evaluations


def test_rows_by_hand():
    config = Config(total_steps=100, log_period=30, eval_period=40)
    assert row_steps(config) == [30, 40, 60, 80, 90, 100]
    assert [evaluates_at(config, step) for step in row_steps(config)] == [
        False, True, False, True, False, True,
    ]  # fmt: skip
    assert row_steps(dataclasses.replace(config, eval_period=0)) == [30, 60, 90, 100]
    assert row_steps(dataclasses.replace(config, log_period=1000, eval_period=1000)) == [100]


def test_the_order_of_rounding_and_its_words():
    config = Config(num_envs=16, train_period=10, log_period=100, replay_capacity=1_000_000)
    found, lines = rounded(dataclasses.replace(config, learning_starts=10_000, total_steps=500_001))
    assert (found.train_period, found.log_period, found.total_steps) == (16, 112, 500_016)
    assert lines[0] == "train_period 10 is rounded up to 16, the next multiple of num_envs 16"
    assert "log_period 100 is rounded up to 112, the next multiple of train_period 16" in lines
    assert (
        "total_steps 500,001 is rounded up to 500,016, the next multiple of train_period 16"
        in lines
    )
    assert found.learning_starts == 10_000 and found.replay_capacity == 1_000_000


def test_a_period_of_zero_stays_never():
    found, _ = rounded(Config(num_envs=3, train_period=7, eval_period=0, eval_states=0))
    assert found.eval_period == 0 and found.eval_states == 0


@pytest.mark.parametrize(
    ("fields", "name", "most"),
    [
        ({"total_steps": 2**31 - 1, "train_period": 8}, "total_steps", "2,147,483,648"),
        ({"log_period": 2**31 - 1, "train_period": 8}, "log_period", "2,147,483,648"),
        ({"eval_states": 2**31 - 1, "eval_episodes": 8}, "eval_states", "2,147,483,648"),
        ({"num_envs": 2**30 + 1, "train_period": 2**31 - 1}, "train_period", "2,147,483,650"),
    ],
)
def test_what_rounding_pushes_beyond_int32_is_refused(fields, name, most):
    config = Config(**fields)
    words = rf"{name} must be below 2\*\*31, got {2**31 - 1}, which is rounded up to {most}"
    for use in (lambda: rounded(config), lambda: validate(config, Hyper())):
        with pytest.raises(ConfigError, match=words):
            use()


@pytest.mark.parametrize("name", ["num_envs", "train_period", "eval_episodes"])
@pytest.mark.parametrize("value", [0, -4, 2.0, None])
def test_nothing_is_rounded_to_what_is_no_size(name, value):
    with pytest.raises(ConfigError, match=f"{name} must be .*, got {value}"):
        rounded(dataclasses.replace(Config(), **{name: value}))


def test_rules_hold_for_the_rounded_values():
    newest = Config(num_envs=8, train_period=12, sampling="newest", batch_size=16)
    validate(newest, Hyper())
    with pytest.raises(ConfigError, match="batch_size must be train_period 16, got 12"):
        validate(dataclasses.replace(newest, batch_size=12), Hyper())
    # 99 does not hold 100, and rounded up to 100 it does.
    validate(Config(num_envs=4, replay_capacity=97, batch_size=100, train_period=4), Hyper())
    # Rounded up, the budget has one more round, and one update too many.
    many = Config(train_period=2, total_steps=2**16 - 1, updates_per_train=2**16)
    with pytest.raises(ConfigError, match=f"makes {2**31} updates"):
        validate(many, Hyper())
    validate(dataclasses.replace(many, total_steps=2**16 - 2), Hyper())


def test_a_budget_without_learning_is_noted():
    config = Config(learning_starts=2000, total_steps=1000)
    line = (
        "learning_starts 2,000 is not below total_steps 1,000: every action is random and nothing "
        "is learned"
    )
    assert notes(config, Hyper()) == (line,)
    assert notes(dataclasses.replace(config, total_steps=2010), Hyper()) == ()
    assert len(notes(dataclasses.replace(config, total_steps=2000), Hyper())) == 1
    # After rounding both are 2,000.
    both = dataclasses.replace(config, learning_starts=1991, total_steps=1995)
    assert len(notes(both, Hyper())) == 1


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        (
            {"huber_delta": 0.1},
            ["huber_delta = 0.1 has no effect: loss is squared, and it is read with huber"],
        ),
        ({"huber_delta": 0.1, "loss": "huber"}, []),
        ({"huber_delta": 0.1, "agent": "qr"}, []),
        (
            {"momentum": 0.5, "rmsprop_decay": 0.5},
            [
                "momentum = 0.5 has no effect: optimizer is adam, and it is read with sgd or "
                "rmsprop",
                "rmsprop_decay = 0.5 has no effect: optimizer is adam, and it is read with rmsprop",
            ],
        ),
        ({"momentum": 0.5, "optimizer": "sgd"}, []),
        (
            {"temperature": 0.5, "ladder_power": 2.0},
            [
                "temperature = 0.5 has no effect: policy is epsilon_greedy, and it is read with "
                "boltzmann or max_boltzmann or boltzmann_gumbel",
                "ladder_power = 2 has no effect: epsilon_ladder is false, and it is read with true",
            ],
        ),
        ({"temperature": 0.5, "policy": "boltzmann"}, []),
        (
            {"annealed": ["temperature", "learning_rate"], "epsilon_decay": 0.9},
            [
                "annealed: temperature has no effect: policy is epsilon_greedy, and it is read "
                "with boltzmann or max_boltzmann or boltzmann_gumbel",
                "epsilon_decay = 0.9 has no effect: epsilon_schedule is linear, and it is read "
                "with per_episode",
            ],
        ),
        ({"ladder_power": 2.0, "epsilon_ladder": True, "num_envs": 2}, []),
        (
            {"optimizer_epsilon": 0.1, "optimizer": "sgd", "epsilon_steps": 9.0,
             "epsilon_schedule": "constant"},
            [
                "epsilon_steps = 9 has no effect: epsilon_schedule is constant, and it is read "
                "with linear or exponential",
                "optimizer_epsilon = 0.1 has no effect: optimizer is sgd, and it is read with "
                "adam or radam or rmsprop",
            ],
        ),
        ({"optimizer_epsilon": 0.1, "epsilon_steps": 9.0}, []),
        (
            {"anneal_scale": 0.5, "anneal_steps": 10.0},
            [
                "anneal_scale = 0.5 has no effect: annealed names no hyperparameter",
                "anneal_steps = 10 has no effect: annealed names no hyperparameter",
            ],
        ),
        ({"anneal_scale": 0.5, "anneal_steps": 10.0, "annealed": ["learning_rate"]}, []),
    ],
)  # fmt: skip
def test_settings_that_nothing_reads_are_noted(fields, lines):
    pair = override(Config(), Hyper(), **fields)
    validate(*pair)
    assert list(notes(*pair)) == lines
