"""Packed rows: the leaves of one transition side by side, one array for each element size.

Booleans are bits: element i of n lies in byte ``i % W`` of W, and there is bit ``i // W``, so that
all bytes are shifted by the same number at a time.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from dqx.arguments import is_number, require, shown, whole
from dqx.core.types import Array, PyTree

# Rows are counted in int32.
COUNT = whole(1, 2**31 - 1)

Rows = dict[str, Array]

_SHIFTS = np.arange(8, dtype=np.uint8)[:, None]


class Table(NamedTuple):
    """Packed rows, by where they lie.

    Attributes:
        init: ``init()``: zeros.
        write: ``write(rows, position, transitions [E, ...]) -> rows``: E rows side by side.
        gather: ``gather(rows, indices [B])``: transitions ``[B, ...]``.
        put: ``put(rows, indices [E], transitions [E, ...]) -> rows``: rows anywhere, none of them
            twice; those that lie beyond the table are left out.
    """

    init: Callable[[], Rows]
    write: Callable[[Rows, Array, PyTree], Rows]
    gather: Callable[[Rows, Array], PyTree]
    put: Callable[[Rows, Array, PyTree], Rows]


def make_table(example: PyTree, num_rows: int, num_envs: int) -> Table:
    """Packed rows for trees like ``example``, of which ``num_envs`` are written at a time.

    Raises:
        ValueError: as `check_capacity` does, or if ``example`` holds no arrays.
    """
    check_capacity(num_rows, num_envs)
    leaves = jax.tree.leaves(example)
    if not leaves or not all(
        hasattr(x, "dtype") or is_number(x) or isinstance(x, bool) for x in leaves
    ):
        raise ValueError(
            "example must be a transition of arrays, numbers or jax.ShapeDtypeStruct, at least "
            f"one, got {shown(example)}"
        )
    example = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), example
    )
    widths = packed_widths(example)

    def init() -> Rows:
        return {dtype: jnp.zeros((num_rows, width), dtype) for dtype, width in widths.items()}

    def packed(transitions: PyTree) -> dict[str, Array]:
        chex.assert_trees_all_equal_shapes_and_dtypes(
            transitions,
            jax.tree.map(lambda x: jax.ShapeDtypeStruct((num_envs, *x.shape), x.dtype), example),
            custom_message="transitions must be like the example that the buffer was made with, "
            f"after a leading axis of num_envs = {num_envs}",
        )
        return _pack(transitions, num_envs)

    def write(rows: Rows, position: Array, transitions: PyTree) -> Rows:
        return {
            dtype: jax.lax.dynamic_update_slice_in_dim(rows[dtype], new, position, axis=0)
            for dtype, new in packed(transitions).items()
        }

    def put(rows: Rows, indices: Array, transitions: PyTree) -> Rows:
        return {
            dtype: rows[dtype].at[indices].set(new, mode="drop")
            for dtype, new in packed(transitions).items()
        }

    def gather(rows: Rows, indices: Array) -> PyTree:
        taken = {dtype: jnp.take(x, indices, axis=0, mode="clip") for dtype, x in rows.items()}
        return _unpack(taken, example)

    return Table(init, write, gather, put)


def check_capacity(capacity: int, num_envs: int) -> None:
    """Refuses a capacity that ``num_envs`` rows at a time do not fill evenly, by ValueError."""
    require(ValueError, capacity=(capacity, COUNT), num_envs=(num_envs, COUNT))
    if capacity % num_envs:
        raise ValueError(
            f"replay capacity must be a multiple of num_envs, got {capacity} and {num_envs}: "
            f"{capacity - capacity % num_envs + num_envs} is the next"
        )


class Place(NamedTuple):
    """Where a leaf lies in a packed row: of which array ``width`` columns from ``start`` on."""

    word: str
    start: int
    width: int
    leaf: jax.ShapeDtypeStruct


def _word(dtype: Any) -> str:
    """The unsigned integer type that holds a leaf's bits unchanged; of booleans, eight of them."""
    return f"uint{8 * np.dtype(dtype).itemsize}"


def places(example: PyTree) -> Any:
    """The `Place` of every leaf, in a tree like ``example``."""
    ends: dict[str, int] = {}
    places = []
    for leaf in jax.tree.leaves(example):
        word, width = _word(leaf.dtype), int(np.prod(leaf.shape))
        if leaf.dtype == bool:
            width = -(-width // 8)
        places.append(Place(word, ends.get(word, 0), width, leaf))
        ends[word] = ends.get(word, 0) + width
    return jax.tree.unflatten(jax.tree.structure(example), places)


def _is_place(x: Any) -> bool:
    return isinstance(x, Place)


def _listed(places: Any) -> list[Place]:
    return jax.tree.leaves(places, is_leaf=_is_place)


def packed_widths(example: PyTree) -> dict[str, int]:
    """How many elements of each unsigned type a row takes, by the type's name."""
    widths: dict[str, int] = {}
    for place in _listed(places(example)):
        widths[place.word] = place.start + place.width
    return widths


def _pack(transitions: PyTree, num_rows: int) -> dict[str, Array]:
    columns: dict[str, list[Array]] = {}
    for leaf in jax.tree.leaves(transitions):
        word = _word(leaf.dtype)
        if leaf.dtype == bool:
            bits = _bytes(leaf.reshape(num_rows, -1))
        else:
            bits = jax.lax.bitcast_convert_type(leaf, word).reshape(num_rows, -1)
        columns.setdefault(word, []).append(bits)
    return {word: jnp.concatenate(parts, axis=1) for word, parts in columns.items()}


def _unpack(rows: Rows, example: PyTree) -> PyTree:
    """Every leaf of packed rows ``[B, width]``."""
    leaves = [
        _of_bits(rows[place.word][:, place.start : place.start + place.width], place.leaf)
        for place in _listed(places(example))
    ]
    return jax.tree.unflatten(jax.tree.structure(example), leaves)


def columns(rows: Rows, indices: Array, wanted: Any) -> PyTree:
    """Some leaves of rows ``[B]``, a tree of `Place`, without reading the rest of the rows.

    Those of one element size are read at once, from the first to the last, so they should be
    neighbours.
    """
    found = {}
    for word, (start, end) in _spans(wanted).items():

        def one(index: Array, word: str = word, start: int = start, end: int = end) -> Array:
            return jax.lax.dynamic_slice(rows[word], (index, start), (1, end - start))[0]

        found[word] = start, jax.vmap(one)(indices)

    def leaf(place: Place) -> Array:
        first, taken = found[place.word]
        begin = place.start - first
        return _of_bits(taken[:, begin : begin + place.width], place.leaf)

    return jax.tree.map(leaf, wanted, is_leaf=_is_place)


def repacked(transitions: PyTree, none: Array) -> PyTree:
    """Transitions ``[B, ...]`` as a gather from packed rows of them would give them.

    They stay the same to the bit. But XLA fuses what comes next with how they lie, and by the
    distance between two rewards it vectorizes a sum, or does not, whose last bits then differ. So
    whatever comes next is compiled as if whole transitions had been gathered.

    Args:
        transitions: of a batch.
        none: false in a way that XLA does not know, bool ``[B]``; else it would see through this.
            As a gather's indices do, it differs between lanes, or else they lie in another order.
    """
    count = jax.tree.leaves(transitions)[0].shape[0]
    example = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), transitions)
    packed, indices = _pack(transitions, count), jnp.arange(count) + none
    taken = {word: jnp.take(x, indices, axis=0, mode="clip") for word, x in packed.items()}
    return _unpack(taken, example)


def _spans(wanted: Any) -> dict[str, tuple[int, int]]:
    """From which to which column places lie, by word."""
    spans: dict[str, tuple[int, int]] = {}
    for place in _listed(wanted):
        start, end = spans.get(place.word, (place.start, place.start))
        spans[place.word] = min(start, place.start), max(end, place.start + place.width)
    return spans


def _bytes(flags: Array) -> Array:
    """Booleans ``[B, n]`` as uint8 ``[B, W]``, eight to a byte."""
    count, size = flags.shape
    width = -(-size // 8)
    padded = jnp.pad(flags, ((0, 0), (0, 8 * width - size)))
    bits = padded.reshape(count, 8, width).astype(jnp.uint8) << _SHIFTS
    return jax.lax.reduce(bits, np.uint8(0), jax.lax.bitwise_or, (1,))


def _of_bits(bits: Array, leaf: jax.ShapeDtypeStruct) -> Array:
    """Packed columns ``[B, width]`` as what they were, ``[B, ...]``."""
    count = bits.shape[0]
    if leaf.dtype == bool:
        flags = ((bits[:, None] >> _SHIFTS) & 1).astype(bool)
        return flags.reshape(count, -1)[:, : int(np.prod(leaf.shape))].reshape(count, *leaf.shape)
    return jax.lax.bitcast_convert_type(bits.reshape(count, *leaf.shape), leaf.dtype)
