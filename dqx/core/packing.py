"""Packed rows: the leaves of one transition side by side, one array for each element size."""

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


class Table(NamedTuple):
    """Packed rows, by where they lie; ``write(rows, position, transitions [E, ...]) -> rows``."""

    init: Callable[[], Rows]
    write: Callable[[Rows, Array, PyTree], Rows]
    gather: Callable[[Rows, Array], PyTree]


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

    def write(rows: Rows, position: Array, transitions: PyTree) -> Rows:
        chex.assert_trees_all_equal_shapes_and_dtypes(
            transitions,
            jax.tree.map(lambda x: jax.ShapeDtypeStruct((num_envs, *x.shape), x.dtype), example),
            custom_message="transitions must be like the example that the buffer was made with, "
            f"after a leading axis of num_envs = {num_envs}",
        )
        return {
            dtype: jax.lax.dynamic_update_slice_in_dim(rows[dtype], new, position, axis=0)
            for dtype, new in _pack(transitions, num_envs).items()
        }

    def gather(rows: Rows, indices: Array) -> PyTree:
        taken = {dtype: jnp.take(x, indices, axis=0, mode="clip") for dtype, x in rows.items()}
        return _unpack(taken, example)

    return Table(init, write, gather)


def check_capacity(capacity: int, num_envs: int) -> None:
    """Refuses a capacity that ``num_envs`` rows at a time do not fill evenly, by ValueError."""
    require(ValueError, capacity=(capacity, COUNT), num_envs=(num_envs, COUNT))
    if capacity % num_envs:
        raise ValueError(
            f"replay capacity must be a multiple of num_envs, got {capacity} and {num_envs}: "
            f"{capacity - capacity % num_envs + num_envs} is the next"
        )


class Place(NamedTuple):
    """Where a leaf lies in a packed row: of which array the columns from ``start`` on."""

    word: str
    start: int
    width: int
    leaf: jax.ShapeDtypeStruct


def _word(dtype: Any) -> str:
    """The unsigned integer type that holds a leaf's bits unchanged (a boolean takes a byte)."""
    return f"uint{8 * np.dtype(dtype).itemsize}"


def places(example: PyTree) -> Any:
    """The `Place` of every leaf, in a tree like ``example``."""
    ends: dict[str, int] = {}
    places = []
    for leaf in jax.tree.leaves(example):
        word, width = _word(leaf.dtype), int(np.prod(leaf.shape))
        places.append(Place(word, ends.get(word, 0), width, leaf))
        ends[word] = ends.get(word, 0) + width
    return jax.tree.unflatten(jax.tree.structure(example), places)


def _listed(places: Any) -> list[Place]:
    return jax.tree.leaves(places, is_leaf=lambda x: isinstance(x, Place))


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
        bits = leaf.astype(word) if leaf.dtype == bool else jax.lax.bitcast_convert_type(leaf, word)
        columns.setdefault(word, []).append(bits.reshape(num_rows, -1))
    return {word: jnp.concatenate(parts, axis=1) for word, parts in columns.items()}


def _unpack(rows: Rows, example: PyTree) -> PyTree:
    """Every leaf of packed rows ``[B, width]``."""
    leaves = [
        _of_bits(rows[place.word][:, place.start : place.start + place.width], place.leaf)
        for place in _listed(places(example))
    ]
    return jax.tree.unflatten(jax.tree.structure(example), leaves)


def columns(rows: Rows, indices: Array, place: Place) -> Array:
    """One leaf alone of rows ``[B]``, without reading the rest of them."""

    def one(index: Array) -> Array:
        found = jax.lax.dynamic_slice(rows[place.word], (index, place.start), (1, place.width))
        return found[0]

    return _of_bits(jax.vmap(one)(indices), place.leaf)


def _of_bits(bits: Array, leaf: jax.ShapeDtypeStruct) -> Array:
    """Packed columns ``[B, width]`` as what they were, ``[B, ...]``."""
    bits = bits.reshape(bits.shape[0], *leaf.shape)
    return (
        bits.astype(bool) if leaf.dtype == bool else jax.lax.bitcast_convert_type(bits, leaf.dtype)
    )
