"""The dense layers of Q-networks: plain or noisy, normalised or not, and the head they end in."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dqx.core.noise import SIGMA
from dqx.core.types import Array, Params

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "tanh": nn.tanh,
    "swish": nn.swish,
}


# Batches from this size on are laid out with the batch as the last axis: the widths of Q-networks
# are seldom multiples of the vector width, batches are. Measured on CartPole with CleanRL's
# network: 10 % of the whole training step.
_BATCH_LAST_FROM = 32
# Unless all hidden layers are so wide, and of whole vectors: with the batch first, XLA's CPU
# backend reads kernels row by row. Measured: PQN on CartPole trains 1.25 times as fast.
_WIDE, _VECTOR = 128, 16


# A collection that flax leaves out of parameters: what is in it exists where it is asked for.
_SHOWN = "intermediates"


# The sine of so many whole turns, divided by them, as a polynomial in their square: the least
# greatest error up to a quarter of a turn (4e-9).
_SINE = (
    6.283185160089453,
    -41.34165503141168,
    81.60100407299844,
    -76.5497822880073,
    39.53670602621083,
)


class Form(NamedTuple):
    """What dense layers have beyond the plain ones.

    Attributes:
        head: ``plain``, or one of ``HEADS``, which say how state values and advantages add up.
        stream_sizes: units of hidden layers that the two streams of a dueling head each have to
            themselves.
        noisy: noise on the weights.
        layer_norm: normalisation before the activation of every hidden layer.
        shape: of what the network gives an action, such as the quantiles of its return.
        cosines: of the embedding of quantile levels, for a network that gives the quantile of each;
            0: it knows no levels.
    """

    head: str = "plain"
    stream_sizes: tuple[int, ...] = ()
    noisy: bool = False
    layer_norm: bool = False
    shape: tuple[int, ...] = ()
    cosines: int = 0


def _largest(x: Array, axis: int) -> Array:
    """The largest over an axis, which keeps its place; the first one has the whole gradient.

    The gradient of `jnp.max` asks which entries equal the largest. Where a compiler computes these
    anew for that, and rounds otherwise, none may, and the gradient is 0 / 0.
    """
    first = jnp.argmax(x, axis, keepdims=True)
    places = jax.lax.broadcasted_iota(first.dtype, x.shape, axis % x.ndim)
    return jnp.sum(jnp.where(places == first, x, 0.0), axis, keepdims=True)


# From the advantages to what is added to the state's value, over the axis of actions. Sources:
# Wang et al. 2016, equations 7 (naive), 8 (max) and 9 (avg); the names are keras-rl's.
HEADS: dict[str, Callable[[Array, int], Array]] = {
    "dueling_avg": lambda a, axis: a - jnp.mean(a, axis, keepdims=True),
    "dueling_max": lambda a, axis: a - _largest(a, axis),
    "dueling_naive": lambda a, axis: a,
}


def _is_batch_last(batch: int, widths: Sequence[int]) -> bool:
    """Whether the batch is the last axis, for hidden layers of these widths."""
    wide = bool(widths) and all(w >= _WIDE and w % _VECTOR == 0 for w in widths)
    return batch >= _BATCH_LAST_FROM and not wide


@jax.custom_vjp
def _rows(x: Array, kernel: Array) -> Array:
    """``x @ kernel`` of a batch with the batch first, whose gradient reads no array in strides.

    XLA's CPU backend takes 12 times as long for the gradient of the kernel of 256 inputs and 2
    outputs as JAX forms it.
    """
    return x @ kernel


def _rows_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ kernel, (x, kernel)


def _rows_backward(given: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    x, kernel = given
    whole = jax.lax.optimization_barrier  # keeps XLA from folding transpositions into products
    few = kernel.shape[1] < _VECTOR
    return slope @ kernel.T, whole(whole(slope.T) @ x).T if few else whole(x.T) @ slope


_rows.defvjp(_rows_forward, _rows_backward)


class Dense(nn.Module):
    """A dense layer, ``[B, in]`` to ``[B, features]``; both transposed with ``batch_last``.

    The parameters are named and shaped as flax's: ``kernel [in, features]``, ``bias [features]``.
    Where it is ``noisy`` there are ``kernel_sigma`` and ``bias_sigma`` of the same shapes, which
    count only where noise is given: a collection ``noise`` with ``inputs [in]`` and ``outputs
    [features]`` for the whole batch, or a row of each for every row of the batch. Then
    ``kernel_sigma * outer(inputs, outputs)`` is added to the kernel, ``bias_sigma * outputs`` to
    the bias.

    Source: Fortunato et al. 2018, equations 9 to 11 (factorised Gaussian noise).
    """

    features: int
    batch_last: bool
    initializer: str = "lecun_normal"
    noisy: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        fan_in = x.shape[0 if self.batch_last else 1]
        shape = (fan_in, self.features)
        kernel_init, bias_init = initializers(self.initializer, fan_in)
        kernel = self.param("kernel", kernel_init, shape, jnp.float32)
        bias = self.param("bias", bias_init, (self.features,), jnp.float32)
        if not self.noisy:
            return self._apply(x, kernel, bias)
        start = nn.initializers.constant(SIGMA / fan_in**0.5)
        kernel_sigma = self.param("kernel_sigma", start, shape, jnp.float32)
        bias_sigma = self.param("bias_sigma", start, (self.features,), jnp.float32)
        if not self.has_variable("noise", "inputs"):
            return self._apply(x, kernel, bias)
        inputs: Array = self.get_variable("noise", "inputs")
        outputs: Array = self.get_variable("noise", "outputs")
        if inputs.ndim == 1:
            kernel = kernel + kernel_sigma * (inputs[:, None] * outputs)
            return self._apply(x, kernel, bias + bias_sigma * outputs)
        # Where rows of the batch come several times, as with quantile levels, so does their noise.
        times = x.shape[1 if self.batch_last else 0] // len(inputs)
        if self.batch_last:
            inputs, outputs = jnp.tile(inputs.T, times), jnp.tile(outputs.T, times)
        else:
            inputs, outputs = (jnp.repeat(rows, times, axis=0) for rows in (inputs, outputs))
        disturbance = self._apply(x * inputs, kernel_sigma, bias_sigma)
        return self._apply(x, kernel, bias) + disturbance * outputs

    def _apply(self, x: Array, kernel: Array, bias: Array) -> Array:
        if self.batch_last:
            return jax.lax.dot_general(kernel, x, (((0,), (0,)), ((), ()))) + bias[:, None]
        return (x @ kernel if len(x) < _BATCH_LAST_FROM else _rows(x, kernel)) + bias


def dense_layers(network: Any, x: Array) -> Array:
    """The dense layers of a network, from features to Q-values.

    Args:
        network: the module that calls this in its own ``__call__``, with ``num_actions``,
            ``hidden_sizes``, ``activation``, ``initializer`` and ``dense``.
        x: features, float32 ``[B, F]``.

    Returns:
        float32 ``[B, A, *shape]``, with the shape that the form says; with ``cosines`` and N levels
        drawn ``[B, A, *shape, N + 1]``, of which the last is the mean over the fixed levels.
    """
    form: Form = network.dense
    batch = len(x)
    batch_last = _is_batch_last(batch, (*network.hidden_sizes, *form.stream_sizes))
    if batch_last:
        # The barrier keeps XLA from folding the transposition into the first layer's products,
        # which its CPU backend would then compute without vector instructions.
        x = jax.lax.optimization_barrier(x.T)
    x = _hidden(network, network.hidden_sizes, batch, batch_last)(x)
    end = _end(network, batch, batch_last)
    if form.cosines:
        x = _at_levels(network, x, end, batch_last)
        x = x.transpose(2, 0, 1) if batch_last else x.transpose(0, 2, 1)
        return x.reshape(batch, network.num_actions, *form.shape, x.shape[-1])
    x, shape = end(x), (network.num_actions, *form.shape)
    if not batch_last:
        return x.reshape(batch, *shape) if form.shape else x
    # The batch moves last of all, so that whoever moves it back undoes it whole.
    return jnp.moveaxis(x.reshape(*shape, batch), -1, 0) if form.shape else x.T


Layer = Callable[[Array], Array]


def _hidden(network: Any, sizes: Sequence[int], batch: int, batch_last: bool) -> Layer:
    """Hidden layers of these sizes, one after another."""
    form: Form = network.dense
    layers: list[tuple[Layer, Layer]] = []
    for size in sizes:
        dense = Dense(size, batch_last, network.initializer, form.noisy)
        norm = _normalisation(0 if batch_last else 1) if form.layer_norm else lambda x: x
        layers.append((dense, norm))

    def apply(x: Array) -> Array:
        for dense, norm in layers:
            x = ACTIVATIONS[network.activation](norm(dense(x)))
            show_units(network, x, batch, batch_last)
        return x

    return apply


def _end(network: Any, batch: int, batch_last: bool) -> Layer:
    """From the features of the last hidden layer to the numbers of all actions."""
    form: Form = network.dense
    actions, numbers = network.num_actions, math.prod(form.shape)

    def dense(size: int) -> Layer:
        return Dense(size, batch_last, network.initializer, form.noisy)

    if form.head == "plain":
        return dense(actions * numbers)
    if form.stream_sizes:
        sizes = form.stream_sizes
        to_value, value = _hidden(network, sizes, batch, batch_last), dense(numbers)
        to_rest, rest = _hidden(network, sizes, batch, batch_last), dense(actions * numbers)
        return lambda x: _dueling(form.head, value(to_value(x)), rest(to_rest(x)), batch_last)
    both, axis = dense((1 + actions) * numbers), 0 if batch_last else 1

    def in_one_product(x: Array) -> Array:
        value, rest = jnp.split(both(x), [numbers], axis=axis)
        return _dueling(form.head, value, rest, batch_last)

    return in_one_product


def show_units(network: nn.Module, units: Array, batch: int, batch_last: bool = False) -> None:
    """Keeps the activations of a hidden layer, ``[B, ..., H]``, where `hidden_units` asks for them.

    Anywhere else nothing is added to the program. Of a layer behind K quantile levels they are
    ``[B, K, H]``; it is computed as one of B * K rows.
    """
    if not network.is_mutable_collection(_SHOWN):
        return
    if batch_last:
        units = units.reshape(len(units), -1, batch).transpose(2, 1, 0)
    else:
        units = units.reshape(batch, -1, *units.shape[1:])
    network.sow(_SHOWN, "units", units[:, 0] if units.shape[1] == 1 else units)


def hidden_units(network: nn.Module, variables: Params, obs: Array) -> tuple[Array, ...]:
    """The activations of every hidden layer for ``obs [B, ...]``, float32 ``[B, ..., H]`` each.

    They are in the order of computation; a dueling head's own layers come last, those of the state
    value before those of the advantages. Convolutions have axes of pixels between, a dueling
    head's layers behind quantile levels one of levels.
    """
    _, found = network.apply(variables, obs, mutable=[_SHOWN])
    units: tuple[Array, ...] = found.get(_SHOWN, {}).get("units", ())
    return units


def ends_of_streams(layers: Sequence[Array], depth: int) -> Array:
    """The features that a dueling head of two streams computes from, float32 ``[B, 2 H]``.

    Args:
        layers: as `hidden_units` gives them.
        depth: of each stream, whose last layers stand side by side. Behind quantile levels they are
            means over levels, from which the means that are Q-values are computed.
    """
    both = (layers[-1 - depth], layers[-1])
    return jnp.concatenate([jnp.mean(x, axis=1) if x.ndim == 3 else x for x in both], axis=1)


def _at_levels(network: Any, x: Array, end: Layer, batch_last: bool) -> Array:
    """What the last layers make of features times the embedding of each quantile level.

    The levels are a collection ``levels``: those ``drawn`` for each row ``[B, N]``, if any, and
    those ``fixed`` for all ``[K]``, of which only the mean counts.

    Returns:
        ``[A * numbers, N + 1, B]``, or with the batch first ``[B, N + 1, A * numbers]``.

    Source: Dabney et al. 2018b, equation 4; there before the last hidden layer.
    """
    form: Form = network.dense
    size, batch = x.shape if batch_last else x.shape[::-1]
    # A transposition of the factors of large batches takes as long as the products.
    rows = not batch_last and batch >= _BATCH_LAST_FROM
    embed = Dense(size, not rows, network.initializer, name="Levels")

    def factors(levels: Array) -> Array:
        """Of levels ``[N, M]`` of M rows: ``[F, N, M]``, with the batch first ``[M, N, F]``."""
        if rows:
            found = nn.relu(embed(cosines(levels.T.reshape(-1), form.cosines, axis=1)))
            return found.reshape(*levels.T.shape, size)
        found = nn.relu(embed(cosines(levels.reshape(-1), form.cosines)))
        found = found.reshape(size, *levels.shape)
        return found if batch_last else found.transpose(2, 1, 0)

    def of(factors: Array) -> Array:
        """What the last layers make of such factors, of one row for all or of each its own."""
        if batch_last:
            found = end((x[:, None] * factors).reshape(size, -1))
            return found.reshape(found.shape[0], -1, batch)
        found = end((x[:, None] * factors).reshape(-1, size))
        return found.reshape(batch, -1, found.shape[1])

    fixed = factors(network.get_variable("levels", "fixed", jnp.full((1,), 0.5))[:, None])
    if form.stream_sizes or form.head == "dueling_max":
        mean = jnp.mean(of(fixed), axis=1, keepdims=True)
    else:  # all that follows is linear: the mean of factors gives the mean of what they make
        mean = of(jnp.mean(fixed, axis=1, keepdims=True))
    if not network.has_variable("levels", "drawn"):
        return mean
    drawn = factors(network.get_variable("levels", "drawn").T)
    return jnp.concatenate([of(drawn), mean], axis=1)


def cosines(levels: Array, count: int, axis: int = 0) -> Array:
    """``cos(pi * i * level)`` for i from 0 to ``count`` less 1, float32 ``[count, M]`` of ``[M]``.

    With ``axis`` 1 they are ``[M, count]``. By a polynomial, since XLA's CPU backend takes sixty
    times as long for its own cosine.
    """
    numbers = 0.5 * jnp.arange(count, dtype=jnp.float32)
    turns = jnp.expand_dims(numbers, 1 - axis) * jnp.expand_dims(levels, axis)
    # The cosine of a turn less the nearest whole one is the sine of what it is off a quarter.
    off = 0.25 - jnp.abs(turns - jnp.round(turns))
    square = off * off
    return off * jnp.polyval(jnp.array(_SINE[::-1], jnp.float32), square)


def _dueling(head: str, value: Array, advantages: Array, batch_last: bool) -> Array:
    """State values of N numbers plus the advantages of A times N, as the head adds them up."""
    axis = 0 if batch_last else 1
    numbers, total = value.shape[axis], advantages.shape[axis]
    shape = list(advantages.shape)
    shape[axis : axis + 1] = [total // numbers, numbers]
    added = jnp.expand_dims(value, axis) + HEADS[head](advantages.reshape(shape), axis)
    return added.reshape(advantages.shape)


def normalised(x: Array, axis: int) -> Array:
    """Layer normalisation over one axis, with parameters named as flax's; Ba et al. 2016.

    The variance is that of differences from the mean, so that large features lose no digits.
    """
    return _normalisation(axis)(x)


def _normalisation(axis: int) -> nn.LayerNorm:
    return nn.LayerNorm(reduction_axes=axis, feature_axes=axis, use_fast_variance=False)


def initializers(name: str, fan_in: int) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """Of kernel and bias."""
    if name == "torch":
        start = symmetric_uniform(fan_in**-0.5)
        return start, start
    return getattr(nn.initializers, name)(), nn.initializers.zeros_init()


def symmetric_uniform(bound: float) -> Callable[..., Array]:
    """An initializer: uniform from ``-bound`` to ``bound``."""

    def init(key: Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
