"""Histories of random episodes in stores of every form, and what has to come back."""

import jax
import jax.numpy as jnp
import numpy as np

from dqx.core.environment import Sketch
from dqx.core.replay import Filled
from dqx.core.stores import make_layout, several_steps, stored_steps
from dqx.core.types import Transition

FORMS = ("plain", "sketch", "once", "once, sketched")
_NUMBER, _COUNT = jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32)
# A frame is a state's number as a float.
SKETCH = Sketch(take=lambda obs, state: state, draw=lambda kept: kept[None].astype(jnp.float32))


def number_store(form, capacity, envs=1, frames=1, n=1, finals=None):
    """A store of a form for transitions whose frames are numbers, float32 ``[1]``.

    With each observation once, so many final ones can be held that every step may be an end.
    """
    sketch = SKETCH if "sketch" in form else None
    finals = (capacity if finals is None else finals) if "once" in form else 0
    kept = jax.ShapeDtypeStruct((1,), jnp.float32) if sketch is None else _COUNT
    example = Transition(kept, _COUNT, _NUMBER, _NUMBER, kept)
    layout = make_layout(example, capacity, envs, frames=frames, aged=n > 1, num_finals=finals)
    store = stored_steps(layout, sketch)
    return several_steps(store, layout, n) if n > 1 else store


def stacked(history, frames):
    """Observations as stacks of a history's numbers, the episode's first in place of earlier."""
    steps = np.arange(history["obs"].shape[1])[None, :, None]
    layers = [
        np.take_along_axis(history["obs"], steps - np.minimum(history["age"], back), axis=1)
        for back in range(frames - 1, -1, -1)
    ]
    stack = np.stack(layers, axis=-1).astype(np.float32)
    after = history["next_obs"][..., None].astype(np.float32)
    return stack, np.concatenate([stack[..., 1:], after], axis=-1)


def filled_to(written, capacity):
    """How far a store is filled after so many transitions."""
    size = jnp.minimum(written, capacity)
    return Filled(jnp.int32(written % capacity), jnp.int32(size), jnp.int32(written))


def recorded(store, history, frames):
    """What a loop writes: transitions ``[layouts, T, E]`` as they are kept, ages and ends.

    Last comes what is kept of the observation that follows each step, after any reset.
    """
    obs, next_obs = stacked(history, frames)
    discount = 1.0 - history["terminated"].astype(np.float32)
    both = jax.vmap(jax.vmap(store.keep))
    kept = both(obs, history["obs"].astype(np.int32))
    next_kept = both(next_obs, history["next_obs"].astype(np.int32))
    steps = Transition(kept, history["action"], history["reward"], discount, next_kept)
    # The step after the last one is never taken: what it would see is the end's own observation.
    newest = jax.tree.map(
        lambda x, y: jnp.concatenate([x[:, 1:], y[:, -1:]], axis=1), kept, next_kept
    )
    return (steps, history["age"], history["ends"]), newest


def written(store, history, capacity, frames):
    """The rows of a store of every layout after all steps, and what comes after the newest."""
    given, newest = recorded(store, history, frames)
    num_envs = history["obs"].shape[2]

    def one(given):
        def add(rows, now):
            t, (steps, age, ended) = now
            return store.write(rows, filled_to(t * num_envs, capacity), steps, age, ended), None

        times = jnp.arange(history["obs"].shape[1])
        return jax.lax.scan(add, store.init(), (times, given))[0]

    rows = jax.jit(jax.vmap(one))(given)
    return rows, jax.tree.map(lambda x: x[:, -1], newest)
