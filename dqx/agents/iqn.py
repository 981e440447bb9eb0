"""IQN: the quantile of the return at any level, which the network takes as an input.

Source: Dabney, Ostrovski, Silver and Munos 2018. Differences: the embedding of levels multiplies
the features of the last hidden layer (there: those before it), so that a level more costs little;
Q-values are means over fixed, even levels (there: over random ones), so that they are the same
whoever asks; the loss is not divided by kappa, as QR-DQN's is not. Under a target rule that weighs
several next actions, the target's quantiles are weighted means of theirs.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dqx.agents import DEFAULT, Variant, kit, register
from dqx.core import distributional
from dqx.core.agent import Agent, Spec
from dqx.core.types import Array, Key, Transition
from dqx.settings import Config, Hyper, own_setting


class Levels(NamedTuple):
    """Quantile levels of one update, uniform in [0, 1): float32 ``[B, N]`` and ``[B, N']``."""

    now: Array
    following: Array


def build(config: Config, spec: Spec) -> Agent:
    """The agent; see `kit.value_agent` for what is raised."""
    even = distributional.midpoints(config.num_value_levels)

    def learn_draws(key: Key) -> Levels:
        counts = (config.num_levels, config.num_target_levels)
        keys = jax.random.split(key)
        return Levels(
            *(
                jax.random.uniform(k, (config.batch_size, n))
                for k, n in zip(keys, counts, strict=True)
            )
        )

    def inputs(name: str, draws: Levels | None) -> dict[str, Any]:
        """The levels that a network takes; the mean over the fixed ones comes last."""
        if draws is None:
            return {"levels": {"fixed": even}}
        return {"levels": {"fixed": even, "drawn": draws.now if name == "now" else draws.following}}

    def loss(
        outputs: kit.Outputs, step: Transition, hyper: Hyper, draws: Levels
    ) -> tuple[Array, ...]:
        assert outputs.next_target is not None and outputs.weight is not None  # as `reads` says
        following = distributional.weighted(outputs.next_target, outputs.weight)[
            : draws.following.size
        ]
        targets = step.reward + step.discount * following
        quantiles = distributional.chosen(outputs.now, step.action)[: draws.now.size]
        value = distributional.quantile_huber(quantiles, draws.now, targets, hyper.huber_delta)
        return value, jnp.mean(targets) - jnp.mean(quantiles), value

    return kit.value_agent(
        config,
        spec,
        loss,
        reads=("next_target", "weight"),
        values=lambda quantiles: quantiles[..., -1],
        learn_draws=learn_draws,
        cosines=config.num_cosines,
        inputs=inputs,
    )


SETTINGS = (
    own_setting("num_levels", 8, "random quantile levels of the prediction (N)", low=1),
    own_setting("num_target_levels", 8, "random quantile levels of the target (N')", low=1),
    own_setting("num_value_levels", 32, "even quantile levels that Q-values are means of", low=1),
    own_setting("num_cosines", 64, "cosines that embed a quantile level", low=1),
)
register(
    Variant(
        "iqn",
        build,
        has=(*DEFAULT, "target rule", "Huber delta"),
        settings=SETTINGS,
        about="quantiles of returns at levels that the network takes as an input",
    )
)
