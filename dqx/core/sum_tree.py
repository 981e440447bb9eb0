"""A tree of sums over the rows of a replay: rows are drawn in proportion to their priorities.

Each node has eight branches. A walk down such a tree is shorter than one down a binary tree, and
the eight sums of a node lie side by side in memory; docs/DECISIONS.md tells what else was measured.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from dqx.core.types import Array

BRANCHES = 8

# The levels of a tree, leaves first: float32, each a multiple of `BRANCHES` long. Entry i of one is
# the sum of the entries from ``BRANCHES * i`` on of the one below; what belongs to no row is zero.
Levels = tuple[Array, ...]


class SumTree(NamedTuple):
    """The pure functions of a tree over C rows.

    Attributes:
        depth: how many levels there are, and random numbers to a row that is drawn.
        init: ``init()``: all priorities zero.
        write: ``write(levels, position, values [E])``: priorities of E rows that lie side by side,
            at a position that all lanes may share.
        update: ``update(levels, rows [B], values [B])``: priorities of any rows, of which none is
            negative. A row that stands there several times takes the largest of its values.
        rebuild: ``rebuild(values [C])``: all of them anew.
        total: ``total(levels)``: their sum, float32 ``[]``.
        draw: ``draw(levels, uniforms [depth, B])``: rows int32 ``[B]`` and the priority of each,
            float32 ``[B]``; each with probability ``priority / total``, by numbers uniform in
            ``[0, 1)``. No row of priority zero is drawn as long as another has more.
    """

    depth: int
    init: Callable[[], Levels]
    write: Callable[[Levels, Array, Array], Levels]
    update: Callable[[Levels, Array, Array], Levels]
    rebuild: Callable[[Array], Levels]
    total: Callable[[Levels], Array]
    draw: Callable[[Levels, Array], tuple[Array, Array]]


def make_sum_tree(capacity: int) -> SumTree:
    """Builds the functions of a tree over ``capacity`` rows.

    Raises:
        ValueError: if ``capacity`` is not positive.
        AssertionError: at trace time, on shapes that do not fit.

    Source: Schaul et al. 2016, appendix B.2.1, with eight branches for two.
    """
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, got {capacity}")
    nodes = [-(-capacity // BRANCHES)]  # of each level
    while nodes[-1] > 1:
        nodes.append(-(-nodes[-1] // BRANCHES))

    def init() -> Levels:
        return tuple(jnp.zeros(count * BRANCHES, jnp.float32) for count in nodes)

    def write(levels: Levels, position: Array, values: Array) -> Levels:
        chex.assert_rank(values, 1)
        out, first, count = [], position, values.shape[0]
        for level, above in zip(levels, [*nodes[1:], 0], strict=True):
            out.append(jax.lax.dynamic_update_slice(level, values, (first,)))
            if above:
                # Enough nodes for wherever the first of so many entries lies in its own.
                last = level.shape[0] // BRANCHES
                count = min(last, (count + 2 * BRANCHES - 2) // BRANCHES)
                first = jnp.minimum(first // BRANCHES, last - count)
                branches = jax.lax.dynamic_slice(out[-1], (first * BRANCHES,), (count * BRANCHES,))
                values = _sums(branches.reshape(count, BRANCHES))
        return tuple(out)

    def update(levels: Levels, rows: Array, values: Array) -> Levels:
        chex.assert_equal_shape([rows, values])
        # The largest, in whatever order a device writes them. Nothing is written before the values
        # are known: where XLA cannot see that all reading comes first, it copies the level.
        out = [_put(levels[0], rows, values).at[rows].max(values, mode="promise_in_bounds")]
        for level in levels[1:]:
            rows = rows // BRANCHES
            out.append(_put(level, rows, _sums(_branches(out[-1], rows))))
        return tuple(out)

    def rebuild(values: Array) -> Levels:
        chex.assert_shape(values, (capacity,))
        out: list[Array] = []
        for count in nodes:
            out.append(jnp.pad(values, (0, count * BRANCHES - values.shape[0])))
            values = _sums(out[-1].reshape(count, BRANCHES))
        return tuple(out)

    def total(levels: Levels) -> Array:
        return _sums(levels[-1])

    def draw(levels: Levels, uniforms: Array) -> tuple[Array, Array]:
        chex.assert_shape(uniforms, (len(nodes), None))
        rows = jnp.zeros(uniforms.shape[1], jnp.int32)
        for level, uniform in zip(reversed(levels), uniforms, strict=True):
            branches = _branches(level, rows)
            sums = _running_sums(branches)
            whole = sums[:, -1]
            # Below the sum of all, whatever rounding does, so that some branch is beyond it: the
            # first one, which has a priority of its own.
            at = jnp.minimum(uniform * whole, jnp.nextafter(whole, 0.0))
            branch = jnp.sum(sums <= at[:, None], axis=-1, dtype=jnp.int32)
            rows = rows * BRANCHES + branch
        chosen = branch[:, None] == jnp.arange(BRANCHES)
        return jnp.minimum(rows, capacity - 1), jnp.sum(jnp.where(chosen, branches, 0.0), axis=-1)

    return SumTree(len(nodes), init, write, update, rebuild, total, draw)


def _put(level: Array, rows: Array, values: Array) -> Array:
    return level.at[rows].set(values, mode="promise_in_bounds")


def _branches(level: Array, nodes: Array) -> Array:
    return jnp.take(level.reshape(-1, BRANCHES), nodes, axis=0, mode="clip")


def _running_sums(branches: Array) -> Array:
    """The sum of each branch and those before it, ``[N, B]`` of ``[N, B]``, from left to right.

    In another order the sum at an empty branch may exceed the one before it, and the branch would
    be drawn. A CPU's cumulative sum keeps the order, and takes a third of the time.
    """
    return jax.lax.platform_dependent(
        branches, cpu=lambda x: jnp.cumsum(x, axis=-1), default=_one_after_another
    )


def _one_after_another(branches: Array) -> Array:
    return jnp.stack(list(itertools.accumulate(jnp.moveaxis(branches, -1, 0))), axis=-1)


def _sums(branches: Array) -> Array:
    return jnp.sum(branches, axis=-1)
