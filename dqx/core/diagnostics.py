"""What goes wrong inside of learning and no return shows, measured where a row of metrics ends.

It is a program of its own, beside the training loop: nothing of it is in a segment, and what is
learned is the same with and without it. Overestimation is measured while an evaluation is played,
by `evaluation`, and the distance of the target in every update, by the agent: where rows end the
target has often just followed.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from dqx.core.agent import Agent, Now
from dqx.core.keys import Purpose, purpose_key
from dqx.core.replay import Filled, uniform_rows
from dqx.core.state import Clock, Lane
from dqx.core.steps import Parts, StepDraws, draw_steps, env_step
from dqx.core.types import Array
from dqx.settings import Config, ConfigError

# The columns of each diagnostic, in the order of `Config.diagnostics`' choices. Those of an agent's
# own are not among the columns that come after all others.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "overestimation": ("overestimation",),
    "dormant_units": ("dormant_units", "dead_units"),
    "effective_rank": ("effective_rank",),
    "replay_age": ("replay_age",),
    "target_distance": ("target_distance",),
}
# Transitions of the replay that are looked at, and how many of them at once.
SAMPLE, _BATCH = 512, 64
# A unit is dormant up to this share of its layer's mean activation; Sokar et al. 2023, section 3.
DORMANT = 0.025


AT_ROWS = ("dormant_units", "effective_rank", "replay_age")


def columns(config: Config) -> tuple[str, ...]:
    """The names of the metrics that ``config`` asks for beside the agent's own, in their order."""
    names = [n for n in ("overestimation", *AT_ROWS) if n in config.diagnostics]
    return tuple(column for name in names for column in COLUMNS[name])


def at_rows(config: Config) -> bool:
    """Whether anything is measured at the end of every interval."""
    return not set(AT_ROWS).isdisjoint(config.diagnostics)


def check(config: Config, agent: Agent) -> None:
    """Refuses what cannot be seen of an agent.

    Raises:
        ConfigError: naming the diagnostic, and what the agent has not got; or a metric of the
            agent's own that has the name of one.
    """
    insight = agent.insight
    lacks = {
        "dormant_units": "hidden units" if insight.units is None else "",
        "effective_rank": "hidden units" if insight.units is None else "",
        "target_distance": "" if "target_distance" in agent.metrics else "a target network",
    }
    for name in config.diagnostics:
        if lacks.get(name):
            raise ConfigError(
                f"diagnostics: {name} needs {lacks[name]}, and agent {config.agent} shows none: "
                "leave it out or choose another agent"
            )
    taken = [name for name in columns(config) if name in agent.metrics]
    if taken:
        raise ConfigError(
            f"diagnostics: agent {config.agent} has a metric {taken[0]} of its own: rename it"
        )


def diagnose(parts: Parts, clock: Clock, lane: Lane, filled: Filled, now: Now) -> dict[str, Array]:
    """Measures one seed at the end of an interval: those of ``AT_ROWS`` that are asked for.

    Units are looked at in transitions drawn uniformly from the replay. Without one they are looked
    at in what the seed will see next, as it acts now.

    Args:
        parts: what it learns with; the configuration's ``diagnostics`` say what is asked for.
        clock: where all seeds are.
        lane: of the seed.
        filled: how far its replay is written, at least a row.
        now: where the seed is.

    Returns:
        float32 ``[]`` by column; instead of ``effective_rank`` the features ``[SAMPLE, F]`` whose
        rank it is, see `dqx.compute.diagnostics`.
    """
    config, agent, sampler = parts.config, parts.agent, parts.sampler
    store = parts.store_at(lane.env_inputs)
    asked = set(config.diagnostics)
    key = jax.random.fold_in(purpose_key(lane.key, Purpose.DIAGNOSTICS), now.step)
    rows_key, sampler_key = jax.random.split(key)
    found: dict[str, Array] = {}
    if asked & {"dormant_units", "effective_rank"}:
        if store is None:
            obs = _to_be_seen(parts, clock, lane, now)
        else:
            bits = jax.random.bits(rows_key, (SAMPLE,), jnp.uint32)
            rows, newest = uniform_rows(bits, filled.size), store.keep(lane.obs, lane.env_state)
            obs = store.gather(lane.replay_rows, filled, rows, newest).obs
        magnitudes, features = _units(agent, lane, obs)
        if "dormant_units" in asked:
            found["dormant_units"] = dormant_share(magnitudes, DORMANT)
            found["dead_units"] = dormant_share(magnitudes, 0.0)
        if "effective_rank" in asked:
            found["effective_rank"] = features
    if "replay_age" in asked:
        assert sampler is not None  # as `settings` sees to
        keys = jax.random.split(sampler_key, -(-SAMPLE // config.batch_size))
        picked = jax.vmap(lambda k: sampler.pick(lane.sampler, sampler.draws(k), filled, now)[0])(
            keys
        )
        ages = replay_ages(picked, filled, config.replay_capacity, config.num_envs)
        found["replay_age"] = jnp.mean(ages.astype(jnp.float32))
    return found


def _to_be_seen(parts: Parts, clock: Clock, lane: Lane, now: Now) -> Array:
    """The next `SAMPLE` observations of a seed whose parameters and schedules stand still."""

    def step(lane: Lane, draws: StepDraws) -> tuple[Lane, Array]:
        at = now._replace(ages=lane.episode_length)
        action, agent = parts.agent.act(lane.agent, lane.obs, draws.agent, at)
        following, *_ = env_step(parts, lane.replace(agent=agent), draws, action)
        return following, lane.obs

    count = -(-SAMPLE // parts.config.num_envs)
    _, obs = jax.lax.scan(step, lane, draw_steps(parts, clock, lane, count))
    return obs.reshape(-1, *obs.shape[2:])[:SAMPLE]


def _units(agent: Agent, lane: Lane, obs: Array) -> tuple[list[Array], Array]:
    """Of each hidden layer the mean magnitudes ``[H]``, and the features ``[B, F]``."""
    insight = agent.insight

    def batch(obs: Array) -> tuple[list[Array], Array]:
        assert insight.units is not None  # see `check`
        layers = insight.units(lane.agent.params, obs)
        means = [jnp.mean(jnp.abs(x), axis=tuple(range(x.ndim - 1))) for x in layers]
        return means, insight.features(layers)

    means, features = jax.lax.map(batch, obs.reshape(-1, _BATCH, *obs.shape[1:]))
    return [jnp.mean(x, axis=0) for x in means], features.reshape(obs.shape[0], -1)


def dormant_share(magnitudes: Sequence[Array], threshold: float) -> Array:
    """The share of hidden units that hardly answer to anything.

    Args:
        magnitudes: of each layer, float ``[H]``: the mean magnitude of each unit's activation over
            observations, of a convolution's channel over pixels too.
        threshold: tau; a unit is dormant whose magnitude, over the mean of its layer, is at most
            that. In a layer that is silent all are.

    Returns:
        float32 ``[]``; NaN where an activation is not finite.

    Source: Sokar, Agarwal, Castro and Evci 2023, definition 3.1.
    """
    dormant = [jnp.sum(x <= threshold * jnp.mean(x), dtype=jnp.int32) for x in magnitudes]
    share = sum(dormant) / sum(x.size for x in magnitudes)
    finite = jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in magnitudes]))
    return jnp.where(finite, share, jnp.nan).astype(jnp.float32)


def replay_ages(rows: Array, filled: Filled, capacity: int, num_envs: int) -> Array:
    """Environment steps since transitions were taken; those of the newest step have age 0.

    Args:
        rows: int32, of any shape: their places among the replay's rows.
        filled: how far it is written.
        capacity: C, rows of the replay.
        num_envs: E, rows that a step of all parallel environments writes.

    Returns:
        int32 like ``rows``.

    Source: Fedus et al. 2020, section 3, there in updates instead of steps.
    """
    behind = (filled.position - 1 - rows) % capacity
    return behind // num_envs * num_envs
