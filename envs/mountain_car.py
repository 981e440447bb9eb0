"""MountainCar: swing an underpowered car out of a valley."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

from envs import _drawing as draw
from envs._fields import setting


@struct.dataclass
class EnvState(environment.EnvState):
    """Position and velocity (the task's own units, per step) and steps since reset.

    Every leaf is a scalar array: float32, `time` int32.
    """

    position: jax.Array
    velocity: jax.Array
    time: jax.Array


@struct.dataclass
class EnvParams(environment.EnvParams):
    """Track limits, goal, engine force, gravity (per step squared) and time limit in steps."""

    min_position: float | jax.Array = setting(-1.2, "", "left end of the track, a wall")
    max_position: float | jax.Array = setting(0.6, "", "right end of the track")
    max_speed: float | jax.Array = setting(0.07, "1/step", "speed that the car cannot exceed")
    goal_position: float | jax.Array = setting(0.5, "", "where the flag stands")
    goal_velocity: float | jax.Array = setting(0.0, "1/step", "least velocity at the flag")
    force: float | jax.Array = setting(0.001, "1/step^2", "acceleration by the engine")
    gravity: float | jax.Array = setting(0.0025, "1/step^2", "acceleration on the steepest slope")
    max_steps_in_episode: int = setting(200, "steps", "time limit of an episode")


class MountainCar(environment.Environment[EnvState, EnvParams]):
    """MountainCar-v0 with the dynamics, rewards and limits of Gymnasium's classic control.

    Observation float32 [2]: position, velocity. Actions 0 left, 1 coast, 2 right. Reward
    float32 -1 every step, the terminating one included.

    Source: Moore 1990, "Efficient memory-based learning for robot control", in the form of
    Sutton and Barto 2018, example 10.1.
    """

    @property
    def default_params(self) -> EnvParams:
        """Gymnasium's constants."""
        return EnvParams()

    def step_env(
        self,
        key: jax.Array,
        state: EnvState,
        action: int | float | jax.Array,
        params: EnvParams,
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[Any, Any]]:
        """Advance one step, without time limit or reset.

        Returns observation [2] float32, state, reward () float32, terminated () bool and info.
        The step is deterministic: `key` is not used.
        """
        push = (action - 1) * params.force - jnp.cos(3.0 * state.position) * params.gravity
        velocity = jnp.clip(state.velocity + push, -params.max_speed, params.max_speed)
        position = jnp.clip(state.position + velocity, params.min_position, params.max_position)
        # The left wall swallows the impact. After the clip only equality can hold.
        at_wall = (position <= params.min_position) & (velocity < 0.0)

        next_state = EnvState(
            position=position,
            velocity=jnp.where(at_wall, 0.0, velocity),
            time=state.time + 1,
        )
        terminated = self.is_terminated(next_state, params)
        info = {"discount": 1.0 - terminated.astype(jnp.float32)}
        obs = self.observe(key, next_state, action, params)
        return obs, next_state, jnp.float32(-1.0), terminated, info

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """Draw the position uniformly from [-0.6, -0.4), at rest; observation [2] float32."""
        state = EnvState(
            position=jax.random.uniform(key, (), jnp.float32, -0.6, -0.4),
            velocity=jnp.float32(0.0),
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
        """Observe the state, float32 [2]: position, velocity."""
        return jnp.stack([state.position, state.velocity])

    def get_obs(
        self, state: EnvState, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Observe through the older hook, which gymnax's wrappers and pictures still call."""
        return self.observe(key, state, None, params)

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Say whether the car is at or beyond the flag, fast enough; () bool."""
        at_flag = state.position >= params.goal_position
        return at_flag & (state.velocity >= params.goal_velocity)

    def render(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Picture one state for people, uint8 [400, 600, 3]; can be jitted.

        Shows the valley sin(3 x) between the track's limits, the car and the flag at the goal.
        Raises TypeError for another environment's state and ValueError for a batch of states.
        """
        draw.check_state(self.name, state, EnvState)
        height, width, base, rise = 400, 600, 215, 135
        scale = width / (params.max_position - params.min_position)

        def column(position: float | jax.Array) -> jax.Array:
            return jnp.asarray((position - params.min_position) * scale)

        def row(position: float | jax.Array) -> jax.Array:
            return base - rise * jnp.sin(3 * jnp.asarray(position))

        grid = draw.grid(height, width)
        image = draw.vertical_gradient(height, width, draw.SKY_TOP, draw.SKY)
        position = grid.x / scale + params.min_position
        slope = -3 * rise / scale * jnp.cos(3 * position)
        # Divided by the slope's length, the vertical distance is that to the curve nearby.
        depth = (grid.y - row(position)) / jnp.sqrt(1 + slope**2)
        image = draw.paint(image, jnp.clip(depth + 0.5, 0, 1), draw.GREEN)
        image = draw.paint(image, jnp.clip(depth - 9.5, 0, 1), draw.BROWN)

        x, y = column(params.goal_position), row(params.goal_position)
        image = draw.paint(image, draw.line(grid, [(x, y), (x, y - 58)], 4), draw.INK)
        cloth = [(x + 2, y - 58), (x + 30, y - 47), (x + 2, y - 36)]
        image = draw.paint(image, draw.polygon(grid, cloth), draw.RED)

        lean = jnp.arctan(-3 * rise / scale * jnp.cos(3 * state.position))
        car = draw.turned(grid, column(state.position), row(state.position), lean)
        for coverage, colour in (
            (draw.box(car, -27, -27, 27, -8, 7), draw.INK),
            (draw.polygon(car, [(-19, -24), (-11, -40), (10, -40), (19, -24)]), draw.INK),
            (draw.box(car, -24.5, -24.5, 24.5, -10.5, 5), draw.YELLOW),
            (draw.polygon(car, [(-14, -25), (-9, -37), (8, -37), (14, -25)]), draw.SKY_TOP),
            (draw.disc(car, -15, -8, 8), draw.INK),
            (draw.disc(car, 15, -8, 8), draw.INK),
            (draw.disc(car, -15, -8, 3), draw.GREY),
            (draw.disc(car, 15, -8, 3), draw.GREY),
        ):
            image = draw.paint(image, coverage, colour)
        return draw.finish(image)

    @property
    def name(self) -> str:
        """The registered name."""
        return "MountainCar-v0"

    @property
    def num_actions(self) -> int:
        """Three: left, coast, right."""
        return 3

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """Discrete(3): 0 accelerates left, 1 coasts, 2 accelerates right."""
        return spaces.Discrete(3)

    def observation_space(self, params: EnvParams) -> spaces.Box:
        """Box float32 [2]: the track and the speed limit."""
        low = jnp.array([params.min_position, -params.max_speed], jnp.float32)
        high = jnp.array([params.max_position, params.max_speed], jnp.float32)
        return spaces.Box(low, high, (2,), jnp.float32)

    def state_space(self, params: EnvParams) -> spaces.Dict:
        """Describe the state: a Dict of its fields; `time` counts up to the limit itself."""
        box = self.observation_space(params)
        fields = {
            name: spaces.Box(box.low[i], box.high[i], (), jnp.float32)
            for i, name in enumerate(("position", "velocity"))
        }
        return spaces.Dict({**fields, "time": spaces.Discrete(params.max_steps_in_episode + 1)})
