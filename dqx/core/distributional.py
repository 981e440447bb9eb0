"""Losses of distributions of returns, of one transition; the caller vmaps over the batch.

No gradient flows through a target. Inside, the batch lies along the last axis, as in the layers of
Q-networks: the numbers of atoms and quantiles are seldom multiples of the vector width.
"""

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from dqx.core.types import Array, PyTree


def _batch_last(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function of arrays, which under vmap has the batch along the last axis.

    The function must take arrays with an axis more at their end, of length 1 in those that are not
    mapped, and give such arrays. There is no gradient through it unless it is mapped.
    """
    mapped = jax.custom_batching.custom_vmap(function)

    @mapped.def_vmap
    def over_batch(size: int, batched: PyTree, *args: PyTree) -> tuple[PyTree, PyTree]:
        def last(is_batched: bool, x: Array) -> Array:
            return jnp.moveaxis(x, 0, -1) if is_batched else jnp.asarray(x)[..., None]

        def first(x: Array) -> Array:
            return jnp.moveaxis(jnp.broadcast_to(x, (*x.shape[:-1], size)), -1, 0)

        found = jax.tree.map(first, function(*jax.tree.map(last, tuple(batched), args)))
        return found, jax.tree.map(lambda _: True, found)

    @functools.wraps(function)
    def called(*args: PyTree) -> Any:
        return mapped(*args)

    return called


# More of an axis than this is folded first, so that programs stay short.
_AT_ONCE = 64


def _over(combine: Callable[[Array, Array], Array], x: Array, axis: int) -> Array:
    """All of an axis combined, pair by pair.

    XLA's CPU backend would hand a reduction to a library that spreads it over threads. The barrier
    keeps it from combining anew for every element that uses what is found.
    """
    count = x.shape[axis]
    if count > _AT_ONCE:
        half = count // 2
        folded = combine(*(jax.lax.slice_in_dim(x, i, i + half, axis=axis) for i in (0, half)))
        rest = jax.lax.slice_in_dim(x, 2 * half, count, axis=axis)
        x = jax.lax.optimization_barrier(jnp.concatenate([folded, rest], axis))
        return _over(combine, x, axis)
    parts = [jax.lax.index_in_dim(x, i, axis, keepdims=False) for i in range(count)]
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=False)
        parts = [combine(*pair) for pair in pairs] + parts[len(parts) & ~1 :]
    return jax.lax.optimization_barrier(parts[0])


_sum = functools.partial(_over, jnp.add)
_max = functools.partial(_over, jnp.maximum)


def support(v_min: Array | float, v_max: Array | float, num_atoms: int) -> Array:
    """The atoms of a categorical distribution, float32 ``[N]``, evenly from v_min to v_max."""
    return v_min + (v_max - v_min) / (num_atoms - 1) * jnp.arange(num_atoms, dtype=jnp.float32)


def probabilities(logits: Array) -> Array:
    """Those of each action's atoms, float ``[A, N]``, from logits ``[A, N]``; no gradient."""
    return _softmax(jax.lax.stop_gradient(logits))


@_batch_last
def _softmax(logits: Array) -> Array:
    weights = jax.lax.optimization_barrier(jnp.exp(logits - _max(logits, 1)[:, None]))
    return weights / _sum(weights, 1)[:, None]


def expected(probabilities: Array, atoms: Array) -> Array:
    """The mean of each action's distribution, float ``[A]``, of ``[A, N]``; no gradient."""
    return _expected(*jax.lax.stop_gradient((probabilities, atoms)))


@_batch_last
def _expected(probabilities: Array, atoms: Array) -> Array:
    return _sum(probabilities * atoms, 1)


def weighted(outputs: Array, weight: Array) -> Array:
    """`losses.weighted` of ``outputs [A, N]``; no gradient."""
    return _weighted(*jax.lax.stop_gradient((outputs, weight)))


@_batch_last
def _weighted(outputs: Array, weight: Array) -> Array:
    weight = weight[:, None]
    return jnp.sum(jnp.where(weight > 0, weight * outputs, 0.0), axis=0)


def project(probabilities: Array, returns: Array, atoms: Array) -> Array:
    """The distribution on ``atoms`` that is closest to one on other returns; no gradient.

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
    return _project(*jax.lax.stop_gradient((probabilities, returns, atoms)))


@_batch_last
def _project(probabilities: Array, returns: Array, atoms: Array) -> Array:
    # In steps of an atom, so that a share is what is left of one step.
    step = (atoms[-1] - atoms[0]) / (atoms.shape[0] - 1)
    place = (jnp.clip(returns, atoms[0], atoms[-1]) - atoms[0]) / step
    place, probabilities = jax.lax.optimization_barrier((place, probabilities))
    numbers = jnp.arange(atoms.shape[0], dtype=jnp.float32)
    numbers = numbers.reshape(-1, *(1,) * (place.ndim - 1))

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
    return _with_slope(logits, *_cross_entropy(*jax.lax.stop_gradient((logits, target))))


def entropy(probabilities: Array) -> Array:
    """The entropy of ``probabilities [N]``, float ``[]``: ``-sum(p * log p)``; no gradient.

    Raises:
        AssertionError: at trace time, on a wrong rank.
    """
    chex.assert_rank(probabilities, 1)
    return _entropy(jax.lax.stop_gradient(probabilities))


@_batch_last
def _entropy(probabilities: Array) -> Array:
    return _sum(jax.scipy.special.entr(probabilities), 0)


@_batch_last
def _cross_entropy(logits: Array, target: Array) -> tuple[Array, Array]:
    less = logits - _max(logits, 0)
    weights = jax.lax.optimization_barrier(jnp.exp(less))
    total, mass = _sum(weights, 0), _sum(target, 0)
    slope = mass / total * weights - target
    return mass * jnp.log(total) - _sum(target * less, 0), slope


@jax.custom_jvp
def _with_slope(x: Array, value: Array, slope: Array) -> Array:
    """The value, whose gradient by x is the slope, of the shape of x."""
    return value


@_with_slope.defjvp
def _(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    _, value, slope = primals
    return value, jnp.sum(slope * tangents[0])


@jax.custom_vjp
def chosen(outputs: Array, action: Array) -> Array:
    """What ``outputs [A, ...]`` say of one action, int ``[]``."""
    return _chosen(outputs, action)


@_batch_last
def _chosen(outputs: Array, action: Array) -> Array:
    # A masked sum as in `losses`, and a mask for its gradient: a gather's would be a scatter.
    actions = jnp.arange(outputs.shape[0]).reshape(-1, *(1,) * (outputs.ndim - 1))
    return jnp.sum(jnp.where(actions == action, outputs, 0.0), axis=0)


@_batch_last
def _placed(slope: Array, action: Array, actions: Array) -> Array:
    actions = actions.reshape(-1, *(1,) * slope.ndim)
    return jnp.where(actions == action, slope, 0.0)


chosen.defvjp(
    lambda outputs, action: (_chosen(outputs, action), (action, jnp.arange(outputs.shape[0]))),
    lambda rest, slope: (_placed(slope, *rest), None),
)


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
    inputs = (quantiles, levels, targets, jnp.asarray(delta, jnp.float32))
    return _with_slope(quantiles, *_quantile_huber(*jax.lax.stop_gradient(inputs)))


@_batch_last
def _quantile_huber(
    quantiles: Array, levels: Array, targets: Array, delta: Array
) -> tuple[Array, Array]:
    def pair(quantiles: Array, levels: Array, delta: Array, target: Array) -> tuple[Array, Array]:
        error = target - quantiles
        weight = jnp.where(error < 0, 1.0 - levels, levels)
        # Half the square up to delta and linear beyond, and its slope by the error.
        clipped = jnp.clip(error, -delta, delta)
        return weight * clipped * (error - 0.5 * clipped), weight * clipped

    values, slopes = _sum_over(pair, (quantiles, levels, delta), (targets,))
    return jnp.sum(values, axis=0) / targets.shape[0], -slopes / targets.shape[0]


def _sum_over(term: Callable[..., Any], fixed: tuple[Array, ...], each: tuple[Array, ...]) -> Any:
    """The sum of ``term(*fixed, *one)`` over the first axis of ``each``.

    A CPU adds one term after another: XLA's reduction of all pairs there runs without vector
    instructions (for 50 quantiles 60 times as long), as it runs several terms a turn. Other devices
    compute all terms at once.
    """

    def in_turn(fixed: tuple[Array, ...], each: tuple[Array, ...]) -> Any:
        def add(total: Any, one: tuple[Array, ...]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, term(*fixed, *one)), None

        start = term(*fixed, *(x[0] for x in each))
        return jax.lax.scan(add, start, tuple(x[1:] for x in each))[0]

    def at_once(fixed: tuple[Array, ...], each: tuple[Array, ...]) -> Any:
        terms = jax.vmap(lambda *one: term(*fixed, *one))(*each)
        return jax.tree.map(lambda x: jnp.sum(x, axis=0), terms)

    return jax.lax.platform_dependent(fixed, each, cpu=in_turn, default=at_once)
