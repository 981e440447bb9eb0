"""Maxmin DQN: N estimates of every value, of which the least counts, so that few are too high.

Source: Lan, Pan, Fyshe and White 2020. A next action is worth the least of its N estimates, and an
update teaches one of them, drawn by chance. More estimates mean lower values: with one it is DQN.
Differences: the estimates are heads of one network (there: a network each).
"""

import jax
import jax.numpy as jnp

from dqx.agents import BASIC, Variant, kit, register
from dqx.core import losses
from dqx.core.agent import Agent, Spec
from dqx.core.types import Array, Key, Transition
from dqx.settings import Config, Hyper, own_setting


def build(config: Config, spec: Spec) -> Agent:
    """The agent; see `kit.value_agent` for what is raised."""
    size = config.num_estimates
    scale = losses.rescaling(config.value_rescaling)

    def learn_draws(key: Key) -> Array:
        """The estimate that the update teaches, int32 ``[B]``, all the same."""
        return jnp.broadcast_to(jax.random.randint(key, (), 0, size), (config.batch_size,))

    def loss(
        outputs: kit.Outputs, step: Transition, hyper: Hyper, taught: Array
    ) -> tuple[Array, Array]:
        assert outputs.next_target is not None and outputs.weight is not None  # named in `reads`
        error = losses.expected_q_learning(
            losses.chosen(outputs.now.T, taught), step.action, step.reward, step.discount,
            jnp.min(outputs.next_target, axis=-1), outputs.weight, scale,
        )  # fmt: skip
        return kit.scalar_loss(config, spec, error, hyper), error

    return kit.value_agent(
        config,
        spec,
        loss,
        reads=("next_target", "weight"),
        values=lambda outputs: scale.inverse(jnp.min(outputs, axis=-1)),
        learn_draws=learn_draws,
        shape=(size,),
    )


register(
    Variant(
        "maxmin",
        build,
        has=(*BASIC, "target rule", "rescaled values"),
        settings=[own_setting("num_estimates", 2, "estimates of which the least counts", low=1)],
        about="the least of several estimates of every value",
    )
)
