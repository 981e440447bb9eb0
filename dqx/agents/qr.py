"""QR-DQN: the distribution of returns by its quantiles at fixed levels.

Source: Dabney, Rowland, Bellemare and Munos 2018 (QR-DQN-1 with a ``huber_delta`` of 1). Under a
target rule that weighs several next actions, the target's quantiles are weighted means of theirs.
A monotone function of returns has the function of their quantiles, so that these may be rescaled.
"""

import jax.numpy as jnp

from dqx.agents import DEFAULT, Variant, kit, register
from dqx.core import distributional, losses
from dqx.core.agent import Agent, Spec
from dqx.core.types import Array, PyTree, Transition
from dqx.settings import Config, Hyper, own_setting


def build(config: Config, spec: Spec) -> Agent:
    """The agent; see `kit.value_agent` for what is raised."""
    size, scale = config.num_quantiles, losses.rescaling(config.value_rescaling)

    def loss(
        outputs: kit.Outputs, step: Transition, hyper: Hyper, draws: PyTree
    ) -> tuple[Array, ...]:
        assert outputs.next_target is not None and outputs.weight is not None  # as `reads` says
        following = distributional.weighted(scale.inverse(outputs.next_target), outputs.weight)
        targets = scale.h(step.reward + step.discount * following)
        quantiles = distributional.chosen(outputs.now, step.action)
        levels = distributional.midpoints(size)
        value = distributional.quantile_huber(quantiles, levels, targets, hyper.huber_delta)
        return value, jnp.mean(targets) - jnp.mean(quantiles), value

    return kit.value_agent(
        config,
        spec,
        loss,
        reads=("next_target", "weight"),
        values=lambda quantiles: jnp.mean(scale.inverse(quantiles), axis=-1),
        shape=(size,),
    )


register(
    Variant(
        "qr",
        build,
        has=(*DEFAULT, "target rule", "Huber delta", "rescaled values"),
        settings=[
            own_setting("num_quantiles", 50, "quantiles of the return, at even levels", low=1)
        ],
        about="quantiles of returns at fixed levels",
    )
)
