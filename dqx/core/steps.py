"""What loops share: a step of a seed's environments, and what is told of a round."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dqx.core.agent import Agent, Learned, Now
from dqx.core.environment import Environment, Step
from dqx.core.exploration import linear_schedule
from dqx.core.keys import Purpose, purpose_key
from dqx.core.sampling import Sampler
from dqx.core.state import Clock, Episodes, Lane
from dqx.core.stores import Store
from dqx.core.types import Array, Key, PyTree, Transition
from dqx.settings import Config, Hyper


class Parts(NamedTuple):
    """What a loop is made of: the configuration and the building blocks.

    Attributes:
        config: validated and rounded.
        env: the environment.
        agent: for environments like ``env``.
        store: of what was seen; None where nothing is kept from one round to the next.
        sampler: of the rows of ``store``; None without one.
    """

    config: Config
    env: Environment
    agent: Agent
    store: Store | None = None
    sampler: Sampler | None = None

    def env_at(self, env_inputs: Mapping[str, Array]) -> Environment:
        """The environment with the parameters of a lane."""
        return self.env.at(env_inputs) if env_inputs else self.env

    def store_at(self, env_inputs: Mapping[str, Array]) -> Store | None:
        """The store of such a lane."""
        if self.store is None or self.store.at is None or not env_inputs:
            return self.store
        return self.store.at(self.env_at(env_inputs))


class StepDraws(NamedTuple):
    """Random numbers of one step of the E environments, drawn before the step."""

    agent: PyTree
    step_keys: Key
    fresh: tuple[Array, PyTree]


def draw_steps(parts: Parts, clock: Clock, lane: Lane, count: int) -> StepDraws:
    """Random numbers of the next ``count`` steps of the E environments, leading axis ``count``."""
    num_envs = parts.config.num_envs
    times = clock.step // num_envs + jnp.arange(count)

    def keys(purpose: Purpose) -> Key:
        key = purpose_key(lane.key, purpose)
        return jax.vmap(lambda t: jax.random.fold_in(key, t))(times)

    def per_env(purpose: Purpose) -> Key:
        return jax.vmap(functools.partial(jax.random.split, num=num_envs))(keys(purpose))

    return StepDraws(
        agent=jax.vmap(parts.agent.act_draws)(keys(Purpose.EXPLORATION)),
        step_keys=per_env(Purpose.ENV_STEP),
        fresh=jax.vmap(jax.vmap(parts.env_at(lane.env_inputs).reset))(per_env(Purpose.RESET)),
    )


def seen(parts: Parts, lane: Lane) -> Lane:
    """Shows the agent what it is about to act on, if it asks for that."""
    if parts.agent.see is None:
        return lane
    return lane.replace(agent=parts.agent.see(lane.agent, lane.obs))


def env_step(
    parts: Parts, lane: Lane, draws: StepDraws, action: Array
) -> tuple[Lane, Transition, Episodes, Step]:
    """One step of every environment of a seed: transitions, ends of episodes, and all else."""
    config, env = parts.config, parts.env_at(lane.env_inputs)
    step = jax.vmap(env.step)(draws.step_keys, lane.env_state, action, draws.fresh)
    done = step.terminated | step.truncated
    ends = done if config.time_limit_is_terminal else step.terminated
    discount = 1.0 - ends.astype(jnp.float32)
    happened = Transition(lane.obs, action, step.reward, discount, step.final_obs)
    total, length = lane.episode_return + step.reward, lane.episode_length + 1
    lane = lane.replace(
        env_state=step.state,
        obs=step.obs,
        episode_return=jnp.where(done, 0.0, total),
        episode_length=jnp.where(done, 0, length),
        episodes=lane.episodes + jnp.sum(done, dtype=jnp.int32),
    )
    return lane, happened, Episodes(total, jnp.where(done, length, 0)), step


def now_of(
    config: Config, hyper: Hyper, clock: Clock, episodes: Array, ages: Array | None = None
) -> Now:
    """Where a seed is that has finished so many episodes, with the hyperparameters of this step."""
    return Now(_annealed(config, hyper, clock.step), clock.step, clock.updates, episodes, ages)


def _annealed(config: Config, hyper: Hyper, step: Array) -> Hyper:
    """The hyperparameters after ``step`` environment steps: those that are annealed have moved."""
    moved = {}
    for name in config.annealed:
        value = getattr(hyper, name)
        end = value * hyper.anneal_scale
        moved[name] = linear_schedule(step, value, end, hyper.anneal_steps)
    return hyper.replace(**moved)


def told_by(agent: Agent, lane: Lane, learned: Learned, step: Array) -> tuple[Lane, Array]:
    """What an update tells: whether the seed has diverged, and its metrics in their order."""
    metrics = learned.metrics
    bad = ~(jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["weight_norm"]))
    diverged_at = jnp.where((lane.diverged_at < 0) & bad, step, lane.diverged_at)
    numbers = jnp.stack([metrics[name] for name in _names(agent)])
    return lane.replace(diverged_at=diverged_at), numbers


_OVER: dict[str, Callable[[Array], Array]] = {
    "mean": jnp.mean,
    "max": jnp.max,
    "last": lambda column: column[-1],
}


def row_of(agent: Agent, numbers: Array, now: Now) -> dict[str, Array]:
    """A row of metrics from those of all updates ``[..., M]``, as `told_by` gives them."""
    names = _names(agent)
    columns = jnp.moveaxis(numbers.reshape(-1, len(names)), 1, 0)
    row = {
        name: _OVER[agent.metrics[name].over](column)
        for name, column in zip(names, columns, strict=True)
    }
    return {**row, **agent.status(now)}


def _names(agent: Agent) -> list[str]:
    return [name for name, metric in agent.metrics.items() if metric.over != "now"]
