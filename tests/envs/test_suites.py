"""The suites of other people that are installed: contract, seed identity, ends and time limits.

`make test-suites` installs and tests them; elsewhere all of this is skipped.
"""

import subprocess
import sys
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dqx
import envs
from envs import adapters

KEY = jax.random.key(0)
FETCHED = ("jumanji:Sokoban-v0",)  # its levels come over the network


def suite(name: str, *values, **options):
    """A case of a table: skipped where the suite of its environment is not installed.

    Suites warn while they are imported.
    """
    package = adapters.SUITES[name.partition(":")[0]].package
    marks = [
        pytest.mark.suites,
        pytest.mark.slow,
        pytest.mark.timeout(1_200),
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


# Learning begins at a row, so that all segments have one length and are compiled once: a program of
# Craftax takes half a minute of a core. Episodes end soon, since evaluation plays whole ones.
TRAINING = dqx.Config(
    hidden_sizes=(32,),
    num_envs=4,
    total_steps=20_000,
    learning_starts=5_000,
    train_period=8,
    batch_size=32,
    replay_capacity=2_000,
    target_period=400,
    log_period=5_000,
    eval_episodes=2,
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
    config = dqx.override(TRAINING, dqx.Hyper(), env=name, **{"env.max_steps_in_episode": 200})[0]
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
        suite("xminigrid:XLand-MiniGrid-R1-9x9", "cannot be trained: it has no goal until"),
        suite("navix:Navix-Empty-5x5", "did you mean navix:Navix-Empty-5x5-v0"),
    ],
)
def test_a_suite_s_environment_that_cannot_be_made_says_why(name, message):
    with pytest.raises(envs.UnusableEnvironment, match=message) as caught:
        envs.make(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        suite("navix:Navix-Empty-5x5-v0", {"observation": "rgbx"}, "'rgbx': choose one of symbol"),
        suite("navix:Navix-Empty-5x5-v0", {"height": 2}, "height is 2; at least 3 is asked"),
        suite("navix:Navix-Empty-5x5-v0", {"heigth": 5}, "no option 'heigth'.*did you mean height"),
        suite("xminigrid:MiniGrid-Empty-5x5", {"view_size": 4}, "view_size is 4; an odd number"),
        suite("jumanji:Snake-v1", {"num_rows": 0}, "cannot be made with num_rows = 0: IndexError"),
        suite("pgx:2048", {"size": 5}, "no option 'size'.*its options are none"),
    ],
)
def test_an_option_that_a_suite_cannot_take_is_a_line(name, given, message):
    with pytest.raises(envs.UnusableEnvironment, match=message) as caught:
        envs.configure(name, given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [suite("xminigrid:XLand-MiniGrid-R1-9x9")])
def test_a_world_is_made_of_rules_that_are_given(name):
    """The agent needs no more than to hold a ball: it is done when it has picked one up."""
    from xminigrid.core.constants import Colors, Tiles
    from xminigrid.core.goals import AgentHoldGoal
    from xminigrid.core.rules import EmptyRule
    from xminigrid.types import RuleSet

    from envs.adapters import xminigrid as worlds

    rules = RuleSet(
        goal=AgentHoldGoal(tile=jnp.array((Tiles.BALL, Colors.RED), jnp.uint8)).encode(),
        rules=EmptyRule().encode()[None],
        init_tiles=jnp.array(((Tiles.BALL, Colors.RED),), jnp.uint8),
    )
    env, params = worlds.make(name.partition(":")[2], ruleset=rules)
    terminated, _ = rollout(env, params, 3_000)
    assert terminated.any()


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


@pytest.mark.parametrize(
    ("name", "given", "shape", "actions"),
    [
        suite("navix:Navix-Empty-5x5-v0", {"height": 7, "width": 9}, (7, 9, 3), 7),
        suite("navix:Navix-DoorKey-5x5-v0", {"observation": "categorical"}, (5, 5), 7),
        suite("xminigrid:MiniGrid-Empty-5x5", {"view_size": 5}, (5, 5, 2), 6),
        suite("jumanji:Snake-v1", {"num_rows": 5, "num_cols": 6}, (5 * 6 * 5 + 5,), 4),
        suite("jumanji:Minesweeper-v0", {"num_rows": 4, "num_mines": 2}, (4 * 10 + 2 + 40,), 40),
        suite("jumanji:Knapsack-v1", {"num_items": 8, "total_budget": 2.0}, (4 * 8,), 8),
        suite("pgx:minatar-breakout", {"use_minimal_action_set": False}, (10, 10, 4), 6),
        suite("jaxtari:pong", {"stack": 2, "frame_skip": 2}, None, 6),
    ],
)
def test_an_option_of_a_suite_changes_its_environment(name, given, shape, actions, sprites):
    described = {option.name: option for option in envs.describe(name).options}
    assert all(type(value) is described[option].type for option, value in given.items())
    env, params = envs.configure(name, given)
    if shape is None:  # half of four stacked observations
        shape = (envs.make(name)[0].observation_space(params).shape[0] // 2,)
    assert env.observation_space(params).shape == shape
    assert env.num_actions == actions
    obs, state = jax.jit(env.reset_env)(KEY, params)
    after, *_ = jax.jit(env.step_env)(KEY, state, 0, params)
    assert obs.shape == after.shape == shape


@pytest.mark.parametrize("name", [suite("navix:Navix-Empty-5x5-v0")])
def test_a_number_of_navix_reaches_the_reward(name):
    """Two cells ahead, a turn and two cells ahead: the goal, in 5 of the suite's 100 steps."""
    env, params = envs.configure(name, {"penalty_coeff": 0.9})
    step = jax.jit(env.step_env)
    _, state = jax.jit(env.reset_env)(KEY, params)
    for action in (2, 2, 1, 2, 2):
        _, state, reward, terminated, _ = step(KEY, state, action, params)
    assert terminated
    np.testing.assert_allclose(reward, 1 - 0.9 * 5 / 100, rtol=1e-6)


@pytest.mark.parametrize("name", [suite("craftax:Craftax-Classic-Symbolic-v1")])
def test_a_parameter_of_craftax_reaches_the_game(name):
    """A game begins at 0.3 of a day: light is 1 - |cos(pi (0.3 + t / day_length))|^3 at step t."""
    env, params = envs.configure(name, {"day_length": 4})
    _, state = env.reset_env(KEY, params)
    _, state, *_ = jax.jit(env.step_env)(KEY, state, 0, params)
    expected = 1 - abs(np.cos(np.pi * (0.3 + 1 / 4))) ** 3
    np.testing.assert_allclose(state.inner.light_level, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        suite("navix:Navix-Dynamic-Obstacles-6x6-Random-v0"),
        suite("jumanji:BinPack-v2"),
        suite("jumanji:GraphColoring-v1"),
        suite("jumanji:RubiksCube-partly-scrambled-v0"),
        suite("jumanji:Snake-v1"),
    ],
)
def test_an_option_at_its_default_changes_nothing(name):
    """Where options are given, environment and generator of puzzles are built by another way."""
    given = {option.name: option.default for option in envs.describe(name).options}
    starts = [
        jax.jit(env.reset_env)(KEY, params)
        for env, params in (envs.make(name), envs.make(name, **given))
    ]
    jax.tree.map(np.testing.assert_array_equal, *starts)


@pytest.mark.parametrize(
    ("prefix", "every"),
    [
        suite("navix:", 5),
        suite("xminigrid:", 4),
        suite("craftax:", 2),
        suite("jumanji:", 1),
        suite("pgx:", 1),
    ],
)
def test_listed_environments_are_made_and_take_their_own_defaults(prefix, every):
    """Every so-and-so-manieth; nothing is compiled. The pixels of Craftax are its odd names."""
    names = [name for name in adapters.names(prefix.strip(":")) if name not in FETCHED]
    for name in names[::every]:
        given = {option.name: option.default for option in envs.describe(name).options}
        env, params = envs.configure(name, given)
        assert env.name == name
        obs, state = jax.eval_shape(env.reset_env, KEY, params)
        stepped, *_ = jax.eval_shape(env.step_env, KEY, state, jnp.int32(0), params)
        space = env.observation_space(params)
        for one in (obs, stepped):
            assert (one.shape, one.dtype) == (space.shape, space.dtype)


PACKAGES = [found.package for found in adapters.SUITES.values()]


@pytest.mark.suites
@pytest.mark.skipif(not any(map(find_spec, PACKAGES)), reason="no suite is installed")
def test_no_suite_is_imported_before_it_is_named():
    code = f"import sys, envs; print([name for name in {PACKAGES} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
