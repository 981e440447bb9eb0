"""The tree of sums against plain arrays, and what it draws against their shares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dqx.core.sum_tree import BRANCHES, _one_after_another, _running_sums, make_sum_tree

LEVEL = 1e-4


def leaves(levels, capacity):
    assert not np.any(levels[0][capacity:])
    return np.asarray(levels[0][:capacity])


def check_sums(levels):
    """Every entry is the sum of its eight branches, all of what is left over zero."""
    for below, above in zip(levels, levels[1:], strict=False):
        sums = np.asarray(below, np.float64).reshape(-1, BRANCHES).sum(axis=1)
        np.testing.assert_allclose(above[: len(sums)], sums, rtol=1e-6)
        assert not np.any(above[len(sums) :])
    assert len(levels[-1]) == BRANCHES


@pytest.mark.parametrize(("capacity", "num_envs"), [(1, 1), (9, 3), (60, 5), (1_000, 40)])
def test_writes_and_updates_are_those_of_a_plain_array(capacity, num_envs):
    tree, rng = make_sum_tree(capacity), np.random.default_rng(capacity)
    levels, plain = tree.init(), np.zeros(capacity, np.float32)
    write, update = jax.jit(tree.write), jax.jit(tree.update)
    for step in range(40):
        position = step * num_envs % capacity
        values = rng.uniform(0, 3, num_envs).astype(np.float32)
        levels = write(levels, jnp.int32(position), values)
        plain[position : position + num_envs] = values
        check_sums(levels)
        rows = rng.integers(0, capacity, 6)
        values = rng.choice([0.0, 0.5, 2.0, 1e6], 6).astype(np.float32)
        levels = update(levels, rows, values)
        for row in rows:
            plain[row] = values[rows == row].max()
        check_sums(levels)
        np.testing.assert_array_equal(leaves(levels, capacity), plain)
    np.testing.assert_allclose(tree.total(levels), plain.sum(dtype=np.float64), rtol=1e-5)
    for one, other in zip(levels, tree.rebuild(plain), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("capacity", [5, 8, 70, 600])
def test_rows_are_drawn_in_proportion_to_their_priorities(capacity):
    tree, rng = make_sum_tree(capacity), np.random.default_rng(capacity)
    values = rng.uniform(0, 1, capacity).astype(np.float32) ** 4
    values[rng.random(capacity) < 0.3] = 0
    levels = tree.rebuild(jnp.asarray(values))
    uniforms = jax.random.uniform(jax.random.key(capacity), (tree.depth, 60_000))
    rows, priority = jax.jit(tree.draw)(levels, uniforms)
    np.testing.assert_array_equal(priority, values[rows])
    counts = np.bincount(rows, minlength=capacity)
    there = values > 0
    assert not counts[~there].any()
    share = values[there] / values[there].sum(dtype=np.float64)
    often = share * 60_000 >= 5
    found, expected = counts[there], share * 60_000
    found = [*found[often], found[~often].sum()]
    expected = [*expected[often], expected[~often].sum()]
    kept = np.asarray(expected) > 0
    assert scipy.stats.chisquare(
        np.asarray(found)[kept], np.asarray(expected)[kept]
    ).pvalue > LEVEL  # fmt: skip


@pytest.mark.parametrize("uniform", [0.0, 0.5, float(np.nextafter(np.float32(1), np.float32(0)))])
@pytest.mark.parametrize("row", [0, 7, 8, 63, 64, 99])
def test_a_row_that_alone_has_a_priority_is_drawn_whatever_the_numbers(row, uniform):
    tree = make_sum_tree(100)
    for value in (1e-30, 1.0, 1e30):
        levels = tree.rebuild(jnp.zeros(100).at[row].set(value))
        drawn, _ = tree.draw(levels, jnp.full((tree.depth, 3), uniform))
        np.testing.assert_array_equal(drawn, [row] * 3)


def test_a_tree_needs_a_row():
    with pytest.raises(ValueError, match="capacity must be at least 1, got 0"):
        make_sum_tree(0)


@pytest.mark.parametrize("sums", [_running_sums, _one_after_another])
def test_sums_over_branches_are_added_from_left_to_right(sums):
    rng = np.random.default_rng(5)
    branches = rng.exponential(size=(100_000, BRANCHES)).astype(np.float32)
    branches *= rng.random(branches.shape) < 0.5
    found = np.asarray(jax.jit(sums)(branches))
    np.testing.assert_array_equal(found, np.add.accumulate(branches, axis=1))
    # Thus an empty branch has the sum of the one before, and is never the first beyond a number.
    assert (found[:, 1:][branches[:, 1:] == 0] == found[:, :-1][branches[:, 1:] == 0]).all()


def test_a_gpu_is_asked_for_no_cumulative_sum_in_an_order_of_its_own():
    tree = make_sum_tree(1_000)
    lowered = jax.jit(tree.draw).trace(tree.init(), jnp.zeros((tree.depth, 32)))
    programs = {
        platform: lowered.lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda")
    }
    in_any_order = ("scan", "reduce_window", "cumsum")
    assert any(word in programs["cpu"] for word in in_any_order)  # these are its words
    assert not any(word in programs["cuda"] for word in in_any_order)
