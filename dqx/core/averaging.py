"""An agent that keeps a running average of its parameters, and is judged by it.

Gradients move the newest parameters, the target network follows these, and the optimizer knows no
others. The average lies beside them, so that whoever has the one has the other: a stored agent is
the one that was evaluated.

Source: Polyak and Juditsky 1992, of the mean of all; with a decay, as evaluated by Lillicrap et al.
2016 (there of a target network) and Izmailov et al. 2018 (of points of one path).
"""

import jax
import jax.numpy as jnp

from dqx.core.agent import Agent, AgentState, Learned, Now
from dqx.core.types import Array, Batch, Params, PyTree, Transition
from dqx.settings import Hyper


def averaging(agent: Agent, *, acting: bool) -> Agent:
    """An agent around another one, whose Q-values are those of averaged parameters.

    Its parameters are ``{"newest": the other's, "average": of the same shapes}``.

    Args:
        agent: the one inside, which learns as it would alone.
        acting: whether actions in training come from the average as well.
    """

    def around(state: AgentState) -> AgentState:
        return _outer(state, jax.tree.map(jnp.copy, state.params))

    def act(state: AgentState, obs: Array, draws: PyTree, now: Now) -> tuple[Array, AgentState]:
        action, inner = agent.act(_inner(state, "average" if acting else "newest"), obs, draws, now)
        return action, inner.replace(params=state.params)

    def explore(state: AgentState, draws: PyTree) -> tuple[Array, AgentState]:
        action, inner = agent.explore(_inner(state), draws)
        return action, inner.replace(params=state.params)

    def learn(
        state: AgentState, batch: Batch, draws: PyTree, now: Now, sync: Array
    ) -> tuple[AgentState, Learned]:
        inner, learned = agent.learn(_inner(state), batch, draws, now, sync)
        share = share_of_newest(now.hyper.average_decay, now.updates)
        return _outer(inner, moved(state.params["average"], inner.params, share)), learned

    def begin(state: AgentState, hyper: Hyper) -> AgentState:
        assert agent.begin is not None
        return around(agent.begin(_inner(state), hyper))

    def see(state: AgentState, obs: Array) -> AgentState:
        assert agent.see is not None
        return _outer(agent.see(_inner(state), obs), state.params["average"])

    def targets(state: AgentState, steps: Transition, continues: Array, now: Now) -> Array:
        assert agent.targets is not None
        return agent.targets(_inner(state), steps, continues, now)

    return agent._replace(
        init=lambda key: around(agent.init(key)),
        act=act,
        explore=explore,
        learn=learn,
        q_values=lambda params, obs: agent.q_values(params["average"], obs),
        see=None if agent.see is None else see,
        begin=None if agent.begin is None else begin,
        insight=agent.insight.of_inner(lambda params, obs: (params["newest"], obs)),
        targets=None if agent.targets is None else targets,
    )


def share_of_newest(decay: Array | float, updates: Array) -> Array:
    """How much the parameters after an update count in the average, float32 ``[]``.

    With it the average is the plain mean of what all updates gave, until ``1 / (1 - decay)`` of
    them are done; so the parameters before the first never count.

    Args:
        decay: float32 ``[]``, what is kept of the average in an update later on.
        updates: int32 ``[]``, before this one.
    """
    return jnp.maximum(1.0 - decay, 1.0 / (updates.astype(jnp.float32) + 1.0))


def moved(average: Params, newest: Params, share: Array) -> Params:
    """The average, moved towards the newest by a share of the way."""
    return jax.tree.map(lambda mean, new: mean + share * (new - mean), average, newest)


def _inner(state: AgentState, which: str = "newest") -> AgentState:
    return state.replace(params=state.params[which])


def _outer(state: AgentState, average: Params) -> AgentState:
    return state.replace(params={"newest": state.params, "average": average})
