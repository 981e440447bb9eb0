"""Networks that map a batch of observations to Q-values."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dqx.core.agent import Spec
from dqx.core.convolution import TORSOS, Conv, Layer, smallest_frame
from dqx.core.dense import (
    ACTIVATIONS,
    Form,
    dense_layers,
    initializers,
    normalised,
    show_units,
    symmetric_uniform,
)
from dqx.core.types import Array
from dqx.settings import Config, ConfigError


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
        dense: what the dense layers have beyond plain ones; its ``shape`` makes the network give
            ``[B, A, *shape]``.
    """

    num_actions: int
    hidden_sizes: Sequence[int]
    activation: str = "relu"
    initializer: str = "lecun_normal"
    num_categories: int | None = None
    scale_pixels: bool = False
    dense: Form = Form()

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        if self.num_categories is not None:
            obs = jax.nn.one_hot(obs, self.num_categories)
        x = obs.reshape(obs.shape[0], -1).astype(jnp.float32)
        x = x / 255.0 if self.scale_pixels else x
        return dense_layers(self, x)


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
    dense: Form = Form()

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        x = obs.astype(jnp.float32) / 255.0 if self.scale_pixels else obs
        for layer in self.layers:
            conv = Conv(layer, self.form, functools.partial(initializers, self.initializer))
            x = normalised(conv(x), 3) if self.dense.layer_norm else conv(x)
            x = ACTIVATIONS[self.activation](x)
            show_units(self, x, len(x))
        return dense_layers(self, x.reshape(x.shape[0], -1))


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
    dense: Form = Form()

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        starts = {
            "lecun_normal": nn.initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0),
            "glorot_uniform": symmetric_uniform(0.05),
            "torch": nn.initializers.normal(1.0),
        }
        start = starts[self.initializer]
        embed = nn.Embed(self.num_categories, self.embedding_size, embedding_init=start)
        return dense_layers(self, embed(obs))


def make_network(
    config: Config,
    num_actions: int,
    num_categories: int | None,
    shape: tuple[int, ...] = (),
    cosines: int = 0,
) -> nn.Module:
    """The Q-network that ``config`` names; the arguments are those of ``MLP`` and its ``Form``."""
    name, sizes = config.network, (num_actions, config.hidden_sizes)
    style = (config.activation, config.initializer)
    noisy = config.dense == "noisy"
    form = Form(config.head, config.stream_sizes, noisy, config.layer_norm, shape, cosines)
    if name == "mlp":
        return MLP(*sizes, *style, num_categories, config.scale_pixels, form)
    if name in TORSOS:
        torso = TORSOS[name]
        return ConvNet(*sizes, torso, *style, config.convolution, config.scale_pixels, form)
    if num_categories is None:
        raise ConfigError(f"network {name!r} needs the number of categories that are observed")
    return Embedding(*sizes, num_categories, config.embedding_size, *style, form)


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
