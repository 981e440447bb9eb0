"""Long scans in blocks, so that the random numbers of one block are drawn at once."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dqx.core.types import Key, PyTree

# Rounds whose random numbers are drawn at once. Every draw folds in the clock, so the choice
# changes no number.
BLOCK_ROUNDS = 512
# Bytes of what is drawn for a seed: large observations or many updates make smaller blocks.
BLOCK_BYTES = 2**22


def drawn_bytes(draws: Callable[[Key], PyTree]) -> int:
    """Bytes of what a function draws from a key."""
    drawn = jax.tree.leaves(jax.eval_shape(draws, jax.eval_shape(jax.random.key, 0)))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in drawn)


def block_size(count: int, limit: int) -> int:
    """How many of ``count`` rounds or steps a block takes, at most ``limit``."""
    limit = min(count, limit)
    size = max(d for d in range(1, limit + 1) if count % d == 0)
    # Where divisors are few, one odd block comes at the end instead.
    return limit if size < math.sqrt(limit) else size


def scan(body: Callable[[Any, Any], Any], carry: Any, xs: Any, length: int) -> tuple[Any, Any]:
    """``lax.scan``, without a loop where there is only one step."""
    return jax.lax.scan(body, carry, xs, length=length, unroll=length == 1)


def in_blocks(
    block: Callable[[Any, int], Any], carry: Any, count: int, limit: int
) -> tuple[Any, Any]:
    """Runs ``block(carry, size)`` up to ``count``, with ``size <= limit``; outputs are joined."""
    size = block_size(count, limit)
    whole, rest = divmod(count, size)
    carry, outputs = jax.lax.scan(lambda c, _: block(c, size), carry, None, length=whole)
    outputs = jax.tree.map(lambda x: x.reshape(whole * size, *x.shape[2:]), outputs)
    if rest:
        carry, last = block(carry, rest)
        outputs = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), outputs, last)
    return carry, outputs
