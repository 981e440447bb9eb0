"""Tabular Q-learning: a table of values, updated from one transition after another.

Source: Watkins and Dayan 1992.
"""

import jax.numpy as jnp

from dqx.agents import Variant, kit, register
from dqx.agents.kit import optimizers, policies
from dqx.core import exploration, tabular
from dqx.core.agent import Agent, AgentState, Learned, Now, Spec
from dqx.core.types import Array, Batch, Key, Params, PyTree
from dqx.settings import Config, ConfigError


def build(config: Config, spec: Spec) -> Agent:
    """The agent; its optimizer's state is the count of visits, int32 ``[N, A]``.

    Raises:
        ConfigError: if observations are no category numbers, or too many.
    """
    _check(spec)
    assert spec.num_categories is not None
    network = tabular.Table(spec.num_actions, spec.num_categories, config.initial_q)
    policy = policies.make_policy(config, spec)

    def init(key: Key) -> AgentState:
        params = network.init(key, jnp.zeros((1, *spec.obs_shape), spec.obs_dtype))
        visits = jnp.zeros_like(params["params"]["table"], jnp.int32)
        return AgentState(params, {}, visits, policy.memory())

    def q_values(params: Params, obs: Array) -> Array:
        q: Array = network.apply(params, obs)  # type: ignore[assignment]
        return q

    def act(
        state: AgentState, obs: Array, draws: exploration.Draw, now: Now
    ) -> tuple[Array, AgentState]:
        action, memory = policy.choose(q_values(state.params, obs), state.memory, draws, now)
        return action, state.replace(memory=memory)

    def explore(state: AgentState, draws: exploration.Draw) -> tuple[Array, AgentState]:
        action, memory = policy.explore(state.memory, draws)
        return action, state.replace(memory=memory)

    def learn(
        state: AgentState, batch: Batch, draws: PyTree, now: Now, sync: Array
    ) -> tuple[AgentState, Learned]:
        hyper, steps = now.hyper, kit.as_learned(batch.steps, now.hyper, batch.lengths)
        step_size = tabular.StepSize(
            optimizers.learning_rate_at(hyper, now.updates), hyper.visit_power, hyper.td_error_clip
        )
        table, visits, (errors, q) = tabular.q_learning(
            state.params["params"]["table"], state.opt_state, step_size, steps, batch.weight
        )
        squares = jnp.square(errors)
        params = {"params": {"table": table}}
        metrics = {
            "loss": jnp.mean(squares if batch.weight is None else squares * batch.weight),
            "q_mean": jnp.mean(jnp.take_along_axis(q, steps.action[:, None], axis=1)),
            "q_max": jnp.max(q),
            "td_error_abs": jnp.mean(jnp.abs(errors)),
            "grad_norm": jnp.float32(jnp.nan),
            "weight_norm": optimizers.global_norm(params),
        }
        return AgentState(params, {}, visits, state.memory), Learned(metrics, jnp.abs(errors))

    return Agent(
        init=init,
        act_draws=policy.draws,
        act=act,
        explore=explore,
        learn_draws=lambda key: (),
        learn=learn,
        q_values=q_values,
        status=policy.status,
        metrics=kit.METRICS,
    )


def _check(spec: Spec) -> None:
    if spec.num_categories is None:
        raise ConfigError(
            f"agent tabular needs category numbers (a Discrete observation space), and {spec.name} "
            f"gives {spec.obs_dtype} arrays of shape {list(spec.obs_shape)}: set agent = dqn"
        )
    if spec.num_categories * spec.num_actions >= 2**31:
        raise ConfigError(
            f"a table can hold fewer than 2**31 values, and {spec.name} gives category numbers "
            f"below {spec.num_categories:,} for each of {spec.num_actions} actions: set "
            "agent = dqn and network = embedding"
        )


register(
    Variant(
        "tabular", build, has=("table", "TD error"), about="a table of values, learned step by step"
    )
)
