"""The forms in which a replay can hold an environment's observations, all to the same bits."""

import jax
import jax.numpy as jnp

from dqx.core.environment import Environment, Sketch
from dqx.core.stores import Store, make_layout, several_steps, stored_steps
from dqx.core.types import Transition
from dqx.settings import ConfigError


def make_store(
    env: Environment,
    capacity: int,
    num_envs: int = 1,
    *,
    n_step: int = 1,
    form: str = "plain",
    ends: int = 0,
) -> Store:
    """Builds the store of a training loop on ``env``.

    Args:
        env: the environment, with all that is to be around it.
        capacity: C, transitions kept; a multiple of ``num_envs``.
        num_envs: E, transitions written at a time.
        n_step: steps of a transition that is read, at most.
        form: as the setting ``replay`` says.
        ends: as the setting ``replay_ends`` says.

    Raises:
        ConfigError: if sketches are asked for, and ``env`` has none.
        ValueError: for a capacity that cannot be.
    """
    sketch = _chosen(env, form)
    example = _example(env, sketch)
    layout = make_layout(
        example,
        capacity,
        num_envs,
        frames=env.wrappers.frame_stack,
        aged=n_step > 1,
        num_finals=_num_finals(capacity, num_envs, ends) if form == "once" else 0,
    )

    def with_sketch(sketch: Sketch | None) -> Store:
        store = stored_steps(layout, sketch)
        return several_steps(store, layout, n_step) if n_step > 1 else store

    # What a sketch is drawn with may differ from lane to lane.
    return with_sketch(sketch)._replace(
        at=None if sketch is None else lambda other: with_sketch(other.sketch)
    )


def example_transition(env: Environment) -> Transition:
    """Shapes and dtypes of one transition of ``env``."""
    obs = jax.ShapeDtypeStruct(env.obs_shape, env.obs_dtype)
    number = jax.ShapeDtypeStruct((), jnp.float32)
    return Transition(obs, jax.ShapeDtypeStruct((), jnp.int32), number, number, obs)


def _num_finals(capacity: int, num_envs: int, ends: int) -> int:
    """How many final observations are held apart from rows: a multiple of ``num_envs``."""
    return -(-min(ends or -(-capacity // 8), capacity) // num_envs) * num_envs


def _chosen(env: Environment, form: str) -> Sketch | None:
    if form == "sketch" and env.sketch is None:
        raise ConfigError(
            f"replay = sketch asks for an environment that draws its observations from sketches, "
            f"and {env.name} has none: set replay = auto or plain"
        )
    return None if form == "plain" else env.sketch


def _example(env: Environment, sketch: Sketch | None) -> Transition:
    """A transition as rows hold it, of single frames."""
    whole, frames = example_transition(env), env.wrappers.frame_stack
    if sketch is not None:
        _, state = jax.eval_shape(env.reset, jax.random.key(0))
        kept = jax.eval_shape(sketch.take, whole.obs, state)
    elif frames > 1:
        shape = whole.obs.shape
        kept = jax.ShapeDtypeStruct((*shape[:-1], shape[-1] // frames), whole.obs.dtype)
    else:
        return whole
    return whole._replace(obs=kept, next_obs=kept)
