"""A seed's result as one number: equal digests, equal bits. Needs no JAX."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np


def digest(
    steps: np.ndarray, metrics: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray]
) -> str:
    """The SHA-256 of one seed's metrics and final parameters, as 64 hexadecimal digits.

    Metrics are taken as float32, as the files hold them, in the order of their names; parameters
    in the order of their paths. Every array is preceded by its name, type and shape. All NaNs count
    as equal, since only their payload, which nobody reads, could differ.

    Args:
        steps: environment steps of the rows, ``[K]``.
        metrics: ``{name: [K]}``.
        params: ``{path: array}``, see `flatten`.
    """
    total = hashlib.sha256()
    _add(total, "step", np.asarray(steps, "<i8"))
    for name in sorted(set(metrics) - {"step"}):
        _add(total, f"metrics/{name}", np.asarray(metrics[name], "<f4"))
    for name, values in sorted(params.items()):
        _add(total, name, values)
    return total.hexdigest()


def digests(
    steps: np.ndarray, metrics: Mapping[str, np.ndarray], params: Mapping[str, Any]
) -> tuple[str, ...]:
    """The `digest` of each seed of arrays with leading axis S, ``"step"`` left out of it."""
    flat = flatten(params)
    names = [name for name in metrics if name != "step"]
    count = len(metrics[names[0]])
    return tuple(
        digest(steps, {n: metrics[n][i] for n in names}, {n: v[i] for n, v in flat.items()})
        for i in range(count)
    )


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    """Arrays named by their path, such as ``params/Dense_0/kernel``.

    Raises:
        ValueError: for a name with a slash, or an array that NumPy's format cannot hold.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        if "/" in name:
            raise ValueError(f"the parameter name {name!r} holds a slash, which separates names")
        if isinstance(value, Mapping):
            arrays.update(flatten(value, f"{prefix}{name}/"))
            continue
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":  # bfloat16 would come back as raw bytes
            raise ValueError(f"{prefix}{name} has dtype {array.dtype}: convert it to float32 first")
        arrays[prefix + name] = array
    return arrays


def nested(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What `flatten` was made from: nested dictionaries of arrays."""
    tree: dict[str, Any] = {}
    for name, values in arrays.items():
        *parents, leaf = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = values
    return tree


def _add(total: Any, name: str, values: np.ndarray) -> None:
    values = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
    if values.dtype.kind == "f" and np.isnan(values).any():
        values = np.where(np.isnan(values), np.asarray(np.nan, values.dtype), values)
    total.update(f"{name}:{values.dtype.str}:{values.shape};".encode())
    total.update(values.tobytes())
