"""An agent that sees observations less their mean and over their standard deviation.

Both are those of all observations that it has acted on in training. They lie beside the network's
parameters, so that whoever has the one has the other, and stand still wherever nothing is trained.
The replay keeps what the environment gave.
"""

from collections.abc import Callable

import jax.numpy as jnp

from dqx.core.agent import Agent, AgentState, Learned, Now, Spec
from dqx.core.types import Array, Batch, Key, Params, PyTree, Transition
from dqx.settings import ConfigError, Hyper

# The largest magnitude that the agent sees; and what keeps a number that never changes finite.
_LIMIT, _LEAST_VARIANCE = 10.0, 1e-8

# Of every number of an observation: how often it was seen, int32 []; mean and variance, float32.
Moments = dict[str, Array]


def normalizing(build: Callable[[Spec], Agent], spec: Spec) -> Agent:
    """An agent around another one, which learns from normalised observations.

    Its parameters are ``{"network": the other's, "observations": Moments}``. What the target
    network sees is normalised alike.

    Args:
        build: of the agent inside, for observations that are float32.
        spec: of the environments.

    Raises:
        ConfigError: if observations are category numbers or uint8 frames, or as ``build`` does.
    """
    _check(spec)
    agent = build(spec._replace(obs_dtype=jnp.dtype("float32")))

    def init(key: Key) -> AgentState:
        return _outer(agent.init(key), no_moments(spec.obs_shape))

    def see(state: AgentState, obs: Array) -> AgentState:
        moments = seen(state.params["observations"], obs)
        return state.replace(params={**state.params, "observations": moments})

    def act(state: AgentState, obs: Array, draws: PyTree, now: Now) -> tuple[Array, AgentState]:
        moments = state.params["observations"]
        action, inner = agent.act(_inner(state), normalized(moments, obs), draws, now)
        return action, _outer(inner, moments)

    def explore(state: AgentState, draws: PyTree) -> tuple[Array, AgentState]:
        action, inner = agent.explore(_inner(state), draws)
        return action, _outer(inner, state.params["observations"])

    def learn(
        state: AgentState, batch: Batch, draws: PyTree, now: Now, sync: Array
    ) -> tuple[AgentState, Learned]:
        moments, steps = state.params["observations"], batch.steps
        steps = steps._replace(
            obs=normalized(moments, steps.obs), next_obs=normalized(moments, steps.next_obs)
        )
        inner, learned = agent.learn(_inner(state), batch._replace(steps=steps), draws, now, sync)
        return _outer(inner, moments), learned

    def targets(state: AgentState, steps: Transition, continues: Array, now: Now) -> Array:
        assert agent.targets is not None
        moments = state.params["observations"]
        steps = steps._replace(
            obs=normalized(moments, steps.obs), next_obs=normalized(moments, steps.next_obs)
        )
        return agent.targets(_inner(state), steps, continues, now)

    def q_values(params: Params, obs: Array) -> Array:
        return agent.q_values(params["network"], normalized(params["observations"], obs))

    def begin(state: AgentState, hyper: Hyper) -> AgentState:
        assert agent.begin is not None
        return _outer(agent.begin(_inner(state), hyper), state.params["observations"])

    return agent._replace(
        init=init,
        act=act,
        explore=explore,
        learn=learn,
        q_values=q_values,
        see=see,
        begin=None if agent.begin is None else begin,
        insight=agent.insight.of_inner(
            lambda params, obs: (params["network"], normalized(params["observations"], obs))
        ),
        targets=None if agent.targets is None else targets,
    )


def no_moments(shape: tuple[int, ...]) -> Moments:
    """Those of nothing, which leave an observation as it is."""
    mean, variance = jnp.zeros(shape, jnp.float32), jnp.ones(shape, jnp.float32)
    return {"count": jnp.int32(0), "mean": mean, "variance": variance}


def seen(moments: Moments, obs: Array) -> Moments:
    """Moments of all that they are of and of ``obs [E, ...]``.

    Source: Chan, Golub and LeVeque 1979, equations 2.1; the variance in place of the sum of
    squares, which would outgrow float32.
    """
    count = moments["count"] + obs.shape[0]
    share = obs.shape[0] / count.astype(jnp.float32)
    obs = obs.astype(jnp.float32)
    difference = jnp.mean(obs, axis=0) - moments["mean"]
    spread = jnp.var(obs, axis=0) + (1 - share) * jnp.square(difference)
    return {
        "count": count,
        "mean": moments["mean"] + share * difference,
        "variance": moments["variance"] + share * (spread - moments["variance"]),
    }


def normalized(moments: Moments, obs: Array) -> Array:
    """Observations ``[B, ...]`` as the agent sees them, float32 within 10 of 0."""
    difference = obs.astype(jnp.float32) - moments["mean"]
    deviation = jnp.sqrt(moments["variance"] + _LEAST_VARIANCE)
    return jnp.clip(difference / deviation, -_LIMIT, _LIMIT)


def _inner(state: AgentState) -> AgentState:
    return state.replace(params=state.params["network"])


def _outer(state: AgentState, moments: Moments) -> AgentState:
    return state.replace(params={"network": state.params, "observations": moments})


def _check(spec: Spec) -> None:
    if spec.num_categories is not None:
        raise ConfigError(
            f"normalize_observations takes arrays of numbers, and {spec.name} gives category "
            "numbers: leave it at false"
        )
    if spec.obs_dtype == jnp.uint8:
        raise ConfigError(
            f"normalize_observations takes arrays of numbers, and {spec.name} gives uint8 frames: "
            "leave it at false and set scale_pixels = true"
        )
