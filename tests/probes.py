"""Probe environments whose values, episodes and transitions are known exactly.

Each isolates one thing that can go wrong: if the value of a constant reward is wrong, the loss is;
if only that of a delayed reward is, the bootstrap is; and so on.
"""

import functools

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

import dqx
from tests.shared import quickly

TIME_LIMIT = 5


@struct.dataclass
class State(environment.EnvState):
    mark: jax.Array  # drawn at the reset, int32
    time: jax.Array


@struct.dataclass
class Params(environment.EnvParams):
    max_steps_in_episode: int = 1_000_000


class Probe(environment.Environment):
    """Two actions, one step an episode, reward 1; subclasses change one thing each."""

    actions = 2
    width = 1  # of an observation
    marks = 1  # how many values the reset draws from
    time_limit = 1_000_000

    @property
    def default_params(self):
        return Params(max_steps_in_episode=self.time_limit)

    @property
    def num_actions(self):
        return self.actions

    def action_space(self, params):
        return spaces.Discrete(self.num_actions)

    def observation_space(self, params):
        return spaces.Box(-1e6, 1e6, (self.width,), jnp.float32)

    def reset_env(self, key, params):
        mark = jax.random.randint(key, (), 0, self.marks, jnp.int32)
        state = State(mark=mark, time=jnp.int32(0))
        return self.look(state), state

    def step_env(self, key, state, action, params):
        reward = jnp.asarray(self.reward(state, action), jnp.float32)
        state = state.replace(time=state.time + 1)
        return self.look(state), state, reward, self.is_terminated(state, params), {}

    def look(self, state):
        return jnp.zeros(1)

    def reward(self, state, action):
        return 1.0

    def is_terminated(self, state, params):
        return jnp.bool_(True)


class ConstantReward(Probe):
    """Q = 1."""


class ObservedReward(Probe):
    """The observation, -1 or 1, is the reward: Q = observation."""

    marks = 2

    def look(self, state):
        return (2.0 * state.mark - 1.0)[None]

    def reward(self, state, action):
        return 2.0 * state.mark - 1.0


class DelayedReward(Probe):
    """Two steps, observed as 0 and 1, reward 1 on the second: Q = gamma, then 1."""

    def look(self, state):
        return state.time.astype(jnp.float32)[None]

    def reward(self, state, action):
        return state.time

    def is_terminated(self, state, params):
        return state.time >= 2


class ChosenReward(Probe):
    """The action decides: Q = -1 for action 0 and 1 for action 1."""

    def reward(self, state, action):
        return 2.0 * action - 1.0


class MatchedReward(Probe):
    """Observation -1 asks for action 0 and 1 for action 1: reward 1 if matched, else -1."""

    marks = 2

    def look(self, state):
        return (2.0 * state.mark - 1.0)[None]

    def reward(self, state, action):
        return jnp.where(action == state.mark, 1.0, -1.0)


class Medley(Probe):
    """One of the five probes above an episode; the observation says which, and its own part.

    Its eight situations in order: constant; observed, -1 and 1; delayed, first and second step;
    chosen; matched, -1 and 1. The mark is the situation an episode begins in.
    """

    width = 8
    marks = 8

    def reset_env(self, key, params):
        obs, state = super().reset_env(key, params)
        state = state.replace(mark=jnp.where(state.mark == 4, 3, state.mark))
        return self.look(state), state

    def look(self, state):
        return jax.nn.one_hot(state.mark + ((state.mark == 3) & (state.time == 1)), 8)

    def reward(self, state, action):
        chosen = 2.0 * action - 1.0
        rewards = [1.0, -1.0, 1.0, state.time, 0.0, chosen, -chosen, chosen]
        return jnp.stack([jnp.asarray(r, jnp.float32) for r in rewards])[state.mark]

    def is_terminated(self, state, params):
        return (state.mark != 3) | (state.time >= 2)


class TwoRounds(Probe):
    """Two choices, of which the second observes the first (as 0 or 1; the start is 2).

    Only ``0, 1`` pays 3, the most there is; ``0, 0`` pays 0, ``1, 0`` pays 1 and ``1, 1`` pays 2.
    Source: keras-rl's environment TwoRoundDeterministicReward.
    """

    width = 3

    def look(self, state):
        return jax.nn.one_hot(jnp.where(state.time == 0, 2, state.mark), 3)

    def step_env(self, key, state, action, params):
        pays = jnp.array([[0.0, 3.0], [1.0, 2.0]])[state.mark, action]
        reward = jnp.where(state.time == 0, 0.0, pays)
        mark = jnp.where(state.time == 0, action, state.mark).astype(jnp.int32)
        state = state.replace(mark=mark, time=state.time + 1)
        return self.look(state), state, reward, self.is_terminated(state, params), {}

    def is_terminated(self, state, params):
        return state.time >= 2


class Blind(Probe):
    """Reward 1 a step, never terminates, cut by the time limit; nothing can be observed.

    There is one action, so that exactly one row in TIME_LIMIT of a replay ends an episode.
    """

    actions = 1
    time_limit = TIME_LIMIT

    def is_terminated(self, state, params):
        return jnp.bool_(False)


class ClockFace(Blind):
    """As Blind, but the step within the episode is observed on a face of TIME_LIMIT hours.

    The observation at the limit is that of the start, so whoever bootstraps at the limit goes
    round for ever (every value is 1 / (1 - gamma)), and whoever does not has TIME_LIMIT rewards.
    """

    actions = 2
    width = TIME_LIMIT

    def look(self, state):
        return jax.nn.one_hot(state.time % TIME_LIMIT, TIME_LIMIT)


class Ledger(Probe):
    """Episodes of a length drawn at the reset, 2 to 9 steps; the observation names the transition.

    The reward of a step is ``100 + length + time``, whatever is done. Odd lengths end by
    termination, even ones by truncation.
    """

    width = 2
    marks = 8

    def look(self, state):
        return jnp.stack([state.mark, state.time]).astype(jnp.float32)

    def reward(self, state, action):
        return 100.0 + ledger_length(state.mark) + state.time

    def is_terminated(self, state, params):
        length = ledger_length(state.mark)
        return (state.time >= length) & (length % 2 == 1)

    def is_truncated(self, state, params):
        length = ledger_length(state.mark)
        return (state.time >= length) & (length % 2 == 0)


def ledger_length(mark):
    return mark + 2


def ledger_return(length):
    """The sum of ``100 + length + time`` over ``time`` from 0 to ``length - 1``."""
    return 100 * length + length * length + length * (length - 1) // 2


def adapted(probe):
    """A probe class as the trainer sees it."""
    env = probe()
    return dqx.adapt(env, env.default_params)


@functools.cache
def registered(probe):
    """The name under which a probe class can be trained by `dqx.train`."""
    name = f"{probe.__name__}-probe"
    gymnax.register(name, probe)
    return name


def run_trainer(trainer, hyper, keys, warm_up, steps, compiled=quickly):
    """Warm-up and one segment of a trainer on a few lanes, in one program.

    Returns clock, lanes, episodes (total and length ``[lanes, steps, E]``) and metrics.
    """
    warm = functools.partial(trainer.warm_up, steps=warm_up)
    learn = functools.partial(trainer.segment, hyper=hyper, steps=steps)

    def run(keys):
        clock = trainer.start()
        lanes = jax.vmap(lambda key: trainer.init(key, hyper=hyper))(keys)
        outs = (None, 0, 0)
        clock, lanes, early = jax.vmap(warm, (None, 0), outs)(clock, lanes)
        clock, lanes, late, metrics = jax.vmap(learn, (None, 0), (*outs, 0))(clock, lanes)
        episodes = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), early, late)
        return clock, lanes, episodes, metrics

    return jax.tree.map(_numpy, compiled(run)(keys))


def _numpy(x):
    return x if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x)
