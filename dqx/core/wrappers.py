"""Environments with something around them, each a pure function from one environment to another.

From the inside outwards: actions stick at the environment's own steps, the action chosen is
repeated, the time limit counts what is left as the agent's steps, and observations are stacked
last. Whatever counts environment steps counts steps of the environment that comes out.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dqx.core.environment import Environment, Sketch, Step, Wrappers
from dqx.core.types import Array, Key, PyTree
from dqx.settings import Config, ConfigError
from envs.tabular import Model


def wrapped(env: Environment, config: Config) -> Environment:
    """The environment that ``config`` describes; ``env`` itself where it asks for nothing.

    Raises:
        ConfigError: if observations cannot be stacked.
    """
    asked = Wrappers(*(getattr(config, name) for name in Wrappers._fields))
    if asked.sticky_actions > 0:
        env = sticky_actions(env, asked.sticky_actions)
    if asked.action_repeat > 1:
        env = action_repeat(env, asked.action_repeat)
    if asked.time_limit > 0:
        env = time_limit(env, asked.time_limit)
    if asked.frame_stack > 1:
        env = frame_stack(env, asked.frame_stack)
    return env._replace(wrappers=asked)


class StickyState(struct.PyTreeNode):
    """The environment's state, and the action taken last: int32 ``[]``, -1 before the first."""

    inner: PyTree
    action: Array


def sticky_actions(env: Environment, probability: float) -> Environment:
    """Takes the action taken last instead of the one chosen, with a probability at each step.

    What was taken last may itself have stuck. The first step of an episode takes the action chosen,
    as nothing was taken before (the Arcade Learning Environment has its no-op stick there, which
    other environments lack).

    Source: Machado et al. 2018, section 5.2.
    """

    def reset(key: Key) -> tuple[Array, StickyState]:
        obs, inner = env.reset(key)
        return obs, StickyState(inner, jnp.int32(-1))

    def step(key: Key, state: StickyState, action: Array, fresh: tuple[Array, StickyState]) -> Step:
        coin_key, step_key = jax.random.split(key)
        sticks = jax.random.bernoulli(coin_key, probability) & (state.action >= 0)
        taken = jnp.where(sticks, state.action, action)
        found = env.step(step_key, state.inner, taken, (fresh[0], fresh[1].inner))
        last = jnp.where(found.terminated | found.truncated, fresh[1].action, taken)
        return found._replace(
            state=StickyState(found.state, last), final_state=StickyState(found.final_state, taken)
        )

    return env._replace(
        reset=reset,
        step=step,
        observe=lambda state: env.observe(state.inner),
        model=None,
        limited=_limited(env, lambda inner: sticky_actions(inner, probability)),
        sketch=_sketch_inside(env),
    )


def action_repeat(env: Environment, count: int) -> Environment:
    """Takes every action ``count`` times, or until the episode ends: one step of what comes out.

    Rewards are added up, what is observed is what the last of these steps gives, and what would
    come after the end of the episode does not count. A time limit of the environment's own still
    counts its own steps.

    Source: Mnih et al. 2015 ("frame skipping").
    """

    def step(key: Key, state: PyTree, action: Array, fresh: tuple[Array, PyTree]) -> Step:
        keys = jax.random.split(key, count)

        def again(found: Step, key: Key) -> tuple[Step, None]:
            new = env.step(key, found.state, action, fresh)
            new = new._replace(reward=found.reward + new.reward)
            over = found.terminated | found.truncated
            return jax.tree.map(lambda old, x: jnp.where(over, old, x), found, new), None

        found, _ = jax.lax.scan(again, env.step(keys[0], state, action, fresh), keys[1:])
        return found

    # A time limit is the caller's, in steps of what comes out.
    return env._replace(
        step=step,
        model=None,
        limited=_limited(env, lambda inner: action_repeat(inner, count), count),
    )


class LimitedState(struct.PyTreeNode):
    """The environment's state, and the steps that the episode has had, int32 ``[]``."""

    inner: PyTree
    steps: Array | np.ndarray


def time_limit(env: Environment, limit: int) -> Environment:
    """Truncates an episode after ``limit`` steps, if the environment has not ended it before.

    The limit takes the place of the environment's own where that is a parameter
    (``max_steps_in_episode`` of gymnax), and may be longer. What else the environment does with the
    parameter, such as observing how much of the time is over, follows.
    """
    longer = env.limited(limit) if env.limited else env
    longer = longer._replace(name=env.name)

    def reset(key: Key) -> tuple[Array, LimitedState]:
        obs, inner = longer.reset(key)
        return obs, LimitedState(inner, jnp.int32(0))

    def step(
        key: Key, state: LimitedState, action: Array, fresh: tuple[Array, LimitedState]
    ) -> Step:
        fresh_obs, fresh_state = fresh
        found = longer.step(key, state.inner, action, (fresh_obs, fresh_state.inner))
        steps = state.steps + 1
        truncated = found.truncated | (steps >= limit)
        obs, after = jax.tree.map(
            lambda new, old: jnp.where(found.terminated | truncated, new, old),
            fresh,
            (found.obs, LimitedState(found.state, steps)),
        )
        final_state = LimitedState(found.final_state, steps)
        return found._replace(obs=obs, state=after, truncated=truncated, final_state=final_state)

    def model() -> Model:
        assert longer.model is not None
        listed = longer.model()
        steps = np.zeros(listed.num_states, np.int32)
        return listed._replace(states=LimitedState(listed.states, steps), time_limit=limit)

    return longer._replace(
        reset=reset,
        step=step,
        observe=lambda state: longer.observe(state.inner),
        model=model if longer.model else None,
        limited=lambda steps: time_limit(env, steps),
        sketch=_sketch_inside(longer),
    )


class StackedState(struct.PyTreeNode):
    """The environment's state, and the stack that is observed."""

    inner: PyTree
    stack: Array


def frame_stack(env: Environment, count: int) -> Environment:
    """Observes the newest ``count`` observations side by side along the last axis, oldest first.

    Before there are so many, the episode's first one stands in for those that are missing.

    Source: Mnih et al. 2015.

    Raises:
        ConfigError: if observations have no axis to stack along.
    """
    if not env.obs_shape:
        given = "single numbers" if env.num_categories is None else "category numbers"
        raise ConfigError(
            f"frame_stack = {count} stacks arrays along their last axis, and {env.name} gives "
            f"{given}: leave it at 1 or choose another environment"
        )
    width = env.obs_shape[-1]

    def newest(stack: Array) -> Array:
        return stack[..., -width:]

    def reset(key: Key) -> tuple[Array, StackedState]:
        obs, inner = env.reset(key)
        stack = jnp.concatenate([obs] * count, axis=-1)
        return stack, StackedState(inner, stack)

    def step(
        key: Key, state: StackedState, action: Array, fresh: tuple[Array, StackedState]
    ) -> Step:
        found = env.step(key, state.inner, action, (newest(fresh[0]), fresh[1].inner))
        final_obs = pushed(state.stack, found.final_obs)
        obs = jnp.where(found.terminated | found.truncated, fresh[0], final_obs)
        return found._replace(
            obs=obs,
            state=StackedState(found.state, obs),
            final_obs=final_obs,
            final_state=StackedState(found.final_state, final_obs),
        )

    return env._replace(
        obs_shape=(*env.obs_shape[:-1], width * count),
        reset=reset,
        step=step,
        observe=lambda state: state.stack,
        model=None,
        limited=_limited(env, lambda inner: frame_stack(inner, count)),
        sketch=_sketch_inside(env, newest),
    )


def _sketch_inside(
    env: Environment, frame: Callable[[Array], Array] = lambda obs: obs
) -> Sketch | None:
    """The sketch of ``env`` for a state that holds its own as ``inner``."""
    inner = env.sketch
    if inner is None:
        return None
    return inner._replace(take=lambda obs, state: inner.take(frame(obs), state.inner))


def pushed(stack: Array, frame: Array) -> Array:
    """A stack with a newer frame in it and without its oldest; both share all but the last axis."""
    return jnp.concatenate([stack[..., frame.shape[-1] :], frame], axis=-1)


def _limited(
    env: Environment, wrap: Callable[[Environment], Environment], repeats: int = 1
) -> Callable[[int], Environment] | None:
    """`Environment.limited` of ``wrap(env)``, each step of which is ``repeats`` of ``env``."""
    inner = env.limited
    return None if inner is None else lambda steps: wrap(inner(steps * repeats))
