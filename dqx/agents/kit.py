"""What agents share: acting by a policy, and learning by gradients towards a target network.

A variant is a loss of one transition. `value_agent` makes an agent of it: gradient, clipping,
optimizer, target network, metrics, and the vmap over the batch.
"""

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dqx.agents.optimizers import follow, global_norm, make_optimizer
from dqx.agents.policies import epsilon_at, make_policy
from dqx.core.agent import Agent, AgentState, Insight, Learned, Metric, Now, Spec
from dqx.core.convolution import TORSOS, seed_by_seed
from dqx.core.dense import draw_noise, hidden_units, noise_of, noise_size, with_sigma
from dqx.core.losses import clip_td_error, huber, squared, weighted
from dqx.core.networks import check_observations, make_network
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
    "epsilon": Metric("now", before=1.0),  # NaN for a policy without one
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

    All but the first are computed only where a variant reads them; else they are None.
    """

    now: Array
    next_target: Array | None = None
    next_online: Array | None = None
    now_target: Array | None = None
    weight: Array | None = None


# The fields of `Outputs` that a network computes; their order says which noise is whose.
_PASSES = ("now", "next_target", "next_online", "now_target")


class Noisy(NamedTuple):
    """Random numbers of one step or update of an agent whose network has noisy layers.

    Attributes:
        draws: what there is to draw without such layers.
        noise: of a step float32 ``[E, N]``, independent for each environment; of an update float32
            ``[N]`` for each network and observation, by its name in `Outputs`.
    """

    draws: PyTree
    noise: Any


# ``loss(outputs, step, hyper, draws)`` of one transition: its value and its TD error, both float32
# ``[]``. ``step`` has its reward scaled and clipped, and gamma multiplied into its discount; what
# the target rule adds to the target is in its reward; where the batch has targets, that is one.
Loss = Callable[[Outputs, Transition, Hyper, PyTree], tuple[Array, Array]]


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
    priorities: Callable[[Array, Array], Array] = lambda losses, errors: jnp.abs(errors),
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
        priorities: ``priorities(losses [B], errors [B])`` of transitions, before any weight.

    Raises:
        ConfigError: if the network cannot take the observations.
    """
    check_observations(config, spec)
    rule = make_rule(config)
    shape = shape if rule.heads == 1 else (rule.heads, *shape)
    network = make_network(config, spec.num_actions, spec.num_categories, shape, cosines)
    needed = {*reads, *(rule.reads if "weight" in reads else ())} - {"weight"}
    has_target = bool(needed & {"next_target", "now_target"})
    policy, is_far_told = make_policy(config, spec), "target_distance" in config.diagnostics
    example = np.zeros((1, *spec.obs_shape), spec.obs_dtype)  # nothing compiles
    size = noise_size(jax.eval_shape(network.init, jax.random.key(0), example))

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

    def init(key: Key) -> AgentState:
        params = _keeping(network.init(key, example), kept, Hyper())
        opt_state = make_optimizer(config, Hyper(), jnp.int32(0)).init(params)
        return AgentState(params, target_of(params), opt_state, policy.memory())

    def target_of(params: Params) -> Params:
        """The target network at the start, nothing where none is read."""
        return jax.tree.map(jnp.copy, params) if has_target else {}

    def values_of(outputs: Array, params: Params) -> Array:
        return values(outputs, **params.get("kept", {}))

    def of_first(outputs: Array, params: Params) -> Array:
        """The Q-values, where there are several heads those of the first."""
        return values_of(outputs if rule.heads == 1 else outputs[:, :, 0], params)

    def begin(state: AgentState, hyper: Hyper) -> AgentState:
        params = _keeping(state.params, kept, hyper)
        params = with_sigma(params, hyper.noisy_sigma) if size else params
        return state.replace(params=params, target_params=target_of(params))

    def q_values(params: Params, obs: Array) -> Array:
        return of_first(forward(params, obs), params)

    def act(state: AgentState, obs: Array, draws: PyTree, now: Now) -> tuple[Array, AgentState]:
        choice, noise = _parted(draws)
        q = of_first(forward(state.params, obs, noise), state.params)
        action, memory = policy.choose(q, state.memory, choice, now)
        return action, state.replace(memory=memory)

    def batch_loss(
        params: Params, target_params: Params, now: Now, batch: Batch, draws: PyTree
    ) -> tuple[Array, tuple[Array, Array, Array]]:
        """The mean loss; beside it errors ``[B]``, priorities ``[B]``, Q-values ``[B, A]``."""
        obs, next_obs = batch.steps.obs, batch.steps.next_obs
        draws, noise = _parted(draws)
        noise = noise or dict.fromkeys(_PASSES)
        fixed = jax.lax.stop_gradient(params)

        def output(name: str, params: Params, obs: Array) -> Array:
            return forward(params, obs, noise[name], inputs(name, draws))

        others = {
            "next_target": lambda: output("next_target", target_params, next_obs),
            "next_online": lambda: output("next_online", fixed, next_obs),
            "now_target": lambda: output("now_target", target_params, obs),
        }
        if batch.target is None:
            steps = as_learned(batch.steps, now.hyper, batch.lengths)
        else:
            steps = batch.steps._replace(reward=batch.target)
        present = output("now", params, obs)
        found = {name: others[name]() for name in others if name in needed}
        outputs = Outputs(present, **{name: found[name] for name in found if name in reads})
        if "weight" in reads:
            q = QValues(**{name: of_first(found[name], fixed) for name in rule.reads})
            weigh = functools.partial(_weigh, rule, now.hyper, epsilon_at(config, now))
            weight, steps = jax.vmap(weigh)(q, steps)
            outputs = outputs._replace(weight=weight)
        one = functools.partial(_of_one, loss, now.hyper)
        if rule.heads > 1:
            one = functools.partial(_of_heads, one, lambda x: values_of(x, fixed))
        losses, errors = jax.vmap(one)(outputs, steps, draws)
        priority = priorities(losses, errors)
        losses = losses if batch.weight is None else losses * batch.weight
        return jnp.mean(losses), (errors, priority, of_first(present, fixed))

    def learn(
        state: AgentState, batch: Batch, draws: PyTree, now: Now, sync: Array
    ) -> tuple[AgentState, Learned]:
        gradient = jax.value_and_grad(batch_loss, has_aux=True)
        if config.network in TORSOS and config.convolution == "blocks":
            gradient = seed_by_seed(gradient)
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
        if is_far_told:
            apart = jax.tree.map(jnp.subtract, state.params["params"], behind["params"])
            metrics["target_distance"] = global_norm(apart)
        return state, Learned(metrics, priority)

    def explore(state: AgentState, draws: PyTree) -> tuple[Array, AgentState]:
        action, memory = policy.explore(state.memory, _parted(draws)[0])
        return action, state.replace(memory=memory)

    return Agent(
        init=init,
        act_draws=_with_rows_of_noise(policy.draws, size, spec.num_envs),
        act=act,
        explore=explore,
        learn_draws=_with_noise(learn_draws, size, {"now", *needed}),
        learn=learn,
        q_values=q_values,
        status=policy.status,
        metrics={**METRICS, **(DISTANCE if is_far_told else {})},
        begin=begin if kept or size else None,
        insight=Insight(
            units=lambda params, obs: hidden_units(network, {**params, **inputs("now", None)}, obs),
            last=2 if config.stream_sizes else 1,
        ),
    )


def scalar_loss(config: Config, spec: Spec, error: Array, hyper: Hyper) -> Array:
    """The loss of a TD error that ``config`` names, float32 ``[]``."""
    clipped = clip_td_error(error, hyper.td_error_clip)
    if config.loss == "huber":
        return huber(clipped, hyper.huber_delta)
    value = squared(clipped)
    # Keras averages over the Q-vector, whose other entries equal their own predictions.
    return value / spec.num_actions if config.loss == "keras_mse" else value


def losses_as_priorities(losses: Array, errors: Array) -> Array:
    """Priorities of a distributional agent; Hessel et al. 2018."""
    return losses


def _keeping(params: Params, names: Collection[str], hyper: Hyper) -> Params:
    """Parameters with hyperparameters beside them, float32 ``[]``, if there are any to keep."""
    kept = {name: jnp.asarray(getattr(hyper, name), jnp.float32) for name in sorted(names)}
    return {**params, "kept": kept} if kept else params


Draws = Callable[[Key], PyTree]


def _with_rows_of_noise(draws: Draws, size: int, num_envs: int) -> Draws:
    """Beside what is drawn for a step, noise for each environment, if the layers take any."""
    if size == 0:
        return draws

    def both(key: Key) -> Noisy:
        key, own = jax.random.split(key)
        keys = jax.random.split(own, num_envs)
        return Noisy(draws(key), jax.vmap(lambda k: draw_noise(k, size))(keys))

    return both


def _with_noise(draws: Draws, size: int, passes: Collection[str]) -> Draws:
    """Beside what is drawn for an update, noise for each of ``passes``, if layers take any."""
    if size == 0:
        return draws

    def both(key: Key) -> Noisy:
        key, own = jax.random.split(key)
        keys = dict(zip(_PASSES, jax.random.split(own, len(_PASSES)), strict=True))
        # In an order of their own: that of a set, and so the program, changes between processes.
        needed = [name for name in _PASSES if name in passes]
        return Noisy(draws(key), {name: draw_noise(keys[name], size) for name in needed})

    return both


def _parted(draws: PyTree) -> tuple[PyTree, Any]:
    """What is drawn without noisy layers, and the noise, None without such."""
    return (draws.draws, draws.noise) if isinstance(draws, Noisy) else (draws, None)


def _weigh(
    rule: Rule, hyper: Hyper, epsilon: Array, q_values: QValues, step: Transition
) -> tuple[Array, Transition]:
    """The next actions' weights, and the transition with what the rule adds to its reward."""
    weight, bonus = rule.weigh(q_values, step, hyper, epsilon)
    return weight, step if bonus is None else step._replace(reward=step.reward + bonus)


def _of_one(
    loss: Loss, hyper: Hyper, outputs: Outputs, step: Transition, draws: PyTree
) -> tuple[Array, Array]:
    return loss(outputs, step, hyper, draws)


def _of_heads(
    one: Callable[[Outputs, Transition, PyTree], tuple[Array, Array]],
    values: Callable[[Array], Array],
    outputs: Outputs,
    step: Transition,
    draws: PyTree,
) -> tuple[Array, Array]:
    """The sum of the losses of heads ``[A, H, ...]``, and the mean magnitude of their errors.

    All have one target: that of the head which values what follows the least.
    """
    assert outputs.next_target is not None and outputs.weight is not None
    heads = jnp.moveaxis(outputs.next_target, 1, 0)
    lowest = jnp.argmin(weighted(values(heads).T, outputs.weight))
    chosen = {"next_target": heads[lowest]}
    for name in ("next_online", "now_target"):
        other = getattr(outputs, name)
        if other is not None:
            chosen[name] = other[:, 0]
    found = [
        one(outputs._replace(now=outputs.now[:, head], **chosen), step, draws)
        for head in range(heads.shape[0])
    ]
    losses, errors = (jnp.stack(values) for values in zip(*found, strict=True))
    return jnp.sum(losses), jnp.mean(jnp.abs(errors))


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
