"""The dense layers of Q-networks: plain or noisy, normalised or not, and the head they end in."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

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


# Deviation of a noisy weight at the start, times the root of the layer's inputs, until
# `with_sigma` sets another; Fortunato et al. 2018, section 3.2.
_SIGMA = 0.5


# A collection that flax leaves out of parameters: what is in it exists where it is asked for.
_SHOWN = "intermediates"


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


# From the advantages to what is added to the state's value, over the axis of actions. Sources:
# Wang et al. 2016, equations 7 (naive), 8 (max) and 9 (avg); the names are keras-rl's.
HEADS: dict[str, Callable[[Array, int], Array]] = {
    "dueling_avg": lambda a, axis: a - jnp.mean(a, axis, keepdims=True),
    "dueling_max": lambda a, axis: a - jnp.max(a, axis, keepdims=True),
    "dueling_naive": lambda a, axis: a,
}


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
        start = nn.initializers.constant(_SIGMA / fan_in**0.5)
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
        return x @ kernel + bias


def dense_layers(network: Any, x: Array) -> Array:
    """The dense layers of a network, from features to Q-values.

    Args:
        network: the module that calls this in its own ``__call__``, with ``num_actions``,
            ``hidden_sizes``, ``activation``, ``initializer`` and ``dense``.
        x: features, float32 ``[B, F]``.

    Returns:
        float32 ``[B, A, *shape]``, with the shape that the form says; with ``cosines`` and N levels
        ``[B, A, *shape, N]``.
    """
    form: Form = network.dense
    batch_last = x.shape[0] >= _BATCH_LAST_FROM
    if batch_last:
        # The barrier keeps XLA from folding the transposition into the first layer's products,
        # which its CPU backend would then compute without vector instructions.
        x = jax.lax.optimization_barrier(x.T)

    def dense(x: Array, size: int) -> Array:
        return Dense(size, batch_last, network.initializer, form.noisy)(x)

    def hidden(x: Array, sizes: Sequence[int]) -> Array:
        for size in sizes:
            x = dense(x, size)
            x = normalised(x, 0 if batch_last else 1) if form.layer_norm else x
            x = ACTIVATIONS[network.activation](x)
            show_units(network, x, batch_last)
        return x

    actions, numbers = network.num_actions, math.prod(form.shape)
    x, batch = hidden(x, network.hidden_sizes), x.shape[1 if batch_last else 0]
    if form.cosines:
        x = _times_levels(network, x, batch_last)
    if form.head == "plain":
        x = dense(x, actions * numbers)
    elif form.stream_sizes:
        value = dense(hidden(x, form.stream_sizes), numbers)
        advantages = dense(hidden(x, form.stream_sizes), actions * numbers)
        x = _dueling(form.head, value, advantages, batch_last)
    else:  # both streams in one product
        value, advantages = jnp.split(
            dense(x, (1 + actions) * numbers), [numbers], axis=0 if batch_last else 1
        )
        x = _dueling(form.head, value, advantages, batch_last)
    if form.cosines:
        levels = (-1, batch) if batch_last else (batch, -1)
        x = x.reshape(x.shape[0], *levels) if batch_last else x.reshape(*levels, x.shape[1])
        x = x.transpose(2, 0, 1) if batch_last else x.transpose(0, 2, 1)
        return x.reshape(batch, actions, *form.shape, x.shape[-1])
    x = x.T if batch_last else x
    return x.reshape(-1, actions, *form.shape) if form.shape else x


def show_units(network: nn.Module, units: Array, batch_last: bool = False) -> None:
    """Keeps the activations of a hidden layer, ``[B, ..., H]``, where `hidden_units` asks for them.

    Anywhere else nothing is added to the program.
    """
    if network.is_mutable_collection(_SHOWN):
        network.sow(_SHOWN, "units", units.T if batch_last else units)


def hidden_units(network: nn.Module, variables: Params, obs: Array) -> tuple[Array, ...]:
    """The activations of every hidden layer for ``obs [B, ...]``, float32 ``[B, ..., H]`` each.

    They are in the order of computation; a dueling head's own layers come last, those of the state
    value before those of the advantages. Convolutions have axes of pixels between.
    """
    _, found = network.apply(variables, obs, mutable=[_SHOWN])
    units: tuple[Array, ...] = found.get(_SHOWN, {}).get("units", ())
    return units


def _times_levels(network: Any, x: Array, batch_last: bool) -> Array:
    """Features times the embedding of each quantile level, one column (or row) a level and row.

    The levels are a collection ``levels``: those ``drawn`` for each row ``[B, N]``, if any, and
    then those ``fixed`` for all ``[K]``. Columns have the levels outside and the batch inside, rows
    the batch outside.

    Source: Dabney et al. 2018b, equation 4; there before the last hidden layer.
    """
    size, batch = x.shape if batch_last else x.shape[::-1]
    embed = Dense(size, True, network.initializer, name="Levels")
    steps = jnp.pi * jnp.arange(network.dense.cosines, dtype=jnp.float32)[:, None]

    def embedded(levels: Array) -> Array:
        return nn.relu(embed(jnp.cos(steps * levels)))

    fixed = network.get_variable("levels", "fixed", jnp.full((1,), 0.5))
    found = [jnp.broadcast_to(embedded(fixed)[:, :, None], (size, fixed.size, batch))]
    if network.has_variable("levels", "drawn"):
        drawn = network.get_variable("levels", "drawn")
        found.insert(0, embedded(drawn.T.reshape(-1)).reshape(size, -1, batch))
    factors = jnp.concatenate(found, axis=1)  # [F, N + K, B]
    if batch_last:
        return (x[:, None] * factors).reshape(size, -1)
    return (x[:, None] * factors.transpose(2, 1, 0)).reshape(-1, size)


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
    norm = nn.LayerNorm(reduction_axes=axis, feature_axes=axis, use_fast_variance=False)
    return norm(x)


def with_sigma(params: Params, sigma: Array | float) -> Params:
    """Parameters at the start whose noisy weights deviate by ``sigma / sqrt(inputs)``."""
    layers = {
        name: {
            part: value * (sigma / _SIGMA) if part.endswith("_sigma") else value
            for part, value in layer.items()
        }
        for name, layer in params["params"].items()
    }
    return {**params, "params": layers}


def noise_size(params: Params) -> int:
    """How many numbers the noise of a network takes; 0 if no layer is noisy."""
    return sum(sum(shape) for shape in _noisy(params).values())


def draw_noise(key: Array, size: int) -> Array:
    """The noise of all layers in one row, float32 ``[size]``: ``sign(x) * sqrt(|x|)`` of normal x.

    Source: Fortunato et al. 2018, section 3.1.
    """
    x = jax.random.normal(key, (size,))
    return jnp.sign(x) * jnp.sqrt(jnp.abs(x))


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
