"""Pytrees of a chunk between device and host; random keys travel as their data.

On the host a tree holds plain NumPy arrays only. Which of them are keys, or numbers that NumPy's
file format does not know, the shapes of the same tree on the device tell.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from dqx.core.types import PyTree


def to_host(tree: PyTree) -> PyTree:
    """Copies to NumPy: keys as their data, types that NumPy's format lacks as their bits."""
    return jax.tree.map(_plain, tree)


def to_device(tree: PyTree, like: PyTree, device: jax.Device) -> PyTree:
    """Puts what `to_host` gave on a device, as arrays of its own.

    Args:
        tree: of NumPy arrays.
        like: the same tree of shapes and dtypes.
        device: where to.
    """

    def placed(values: np.ndarray, shape: Any) -> Any:
        if _is_key(shape.dtype):
            data = jax.device_put(values, device, may_alias=False)
            return jax.random.wrap_key_data(data, impl=_implementation(shape))
        # Not aliased: the first program overwrites it.
        return jax.device_put(values.view(shape.dtype), device, may_alias=False)

    return jax.tree.map(placed, tree, like)


def named(prefix: str, tree: PyTree) -> dict[str, np.ndarray]:
    """The leaves of a tree on the host by their path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {prefix + jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def from_named(prefix: str, like: PyTree, arrays: dict[str, np.ndarray]) -> Any:
    """The tree that `named` took apart.

    Raises:
        KeyError: with the path of a leaf that is not there.
        ValueError: naming a leaf that has another shape or another type than in ``like``.
    """

    def leaf(path: Any, shape: Any) -> np.ndarray:
        name = prefix + jax.tree_util.keystr(path)
        found, wanted = arrays[name], jax.eval_shape(_data, shape)
        bits = wanted.dtype if wanted.dtype.kind in "biuf" else f"u{wanted.dtype.itemsize}"
        if found.shape != wanted.shape or found.dtype != bits:
            raise ValueError(
                f"{name} is {found.dtype} {list(found.shape)} and must be {bits} "
                f"{list(wanted.shape)}"
            )
        return found

    return jax.tree_util.tree_map_with_path(leaf, like)


def equal(tree: PyTree, other: PyTree) -> bool:
    """Whether two trees on the host have the same structure and the same numbers."""
    leaves, others = jax.tree.leaves(tree), jax.tree.leaves(other)
    structures: list[Any] = [jax.tree.structure(tree), jax.tree.structure(other)]
    if structures[0] != structures[1]:
        return False
    return all(np.array_equal(x, y) for x, y in zip(leaves, others, strict=True))


def padded(tree: PyTree, width: int) -> PyTree:
    """Repeats the last entry of the leading axis up to ``width``."""
    return jax.tree.map(lambda x: np.concatenate([x, np.repeat(x[-1:], width - len(x), 0)]), tree)


def first(tree: PyTree, count: int) -> PyTree:
    """The first ``count`` entries of the leading axis."""
    return jax.tree.map(lambda x: x[:count], tree)


def joined(trees: Sequence[PyTree]) -> PyTree:
    """Trees one after the other along the leading axis."""
    return jax.tree.map(lambda *xs: np.concatenate(xs), *trees)


def num_bytes(shapes: PyTree) -> int:
    """The bytes of all leaves; of keys those of their data."""
    leaves = jax.tree.leaves(jax.eval_shape(lambda t: jax.tree.map(_data, t), shapes))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def _data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf.dtype) else leaf


def _plain(leaf: Any) -> np.ndarray:
    # A copy, as a donated buffer's memory is used again.
    leaf = np.array(_data(leaf))
    return leaf if leaf.dtype.kind in "biuf" else leaf.view(f"u{leaf.dtype.itemsize}")


def _implementation(shape: jax.ShapeDtypeStruct) -> str:
    """The name of the generator that keys of this shape belong to; only real keys tell it."""
    found: list[str] = []
    jax.eval_shape(lambda keys: found.append(str(jax.random.key_impl(keys))), shape)
    return found[0]


def _is_key(dtype: Any) -> bool:
    return bool(jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key))
