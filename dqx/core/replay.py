"""A circular replay buffer over any pytree of transitions, as explicit state and pure functions.

Rows are packed: the leaves of one transition lie side by side, one array for each element size, so
a batch is one gather for each size instead of one for each field. ``num_envs`` rows are written a
step, in place, at a position that depends on the count of steps alone; under vmap over seeds,
position and size stay unbatched.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dqx.arguments import require
from dqx.core import checks
from dqx.core.packing import COUNT, Rows, check_capacity, columns, make_table, packed_widths, places
from dqx.core.types import Array, Key, PyTree, Transition


class Filled(NamedTuple):
    """How far a buffer of C rows is written, the same for all seeds.

    Attributes:
        position: int32 ``[]``, the row that the next step writes first.
        size: int32 ``[]``, how many rows have been written, at most C.
        written: int32 ``[]``, how many have been written since the start.
    """

    position: Array
    size: Array
    written: Array


class ReplayState(struct.PyTreeNode):
    """What a buffer holds.

    Attributes:
        rows: packed transitions, ``{"uint32": [C, width], ...}``; zeros until written.
        position: int32 ``[]``, the row that the next step writes first.
        size: int32 ``[]``, how many rows have been written, at most C.
    """

    rows: Rows
    position: Array
    size: Array


class Store(NamedTuple):
    """The rows of a buffer alone, for a loop whose clock knows how far they are written.

    A row is known by its place among C, whatever a store keeps beside them.

    Attributes:
        init: ``init()``: packed rows, zeros.
        write: ``write(rows, filled, transitions [E, ...], age [E]) -> rows``, in place; ``age``
            (int32) counts the steps that each one's episode had had before.
        gather: ``gather(rows, filled, indices [B])``: transitions ``[B, ...]``.
        returns: ``returns(rows, filled, indices [B])``: transitions of several steps and how many
            each has, as a `Batch` holds them; None of a store of single steps.
    """

    init: Callable[[], Rows]
    write: Callable[[Rows, Filled, PyTree, Array], Rows]
    gather: Callable[[Rows, Filled, Array], PyTree]
    returns: Callable[[Rows, Filled, Array], tuple[Transition, Array]] | None = None


class Replay(NamedTuple):
    """A buffer's pure functions; ``make_replay`` documents each."""

    init: Callable[[], ReplayState]
    add: Callable[[ReplayState, PyTree], ReplayState]
    indices: Callable[[Key, Array, int], Array]
    gather: Callable[[ReplayState, Array], PyTree]
    sample: Callable[[ReplayState, Key, int], PyTree]


def make_store(example: PyTree, capacity: int, num_envs: int = 1) -> Store:
    """Builds packed storage for transitions like ``example``.

    Args:
        example: one transition (arrays or ``jax.ShapeDtypeStruct``), without a leading axis.
        capacity: C, transitions kept; a multiple of ``num_envs``.
        num_envs: E, transitions written at a time.

    Raises:
        ValueError: if ``capacity`` or ``num_envs`` is not positive, or the one no multiple of the
            other.
        AssertionError: at trace time, if written transitions differ from ``example`` in shape or
            dtype.
    """
    table = make_table(example, capacity, num_envs)
    return Store(
        init=table.init,
        write=lambda rows, filled, transitions, age: table.write(
            rows, filled.position, transitions
        ),
        gather=lambda rows, filled, indices: table.gather(rows, indices),
    )


def make_stacked_store(example: Transition, frames: int, capacity: int, num_envs: int = 1) -> Store:
    """Builds storage for transitions whose observations are stacks of ``frames`` frames.

    Of a stack only the newest frame is kept; the others are those of the rows before, of the same
    environment and episode, and where the episode has no such row, its first. So that the oldest
    transitions have theirs, ``frames - 1`` more rows are kept of each environment.

    Args:
        example: one transition, its observations stacked along the last axis, oldest first.
        frames: k.
        capacity, num_envs: as of `make_store`.

    Raises:
        ValueError, AssertionError: as `make_store` does.
    """
    check_capacity(capacity, num_envs)
    width = example.obs.shape[-1] // frames
    frame = jax.ShapeDtypeStruct((*example.obs.shape[:-1], width), example.obs.dtype)
    kept = example._replace(obs=frame, next_obs=frame)
    num_rows = ring_rows(capacity, num_envs, frames)
    stored = (jax.ShapeDtypeStruct((), jnp.int32), kept)
    table, obs_place = make_table(stored, num_rows, num_envs), places(stored)[1].obs

    def write(rows: Rows, filled: Filled, transitions: Transition, age: Array) -> Rows:
        chex.assert_trees_all_equal_shapes_and_dtypes(
            transitions,
            jax.tree.map(lambda x: jax.ShapeDtypeStruct((num_envs, *x.shape), x.dtype), example),
        )
        newest = transitions._replace(
            obs=transitions.obs[..., -width:], next_obs=transitions.next_obs[..., -width:]
        )
        age = jnp.minimum(age, frames - 1)
        return table.write(rows, filled.written % num_rows, (age, newest))

    def gather(rows: Rows, filled: Filled, indices: Array) -> Transition:
        # Which transition of all since the start was the last that came to this place among C.
        last = filled.written - 1
        number = last - (last - indices) % capacity
        age, steps = table.gather(rows, number % num_rows)

        def older(back: int) -> Array:
            before = number - jnp.minimum(age, back) * num_envs
            return columns(rows, before % num_rows, obs_place)

        stack = [older(back) for back in range(frames - 1, 0, -1)] + [steps.obs]
        obs = jnp.concatenate(stack, axis=-1)
        next_obs = jnp.concatenate([*stack[1:], steps.next_obs], axis=-1)
        return steps._replace(obs=obs, next_obs=next_obs)

    return Store(table.init, write, gather)


def ring_rows(capacity: int, num_envs: int, frames: int = 1) -> int:
    """Rows that are kept for ``capacity`` transitions whose observations stack ``frames``."""
    return capacity + (frames - 1) * num_envs


def make_replay(example: PyTree, capacity: int, num_envs: int = 1) -> Replay:
    """Builds a uniform circular buffer for transitions like ``example``.

    Args:
        example: one transition (arrays or ``jax.ShapeDtypeStruct``), without a leading axis.
        capacity: C, transitions kept; a multiple of ``num_envs``.
        num_envs: E, transitions added at a time.

    Returns:
        ``Replay`` of
        ``init()``: an empty buffer;
        ``add(state, transitions [E, ...])``: writes E rows over the oldest ones;
        ``indices(key, size, batch_size)``: int32 ``[B]``, uniform in ``[0, size)``, with
            replacement;
        ``gather(state, indices [B])``: transitions ``[B, ...]``;
        ``sample(state, key, batch_size)``: ``gather`` of ``indices``. The buffer must hold at least
            one row: of an empty one inside ``jit`` zeros come back, and checkify alone tells
            (docs/building-blocks.md).

    Raises:
        ValueError: if ``capacity`` or ``num_envs`` is not positive, or the one no multiple of the
            other.
        AssertionError: at trace time, if added transitions differ from ``example`` in shape or
            dtype; and if an empty buffer is sampled where its size is known, outside of ``jit``.

    Source: Lin 1992; uniform sampling as in Mnih et al. 2015.
    """
    table = make_table(example, capacity, num_envs)

    def init() -> ReplayState:
        return ReplayState(rows=table.init(), position=jnp.int32(0), size=jnp.int32(0))

    def add(state: ReplayState, transitions: PyTree) -> ReplayState:
        return ReplayState(
            rows=table.write(state.rows, state.position, transitions),
            position=(state.position + num_envs) % capacity,
            size=jnp.minimum(state.size + num_envs, capacity),
        )

    def indices(key: Key, size: Array, batch_size: int) -> Array:
        require(ValueError, batch_size=(batch_size, COUNT))
        checks.above_zero("add transitions before any are sampled", size=size)
        return uniform_rows(jax.random.bits(key, (batch_size,), jnp.uint32), size)

    def gather(state: ReplayState, indices: Array) -> PyTree:
        chex.assert_type(indices, int, custom_message="indices of rows must be whole numbers")
        checks.holds(
            (indices >= 0) & (indices < state.size),
            "indices must be below size, {size}: rows from there on were never written",
            size=state.size,
        )
        return table.gather(state.rows, indices)

    def sample(state: ReplayState, key: Key, batch_size: int) -> PyTree:
        return gather(state, indices(key, state.size, batch_size))

    return Replay(init, add, indices, gather, sample)


def uniform_rows(bits: Array, size: Array) -> Array:
    """Rows int32 ``[B]`` below ``size`` from random bits, uint32 ``[B]``.

    No row is favoured by more than ``size / 2**32``, a hundred-thousandth at 50,000 rows.
    """
    return (bits % jnp.asarray(size, jnp.uint32)).astype(jnp.int32)


def row_bytes(example: PyTree) -> int:
    """Bytes that one transition like ``example`` takes in a buffer."""
    return sum(np.dtype(dtype).itemsize * width for dtype, width in packed_widths(example).items())
