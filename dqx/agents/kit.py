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
import optax

from dqx.core import exploration
from dqx.core.agent import Agent, AgentState, Learned, Metric, Now, Spec
from dqx.core.convolution import TORSOS, seed_by_seed
from dqx.core.dense import draw_noise, noise_of, noise_size, with_sigma
from dqx.core.losses import weighted
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
# the target rule adds to the target is in its reward.
Loss = Callable[[Outputs, Transition, Hyper, PyTree], tuple[Array, Array]]


class Policy(NamedTuple):
    """How an agent chooses actions from Q-values; see `Agent` for the functions.

    Attributes:
        memory: what it remembers at the start.
        draws: ``draws(key)``.
        choose: ``choose(q_values [E, A], memory, draws, now) -> (int32 [E], memory)``.
        explore: ``explore(memory, draws) -> (int32 [E], memory)``.
        status: ``status(now)``.
    """

    memory: Callable[[], PyTree]
    draws: Callable[[Key], exploration.Draw]
    choose: Callable[[Array, PyTree, exploration.Draw, Now], tuple[Array, PyTree]]
    explore: Callable[[PyTree, exploration.Draw], tuple[Array, PyTree]]
    status: Callable[[Now], dict[str, Array]]


def make_policy(config: Config, spec: Spec) -> Policy:
    """The policy that ``config`` names, for E environments with A actions.

    Its memory is how often each action was taken, int32 ``[A]``, counted from 1, where
    ``boltzmann_gumbel`` needs it, else None.
    """
    name = config.policy
    gumbel = name in exploration.GUMBEL_POLICIES
    counted = name == "boltzmann_gumbel"

    def memory() -> Array | None:
        return jnp.ones(spec.num_actions, jnp.int32) if counted else None

    def draws(key: Key) -> exploration.Draw:
        keys = jax.random.split(key, spec.num_envs)
        return jax.vmap(lambda k: exploration.draw(k, spec.num_actions, gumbel))(keys)

    def remember(counts: Array | None, action: Array) -> Array | None:
        if counts is None:
            return None
        taken = jax.nn.one_hot(action, spec.num_actions, dtype=jnp.int32)
        return counts + jnp.sum(taken, axis=0)

    def choose(
        q_values: Array, counts: Array | None, draws: exploration.Draw, now: Now
    ) -> tuple[Array, Array | None]:
        temperature = now.hyper.temperature
        epsilon = epsilon_at(config, now)
        if config.epsilon_ladder:
            epsilon = exploration.epsilon_ladder(epsilon, spec.num_envs, now.hyper.ladder_power)

        def one(draw: exploration.Draw, q: Array, epsilon: Array) -> Array:
            match name:
                case "epsilon_greedy":
                    return exploration.epsilon_greedy(draw, q, epsilon)
                case "boltzmann":
                    return exploration.boltzmann(draw, q, temperature)
                case "max_boltzmann":
                    return exploration.max_boltzmann(draw, q, epsilon, temperature)
                case "boltzmann_gumbel":
                    return exploration.boltzmann_gumbel(draw, q, jnp.asarray(counts), temperature)
                case "softmax":
                    return exploration.boltzmann(draw, q, 1.0)
                case _:
                    return exploration.greedy(q)

        axes = (0, 0, 0 if jnp.ndim(epsilon) else None)
        action = jax.vmap(one, in_axes=axes)(draws, q_values, epsilon)
        return action, remember(counts, action)

    def explore(counts: Array | None, draws: exploration.Draw) -> tuple[Array, Array | None]:
        return draws.action, remember(counts, draws.action)

    def status(now: Now) -> dict[str, Array]:
        has = name in exploration.EPSILON_POLICIES
        return {"epsilon": epsilon_at(config, now) if has else jnp.float32(jnp.nan)}

    return Policy(memory, draws, choose, explore, status)


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
        reads: those of `Outputs` beside ``now`` that the loss reads.
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
    policy = make_policy(config, spec)
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
        return AgentState(params, jax.tree.map(jnp.copy, params), opt_state, policy.memory())

    def values_of(outputs: Array, params: Params) -> Array:
        return values(outputs, **params.get("kept", {}))

    def of_first(outputs: Array, params: Params) -> Array:
        """The Q-values, where there are several heads those of the first."""
        return values_of(outputs if rule.heads == 1 else outputs[:, :, 0], params)

    def begin(state: AgentState, hyper: Hyper) -> AgentState:
        params = _keeping(state.params, kept, hyper)
        params = with_sigma(params, hyper.noisy_sigma) if size else params
        return state.replace(params=params, target_params=jax.tree.map(jnp.copy, params))

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
        steps = as_learned(batch.steps, now.hyper, batch.lengths)
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
        state, grad_norm = _follow(config, state, grads, now, sync)
        taken = jnp.take_along_axis(q, batch.steps.action[:, None], axis=1)
        metrics = {
            "loss": loss,
            "q_mean": jnp.mean(taken),
            "q_max": jnp.max(q),
            "td_error_abs": jnp.mean(jnp.abs(errors)),
            "grad_norm": grad_norm,
            "weight_norm": global_norm(state.params["params"]),
        }
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
        metrics=METRICS,
        begin=begin if kept or size else None,
    )


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


def _follow(
    config: Config, state: AgentState, grads: Params, now: Now, sync: Array
) -> tuple[AgentState, Array]:
    """Follows the gradient, clipped; the target follows where ``sync``. Also the global norm."""
    hyper, grad_norm = now.hyper, global_norm(grads)
    # Scaled by exactly 1 up to the limit. Not optax's clip, which computes the norm once more.
    limit = hyper.max_grad_norm
    scale = jnp.where(grad_norm <= limit, 1.0, limit / grad_norm)
    grads = jax.tree.map(lambda g: g * scale, grads)
    optimizer = make_optimizer(config, hyper, now.updates)
    changes, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, changes)
    target_params = jax.lax.cond(
        sync,
        lambda: optax.incremental_update(params, state.target_params, hyper.tau),
        lambda: state.target_params,
    )
    return AgentState(params, target_params, opt_state, state.memory), grad_norm


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


def make_optimizer(config: Config, hyper: Hyper, updates: Array) -> optax.GradientTransformation:
    """Adam, SGD or RMSProp, then the learning rate, decayed by the count of updates.

    The hyperparameters may be traced: the state's structure depends on ``config`` alone.
    """
    rules: dict[str, Callable[[], Any]] = {
        "adam": lambda: optax.scale_by_adam(eps=hyper.optimizer_epsilon),
        "sgd": lambda: optax.trace(decay=hyper.momentum),
        "rmsprop": lambda: optax.chain(
            optax.scale_by_rms(decay=hyper.rmsprop_decay, eps=hyper.optimizer_epsilon),
            optax.trace(decay=hyper.momentum),
        ),
    }
    return optax.chain(rules[config.optimizer](), optax.scale(-learning_rate_at(hyper, updates)))


def learning_rate_at(hyper: Hyper, updates: Array) -> Array:
    """The step size, float32 ``[]``, after ``updates`` updates."""
    return jnp.asarray(hyper.learning_rate / (1.0 + hyper.learning_rate_decay * updates))


def epsilon_at(config: Config, now: Now) -> Array:
    """Epsilon of one seed by the schedule that ``config`` names, float32 ``[]``."""
    start, end = now.hyper.epsilon_start, now.hyper.epsilon_end
    match config.epsilon_schedule:
        case "constant":
            return exploration.constant_schedule(start)
        case "linear":
            return exploration.linear_schedule(now.step, start, end, now.hyper.epsilon_steps)
        case "exponential":
            return exploration.exponential_schedule(now.step, start, end, now.hyper.epsilon_steps)
        case _:
            decay = now.hyper.epsilon_decay
            return exploration.per_episode_schedule(now.episodes, start, end, decay)


def global_norm(tree: Params) -> Array:
    """The square root of the sum of all squares in a pytree, float32 ``[]``."""
    return jnp.sqrt(sum(_sum_of_squares(leaf.reshape(-1)) for leaf in jax.tree.leaves(tree)))


def _sum_of_squares(x: Array) -> Array:
    # Sixteen partial sums side by side first: XLA's CPU backend runs one long reduction of a batch
    # of lanes without vector instructions, and the norm of the gradient would cost as much as its
    # largest matrix product.
    part = x.size // 16
    if part < 64:
        return jnp.sum(jnp.square(x))
    partial = sum(jnp.square(x[i * part : (i + 1) * part]) for i in range(16))
    return jnp.sum(partial) + jnp.sum(jnp.square(x[16 * part :]))
