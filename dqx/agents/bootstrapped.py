"""Bootstrapped DQN: K heads on one torso, each acting for whole episodes and learning from a share.

Source: Osband et al. 2016. A head has a target of its own; a mask, drawn once a transition, says
whether it learns from it. Differences: gradients of heads are divided by K too (there: the torso's
alone); evaluations take the mean of their Q-values (there: votes).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dqx.agents import BASIC, Variant, kit, register
from dqx.agents.kit.policies import Policy, make_policy
from dqx.core import losses
from dqx.core.agent import Agent, Now, Spec
from dqx.core.types import Array, Key, PyTree, Transition
from dqx.settings import Config, ConfigError, Hyper, own_setting


class Heads(NamedTuple):
    """By which heads environments act, int32 ``[E]``; and what the policy keeps or draws."""

    policy: PyTree
    head: Array


def build(config: Config, spec: Spec) -> Agent:
    """The agent; see `kit.value_agent` for what is raised."""
    scale = losses.rescaling(config.value_rescaling)

    def loss(
        outputs: kit.Outputs, step: Transition, hyper: Hyper, draws: PyTree
    ) -> tuple[Array, Array]:
        following, weight, key = outputs.next_target, outputs.weight, outputs.key
        assert not (following is None or weight is None or key is None)  # named in `reads`
        of_head = functools.partial(losses.expected_q_learning, scale=scale)
        errors = jax.vmap(of_head, (1, None, 0, None, 1, 1))(
            outputs.now, step.action, step.reward, step.discount, following, weight
        )
        mask = jax.random.bernoulli(key, hyper.mask_probability, errors.shape)
        each = jax.vmap(lambda error: kit.scalar_loss(config, spec, error, hyper))(errors)
        return jnp.mean(jnp.where(mask, each, 0.0)), jnp.mean(jnp.abs(errors))

    return kit.value_agent(
        config, spec, loss,
        reads=("next_target", "weight", "key"),
        values=lambda outputs: jnp.mean(scale.inverse(outputs), axis=-1),
        shape=(config.num_heads,),
        policy=by_heads(make_policy(config, spec), config.num_heads, spec.num_envs),
        estimates=scale.inverse,
    )  # fmt: skip


def by_heads(policy: Policy, num_heads: int, num_envs: int) -> Policy:
    """A policy of ``[E, A, K]`` Q-values: each environment draws a head when an episode begins."""

    def draws(key: Key) -> Heads:
        key, own = jax.random.split(key)
        return Heads(policy.draws(key), jax.random.randint(own, (num_envs,), 0, num_heads))

    def choose(q: Array, memory: Heads, drawn: Heads, now: Now) -> tuple[Array, Heads]:
        assert now.ages is not None, "give the ages of episodes"
        head = jnp.where(now.ages == 0, drawn.head, memory.head)
        own = jax.vmap(lambda q, head: losses.chosen(q.T, head))(q, head)
        action, kept = policy.choose(own, memory.policy, drawn.policy, now)
        return action, Heads(kept, head)

    def explore(memory: Heads, drawn: Heads) -> tuple[Array, Heads]:
        action, kept = policy.explore(memory.policy, drawn.policy)
        return action, Heads(kept, drawn.head)  # so that learning begins with heads by chance

    def memory() -> Heads:
        return Heads(policy.memory(), jnp.zeros(num_envs, jnp.int32))

    return Policy(memory, draws, choose, explore, policy.status)


def check(config: Config, hyper: Hyper) -> None:
    """Refuses a target that all heads would share."""
    if config.target == "clipped_double":
        raise ConfigError("target = clipped_double ties heads that learn apart: choose another")


SHARE = "share of transitions that a head learns from"
register(
    Variant(
        "bootstrapped",
        build,
        has=(*BASIC, "target rule", "rescaled values"),
        settings=[
            own_setting("num_heads", 10, "heads that learn and act", low=1),
            own_setting("mask_probability", 0.5, SHARE, traced=True, above=0, high=1),
        ],
        about="heads that explore by acting for whole episodes",
        check=check,
    )
)
