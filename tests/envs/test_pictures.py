"""Pictures of all environments: what is drawn where, for gymnax's games and for observations."""

import functools
import runpy
from pathlib import Path

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces
from gymnax.environments.bsuite import Catch
from gymnax.environments.misc import PointRobot
from gymnax.utils import load_mnist
from gymnax.wrappers.purerl import FlattenObservationWrapper, LogWrapper
from PIL import Image

import envs
from envs import _drawing as draw
from envs.pictures import _board, _chart, _text, observation

ROOT = Path(__file__).parents[2]
MNIST = "MNISTBandit-bsuite"
DISCRETE = [
    *("Acrobot-v1", "Asterix-MinAtar", "Breakout-MinAtar", "Freeway-MinAtar", "Seaquest-MinAtar"),
    *("SpaceInvaders-MinAtar", "Catch-bsuite", "DeepSea-bsuite", "MemoryChain-bsuite"),
    *("UmbrellaChain-bsuite", "DiscountingChain-bsuite", MNIST, "SimpleBandit-bsuite"),
    *("FourRooms-misc", "MetaMaze-misc", "BernoulliBandit-misc", "GaussianBandit-misc"),
    *("Pong-misc", "FrozenLake-misc"),
]
LARGE = ["Asterix-MinAtar", "Freeway-MinAtar", "Seaquest-MinAtar"]  # their steps compile slowly
# Most of the time of these tests would go into optimizing programs that run once.
QUICK = {"compiler_options": {"xla_backend_optimization_level": 0}}
CONTINUOUS = [
    *("Pendulum-v1", "MountainCarContinuous-v0", "PointRobot-misc", "Reacher-misc"),
    "Swimmer-misc",
]


@pytest.fixture(scope="module")
def made():
    """Environments and their parameters by name, made once; MNIST's without its data."""
    images = (np.zeros((10, 28, 28)), np.arange(10)), None

    @functools.cache
    def make(name):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(load_mnist, "load_mnist", lambda: images)
            return envs.make(name)

    return make


@pytest.fixture(scope="module")
def started(made):
    """The state after a reset with a seed, some of its fields replaced; every leaf an array."""

    def start(name, seed=0, **changes):
        env, params = made(name)
        state = env.reset_env(jax.random.key(seed), params)[1].replace(**changes)
        return jax.tree.map(jnp.asarray, state)

    return start


@pytest.fixture(scope="module")
def picture(made):
    """The picture of a state, drawn by a program that is compiled once for each environment."""

    @functools.cache
    def program(name):
        env, _ = made(name)
        return jax.jit(lambda state, params: envs.render(env, state, params), **QUICK)

    return lambda name, state, **changes: np.asarray(
        program(name)(state, made(name)[1].replace(**changes))
    )


def observed(obs, space):
    """The picture of an observation."""
    return np.asarray(jax.jit(lambda obs: observation(obs, space), **QUICK)(jnp.asarray(obs)))


def after_random_steps(env, params, state, count=20):
    def step(state, key):
        key_action, key_step = jax.random.split(key)
        action = env.action_space(params).sample(key_action)
        moved = env.step_env(key_step, state, action, params)[1]
        return jax.tree.map(lambda new, old: new.astype(old.dtype), moved, state), None

    keys = jax.random.split(jax.random.key(1), count)
    return jax.jit(lambda state: jax.lax.scan(step, state, keys)[0], **QUICK)(state)


def where(image, colour, slack=2):
    """Rows and columns of the pixels of a colour."""
    distance = np.abs(image.astype(int) - np.round(colour)).max(axis=2)
    return np.argwhere(distance <= slack)


def middle(image, colour):
    return where(image, colour).mean(axis=0) + 0.5


def test_every_environment_is_tested():
    known = {name for name in gymnax.registered_envs if name.count("-") == 1}
    known = {name for name in known if not name.endswith("-probe")}  # other tests' own
    assert set(DISCRETE + CONTINUOUS) | set(envs.own_names()) >= known - {"CartPole-v1"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.long] * (name in LARGE)) for name in DISCRETE],
)
def test_after_a_reset_and_after_random_steps(name, made, started, picture):
    env, params = made(name)
    state = started(name)
    later = after_random_steps(env, params, state, 20 if name != MNIST else 1)
    if name in ("SimpleBandit-bsuite", MNIST):
        assert later.time > 0  # the regret has changed or not, but nothing else can
        later = started(name, seed=3)
    images = picture(name, state), picture(name, later)
    for image in images:
        assert image.dtype == np.uint8 and image.shape[2:] == (3,)
        assert 150 <= image.shape[0] <= 520 and 150 <= image.shape[1] <= 420
    changed = (images[0] != images[1]).any(axis=2).mean()
    assert 1e-4 < changed < 0.9


def test_continuous_ones_show_what_they_observe(made, started, picture):
    name = "Pendulum-v1"
    env, params = made(name)
    state = started(name)
    obs = env.observe(jax.random.key(0), state, None, params)
    drawn = observed(obs, env.observation_space(params))
    assert np.abs(picture(name, state).astype(int) - drawn).max() <= 1


@pytest.mark.parametrize("name", ["Catch-bsuite", "DiscountingChain-bsuite"])
def test_single_and_mapped_pictures_agree(name, made, started, picture):
    env, params = made(name)
    states = [started(name, seed) for seed in range(3)]
    states[1] = states[1].replace(time=states[1].time + 7)
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    mapped = jax.jit(jax.vmap(lambda state: envs.render(env, state, params)))(batch)
    for state, image in zip(states, np.asarray(mapped), strict=True):
        assert np.abs(image.astype(int) - picture(name, state)).max() <= 1


def at_cells(image, size, rows, columns):
    """The colour in the middle of each cell, int [rows, columns, 3]."""
    half = size // 2
    return image[half : rows * size : size, half : columns * size : size].astype(int)


def test_without_compilation_it_is_the_same_picture(made, started, picture):
    name = "Catch-bsuite"
    env, params = made(name)
    plain = np.asarray(envs.render(env, started(name), params)).astype(int)
    assert np.abs(plain - picture(name, started(name))).max() <= 1


def test_breakout_is_where_the_state_says(started, picture):
    bricks = jnp.zeros((10, 10)).at[2, 3].set(1).at[1, 9].set(1)
    places = {"ball_y": 5, "ball_x": 6, "last_y": 4, "last_x": 7, "pos": 2}
    state = started("Breakout-MinAtar", brick_map=bricks, **places)
    cells = at_cells(picture("Breakout-MinAtar", state), 40, 10, 10)
    wanted = np.full((10, 10, 3), _board.CELL)
    for cell, colour in {
        (2, 3): _board.ORANGE,
        (1, 9): _board.ORANGE,
        (5, 6): _board.YELLOW,
        (4, 7): _board.DIM,
        (9, 2): _board.SKY,
    }.items():
        wanted[cell] = colour
    np.testing.assert_allclose(cells, wanted, atol=1)


@pytest.mark.parametrize(("direction", "colour"), [(-1, _board.LIGHT), (1, _board.RED)])
def test_aliens_point_to_where_they_move(direction, colour, started, picture):
    state = started("SpaceInvaders-MinAtar", alien_dir=direction)
    image = picture("SpaceInvaders-MinAtar", state)
    # Row 0 has aliens in columns 2 to 7. Left of their middle is the tip of an arrow or nothing.
    tip = image[20, 2 * 40 + 11].astype(int)
    np.testing.assert_allclose(tip, colour, atol=8)
    np.testing.assert_allclose(image[20, 5 * 40 + 20], _board.LIGHT, atol=1)


def test_seaquest_shows_oxygen_and_rescued_divers(made, started, picture):
    half = int(made("Seaquest-MinAtar")[1].max_oxygen) // 2
    image = picture("Seaquest-MinAtar", started("Seaquest-MinAtar", oxygen=half, diver_count=2))
    gauge = where(image[380:400], _board.LIGHT)[:, 1]
    assert (gauge.min(), gauge.max()) == (0, 199)
    cells = at_cells(image, 40, 10, 10)
    rescued = np.abs(cells[9] - _board.GREEN).max(axis=1) <= 1
    assert np.flatnonzero(rescued).tolist() == [7, 8]


def test_shapes_of_marks_stay_in_their_cells():
    shapes = ["block", "full", "disc", "dot", "dash", "bullet", "gauge", "left", "right"]
    channels = np.zeros((6, 6, 9), np.float32)
    for index in range(9):
        channels[2 * (index // 3), 2 * (index % 3), index] = 1
    marks = tuple(_board.Mark("", _board.YELLOW, shape) for shape in shapes)
    image = np.asarray(jax.jit(lambda cells: _board.board(cells, marks), **QUICK)(channels))
    cells = image[:396].reshape(6, 66, 6, 66, 3).swapaxes(1, 2)
    yellow = (cells == _board.YELLOW).all(axis=-1)
    areas = yellow.mean(axis=(2, 3))
    assert (areas[::2, ::2] > 0.05).all() and len(np.unique(areas[::2, ::2])) == 8
    np.testing.assert_array_equal(yellow[4, 2], yellow[4, 4][:, ::-1])  # left and right
    empty = cells[1, 1]
    assert (cells[1::2] == empty).all() and (cells[::2, 1::2] == empty).all()


@pytest.mark.parametrize(("first", "second"), [(0.0, 0.0), (0.6, -1.1), (2.8, 0.4), (-2.0, -1.0)])
def test_acrobots_tip_is_at_its_angles_and_green_over_the_line(first, second, started, picture):
    angles = {"joint_angle1": first, "joint_angle2": second}
    image = picture("Acrobot-v1", started("Acrobot-v1", **angles))
    is_over = -np.cos(first) - np.cos(first + second) > 1
    row, column = middle(image, draw.GREEN if is_over else draw.YELLOW)
    assert column == pytest.approx(200 + 85 * (np.sin(first) + np.sin(first + second)), abs=0.6)
    assert row == pytest.approx(200 + 85 * (np.cos(first) + np.cos(first + second)), abs=0.6)
    assert len(where(image, draw.YELLOW if is_over else draw.GREEN)) == 0
    np.testing.assert_allclose(image[115, 395], draw.INK, atol=2)  # the line, 1 m up


def test_ball_and_paddles_of_pong(started, picture):
    places = {
        "paddle_centers": jnp.array([7.0, 20.0]),
        "ball_position": jnp.array([12.0, 30.0]),
        "last_ball_position": jnp.array([11.0, 29.0]),
    }
    image = picture("Pong-misc", started("Pong-misc", **places))
    assert image.shape == (300, 400, 3)
    np.testing.assert_allclose(middle(image, _board.YELLOW), (125, 305), atol=0.1)
    np.testing.assert_allclose(middle(image, _board.SKY), (75, 5), atol=0.1)
    np.testing.assert_allclose(middle(image, _board.ORANGE), (205, 395), atol=0.1)


@pytest.mark.parametrize(
    ("ball", "colour"), [((4, 9), _board.RED), ((1, 9), _board.GREEN), ((1, 3), _board.SKY)]
)
def test_catch(ball, colour, started, picture):
    places = {"ball_x": ball[0], "ball_y": ball[1], "paddle_x": 1}
    image = picture("Catch-bsuite", started("Catch-bsuite", **places))
    assert image.shape == (400, 200, 3)
    row, column = middle(image, _board.YELLOW)
    assert (row // 40, column // 40) == (ball[1], ball[0])
    paddle = where(image, colour)
    assert paddle[:, 1].min() // 40 == paddle[:, 1].max() // 40 == 1
    assert paddle[:, 0].min() >= 380


def test_the_lake_has_its_holes_and_its_walker(made, started, picture):
    env, _ = made("FrozenLake-misc")
    image = picture("FrozenLake-misc", started("FrozenLake-misc", position=6))
    water = np.abs(at_cells(image, 100, 4, 4) - (38, 76, 126)).max(axis=2) <= 2
    np.testing.assert_array_equal(water, np.asarray(env.desc) == 2)
    assert (where(image, draw.BLUE) // 100 == (1, 2)).all()
    assert (where(image, draw.GREEN) // 100 == (3, 3)).all()
    sunk = picture("FrozenLake-misc", started("FrozenLake-misc", position=5))
    assert (where(sunk, draw.RED) // 100 == (1, 1)).all()
    assert len(where(sunk, draw.RED)) > 500 and len(where(sunk, draw.BLUE)) == 0


@pytest.mark.parametrize(("name", "size"), [("FourRooms-misc", 30), ("MetaMaze-misc", 36)])
def test_mazes_have_their_walls_goal_and_walker(name, size, made, started, picture):
    places = {"pos": jnp.array([9, 1]), "goal": jnp.array([1, 8])}
    image = picture(name, started(name, **places))
    walls = np.asarray(made(name)[0].occupied_map)
    corner = np.stack([image[2::size, 2::size], image[-3::-size, -3::-size][::-1, ::-1]]).min(0)
    dark = corner.max(axis=2) < 110  # walls that the walker sees are tinted
    np.testing.assert_array_equal(dark, walls == 1)
    assert (where(image, draw.BLUE) // size == (9, 1)).all()
    assert (where(image, draw.GREEN) // size == (1, 8)).all()
    assert len(where(image, draw.BLUE)) > 50 and len(where(image, draw.GREEN)) > 50


@pytest.mark.parametrize(("is_bad", "colour"), [(False, draw.BLUE), (True, draw.RED)])
def test_the_diver_is_at_row_and_column(is_bad, colour, started, picture):
    state = started("DeepSea-bsuite", row=5, column=3, bad_episode=is_bad)
    image = picture("DeepSea-bsuite", state)
    assert image.shape == (9 * 44, 8 * 44, 3)
    diver = where(image, colour)
    assert (diver // 44 == (5, 3)).all() and len(diver) > 200
    assert (where(image, draw.BROWN) // 44 == (8, 7)).all()


def test_the_sea_shows_which_action_leads_to_the_right(started, picture):
    actions = jnp.zeros((8, 8), jnp.int32).at[6, 2].set(1).at[6, 5].set(1)
    image = picture("DeepSea-bsuite", started("DeepSea-bsuite", action_mapping=actions))
    cells = [image[264:308, 44 * column : 44 * column + 44] for column in range(7)]
    assert [(cell == cells[2]).all() for cell in cells] == [column in (2, 5) for column in range(7)]
    assert (cells[0] == cells[1]).all()
    one = np.asarray(_text.coverage(_text.codes("1"), 2))[:, :10] > 0
    brightness = cells[2][3:17, 3:13].sum(axis=2)
    assert brightness[one].min() > brightness[~one].max() + 60


def test_arms_are_as_high_as_their_rewards(started, picture):
    rewards = jnp.linspace(0, 1, 11)[::-1]
    image = picture("SimpleBandit-bsuite", started("SimpleBandit-bsuite", rewards=rewards))
    heights = [(image[50:190, 36 + 32 * arm] == draw.BLUE).all(axis=1).sum() for arm in range(11)]
    np.testing.assert_allclose(heights[1:], 140 * np.linspace(0.9, 0, 10), atol=1.5)
    best = where(image, draw.YELLOW)
    assert best[:, 1].max() < 52 and np.ptp(best[:, 0]) == pytest.approx(139, abs=2)


def test_the_arm_that_paid_has_a_coin(started, picture):
    name, coin = "BernoulliBandit-misc", (222, 166, 30)
    pulls = {"last_action": 1, "last_reward": 1, "reward_probs": jnp.array([0.9, 0.1])}
    np.testing.assert_allclose(
        middle(picture(name, started(name, time=5.0, **pulls)), coin), (80, 290), atol=0.1
    )
    unpaid = picture(name, started(name, time=5.0, **{**pulls, "last_reward": 0}))
    assert len(where(unpaid, coin)) == 0
    assert where(unpaid, draw.YELLOW)[:, 1].min() > 200
    assert len(where(picture(name, started(name, **pulls)), draw.YELLOW)) == 0  # not yet pulled


def test_a_negative_mean_hangs_below_the_axis_and_a_disc_shows_the_reward(started, picture):
    pulls = {"last_action": 1, "last_reward": -2.0, "mu": -1.5, "time": 50.0}
    image = picture("GaussianBandit-misc", started("GaussianBandit-misc", **pulls))
    bar = where(image, draw.YELLOW)
    assert bar[:, 0].min() >= 120 and bar[:, 0].max() == pytest.approx(120 + 70 / 2, abs=1)
    row, column = middle(image, _chart.BELOW)
    assert (row, column) == (pytest.approx(120 + 70 * 2 / 3, abs=0.5), pytest.approx(290, abs=0.1))
    done = where(image[264:280], draw.TEAL)[:, 1]
    assert done.max() == pytest.approx(200, abs=5)


def test_the_digit_of_mnist_is_written(started, picture):
    image = picture(MNIST, started(MNIST, correct_label=7))
    seven = np.asarray(_text.coverage(_text.codes("7"), 24))
    np.testing.assert_array_equal(
        (image[56 : 56 + 168, 140 : 140 + 144] == draw.BLUE).all(axis=2), seven > 0
    )


@pytest.mark.parametrize(
    ("time", "words", "asked"), [(0, "SEE BITS", 0), (2, "REMEMBER", 0), (5, "ANSWER  ", 1)]
)
def test_memory_chain_says_what_to_do(time, words, asked, started, picture):
    state = started("MemoryChain-bsuite", time=time, context=jnp.array([1]))
    image = picture("MemoryChain-bsuite", state)
    written = np.asarray(_text.coverage(_text.codes(words), 3)) > 0
    height, width = written.shape
    ink = (image[20 : 20 + height, 20 : 20 + width] == draw.INK).all(axis=2)
    np.testing.assert_array_equal(ink, written)
    assert (len(where(image, draw.YELLOW)) > 200) == asked
    face = draw.WHITE if time == 0 else draw.NIGHT
    assert len(where(image[60:220], face)) > 2_000
    done = where(image[258:270], draw.TEAL)[:, 1]
    assert (done.max() if time else 20) == pytest.approx(20 + 60 * time, abs=4)


@pytest.mark.parametrize("rains", [0, 1])
@pytest.mark.parametrize("umbrella", [0, 1])
def test_weather_and_umbrella(rains, umbrella, started, picture):
    fields = {"need_umbrella": rains, "has_umbrella": umbrella, "time": 4}
    image = picture("UmbrellaChain-bsuite", started("UmbrellaChain-bsuite", **fields))
    assert (len(where(image, draw.YELLOW)) > 500) == (not rains)
    assert (len(where(image, draw.RED)) > 500) == umbrella


def test_rewards_of_the_discounting_chain_come_at_their_times(started, picture):
    name = "DiscountingChain-bsuite"
    image = picture(name, started(name, context=2, time=30))
    for lane, time in enumerate((1, 3, 10, 30, 100)):
        rows = slice(40 + 44 * lane, 84 + 44 * lane)
        row, column = middle(image[rows], draw.YELLOW)
        assert column == pytest.approx(44 + 328 * np.log1p(time) / np.log1p(100), abs=1)
        assert row == pytest.approx(22, abs=1)
        assert (len(where(image[rows], draw.BLUE)) > 500) == (lane == 2)
        assert (len(where(image[rows], draw.RED)) > 100) == (lane == 0)  # 1.1 instead of 1
    chosen_not = picture(name, started(name, time=0))
    assert len(where(chosen_not, draw.BLUE)) == 0


def test_frames_of_bytes_are_shown_as_they_are():
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (20, 25, 3)).astype(np.uint8)
    image = observed(colours, spaces.Box(0, 255, colours.shape, jnp.uint8))
    np.testing.assert_array_equal(image, colours.repeat(16, 0).repeat(16, 1))
    for greys in (colours[..., 0], colours[..., :1]):
        image = observed(greys, spaces.Box(0, 255, greys.shape, jnp.uint8))
        wanted = np.repeat(greys.reshape(20, 25, 1), 3, 2).repeat(16, 0).repeat(16, 1)
        np.testing.assert_array_equal(image, wanted)
    large = rng.integers(0, 256, (210, 500, 3)).astype(np.uint8)
    image = observed(large, spaces.Box(0, 255, large.shape, jnp.uint8))
    np.testing.assert_array_equal(image, large)


def test_other_channels_have_a_colour_each():
    channels = jnp.zeros((4, 5, 12)).at[0, 1, 0].set(1).at[2, 3, 4].set(1).at[3, 3, 11].set(0.5)
    image = observed(channels, spaces.Box(0, 1, channels.shape))
    cells = at_cells(image, 80, 4, 5)
    np.testing.assert_allclose(cells[0, 1], _board.PALETTE[0], atol=1)
    np.testing.assert_allclose(cells[2, 3], _board.PALETTE[4], atol=1)
    half = (np.array(_board.PALETTE[1]) + _board.CELL) / 2
    np.testing.assert_allclose(cells[3, 3], half, atol=1)
    np.testing.assert_allclose(cells[1, 1], _board.CELL, atol=1)


@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 1), (36,), (2, 3, 2, 3)])
def test_fields_are_orange_above_zero_and_blue_below(shape):
    values = np.zeros(shape, np.float32).reshape(-1)
    values[1], values[2], values[4] = 2.0, -2.0, 1.0
    obs = jnp.asarray(values.reshape(shape))
    image = observed(obs, spaces.Box(-2, 2, shape))
    rows, columns = shape[:2] if len(shape) in (2, 3) else (6, 6)
    cells = at_cells(image, 400 // max(rows, columns), rows, columns).reshape(-1, 3)
    np.testing.assert_allclose(cells[1], _board.ORANGE, atol=1)
    np.testing.assert_allclose(cells[2], _board.SKY, atol=1)
    np.testing.assert_allclose(cells[4], (np.array(_board.ORANGE) + _board.CELL) / 2, atol=1)
    np.testing.assert_allclose(cells[[0, 3, 5]], np.tile(_board.CELL, (3, 1)), atol=1)


def bar_ends(image, count):
    """Left and right end of the bar of each number, as shares of its track."""
    pitch = (image.shape[0] - 16) // count
    ends = []
    for number in range(count):
        row = image[8 + int((number + 0.5) * pitch)][44:284].astype(int)
        filled = [np.abs(row - colour).max(1) <= 2 for colour in (draw.BLUE, _board.ORANGE)]
        places = np.flatnonzero(filled[0] | filled[1])
        # The axis, two pixels wide, lies over one end.
        ends.append((places.min() / 240, (places.max() + 1) / 240) if len(places) else (0, 0))
    return np.array(ends)


def test_numbers_become_bars_between_their_bounds():
    values = jnp.array([0.5, -1.0, 4.0, 0.0], jnp.float32)
    low, high = jnp.array([0.0, -2.0, 0.0, -1.0]), jnp.array([1.0, 2.0, 8.0, 1.0])
    image = observed(values, spaces.Box(low, high, (4,)))
    wanted = [(0, 0.5), (0.25, 0.5), (0, 0.5), (0, 0)]
    np.testing.assert_allclose(bar_ends(image, 4), wanted, atol=0.01)
    assert len(where(image, _board.ORANGE)) > 500
    text = np.asarray(_text.coverage(_text.number(jnp.float32(-1.0)), 2)) > 0
    top = int(8 + 1.5 * 64 - 7)
    written = (image[top : top + 14, 294:390] == draw.INK).all(axis=2)
    np.testing.assert_array_equal(written, text)


def test_numbers_without_bounds_are_pressed_together():
    values = jnp.array([1.0, -3.0, jnp.inf, jnp.nan, 1e30], jnp.float32)
    image = observed(values, spaces.Box(-jnp.inf, jnp.inf, (5,)))
    wanted = [(0.5, 0.75), (0.125, 0.5), (0.5, 1), (0, 0), (0.5, 1)]
    np.testing.assert_allclose(bar_ends(image, 5), wanted, atol=0.01)


@pytest.mark.parametrize(("value", "count", "row", "column"), [(37, 500, 1, 14), (1, 2, 0, 1)])
def test_a_category_is_a_cell_and_a_number(value, count, row, column):
    image = observed(jnp.int32(value), spaces.Discrete(count))
    size = 400 // int(np.ceil(np.sqrt(count)))
    cell = where(image, draw.BLUE)
    assert (cell // size == (row, column)).all() and len(cell) > 0.7 * size**2
    text = np.asarray(_text.coverage(_text.codes(str(value).rjust(len(str(count - 1)))), 4)) > 0
    strip = image[-40:-12, 12 : 12 + text.shape[1]]
    np.testing.assert_array_equal((strip == draw.INK).all(axis=2), text)


def test_too_many_categories_are_a_number_alone():
    image = observed(jnp.int32(123_456), spaces.Discrete(217_411))
    assert image.shape == (52, 400, 3)
    text = np.asarray(_text.coverage(_text.codes("123456"), 4)) > 0
    strip = image[12:40, 12 : 12 + text.shape[1]]
    np.testing.assert_array_equal((strip == draw.INK).all(axis=2), text)


def test_numbers_in_characters():
    number = jax.jit(_text.number)
    for value, text in {
        0.0: "0.00",
        0.0049: "0.00",
        -0.004: "0.00",
        1.234: "1.23",
        -9.99: "-9.99",
        9.996: "10.0",
        12.34: "12.3",
        -99.96: "-100",
        517.0: "517",
        -123456.0: "-123456",
        999999.0: "999999",
        1e6: "BIG",
        -np.inf: "-BIG",
        np.nan: "NAN",
    }.items():
        signs = "".join(_text.CHARACTERS[code] for code in np.asarray(number(value)))
        assert signs == text.rjust(8), value
    whole = jax.jit(_text.integer, static_argnums=1)
    for value, text in {0: "   0", 7: "   7", 40: "  40", 1203: "1203"}.items():
        assert "".join(_text.CHARACTERS[code] for code in np.asarray(whole(value, 4))) == text


def test_every_character_looks_different():
    glyphs = _text.coverage(_text.codes(_text.CHARACTERS), 1).reshape(7, -1, 6).swapaxes(0, 1)
    assert glyphs[..., 5].max() == 0 and glyphs[-1].max() == 0
    alike = [
        (one, other)
        for at, one in enumerate(_text.CHARACTERS)
        for other, glyph in zip(_text.CHARACTERS[:at], glyphs[:at], strict=True)
        if np.array_equal(glyphs[at], glyph)
    ]
    assert alike == [("0", "O")]


def test_the_gallery_shows_environments_side_by_side(tmp_path, capsys):
    script = runpy.run_path(str(ROOT / "scripts" / "gallery.py"))
    path = tmp_path / "sheet.png"
    names = ["FrozenLake-misc", "Pong-misc"]
    script["main"]([*("--columns", "2", "--steps", "0", "--out", str(path), "--names"), *names])
    assert f"{path}: 2 environments" in capsys.readouterr().out
    sheet = np.asarray(Image.open(path).convert("RGB"))
    assert sheet.shape == (20 + 434 + 20, 2 * 420 + 20, 3)
    lake, pong = sheet[54:454, 20:420], sheet[54:354, 440:840]
    assert len(where(lake, draw.GREEN, 8)) > 1000
    np.testing.assert_allclose(middle(pong, _board.SKY), (155, 5), atol=1)


@struct.dataclass
class MineState(environment.EnvState):
    value: jax.Array


class Mine(environment.Environment):
    """An environment of a user's own, without a picture."""

    name = "Mine-v0"
    space = spaces.Box(-1, 1, (2,))

    def reset_env(self, key, params):
        state = MineState(time=jnp.int32(0), value=jax.random.uniform(key))
        return self.observe(key, state, None, params), state

    def observe(self, key, state, action, params):
        return jnp.stack([state.value, -state.value])

    def observation_space(self, params):
        return self.space


class Drawn(Mine):
    """The same with a picture."""

    def render(self, state, params):
        return jnp.full((2, 3, 3), 255 * state.value).astype(jnp.uint8)


class Plotted(Mine):
    """The same with a method that gives something else."""

    def render(self, state, params):
        return jnp.zeros((2, 3), jnp.float32)


class DrawnCatch(Catch):
    """A game of gymnax with a picture of the user's."""

    def render(self, state, _):
        return np.full((1, 1, 3), 7, np.uint8)


class OtherRobot(PointRobot):
    """A kin of an environment of gymnax that plots itself with matplotlib."""


def reset(env, params=None):
    params = env.default_params if params is None else params
    return env.reset_env(jax.random.key(0), params)[1], params


def test_what_draws_an_environment():
    for env, wanted in (
        (Mine(), observed([0.5, -0.5], Mine.space)),
        (Drawn(), np.full((2, 3, 3), 127, np.uint8)),
        (DrawnCatch(), np.full((1, 1, 3), 7, np.uint8)),
    ):
        state, params = reset(env)
        if isinstance(env, Mine):
            state = state.replace(value=jnp.float32(0.5))
        image = jax.jit(functools.partial(envs.render, env), **QUICK)(state, params)
        np.testing.assert_array_equal(image, wanted)
    env = OtherRobot()
    image = jax.eval_shape(functools.partial(envs.render, env), *reset(env))
    assert image.shape[1:] == (400, 3)


def test_our_own_are_drawn_by_their_own_methods():
    env, params = envs.make("MountainCar-v0")
    state, _ = reset(env, params)
    both = jax.jit(lambda state: (envs.render(env, state, params), env.render(state, params)))
    np.testing.assert_array_equal(*both(state))


def test_wrappers_are_looked_through(made, picture):
    env, params = made("Catch-bsuite")
    state, _ = reset(env, params)
    wrapped = LogWrapper(FlattenObservationWrapper(env))
    _, outer = wrapped.reset(jax.random.key(0), params)
    inner = jax.tree.map(jnp.asarray, outer.env_state)
    image = jax.jit(functools.partial(envs.render, wrapped), **QUICK)(outer, params)
    np.testing.assert_array_equal(image, picture("Catch-bsuite", inner))


def test_what_is_no_picture_is_refused():
    env = Plotted()
    with pytest.raises(TypeError, match=r"Mine-v0.render gave float32 \[2, 3\], not a picture"):
        envs.render(env, *reset(env))


def test_observations_that_are_no_array_are_refused():
    env = Mine()
    env.space = spaces.Dict({"a": Mine.space})
    with pytest.raises(TypeError, match="Mine-v0 has Dict observations, and only arrays"):
        envs.render(env, *reset(env))


@pytest.mark.parametrize("name", ["Breakout-MinAtar", "DiscountingChain-bsuite", "FrozenLake-misc"])
def test_a_batch_of_states_and_other_states_are_refused(name, made, started):
    env, params = made(name)
    state = started(name)
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf] * 8), state)
    with pytest.raises(
        ValueError, match=r"renders one state, but \w+ has the shape \(8,"
    ) as caught:
        envs.render(env, batch, params)
    assert "\n" not in str(caught.value) and "leaf[0]" in str(caught.value)
    other = MineState(time=0, value=jnp.float32(0))
    with pytest.raises(
        TypeError, match=r"renders its own state, gymnax\.\S+\.EnvState, not \S*test_pictures\.Mine"
    ):
        envs.render(env, other, params)
    with pytest.raises(TypeError, match=r"not numpy\.ndarray"):
        envs.render(env, np.zeros(4), params)
    with pytest.raises(TypeError, match=r"renders its own state, envs\.taxi\.EnvState, not gymnax"):
        envs.render(*[envs.make("Taxi-v4")[at] if at == 0 else state for at in (0, 1)], params)
