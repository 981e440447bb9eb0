"""Where a training loop keeps transitions: rows alone, as its clock knows how far they are written.

A store may keep less than it gives back: of a stack of frames the newest one, of a frame a sketch
from which it is drawn when it is sampled, of two observations that follow each other the first.
What it gives back is the same to the bit, whatever it keeps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from dqx.core.environment import Environment, Sketch
from dqx.core.packing import Rows, Table, check_capacity, columns, make_table, places, repacked
from dqx.core.replay import Filled
from dqx.core.types import Array, PyTree, Transition

_COUNT = jax.ShapeDtypeStruct((), jnp.int32)


class Store(NamedTuple):
    """The pure functions of a store.

    A row is known by its place among C, whatever a store keeps beside them.

    Attributes:
        init: ``init()``: packed rows, zeros.
        keep: ``keep(obs [E], state [E])``: what is kept of observations, and of the states that
            they show, ``[E, ...]``.
        write: ``write(rows, filled, transitions [E, ...], age [E], ended [E]) -> rows``, in place;
            the observations as ``keep`` gives them, ``age`` (int32) the steps that each one's
            episode had had before, ``ended`` (bool) whether the episode ends with it.
        gather: ``gather(rows, filled, indices [B], newest [E])``: transitions ``[B, ...]``;
            ``newest`` is what is kept of the observations that come after the newest rows.
        returns: the same, transitions of several steps and how many each has, as a `Batch` holds
            them; None of a store of single steps.
        at: ``at(env) -> Store``: that of a lane whose environment is ``env``; None where all have
            the same.
    """

    init: Callable[[], PyTree]
    keep: Callable[[Array, PyTree], PyTree]
    write: Callable[..., PyTree]
    gather: Callable[..., PyTree]
    returns: Callable[..., tuple[Transition, Array]] | None = None
    at: Callable[[Environment], "Store"] | None = None


class Ring(NamedTuple):
    """How rows lie: as many as there are transitions, and what the oldest stacks need before them.

    Attributes:
        capacity: C, transitions.
        num_envs: E, of which a step writes one each.
        frames: k, observations in a stack.
    """

    capacity: int
    num_envs: int
    frames: int = 1

    @property
    def num_rows(self) -> int:
        """Rows in all, R."""
        return self.capacity + (self.frames - 1) * self.num_envs

    def numbers(self, filled: Filled, indices: Array) -> Array:
        """Which of all transitions since the start was the last to come to each place among C."""
        last = filled.written - 1
        return last - (last - indices) % self.capacity

    def rows_at(self, filled: Filled, indices: Array) -> Array:
        """The rows of transitions, by their places among C."""
        if self.frames == 1:
            return indices
        return self.numbers(filled, indices) % self.num_rows

    def next_row(self, filled: Filled) -> Array:
        """The row that the next step writes first, int32 ``[]``."""
        return filled.position if self.frames == 1 else filled.written % self.num_rows


class Marks(NamedTuple):
    """What a row holds beside its transition, int32 ``[]`` each; None where it is not needed.

    Attributes:
        age: steps that the episode had had before, up to those that anything asks for.
        final: the place of the final observation, if the episode ends here; else -1.
    """

    age: Any = None
    final: Any = None


class Once(struct.PyTreeNode):
    """What a store holds that keeps each observation once.

    Attributes:
        rows: packed transitions without their next observations: those are in the rows after them.
        finals: packed, the last observations of the newest K episodes that have ended.
        owners: int32 ``[K]``, which of all transitions since the start each of them belongs to.
        ends: int32 ``[]``, how many episodes have ended.
        lost: bool ``[]``, whether one of them was overwritten that belonged to a transition still
            kept. What is gathered is right as long as it is false.
    """

    rows: Rows
    finals: Rows
    owners: Array
    ends: Array
    lost: Array


class Layout(NamedTuple):
    """How rows lie, and what one consists of.

    Attributes:
        ring: how they lie.
        table: of the rows.
        marks: where a row's marks are, as `places` says.
        step: where its transition is.
        finals: of final observations, where each observation is kept once; else None.
        num_finals: K.
    """

    ring: Ring
    table: Table
    marks: Any
    step: Any
    finals: Table | None = None
    num_finals: int = 0


def make_layout(
    example: PyTree,
    capacity: int,
    num_envs: int = 1,
    *,
    frames: int = 1,
    aged: bool = False,
    num_finals: int = 0,
) -> Layout:
    """The layout of rows for transitions like ``example``.

    Args:
        example: one transition (arrays or ``jax.ShapeDtypeStruct``), without a leading axis; its
            observations as they are kept.
        capacity: C, transitions kept; a multiple of ``num_envs``.
        num_envs: E, transitions written at a time.
        frames: k; observations are stacks of so many of those in ``example``.
        aged: whether rows say if an episode begins, where stacks do not ask for it.
        num_finals: K, a multiple of ``num_envs``, to keep each observation once; 0: next
            observations are kept too.

    Raises:
        ValueError: if ``capacity`` or ``num_envs`` is not positive, or the one no multiple of the
            other; or ``num_finals`` none.
    """
    check_capacity(capacity, num_envs)
    ring = Ring(capacity, num_envs, frames)
    marks = Marks(_COUNT if aged or frames > 1 else None, _COUNT if num_finals else None)
    finals = make_table(example.next_obs, num_finals, num_envs) if num_finals else None
    stored = (marks, example._replace(next_obs=None) if num_finals else example)
    table = make_table(stored, ring.num_rows, num_envs)
    marked, step = places(stored)
    return Layout(ring, table, marked, step, finals, num_finals)


def packed_rows(rows: Rows | Once) -> Rows:
    """The rows alone of what a store holds."""
    return rows.rows if isinstance(rows, Once) else rows


def stored_steps(layout: Layout, sketch: Sketch | None = None) -> Store:
    """The store of single steps of a layout.

    Of a stack only the newest frame is kept; the others are those of the rows before, of the same
    environment and episode, and where the episode has no such row, its first.

    Args:
        layout: of its rows.
        sketch: of frames, where sketches are what is kept.

    Raises:
        AssertionError: at trace time, if written transitions differ from the example of ``layout``
            in shape or dtype.
    """
    ring, table = layout.ring, layout.table

    def keep(obs: Array, state: PyTree) -> PyTree:
        if sketch is not None:
            return jax.vmap(sketch.take)(obs, state)
        if ring.frames == 1:
            return obs
        return obs[..., -(obs.shape[-1] // ring.frames) :]

    def write(
        rows: PyTree, filled: Filled, transitions: PyTree, age: Array, ended: Array | None = None
    ) -> PyTree:
        marks = Marks(
            None if layout.marks.age is None else jnp.minimum(age, max(ring.frames - 1, 1))
        )
        if layout.finals is None:
            return table.write(rows, ring.next_row(filled), (marks, transitions))
        assert ended is not None, "a store of each observation once is told where episodes end"
        rows, final = _with_finals(layout, rows, filled, transitions.next_obs, ended)
        stored = marks._replace(final=final), transitions._replace(next_obs=None)
        return rows.replace(rows=table.write(rows.rows, ring.next_row(filled), stored))

    def gather(rows: PyTree, filled: Filled, indices: Array, newest: PyTree = None) -> PyTree:
        def as_plain(steps: PyTree) -> PyTree:
            is_plain = sketch is None and layout.finals is None
            return steps if is_plain else repacked(steps, indices < 0)

        at = ring.rows_at(filled, indices)
        marks, steps = table.gather(packed_rows(rows), at)
        if layout.finals is not None:
            steps = steps._replace(
                next_obs=_following(layout, rows, filled, indices, marks, newest)
            )
        if sketch is None and ring.frames == 1:
            return as_plain(steps)

        def older(back: int) -> PyTree:
            before = at - jnp.minimum(marks.age, back) * ring.num_envs
            return columns(packed_rows(rows), before % ring.num_rows, layout.step.obs)

        history = [older(back) for back in range(ring.frames - 1, 0, -1)]
        frames = [_drawn(sketch, kept) for kept in (*history, steps.obs, steps.next_obs)]
        obs, next_obs = (jnp.concatenate(x, axis=-1) for x in (frames[:-1], frames[1:]))
        return as_plain(steps._replace(obs=obs, next_obs=next_obs))

    return Store(lambda: _empty(layout), keep, write, gather)


def several_steps(store: Store, layout: Layout, n_step: int) -> Store:
    """Lets transitions of up to ``n_step`` steps be read from a store of single ones.

    A row is followed by those of the same environment and episode. The end of the episode, by
    termination or truncation, and the newest step stop it: such a transition has fewer steps, and
    bootstraps from what was observed after the last of them, before any reset. So every row can be
    sampled, and none is read that is not written yet or older than the first.

    The rows that follow are read where a batch is gathered, so that storing costs what it does
    without them, and reading O(B n).

    Args:
        store: of single steps.
        layout: of its rows, which say whether an episode begins.
        n_step: n, at least 2.

    Returns:
        A store whose ``returns`` gives transitions, and how many steps m each has, int32 ``[B]``.
        Their ``reward [B, n]`` holds the rewards of the steps and zeros after them; ``discount``
        and ``next_obs`` are those of the last step.

    Source: Watkins 1989, chapter 7; read from a replay, Hessel et al. 2018.
    """
    ring = layout.ring

    def returns(
        rows: PyTree, filled: Filled, indices: Array, newest: PyTree = None
    ) -> tuple[Transition, Array]:
        single = packed_rows(rows)
        number = ring.numbers(filled, indices)
        # The steps that may follow, [B, n - 1], be they written or not.
        later = number[:, None] + ring.num_envs * jnp.arange(1, n_step)
        at = later.reshape(-1) % ring.num_rows
        begins = columns(single, at, layout.marks.age).reshape(later.shape) == 0
        follows = jnp.cumprod((later < filled.written) & ~begins, axis=1, dtype=jnp.int32)
        lengths = 1 + jnp.sum(follows, axis=1)
        rewards = columns(single, at, layout.step.reward).reshape(later.shape)
        first = store.gather(rows, filled, indices, newest)
        end = (number + ring.num_envs * (lengths - 1)) % ring.capacity
        last = store.gather(rows, filled, end, newest)
        reward = jnp.concatenate(
            [first.reward[:, None], jnp.where(follows == 1, rewards, 0.0)], axis=1
        )
        steps = Transition(first.obs, first.action, reward, last.discount, last.next_obs)
        return steps, lengths

    return store._replace(returns=returns)


def _drawn(sketch: Sketch | None, kept: PyTree) -> Array:
    """The frames ``[B, ...]`` of what is kept of them."""
    return kept if sketch is None else jax.vmap(sketch.draw)(kept)


def _empty(layout: Layout) -> Rows | Once:
    rows, count = layout.table.init(), layout.num_finals
    if layout.finals is None:
        return rows
    nobody = jnp.full(count, jnp.iinfo(jnp.int32).min, jnp.int32)
    return Once(rows, layout.finals.init(), nobody, jnp.int32(0), jnp.bool_(False))


def _with_finals(
    layout: Layout, rows: Once, filled: Filled, next_obs: PyTree, ended: Array
) -> tuple[Once, Array]:
    """Keeps the observations ``[E]`` at the ends of episodes; where each lies, -1 if nowhere."""
    ring, count = layout.ring, layout.num_finals
    assert layout.finals is not None
    ordinal = jnp.cumsum(ended, dtype=jnp.int32) - ended
    slot = (rows.ends + ordinal) % count
    number = filled.written + jnp.arange(ring.num_envs, dtype=jnp.int32)
    oldest = filled.written + ring.num_envs - ring.capacity
    owners = rows.owners[slot]
    needed = ended & (owners >= oldest)
    # What does not end is put beyond the last. New owners hang on the old ones, so that XLA sees
    # that all reading comes first: else it copies them at every step.
    target = jnp.where(ended, slot, count)
    rows = rows.replace(
        finals=layout.finals.put(rows.finals, target, next_obs),
        owners=rows.owners.at[target].set(jnp.where(needed, owners, number), mode="drop"),
        ends=rows.ends + jnp.sum(ended, dtype=jnp.int32),
        lost=rows.lost | jnp.any(needed),
    )
    return rows, jnp.where(ended, slot, -1)


def _following(
    layout: Layout, rows: Once, filled: Filled, indices: Array, marks: Marks, newest: PyTree
) -> PyTree:
    """What is kept of the observations after rows: a final one, the newest, or the next row's."""
    ring = layout.ring
    assert layout.finals is not None
    number = ring.numbers(filled, indices)
    after = (ring.rows_at(filled, indices) + ring.num_envs) % ring.num_rows
    follows = columns(rows.rows, after, layout.step.obs)
    current = jax.tree.map(lambda x: x[number % ring.num_envs], newest)
    final = layout.finals.gather(rows.finals, jnp.maximum(marks.final, 0))
    is_newest, is_final = number >= filled.written - ring.num_envs, marks.final >= 0

    def choose(final: Array, current: Array, follows: Array) -> Array:
        shape = (-1,) + (1,) * (final.ndim - 1)
        within = jnp.where(is_newest.reshape(shape), current, follows)
        return jnp.where(is_final.reshape(shape), final, within)

    return jax.tree.map(choose, final, current, follows)
