"""Other suites by prefix: the contract with a toy suite; test_suites.py has the true ones."""

import sys
import types
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

import dqx
import envs
from envs import adapters
from envs.adapters import base
from tests.study.kit import call

KEY = jax.random.key(0)


def walk(goal: int = 5, time_limit: int = 7, picture: bool = False) -> base.Game:
    """A walk along a line: action 1 goes right, 0 stays; it ends at `goal`, and pays there.

    The state is (place, noise); its reset is int32 where a step gives float32, as in sloppy suites.
    """

    def reset(key):
        return jnp.int32(0), jax.random.uniform(key)

    def step(key, state, action):
        place = state[0] + action * jnp.float32(1.0)
        return (place, jax.random.uniform(key)), jnp.where(place >= goal, 2, 0), place >= goal

    return base.Game(
        name="toy:walk",
        reset=reset,
        step=step,
        observe=lambda state: jnp.stack([jnp.float32(state[0]), state[1]]),
        num_actions=2,
        observation=spaces.Box(0.0, 10.0, (2,), jnp.float32),
        time_limit=time_limit,
        picture=(lambda state: jnp.full((4, 6, 3), state[0], jnp.uint8)) if picture else None,
    )


@pytest.fixture
def toy(monkeypatch):
    """The prefix toy: a suite of one environment, and of one that is refused."""

    def make(name, **options):
        if name == "fetched":
            raise FileNotFoundError("no levels\nat all")
        if options.get("goal", 0) < 0:
            raise IndexError(f"no place {options['goal']}\nat all")
        return base.adapt(walk(**options))

    module = types.ModuleType("envs.adapters.toy")
    module.names = lambda: ("walk", "fetched")
    module.refused = lambda: {"duel": "two play it", "far": "it has no end", "tag": "two play it"}
    module.options = lambda name: [
        base.option("goal", int, 5, "the place to reach"),
        base.option("time_limit", int, 7),
        base.option("picture", bool, False),
    ]
    module.make = make
    monkeypatch.setitem(sys.modules, "envs.adapters.toy", module)
    monkeypatch.setitem(adapters.SUITES, "toy", adapters.Suite("jax"))


@pytest.mark.slow
def test_an_adapted_game_keeps_the_contract(toy):
    envs.check_environment(*envs.make("toy:walk"), num_steps=40)


def play(env, params, actions):
    """Observations, rewards, terminated and truncated of one episode's steps."""
    _, state = env.reset_env(KEY, params)
    seen = []
    for action in actions:
        obs, state, reward, terminated, _ = env.step_env(KEY, state, action, params)
        truncated = bool(env.is_truncated(state, params))
        assert bool(env.is_terminated(state, params)) == bool(terminated)
        seen.append((float(obs[0]), float(reward), bool(terminated), truncated))
    return seen


def test_the_end_of_a_game_and_the_time_limit_are_told_apart(toy):
    env, params = envs.make("toy:walk", goal=2, time_limit=3)
    assert env.name == "toy:walk"
    assert params.max_steps_in_episode == 3
    assert play(env, params, [1, 1]) == [(1.0, 0.0, False, False), (2.0, 2.0, True, False)]
    assert play(env, params, [0, 0, 0])[-1] == (0.0, 0.0, False, True)
    assert play(env, params, [1, 0, 1])[-1] == (2.0, 2.0, True, True)
    longer = params.replace(max_steps_in_episode=5)
    assert [step[3] for step in play(env, longer, [0] * 5)] == [False] * 4 + [True]


def test_a_reset_takes_the_dtypes_of_a_step_and_keys_may_be_raw():
    env, params = base.adapt(walk())
    obs, state = env.reset_env(KEY, params)
    assert state.inner[0].dtype == jnp.float32
    raw_obs, raw_state = env.reset_env(jax.random.key_data(KEY), params)
    np.testing.assert_array_equal(obs, raw_obs)
    assert obs[1] == jax.random.uniform(KEY)
    _, stepped, reward, *_ = env.step_env(KEY, raw_state, 1, params)
    assert jax.tree.map(lambda leaf: leaf.dtype, stepped) == jax.tree.map(
        lambda leaf: leaf.dtype, state
    )
    assert reward.dtype == jnp.float32
    np.testing.assert_array_equal(env.get_obs(state), env.observe(None, state, None, params))


def test_a_picture_is_of_one_state_of_its_own():
    env, params = base.adapt(walk(picture=True))
    _, state = env.reset_env(KEY, params)
    assert env.render(state, params).shape == (4, 6, 3)
    with pytest.raises(TypeError, match="toy:walk renders its own state, not tuple"):
        env.render((0, 0), params)
    batch = jax.tree.map(lambda leaf: leaf[None], state)
    with pytest.raises(ValueError, match=r"renders one state, and there are \(1,\) of them"):
        env.render(batch, params)
    assert not hasattr(base.adapt(walk())[0], "render")


def test_parts_of_an_observation_are_scaled_and_joined_in_order():
    scales = [base.scale_of(0, 4), base.scale_of([-2.0, 0.0], [1.0, 0.5]), base.scale_of(0, np.inf)]
    parts = (jnp.array([[1, 2], [3, 4]], jnp.int8), jnp.array([-1.0, 0.5]), jnp.int32(7))
    vector = base.flatten(parts, scales)
    assert vector.dtype == jnp.float32
    assert vector.tolist() == [0.25, 0.5, 0.75, 1.0, -0.5, 0.5, 7.0]
    assert base.scale_of(np.iinfo(np.int32).min, np.iinfo(np.int32).max) == 1.0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:x", "there is no module 'nowhere'"),
        ("toy:Walk", r"unknown environment 'toy:Walk': did you mean toy:walk\? `dqx envs toy:`"),
        ("toy:zzz", r"unknown environment 'toy:zzz': .*envs.adapters.names\('toy'\) lists all 2$"),
        ("toy:duel", r"toy:duel cannot be trained: two play it$"),
        ("toy:fetched", r"toy:fetched cannot be made, since it needs data .*: no levels$"),
    ],
)
def test_a_name_that_cannot_be_made_says_why(toy, name, message):
    with pytest.raises(ValueError, match=message):
        envs.make(name)
    with pytest.raises(dqx.ConfigError, match=message):
        dqx.train(dqx.Config(env=name), dqx.Hyper(), seeds=1)


def test_options_of_a_suite_are_described_with_type_default_and_sentence(toy):
    described = envs.describe("toy:walk")
    goal, limit, picture = described.options
    assert goal == envs.Parameter("goal", int, 5, doc="the place to reach", constructor=True)
    assert (limit.type, limit.default, limit.doc) == (int, 7, "")
    assert (picture.type, picture.default) == (bool, False)
    assert [field.name for field in described.params] == ["max_steps_in_episode"]
    assert described.doc == "observations float32 [2], 2 actions"


def test_an_option_reaches_the_suite_and_the_time_limit_stays_a_parameter(toy):
    options, params = {"goal": 2}, {"max_steps_in_episode": 3}
    env, params = envs.configure("toy:walk", options, params)
    assert play(env, params, [1, 1])[-1] == (2.0, 2.0, True, False)
    assert play(env, params, [0, 0, 0])[-1] == (0.0, 0.0, False, True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gaol": 2}, "toy:walk has no env.gaol; .*env.goal"),
        ({"goal": 2.5}, "env.goal must be a whole number, got 2.5"),
        ({"goal": True}, "env.goal must be a whole number, got True"),
        ({"picture": 1}, "env.picture must be true or false, got 1"),
        ({"goal": -1}, "toy:walk cannot be made with goal = -1: IndexError: no place -1$"),
    ],
)
def test_a_wrong_option_is_a_line_for_whoever_trains(toy, given, message):
    with pytest.raises(dqx.ConfigError, match=message) as caught:
        dqx.train(dqx.Config(env="toy:walk"), dqx.Hyper(), seeds=1, env=given)
    assert "\n" not in str(caught.value)


def test_an_unknown_option_is_named_with_the_closest(toy):
    with pytest.raises(TypeError, match="no option 'gaol': did you mean goal.* goal, time_limit, "):
        envs.make("toy:walk", gaol=3)


def test_the_command_lists_a_suite_and_what_can_be_set(toy):
    suite = [
        "toy:walk", "toy:fetched",
        "not trained, since two play it:", "  toy:duel", "  toy:tag",
        "not trained, since it has no end:", "  toy:far",
    ]  # fmt: skip
    assert call("envs", "toy:") == call("envs", "toy") == (0, suite, [])
    status, (title, head, *rows), _ = call("envs", "toy:walk")
    assert (status, title) == (0, "toy:walk: observations float32 [2], 2 actions")
    assert head.split() == ["SETTING", "TYPE", "DEFAULT", "UNIT"]
    assert [" ".join(row.split()) for row in rows] == [
        "env.goal int, compiled in 5 the place to reach",
        "env.time_limit int, compiled in 7",
        "env.picture bool, compiled in false",
        "env.max_steps_in_episode int, compiled in 7",
    ]
    status, out, (line,) = call("envs", "toy:duel")
    assert (status, out) == (2, [])
    assert line == "dqx: error: toy:duel cannot be trained: two play it"


def test_names_and_version_of_a_suite(toy):
    assert adapters.names("toy") == ("toy:walk", "toy:fetched")
    assert adapters.version_of("toy:walk") == f"jax {metadata.version('jax')}"
    assert adapters.version_of("CartPole-v1") is None
    with pytest.raises(ValueError, match="unknown prefix 'nowhere'"):
        adapters.version_of("nowhere:x")


@pytest.mark.parametrize("prefix", adapters.prefixes())
def test_a_suite_that_is_not_installed_names_the_command_that_installs_it(monkeypatch, prefix):
    monkeypatch.setitem(sys.modules, adapters.SUITES[prefix].package, None)
    monkeypatch.delitem(sys.modules, f"envs.adapters.{prefix}", raising=False)
    with pytest.raises(ValueError, match=rf"need the package .*: pip install 'dqx\[{prefix}\]'"):
        envs.make(f"{prefix}:x")

    def missing(package):
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(ValueError, match=rf"pip install 'dqx\[{prefix}\]'"):
        adapters.version_of(f"{prefix}:x")
