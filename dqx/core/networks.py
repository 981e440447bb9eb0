"""Networks that map a batch of observations to Q-values."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dqx.core.agent import Spec
from dqx.core.convolution import TORSOS, Conv, Layer, smallest_frame
from dqx.core.types import Array
from dqx.settings import Config, ConfigError

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "tanh": nn.tanh,
    "swish": nn.swish,
}


# Batches from this size on are laid out with the batch as the last axis: the widths of Q-networks
# are seldom multiples of the vector width, batches are. Measured on CartPole with CleanRL's
# network: 10 % of the whole training step.
_BATCH_LAST_FROM = 32


class Dense(nn.Module):
    """A dense layer, ``[B, in]`` to ``[B, features]``; both transposed with ``batch_last``.

    The parameters are named and shaped as flax's: ``kernel [in, features]``, ``bias [features]``.
    """

    features: int
    batch_last: bool
    initializer: str = "lecun_normal"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        fan_in = x.shape[0 if self.batch_last else 1]
        kernel_init, bias_init = _initializers(self.initializer, fan_in)
        kernel = self.param("kernel", kernel_init, (fan_in, self.features), jnp.float32)
        bias = self.param("bias", bias_init, (self.features,), jnp.float32)
        if self.batch_last:
            return jax.lax.dot_general(kernel, x, (((0,), (0,)), ((), ()))) + bias[:, None]
        return x @ kernel + bias


class MLP(nn.Module):
    """Fully connected Q-network: ``[B, ...]`` observations to ``[B, A]`` float32 Q-values.

    Attributes:
        num_actions: A.
        hidden_sizes: units of each hidden layer.
        activation: a name in ``ACTIVATIONS``.
        initializer: how weights start: ``lecun_normal`` (flax), ``glorot_uniform`` (Keras), both
            with zero biases, or ``torch``: kernel and bias uniform within ``1 / sqrt(fan_in)``.
        num_categories: where observations are category numbers (int ``[B]``), how many there are;
            they are then one-hot encoded. None for arrays, which are flattened and cast to float32.
        scale_pixels: divide by 255.
    """

    num_actions: int
    hidden_sizes: Sequence[int]
    activation: str = "relu"
    initializer: str = "lecun_normal"
    num_categories: int | None = None
    scale_pixels: bool = False

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        if self.num_categories is not None:
            obs = jax.nn.one_hot(obs, self.num_categories)
        x = obs.reshape(obs.shape[0], -1).astype(jnp.float32)
        x = x / 255.0 if self.scale_pixels else x
        return _dense_layers(self, x)


class ConvNet(nn.Module):
    """Convolutions, then dense layers: frames ``[B, H, W, C]`` to ``[B, A]`` float32 Q-values.

    Attributes:
        layers: the convolutions, each followed by the activation.
        form: how they are computed: ``blocks`` or ``plain``; the parameters are the same.
        scale_pixels: divide by 255; else frames of any dtype are taken as they are.

    The other attributes are those of ``MLP``.
    """

    num_actions: int
    hidden_sizes: Sequence[int]
    layers: Sequence[Layer]
    activation: str = "relu"
    initializer: str = "lecun_normal"
    form: str = "blocks"
    scale_pixels: bool = False

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        x = obs.astype(jnp.float32) / 255.0 if self.scale_pixels else obs
        for layer in self.layers:
            conv = Conv(layer, self.form, functools.partial(_initializers, self.initializer))
            x = ACTIVATIONS[self.activation](conv(x))
        return _dense_layers(self, x.reshape(x.shape[0], -1))


class Embedding(nn.Module):
    """An embedding, then dense layers: category numbers int ``[B]`` to ``[B, A]`` float32 Q-values.

    Attributes:
        num_categories: how many there are.
        embedding_size: numbers that stand for each. They start as the framework does that
            ``initializer`` is the default of: normal of variance ``1 / embedding_size`` (flax),
            uniform within 0.05 (Keras), standard normal (torch).

    The other attributes are those of ``MLP``.
    """

    num_actions: int
    hidden_sizes: Sequence[int]
    num_categories: int
    embedding_size: int
    activation: str = "relu"
    initializer: str = "lecun_normal"

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        starts = {
            "lecun_normal": nn.initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0),
            "glorot_uniform": _symmetric_uniform(0.05),
            "torch": nn.initializers.normal(1.0),
        }
        start = starts[self.initializer]
        embed = nn.Embed(self.num_categories, self.embedding_size, embedding_init=start)
        return _dense_layers(self, embed(obs))


def make_network(config: Config, num_actions: int, num_categories: int | None) -> nn.Module:
    """The Q-network that ``config`` names; the arguments are those of ``MLP``."""
    name, dense = config.network, (num_actions, config.hidden_sizes)
    style = (config.activation, config.initializer)
    if name == "mlp":
        return MLP(*dense, *style, num_categories, config.scale_pixels)
    if name in TORSOS:
        return ConvNet(*dense, TORSOS[name], *style, config.convolution, config.scale_pixels)
    if num_categories is None:
        raise ConfigError(f"network {name!r} needs the number of categories that are observed")
    return Embedding(*dense, num_categories, config.embedding_size, *style)


def check_observations(config: Config, spec: Spec) -> None:
    """Refuses a network that cannot take the observations of ``spec``.

    Raises:
        ConfigError: naming the network, what the environment gives and what would do.
    """
    name, shape = config.network, spec.obs_shape
    given = f"{spec.name} gives " + (
        f"{np.dtype(spec.obs_dtype)} arrays of shape {list(shape)}"
        if spec.num_categories is None
        else f"category numbers below {spec.num_categories:,}"
    )
    fitting = _fitting_networks(spec)
    if name not in fitting:
        needs = "needs category numbers (a Discrete observation space)"
        if name in TORSOS:
            smallest = smallest_frame(TORSOS[name])
            needs = f"needs frames [height, width, channels] from {smallest} x {smallest} pixels on"
        raise ConfigError(
            f"network {name!r} {needs}, and {given}: set network = {' or '.join(fitting)}"
        )
    if config.scale_pixels and spec.obs_dtype != jnp.uint8:
        raise ConfigError(
            f"scale_pixels divides uint8 frames by 255, and {given}: leave it at false"
        )


def _fitting_networks(spec: Spec) -> list[str]:
    """The networks that can take the observations of ``spec``."""
    if spec.num_categories is not None:
        return ["mlp", "embedding"]
    shape = spec.obs_shape
    return ["mlp"] + [
        name
        for name, torso in TORSOS.items()
        if len(shape) == 3 and min(shape[:2]) >= smallest_frame(torso)
    ]


def _dense_layers(network: Any, x: Array) -> Array:
    """The dense layers of ``network``, from features ``[B, F]`` to Q-values ``[B, A]``."""
    batch_last = x.shape[0] >= _BATCH_LAST_FROM
    if batch_last:
        # The barrier keeps XLA from folding the transposition into the first layer's products,
        # which its CPU backend would then compute without vector instructions.
        x = jax.lax.optimization_barrier(x.T)
    for size in network.hidden_sizes:
        x = ACTIVATIONS[network.activation](Dense(size, batch_last, network.initializer)(x))
    x = Dense(network.num_actions, batch_last, network.initializer)(x)
    return x.T if batch_last else x


def _initializers(name: str, fan_in: int) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """Of kernel and bias."""
    if name == "torch":
        start = _symmetric_uniform(fan_in**-0.5)
        return start, start
    return getattr(nn.initializers, name)(), nn.initializers.zeros_init()


def _symmetric_uniform(bound: float) -> Callable[..., Array]:
    def init(key: Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
