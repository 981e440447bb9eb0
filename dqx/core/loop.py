"""One seed's training loop as pure functions: warm-up, segments; ``evaluation`` judges it.

Read from top to bottom this is the whole flow, but for what `steps` says of one step. It is built
from an agent, an environment, a store and a sampler, and knows none of them by name; `rollout` has
other segments, for agents without a replay. ``compute.programs`` maps these functions over seeds,
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

from dqx.core.agent import Agent, Metric
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
from dqx.core.keys import Purpose, purpose_key
from dqx.core.replay import Filled
from dqx.core.sampling import Sampler
from dqx.core.state import Clock, Episodes, Lane
from dqx.core.steps import Parts, StepDraws, draw_steps, env_step, now_of, row_of, seen, told_by
from dqx.core.stores import Store
from dqx.core.types import Array, Batch, Key, PyTree
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
        store: for transitions of ``env``, see `core.forms`.
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
    parts = Parts(config, env, agent, store, sampler)
    return trainer_of(parts, functools.partial(_segment, parts))


def trainer_of(parts: Parts, segment: Callable[..., Any]) -> Trainer:
    """A training loop that differs from others in how its segments go."""
    agent = parts.agent
    return Trainer(
        init=functools.partial(_init, parts),
        start=_start,
        warm_up=functools.partial(_warm_up, parts),
        segment=segment,
        evaluate=functools.partial(_evaluate, parts),
        begin=functools.partial(_begin, parts),
        play=functools.partial(_play, parts),
        q_table=lambda states, lane: q_table(
            parts.env_at(lane.env_inputs), agent.q_values, lane.agent.params, states
        ),
        diagnose=functools.partial(_diagnose, parts),
        metrics=agent.metrics,
    )


def check_steps(name: str, steps: int, **unit: int) -> None:
    """Asserts that steps are a multiple of what they are taken in."""
    ((what, size),) = unit.items()
    assert steps > 0 and steps % size == 0, (
        f"{name} takes whole {what} steps, and steps = {steps} is no multiple of {what} = {size}: "
        f"give {max(1, -(-steps // size)) * size}"
    )


def _start() -> Clock:
    return Clock(*(jnp.int32(0) for _ in range(4)))


def _init(
    parts: Parts,
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
        replay_rows={} if parts.store is None else parts.store.init(),
        sampler=None if parts.sampler is None else parts.sampler.init(),
        env_state=env_state,
        obs=obs,
        episode_return=jnp.zeros(num_envs, jnp.float32),
        episode_length=jnp.zeros(num_envs, jnp.int32),
        episodes=jnp.int32(0),
        diverged_at=jnp.int32(-1),
        env_inputs=env_inputs,
    )


def _warm_up(parts: Parts, clock: Clock, lane: Lane, steps: int) -> tuple[Clock, Lane, Episodes]:
    """Uniformly random actions; this program holds no learning code."""

    def step(carry: tuple[Clock, Lane], draws: StepDraws) -> Any:
        clock, lane = carry
        lane = seen(parts, lane)
        action, agent = parts.agent.explore(lane.agent, draws.agent)
        clock, lane, episodes = _stored_step(parts, clock, lane.replace(agent=agent), draws, action)
        return (clock, lane), episodes

    def block(carry: tuple[Clock, Lane], count: int) -> Any:
        return scan(step, carry, draw_steps(parts, *carry, count), count)

    check_steps("warm_up", steps, num_envs=parts.config.num_envs)
    count = steps // parts.config.num_envs
    (clock, lane), episodes = in_blocks(block, (clock, lane), count, _block_rounds(parts))
    return clock, lane, episodes


def _segment(
    parts: Parts, clock: Clock, lane: Lane, hyper: Hyper, steps: int
) -> tuple[Clock, Lane, Episodes, dict[str, Array]]:
    """Rounds of acting for ``train_period`` environment steps and then updating."""
    config = parts.config
    step_count = config.train_period // config.num_envs  # of every environment in a round

    def act_step(carry: tuple[Clock, Lane], draws: StepDraws) -> Any:
        clock, lane = carry
        lane = seen(parts, lane)
        now = now_of(config, hyper, clock, lane.episodes, lane.episode_length)
        action, agent = parts.agent.act(lane.agent, lane.obs, draws.agent, now)
        clock, lane, episodes = _stored_step(parts, clock, lane.replace(agent=agent), draws, action)
        return (clock, lane), episodes

    def learn_step(carry: tuple[Clock, Lane], draws: _UpdateDraws) -> Any:
        clock, lane, metrics = _learn_step(parts, *carry, hyper, draws)
        return (clock, lane), metrics

    def train_round(carry: tuple[Clock, Lane], draws: tuple[StepDraws, _UpdateDraws]) -> Any:
        carry, episodes = scan(act_step, carry, draws[0], step_count)
        carry, metrics = scan(learn_step, carry, draws[1], config.updates_per_train)
        return carry, (episodes, metrics)

    def block(carry: tuple[Clock, Lane], count: int) -> Any:
        step_draws = jax.tree.map(
            lambda x: x.reshape(count, step_count, *x.shape[1:]),
            draw_steps(parts, *carry, count * step_count),
        )
        return scan(train_round, carry, (step_draws, _draw_updates(parts, *carry, count)), count)

    check_steps("segment", steps, train_period=config.train_period)
    count = steps // config.train_period
    (clock, lane), (episodes, learned) = in_blocks(
        block, (clock, lane), count, _block_rounds(parts)
    )
    episodes = jax.tree.map(lambda x: x.reshape(-1, config.num_envs), episodes)
    now = now_of(config, hyper, clock, lane.episodes)
    return clock, lane, episodes, row_of(parts.agent, learned, now)


def _filled(clock: Clock) -> Filled:
    # Every step of an environment writes a row.
    return Filled(clock.position, clock.size, written=clock.step)


def _stored_step(
    parts: Parts, clock: Clock, lane: Lane, draws: StepDraws, action: Array
) -> tuple[Clock, Lane, Episodes]:
    """One step of every environment of a seed, stored in its replay if there is one."""
    config, store, before = parts.config, parts.store_at(lane.env_inputs), lane
    lane, happened, episodes, step = env_step(parts, lane, draws, action)
    if store is None or parts.sampler is None:
        return clock.replace(step=clock.step + config.num_envs), lane, episodes
    stored = happened._replace(
        obs=store.keep(before.obs, before.env_state),
        next_obs=store.keep(step.final_obs, step.final_state),
    )
    ended = step.terminated | step.truncated
    lane = lane.replace(
        replay_rows=store.write(
            lane.replay_rows, _filled(clock), stored, before.episode_length, ended
        ),
        sampler=parts.sampler.add(lane.sampler, clock.position),
    )
    clock = clock.replace(
        step=clock.step + config.num_envs,
        position=(clock.position + config.num_envs) % config.replay_capacity,
        size=jnp.minimum(clock.size + config.num_envs, config.replay_capacity),
    )
    return clock, lane, episodes


def _learn_step(
    parts: Parts, clock: Clock, lane: Lane, hyper: Hyper, draws: _UpdateDraws
) -> tuple[Clock, Lane, Array]:
    """One update from rows that the sampler picks; its metrics in the order of their names."""
    config = parts.config
    assert parts.sampler is not None  # as `make_trainer` was given
    filled = _filled(clock)
    told = now_of(config, hyper, clock, lane.episodes, lane.episode_length)
    rows, weight = parts.sampler.pick(lane.sampler, draws.sampler, filled, told)
    batch = _gathered(parts, lane, filled, rows)._replace(weight=weight)
    # The target follows in the last update of a round that has crossed a multiple of its period.
    now, before = clock.step, clock.step - config.train_period
    crossed = now // config.target_period > before // config.target_period
    last = (clock.updates + 1) % config.updates_per_train == 0
    agent, learned = parts.agent.learn(lane.agent, batch, draws.agent, told, crossed & last)
    sampler = parts.sampler.feedback(lane.sampler, rows, learned.priority, told)
    lane, numbers = told_by(parts.agent, lane, learned, clock.step)
    lane = lane.replace(agent=agent, sampler=sampler)
    return clock.replace(updates=clock.updates + 1), lane, numbers


def _gathered(parts: Parts, lane: Lane, filled: Filled, rows: Array) -> Batch:
    store = parts.store_at(lane.env_inputs)
    assert store is not None  # as `make_trainer` was given
    newest = store.keep(lane.obs, lane.env_state)
    # By the number of the last transition that came to each row, of all since the start.
    numbers = filled.written - 1 - (filled.written - 1 - rows) % parts.config.replay_capacity
    fold = functools.partial(jax.random.fold_in, purpose_key(lane.key, Purpose.TRANSITION))
    keys = jax.vmap(fold)(numbers)
    if store.returns is None:
        return Batch(store.gather(lane.replay_rows, filled, rows, newest), keys=keys)
    steps, lengths = store.returns(lane.replay_rows, filled, rows, newest)
    return Batch(steps, lengths=lengths, keys=keys)


def _draw_updates(parts: Parts, clock: Clock, lane: Lane, count: int) -> _UpdateDraws:
    """Random numbers of the updates of the next ``count`` rounds, axes ``[count, U]``."""
    updates = clock.updates + jnp.arange(count * parts.config.updates_per_train)

    def keys(purpose: Purpose) -> Key:
        key = purpose_key(lane.key, purpose)
        return jax.vmap(lambda u: jax.random.fold_in(key, u))(updates)

    assert parts.sampler is not None
    draws = _UpdateDraws(
        sampler=jax.vmap(parts.sampler.draws)(keys(Purpose.REPLAY)),
        agent=jax.vmap(parts.agent.learn_draws)(keys(Purpose.LEARN)),
    )
    shape = (count, parts.config.updates_per_train)
    return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), draws)


def _evaluate(parts: Parts, clock: Clock, lane: Lane) -> Evaluation:
    q_values = functools.partial(parts.agent.q_values, lane.agent.params)
    return evaluate(parts.config, parts.env_at(lane.env_inputs), q_values, lane.key, clock.step)


def _begin(
    parts: Parts, clock: Clock, lane: Lane, until: Array, hyper: Hyper | None = None
) -> tuple[Played, Array]:
    env = parts.env_at(lane.env_inputs)
    first = begin(parts.config, env, lane.key, clock.step)
    if hyper is not None:
        first = foreseeing(
            parts.config, first, now_of(parts.config, hyper, clock, lane.episodes).hyper
        )
    q_values = functools.partial(parts.agent.q_values, lane.agent.params)
    return (
        _play(parts, clock, lane, first, until),
        mean_q_max(parts.config, env, q_values, lane.key),
    )


def _play(parts: Parts, clock: Clock, lane: Lane, played: Played, until: Array) -> Played:
    """Evaluates on, up to a time."""
    q_values = functools.partial(parts.agent.q_values, lane.agent.params)
    return play(parts.env_at(lane.env_inputs), q_values, lane.key, clock.step, played, until)


def _diagnose(parts: Parts, clock: Clock, lane: Lane, hyper: Hyper) -> dict[str, Array]:
    now = now_of(parts.config, hyper, clock, lane.episodes)
    return diagnose(parts, clock, lane, _filled(clock), now)


def _block_rounds(parts: Parts) -> int:
    """Rounds whose random numbers are drawn at once."""
    config = parts.config
    step_bytes = config.num_envs * drawn_bytes(parts.env.reset) + drawn_bytes(parts.agent.act_draws)
    sampled = 0 if parts.sampler is None else drawn_bytes(parts.sampler.draws)
    update_bytes = sampled + drawn_bytes(parts.agent.learn_draws)
    steps = config.train_period // config.num_envs
    round_bytes = steps * step_bytes + config.updates_per_train * update_bytes
    return max(1, min(BLOCK_ROUNDS, BLOCK_BYTES // round_bytes))
