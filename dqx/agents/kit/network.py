"""The network of an agent: how Q-values are read from what it gives, and how it acts."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dqx.agents.kit.noise import parted
from dqx.agents.kit.policies import Policy
from dqx.core.agent import AgentState, Now, Spec, of_last_layer
from dqx.core.dense import ends_of_streams, hidden_units
from dqx.core.networks import make_network
from dqx.core.noise import noise_of, noise_size, rows_of_noise
from dqx.core.types import Array, Key, Params, PyTree
from dqx.settings import Config, Hyper


class Net(NamedTuple):
    """The network of an agent, and how Q-values are read from what it gives.

    Attributes:
        init: ``init(key)``: its parameters, and beside them what is kept, at the defaults.
        forward: ``forward(params, obs [B, ...], noise=None, more=None)``: its outputs
            ``[B, A, ...]``; ``more`` are the collections that it takes, if not those of acting.
        values: ``values(outputs, params)``: the Q-values in outputs of one head.
        first: ``first(outputs, params)``: Q-values ``[B, A]``, of several heads the first's.
        followed: ``followed(outputs, params)``: those that policy and target rule follow, the same
            or estimates ``[B, A, K]``.
        units: ``units(params, obs [B, ...])``: activations of the hidden layers.
        features: ``features(layers)``: those of them that outputs are computed from, ``[B, F]``.
        noise_size: how many numbers its noise takes, 0 without noisy layers.
    """

    init: Callable[[Key], Params]
    forward: Callable[..., Array]
    values: Callable[[Array, Params], Array]
    first: Callable[[Array, Params], Array]
    followed: Callable[[Array, Params], Array]
    units: Callable[[Params, Array], tuple[Array, ...]]
    features: Callable[[Sequence[Array]], Array]
    noise_size: int


def make_net(
    config: Config,
    spec: Spec,
    heads: int,
    shape: tuple[int, ...],
    cosines: int,
    values: Callable[..., Array],
    estimates: Callable[[Array], Array] | None,
    inputs: Callable[[str, PyTree], dict[str, Any]],
    kept: Collection[str],
) -> Net:
    """Builds it; see `kit.value_agent` for the arguments, ``heads`` are the target rule's."""
    network = make_network(config, spec.num_actions, spec.num_categories, shape, cosines)
    example = np.zeros((1, *spec.obs_shape), spec.obs_dtype)  # nothing compiles

    def forward(
        params: Params,
        obs: Array,
        noise: Array | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> Array:
        noises = {} if noise is None else {"noise": noise_of(params, noise)}
        more = inputs("now", None) if more is None else more
        outputs: Array = network.apply({**params, **noises, **more}, obs)  # type: ignore[assignment]
        return outputs

    def values_of(outputs: Array, params: Params) -> Array:
        return values(outputs, **params.get("kept", {}))

    def first(outputs: Array, params: Params) -> Array:
        return values_of(outputs if heads == 1 else outputs[:, :, 0], params)

    return Net(
        init=lambda key: keeping(network.init(key, example), kept, Hyper()),
        forward=forward,
        values=values_of,
        first=first,
        followed=first if estimates is None else lambda outputs, params: estimates(outputs),
        units=lambda params, obs: hidden_units(network, {**params, **inputs("now", None)}, obs),
        features=functools.partial(ends_of_streams, depth=len(config.stream_sizes))
        if config.stream_sizes
        else of_last_layer,
        noise_size=noise_size(jax.eval_shape(network.init, jax.random.key(0), example)),
    )


def make_acting(net: Net, policy: Policy) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The functions ``act`` and ``explore`` of an agent."""

    def act(state: AgentState, obs: Array, draws: PyTree, now: Now) -> tuple[Array, AgentState]:
        choice, drawn = parted(draws)
        noise = None if drawn is None else rows_of_noise(drawn)
        outputs = net.forward(state.params, obs, noise)
        q = net.followed(outputs, state.params)
        action, memory = policy.choose(q, state.memory, choice, now)
        return action, state.replace(memory=memory)

    def explore(state: AgentState, draws: PyTree) -> tuple[Array, AgentState]:
        action, memory = policy.explore(state.memory, parted(draws)[0])
        return action, state.replace(memory=memory)

    return act, explore


def keeping(params: Params, names: Collection[str], hyper: Hyper) -> Params:
    """Parameters with hyperparameters beside them, float32 ``[]``, if there are any to keep."""
    kept = {name: jnp.asarray(getattr(hyper, name), jnp.float32) for name in sorted(names)}
    return {**params, "kept": kept} if kept else params
