"""What agents share: acting by a policy, and learning by gradients towards a target network.

A variant is a loss of one transition. `value_agent` makes an agent of it: gradient, clipping,
optimizer, target network, metrics, and the vmap over the batch.
"""

import functools
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dqx.agents.kit.network import Net, keeping, make_acting, make_net
from dqx.agents.kit.noise import PASSES, parted, with_noise, with_rows_of_noise
from dqx.agents.kit.optimizers import follow, global_norm, make_optimizer
from dqx.agents.kit.policies import Policy, epsilon_at, make_policy
from dqx.core import losses
from dqx.core.agent import Agent, AgentState, Insight, Learned, Metric, Now, Spec
from dqx.core.convolution import TORSOS, seed_by_seed
from dqx.core.networks import check_observations
from dqx.core.noise import with_sigma
from dqx.core.returns import folded
from dqx.core.targets import QValues, Rule, make_rule
from dqx.core.types import Array, Batch, Key, Params, PyTree, Transition
from dqx.settings import Config, Hyper

# How the numbers of value-based agents are shown in a row.
METRICS = {
    "loss": Metric(),  # the mean over the batch
    "q_mean": Metric(),  # of the actions taken in the batch
    "q_max": Metric("max"),  # in the batch, over all actions
    "td_error_abs": Metric(),  # the mean magnitude before any clipping
    "grad_norm": Metric(),  # global, before clipping; NaN where there is no gradient
    "weight_norm": Metric("last"),  # global, after the update
    # Of a ladder the largest, the first environment's; NaN for a policy without one.
    "epsilon": Metric("now", before=1.0),
}


# Of the online parameters from the target's before these follow; where diagnostics ask for it.
DISTANCE = {"target_distance": Metric()}


class Outputs(NamedTuple):
    """What networks say of one transition, each ``[A, ...]`` as the network gives it.

    Attributes:
        now: the online network of ``obs``.
        next_target: the target network of ``next_obs``.
        next_online: the online network of ``next_obs``, without gradient.
        now_target: the target network of ``obs``.
        weight: float32 ``[A]``, how much each action of ``next_obs`` counts by the target rule;
            with sum 1.
        key: of the transition, the same whenever it is sampled.

    All but the first are computed only where a variant reads them; else they are None.
    """

    now: Array
    next_target: Array | None = None
    next_online: Array | None = None
    now_target: Array | None = None
    weight: Array | None = None
    key: Key | None = None


# ``loss(outputs, step, hyper, draws)`` of one transition: its value and its TD error, both float32
# ``[]``; and its priority for a sampler that asks, where that is not the error's magnitude.
# ``step`` has its reward scaled and clipped, and gamma multiplied into its discount; what the
# target rule adds to the target is in its reward; where the batch has targets, that is one.
Loss = Callable[[Outputs, Transition, Hyper, PyTree], tuple[Array, ...]]


def value_agent(
    config: Config,
    spec: Spec,
    loss: Loss,
    *,
    reads: Collection[str] = ("next_target",),
    values: Callable[..., Array] = lambda outputs: outputs,
    learn_draws: Callable[[Key], PyTree] = lambda key: (),
    shape: tuple[int, ...] = (),
    cosines: int = 0,
    inputs: Callable[[str, PyTree], dict[str, Any]] = lambda name, draws: {},
    kept: Collection[str] = (),
    policy: Policy | None = None,
    estimates: Callable[[Array], Array] | None = None,
) -> Agent:
    """An agent that trains the network of ``config`` by the gradient of a loss.

    Args:
        config: validated.
        spec: of the environments.
        loss: of one transition; the caller's part.
        reads: those of `Outputs` beside ``now`` that the loss reads; an agent that reads no target
            network has none.
        values: ``values(outputs [B, A, ...], **kept)``: the Q-values ``[B, A]`` in what the network
            gives.
        learn_draws: ``learn_draws(key)``: random numbers of one update, leading axis ``[B]``.
        shape: of what the network gives an action.
        cosines: of its embedding of quantile levels, which ``inputs`` gives; 0 without such.
        inputs: ``inputs(name, draws)``: what the network takes beside parameters and observations,
            collections by name; ``name`` is that of a network's output in `Outputs`, ``draws`` of
            the update, None when acting.
        kept: hyperparameters that ``values`` takes, by name. They are kept beside the parameters,
            so that whoever has these can tell Q-values.
        policy: that acts, if not the one that ``config`` names.
        estimates: ``estimates(outputs [B, A, ...])``: Q-values ``[B, A, K]`` of K estimates, if the
            policy chooses by one of them and each has a target of its own. Weights of next actions
            then are ``[A, K]``, and rewards with what the target rule adds ``[K]``.

    Raises:
        ConfigError: if the network cannot take the observations.
    """
    check_observations(config, spec)
    rule, policy = make_rule(config), policy or make_policy(config, spec)
    shape = shape if rule.heads == 1 else (rule.heads, *shape)
    net = make_net(config, spec, rule.heads, shape, cosines, values, estimates, inputs, kept)
    ruled = rule.reads if "weight" in reads else ()
    needed = ("now", *(n for n in PASSES[1:] if n in reads or n in ruled))
    batch_loss = _make_batch_loss(config, rule, net, needed, loss, reads, inputs)

    has_target = bool({"next_target", "now_target"} & set(needed))

    def init(key: Key) -> AgentState:
        params = net.init(key)
        opt_state = make_optimizer(config, Hyper(), jnp.int32(0)).init(params)
        return AgentState(params, target_of(params), opt_state, policy.memory())

    def target_of(params: Params) -> Params:
        """The target network at the start, nothing where none is read."""
        return jax.tree.map(jnp.copy, params) if has_target else {}

    def begin(state: AgentState, hyper: Hyper) -> AgentState:
        params = keeping(state.params, kept, hyper)
        params = with_sigma(params, hyper.noisy_sigma) if net.noise_size else params
        return state.replace(params=params, target_params=target_of(params))

    act, explore = make_acting(net, policy)
    return Agent(
        init=init,
        act_draws=with_rows_of_noise(policy.draws, net.noise_size, spec.num_envs),
        act=act,
        explore=explore,
        learn_draws=with_noise(learn_draws, net.noise_size, needed),
        learn=_make_learn(config, batch_loss),
        q_values=lambda params, obs: net.first(net.forward(params, obs), params),
        status=policy.status,
        metrics={**METRICS, **(DISTANCE if _tells_distance(config) else {})},
        begin=begin if kept or net.noise_size else None,
        insight=Insight(net.units, net.features),
    )


# ``batch_loss(params, target_params, now, batch, draws)``: the mean loss; beside it errors ``[B]``,
# priorities ``[B]`` and Q-values ``[B, A]``.
_BatchLoss = Callable[..., tuple[Array, tuple[Array, Array, Array]]]


def _make_batch_loss(
    config: Config,
    rule: Rule,
    net: Net,
    needed: Collection[str],
    loss: Loss,
    reads: Collection[str],
    inputs: Callable[[str, PyTree], dict[str, Any]],
) -> _BatchLoss:
    def said(
        params: Params, target_params: Params, batch: Batch, draws: PyTree, noise: Any
    ) -> dict[str, Array]:
        """The outputs of the networks that are needed, by their names in `Outputs`."""
        fixed = jax.lax.stop_gradient(params)
        given = {
            "now": (params, batch.steps.obs),
            "next_target": (target_params, batch.steps.next_obs),
            "next_online": (fixed, batch.steps.next_obs),
            "now_target": (target_params, batch.steps.obs),
        }
        noise = noise or dict.fromkeys(given)
        return {n: net.forward(*given[n], noise[n], inputs(n, draws)) for n in needed}

    def batch_loss(
        params: Params, target_params: Params, now: Now, batch: Batch, draws: PyTree
    ) -> tuple[Array, tuple[Array, Array, Array]]:
        draws, noise = parted(draws)
        fixed = jax.lax.stop_gradient(params)
        if batch.target is None:
            steps = as_learned(batch.steps, now.hyper, batch.lengths)
        else:
            steps = batch.steps._replace(reward=batch.target)
        found = said(params, target_params, batch, draws, noise)
        outputs = Outputs(**{name: x for name, x in found.items() if name in ("now", *reads)})
        if "weight" in reads:
            q = QValues(**{name: net.followed(found[name], fixed) for name in rule.reads})
            weigh = functools.partial(_weigh, rule, now.hyper, epsilon_at(config, now))
            weight, steps = jax.vmap(weigh)(q, steps)
            outputs = outputs._replace(weight=weight)
        if "key" in reads:
            outputs = outputs._replace(key=batch.keys)
        one = functools.partial(_of_one, loss, now.hyper)
        if rule.heads > 1:
            one = functools.partial(_of_heads, one, lambda x: net.values(x, fixed))
        each, errors, priority = jax.vmap(one)(outputs, steps, draws)
        each = each if batch.weight is None else each * batch.weight
        return jnp.mean(each), (errors, priority, net.first(found["now"], fixed))

    return batch_loss


def _make_learn(config: Config, batch_loss: _BatchLoss) -> Callable[..., Any]:
    gradient = jax.value_and_grad(batch_loss, has_aux=True)
    if config.network in TORSOS and config.convolution == "blocks":
        gradient = seed_by_seed(gradient)

    def learn(
        state: AgentState, batch: Batch, draws: PyTree, now: Now, sync: Array
    ) -> tuple[AgentState, Learned]:
        (loss, (errors, priority, q)), grads = gradient(
            state.params, state.target_params, now, batch, draws
        )
        behind = state.target_params
        state, grad_norm = follow(config, state, grads, now, sync)
        taken = jnp.take_along_axis(q, batch.steps.action[:, None], axis=1)
        metrics = {
            "loss": loss,
            "q_mean": jnp.mean(taken),
            "q_max": jnp.max(q),
            "td_error_abs": jnp.mean(jnp.abs(errors)),
            "grad_norm": grad_norm,
            "weight_norm": global_norm(state.params["params"]),
        }
        if _tells_distance(config):
            apart = jax.tree.map(jnp.subtract, state.params["params"], behind["params"])
            metrics["target_distance"] = global_norm(apart)
        return state, Learned(metrics, priority)

    return learn


def scalar_loss(config: Config, spec: Spec, error: Array, hyper: Hyper) -> Array:
    """The loss of a TD error that ``config`` names, float32 ``[]``."""
    clipped = losses.clip_td_error(error, hyper.td_error_clip)
    if config.loss == "huber":
        return losses.huber(clipped, hyper.huber_delta)
    value = losses.squared(clipped)
    # Keras averages over the Q-vector, whose other entries equal their own predictions.
    return value / spec.num_actions if config.loss == "keras_mse" else value


def _tells_distance(config: Config) -> bool:
    return "target_distance" in config.diagnostics


def _weigh(
    rule: Rule, hyper: Hyper, epsilon: Array, q_values: QValues, step: Transition
) -> tuple[Array, Transition]:
    """The next actions' weights, and the transition with what the rule adds to its reward."""

    def weigh(q_values: QValues) -> tuple[Array, Array | None]:
        return rule.weigh(q_values, step, hyper, epsilon)

    shape = jax.tree.leaves(q_values)[0].shape[1:]  # of estimates, if there are several
    weight, bonus = (jax.vmap(weigh, -1, -1) if shape else weigh)(q_values)
    step = step._replace(reward=jnp.broadcast_to(step.reward, shape))
    return weight, step if bonus is None else step._replace(reward=step.reward + bonus)


def _of_one(
    loss: Loss, hyper: Hyper, outputs: Outputs, step: Transition, draws: PyTree
) -> tuple[Array, Array, Array]:
    """The loss, the TD error and the priority."""
    value, error, *priority = loss(outputs, step, hyper, draws)
    return value, error, priority[0] if priority else jnp.abs(error)


def _of_heads(
    one: Callable[[Outputs, Transition, PyTree], tuple[Array, Array, Array]],
    values: Callable[[Array], Array],
    outputs: Outputs,
    step: Transition,
    draws: PyTree,
) -> tuple[Array, Array, Array]:
    """The sum of the losses of heads ``[A, H, ...]``, the mean magnitude of errors, and priority.

    All have one target: that of the head which values what follows the least.
    """
    assert outputs.next_target is not None and outputs.weight is not None
    heads = jnp.moveaxis(outputs.next_target, 1, 0)
    lowest = jnp.argmin(losses.weighted(values(heads).T, outputs.weight))
    chosen = {"next_target": heads[lowest]}
    for name in ("next_online", "now_target"):
        other = getattr(outputs, name)
        if other is not None:
            chosen[name] = other[:, 0]
    found = [
        one(outputs._replace(now=outputs.now[:, head], **chosen), step, draws)
        for head in range(heads.shape[0])
    ]
    each, errors, priority = (jnp.stack(values) for values in zip(*found, strict=True))
    return jnp.sum(each), jnp.mean(jnp.abs(errors)), jnp.mean(priority)


def as_learned(steps: Transition, hyper: Hyper, lengths: Array | None = None) -> Transition:
    """Transitions with rewards scaled and then clipped, and gamma multiplied into discounts.

    Those of several steps, as a `Batch` holds them, become single ones: their return, and the
    discount of what follows it.
    """
    reward = jnp.clip(hyper.reward_scale * steps.reward, -hyper.reward_clip, hyper.reward_clip)
    if lengths is None:
        return steps._replace(reward=reward, discount=hyper.gamma * steps.discount)
    of_one = functools.partial(folded, gamma=hyper.gamma)
    reward, discount = jax.vmap(of_one)(reward, steps.discount, lengths)
    return steps._replace(reward=reward, discount=discount)
