"""One seed's training loop as pure functions: warm-up, segments; ``evaluation`` judges it.

Read from top to bottom this is the whole flow. ``parallel`` maps these functions over seeds and
devices, ``run`` calls them from the host and collects what they return.

The clock is the same for every seed and is never batched: schedules, replay positions and
conditions hang on it alone, so that a condition stays a condition under vmap and the replay is
written in place.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from dqx import exploration
from dqx.agent import Agent, AgentState, LearnMetrics, epsilon_at, hyper_at, make_agent
from dqx.checks import EPSILON_POLICIES, GUMBEL_POLICIES
from dqx.config import Config, Hyper
from dqx.environment import Environment
from dqx.evaluation import Evaluation, evaluate, q_table
from dqx.keys import Purpose, purpose_key
from dqx.replay import Replay, ReplayState, make_replay
from dqx.types import Array, Key, PyTree, Transition

# Rounds of updates whose random numbers are drawn at once. Every draw folds in the clock, so the
# choice changes no number.
BLOCK_ROUNDS = 512
# Bytes of what is drawn for a seed: large observations or many updates make smaller blocks.
BLOCK_BYTES = 2**22


class Clock(struct.PyTreeNode):
    """What all seeds share, each int32 ``[]``: steps, updates, replay position and size."""

    step: Array
    updates: Array
    position: Array
    size: Array


class Lane(struct.PyTreeNode):
    """What one seed has to itself.

    Attributes:
        key: the seed's key; never changes, the clock is folded in for every use.
        agent: parameters, target parameters, optimizer state.
        replay_rows: packed transitions, ``{dtype: [C, width]}``.
        env_state: states of the parallel environments, leading axis ``[E]``.
        obs: the observations to act on, ``[E, ...]``.
        episode_return: float32 ``[E]``, of the episodes under way.
        episode_length: int32 ``[E]``, in steps of each environment.
        episodes: int32 ``[]``, finished so far.
        action_counts: int32 ``[A]``, how often each action was taken, counted from 1; None unless
            the policy needs it.
        diverged_at: int32 ``[]``, environment step at which loss or parameters became non-finite,
            -1 if never.
    """

    key: Key
    agent: AgentState
    replay_rows: dict[str, Array]
    env_state: PyTree
    obs: Array
    episode_return: Array
    episode_length: Array
    episodes: Array
    action_counts: Array | None
    diverged_at: Array


class Episodes(NamedTuple):
    """Episodes that finished, one entry for each environment step: ``[steps, E]``.

    Attributes:
        total: float32, the sum of rewards; only meaningful where ``length`` is positive.
        length: int32, steps of the episode that finished here, 0 where none did.
    """

    total: Array
    length: Array


class Trainer(NamedTuple):
    """Pure functions of one seed.

    Attributes:
        init: ``init(key) -> Lane``.
        start: ``start() -> Clock`` at step 0.
        warm_up: ``warm_up(clock, lane, steps) -> (clock, lane, Episodes)``; ``steps`` is static.
        segment: ``segment(clock, lane, hyper, steps) -> (clock, lane, Episodes, metrics)``;
            ``steps`` is static.
        evaluate: ``evaluate(clock, lane) -> Evaluation``.
        q_table: ``q_table(states, lane) -> [N, A]``, the Q-values in N states of the environment.
    """

    init: Callable[[Key], Lane]
    start: Callable[[], Clock]
    warm_up: Callable[..., tuple[Clock, Lane, Episodes]]
    segment: Callable[..., tuple[Clock, Lane, Episodes, dict[str, Array]]]
    evaluate: Callable[[Clock, Lane], Evaluation]
    q_table: Callable[[PyTree, Lane], Array]


class _Parts(NamedTuple):
    """What the functions below are made of: the configuration and the building blocks."""

    config: Config
    env: Environment
    agent: Agent
    replay: Replay


class _Draws(NamedTuple):
    """Random numbers of one step of the E environments, drawn before the step."""

    exploration: exploration.Draw
    step_keys: Key
    fresh: tuple[Array, PyTree]


def make_trainer(config: Config, env: Environment) -> Trainer:
    """Builds the training loop of ``config``, already validated, on ``env``."""
    replay = make_replay(example_transition(env), config.replay_capacity, config.num_envs)
    parts = _Parts(config, env, make_agent(config, env), replay)
    return Trainer(
        init=functools.partial(_init, parts),
        start=_start,
        warm_up=functools.partial(_warm_up, parts),
        segment=functools.partial(_segment, parts),
        evaluate=functools.partial(_evaluate, parts),
        q_table=lambda states, lane: q_table(env, parts.agent, lane.agent.params, states),
    )


def _start() -> Clock:
    return Clock(*(jnp.int32(0) for _ in range(4)))


def _init(parts: _Parts, key: Key) -> Lane:
    num_envs = parts.config.num_envs
    reset_keys = jax.random.split(purpose_key(key, Purpose.FIRST_RESET), num_envs)
    obs, env_state = jax.vmap(parts.env.reset)(reset_keys)
    return Lane(
        key=key,
        agent=parts.agent.init(purpose_key(key, Purpose.PARAMS)),
        replay_rows=parts.replay.init().rows,
        env_state=env_state,
        obs=obs,
        episode_return=jnp.zeros(num_envs, jnp.float32),
        episode_length=jnp.zeros(num_envs, jnp.int32),
        episodes=jnp.int32(0),
        action_counts=_fresh_counts(parts),
        diverged_at=jnp.int32(-1),
    )


def _fresh_counts(parts: _Parts) -> Array | None:
    counted = parts.config.policy == "boltzmann_gumbel"
    return jnp.ones(parts.env.num_actions, jnp.int32) if counted else None


def _warm_up(parts: _Parts, clock: Clock, lane: Lane, steps: int) -> tuple[Clock, Lane, Episodes]:
    """Uniformly random actions; this program holds no learning code."""

    def step(carry: tuple[Clock, Lane], draws: _Draws) -> Any:
        clock, lane, episodes = _env_step(parts, *carry, draws, draws.exploration.action)
        return (clock, lane), episodes

    def block(carry: tuple[Clock, Lane], count: int) -> Any:
        return _scan(step, carry, _draw_steps(parts, *carry, count))

    count = steps // parts.config.num_envs
    (clock, lane), episodes = _in_blocks(
        block, (clock, lane), count, block_rounds(parts.config, parts.env)
    )
    return clock, lane, episodes


def _segment(
    parts: _Parts, clock: Clock, lane: Lane, hyper: Hyper, steps: int
) -> tuple[Clock, Lane, Episodes, dict[str, Array]]:
    """A round of updates after every ``train_period`` environment steps."""
    config = parts.config
    step_count = config.train_period // config.num_envs  # of every environment in a round

    def act_step(carry: tuple[Clock, Lane], draws: _Draws) -> Any:
        clock, lane = carry
        now = hyper_at(config, hyper, clock.step)
        epsilon = epsilon_at(config, now, clock.step, lane.episodes)
        if config.epsilon_ladder:
            epsilon = exploration.epsilon_ladder(epsilon, config.num_envs, now.ladder_power)
        action = parts.agent.act(
            lane.agent.params,
            lane.obs,
            draws.exploration,
            epsilon,
            now.temperature,
            lane.action_counts,
        )
        clock, lane, episodes = _env_step(parts, clock, lane, draws, action)
        return (clock, lane), episodes

    def learn_step(carry: tuple[Clock, Lane], rows: Array) -> Any:
        now = hyper_at(config, hyper, carry[0].step)
        clock, lane, metrics = _learn_step(parts, *carry, now, rows)
        return (clock, lane), jnp.stack(metrics)

    def train_round(carry: tuple[Clock, Lane], draws: tuple[_Draws, Array]) -> Any:
        step_draws, rows = draws
        carry, episodes = _scan(act_step, carry, step_draws)
        carry, metrics = _scan(learn_step, carry, rows)
        return carry, (episodes, metrics)

    def block(carry: tuple[Clock, Lane], count: int) -> Any:
        step_draws = jax.tree.map(
            lambda x: x.reshape(count, step_count, *x.shape[1:]),
            _draw_steps(parts, *carry, count * step_count),
        )
        return _scan(train_round, carry, (step_draws, _draw_batches(parts, *carry, count)))

    count = steps // config.train_period
    (clock, lane), (episodes, metrics) = _in_blocks(
        block, (clock, lane), count, block_rounds(parts.config, parts.env)
    )
    episodes = jax.tree.map(lambda x: x.reshape(-1, config.num_envs), episodes)
    metrics = LearnMetrics(*jnp.moveaxis(metrics.reshape(-1, len(LearnMetrics._fields)), 1, 0))
    row = {**_summary(metrics), "epsilon": _epsilon(config, hyper, clock, lane)}
    return clock, lane, episodes, row


def _epsilon(config: Config, hyper: Hyper, clock: Clock, lane: Lane) -> Array:
    """The probability of a random action, float32 ``[]``; NaN for a policy that has none."""
    if config.policy not in EPSILON_POLICIES:
        return jnp.float32(jnp.nan)
    return epsilon_at(config, hyper_at(config, hyper, clock.step), clock.step, lane.episodes)


def _env_step(
    parts: _Parts, clock: Clock, lane: Lane, draws: _Draws, action: Array
) -> tuple[Clock, Lane, Episodes]:
    """One step of every environment of a seed, stored in its replay."""
    config = parts.config
    step = jax.vmap(parts.env.step)(draws.step_keys, lane.env_state, action, draws.fresh)
    done = step.terminated | step.truncated
    ends = done if config.time_limit_is_terminal else step.terminated
    discount = 1.0 - ends.astype(jnp.float32)
    stored = parts.replay.add(
        ReplayState(lane.replay_rows, clock.position, clock.size),
        Transition(lane.obs, action, step.reward, discount, step.final_obs),
    )
    total, length = lane.episode_return + step.reward, lane.episode_length + 1
    lane = lane.replace(
        replay_rows=stored.rows,
        env_state=step.state,
        obs=step.obs,
        episode_return=jnp.where(done, 0.0, total),
        episode_length=jnp.where(done, 0, length),
        episodes=lane.episodes + jnp.sum(done, dtype=jnp.int32),
    )
    if lane.action_counts is not None:
        taken = jax.nn.one_hot(action, parts.env.num_actions, dtype=jnp.int32)
        lane = lane.replace(action_counts=lane.action_counts + jnp.sum(taken, axis=0))
    clock = clock.replace(
        step=clock.step + config.num_envs, position=stored.position, size=stored.size
    )
    return clock, lane, Episodes(total, jnp.where(done, length, 0))


def _learn_step(
    parts: _Parts, clock: Clock, lane: Lane, hyper: Hyper, rows: Array
) -> tuple[Clock, Lane, LearnMetrics]:
    """One update from the replay's ``rows``, int32 ``[B]``."""
    config = parts.config
    batch = parts.replay.gather(ReplayState(lane.replay_rows, clock.position, clock.size), rows)
    # The target follows in the last update of a round that has crossed a multiple of its period.
    now, before = clock.step, clock.step - config.train_period
    crossed = now // config.target_period > before // config.target_period
    last = (clock.updates + 1) % config.updates_per_train == 0
    agent, metrics = parts.agent.learn(lane.agent, hyper, batch, clock.updates, crossed & last)
    bad = ~(jnp.isfinite(metrics.loss) & jnp.isfinite(metrics.weight_norm))
    diverged_at = jnp.where((lane.diverged_at < 0) & bad, clock.step, lane.diverged_at)
    lane = lane.replace(agent=agent, diverged_at=diverged_at)
    return clock.replace(updates=clock.updates + 1), lane, metrics


def _draw_steps(parts: _Parts, clock: Clock, lane: Lane, count: int) -> _Draws:
    """Random numbers of the next ``count`` steps of the E environments, axes ``[count, E]``."""
    config, env = parts.config, parts.env
    times = clock.step // config.num_envs + jnp.arange(count)

    def per_env(purpose: Purpose) -> Key:
        key = purpose_key(lane.key, purpose)
        split = functools.partial(jax.random.split, num=config.num_envs)
        return jax.vmap(lambda t: split(jax.random.fold_in(key, t)))(times)

    gumbel = config.policy in GUMBEL_POLICIES
    draw = jax.vmap(jax.vmap(lambda key: exploration.draw(key, env.num_actions, gumbel)))
    return _Draws(
        exploration=draw(per_env(Purpose.EXPLORATION)),
        step_keys=per_env(Purpose.ENV_STEP),
        fresh=jax.vmap(jax.vmap(env.reset))(per_env(Purpose.RESET)),
    )


def _draw_batches(parts: _Parts, clock: Clock, lane: Lane, count: int) -> Array:
    """Replay rows of the next ``count`` rounds, int32 ``[count, updates_per_train, B]``."""
    config = parts.config
    if config.sampling == "newest":  # those of the round itself, oldest first
        rounds = config.train_period * jnp.arange(count)[:, None, None]
        offsets = rounds + jnp.arange(config.train_period)
        return (clock.position + offsets) % config.replay_capacity
    key = purpose_key(lane.key, Purpose.REPLAY)
    updates = clock.updates + jnp.arange(count * config.updates_per_train)
    written = clock.size + config.train_period * (1 + jnp.arange(count))
    sizes = jnp.repeat(jnp.minimum(written, config.replay_capacity), config.updates_per_train)
    rows = jax.vmap(
        lambda u, n: parts.replay.indices(jax.random.fold_in(key, u), n, config.batch_size)
    )
    return rows(updates, sizes).reshape(count, config.updates_per_train, config.batch_size)


def _evaluate(parts: _Parts, clock: Clock, lane: Lane) -> Evaluation:
    return evaluate(parts.config, parts.env, parts.agent, lane.agent.params, lane.key, clock.step)


def example_transition(env: Environment) -> Transition:
    """Shapes and dtypes of one transition of ``env``."""
    obs = jax.ShapeDtypeStruct(env.obs_shape, env.obs_dtype)
    number = jax.ShapeDtypeStruct((), jnp.float32)
    return Transition(obs, jax.ShapeDtypeStruct((), jnp.int32), number, number, obs)


def _summary(metrics: LearnMetrics) -> dict[str, Array]:
    """Means over the updates of an interval, but the largest Q and the last weight norm."""
    means = {name: jnp.mean(values) for name, values in metrics._asdict().items()}
    return {**means, "q_max": jnp.max(metrics.q_max), "weight_norm": metrics.weight_norm[-1]}


def block_rounds(config: Config, env: Environment) -> int:
    """Rounds of updates whose random numbers are drawn at once."""
    fresh = jax.tree.leaves(jax.eval_shape(env.reset, jax.eval_shape(jax.random.key, 0)))
    reset_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in fresh)
    index_bytes = 4 * config.updates_per_train * config.batch_size
    round_bytes = config.train_period * reset_bytes + index_bytes
    return max(1, min(BLOCK_ROUNDS, BLOCK_BYTES // round_bytes))


def block_size(count: int, limit: int) -> int:
    """How many of ``count`` rounds or steps a block takes, at most ``limit``."""
    limit = min(count, limit)
    size = max(d for d in range(1, limit + 1) if count % d == 0)
    # Few divisors: rather one odd block at the end.
    return limit if size < math.sqrt(limit) else size


def _scan(body: Callable[[Any, Any], Any], carry: Any, xs: Any) -> Any:
    """``lax.scan``, without a loop where there is only one step."""
    return jax.lax.scan(body, carry, xs, unroll=len(jax.tree.leaves(xs)[0]) == 1)


def _in_blocks(
    block: Callable[[Any, int], Any], carry: Any, count: int, limit: int
) -> tuple[Any, Any]:
    """Runs ``block(carry, size)`` up to ``count``, with ``size <= limit``; outputs are joined."""
    size = block_size(count, limit)
    whole, rest = divmod(count, size)
    carry, outputs = jax.lax.scan(lambda c, _: block(c, size), carry, None, length=whole)
    outputs = jax.tree.map(lambda x: x.reshape(whole * size, *x.shape[2:]), outputs)
    if rest:
        carry, last = block(carry, rest)
        outputs = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), outputs, last)
    return carry, outputs
