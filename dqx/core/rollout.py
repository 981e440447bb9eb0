"""One seed's training loop without a replay: rollouts, their returns, and epochs over them.

A round acts for ``train_period`` steps with one set of parameters, works out what every action was
worth, and goes through all of the round's transitions some times, shuffled anew each time, in
batches of ``batch_size``. Nothing of it is kept for the next round.

Source: Gallici et al. 2025, algorithm 1.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dqx.core import loop
from dqx.core.agent import Agent, Now
from dqx.core.blocks import scan
from dqx.core.environment import Environment
from dqx.core.keys import Purpose, purpose_key
from dqx.core.state import Clock, Episodes, Lane
from dqx.core.steps import Parts, StepDraws, draw_steps, env_step, now_of, row_of, seen, told_by
from dqx.core.types import Array, Batch, Transition
from dqx.settings import Config, Hyper


def make_trainer(config: Config, env: Environment, agent: Agent) -> loop.Trainer:
    """Builds the training loop from its parts.

    Args:
        config: validated and rounded.
        env: the environment.
        agent: for environments like ``env``, with ``targets``.

    Raises:
        AssertionError: if the configuration is not rounded, a round is no whole number of batches
            or its updates no whole epochs, or the agent has no targets; and at trace time by
            ``segment``, for steps that are no whole rounds.
    """
    assert agent.targets is not None, "a rollout is learned from by an agent that has targets"
    for name, size in (
        ("train_period", config.num_envs),
        ("train_period", config.batch_size),
        ("updates_per_train", config.train_period // config.batch_size),
    ):
        assert getattr(config, name) % size == 0, (
            f"{name} = {getattr(config, name)} is no multiple of {size}: a round is whole steps of "
            "all environments, and its updates are whole epochs of equal batches"
        )
    parts = Parts(config, env, agent)
    return loop.trainer_of(parts, functools.partial(_segment, parts))


def _segment(
    parts: Parts, clock: Clock, lane: Lane, hyper: Hyper, steps: int
) -> tuple[Clock, Lane, Episodes, dict[str, Array]]:
    """Rounds of acting for ``train_period`` environment steps and then updating."""
    config = parts.config

    def train_round(carry: tuple[Clock, Lane], _: None) -> Any:
        clock, lane = carry
        lane, happened, episodes = _act(parts, clock, lane, hyper)
        lane, numbers = _learn(parts, clock, lane, hyper, happened, episodes.length == 0)
        clock = clock.replace(
            step=clock.step + config.train_period, updates=clock.updates + config.updates_per_train
        )
        return (clock, lane), (episodes, numbers)

    loop.check_steps("segment", steps, train_period=config.train_period)
    count = steps // config.train_period
    (clock, lane), (episodes, numbers) = scan(train_round, (clock, lane), None, count)
    episodes = jax.tree.map(lambda x: x.reshape(-1, config.num_envs), episodes)
    now = now_of(config, hyper, clock, lane.episodes)
    return clock, lane, episodes, row_of(parts.agent, numbers, now)


def _act(parts: Parts, clock: Clock, lane: Lane, hyper: Hyper) -> tuple[Lane, Transition, Episodes]:
    """Transitions and ends of episodes of a round, ``[T, E]``; schedules stand still meanwhile."""
    now = now_of(parts.config, hyper, clock, lane.episodes)

    def step(lane: Lane, draws: StepDraws) -> Any:
        lane = seen(parts, lane)
        at = now._replace(ages=lane.episode_length)
        action, agent = parts.agent.act(lane.agent, lane.obs, draws.agent, at)
        lane, happened, episodes, _ = env_step(parts, lane.replace(agent=agent), draws, action)
        return lane, (happened, episodes)

    count = parts.config.train_period // parts.config.num_envs
    lane, (happened, episodes) = scan(step, lane, draw_steps(parts, clock, lane, count), count)
    return lane, happened, episodes


def _learn(
    parts: Parts, clock: Clock, lane: Lane, hyper: Hyper, happened: Transition, continues: Array
) -> tuple[Lane, Array]:
    """The updates of a round; their metrics ``[U, M]``.

    Args:
        happened: transitions ``[T, E]``.
        continues: bool ``[T, E]``, whether the step after each belongs to the same episode.
    """
    config, agent = parts.config, parts.agent
    assert agent.targets is not None  # as `make_trainer` was given
    told = functools.partial(_told, config, hyper, clock, lane.episodes)
    target = agent.targets(lane.agent, happened, continues, told(jnp.int32(0)))
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), Batch(happened, target=target))
    number = jnp.arange(config.updates_per_train)
    key = purpose_key(lane.key, Purpose.LEARN)
    keys = jax.vmap(lambda n: jax.random.fold_in(key, clock.updates + n))(number)
    draws = jax.vmap(agent.learn_draws)(keys)

    def update(lane: Lane, given: Any) -> Any:
        number, rows, draws = given
        batch = jax.tree.map(lambda x: x[rows], flat)
        now = told(number)
        # There is no target network that could follow.
        state, learned = agent.learn(lane.agent, batch, draws, now, jnp.bool_(False))
        return told_by(agent, lane.replace(agent=state), learned, clock.step + config.train_period)

    given = (number, _shuffled(config, clock, lane), draws)
    return scan(update, lane, given, config.updates_per_train)


def _told(config: Config, hyper: Hyper, clock: Clock, episodes: Array, number: Array) -> Now:
    """Where a seed is at an update of a round, as if updates lay evenly between its steps.

    So what is annealed to nothing gets there with the last update, not with a whole round to go.
    """
    # Listed ahead, since the products of large rounds do not fit in int32.
    numbers = np.arange(config.updates_per_train, dtype=np.int64)
    passed = (numbers * config.train_period // config.updates_per_train).astype(np.int32)
    at = clock.replace(
        step=clock.step + jnp.asarray(passed)[number], updates=clock.updates + number
    )
    return now_of(config, hyper, at, episodes)


def _shuffled(config: Config, clock: Clock, lane: Lane) -> Array:
    """The rows of each update of a round, int32 ``[U, B]``: in every epoch each row once."""
    batches = config.train_period // config.batch_size
    epochs = config.updates_per_train // batches
    key = purpose_key(lane.key, Purpose.REPLAY)

    def order(epoch: Array) -> Array:
        bits = jax.random.bits(jax.random.fold_in(key, epoch), (config.train_period,), jnp.uint32)
        return jnp.argsort(bits)

    rows = jax.vmap(order)(clock.updates // batches + jnp.arange(epochs))
    return rows.reshape(config.updates_per_train, config.batch_size)
