"""Losses of distributions of returns, of one transition; the caller vmaps over the batch.

No gradient flows through a target.
"""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from dqx.core.types import Array


def support(v_min: Array | float, v_max: Array | float, num_atoms: int) -> Array:
    """The atoms of a categorical distribution, float32 ``[N]``, evenly from v_min to v_max."""
    return v_min + (v_max - v_min) / (num_atoms - 1) * jnp.arange(num_atoms, dtype=jnp.float32)


def project(probabilities: Array, returns: Array, atoms: Array) -> Array:
    """The distribution on ``atoms`` that is closest to one on other returns.

    Args:
        probabilities: float ``[M]``.
        returns: float ``[M]``, where they lie; what lies beyond the atoms goes to the last of them.
        atoms: float ``[N]``, evenly spaced and rising.

    Returns:
        float ``[N]``: each probability is shared by the two atoms beside it, by how close they are.

    Raises:
        AssertionError: at trace time, on wrong ranks or sizes.

    Source: Bellemare, Dabney and Munos 2017, equation 7.
    """
    chex.assert_rank([probabilities, returns, atoms], 1)
    chex.assert_equal_shape([probabilities, returns])
    inside = jnp.clip(returns, atoms[0], atoms[-1])
    # In steps of an atom, so that a share is what is left of one step.
    step = (atoms[-1] - atoms[0]) / (atoms.shape[0] - 1)
    place = (inside - atoms[0]) / step
    numbers = jnp.arange(atoms.shape[0], dtype=jnp.float32)

    def shares(numbers: Array, place: Array, probability: Array) -> Array:
        return jnp.maximum(1.0 - jnp.abs(place - numbers), 0.0) * probability

    return _sum_over(shares, (numbers,), (place, probabilities))


def cross_entropy(logits: Array, target: Array) -> Array:
    """Cross-entropy of a prediction's ``logits [N]`` under the probabilities ``target [N]``.

    Returns:
        float ``[]``: ``-sum(target * log softmax(logits))``.

    Raises:
        AssertionError: at trace time, on wrong ranks or sizes.

    Source: Bellemare, Dabney and Munos 2017, algorithm 1.
    """
    chex.assert_rank([logits, target], 1)
    chex.assert_equal_shape([logits, target])
    return -jnp.sum(jax.lax.stop_gradient(target) * jax.nn.log_softmax(logits))


def midpoints(count: int) -> Array:
    """The middles of ``count`` equal parts of the quantile levels from 0 to 1, float32."""
    return (jnp.arange(count, dtype=jnp.float32) + 0.5) / count


def quantile_huber(
    quantiles: Array, levels: Array, targets: Array, delta: Array | float = 1.0
) -> Array:
    """The quantile Huber loss of a prediction against samples of the target.

    Args:
        quantiles: float ``[N]``, the prediction.
        levels: float ``[N]``, of each quantile, between 0 and 1.
        targets: float ``[M]``, of equal weight.
        delta: where the Huber loss turns linear (kappa); infinite: half the square everywhere.

    Returns:
        float ``[]``: the sum over quantiles of the mean over targets of
        ``|level - (target < quantile)| * huber(target - quantile, delta)``.

    Raises:
        AssertionError: at trace time, on wrong ranks or sizes.

    Source: Dabney et al. 2018a, equation 10; with sampled levels Dabney et al. 2018b, equation 3,
    which divides by kappa.
    """
    chex.assert_rank([quantiles, levels, targets], 1)
    chex.assert_equal_shape([quantiles, levels])

    def pair(quantiles: Array, levels: Array, delta: Array, target: Array) -> tuple[Array, Array]:
        error = target - quantiles
        weight = jnp.where(error < 0, 1.0 - levels, levels)
        # Half the square up to delta and linear beyond, and its slope by the error.
        clipped = jnp.clip(error, -delta, delta)
        return weight * clipped * (error - 0.5 * clipped), weight * clipped

    fixed = jax.lax.stop_gradient((quantiles, levels, jnp.asarray(delta, jnp.float32)))
    values, slopes = _sum_over(pair, fixed, (jax.lax.stop_gradient(targets),))
    # The slopes carry the gradient: to take it through the pairs would sum over them once more.
    carried = jnp.sum(slopes * (quantiles - fixed[0]))
    return (jnp.sum(values) - carried) / targets.shape[0]


def _sum_over(term: Callable[..., Any], fixed: tuple[Array, ...], each: tuple[Array, ...]) -> Any:
    """The sum of ``term(*fixed, *one)`` over the first axis of ``each``; no gradient goes through.

    A CPU adds one term after another: XLA's reduction of all pairs there runs without vector
    instructions (for 50 quantiles 60 times as long). Other devices compute all terms at once.
    """

    def in_turn(fixed: tuple[Array, ...], each: tuple[Array, ...]) -> Any:
        def add(total: Any, one: tuple[Array, ...]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, term(*fixed, *one)), None

        start = term(*fixed, *(x[0] for x in each))
        return jax.lax.scan(add, start, tuple(x[1:] for x in each), unroll=4)[0]

    def at_once(fixed: tuple[Array, ...], each: tuple[Array, ...]) -> Any:
        terms = jax.vmap(lambda *one: term(*fixed, *one))(*each)
        return jax.tree.map(lambda x: jnp.sum(x, axis=0), terms)

    fixed, each = jax.lax.stop_gradient((fixed, each))
    return jax.lax.platform_dependent(fixed, each, cpu=in_turn, default=at_once)
