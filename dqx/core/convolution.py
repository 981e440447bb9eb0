"""Convolutions of Q-networks, as matrix products over blocks of pixels or as XLA's own.

Under vmap over seeds XLA makes one grouped convolution of a plain one, which it runs slowly on a
CPU. Cut into blocks of ``stride x stride`` pixels, an image becomes a smaller one with more
channels, on which the same convolution has a stride of 1: a few shifted slices side by side, and
one matrix product.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dqx.core.types import Array


class Layer(NamedTuple):
    """One convolution without padding: output channels, side of the square kernel, stride."""

    features: int
    kernel: int
    stride: int


# Mnih et al. 2015; Young and Tian 2019; our own for large frames, with a fifth of the first one's
# operations at 80 x 80 pixels.
TORSOS: dict[str, tuple[Layer, ...]] = {
    "nature_cnn": (Layer(32, 8, 4), Layer(64, 4, 2), Layer(64, 3, 1)),
    "minatar_cnn": (Layer(16, 3, 1),),
    "coarse_cnn": (Layer(32, 8, 8), Layer(64, 4, 2)),
}


class Conv(nn.Module):
    """A convolution without padding, ``[B, H, W, in]`` to float32 ``[B, h, w, features]``.

    The parameters are named and shaped as flax's, whatever the form: ``kernel [k, k, in,
    features]``, ``bias [features]``.

    Attributes:
        layer: channels, kernel and stride.
        form: ``blocks`` or ``plain``.
        initializers: of kernel and bias, from the fan-in.
    """

    layer: Layer
    form: str
    initializers: Callable[[int], tuple[Callable[..., Array], Callable[..., Array]]]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        features, side, stride = self.layer
        shape = (side, side, x.shape[-1], features)
        kernel_init, bias_init = self.initializers(side * side * x.shape[-1])
        kernel = self.param("kernel", kernel_init, shape, jnp.float32)
        bias = self.param("bias", bias_init, (features,), jnp.float32)
        return (convolve if self.form == "blocks" else plain)(x, kernel, stride) + bias


def plain(x: Array, kernel: Array, stride: int) -> Array:
    """XLA's convolution, ``[B, H, W, in]`` by ``[k, k, in, out]`` to ``[B, h, w, out]``."""
    dimensions = ("NHWC", "HWIO", "NHWC")
    strides = (stride, stride)
    return jax.lax.conv_general_dilated(
        x.astype(kernel.dtype), kernel, strides, "VALID", dimension_numbers=dimensions
    )


def convolve(x: Array, kernel: Array, stride: int) -> Array:
    """The same as `plain`, as one matrix product over blocks of ``stride x stride`` pixels.

    A kernel whose side is no multiple of the stride is filled up with zeros to the next one; the
    pixels beyond the image that these would touch are zeros too.
    """
    side = kernel.shape[0]
    num_blocks = -(-side // stride)  # of the kernel, along one side
    rows, columns = ((size - side) // stride + 1 for size in x.shape[1:3])
    blocks = _blocks(x, stride, rows + num_blocks - 1, columns + num_blocks - 1)
    filled = num_blocks * stride - side
    kernel = jnp.pad(kernel, ((0, filled), (0, filled), (0, 0), (0, 0)))
    kernel = _blocks(kernel.transpose(3, 0, 1, 2), stride, num_blocks, num_blocks)
    # Pixels move as they are stored, bytes at best, and become floats where they lie in the end.
    blocks = blocks.astype(kernel.dtype)
    shifted = [
        blocks[:, i : i + rows, j : j + columns]
        for i in range(num_blocks)
        for j in range(num_blocks)
    ]
    patches = jnp.concatenate(shifted, axis=-1).reshape(len(x) * rows * columns, -1)
    product = patches @ kernel.reshape(kernel.shape[0], -1).T
    return product.reshape(len(x), rows, columns, -1)


def _blocks(x: Array, size: int, rows: int, columns: int) -> Array:
    """Images ``[B, H, W, C]`` cut into ``[B, rows, columns, size * size * C]``."""
    wanted = (rows * size, columns * size)
    x = x[:, : wanted[0], : wanted[1]]
    missing = [(0, total - have) for total, have in zip(wanted, x.shape[1:3], strict=True)]
    x = jnp.pad(x, ((0, 0), *missing, (0, 0)))
    x = x.reshape(len(x), rows, size, columns, size, x.shape[-1])
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(len(x), rows, columns, -1)


def smallest_frame(layers: Sequence[Layer]) -> int:
    """The smallest side of a frame, in pixels, that leaves one output."""
    side = 1
    for layer in reversed(layers):
        side = (side - 1) * layer.stride + layer.kernel
    return side


def seed_by_seed(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that, under vmap on a CPU, is computed for one seed after another.

    What convolutions keep from the forward to the backward pass stays in the second-level cache for
    one seed, but not for sixteen side by side. Other devices compute all seeds at once.
    """
    batched = jax.custom_batching.custom_vmap(function)

    @batched.def_vmap
    def _rule(axis_size: int, in_batched: list, *args: Any) -> tuple[Any, Any]:
        axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, tuple(in_batched))
        at_once = jax.vmap(function, in_axes=axes, axis_size=axis_size)
        in_turn = jax.vmap(
            jax.custom_batching.sequential_vmap(function), in_axes=axes, axis_size=axis_size
        )
        outputs = jax.lax.platform_dependent(
            *args, cpu=at_once if axis_size == 1 else in_turn, default=at_once
        )
        return outputs, jax.tree.map(lambda _: True, outputs)

    return batched
