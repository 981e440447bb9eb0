"""WallDodge: steer a robot through the holes of walls that come towards it, from pixels."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

from envs import _drawing as draw
from envs._fields import setting
from envs.tabular import Outcomes


class _Version(NamedTuple):
    """Lengths in pixels, the number of actions, the robot's speed and the reward of a crash."""

    size: int
    robot_size: int
    hole_height: int
    num_actions: int
    robot_speed: int
    crash_reward: float


VERSIONS = {"v0": _Version(40, 5, 10, 2, 2, 0.0), "v1": _Version(80, 10, 20, 3, 1, -1.0)}
WALL_GREY, ROBOT_WHITE = 128, 255
RENDER_PIXELS = 400


@struct.dataclass
class EnvState(environment.EnvState):
    """Top row of the robot, left column of the wall, top row of its hole, steps since reset.

    Every leaf is a scalar int32 array. Rows count downwards from 0, columns to the right. The
    robot may stand a step outside the frame: it moves by `robot_speed` wherever it may move.
    """

    robot_y: jax.Array
    wall_x: jax.Array
    hole_top: jax.Array
    time: jax.Array


@struct.dataclass
class EnvParams(environment.EnvParams):
    """Speeds in pixels a step, the reward of a step and of a crash, the time limit in steps."""

    robot_speed: int | jax.Array = setting(2, "pixels/step", "how far a move takes the robot")
    wall_speed: int | jax.Array = setting(1, "pixels/step", "how far a wall comes in a step")
    step_reward: float | jax.Array = setting(0.1, "", "reward of a step without a crash")
    crash_reward: float | jax.Array = setting(0.0, "", "reward of a crash")
    max_steps_in_episode: int = setting(500, "steps", "time limit of an episode")


class WallDodge(environment.Environment[EnvState, EnvParams]):
    """A robot in a fixed column dodges walls by moving up and down.

    Observation uint8 [size, size, 1]: background 0, wall 128, robot 255. Actions 0 up, 1 down,
    and 2 stay where there are three. Each step the wall comes `wall_speed` columns nearer; once
    it has left the frame, the next one starts at the right edge with its hole anywhere. Reward
    float32 0.1 a step, and `crash_reward` on a crash, which terminates.

    `version` "v0" is a frame of 40 x 40 pixels and two actions, "v1" one of 80 x 80 and three;
    `size` (the frame's edge), `robot_size`, `hole_height` (pixels) and `num_actions` change one
    thing of it. Raises ValueError for an unknown version and for sizes that do not fit together.

    Source: the road environment of the C-M-C article "Reinforcement learning with a neural
    network", "v0" as its code has it, "v1" as its text describes it.
    """

    def __init__(
        self,
        version: str = "v0",
        *,
        size: int | None = None,
        robot_size: int | None = None,
        hole_height: int | None = None,
        num_actions: int | None = None,
    ) -> None:
        """Take what is None from `version`: "v0" or "v1"."""
        super().__init__()
        if version not in VERSIONS:
            raise ValueError(
                f"WallDodge version {version!r} does not exist; choose one of {', '.join(VERSIONS)}"
            )
        self._version = version
        given = {
            "size": size,
            "robot_size": robot_size,
            "hole_height": hole_height,
            "num_actions": num_actions,
        }
        chosen = {field: value for field, value in given.items() if value is not None}
        self._shape = _checked(VERSIONS[version]._replace(**chosen))

    @property
    def default_params(self) -> EnvParams:
        """The speeds and rewards of this version."""
        shape = self._shape
        return EnvParams(robot_speed=shape.robot_speed, crash_reward=shape.crash_reward)

    def step_env(
        self,
        key: jax.Array,
        state: EnvState,
        action: int | float | jax.Array,
        params: EnvParams,
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[Any, Any]]:
        """Move the wall, then the robot, without time limit or reset.

        Returns observation [size, size, 1] uint8, state, reward () float32, terminated () bool
        and info. `key` draws the hole of a new wall.
        """
        next_state = self._moved(state, action, self._draw_hole(key), params)
        terminated = self.is_terminated(next_state, params)
        reward = jnp.where(terminated, params.crash_reward, params.step_reward)
        info = {"discount": 1.0 - terminated.astype(jnp.float32)}
        obs = self.observe(key, next_state, action, params)
        return obs, next_state, reward.astype(jnp.float32), terminated, info

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """Draw the robot's row and the hole uniformly; the wall is just outside the frame."""
        key_robot, key_hole = jax.random.split(key)
        low, high = self._robot_starts
        state = EnvState(
            robot_y=jax.random.randint(key_robot, (), low, high + 1, jnp.int32),
            wall_x=jnp.int32(self._shape.size),
            hole_top=self._draw_hole(key_hole),
            time=jnp.int32(0),
        )
        return self.observe(key, state, None, params), state

    def observe(
        self,
        key: jax.Array | None,
        state: EnvState,
        action: int | float | jax.Array | None,
        params: EnvParams | None,
    ) -> jax.Array:
        """Draw the frame, uint8 [size, size, 1].

        Wall and robot are drawn one pixel narrower than they collide, and a robot above the
        frame not at all, as the article's slices do it. So the frame does not show everything:
        the hole of a wall that has just started, or where above the frame the robot is.
        """
        return self._frame(state.robot_y, state.wall_x, state.hole_top)

    def sketch(self, obs: jax.Array, state: EnvState, params: EnvParams) -> dict[str, jax.Array]:
        """Take what the frame shows of a state, each () int8 (int32 where the frame is larger).

        What lies wholly outside of the frame is as far outside as is needed to be invisible.
        """
        size = self._shape.size
        dtype = jnp.int8 if size <= jnp.iinfo(jnp.int8).max else jnp.int32
        found = {
            "robot_y": jnp.clip(state.robot_y, -1, size),
            "wall_x": jnp.clip(state.wall_x, -size, size),
            "hole_top": state.hole_top,
        }
        return {name: value.astype(dtype) for name, value in found.items()}

    def draw(self, sketch: dict[str, jax.Array], params: EnvParams) -> jax.Array:
        """Draw the frame of a sketch, uint8 [size, size, 1]."""
        whole = {name: value.astype(jnp.int32) for name, value in sketch.items()}
        return self._frame(**whole)

    def get_obs(
        self, state: EnvState, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Observe through the older hook, which gymnax's wrappers and pictures still call."""
        return self.observe(key, state, None, params)

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Say whether the robot overlaps the wall; () bool."""
        shape = self._shape
        at_wall = jnp.abs(self._column - state.wall_x) < shape.robot_size
        above = state.robot_y < state.hole_top
        below = state.robot_y + shape.robot_size > state.hole_top + shape.hole_height
        return at_wall & (above | below)

    def start_states(self, params: EnvParams) -> tuple[EnvState, jax.Array]:
        """List all starts: states [S] and their probabilities [S], for `envs.tabular`."""
        low, high = self._robot_starts
        rows = jnp.arange(low, high + 1, dtype=jnp.int32)
        tops = jnp.arange(self._num_holes, dtype=jnp.int32)
        robot_y, hole_top = (axis.ravel() for axis in jnp.meshgrid(rows, tops, indexing="ij"))
        states = EnvState(
            robot_y=robot_y,
            wall_x=jnp.full_like(robot_y, self._shape.size),
            hole_top=hole_top,
            time=jnp.zeros_like(robot_y),
        )
        return states, jnp.full(robot_y.shape, 1 / robot_y.size)

    def outcomes(self, state: EnvState, action: int | jax.Array, params: EnvParams) -> Outcomes:
        """List what a step may lead to, one outcome for each hole, for `envs.tabular`."""
        tops = jnp.arange(self._num_holes, dtype=jnp.int32)
        states = jax.vmap(lambda top: self._moved(state, action, top, params))(tops)
        crashed = jax.vmap(lambda outcome: self.is_terminated(outcome, params))(states)
        is_new = state.wall_x < params.wall_speed
        return Outcomes(
            probability=jnp.where(is_new, 1 / self._num_holes, jnp.where(tops == 0, 1.0, 0.0)),
            state=states,
            reward=jnp.where(crashed, params.crash_reward, params.step_reward),
            terminated=crashed,
        )

    def render(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Picture one state for people, uint8 [H, W, 3], about 400 pixels a side; can be jitted.

        Shows the game rather than the frame: a robot that stands partly outside the frame is
        drawn as far as it is inside, and one that has crashed is red. Raises TypeError for
        another environment's state and ValueError for a batch of states.
        """
        draw.check_state(self.name, state, EnvState)
        shape = self._shape
        scale = max(1, RENDER_PIXELS // shape.size)
        edge, drawn = scale * shape.size, scale * (shape.robot_size - 1)
        grid = draw.grid(edge, edge)
        image = draw.vertical_gradient(edge, edge, draw.NIGHT_TOP, draw.NIGHT)

        left, top = scale * state.wall_x, scale * state.hole_top
        bottom = top + scale * shape.hole_height
        for high, low in ((-edge, top), (bottom, 2 * edge)):
            for inset, colour in ((0, draw.TEAL_DARK), (scale, draw.TEAL)):
                corners = (left + inset, high + inset, left + drawn - inset, low - inset)
                image = draw.paint(image, draw.box(grid, *corners, 0.6 * scale), colour)

        x, y = scale * self._column, scale * state.robot_y
        crashed = self.is_terminated(state, params)
        body = jnp.where(crashed, jnp.array(draw.RED), jnp.array(draw.YELLOW))
        image = draw.paint(image, draw.box(grid, x, y, x + drawn, y + drawn, drawn / 5), body)
        for eye in (0.45, 0.8):
            white = draw.disc(grid, x + eye * drawn, y + 0.35 * drawn, 0.14 * drawn)
            pupil = draw.disc(grid, x + (eye + 0.04) * drawn, y + 0.35 * drawn, 0.07 * drawn)
            image = draw.paint(draw.paint(image, white, draw.WHITE), pupil, draw.INK)
        return draw.finish(image)

    @property
    def name(self) -> str:
        """The registered name, such as "WallDodge-v0"."""
        return f"WallDodge-{self._version}"

    @property
    def num_actions(self) -> int:
        """Two: up and down; or three, with stay."""
        return self._shape.num_actions

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """Discrete: 0 moves up, 1 moves down, 2 (if there are three) stays."""
        return spaces.Discrete(self.num_actions)

    def observation_space(self, params: EnvParams) -> spaces.Box:
        """Box uint8 [size, size, 1]."""
        return spaces.Box(0, ROBOT_WHITE, (self._shape.size, self._shape.size, 1), jnp.uint8)

    def state_space(self, params: EnvParams) -> spaces.Dict:
        """Describe the state: a Dict of its fields; `time` counts up to the limit itself."""
        size, robot_size = self._shape.size, self._shape.robot_size
        reach = params.robot_speed - 1
        return spaces.Dict(
            {
                "robot_y": spaces.Box(-reach, size - robot_size + reach, (), jnp.int32),
                "wall_x": spaces.Discrete(size + 1),
                "hole_top": spaces.Discrete(self._num_holes),
                "time": spaces.Discrete(params.max_steps_in_episode + 1),
            }
        )

    @property
    def _column(self) -> int:
        return self._shape.size // 2

    @property
    def _num_holes(self) -> int:
        return self._shape.size - self._shape.hole_height + 1

    @property
    def _robot_starts(self) -> tuple[int, int]:
        return self._shape.robot_size, self._shape.size - self._shape.robot_size

    def _frame(self, robot_y: jax.Array, wall_x: jax.Array, hole_top: jax.Array) -> jax.Array:
        shape = self._shape
        drawn = shape.robot_size - 1
        pixels = jnp.arange(shape.size, dtype=jnp.int32)

        def within(start: int | jax.Array, length: int) -> jax.Array:
            return (pixels >= start) & (pixels < start + length)

        wall = within(wall_x, drawn) & ~within(hole_top, shape.hole_height)[:, None]
        robot_rows = within(robot_y, drawn) & (robot_y >= 0)
        robot = robot_rows[:, None] & within(self._column, drawn)
        background = jnp.where(wall, jnp.uint8(WALL_GREY), jnp.uint8(0))
        return jnp.where(robot, jnp.uint8(ROBOT_WHITE), background)[:, :, None]

    def _draw_hole(self, key: jax.Array) -> jax.Array:
        return jax.random.randint(key, (), 0, self._num_holes, jnp.int32)

    def _moved(
        self,
        state: EnvState,
        action: int | float | jax.Array,
        new_hole_top: jax.Array,
        params: EnvParams,
    ) -> EnvState:
        """The state a step leads to if a new wall, should there be one, has that hole."""
        shape = self._shape
        wall_x = state.wall_x - params.wall_speed
        is_new = wall_x < 0
        up = (action == 0) & (state.robot_y > 0)
        down = (action == 1) & (state.robot_y < shape.size - shape.robot_size)
        steps = down.astype(jnp.int32) - up.astype(jnp.int32)
        return EnvState(
            robot_y=state.robot_y + steps * params.robot_speed,
            wall_x=jnp.where(is_new, shape.size, wall_x),
            hole_top=jnp.where(is_new, new_hole_top, state.hole_top),
            time=state.time + 1,
        )


def _checked(shape: _Version) -> _Version:
    """Return `shape`; raises ValueError unless its lengths fit together."""
    for field in ("size", "robot_size", "hole_height", "num_actions"):
        value = getattr(shape, field)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"WallDodge {field} is {value!r}; it must be a whole number")
    size, robot_size, hole_height = shape[:3]
    if shape.num_actions not in (2, 3):
        raise ValueError(
            f"WallDodge num_actions is {shape.num_actions}; it must be 2 (up, down) or 3 (and stay)"
        )
    if robot_size < 2:
        raise ValueError(
            f"WallDodge robot_size is {robot_size}; it must be at least 2, since the robot is "
            "drawn one pixel smaller"
        )
    if hole_height < robot_size:
        raise ValueError(
            f"WallDodge hole_height is {hole_height}, but the robot is {robot_size} high: make "
            f"the hole at least {robot_size} high, or the robot_size at most {hole_height}"
        )
    smallest = max(hole_height, 2 * robot_size)
    if size < smallest:
        raise ValueError(
            f"WallDodge size is {size}; with robot_size {robot_size} and hole_height "
            f"{hole_height} it must be at least {smallest}"
        )
    return shape
