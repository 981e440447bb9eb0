"""The noise of noisy layers: where it starts, how it is drawn, and whose it is.

What a layer does with it says `dense.Dense`. Source: Fortunato et al. 2018.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dqx.core.types import Array, Key, Params

# Deviation of a noisy weight at the start, times the root of the layer's inputs, until
# `with_sigma` sets another; Fortunato et al. 2018, section 3.2.
SIGMA = 0.5


def with_sigma(params: Params, sigma: Array | float) -> Params:
    """Parameters at the start whose noisy weights deviate by ``sigma / sqrt(inputs)``."""
    layers = {
        name: {
            part: value * (sigma / SIGMA) if part.endswith("_sigma") else value
            for part, value in layer.items()
        }
        for name, layer in params["params"].items()
    }
    return {**params, "params": layers}


def noise_size(params: Params) -> int:
    """How many numbers the noise of a network takes; 0 if no layer is noisy."""
    return sum(sum(shape) for shape in _noisy(params).values())


def draw_noise(key: Key, size: int) -> Array:
    """The noise of all layers in one row, float32 ``[size]``: ``sign(x) * sqrt(|x|)`` of normal x.

    Source: Fortunato et al. 2018, section 3.1.
    """
    x = jax.random.normal(key, (size,))
    return jnp.sign(x) * jnp.sqrt(jnp.abs(x))


class RowsOfNoise(NamedTuple):
    """Noise of R rows, as it is drawn: one row's numbers, and for each row which change their sign.

    Each row by itself is drawn as `draw_noise` draws, and any two are uncorrelated, as are what
    they add to a kernel; their magnitudes are the same. Independent rows would cost an agent that
    acts in ten environments more random numbers than all else together.

    Attributes:
        numbers: float32 ``[size]``.
        signs: uint32 ``[R, ceil(size / 32)]``, a bit for each number.

    Source: Wen, Vicol, Ba, Tran and Grosse 2018 (Flipout).
    """

    numbers: Array
    signs: Array


def draw_rows_of_noise(key: Key, size: int, rows: int) -> RowsOfNoise:
    """The noise of all layers for each of so many rows."""
    key, own = jax.random.split(key)
    signs = jax.random.bits(own, (rows, -(-size // 32)), jnp.uint32)
    return RowsOfNoise(draw_noise(key, size), signs)


def rows_of_noise(drawn: RowsOfNoise) -> Array:
    """The noise of all layers in rows, float32 ``[R, size]``."""
    bits = (drawn.signs[:, :, None] >> jnp.arange(32, dtype=jnp.uint32)) & 1
    negative = bits.reshape(len(bits), -1)[:, : len(drawn.numbers)] == 1
    return jnp.where(negative, -drawn.numbers, drawn.numbers)


def noise_of(params: Params, noise: Array) -> dict[str, dict[str, Array]]:
    """The collection ``noise`` of a network, from ``[size]``, or from ``[B, size]`` for rows."""
    found, start = {}, 0
    for name, (inputs, outputs) in _noisy(params).items():
        middle, end = start + inputs, start + inputs + outputs
        found[name] = {"inputs": noise[..., start:middle], "outputs": noise[..., middle:end]}
        start = end
    return found


def _noisy(params: Params) -> dict[str, tuple[int, int]]:
    """The layers with noise, by name, and the shapes of their kernels."""
    layers: Mapping[str, Any] = params["params"]
    return {
        name: layer["kernel_sigma"].shape
        for name, layer in sorted(layers.items())
        if "kernel_sigma" in layer
    }
