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
from flax import struct

from dqx.arguments import require
from dqx.core import checks
from dqx.core.packing import COUNT, Rows, make_table
from dqx.core.types import Array, Key, PyTree


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


class Replay(NamedTuple):
    """A buffer's pure functions; ``make_replay`` documents each."""

    init: Callable[[], ReplayState]
    add: Callable[[ReplayState, PyTree], ReplayState]
    indices: Callable[[Key, Array, int], Array]
    gather: Callable[[ReplayState, Array], PyTree]
    sample: Callable[[ReplayState, Key, int], PyTree]


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
