"""How agents choose actions from Q-values: one policy for all that have such."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dqx.core import exploration
from dqx.core.agent import Now, Spec
from dqx.core.types import Array, Key, PyTree
from dqx.settings import SETTINGS, Config


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
    draws: Callable[[Key], PyTree]
    choose: Callable[[Array, PyTree, Any, Now], tuple[Array, PyTree]]
    explore: Callable[[PyTree, Any], tuple[Array, PyTree]]
    status: Callable[[Now], dict[str, Array]]


def make_policy(config: Config, spec: Spec) -> Policy:
    """The policy that ``config`` names, for E environments with A actions.

    Its memory is how often each action was taken, int32 ``[A]``, counted from 1, where
    ``boltzmann_gumbel`` needs it, a `Repeat` ``[E]`` of ``ez_greedy``, else None.
    """
    name = config.policy
    traits = SETTINGS["policy"].has(name)
    gumbel = "gumbel" in traits
    counted, repeats = name == "boltzmann_gumbel", "repeated actions" in traits

    def memory() -> Any:
        if repeats:
            return exploration.Repeat(*jnp.zeros((2, spec.num_envs), jnp.int32))
        return jnp.ones(spec.num_actions, jnp.int32) if counted else None

    def draws(key: Key) -> exploration.Draw:
        keys = jax.random.split(key, spec.num_envs)
        return jax.vmap(lambda k: exploration.draw(k, spec.num_actions, gumbel, repeats))(keys)

    def remember(memory: Any, action: Array) -> Any:
        if not counted:
            return memory
        taken = jax.nn.one_hot(action, spec.num_actions, dtype=jnp.int32)
        return memory + jnp.sum(taken, axis=0)

    def choose(
        q_values: Array, memory: Any, draws: exploration.Draw, now: Now
    ) -> tuple[Array, Any]:
        epsilon = epsilon_at(config, now)
        if config.epsilon_ladder:
            epsilon = exploration.epsilon_ladder(epsilon, spec.num_envs, now.hyper.ladder_power)
        axis = 0 if jnp.ndim(epsilon) else None
        if repeats:
            # What was being repeated ends with the episode.
            going = memory._replace(left=jnp.where(now.ages == 0, 0, memory.left))
            ez = functools.partial(exploration.ez_greedy, power=now.hyper.repeat_power)
            return jax.vmap(ez, in_axes=(0, 0, axis, 0))(draws, q_values, epsilon, going)

        def one(draw: exploration.Draw, q: Array, epsilon: Array) -> Array:
            return _chosen(name, draw, q, epsilon, now.hyper.temperature, memory)

        action = jax.vmap(one, in_axes=(0, 0, axis))(draws, q_values, epsilon)
        return action, remember(memory, action)

    def explore(memory: Any, draws: exploration.Draw) -> tuple[Array, Any]:
        return draws.action, remember(memory, draws.action)

    def status(now: Now) -> dict[str, Array]:
        has = "epsilon" in traits
        return {"epsilon": epsilon_at(config, now) if has else jnp.float32(jnp.nan)}

    return Policy(memory, draws, choose, explore, status)


def _chosen(
    name: str, draw: exploration.Draw, q: Array, epsilon: Array, temperature: Any, counts: Any
) -> Array:
    """The action of one environment, by a policy that repeats none."""
    match name:
        case "epsilon_greedy":
            return exploration.epsilon_greedy(draw, q, epsilon)
        case "boltzmann":
            return exploration.boltzmann(draw, q, temperature)
        case "max_boltzmann":
            return exploration.max_boltzmann(draw, q, epsilon, temperature)
        case "boltzmann_gumbel":
            return exploration.boltzmann_gumbel(draw, q, counts, temperature)
        case "softmax":
            return exploration.boltzmann(draw, q, 1.0)
        case _:
            return exploration.greedy(q)


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
