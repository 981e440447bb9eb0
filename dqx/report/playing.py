"""Greedy episodes of a trained agent, step by step: those of an evaluation, played once more.

An evaluation keeps sums alone; here every state is kept that a picture may be made of, the one an
episode ends in too.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import envs
from dqx.compute.build import make_agent
from dqx.compute.trained import TrainedAgent
from dqx.core import exploration
from dqx.core.environment import Environment, Step, adapt
from dqx.core.keys import Purpose, purpose_key
from dqx.core.types import Array, Key, PyTree
from dqx.core.wrappers import LimitedState, StackedState, StickyState, wrapped
from dqx.settings import Config
from dqx.settings.field import INT_END

# Steps of one call of the compiled program.
SEGMENT = 256


class Game(NamedTuple):
    """What pictures are made of: the environment itself, and its parameters in one run."""

    env: Any
    params: Any


class Played(NamedTuple):
    """A greedy episode of T steps.

    Attributes:
        times: int64 ``[N]``, rising from 0 to T: how many steps came before each state kept.
        states: of the environment itself, leaves ``[N, ...]``.
        seen: the observations that belong to them, ``[N, ...]``; the newest where they are stacked.
        q_values: float32 ``[T, A]``, before each step.
        actions: int32 ``[T]``.
        rewards: float32 ``[T]``.
        terminated: whether the environment ended the episode.
        truncated: whether the time limit did. Neither is true of an episode that was cut short.
    """

    times: np.ndarray
    states: PyTree
    seen: Array
    q_values: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool
    truncated: bool


def game_of(config: Config, inputs: Mapping[str, float]) -> Game:
    """The environment that a configuration describes, without what is put around it.

    Args:
        config: validated.
        inputs: values of the environment's parameters that are inputs of programs, by short names.
    """
    given = {**dict(config.env_options), **inputs}
    known = {option.name for option in envs.describe(config.env).options}
    options = {name: value for name, value in given.items() if name in known}
    others = {name: value for name, value in given.items() if name not in known}
    env, params = envs.configure(config.env, options, others)
    if config.time_limit and hasattr(params, "max_steps_in_episode"):
        # As `wrappers.time_limit` sets it: what is observed and drawn may hang on it.
        steps = config.time_limit * config.action_repeat
        params = params.replace(max_steps_in_episode=min(steps, INT_END - 1))
    return Game(env, params)


def play(
    agent: TrainedAgent,
    game: Game,
    key: Key,
    step: int,
    *,
    episodes: int = 1,
    max_steps: int | None = None,
    most: int = 300,
    tell: Callable[[int, int], None] = lambda over, step: None,
) -> list[Played]:
    """Plays the first episodes of the evaluation that a run has after ``step`` steps.

    Actions, keys and what is around the environment are those of `core.evaluation`.

    Args:
        agent: of the run.
        game: of its configuration.
        key: of the run's seed.
        step: environment steps trained.
        episodes: how many; more than ``eval_episodes`` make it an evaluation of so many.
        max_steps: cuts longer episodes short; None plays them to their end.
        most: states kept of an episode at most, evenly spaced from the first to the last.
        tell: ``tell(over, step)`` is called now and then: episodes over, steps of each so far.
    """
    program = _Program(agent, game, episodes)
    key = jax.random.fold_in(purpose_key(key, Purpose.EVALUATION), step)
    reset_key, step_key = jax.random.split(key)
    now, first = program.start(agent.params, reset_key)
    logs = [
        _Log(jax.tree.map(lambda leaf, k=k: leaf[k][None], _on_host(first)), most)
        for k in range(episodes)
    ]
    while waiting := sum(log.running(max_steps) for log in logs):
        tell(episodes - waiting, int(now[0]))
        now, steps = program.segment(agent.params, step_key, now)
        steps = _on_host(steps)
        for k, log in enumerate(logs):
            if log.running(max_steps):
                log.add(jax.tree.map(lambda leaf, k=k: leaf[:, k], steps), max_steps)
    return [log.played() for log in logs]


class _Steps(NamedTuple):
    """What a segment tells of each step and each episode kept; leading axes ``[steps, K]``."""

    after: Any
    q_values: Any
    action: Any
    reward: Any
    terminated: Any
    truncated: Any


class _Program:
    """The compiled functions that play all episodes of an evaluation, and tell of the first K."""

    def __init__(self, agent: TrainedAgent, game: Game, episodes: int) -> None:
        env, num = agent.env, max(episodes, agent.config.eval_episodes)
        q_values = make_agent(agent.config, env).q_values
        ends = _ends(agent.config, game)
        newest = _newest(env, game)

        def kept(tree: PyTree) -> PyTree:
            return jax.tree.map(lambda leaf: leaf[:episodes], tree)

        def start(params: Any, key: Key) -> Any:
            obs, state = jax.vmap(env.reset)(jax.random.split(key, num))
            return (jnp.int32(0), obs, state), kept((_innermost(state), newest(obs)))

        def body(params: Any, key: Key, carry: Any) -> Any:
            time, obs, state = carry
            keys = jax.random.split(jax.random.fold_in(key, time), num)
            q = q_values(params, obs)
            action = jax.vmap(exploration.greedy)(q)
            # The present stands in for a reset: an episode that is over is not read again.
            step = jax.vmap(env.step)(keys, state, action, (obs, state))
            after = jax.vmap(ends)(keys[:episodes], kept(state), action[:episodes])
            seen = kept(newest(step.final_obs))
            told = kept((q, action, step.reward, step.terminated, step.truncated))
            return (time + 1, step.obs, step.state), _Steps((after, seen), *told)

        def segment(params: Any, key: Key, carry: Any) -> Any:
            return jax.lax.scan(lambda c, _: body(params, key, c), carry, None, length=SEGMENT)

        self.start: Callable[..., Any] = jax.jit(start)
        self.segment: Callable[..., Any] = jax.jit(segment)


class _Log:
    """Collects one episode; of ever more states it keeps every second."""

    def __init__(self, first: PyTree, most: int) -> None:
        self._most, self._every, self._length = max(most, 2), 1, 0
        self._kept = [(np.zeros(1, np.int64), first)]
        self._told: list[_Steps] = []
        self._over = False

    def running(self, max_steps: int | None) -> bool:
        return not self._over and (max_steps is None or self._length < max_steps)

    def add(self, steps: _Steps, max_steps: int | None) -> None:
        """Takes the steps of a segment, up to the episode's end."""
        done = steps.terminated | steps.truncated
        count = int(np.argmax(done)) + 1 if done.any() else len(done)
        self._over = bool(done.any())
        if max_steps is not None and self._length + count > max_steps:
            count, self._over = max_steps - self._length, False
        self._told.append(jax.tree.map(lambda leaf: leaf[:count], steps._replace(after=None)))
        times = self._length + 1 + np.arange(count)
        self._length += count
        while self._length // self._every + 2 > self._most:
            self._every *= 2
        last = self._length if not self.running(max_steps) else -1
        self._kept = [self._thinned(*part, last) for part in self._kept]
        after = jax.tree.map(lambda leaf: leaf[:count], steps.after)
        self._kept.append(self._thinned(times, after, last))

    def _thinned(self, times: np.ndarray, states: PyTree, last: int) -> tuple[np.ndarray, PyTree]:
        index = np.flatnonzero((times % self._every == 0) | (times == last))
        return times[index], jax.tree.map(lambda leaf: leaf[index], states)

    def played(self) -> Played:
        times, parts = zip(*self._kept, strict=True)
        states, seen = jax.tree.map(_joined, *parts)
        told = jax.tree.map(_joined, *self._told)
        return Played(
            times=np.concatenate(times),
            states=states,
            seen=seen,
            q_values=told.q_values,
            actions=told.action,
            rewards=told.reward,
            terminated=bool(told.terminated[-1]),
            truncated=bool(told.truncated[-1]),
        )


def _on_host(tree: PyTree) -> PyTree:
    """Arrays as NumPy has them, where every other shape is not compiled anew; keys stay keys."""

    def moved(leaf: Any) -> Any:
        return leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else np.asarray(leaf)

    return jax.tree.map(moved, tree)


def _joined(*leaves: Any) -> Any:
    is_host = isinstance(leaves[0], np.ndarray)
    return np.concatenate(leaves) if is_host else jnp.concatenate(leaves)


def _innermost(state: PyTree) -> PyTree:
    """The state of the environment itself, without what wrappers add."""
    while isinstance(state, StackedState | LimitedState | StickyState):
        state = state.inner
    return state


def _newest(env: Environment, game: Game) -> Callable[[Array], Array]:
    """Takes the newest of stacked observations, with any leading axes."""
    count = env.wrappers.frame_stack
    width = env.obs_shape[-1] // count if env.obs_shape else 0
    return (lambda obs: obs[..., -width:]) if count > 1 else (lambda obs: obs)


class _Ending(NamedTuple):
    """A state, and the state after the last step before any reset."""

    state: PyTree
    after: PyTree


def _ends(config: Config, game: Game) -> Callable[[Key, PyTree, Array], PyTree]:
    """``ends(key, state, action)``: the environment's own state after a step, before any reset.

    A step of an environment gives the next episode's state where one ends. So that step is taken
    once more, without what only counts or only observes (the time limit, the stack), around an
    environment that also tells the state it ends in; XLA computes what both share once.
    """
    base = adapt(game.env, game.params)

    def step(key: Key, now: _Ending, action: Array, fresh: Any) -> Step:
        _, found, *_ = game.env.step_env(key, now.state, action, game.params)
        after = jax.tree.map(_like, found, now.state)
        taken = base.step(key, now.state, action, (fresh[0], fresh[1].state))
        return taken._replace(state=_Ending(taken.state, after))

    bare = wrapped(
        base._replace(step=step),
        dataclasses.replace(config, time_limit=0, frame_stack=1),
    )
    nothing = jnp.zeros(base.obs_shape, base.obs_dtype)

    def ends(key: Key, state: PyTree, action: Array) -> PyTree:
        while isinstance(state, StackedState | LimitedState):
            state = state.inner
        ending = _Ending(_innermost(state), _innermost(state))
        sticks = isinstance(state, StickyState)
        before = StickyState(ending, state.action) if sticks else ending
        after = bare.step(key, before, action, (nothing, before)).state
        return (after.inner if sticks else after).after

    return ends


def _like(leaf: Any, like: Any) -> Array:
    return jax.lax.convert_element_type(jnp.broadcast_to(leaf, like.shape), like.dtype)
