"""Networks that map a batch of observations to Q-values."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dqx.config import Config
from dqx.types import Array

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
        if self.initializer == "torch":
            bound = fan_in**-0.5
            kernel_init = bias_init = _symmetric_uniform(bound)
        else:
            kernel_init = getattr(nn.initializers, self.initializer)()
            bias_init = nn.initializers.zeros_init()
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
    """

    num_actions: int
    hidden_sizes: Sequence[int]
    activation: str = "relu"
    initializer: str = "lecun_normal"
    num_categories: int | None = None

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        if self.num_categories is not None:
            obs = jax.nn.one_hot(obs, self.num_categories)
        x = obs.reshape(obs.shape[0], -1).astype(jnp.float32)
        batch_last = x.shape[0] >= _BATCH_LAST_FROM
        if batch_last:
            # The barrier keeps XLA from folding the transposition into the first layer's products,
            # which its CPU backend would then compute without vector instructions.
            x = jax.lax.optimization_barrier(x.T)
        for size in self.hidden_sizes:
            x = ACTIVATIONS[self.activation](Dense(size, batch_last, self.initializer)(x))
        x = Dense(self.num_actions, batch_last, self.initializer)(x)
        return x.T if batch_last else x


def make_network(config: Config, num_actions: int, num_categories: int | None) -> nn.Module:
    """The Q-network that ``config`` names; the arguments are those of ``MLP``."""
    return MLP(
        num_actions, config.hidden_sizes, config.activation, config.initializer, num_categories
    )


def _symmetric_uniform(bound: float) -> Callable[..., Array]:
    def init(key: Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
