"""Environments as tables: every reachable state, and all that each action may lead to.

An environment takes part by two methods beside `step_env`, see `Enumerable`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments.environment import Environment
from gymnax.environments.misc import frozen_lake, rooms

MAX_STATES = 2_000_000
_OUTCOMES_AT_ONCE = 2**20


class Outcomes(NamedTuple):
    """All that one step from one state by one action may lead to; K outcomes.

    Attributes:
        probability: [K], summing to 1; an outcome of probability 0 does not count.
        state: the next states, leaves [K, ...]; `time` is ignored.
        reward: [K].
        terminated: bool [K].
    """

    probability: Any
    state: Any
    reward: Any
    terminated: Any


@runtime_checkable
class Enumerable(Protocol):
    """The two methods by which an environment offers its states.

    They run under `jax.enable_x64`, `outcomes` under `jit` and `vmap` too: dtypes of state fields
    must be given explicitly, and what is not float32 gains precision. A state has integer and
    bool fields only. Apart from `time`, which nothing but the time limit may read, it holds all
    that a step depends on.
    """

    def start_states(self, params: Any) -> tuple[Any, Any]:
        """States a reset may give, leaves [S, ...], and their probabilities [S] (0 is allowed)."""

    def outcomes(self, state: Any, action: jax.Array, params: Any) -> Outcomes:
        """What `step_env` may lead to; `action` is int32 []."""


class Model(NamedTuple):
    """A finite Markov decision process: N states, A actions, M outcomes of a state and an action.

    The states are those in which an agent may have to act: reachable from a start within any
    number of steps, terminal ones left out. Arrays are NumPy's.

    Attributes:
        states: the environment's states, leaves [N, ...], with `time` 0; starts come first.
        start: float64 [N], probabilities of a reset.
        pair: int32 [M], state * A + action, ascending.
        next_state: int32 [M], an index of `states`; 0 where terminated.
        probability: float64 [M], summing to 1 over each pair.
        reward: float64 [M].
        terminated: bool [M].
        num_actions: A.
        time_limit: steps after which an episode is truncated.
    """

    states: Any
    start: np.ndarray
    pair: np.ndarray
    next_state: np.ndarray
    probability: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    num_actions: int
    time_limit: int

    @property
    def num_states(self) -> int:
        """N."""
        return len(self.start)


def is_enumerable(env: Environment) -> bool:
    """Whether `build_model` takes `env`."""
    return type(env) in _GYMNAX or isinstance(env, Enumerable)


def build_model(env: Environment, params: Any, *, max_states: int = MAX_STATES) -> Model:
    """List the states of `env` breadth first, from the starts along every possible outcome.

    Takes environments that are `Enumerable`, and FrozenLake and FourRooms of gymnax.
    Raises ValueError for any other, for state fields that are no integers, for probabilities that
    do not sum to 1, and for more than `max_states` states.
    """
    if not is_enumerable(env):
        raise ValueError(
            f"{env.name} has no enumerable states, so no exact solution: give it the methods "
            "start_states and outcomes of envs.tabular.Enumerable, or choose Taxi, WallDodge, "
            "FrozenLake-misc or FourRooms-misc"
        )
    source: Any = _GYMNAX[type(env)](env) if type(env) in _GYMNAX else env
    with jax.enable_x64(True):
        starts, start = jax.device_get(source.start_states(params))
        starts = jax.tree.map(lambda leaf: leaf[start > 0], starts)
        start = start[start > 0]
        listing = _Listing(env.name, starts, max_states)
        first = listing.indices(starts)
        parts = []
        done = 0
        expand = _expansion(source, env.num_actions, params)
        batch = _batch_size(expand, starts, env.num_actions)
        while done < listing.count:
            size = min(batch, listing.count - done)
            parts.append(_expanded(env, listing, expand, done, size))
            done += size
    pair, next_state, probability, reward, terminated = map(
        np.concatenate, zip(*parts, strict=True)
    )
    _check_sums(env, "outcomes", np.bincount(pair, probability))
    _check_sums(env, "start_states", np.sum(start, keepdims=True))
    return Model(
        states=listing.states(slice(0, listing.count)),
        start=np.bincount(first, start, listing.count),
        pair=pair,
        next_state=next_state,
        probability=probability,
        reward=reward,
        terminated=terminated,
        num_actions=env.num_actions,
        time_limit=int(params.max_steps_in_episode),
    )


class _Listing:
    """The states found so far, each once, as rows of integers in the order of discovery."""

    def __init__(self, name: str, example: Any, max_states: int) -> None:
        leaves, self._structure = jax.tree.flatten(_timeless(example))
        for path, leaf in jax.tree_util.tree_leaves_with_path(example):
            if not np.issubdtype(leaf.dtype, np.integer) and leaf.dtype != bool:
                field = jax.tree_util.keystr(path)
                raise ValueError(
                    f"{name} has no enumerable states: its state{field} is {leaf.dtype}, and only "
                    "integers and bool can be listed"
                )
        # Wider integers than JAX has by default come from running under enable_x64.
        narrow = {np.dtype(np.int64): np.int32, np.dtype(np.uint64): np.uint32}
        self._types = [narrow.get(leaf.dtype, leaf.dtype) for leaf in leaves]
        self._shapes = [leaf.shape[1:] for leaf in leaves]
        self._name, self._max_states = name, max_states
        self._index: dict[bytes, int] = {}

    @property
    def count(self) -> int:
        return len(self._index)

    def indices(self, states: Any) -> np.ndarray:
        """Index of each of `states`, leaves [n, ...]; int32 [n]. New ones are added."""
        leaves = jax.tree.leaves(_timeless(states))
        columns = [np.asarray(leaf, np.int64).reshape(len(leaf), -1) for leaf in leaves]
        rows = np.ascontiguousarray(np.concatenate(columns, axis=1))
        keys = rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize)))[:, 0]
        unique, inverse = np.unique(keys, return_inverse=True)
        found = [self._index.setdefault(key.tobytes(), len(self._index)) for key in unique]
        if self.count > self._max_states:
            raise ValueError(
                f"{self._name} has more than {self._max_states:,} reachable states; raise "
                "max_states if memory allows, or make the environment smaller"
            )
        return np.array(found, np.int32)[inverse]

    def states(self, part: slice) -> Any:
        """The states of some indices, leaves [n, ...]."""
        keys = b"".join(list(self._index)[part])
        widths = [int(np.prod(shape)) for shape in self._shapes]
        rows = np.frombuffer(keys, np.int64).reshape(-1, sum(widths))
        columns = np.split(rows, np.cumsum(widths)[:-1], axis=1)
        leaves = [
            column.astype(dtype).reshape(-1, *shape)
            for column, dtype, shape in zip(columns, self._types, self._shapes, strict=True)
        ]
        return jax.tree.unflatten(self._structure, leaves)


def _expansion(source: Any, num_actions: int, params: Any) -> Callable[[Any], Outcomes]:
    """A compiled function from states [n] to outcomes [n, A, K]."""
    actions = jnp.arange(num_actions, dtype=jnp.int32)

    def expand(states: Any) -> Outcomes:
        one = jax.vmap(lambda state, action: source.outcomes(state, action, params), (None, 0))
        return jax.vmap(lambda state: one(state, actions))(states)

    return jax.jit(expand)


def _batch_size(expand: Callable[[Any], Outcomes], example: Any, num_actions: int) -> int:
    count = jax.eval_shape(expand, example).probability.shape[2]
    return max(1, _OUTCOMES_AT_ONCE // (count * num_actions))


def _expanded(
    env: Environment, listing: _Listing, expand: Callable[[Any], Outcomes], begin: int, size: int
) -> tuple[np.ndarray, ...]:
    """Outcomes of the states from `begin`: pair, next state, probability, reward, terminated."""
    # Filled up to a power of two with the last state, so that few sizes are compiled.
    states = listing.states(slice(begin, begin + size))
    fill = np.minimum(np.arange(1 << (size - 1).bit_length()), size - 1)
    outcomes = jax.device_get(expand(jax.tree.map(lambda leaf: leaf[fill], states)))
    probability = np.asarray(outcomes.probability[:size], np.float64)
    kept = np.nonzero(probability)
    terminated = outcomes.terminated[:size][kept]
    next_state = np.zeros(len(terminated), np.int32)
    alive = tuple(axis[~terminated] for axis in kept)
    if len(alive[0]):
        next_state[~terminated] = listing.indices(jax.tree.map(lambda x: x[alive], outcomes.state))
    pair = (begin + kept[0]) * env.num_actions + kept[1]
    reward = np.asarray(outcomes.reward[:size][kept], np.float64)
    return pair.astype(np.int32), next_state, probability[kept], reward, terminated


def _check_sums(env: Environment, method: str, sums: np.ndarray) -> None:
    worst = sums[np.argmax(np.abs(sums - 1))]
    if not abs(worst - 1) < 1e-6:
        raise ValueError(
            f"the probabilities that {env.name}.{method} gives sum to {worst:.6g}; they must sum "
            "to 1"
        )


def _timeless(state: Any) -> Any:
    if not hasattr(state, "time"):
        return state
    return state.replace(time=np.zeros(np.shape(state.time), np.int32))


class _FrozenLake:
    """gymnax's FrozenLake: the intended direction, or either of those beside it."""

    def __init__(self, env: frozen_lake.FrozenLake) -> None:
        self._env = env
        self._dry = copy.copy(env)
        self._dry.is_slippery = False

    def start_states(self, params: Any) -> tuple[Any, Any]:
        # The start is the map's: the key is not read.
        _, state = self._env.reset_env(jax.random.key(0), params)
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], state), jnp.ones(1)

    def outcomes(self, state: Any, action: jax.Array, params: Any) -> Outcomes:
        intended = self._env.success_rate if self._env.is_slippery else 1.0
        beside = (1 - intended) / 2
        taken = (action + jnp.array([0, -1, 1], jnp.int32)) % 4
        return _by_taken(self._dry, state, taken, params, jnp.array([intended, beside, beside]))


class _FourRooms:
    """gymnax's FourRooms: the intended direction, or with some probability any of the four."""

    def __init__(self, env: rooms.FourRooms) -> None:
        self._env = env

    def start_states(self, params: Any) -> tuple[Any, Any]:
        cells = [tuple(cell) for cell in np.asarray(self._env.coords)]
        goals = cells if params.resample_goal_pos else [tuple(np.asarray(self._env.goal_fixed))]
        fixed = [tuple(np.asarray(self._env.pos_fixed))]
        pairs, probability = [], []
        for goal in goals:
            others = [c for c in cells if c != goal] if params.resample_init_pos else fixed
            pairs += [(position, goal) for position in others]
            probability += [1 / (len(goals) * len(others))] * len(others)
        position, goal = np.moveaxis(np.array(pairs, np.int32), 1, 0)
        time = np.zeros(len(pairs), np.int32)
        return rooms.EnvState(pos=position, goal=goal, time=time), np.array(probability)

    def outcomes(self, state: Any, action: jax.Array, params: Any) -> Outcomes:
        at_random = params.fail_prob * 4 / 3
        taken = jnp.arange(4, dtype=jnp.int32)
        probability = at_random / 4 + (1 - at_random) * (taken == action)
        return _by_taken(self._env, state, taken, params.replace(fail_prob=-1.0), probability)


def _by_taken(env: Any, state: Any, taken: jax.Array, params: Any, probability: Any) -> Outcomes:
    """Outcomes [K] of the actions [K] that are really taken, in an environment without chance."""
    # No step depends on the key, which the steps still ask for.
    step = jax.vmap(lambda one: env.step_env(jax.random.key(0), state, one, params))
    _, states, reward, terminated, _ = step(taken)
    return Outcomes(probability, states, reward, terminated)


_GYMNAX: dict[type, Callable[[Any], Any]] = {
    frozen_lake.FrozenLake: _FrozenLake,
    rooms.FourRooms: _FourRooms,
}
