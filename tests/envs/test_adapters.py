"""Other suites by prefix: the contract with a toy suite, and every suite that is installed."""

import subprocess
import sys
import types
from importlib import metadata
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

import dqx
import envs
from envs import adapters
from envs.adapters import base

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
        return base.adapt(walk(**options))

    module = types.ModuleType("envs.adapters.toy")
    module.names = lambda: ("walk", "fetched")
    module.refused = lambda: {"duel": "two play it"}
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
        ("toy:Walk", r"unknown environment 'toy:Walk': did you mean toy:walk\? envs.adapters"),
        ("toy:zzz", r"unknown environment 'toy:zzz': envs.adapters.names\('toy'\) lists all 2$"),
        ("toy:duel", r"toy:duel cannot be trained: two play it$"),
        ("toy:fetched", r"toy:fetched cannot be made, since it needs data .*: no levels$"),
    ],
)
def test_a_name_that_cannot_be_made_says_why(toy, name, message):
    with pytest.raises(ValueError, match=message):
        envs.make(name)
    with pytest.raises(dqx.ConfigError, match=message):
        dqx.train(dqx.Config(env=name), dqx.Hyper(), seeds=1)


def test_an_unknown_option_is_named(toy):
    with pytest.raises(TypeError, match=r"toy:walk does not take the options \['size'\] \(.*size"):
        envs.make("toy:walk", size=3)


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


# What follows needs the suites themselves: `make test-suites`. They warn while they are imported.
def suite(name: str, *values, **options):
    """A case of a table: skipped where the suite of its environment is not installed."""
    package = adapters.SUITES[name.partition(":")[0]].package
    # Craftax takes minutes to compile.
    marks = [pytest.mark.timeout(1_200)] if package == "craftax" else []
    marks += [
        pytest.mark.suites,
        pytest.mark.slow,
        pytest.mark.filterwarnings("ignore"),
        pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed"),
    ]
    return pytest.param(name, *values, marks=marks, id=name, **options)


@pytest.fixture
def sprites(monkeypatch, tmp_path):
    """Plain boxes in place of Pong's sprites: jaxtari comes without, and takes one's own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    folder = tmp_path / "jaxtari" / "sprites" / "pong"
    folder.mkdir(parents=True)

    def box(name, height, width, *colour):
        sprite = np.full((height, width, 4), 255, np.uint8)
        sprite[..., :3] = colour
        np.save(folder / f"{name}.npy", sprite)

    box("background", 210, 160, 144, 72, 17)
    box("player", 16, 4, 92, 186, 92)
    box("enemy", 16, 4, 213, 130, 74)
    box("ball", 4, 2, 236, 236, 236)
    for digit in range(10):
        box(f"player_score_{digit}", 10, 8, 92, 186, 92)
        box(f"enemy_score_{digit}", 10, 8, 213, 130, 74)
    (folder.parent / ".version").write_text("1\n")
    (tmp_path / "jaxtari" / ".alternative_sprites_installed").touch()


@pytest.mark.parametrize(
    "name",
    [
        suite("navix:Navix-Empty-5x5-v0"),
        suite("navix:Navix-Dynamic-Obstacles-5x5-v0"),
        suite("xminigrid:MiniGrid-Empty-5x5"),
        suite("craftax:Craftax-Classic-Symbolic-v1"),
        suite("jumanji:Snake-v1"),
        suite("jumanji:Tetris-v0"),
        suite("pgx:minatar-breakout"),
        suite("pgx:2048"),
        suite("jaxtari:pong"),
    ],
)
def test_a_suite_keeps_the_contract(name, sprites):
    env, params = envs.make(name)
    assert env.name == name
    assert name in adapters.names(name.partition(":")[0])
    envs.check_environment(env, params, num_steps=100)


def rollout(env, params, steps, action=None):
    """Of one lane of play, random unless an action is given: terminated and truncated, [steps]."""

    def step(state, key):
        key_action, key = jax.random.split(key)
        drawn = env.action_space(params).sample(key_action)
        taken = drawn if action is None else jnp.int32(action)
        _, state, _, terminated, truncated, _ = env.step(key, state, taken, params)
        return state, (terminated, truncated)

    key_reset, key = jax.random.split(KEY)
    _, state = env.reset(key_reset, params)
    play = jax.jit(lambda state: jax.lax.scan(step, state, jax.random.split(key, steps))[1])
    return [np.asarray(flags) for flags in play(state)]


@pytest.mark.parametrize(
    ("name", "limit", "steps"),
    [
        suite("navix:Navix-Empty-5x5-v0", 60, 3_000),
        suite("xminigrid:MiniGrid-Empty-5x5", 60, 3_000),
        suite("craftax:Craftax-Classic-Symbolic-v1", 150, 3_000),
        suite("jumanji:Snake-v1", 8, 500),
        suite("pgx:minatar-breakout", 12, 500),
        suite("jaxtari:pong", 1_100, 12_000),
    ],
)
def test_a_suite_tells_its_ends_from_the_time_limit(name, limit, steps, sprites):
    env, params = envs.make(name)
    params = params.replace(max_steps_in_episode=limit)
    terminated, truncated = rollout(env, params, steps)
    ends = np.flatnonzero(terminated | truncated)
    lengths = np.diff(ends, prepend=-1)
    assert terminated.any()
    assert (truncated & ~terminated).any()
    assert np.array_equal(truncated[ends], lengths == limit)
    assert (lengths[terminated[ends]] < limit).any()


@pytest.mark.parametrize(
    ("name", "action"),
    [
        suite("navix:Navix-Empty-5x5-v0", 0),
        suite("xminigrid:MiniGrid-Empty-5x5", 1),
        suite("jumanji:Maze-v0", 0),
    ],
)
def test_the_suite_s_own_time_limit_never_shows(name, action):
    """One action over and over reaches nothing; play goes on past the suite's own limit."""
    env, params = envs.make(name)
    own = params.max_steps_in_episode
    assert own == 100
    terminated, truncated = rollout(
        env, params.replace(max_steps_in_episode=own + 20), own + 20, action
    )
    assert not terminated.any()
    assert np.flatnonzero(truncated).tolist() == [own + 19]


TRAINING = dqx.Config(
    hidden_sizes=(32,),
    num_envs=4,
    total_steps=20_000,
    learning_starts=1_000,
    train_period=8,
    batch_size=32,
    replay_capacity=2_000,
    target_period=400,
    log_period=5_000,
    chunk_width=2,
)


@pytest.mark.parametrize(
    "name",
    [
        suite("navix:Navix-Empty-5x5-v0"),
        suite("xminigrid:MiniGrid-Empty-5x5"),
        suite("craftax:Craftax-Classic-Symbolic-v1"),
        suite("jumanji:Snake-v1"),
        suite("pgx:minatar-breakout"),
        suite("jaxtari:pong"),
    ],
)
def test_a_seed_of_a_suite_is_the_same_alone_and_among_others(name, sprites):
    config = dqx.override(TRAINING, dqx.Hyper(), env=name)[0]
    together = dqx.train(config, dqx.Hyper(), seeds=[1, 3])
    alone = dqx.train(config, dqx.Hyper(), seeds=[3])
    assert alone.digests[0] == together.digests[1]
    assert together.digests[0] != together.digests[1]
    assert np.isfinite(together.metrics["loss"][:, -1]).all()


@pytest.mark.parametrize(
    ("name", "size"),
    [
        suite("navix:Navix-Empty-5x5-v0", (40, 40, 3)),
        suite("xminigrid:MiniGrid-Empty-5x5", (160, 160, 3)),
        suite("craftax:Craftax-Classic-Symbolic-v1", (144, 144, 3)),
        suite("jaxtari:pong", (210, 160, 3)),
    ],
)
def test_a_suite_that_draws_into_arrays_gives_pictures(name, size, sprites):
    env, params = envs.make(name)
    _, state = env.reset(KEY, params)
    picture = np.asarray(env.render(state, params))
    assert picture.shape == size
    assert picture.dtype == np.uint8
    assert picture.std() > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        suite("pgx:chess", "pgx:chess cannot be trained: it is a game of several players"),
        suite("jumanji:Connector-v3", "cannot be trained: several agents act in it at once"),
        suite("xminigrid:XLand-MiniGrid-R1-9x9", "has no goal until it is given rules"),
        suite("navix:Navix-Empty-5x5", "did you mean navix:Navix-Empty-5x5-v0"),
    ],
)
def test_a_suite_s_environment_that_cannot_be_made_says_why(name, message):
    with pytest.raises(ValueError, match=message):
        envs.make(name)


@pytest.mark.parametrize("name", [suite("jaxtari:pong")])
def test_missing_sprites_name_the_command_that_brings_them(name, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="jaxtari:pong needs sprites.*jaxtari.install_sprites"):
        envs.make(name)


@pytest.mark.parametrize("name", [suite("jumanji:Minesweeper-v0")])
def test_an_action_of_several_parts_is_numbered_row_by_row(name):
    """An opened cell shows in the board, the first part of the observation."""
    env, params = envs.make(name)
    assert env.num_actions == 100
    obs, state = env.reset_env(KEY, params)
    after, *_ = env.step_env(KEY, state, 37, params)
    assert np.flatnonzero(np.asarray(obs[:100] != after[:100])).tolist() == [37]


PACKAGES = [found.package for found in adapters.SUITES.values()]


@pytest.mark.suites
@pytest.mark.skipif(not any(map(find_spec, PACKAGES)), reason="no suite is installed")
def test_no_suite_is_imported_before_it_is_named():
    code = f"import sys, envs; print([name for name in {PACKAGES} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
