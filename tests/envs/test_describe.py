"""What can be set about an environment, and environments set up by it."""

import dataclasses
import math
import sys
import types
from typing import Annotated, Literal

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnasium.envs.toy_text.taxi import TaxiEnv
from gymnax.environments import environment

import envs
from envs import Parameter


@struct.dataclass
class Params(environment.EnvParams):
    size: int = 5
    stride: float = envs.setting(0.25, "m", "length of a step")
    angle: np.floating = np.float32(0.5)
    slope: jax.Array = struct.field(default_factory=lambda: jnp.float16(2))
    count: np.integer = np.int32(3)
    is_wet: bool = False
    mode: str = struct.field(default="dry", pytree_node=False)
    friction: float = struct.field(default=0.5, pytree_node=False)
    weights: jax.Array = struct.field(default_factory=lambda: jnp.ones(3))
    nothing: None = None
    max_steps_in_episode: float = 100.0


class Maze(environment.Environment):
    """A maze of
    corridors. It has walls."""

    def __init__(
        self,
        height: int,
        size: "int | None" = None,
        kind: Literal["round", "square"] = "round",
        chance: Annotated[int | float, 0, "how likely rain is", "no sentence"] = 1,
        walls=True,
        bias: "jax.Array | float" = 0.5,
        start: tuple = (0, 0),
        colour: str | None = None,
    ):
        super().__init__()
        self.given = (height, size, kind, chance, walls, bias, start, colour)

    @property
    def default_params(self):
        return Params()


class Unresolved(Maze):
    def __init__(self, grid: "Grid" = None, size: int = 4):  # noqa: F821
        super().__init__(3, size)


class Bare(Maze):
    def __init__(self):
        super().__init__(3)

    @property
    def default_params(self):
        return {"stride": 0.25}


@pytest.fixture(autouse=True)
def mazes(monkeypatch):
    """The classes above as a module of a user's."""
    module = types.ModuleType("mazes_of_mine")
    module.Maze, module.Unresolved, module.Bare = Maze, Unresolved, Bare
    monkeypatch.setitem(sys.modules, "mazes_of_mine", module)


# The MNIST bandit fetches its data when it is made.
GYMNAX = sorted({*gymnax.registered_envs} - {*envs.own_names(), "MNISTBandit-bsuite"})
MAZE = "mazes_of_mine:Maze"


def option(name, kind, default):
    return Parameter(name, kind, default, constructor=True)


def test_options_and_parameters_are_described_by_type():
    described = envs.describe(MAZE, height=2)
    assert (described.name, described.doc) == (MAZE, "A maze of corridors")
    assert described.options == (
        option("height", int, 2),
        option("size", int, None),
        option("kind", str, "round"),
        option("chance", float, 1)._replace(doc="how likely rain is"),
        option("walls", bool, True),
        option("bias", float, 0.5),
        option("colour", str, None),
    )
    assert described.params == (
        Parameter("max_steps_in_episode", int, 100),
        Parameter("stride", float, 0.25, "m", "length of a step", traced=True),
        Parameter("angle", float, 0.5, traced=True),
        Parameter("slope", float, 2.0, traced=True),
        Parameter("count", int, 3),
        Parameter("is_wet", bool, False),
        Parameter("mode", str, "dry"),
        Parameter("friction", float, 0.5),
    )
    assert described.parameters == described.options + described.params


def test_annotations_that_cannot_be_resolved_leave_types_to_the_defaults():
    described = envs.describe("mazes_of_mine:Unresolved")
    assert described.options == (option("size", int, 4),)


@pytest.mark.parametrize("name", envs.own_names())
def test_own_environments_say_what_every_parameter_means(name):
    described = envs.describe(name)
    _, params = envs.make(name)
    assert described.doc
    assert {field.name for field in described.params} == {
        field.name for field in dataclasses.fields(params)
    }
    for field in described.params:
        assert field.doc and not field.doc.endswith("."), field.name
        assert field.default == getattr(params, field.name)
        assert field.traced == (field.type is float), field.name
    assert next(f for f in described.params if f.name == "max_steps_in_episode").unit == "steps"


def test_own_units():
    units = {field.name: field.unit for field in envs.describe("CartPole-v1").params}
    assert units == {
        "gravity": "m/s^2",
        "masscart": "kg",
        "masspole": "kg",
        "length": "m",
        "force_mag": "N",
        "tau": "s",
        "theta_threshold_radians": "rad",
        "x_threshold": "m",
        "max_steps_in_episode": "steps",
    }
    slope = next(f for f in envs.describe("MountainCar-v0").params if f.name == "gravity")
    assert (slope.unit, slope.default, slope.traced) == ("1/step^2", 0.0025, True)


def test_a_version_is_the_name_and_no_option():
    assert [one.name for one in envs.describe("WallDodge-v1").options] == [
        "size", "robot_size", "hole_height", "num_actions",
    ]  # fmt: skip
    assert envs.describe("Taxi-v4").options == ()


@pytest.mark.parametrize("name", GYMNAX)
def test_environments_of_gymnax_are_described_without_units(name):
    described = envs.describe(name)
    assert described.params[0].name == "max_steps_in_episode"
    for field in described.params:
        assert type(field.default) is field.type and field.unit == ""
    # What is described as it is can be given as it is.
    given = {field.name: field.default for field in described.params}
    _, params = envs.configure(name, {}, given)
    _, defaults = envs.make(name)
    assert jax.tree.all(jax.tree.map(lambda x, y: bool(jnp.all(x == y)), params, defaults))


def test_an_environment_is_configured_by_both():
    env, params = envs.configure(
        "WallDodge-v1", {"size": 60}, {"robot_speed": 2, "step_reward": 1, "crash_reward": -2.5}
    )
    assert env.observation_space(params).shape == (60, 60, 1)
    assert (params.robot_speed, params.step_reward, params.crash_reward) == (2, 1.0, -2.5)
    assert type(params.step_reward) is float and params.wall_speed == 1
    env, params = envs.configure(MAZE, {"height": 3, "chance": 2, "colour": None})
    assert env.given == (3, None, "round", 2.0, True, 0.5, (0, 0), None)
    assert type(env.given[3]) is float
    assert params.stride == 0.25


def test_numbers_of_numpy_and_jax_are_numbers_and_defaults_keep_their_dtype():
    given = {
        "stride": np.float64(0.5),
        "angle": jnp.float32(0.75),
        "slope": 3,
        "count": np.int64(7),
        "is_wet": np.True_,
        "max_steps_in_episode": jnp.int32(9),
    }
    _, params = envs.configure(MAZE, {"height": np.int32(3)}, given)
    kept = {name: (type(getattr(params, name)), getattr(params, name)) for name in given}
    assert kept == {
        "stride": (float, 0.5),
        "angle": (np.float32, 0.75),
        "slope": (type(jnp.ones(())), 3.0),
        "count": (np.int32, 7),
        "is_wet": (bool, True),
        "max_steps_in_episode": (int, 9),
    }
    assert params.slope.dtype == jnp.float16


def test_a_traced_parameter_may_differ_between_lanes():
    state = envs.cartpole.EnvState(*jnp.zeros((5, 1)))
    state = jax.tree.map(lambda leaf: leaf[0], state).replace(theta=jnp.float32(0.1))

    def next_pole(gravity):
        env, params = envs.configure("CartPole-v1", {}, {"gravity": gravity, "length": 1})
        return env.step_env(None, state, 1, params)[1].theta_dot

    lanes = jax.vmap(next_pole)(jnp.array([9.8, 1.6]))
    np.testing.assert_allclose(lanes, [next_pole(9.8), next_pole(1.6)], rtol=1e-6)
    assert lanes[0] > lanes[1]


REFUSED = [
    (
        ("CartPole-v9", {}, {}),
        "unknown environment 'CartPole-v9': did you mean CartPole-v1, CartPole-v0? `dqx envs` or "
        "envs.names() lists all COUNT; one of your own is given as "
        "package.module:Class",
    ),
    (
        ("WallDodge-v0", {}, {"robot_sped": 3}),
        "WallDodge-v0 has no parameter 'robot_sped' that can be set: did you mean robot_speed? its "
        "parameters are max_steps_in_episode, robot_speed, wall_speed, step_reward, crash_reward",
    ),
    (
        ("Taxi-v4", {"rainy": True}, {}),
        "Taxi-v4 has no option 'rainy' that can be set: its options are none",
    ),
    (
        ("WallDodge-v0", {}, {"size": 60}),
        "WallDodge-v0 takes 'size' as an option of its constructor, not as a parameter",
    ),
    (
        (MAZE, {"height": 3}, {"size": 7}),
        f"{MAZE} takes 'size' as an option of its constructor, not as a parameter",
    ),
    (
        (MAZE, {"height": 3, "start": (1, 1)}, {}),
        f"{MAZE} has no option 'start' that can be set: its options are height, size, kind, "
        "chance, walls, bias, colour",
    ),
    (
        ("Acrobot-v1", {}, {"available_torque": 1.0}),
        "Acrobot-v1 has no parameter 'available_torque' that can be set: its parameters are "
        "max_steps_in_episode, dt, link_length_1, link_length_2, link_mass_1, link_mass_2, "
        "link_com_pos_1, link_com_pos_2, link_moi, max_vel_1, max_vel_2, torque_noise_max",
    ),
    (
        ("CartPole-v1", {}, {"gravity": "high"}),
        "CartPole-v1: gravity is 'high', of type str; a number is asked",
    ),
    (
        ("CartPole-v1", {}, {"gravity": True}),
        "CartPole-v1: gravity is True, of type bool; a number is asked",
    ),
    (
        ("CartPole-v1", {}, {"gravity": None}),
        "CartPole-v1: gravity is None, of type NoneType; a number is asked",
    ),
    (
        ("CartPole-v1", {}, {"gravity": math.nan}),
        "CartPole-v1: gravity is nan; a number that float32 can hold is asked",
    ),
    (
        ("CartPole-v1", {}, {"gravity": 10**40}),
        f"CartPole-v1: gravity is {10**40}; a number that float32 can hold is asked",
    ),
    (
        ("CartPole-v1", {}, {"gravity": jnp.ones(8)}),
        "CartPole-v1: gravity is an array, float32[8]; a number is asked (many: call under vmap)",
    ),
    (
        ("CartPole-v1", {}, {"max_steps_in_episode": 0}),
        "CartPole-v1: max_steps_in_episode is 0; a whole number from 1 to 2147483647 is asked",
    ),
    (
        ("WallDodge-v0", {}, {"robot_speed": 2.0}),
        "WallDodge-v0: robot_speed is 2.0, of type float; a whole number is asked",
    ),
    (
        ("WallDodge-v0", {}, {"robot_speed": False}),
        "WallDodge-v0: robot_speed is False, of type bool; a whole number is asked",
    ),
    (
        ("WallDodge-v0", {}, {"robot_speed": 2**31}),
        "WallDodge-v0: robot_speed is 2147483648; a whole number from -2147483648 to 2147483647 is "
        "asked",
    ),
    (
        ("WallDodge-v0", {"size": "60"}, {}),
        "WallDodge-v0: size is '60', of type str; a whole number is asked",
    ),
    (
        ("Taxi-v4", {}, {"is_rainy": 1}),
        "Taxi-v4: is_rainy is 1, of type int; True or False is asked",
    ),
    ((MAZE, {"height": 3, "kind": 4}, {}), f"{MAZE}: kind is 4, of type int; a text is asked"),
    (
        ("mazes_of_mine:Bare", {}, {"stride": 0.5}),
        "default_params of Bare is of type dict; make it a flax.struct.dataclass derived from "
        "gymnax.environments.environment.EnvParams",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(arguments, message):
    with pytest.raises(envs.UnusableEnvironment) as caught:
        envs.configure(*arguments)
    # Other tests register environments of their own.
    assert str(caught.value) == message.replace("COUNT", str(len(envs.names())))


@pytest.mark.parametrize(
    ("name", "parameter", "value", "message"),
    [
        (
            "Taxi-v4",
            "is_rainy",
            True,
            "Taxi-v4: is_rainy is a traced value, but it is static: True or False is asked, the "
            "same in all lanes",
        ),
        (
            "WallDodge-v0",
            "robot_speed",
            2,
            "WallDodge-v0: robot_speed is a traced value, but it is static: a whole number is "
            "asked, the same in all lanes",
        ),
        (
            "CartPole-v1",
            "gravity",
            np.ones(2, np.float32),
            "CartPole-v1: gravity is an array, float32[2]; a number is asked (many: call under "
            "vmap)",
        ),
        (
            "CartPole-v1",
            "gravity",
            9,
            "CartPole-v1: gravity is an array, int32[]; a number is asked (many: call under vmap)",
        ),
    ],
)
def test_traced_values_that_do_not_fit_are_refused(name, parameter, value, message):
    def configured(value):
        envs.configure(name, {}, {parameter: value})
        return value

    with pytest.raises(envs.UnusableEnvironment) as caught:
        jax.eval_shape(configured, value)
    assert str(caught.value) == message


def gymnasium_q(discount, **variant):
    """Q* [500, 6] of gymnasium's table by value iteration in NumPy."""
    probability, reward = np.zeros((500, 6, 500)), np.zeros((500, 6))
    for state, actions in TaxiEnv(**variant).P.items():
        for action, outcomes in actions.items():
            for share, following, gain, terminated in outcomes:
                probability[state, action, following] += share * (not terminated)
                reward[state, action] += share * gain
    q = np.zeros((500, 6))
    for _ in range(250):
        q = reward + discount * probability @ q.max(axis=1)
    return q


def test_the_exact_solution_follows_the_parameters():
    changes = {"is_rainy": True, "rainy_probability": 0.6}
    env, params = envs.configure("Taxi-v4", {}, changes)
    model = envs.tabular.build_model(env, params)
    numbers = jax.vmap(lambda state: env.observe(None, state, None, None))(model.states)
    rainy = envs.exact.optimal_q(model, 0.9)
    np.testing.assert_allclose(rainy, gymnasium_q(0.9, **changes)[numbers], atol=1e-8)
    assert np.abs(rainy - gymnasium_q(0.9)[numbers]).max() > 1
