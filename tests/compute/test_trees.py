"""Trees of a chunk: what goes to the host and back is the same, bit for bit."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dqx.compute import trees

CPU = jax.devices("cpu")[0]


def tree(implementation="threefry2x32"):
    keys = jax.random.split(jax.random.key(3, impl=implementation), 4)
    return {
        "key": keys,
        "half": jnp.array([1.5, -2.0, jnp.inf, 3e-39], jnp.bfloat16),
        "nan": jnp.array([0x7FC00001, 0xFF800001, 1, 2], jnp.uint32).view(jnp.float32),
        "bytes": jnp.arange(8, dtype=jnp.uint8).reshape(4, 2),
        "flags": (jnp.array([True, False, True, True]), None),
        "count": jnp.arange(4, dtype=jnp.int32),
    }


def bits(tree):
    def of(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return np.asarray(leaf).tobytes()

    return jax.tree.map(of, tree)


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
def test_there_and_back_again(implementation):
    original = tree(implementation)
    like = jax.eval_shape(lambda: tree(implementation))
    host = trees.to_host(original)
    for leaf in jax.tree.leaves(host):
        assert type(leaf) is np.ndarray and leaf.dtype.kind in "biuf"
        np.save(io.BytesIO(), leaf, allow_pickle=False)
    back = trees.to_device(host, like, CPU)
    assert jax.tree.structure(back) == jax.tree.structure(original)
    same = jax.tree.map(lambda x, y: (x.dtype, x.shape) == (y.dtype, y.shape), back, original)
    assert all(jax.tree.leaves(same)) and bits(back) == bits(original)
    np.testing.assert_array_equal(
        *(jax.random.key_data(jax.vmap(jax.random.split)(t["key"])) for t in (back, original))
    )


def test_copies_share_no_memory():
    """A program that consumes its arguments overwrites neither the host's copy nor its source."""
    start = jnp.arange(4, dtype=jnp.int32)
    host = trees.to_host({"x": start})
    (placed,) = trees.to_device(host, {"x": start}, CPU).values()
    consume = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    jax.block_until_ready(consume(placed))
    jax.block_until_ready(consume(start))
    np.testing.assert_array_equal(host["x"], range(4))


def test_leaves_by_name():
    host = trees.to_host(tree())
    arrays = trees.named("lanes", host)
    assert "lanes['flags'][0]" in arrays and len(arrays) == len(jax.tree.leaves(host))
    again = trees.from_named("lanes", host, dict(reversed(arrays.items())))
    jax.tree.map(np.testing.assert_array_equal, again, host)
    del arrays["lanes['half']"]
    with pytest.raises(KeyError, match="half"):
        trees.from_named("lanes", host, arrays)


def test_padding_repeats_the_last_and_goes_again():
    given = {"a": np.array([1, 2]), "b": np.array([[1.0], [5.0]])}
    wide = trees.padded(given, 4)
    np.testing.assert_array_equal(wide["a"], [1, 2, 2, 2])
    np.testing.assert_array_equal(wide["b"], [[1], [5], [5], [5]])
    assert wide["a"].dtype == given["a"].dtype
    jax.tree.map(np.testing.assert_array_equal, trees.first(wide, 2), given)
    jax.tree.map(np.testing.assert_array_equal, trees.padded(given, 2), given)
    both = trees.joined([given, wide])
    np.testing.assert_array_equal(both["a"], [1, 2, 1, 2, 2, 2])
    assert both["b"].shape == (6, 1)


def test_bytes_of_shapes_are_those_of_the_arrays():
    original = tree()
    expected = 4 * 2 * 4 + 4 * 2 + 4 * 4 + 8 + 4 + 4 * 4  # keys of two words first
    assert trees.num_bytes(original) == expected == sum(map(len, jax.tree.leaves(bits(original))))
    assert trees.num_bytes(jax.eval_shape(tree)) == expected
    assert trees.num_bytes({}) == 0
