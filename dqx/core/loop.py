"""One seed's training loop as pure functions: warm-up, segments; ``evaluation`` judges it.

Read from top to bottom this is the whole flow. It is built from an agent, an environment, a store
and a sampler, and knows none of them by name. ``compute.programs`` maps these functions over seeds,
``compute.session`` calls them from the host and collects what they return.

The clock is the same for every seed and is never batched: schedules, replay positions and
conditions hang on it alone, so that a condition stays a condition under vmap and the replay is
written in place.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dqx.core.agent import Agent, Metric, Now
from dqx.core.blocks import BLOCK_BYTES, BLOCK_ROUNDS, drawn_bytes, in_blocks, scan
from dqx.core.diagnostics import diagnose
from dqx.core.environment import Environment
from dqx.core.evaluation import (
    Evaluation,
    Played,
    begin,
    evaluate,
    foreseeing,
    mean_q_max,
    play,
    q_table,
)
from dqx.core.exploration import linear_schedule
from dqx.core.keys import Purpose, purpose_key
from dqx.core.replay import Filled, Store
from dqx.core.sampling import Sampler
from dqx.core.state import Clock, Episodes, Lane
from dqx.core.types import Array, Batch, Key, PyTree, Transition
from dqx.settings import Config, Hyper


class Trainer(NamedTuple):
    """Pure functions of one seed.

    Attributes:
        init: ``init(key, env_inputs={}, hyper=Hyper()) -> Lane``; parameters of the environment,
            float32 ``[]`` by name, and the hyperparameters that the agent starts with.
        start: ``start() -> Clock`` at step 0.
        warm_up: ``warm_up(clock, lane, steps) -> (clock, lane, Episodes)``; ``steps`` is static.
        segment: ``segment(clock, lane, hyper, steps) -> (clock, lane, Episodes, metrics)``;
            ``steps`` is static, a multiple of ``train_period``.
        evaluate: ``evaluate(clock, lane) -> Evaluation``.
        begin: ``begin(clock, lane, until, hyper=None) -> (Played, q_max)``: the same up to a time,
            int32 ``[]`` in steps of its episodes; ``hyper`` where overestimation is measured.
        play: ``play(clock, lane, played, until) -> Played`` goes on with it.
        q_table: ``q_table(states, lane) -> [N, A]``, the Q-values in N states of the environment.
        diagnose: ``diagnose(clock, lane, hyper)``: see `diagnostics`.
        metrics: how each of the agent's numbers is shown, by its name.
    """

    init: Callable[..., Lane]
    start: Callable[[], Clock]
    warm_up: Callable[..., tuple[Clock, Lane, Episodes]]
    segment: Callable[..., tuple[Clock, Lane, Episodes, dict[str, Array]]]
    evaluate: Callable[[Clock, Lane], Evaluation]
    begin: Callable[..., tuple[Played, Array]]
    play: Callable[[Clock, Lane, Played, Array], Played]
    q_table: Callable[[PyTree, Lane], Array]
    diagnose: Callable[[Clock, Lane, Hyper], dict[str, Array]]
    metrics: Mapping[str, Metric]


class _Parts(NamedTuple):
    """What the functions below are made of: the configuration and the building blocks."""

    config: Config
    env: Environment
    agent: Agent
    store: Store
    sampler: Sampler

    def env_at(self, env_inputs: Mapping[str, Array]) -> Environment:
        """The environment with the parameters of a lane."""
        return self.env.at(env_inputs) if env_inputs else self.env


class _StepDraws(NamedTuple):
    """Random numbers of one step of the E environments, drawn before the step."""

    agent: PyTree
    step_keys: Key
    fresh: tuple[Array, PyTree]


class _UpdateDraws(NamedTuple):
    """Random numbers of one update, drawn before the round."""

    sampler: PyTree
    agent: PyTree


def make_trainer(
    config: Config, env: Environment, agent: Agent, store: Store, sampler: Sampler
) -> Trainer:
    """Builds the training loop from its parts.

    Args:
        config: validated and rounded.
        env: the environment.
        agent: for environments like ``env``.
        store: for transitions of ``env``, see `example_transition`.
        sampler: of the rows of ``store``.

    Raises:
        AssertionError: if the configuration is not rounded; and at trace time by the functions
            that are given, for steps that are no multiple of what they are taken in.
    """
    for name in ("train_period", "replay_capacity"):
        assert getattr(config, name) % config.num_envs == 0, (
            f"{name} = {getattr(config, name)} is no multiple of num_envs = {config.num_envs}, and "
            "parallel environments step together: round it by dqx.settings.rounded(config)"
        )
    parts = _Parts(config, env, agent, store, sampler)
    return Trainer(
        init=functools.partial(_init, parts),
        start=_start,
        warm_up=functools.partial(_warm_up, parts),
        segment=functools.partial(_segment, parts),
        evaluate=functools.partial(_evaluate, parts),
        begin=functools.partial(_begin, parts),
        play=functools.partial(_play, parts),
        q_table=lambda states, lane: q_table(
            parts.env_at(lane.env_inputs), agent.q_values, lane.agent.params, states
        ),
        diagnose=functools.partial(_diagnose, parts),
        metrics=agent.metrics,
    )


def _check_steps(name: str, steps: int, **unit: int) -> None:
    ((what, size),) = unit.items()
    assert steps > 0 and steps % size == 0, (
        f"{name} takes whole {what} steps, and steps = {steps} is no multiple of {what} = {size}: "
        f"give {max(1, -(-steps // size)) * size}"
    )


def _start() -> Clock:
    return Clock(*(jnp.int32(0) for _ in range(4)))


def _init(
    parts: _Parts,
    key: Key,
    env_inputs: dict[str, Array] | None = None,
    hyper: Hyper | None = None,
) -> Lane:
    env_inputs, hyper = env_inputs or {}, hyper or Hyper()
    agent = parts.agent.init(purpose_key(key, Purpose.PARAMS))
    agent = agent if parts.agent.begin is None else parts.agent.begin(agent, hyper)
    num_envs, env = parts.config.num_envs, parts.env_at(env_inputs)
    reset_keys = jax.random.split(purpose_key(key, Purpose.FIRST_RESET), num_envs)
    obs, env_state = jax.vmap(env.reset)(reset_keys)
    return Lane(
        key=key,
        agent=agent,
        replay_rows=parts.store.init(),
        sampler=parts.sampler.init(),
        env_state=env_state,
        obs=obs,
        episode_return=jnp.zeros(num_envs, jnp.float32),
        episode_length=jnp.zeros(num_envs, jnp.int32),
        episodes=jnp.int32(0),
        diverged_at=jnp.int32(-1),
        env_inputs=env_inputs,
    )


def _warm_up(parts: _Parts, clock: Clock, lane: Lane, steps: int) -> tuple[Clock, Lane, Episodes]:
    """Uniformly random actions; this program holds no learning code."""

    def step(carry: tuple[Clock, Lane], draws: _StepDraws) -> Any:
        clock, lane = _seen(parts, carry)
        action, agent = parts.agent.explore(lane.agent, draws.agent)
        clock, lane, episodes = _env_step(parts, clock, lane.replace(agent=agent), draws, action)
        return (clock, lane), episodes

    def block(carry: tuple[Clock, Lane], count: int) -> Any:
        return scan(step, carry, _draw_steps(parts, *carry, count), count)

    _check_steps("warm_up", steps, num_envs=parts.config.num_envs)
    count = steps // parts.config.num_envs
    (clock, lane), episodes = in_blocks(block, (clock, lane), count, _block_rounds(parts))
    return clock, lane, episodes


def _segment(
    parts: _Parts, clock: Clock, lane: Lane, hyper: Hyper, steps: int
) -> tuple[Clock, Lane, Episodes, dict[str, Array]]:
    """Rounds of acting for ``train_period`` environment steps and then updating."""
    config = parts.config
    step_count = config.train_period // config.num_envs  # of every environment in a round

    def act_step(carry: tuple[Clock, Lane], draws: _StepDraws) -> Any:
        clock, lane = _seen(parts, carry)
        now = _now(config, hyper, clock, lane)
        action, agent = parts.agent.act(lane.agent, lane.obs, draws.agent, now)
        clock, lane, episodes = _env_step(parts, clock, lane.replace(agent=agent), draws, action)
        return (clock, lane), episodes

    def learn_step(carry: tuple[Clock, Lane], draws: _UpdateDraws) -> Any:
        clock, lane, metrics = _learn_step(parts, *carry, hyper, draws)
        return (clock, lane), metrics

    def train_round(carry: tuple[Clock, Lane], draws: tuple[_StepDraws, _UpdateDraws]) -> Any:
        carry, episodes = scan(act_step, carry, draws[0], step_count)
        carry, metrics = scan(learn_step, carry, draws[1], config.updates_per_train)
        return carry, (episodes, metrics)

    def block(carry: tuple[Clock, Lane], count: int) -> Any:
        step_draws = jax.tree.map(
            lambda x: x.reshape(count, step_count, *x.shape[1:]),
            _draw_steps(parts, *carry, count * step_count),
        )
        return scan(train_round, carry, (step_draws, _draw_updates(parts, *carry, count)), count)

    _check_steps("segment", steps, train_period=config.train_period)
    count = steps // config.train_period
    (clock, lane), (episodes, learned) = in_blocks(
        block, (clock, lane), count, _block_rounds(parts)
    )
    episodes = jax.tree.map(lambda x: x.reshape(-1, config.num_envs), episodes)
    names = _learned_names(parts.agent)
    columns = jnp.moveaxis(learned.reshape(-1, len(names)), 1, 0)
    row = {
        name: _OVER[parts.agent.metrics[name].over](column)
        for name, column in zip(names, columns, strict=True)
    }
    return clock, lane, episodes, {**row, **parts.agent.status(_now(config, hyper, clock, lane))}


_OVER: dict[str, Callable[[Array], Array]] = {
    "mean": jnp.mean,
    "max": jnp.max,
    "last": lambda column: column[-1],
}


def _learned_names(agent: Agent) -> list[str]:
    return [name for name, metric in agent.metrics.items() if metric.over != "now"]


def _filled(clock: Clock) -> Filled:
    # Every step of an environment writes a row.
    return Filled(clock.position, clock.size, written=clock.step)


def _now(config: Config, hyper: Hyper, clock: Clock, lane: Lane) -> Now:
    return Now(_annealed(config, hyper, clock.step), clock.step, clock.updates, lane.episodes)


def _annealed(config: Config, hyper: Hyper, step: Array) -> Hyper:
    """The hyperparameters after ``step`` environment steps: those that are annealed have moved."""
    moved = {}
    for name in config.annealed:
        value = getattr(hyper, name)
        end = value * hyper.anneal_scale
        moved[name] = linear_schedule(step, value, end, hyper.anneal_steps)
    return hyper.replace(**moved)


def _seen(parts: _Parts, carry: tuple[Clock, Lane]) -> tuple[Clock, Lane]:
    """Shows the agent what it is about to act on, if it asks for that."""
    clock, lane = carry
    if parts.agent.see is None:
        return carry
    return clock, lane.replace(agent=parts.agent.see(lane.agent, lane.obs))


def _env_step(
    parts: _Parts, clock: Clock, lane: Lane, draws: _StepDraws, action: Array
) -> tuple[Clock, Lane, Episodes]:
    """One step of every environment of a seed, stored in its replay."""
    config, env = parts.config, parts.env_at(lane.env_inputs)
    step = jax.vmap(env.step)(draws.step_keys, lane.env_state, action, draws.fresh)
    done = step.terminated | step.truncated
    ends = done if config.time_limit_is_terminal else step.terminated
    discount = 1.0 - ends.astype(jnp.float32)
    stored = Transition(lane.obs, action, step.reward, discount, step.final_obs)
    total, length = lane.episode_return + step.reward, lane.episode_length + 1
    lane = lane.replace(
        replay_rows=parts.store.write(
            lane.replay_rows, _filled(clock), stored, lane.episode_length
        ),
        sampler=parts.sampler.add(lane.sampler, clock.position),
        env_state=step.state,
        obs=step.obs,
        episode_return=jnp.where(done, 0.0, total),
        episode_length=jnp.where(done, 0, length),
        episodes=lane.episodes + jnp.sum(done, dtype=jnp.int32),
    )
    clock = clock.replace(
        step=clock.step + config.num_envs,
        position=(clock.position + config.num_envs) % config.replay_capacity,
        size=jnp.minimum(clock.size + config.num_envs, config.replay_capacity),
    )
    return clock, lane, Episodes(total, jnp.where(done, length, 0))


def _learn_step(
    parts: _Parts, clock: Clock, lane: Lane, hyper: Hyper, draws: _UpdateDraws
) -> tuple[Clock, Lane, Array]:
    """One update from rows that the sampler picks; its metrics in the order of their names."""
    config = parts.config
    filled = _filled(clock)
    told = _now(config, hyper, clock, lane)
    rows, weight = parts.sampler.pick(lane.sampler, draws.sampler, filled, told)
    batch = _gathered(parts.store, lane, filled, rows)._replace(weight=weight)
    # The target follows in the last update of a round that has crossed a multiple of its period.
    now, before = clock.step, clock.step - config.train_period
    crossed = now // config.target_period > before // config.target_period
    last = (clock.updates + 1) % config.updates_per_train == 0
    agent, learned = parts.agent.learn(lane.agent, batch, draws.agent, told, crossed & last)
    metrics = learned.metrics
    bad = ~(jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["weight_norm"]))
    diverged_at = jnp.where((lane.diverged_at < 0) & bad, clock.step, lane.diverged_at)
    sampler = parts.sampler.feedback(lane.sampler, rows, learned.priority, told)
    lane = lane.replace(agent=agent, sampler=sampler, diverged_at=diverged_at)
    stacked = jnp.stack([metrics[name] for name in _learned_names(parts.agent)])
    return clock.replace(updates=clock.updates + 1), lane, stacked


def _gathered(store: Store, lane: Lane, filled: Filled, rows: Array) -> Batch:
    if store.returns is None:
        return Batch(store.gather(lane.replay_rows, filled, rows))
    steps, lengths = store.returns(lane.replay_rows, filled, rows)
    return Batch(steps, lengths=lengths)


def _draw_steps(parts: _Parts, clock: Clock, lane: Lane, count: int) -> _StepDraws:
    """Random numbers of the next ``count`` steps of the E environments, leading axis ``count``."""
    num_envs = parts.config.num_envs
    times = clock.step // num_envs + jnp.arange(count)

    def keys(purpose: Purpose) -> Key:
        key = purpose_key(lane.key, purpose)
        return jax.vmap(lambda t: jax.random.fold_in(key, t))(times)

    def per_env(purpose: Purpose) -> Key:
        return jax.vmap(functools.partial(jax.random.split, num=num_envs))(keys(purpose))

    return _StepDraws(
        agent=jax.vmap(parts.agent.act_draws)(keys(Purpose.EXPLORATION)),
        step_keys=per_env(Purpose.ENV_STEP),
        fresh=jax.vmap(jax.vmap(parts.env_at(lane.env_inputs).reset))(per_env(Purpose.RESET)),
    )


def _draw_updates(parts: _Parts, clock: Clock, lane: Lane, count: int) -> _UpdateDraws:
    """Random numbers of the updates of the next ``count`` rounds, axes ``[count, U]``."""
    updates = clock.updates + jnp.arange(count * parts.config.updates_per_train)

    def keys(purpose: Purpose) -> Key:
        key = purpose_key(lane.key, purpose)
        return jax.vmap(lambda u: jax.random.fold_in(key, u))(updates)

    draws = _UpdateDraws(
        sampler=jax.vmap(parts.sampler.draws)(keys(Purpose.REPLAY)),
        agent=jax.vmap(parts.agent.learn_draws)(keys(Purpose.LEARN)),
    )
    shape = (count, parts.config.updates_per_train)
    return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), draws)


def _evaluate(parts: _Parts, clock: Clock, lane: Lane) -> Evaluation:
    q_values = functools.partial(parts.agent.q_values, lane.agent.params)
    return evaluate(parts.config, parts.env_at(lane.env_inputs), q_values, lane.key, clock.step)


def _begin(
    parts: _Parts, clock: Clock, lane: Lane, until: Array, hyper: Hyper | None = None
) -> tuple[Played, Array]:
    env = parts.env_at(lane.env_inputs)
    first = begin(parts.config, env, lane.key, clock.step)
    if hyper is not None:
        first = foreseeing(parts.config, first, _annealed(parts.config, hyper, clock.step))
    q_values = functools.partial(parts.agent.q_values, lane.agent.params)
    return (
        _play(parts, clock, lane, first, until),
        mean_q_max(parts.config, env, q_values, lane.key),
    )


def _play(parts: _Parts, clock: Clock, lane: Lane, played: Played, until: Array) -> Played:
    """Evaluates on, up to a time."""
    q_values = functools.partial(parts.agent.q_values, lane.agent.params)
    return play(parts.env_at(lane.env_inputs), q_values, lane.key, clock.step, played, until)


def _diagnose(parts: _Parts, clock: Clock, lane: Lane, hyper: Hyper) -> dict[str, Array]:
    config, told = parts.config, _now(parts.config, hyper, clock, lane)
    return diagnose(config, parts.agent, parts.store, parts.sampler, lane, _filled(clock), told)


def example_transition(env: Environment) -> Transition:
    """Shapes and dtypes of one transition of ``env``."""
    obs = jax.ShapeDtypeStruct(env.obs_shape, env.obs_dtype)
    number = jax.ShapeDtypeStruct((), jnp.float32)
    return Transition(obs, jax.ShapeDtypeStruct((), jnp.int32), number, number, obs)


def _block_rounds(parts: _Parts) -> int:
    """Rounds whose random numbers are drawn at once."""
    config = parts.config
    step_bytes = config.num_envs * drawn_bytes(parts.env.reset) + drawn_bytes(parts.agent.act_draws)
    update_bytes = drawn_bytes(parts.sampler.draws) + drawn_bytes(parts.agent.learn_draws)
    steps = config.train_period // config.num_envs
    round_bytes = steps * step_bytes + config.updates_per_train * update_bytes
    return max(1, min(BLOCK_ROUNDS, BLOCK_BYTES // round_bytes))
