"""How fields fit: whose a setting is, and which combinations cannot work."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest

from dqx.settings import SETTINGS, Config, ConfigError, Hyper, override, validate

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


def refusal(*pair):
    with pytest.raises(ConfigError) as caught:
        validate(*pair)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_defaults_are_valid():
    validate(Config(), Hyper())
    validate(GOOD, Hyper())


BAD = [
    ({"batch_size": 97}, ["batch_size 97", "replay_capacity 96", "raise the capacity"]),
    (
        {"total_steps": 2**31 - 8, "log_period": 4, "eval_period": 0},
        ["log_period 4 makes 536,870,910 rows", "total_steps 2,147,483,640", "at most 1,000,000"],
    ),
    ({"total_steps": 4_000_004, "eval_period": 4}, ["eval_period 4 makes 1,000,001 rows"]),
    ({"sampling": "newest"}, ["batch_size must be train_period 4", "got 16"]),
    (
        {"sampling": "newest", "batch_size": 4, "updates_per_train": 2},
        ["updates_per_train must be 1", "got 2"],
    ),
    (
        {"sampling": "newest", "batch_size": 4, "n_step": 4, "learning_starts": 3},
        ["learning_starts must be at least 6, (n_step - 1) * num_envs, got 4"],
    ),
    (
        {
            "sampling": "newest",
            "batch_size": 4,
            "n_step": 4,
            "learning_starts": 8,
            "replay_capacity": 7,
        },
        ["replay_capacity must be at least 10, got 8"],
    ),
    *[
        ({"epsilon_ladder": True, "policy": policy}, ["epsilon_ladder needs", f"'{policy}'"])
        for policy in ("greedy", "boltzmann", "softmax", "boltzmann_gumbel")
    ],
    (
        {"epsilon_ladder": True, "policy": "greedy"},
        ["policy with an epsilon (epsilon_greedy or ez_greedy or max_boltzmann)"],
    ),
    ({"epsilon_ladder": True, "num_envs": 1}, ["num_envs is 1", "raise num_envs"]),
    ({"annealed": ("gama",)}, ["'gama' is no hyperparameter", "closest are gamma"]),
    ({"annealed": ("batch_size",)}, ["'batch_size' is no hyperparameter"]),
    *[
        ({"annealed": (name,)}, [f"'{name}' cannot be annealed"])
        for name in ("epsilon_steps", "anneal_steps", "anneal_scale")
    ],
    ({"annealed": ("gamma", "gamma")}, ["twice", "gamma, gamma"]),
    ({"annealed": ("max_grad_norm",)}, ["max_grad_norm is infinite", "finite value"]),
    ({"annealed": ("gamma",), "anneal_scale": 2.0}, ["at the end gamma", "1.98", "anneal_scale"]),
    (
        {"annealed": ("learning_rate",), "learning_rate": 1e30, "anneal_scale": 1e30},
        ["at the end learning_rate = 1e+60 is too large for float32", "anneal_scale"],
    ),
    ({"annealed": ("tau",)}, ["at the end tau", "greater than 0", "anneal_scale"]),
    ({"exact_metrics": True, "eval_period": 0}, ["eval_period is 0", "log_period 24"]),
    ({"exact_metrics": True, "annealed": ("gamma",)}, ["take gamma out of annealed"]),
    ({"exact_metrics": True, "time_limit_is_terminal": True}, ["know no time limits"]),
    ({"exact_metrics": True, "reward_clip": 1.0}, ["know no clipped rewards", "leave reward_clip"]),
    ({"exact_metrics": True, "reward_scale": 2.0}, ["no scaled rewards", "leave reward_scale"]),
    ({"exact_metrics": True, "target": "munchausen"}, ["of the best policy", "target = max or cl"]),
    ({"exact_metrics": True, "target": "expected_sarsa"}, ["target = expected_sarsa learns are"]),
    ({"exact_metrics": True, "frame_stack": 2}, ["no stacked observations", "leave frame_stack"]),
    ({"exact_metrics": True, "action_repeat": 2}, ["no repeated actions", "leave action_repeat"]),
    ({"exact_metrics": True, "sticky_actions": 0.1}, ["no sticky actions", "leave sticky_actions"]),
    ({"frame_stack": 0}, ["frame_stack must be between 1 and 256, got 0"]),
    ({"action_repeat": 0}, ["action_repeat must be at least 1, got 0"]),
    ({"time_limit": -1}, ["time_limit must be at least 0, got -1"]),
    ({"sticky_actions": 1.5}, ["sticky_actions must be between 0 and 1, got 1.5"]),
    ({"reward_scale": 0.0}, ["reward_scale must be finite and greater than 0, got 0"]),
    ({"annealed": ("reward_scale",)}, ["'reward_scale' cannot be annealed"]),
    (
        {"annealed": ("tau",), "agent": "tabular"},
        ["annealed: tau belongs to agents with a target", "and agent is tabular: leave it out"],
    ),
    (
        {"annealed": ("munchausen_clip",)},
        ["annealed: munchausen_clip belongs to ", "and target is max: leave it out or choose"],
    ),
    (
        {"total_steps": 2**30, "updates_per_train": 8},
        ["updates_per_train 8", str(2**31), "in int32: stay below 2**31"],
    ),
]


@pytest.mark.parametrize(("fields", "words"), BAD)
def test_what_cannot_work_is_refused_by_name_and_value(fields, words):
    message = refusal(*changed(**fields))
    assert all(word in message for word in words), message


def test_one_update_less_fits_into_int32():
    validate(*changed(total_steps=2**30 - 4, updates_per_train=8, log_period=2**20, eval_period=0))


@pytest.mark.parametrize("name", SETTINGS)
def test_every_value_is_checked_even_if_it_came_past_override(name):
    class Nothing:
        def __repr__(self):
            return "nothing at all"

    if SETTINGS[name].traced:
        message = refusal(GOOD, Hyper().replace(**{name: Nothing()}))
    else:
        message = refusal(dataclasses.replace(GOOD, **{name: Nothing()}), Hyper())
    assert message.startswith(f"{name} must be ") and message.endswith("got nothing at all")


@pytest.mark.parametrize(
    "fields",
    [
        {"eval_period": 0},
        {"agent": "tabular", "initial_q": -1.5, "visit_power": 1.0},
        {"agent": "tabular", "sampling": "newest", "batch_size": 4, "td_error_clip": 1.0},
        {"sampling": "newest", "batch_size": 4},
        {"policy": "max_boltzmann", "epsilon_ladder": True},
        {"annealed": ["learning_rate", "temperature"]},  # down to nothing
        {"annealed": ["gamma"], "anneal_scale": 1.01, "gamma": 0.9},
        {"optimizer": "adam", "momentum": 0.9},
        {"exact_metrics": True},
        {"exact_metrics": True, "time_limit": 7, "normalize_observations": True},
        {"frame_stack": 4, "action_repeat": 3, "sticky_actions": 1.0, "reward_scale": 0.1},
        {"max_grad_norm": math.inf, "reward_clip": math.inf, "huber_delta": math.inf},
        {"network": "minatar_cnn", "convolution": "plain", "scale_pixels": True},
        {"scale_pixels": True},
        {"log_period": 4800, "eval_period": 4800},
        {"learning_starts": 480},
        {"learning_starts": 0},
        {"learning_starts": 4800},
    ],
)
def test_variants_that_fit_pass(fields):
    validate(*changed(**fields))


@pytest.mark.parametrize("value", [np.float32(0.5), jnp.float32(0.5), np.float64(0.5), 0.5])
def test_hyperparameters_may_be_scalars_of_numpy_and_jax(value):
    validate(GOOD, Hyper().replace(gamma=value, tau=value))
    message = refusal(dataclasses.replace(GOOD, agent="tabular"), Hyper(tau=value))
    assert "tau = 0.5 belongs to" in message


# Of each setting that has an owner: a value that is not the default, what chooses another owner,
# and the words that say whose it is. The table is written from what the agents and networks do.
AGENT = {"agent": "tabular"}
OWNED = {
    "network": (
        "embedding",
        AGENT,
        "agents with a network (dqn, qr), and agent is tabular",
    ),
    "hidden_sizes": (
        (3,),
        AGENT,
        "agents with a network (dqn, qr), and agent is tabular",
    ),
    "activation": (
        "tanh",
        AGENT,
        "agents with a network (dqn, qr), and agent is tabular",
    ),
    "initializer": (
        "torch",
        AGENT,
        "agents with a network (dqn, qr), and agent is tabular",
    ),
    "convolution": (
        "plain",
        {},
        "networks with frames (nature_cnn, minatar_cnn, coarse_cnn), and network is mlp",
    ),
    "scale_pixels": (
        True,
        {"network": "embedding"},
        "networks with pixels (mlp, nature_cnn, minatar_cnn, coarse_cnn), and network is embedding",
    ),
    "embedding_size": (3, {}, "networks with an embedding (embedding), and network is mlp"),
    "head": (
        "dueling_avg",
        AGENT,
        "agents with a network (dqn, qr), and agent is tabular",
    ),
    "stream_sizes": (
        (8,),
        {},
        "heads with streams (dueling_avg, dueling_max, dueling_naive), and head is plain",
    ),
    "dense": ("noisy", AGENT, "agents with a network (dqn, qr), and agent is tabular"),
    "noisy_sigma": (0.1, {}, "denses with sigmas (noisy), and dense is plain"),
    "layer_norm": (True, AGENT, "agents with a network (dqn, qr), and agent is tabular"),
    "initial_q": (1.0, {}, "agents with a table (tabular), and agent is dqn"),
    "visit_power": (1.0, {}, "agents with a table (tabular), and agent is dqn"),
    "normalize_observations": (
        True,
        AGENT,
        "agents with a network (dqn, qr), and agent is tabular",
    ),
    "averaging": ("acting", AGENT, "agents with a network (dqn, qr), and agent is tabular"),
    "average_decay": (
        0.5,
        {},
        "averagings with a decay (evaluation, acting), and averaging is none",
    ),
    "double": (True, AGENT, "agents with a target rule (dqn, qr), and agent is tabular"),
    "tau": (0.5, AGENT, "agents with a target (dqn, qr), and agent is tabular"),
    "target_period": (8, AGENT, "agents with a target (dqn, qr), and agent is tabular"),
    "loss": ("huber", AGENT, "agents with a scalar target (dqn), and agent is tabular"),
    "optimizer": ("sgd", AGENT, "agents with a gradient (dqn, qr), and agent is tabular"),
    "max_grad_norm": (
        10,
        AGENT,
        "agents with a gradient (dqn, qr), and agent is tabular",
    ),
    "momentum": (0.5, AGENT, "agents with a gradient (dqn, qr), and agent is tabular"),
    "rmsprop_decay": (
        0.5,
        AGENT,
        "agents with a gradient (dqn, qr), and agent is tabular",
    ),
    "optimizer_epsilon": (
        1e-5,
        AGENT,
        "agents with a gradient (dqn, qr), and agent is tabular",
    ),
    "huber_delta": (2.0, AGENT, "agents with a Huber delta (dqn, qr), and agent is tabular"),
    "td_error_clip": (
        2.0,
        {"agent": "qr"},
        "agents with a TD error (dqn, tabular), and agent is qr",
    ),
    "target": (
        "munchausen",
        AGENT,
        "agents with a target rule (dqn, qr), and agent is tabular",
    ),
    "value_rescaling": (
        0.01,
        AGENT,
        "agents with rescaled values (dqn), and agent is tabular",
    ),
    "munchausen_scale": (0.5, {}, "targets with a soft policy (munchausen), and target is max"),
    "munchausen_temperature": (
        0.5,
        {},
        "targets with a soft policy (munchausen), and target is max",
    ),
    "munchausen_clip": (0.5, {}, "targets with a soft policy (munchausen), and target is max"),
    "replay_capacity": (
        64,
        {"agent": "roller"},
        "agents with a replay (dqn, qr, tabular), and agent is roller",
    ),
    "sampling": (
        "ranked",
        {"agent": "roller"},
        "agents with a replay (dqn, qr, tabular), and agent is roller",
    ),
    "n_step": (
        3,
        {"agent": "roller"},
        "agents with a replay (dqn, qr, tabular), and agent is roller",
    ),
    "replay": (
        "plain",
        {"agent": "roller"},
        "agents with a replay (dqn, qr, tabular), and agent is roller",
    ),
    "replay_ends": (9, {}, "replays with final observations (once), and replay is auto"),
    "rank_period": (5, {}, "samplings with ranks (ranked), and sampling is uniform"),
    "priority_floor": (
        0.1,
        {"sampling": "ranked"},
        "samplings with proportional priorities (prioritized), and sampling is ranked",
    ),
    "priority_exponent": (
        0.5,
        {},
        "samplings with priorities (prioritized, ranked), and sampling is uniform",
    ),
    "importance_start": (
        0.5,
        {},
        "samplings with priorities (prioritized, ranked), and sampling is uniform",
    ),
    "importance_end": (
        0.5,
        {},
        "samplings with priorities (prioritized, ranked), and sampling is uniform",
    ),
    "repeat_power": (
        0.5,
        {},
        "policies with repeated actions (ez_greedy), and policy is epsilon_greedy",
    ),
    "importance_steps": (
        9.0,
        {},
        "samplings with priorities (prioritized, ranked), and sampling is uniform",
    ),
}


def test_every_owned_setting_is_in_the_table():
    assert set(OWNED) == {name for name, declared in SETTINGS.items() if declared.of}


@pytest.mark.parametrize("name", OWNED)
def test_a_setting_without_its_owner_is_refused(name, roller):
    value, elsewhere, words = OWNED[name]
    message = refusal(*changed(**{name: value}, **elsewhere))
    declared = SETTINGS[name]
    assert message == (
        f"{name} = {declared.show(value)} belongs to {words}: leave it at "
        f"{declared.show(declared.default)} or choose another {declared.of[0]}"
    )
    validate(*changed(**elsewhere, **{name: declared.default}))


@pytest.mark.parametrize("name", OWNED)
def test_a_setting_with_its_owner_passes(name, roller):
    value, elsewhere, _ = OWNED[name]
    owner = {
        "convolution": {"network": "coarse_cnn"},
        "scale_pixels": {"network": "nature_cnn"},
        "embedding_size": {"network": "embedding"},
        "stream_sizes": {"head": "dueling_max"},
        "noisy_sigma": {"dense": "noisy"},
        "initial_q": AGENT,
        "visit_power": AGENT,
        **{name: {"target": "munchausen"} for name in OWNED if name.startswith("munchausen_")},
        **{name: {"sampling": "prioritized"} for name in OWNED if "importance" in name},
        **{name: {"sampling": "prioritized"} for name in OWNED if name.startswith("priority_")},
        "rank_period": {"sampling": "ranked"},
        "average_decay": {"averaging": "evaluation"},
        "replay_ends": {"replay": "once"},
        "repeat_power": {"policy": "ez_greedy"},
    }
    validate(*changed(**{name: value}, **owner.get(name, {})))


def test_what_a_network_has_concerns_only_agents_with_a_network():
    message = refusal(*changed(agent="tabular", scale_pixels=True))
    assert "scale_pixels = true belongs to agents with a network (dqn, qr)" in message


def test_an_own_setting_belongs_to_its_agent_alone(c99):
    validate(*changed(agent="c99", num_bars=21, bar_limit=3.0, max_grad_norm=10.0))
    for name, value in [("num_bars", 21), ("bar_limit", 3.0)]:
        message = refusal(*changed(**{name: value}))
        assert message.startswith(f"{name} belongs to agent c99, and agent is dqn: leave it out")
    message = refusal(*changed(agent="tabular", optimizer="sgd"))
    assert "(c99, dqn, qr), and agent is tabular" in message
    message = refusal(*changed(agent="c99", double=True))
    words = "double = true belongs to agents with a target rule (dqn, qr), and agent is c99"
    assert words in message


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_bars": 201}, "num_bars must be between 2 and 200, got 201"),
        ({"bar_shape": "rond"}, "bar_shape must be one of flat, round, got 'rond'; the closest"),
        ({"bar_limit": 0}, "bar_limit must be finite and greater than 0, got 0.0"),
        ({"annealed": ("bar_limit",)}, "annealed: at the end bar_limit must be finite"),
        ({"annealed": ("num_bars",)}, "'num_bars' is no hyperparameter"),
    ],
)
def test_own_settings_have_ranges(c99, fields, words):
    assert words in refusal(*changed(agent="c99", **fields))


def test_own_hyperparameters_can_be_annealed(c99):
    validate(*changed(agent="c99", annealed=("bar_decay",)))
    assert "'bar_decay' is no hyperparameter" in refusal(*changed(annealed=("bar_decay",)))


@pytest.mark.parametrize(
    ("config", "hyper", "words"),
    [
        ({"gamma": 0.5}, {}, "extra: gamma is no agent's own setting: set the field of Hyper"),
        ({}, {"num_envs": 1.0}, "num_envs is no agent's own setting: set the field of Config"),
        ({"bar_limit": 1.0}, {}, "bar_limit belongs into the extra of Hyper: use override"),
        ({}, {"num_bars": 3.0}, "num_bars belongs into the extra of Config: use override"),
        ({"zzzz": 1}, {}, "unknown field 'zzzz'"),
    ],
)
def test_what_does_not_belong_into_extra(c99, config, hyper, words):
    assert words in refusal(Config(agent="c99", extra=config), Hyper(extra=hyper))
