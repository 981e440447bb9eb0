"""PQN: parallel environments, lambda returns and layer norm, no replay and no target network.

A round of ``train_period`` steps is learned from in batches of ``batch_size``, in as many epochs as
``updates_per_train`` makes; `dqx.core.rollout` is its loop.

Source: Gallici et al. 2025.
"""

import functools

import jax
import jax.numpy as jnp

from dqx.agents import Variant, kit, register
from dqx.core import losses
from dqx.core.agent import Agent, AgentState, Now, Spec
from dqx.core.returns import lambda_returns
from dqx.core.types import Array, PyTree, Transition
from dqx.settings import Config, ConfigError, Hyper, own_setting

# A round's observations of up to so many numbers are valued in one pass; more go batch by batch,
# so that what convolutions make of them stays in a cache. Measured: 0.7 of a round on Breakout.
_WHOLE_TO = 2**18


def build(config: Config, spec: Spec) -> Agent:
    """The agent; see `kit.value_agent` for what is raised."""
    scale = losses.rescaling(config.value_rescaling)

    def loss(
        outputs: kit.Outputs, step: Transition, hyper: Hyper, draws: PyTree
    ) -> tuple[Array, Array]:
        error = losses.known_return(outputs.now, step.action, step.reward)
        return kit.scalar_loss(config, spec, error, hyper), error

    agent = kit.value_agent(config, spec, loss, reads=(), values=scale.inverse)

    def targets(state: AgentState, steps: Transition, continues: Array, now: Now) -> Array:
        """Lambda returns ``[T, E]``, in which the largest Q-value follows each step."""

        def largest(obs: Array) -> Array:
            return jnp.max(agent.q_values(state.params, obs), axis=1)

        obs = steps.next_obs.reshape(-1, *spec.obs_shape)
        if obs.size > _WHOLE_TO:
            batches = obs.reshape(-1, config.batch_size, *spec.obs_shape)
            value = jax.lax.map(largest, batches)
        else:
            value = largest(obs)
        steps = kit.as_learned(steps, now.hyper)
        of_one = functools.partial(lambda_returns, lambda_=now.hyper.td_lambda)
        of_all = jax.vmap(of_one, in_axes=1, out_axes=1)
        value = value.reshape(continues.shape)
        return scale.h(of_all(steps.reward, steps.discount, value, continues))

    return agent._replace(targets=targets)


def check(config: Config, hyper: Hyper) -> None:
    """Refuses rounds that are no equal batches, or updates that are no whole epochs.

    Raises:
        ConfigError: naming the sizes and the nearest that would do.
    """
    period, size, updates = config.train_period, config.batch_size, config.updates_per_train
    if period % size:
        raise ConfigError(
            f"agent pqn learns from a round's transitions in equal batches, and train_period "
            f"{period} is no multiple of batch_size {size}: set train_period = "
            f"{-(-period // size) * size}, or another batch_size"
        )
    batches = period // size
    if updates % batches:
        raise ConfigError(
            f"agent pqn learns from a round in whole epochs, each of train_period / batch_size = "
            f"{batches} updates, and updates_per_train {updates} is no multiple of that: set "
            f"updates_per_train = {-(-updates // batches) * batches}"
        )


td_lambda = own_setting(
    "td_lambda",
    0.65,
    "share of the next step's own return in the target, beside its largest Q-value",
    traced=True,
    low=0,
    high=1,
)
register(
    Variant(
        "pqn",
        build,
        has=(
            "network",
            "gradient",
            "scalar target",
            "TD error",
            "Huber delta",
            "rollout",
            "rescaled values",
        ),
        settings=[td_lambda],
        about="a network trained towards lambda returns of each round, without replay or target "
        "network",
        check=check,
    )
)
