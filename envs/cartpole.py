"""CartPole: balance a pole on a cart by pushing the cart left or right."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

from envs import _drawing as draw
from envs._fields import setting

TIME_LIMITS = {"v0": 200, "v1": 500}


@struct.dataclass
class EnvState(environment.EnvState):
    """Position [m], velocity [m/s], angle [rad], angular velocity [rad/s], steps since reset.

    Every leaf is a scalar array: float32, `time` int32.
    """

    x: jax.Array
    x_dot: jax.Array
    theta: jax.Array
    theta_dot: jax.Array
    time: jax.Array


@struct.dataclass
class EnvParams(environment.EnvParams):
    """Physical constants in SI units, termination thresholds and the time limit in steps.

    `length` is half the pole. The total mass and the pole's mass times length are derived
    inside the step and are no fields (as they are in gymnax): whoever varies `masspole`,
    `masscart` or `length` alone, by `replace` or by `vmap`, gets consistent physics.
    """

    gravity: float | jax.Array = setting(9.8, "m/s^2", "acceleration of free fall")
    masscart: float | jax.Array = setting(1.0, "kg", "mass of the cart")
    masspole: float | jax.Array = setting(0.1, "kg", "mass of the pole")
    length: float | jax.Array = setting(0.5, "m", "half the length of the pole")
    force_mag: float | jax.Array = setting(10.0, "N", "force of a push, to either side")
    tau: float | jax.Array = setting(0.02, "s", "time that passes in a step")
    theta_threshold_radians: float | jax.Array = setting(
        12 * 2 * math.pi / 360, "rad", "angle beyond which the pole has fallen"
    )
    x_threshold: float | jax.Array = setting(2.4, "m", "distance beyond which the track ends")
    max_steps_in_episode: int = setting(500, "steps", "time limit of an episode")


class CartPole(environment.Environment[EnvState, EnvParams]):
    """CartPole with the dynamics, rewards and limits of Gymnasium's classic control.

    Observation float32 [4]: x, x_dot, theta, theta_dot. Action 0 pushes left, 1 right. Reward
    float32 1 every step, the terminating one included. `version` "v0" stops after 200 steps,
    "v1" after 500; an unknown version raises ValueError.

    Source: Barto, Sutton and Anderson 1983, with the corrected equations of Florian 2007
    ("Correct equations for the dynamics of the cart-pole system", eqs. 23 and 24, no friction).
    """

    def __init__(self, version: str = "v1") -> None:
        """Choose the time limit by `version`: "v0" or "v1"."""
        super().__init__()
        if version not in TIME_LIMITS:
            allowed = ", ".join(TIME_LIMITS)
            raise ValueError(
                f"CartPole version {version!r} does not exist; choose one of {allowed}"
            )
        self._version = version

    @property
    def default_params(self) -> EnvParams:
        """Gymnasium's constants, with the time limit of this version."""
        return EnvParams(max_steps_in_episode=TIME_LIMITS[self._version])

    def step_env(
        self,
        key: jax.Array,
        state: EnvState,
        action: int | float | jax.Array,
        params: EnvParams,
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[Any, Any]]:
        """Advance one Euler step of `tau` seconds, without time limit or reset.

        Returns observation [4] float32, state, reward () float32, terminated () bool and info.
        The step is deterministic: `key` is not used.
        """
        total_mass = params.masscart + params.masspole
        polemass_length = params.masspole * params.length
        cos, sin = jnp.cos(state.theta), jnp.sin(state.theta)
        push = jnp.where(action == 1, params.force_mag, -params.force_mag)

        # Both fractions of the textbook form are multiplied by the total mass, which leaves one
        # division that depends on the state.
        pull = push + polemass_length * jnp.square(state.theta_dot) * sin
        theta_acc = (total_mass * params.gravity * sin - cos * pull) / (
            (4.0 / 3.0) * params.length * total_mass - polemass_length * jnp.square(cos)
        )
        x_acc = (pull - polemass_length * theta_acc * cos) * (1.0 / total_mass)

        next_state = EnvState(
            x=state.x + params.tau * state.x_dot,
            x_dot=state.x_dot + params.tau * x_acc,
            theta=state.theta + params.tau * state.theta_dot,
            theta_dot=state.theta_dot + params.tau * theta_acc,
            time=state.time + 1,
        )
        terminated = self.is_terminated(next_state, params)
        info = {"discount": 1.0 - terminated.astype(jnp.float32)}
        obs = self.observe(key, next_state, action, params)
        return obs, next_state, jnp.float32(1.0), terminated, info

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """Draw all four quantities uniformly from [-0.05, 0.05); observation [4] float32."""
        start = jax.random.uniform(key, (4,), jnp.float32, -0.05, 0.05)
        state = EnvState(
            x=start[0],
            x_dot=start[1],
            theta=start[2],
            theta_dot=start[3],
            time=jnp.int32(0),
        )
        return start, state

    def observe(
        self,
        key: jax.Array | None,
        state: EnvState,
        action: int | float | jax.Array | None,
        params: EnvParams | None,
    ) -> jax.Array:
        """Observe the state, float32 [4]: x, x_dot, theta, theta_dot."""
        return jnp.stack([state.x, state.x_dot, state.theta, state.theta_dot])

    def get_obs(
        self, state: EnvState, params: EnvParams | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Observe through the older hook, which gymnax's wrappers and pictures still call."""
        return self.observe(key, state, None, params)

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Say whether the cart left the track or the pole fell; () bool."""
        off_track = jnp.abs(state.x) > params.x_threshold
        fallen = jnp.abs(state.theta) > params.theta_threshold_radians
        return off_track | fallen

    def render(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Picture one state for people, uint8 [400, 600, 3]; can be jitted.

        The track is as wide as the cart may go, its red ends where it may not; the fan above the
        cart is where the pole may lean, and a pole that has fallen is red. Raises TypeError for
        another environment's state and ValueError for a batch of states.
        """
        draw.check_state(self.name, state, EnvState)
        height, width, track_y, margin = 400, 600, 290, 40
        scale = (width / 2 - margin) / params.x_threshold
        grid = draw.grid(height, width)
        image = draw.vertical_gradient(height, width, draw.SKY_TOP, draw.SKY)
        image = draw.paint(image, draw.box(grid, -9, track_y, width + 9, height + 9), draw.GROUND)
        rail = draw.line(grid, [(margin, track_y), (width - margin, track_y)], 6)
        image = draw.paint(image, rail, draw.INK)
        for end in (margin, width - margin):
            stop = draw.box(grid, end - 4, track_y - 16, end + 4, track_y + 10, 3)
            image = draw.paint(image, stop, draw.RED)

        x, axle = width / 2 + scale * state.x, track_y - 42
        pole, limit = 2 * params.length * scale, params.theta_threshold_radians
        edges = [(x + sign * 600 * jnp.sin(limit), axle - 600 * jnp.cos(limit)) for sign in (-1, 1)]
        fan = draw.polygon(grid, [(x, axle), *edges]) * draw.disc(grid, x, axle, pole + 14)
        image = draw.paint(image, fan, draw.WHITE, 0.5)

        image = draw.paint(image, draw.box(grid, x - 36, axle, x + 36, track_y - 10, 7), draw.INK)
        front = draw.box(grid, x - 33, axle + 3, x + 33, track_y - 13, 5)
        image = draw.paint(image, front, draw.BLUE)
        for wheel in (x - 21, x + 21):
            image = draw.paint(image, draw.disc(grid, wheel, track_y - 11, 9), draw.INK)
            image = draw.paint(image, draw.disc(grid, wheel, track_y - 11, 3.5), draw.GREY)
        tip = (x + pole * jnp.sin(state.theta), axle - pole * jnp.cos(state.theta))
        fallen = jnp.abs(state.theta) > limit
        wood = jnp.where(fallen, jnp.array(draw.RED), jnp.array(draw.BROWN))
        image = draw.paint(image, draw.line(grid, [(x, axle + 4), tip], 14), draw.INK)
        image = draw.paint(image, draw.line(grid, [(x, axle + 4), tip], 9), wood)
        image = draw.paint(image, draw.disc(grid, x, axle + 4, 5), draw.PAPER)
        return draw.finish(image)

    @property
    def name(self) -> str:
        """The registered name, such as "CartPole-v1"."""
        return f"CartPole-{self._version}"

    @property
    def num_actions(self) -> int:
        """Two: left and right."""
        return 2

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """Discrete(2): 0 pushes left, 1 pushes right."""
        return spaces.Discrete(2)

    def observation_space(self, params: EnvParams) -> spaces.Box:
        """Box float32 [4]; twice the thresholds, so that a terminal observation lies inside."""
        return spaces.Box(-_bounds(params), _bounds(params), (4,), jnp.float32)

    def state_space(self, params: EnvParams) -> spaces.Dict:
        """Describe the state: a Dict of its fields; `time` counts up to the limit itself."""
        fields = zip(("x", "x_dot", "theta", "theta_dot"), _bounds(params), strict=True)
        boxes = {name: spaces.Box(-high, high, (), jnp.float32) for name, high in fields}
        return spaces.Dict({**boxes, "time": spaces.Discrete(params.max_steps_in_episode + 1)})


def _bounds(params: EnvParams) -> jax.Array:
    unbounded = jnp.finfo(jnp.float32).max
    high = [params.x_threshold * 2, unbounded, params.theta_threshold_radians * 2, unbounded]
    return jnp.array(high, jnp.float32)
