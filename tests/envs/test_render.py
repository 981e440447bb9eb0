"""Pictures: each object is where the state says, in its colour, and nowhere else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs import _drawing as draw
from envs import cartpole, mountain_car, taxi, wall_dodge

NAMES = ["CartPole-v1", "MountainCar-v0", "Taxi-v4", "WallDodge-v0", "WallDodge-v1"]
SHAPES = dict(zip(NAMES, [(400, 600, 3)] * 2 + [(400, 400, 3)] * 3, strict=True))
PERSON = (96, 62, 140)
WINDOW = (196, 226, 240)


@pytest.fixture(scope="module")
def pictures():
    """Picture of a state by name, compiled once each."""
    compiled = {}

    def picture(name, state, **changes):
        env, params = envs.make(name)
        render = compiled.setdefault(name, jax.jit(env.render))
        return np.asarray(render(state, params.replace(**changes)))

    return picture


def reset_state(name, seed=0):
    env, params = envs.make(name)
    return env.reset_env(jax.random.key(seed), params)[1]


def cartpole_state(x, theta):
    values = {"x": x, "x_dot": 0.0, "theta": theta, "theta_dot": 0.0}
    fields = {name: jnp.float32(value) for name, value in values.items()}
    return cartpole.EnvState(time=jnp.int32(0), **fields)


def car_state(position):
    fields = {"position": jnp.float32(position), "velocity": jnp.float32(0.0)}
    return mountain_car.EnvState(time=jnp.int32(0), **fields)


def wall_dodge_state(robot_y, wall_x, hole_top):
    values = {"robot_y": robot_y, "wall_x": wall_x, "hole_top": hole_top, "time": 0}
    return wall_dodge.EnvState(**{name: jnp.int32(value) for name, value in values.items()})


def taxi_state(cab, passenger, destination):
    values = {"taxi": cab, "passenger": passenger, "destination": destination, "time": 0}
    fields = {name: jnp.int32(value) for name, value in values.items()}
    return taxi.EnvState(fickle=jnp.array(False), **fields)


def where(image, colour, slack=2):
    """Rows and columns of the pixels of a colour."""
    distance = np.abs(image.astype(int) - np.array(colour)).max(axis=2)
    return np.argwhere(distance <= slack)


def cell(image, number):
    top, left = 20 + 72 * (number // 5), 20 + 72 * (number % 5)
    return image[top : top + 72, left : left + 72]


@pytest.mark.parametrize("name", NAMES)
def test_shape_dtype_and_compilation(name, pictures):
    env, params = envs.make(name)
    state = reset_state(name)
    plain, compiled = np.asarray(env.render(state, params)), pictures(name, state)
    assert plain.shape == compiled.shape == SHAPES[name]
    assert plain.dtype == compiled.dtype == np.uint8
    # Fused arithmetic may round the other way.
    assert np.abs(plain.astype(int) - compiled.astype(int)).max() <= 1
    assert (plain != compiled).mean() < 1e-3


@pytest.mark.parametrize("name", ["CartPole-v1", "Taxi-v4", "WallDodge-v0"])
def test_batches_of_pictures_equal_single_ones(name, pictures):
    env, params = envs.make(name)
    states = jax.vmap(lambda key: env.reset_env(key, params)[1])(
        jax.random.split(jax.random.key(0), 3)
    )
    batch = np.asarray(jax.jit(jax.vmap(env.render, in_axes=(0, None)))(states, params))
    for index, image in enumerate(batch):
        alone = pictures(name, jax.tree.map(lambda leaf, i=index: leaf[i], states))
        assert np.abs(image.astype(int) - alone.astype(int)).max() <= 1
    assert not np.array_equal(batch[0], batch[1])


@pytest.mark.parametrize("x", [-2.4, -1.0, 0.0, 1.7])
def test_the_cart_is_at_its_position(x, pictures):
    image = pictures("CartPole-v1", cartpole_state(x, 0.0))
    middle = where(image, draw.BLUE)[:, 1].mean() + 0.5
    assert middle == pytest.approx(300 + 260 / 2.4 * x, abs=0.6)
    assert len(where(image, draw.RED)) > 50  # the stops, and no fallen pole
    stops = where(image, draw.RED)[:, 1]
    assert ((np.abs(stops - 40) < 6) | (np.abs(stops - 560) < 6)).all()


@pytest.mark.parametrize(("theta", "colour"), [(0.15, draw.BROWN), (-0.1, draw.BROWN)])
def test_the_pole_leans_by_its_angle(theta, colour, pictures):
    image = pictures("CartPole-v1", cartpole_state(0.0, theta))
    rows, columns = where(image, colour).T
    slope = np.polyfit(-rows, columns, 1)[0]  # columns a row upwards
    assert slope == pytest.approx(np.tan(theta), abs=0.02)
    # It is 1 m long from its axle, on the scale of the track.
    assert rows.max() - rows.min() == pytest.approx(260 / 2.4 * np.cos(theta), abs=8)


def test_a_fallen_pole_is_red_and_thresholds_are_followed(pictures):
    fallen = pictures("CartPole-v1", cartpole_state(0.0, 0.25))
    assert len(where(fallen, draw.BROWN)) == 0
    assert len(where(fallen[:240], draw.RED)) > 300
    wide = pictures("CartPole-v1", cartpole_state(0.0, 0.25), theta_threshold_radians=0.5)
    assert len(where(wide, draw.BROWN)) > 300
    far = pictures("CartPole-v1", cartpole_state(1.2, 0.0), x_threshold=1.2)
    assert where(far, draw.BLUE)[:, 1].mean() == pytest.approx(559.5, abs=0.6)


@pytest.mark.parametrize("position", [-1.0, -0.5, 0.1, 0.45])
def test_the_car_stands_on_the_hill(position, pictures):
    image = pictures("MountainCar-v0", car_state(position))
    rows, columns = where(image, draw.YELLOW).T
    column = (position + 1.2) / 1.8 * 600
    hill = 215 - 135 * np.sin(3 * position)
    slope = np.arctan(135 * 3 * 1.8 / 600 * np.cos(3 * position))
    # The body's centre is some 18 px above the road, at a right angle to it.
    assert columns.mean() == pytest.approx(column - 18 * np.sin(slope), abs=4)
    assert rows.mean() == pytest.approx(hill - 18 * np.cos(slope), abs=4)
    grass = where(image, draw.GREEN)
    for x in (20, 150, 590):
        top = grass[grass[:, 1] == x][:, 0].min()
        assert top == pytest.approx(215 - 135 * np.sin(3 * (x / 600 * 1.8 - 1.2)), abs=2.5)


@pytest.mark.parametrize("goal", [0.5, 0.2])
def test_the_flag_is_at_the_goal(goal, pictures):
    image = pictures("MountainCar-v0", car_state(-0.5), goal_position=goal)
    flag = where(image, draw.RED)
    column = (goal + 1.2) / 1.8 * 600
    assert flag[:, 1].min() == pytest.approx(column + 2, abs=2)
    assert flag[:, 0].max() < 215 - 135 * np.sin(3 * goal) - 30
    assert 200 < len(flag) < 500


@pytest.mark.parametrize(
    ("name", "size", "drawn", "hole"), [("WallDodge-v0", 40, 4, 10), ("WallDodge-v1", 80, 9, 20)]
)
def test_robot_wall_and_hole_are_where_the_frame_has_them(name, size, drawn, hole, pictures):
    scale = 400 // size
    image = pictures(name, wall_dodge_state(12, size // 2 + 11, 7))
    robot = where(image, draw.YELLOW)
    top, left = 12 * scale, size // 2 * scale
    assert robot.min(axis=0).tolist() == [top, left]
    assert robot.max(axis=0).tolist() == [top + drawn * scale - 1, left + drawn * scale - 1]
    wall = np.concatenate([where(image, draw.TEAL), where(image, draw.TEAL_DARK)])
    wall_left = left + 11 * scale
    assert (wall[:, 1].min(), wall[:, 1].max()) == (wall_left, wall_left + drawn * scale - 1)
    hole_rows = np.arange(7 * scale, (7 + hole) * scale)
    assert not np.isin(wall[:, 0], hole_rows).any()
    rest = np.setdiff1d(np.arange(400), hole_rows)
    np.testing.assert_array_equal(np.unique(wall[:, 0]), rest)


def test_the_robot_shows_at_the_border_where_the_frame_hides_it(pictures):
    image = pictures("WallDodge-v0", wall_dodge_state(-1, 40, 7))
    robot = where(image, draw.YELLOW)
    assert (robot[:, 0].min(), robot[:, 0].max()) == (0, 29)
    assert len(where(image, draw.TEAL)) == 0  # the wall is still outside
    assert len(where(pictures("WallDodge-v0", wall_dodge_state(0, 38, 7)), draw.TEAL)) > 0


@pytest.mark.parametrize(("robot_y", "crashes"), [(7, False), (12, False), (6, True), (13, True)])
def test_a_crashed_robot_is_red(robot_y, crashes, pictures):
    image = pictures("WallDodge-v0", wall_dodge_state(robot_y, 22, 7))
    assert (len(where(image, draw.RED)) > 500) == crashes
    assert (len(where(image, draw.YELLOW)) > 500) != crashes


def test_the_walls_of_the_town_are_those_that_stop_the_cab(pictures):
    image = pictures("Taxi-v4", taxi_state(12, 4, 3))
    env, _ = envs.make("Taxi-v4")
    blocked = 0
    for number in range(25):
        if number % 5 == 4:
            continue
        east = not env.action_mask(taxi_state(number, 4, 3))[2]
        middle = (20 + 72 * (number // 5) + 36, 20 + 72 * (number % 5 + 1))
        is_dark = image[middle].max() < 80
        assert is_dark == east, number
        blocked += is_dark
        below = (min(middle[0] + 36, 399), middle[1] - 36)
        assert number >= 20 or image[below].min() > 180
    assert blocked == 6


def test_pads_have_their_colours_and_letters(pictures):
    image = pictures("Taxi-v4", taxi_state(12, 4, 3))
    colours = [draw.RED, draw.GREEN, (222, 170, 30), draw.BLUE]
    letters = []
    for number, colour in zip((0, 4, 20, 23), colours, strict=True):
        pad = cell(image, number)
        assert len(where(pad, colour)) > 2000
        letter = where(pad[:34, :30], draw.WHITE, 8)
        assert 60 < len(letter) < 250
        letters.append(frozenset(map(tuple, letter.tolist())))
    assert len(set(letters)) == 4
    assert len(where(cell(image, 6), colours[0])) == 0


@pytest.mark.parametrize("cab", [0, 7, 12, 24])
def test_the_cab_is_in_its_cell(cab, pictures):
    image = pictures("Taxi-v4", taxi_state(cab, 4, 3))
    yellow = where(image, draw.YELLOW)
    assert len(where(cell(image, cab), draw.YELLOW)) == len(yellow) > 400
    assert len(where(cell(image, cab), WINDOW)) > 40


@pytest.mark.parametrize(("passenger", "number"), [(0, 0), (1, 4), (2, 20), (3, 23), (4, 12)])
def test_the_passenger_waits_at_a_pad_or_sits_in_the_cab(passenger, number, pictures):
    image = pictures("Taxi-v4", taxi_state(12, passenger, 1 if passenger != 1 else 0))
    person = where(image, PERSON)
    assert len(where(cell(image, number), PERSON)) == len(person) > 20
    lamp = where(cell(image, 12), (60, 190, 90))
    assert (len(lamp) > 10) == (passenger == 4)


@pytest.mark.parametrize(("destination", "number"), [(0, 0), (1, 4), (2, 20), (3, 23)])
def test_the_destination_has_the_flag(destination, number, pictures):
    image = pictures("Taxi-v4", taxi_state(12, 4, destination))
    dark = [len(where(cell(image, pad)[4:-4, 8:-4], draw.INK, 6)) for pad in (0, 4, 20, 23)]
    assert np.argmax(dark) == (0, 4, 20, 23).index(number)
    assert sorted(dark)[-1] > 300 and sorted(dark)[-2] < 30


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_states_is_refused(name):
    env, params = envs.make(name)
    states = jax.vmap(env.reset_env, in_axes=(0, None))(
        jax.random.split(jax.random.key(0), 8), params
    )[1]
    with pytest.raises(ValueError, match=rf"{name} renders one state, but .* \(8,\)") as caught:
        env.render(states, params)
    assert "\n" not in str(caught.value) and "leaf[0]" in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_another_environments_state_is_refused(name):
    env, params = envs.make(name)
    other = reset_state("Taxi-v4" if name != "Taxi-v4" else "CartPole-v1")
    with pytest.raises(TypeError, match=rf"{name} renders its own state, envs\.\w+\.EnvState, not"):
        env.render(other, params)
    with pytest.raises(TypeError, match=r"not numpy\.ndarray"):
        env.render(np.zeros(4), params)


def area(coverage):
    return float(np.broadcast_to(coverage, (100, 100)).sum())


def test_shapes_cover_their_area():
    grid = draw.grid(100, 100)
    assert area(draw.disc(grid, 50.3, 48.9, 20)) == pytest.approx(np.pi * 400, rel=2e-3)
    assert area(draw.box(grid, 10.25, 20, 60.75, 70)) == pytest.approx(50.5 * 50, rel=2e-3)
    rounded = 50 * 50 - (4 - np.pi) * 100
    assert area(draw.box(grid, 10, 20, 60, 70, 10)) == pytest.approx(rounded, rel=2e-3)
    triangle = [(10, 80), (50, 10), (90, 80)]
    assert area(draw.polygon(grid, triangle)) == pytest.approx(80 * 70 / 2, rel=2e-3)
    stick = 40 * 6 + np.pi * 9
    assert area(draw.line(grid, [(30, 50), (70, 50)], 6)) == pytest.approx(stick, rel=5e-3)
    turned = draw.turned(grid, 50, 50, 0.7)
    assert area(draw.box(turned, -30, -8, 30, 8)) == pytest.approx(60 * 16, rel=5e-3)


def test_turning_is_clockwise_and_painting_blends():
    seen = draw.turned(draw.Grid(jnp.float32(0), jnp.float32(10)), 0, 0, np.pi / 2)
    np.testing.assert_allclose(seen, (10, 0), atol=1e-5)
    image = draw.paint(draw.plain(1, 2, (0, 100, 200)), jnp.array([[0.0, 0.5]]), (100, 100, 100))
    np.testing.assert_array_equal(image, [[[0, 100, 200], [50, 100, 150]]])
    half = draw.paint(draw.plain(1, 1, (0, 0, 0)), jnp.ones((1, 1)), (100, 100, 101), 0.5)
    np.testing.assert_array_equal(draw.finish(half), [[[50, 50, 50]]])
