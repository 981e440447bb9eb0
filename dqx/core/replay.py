"""A circular replay buffer over any pytree of transitions, as explicit state and pure functions.

Rows are packed: the leaves of one transition lie side by side, one array for each element size, so
a batch is one gather for each size instead of one for each field. ``num_envs`` rows are written a
step, in place, at a position that depends on the count of steps alone; under vmap over seeds,
position and size stay unbatched.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dqx.core.types import Array, Key, PyTree

Rows = dict[str, Array]


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
    """The rows of a buffer alone, for a loop whose clock knows position and size.

    Attributes:
        init: ``init()``: packed rows, zeros.
        write: ``write(rows, position, transitions [E, ...]) -> rows``, in place.
        gather: ``gather(rows, indices [B])``: transitions ``[B, ...]``.
    """

    init: Callable[[], Rows]
    write: Callable[[Rows, Array, PyTree], Rows]
    gather: Callable[[Rows, Array], PyTree]


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
    if capacity < 1 or num_envs < 1 or capacity % num_envs:
        raise ValueError(
            "replay capacity must be a positive multiple of num_envs, "
            f"got {capacity} and {num_envs}"
        )
    example = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), example
    )
    widths = _packed_widths(example)

    def init() -> Rows:
        return {dtype: jnp.zeros((capacity, width), dtype) for dtype, width in widths.items()}

    def write(rows: Rows, position: Array, transitions: PyTree) -> Rows:
        chex.assert_trees_all_equal_shapes_and_dtypes(
            transitions,
            jax.tree.map(lambda x: jax.ShapeDtypeStruct((num_envs, *x.shape), x.dtype), example),
        )
        return {
            dtype: jax.lax.dynamic_update_slice_in_dim(rows[dtype], new, position, axis=0)
            for dtype, new in _pack(transitions, num_envs).items()
        }

    def gather(rows: Rows, indices: Array) -> PyTree:
        taken = {dtype: jnp.take(x, indices, axis=0, mode="clip") for dtype, x in rows.items()}
        return _unpack(taken, example, indices.shape[0])

    return Store(init, write, gather)


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
            one row.

    Raises:
        ValueError: if ``capacity`` or ``num_envs`` is not positive, or the one no multiple of the
            other.
        AssertionError: at trace time, if added transitions differ from ``example`` in shape or
            dtype.

    Source: Lin 1992; uniform sampling as in Mnih et al. 2015.
    """
    store = make_store(example, capacity, num_envs)

    def init() -> ReplayState:
        return ReplayState(rows=store.init(), position=jnp.int32(0), size=jnp.int32(0))

    def add(state: ReplayState, transitions: PyTree) -> ReplayState:
        return ReplayState(
            rows=store.write(state.rows, state.position, transitions),
            position=(state.position + num_envs) % capacity,
            size=jnp.minimum(state.size + num_envs, capacity),
        )

    def indices(key: Key, size: Array, batch_size: int) -> Array:
        return uniform_rows(jax.random.bits(key, (batch_size,), jnp.uint32), size)

    def gather(state: ReplayState, indices: Array) -> PyTree:
        return store.gather(state.rows, indices)

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
    return sum(np.dtype(dtype).itemsize * width for dtype, width in _packed_widths(example).items())


def _word(dtype: Any) -> str:
    """The unsigned integer type that holds a leaf's bits unchanged (a boolean takes a byte)."""
    return f"uint{8 * np.dtype(dtype).itemsize}"


def _packed_widths(example: PyTree) -> dict[str, int]:
    widths: dict[str, int] = {}
    for leaf in jax.tree.leaves(example):
        word = _word(leaf.dtype)
        widths[word] = widths.get(word, 0) + int(np.prod(leaf.shape))
    return widths


def _pack(transitions: PyTree, num_rows: int) -> dict[str, Array]:
    columns: dict[str, list[Array]] = {}
    for leaf in jax.tree.leaves(transitions):
        word = _word(leaf.dtype)
        bits = leaf.astype(word) if leaf.dtype == bool else jax.lax.bitcast_convert_type(leaf, word)
        columns.setdefault(word, []).append(bits.reshape(num_rows, -1))
    return {word: jnp.concatenate(parts, axis=1) for word, parts in columns.items()}


def _unpack(rows: dict[str, Array], example: PyTree, num_rows: int) -> PyTree:
    offsets = dict.fromkeys(rows, 0)
    leaves = []
    for leaf in jax.tree.leaves(example):
        word = _word(leaf.dtype)
        start, width = offsets[word], int(np.prod(leaf.shape))
        offsets[word] = start + width
        bits = rows[word][:, start : start + width].reshape(num_rows, *leaf.shape)
        is_bool = leaf.dtype == bool
        leaves.append(
            bits.astype(bool) if is_bool else jax.lax.bitcast_convert_type(bits, leaf.dtype)
        )
    return jax.tree.unflatten(jax.tree.structure(example), leaves)
