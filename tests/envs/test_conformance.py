"""The contract test accepts what keeps the contract and names the clause that is broken."""

import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces

from envs.conformance import ConformanceError, check_environment

FAST = {"num_steps": 40}


@struct.dataclass
class State(environment.EnvState):
    place: jax.Array
    key: jax.Array
    time: jax.Array


@struct.dataclass
class Params(environment.EnvParams):
    stride: float = 0.25
    max_steps_in_episode: int = 6


class Walk(environment.Environment):
    """A noisy walk on [-1, 1] that ends at the right border; its state carries a key."""

    def step_env(self, key, state, action, params):
        noise = 0.1 * jax.random.normal(key, (), jnp.float32)
        place = jnp.clip(state.place + (2 * action - 1) * params.stride + noise, -1.0, 1.0)
        state = state.replace(place=place, time=state.time + 1)
        obs = self.observe(key, state, action, params)
        return obs, state, -jnp.abs(place), self.is_terminated(state, params), {}

    def reset_env(self, key, params):
        place = jax.random.uniform(key, (), jnp.float32, -0.5, 0.5)
        state = State(place=place, key=jax.random.fold_in(key, 1), time=jnp.int32(0))
        return self.observe(key, state, None, params), state

    def observe(self, key, state, action, params):
        return jnp.stack([state.place, jnp.float32(1.0)])

    def is_terminated(self, state, params):
        return state.place >= 0.99

    num_actions = 2

    def action_space(self, params=None):
        return spaces.Discrete(2)

    def observation_space(self, params):
        return spaces.Box(-1.0, 1.0, (2,), jnp.float32)


class BrokenStep(Walk):
    """Changes one value that `step_env` returns; a subclass says which and how."""

    index = 0

    def change(self, value, state, params):
        raise NotImplementedError

    def step_env(self, key, state, action, params):
        values = list(super().step_env(key, state, action, params))
        values[self.index] = self.change(values[self.index], state, params)
        return tuple(values)


class BrokenResult(Walk):
    """Changes the six values of `step`."""

    def change(self, values, reset):
        raise NotImplementedError

    def step(self, key, state, action, params=None):
        values = list(super().step(key, state, action, params))
        return self.change(values, self.reset_env(jax.random.key(0), params))


def broken(base, **members):
    return type("Broken", (base,), members)()


def changed_step(index, change):
    return broken(
        BrokenStep,
        index=index,
        change=lambda self, value, state, params: change(value, state, params),
    )


def changed_result(change):
    return broken(BrokenResult, change=lambda self, values, reset: change(values, reset))


def put(values, index, value):
    return (*values[:index], value, *values[index + 1 :])


def final(values, observation):
    return put(values, 5, {**values[5], "final_observation": observation})


def done(values):
    return values[3] | values[4]


def fixed_start(self, key, params):
    return Walk.reset_env(self, jax.random.key(1), params)


def start_at(place_dtype=jnp.float32, obs_dtype=jnp.float32, shape=(2,)):
    def reset_env(self, key, params):
        obs, state = Walk.reset_env(self, key, params)
        return jnp.resize(obs, shape).astype(obs_dtype), state.replace(
            place=state.place.astype(place_dtype)
        )

    return reset_env


def counting():
    calls = itertools.count()
    return changed_step(2, lambda reward, state, params: reward + next(calls))


def python_branch(value, state, params):
    return value if params.stride > 0 else -value


def uncompiled_only(value, state, params):
    return value if isinstance(value, jax.core.Tracer) else value + 1.0


def lane_mean(value, state, params):
    """A value that depends on the other lanes: the mean over whatever axis vmap adds."""

    @jax.custom_batching.custom_vmap
    def mean(x):
        return x

    @mean.def_vmap
    def _(axis_size, in_batched, x):
        return jnp.full_like(x, x.mean()), True

    return mean(value)


def only_first_stride(value, state, params):
    """A value that mistakes an axis that vmap adds to params for data."""

    @jax.custom_batching.custom_vmap
    def scale(x):
        return x

    @scale.def_vmap
    def _(axis_size, in_batched, x):
        return x * jnp.arange(axis_size), True

    return value + scale(jnp.asarray(params.stride) * 1.0)


BROKEN = {
    "continuous actions": (
        broken(Walk, action_space=lambda self, params=None: spaces.Box(-1.0, 1.0, (1,))),
        "spaces",
        "must be Discrete",
    ),
    "another number of actions": (broken(Walk, num_actions=3), "spaces", "num_actions is 3"),
    "dictionary observations": (
        broken(Walk, observation_space=lambda self, params: spaces.Dict({})),
        "spaces",
        "must be Box or Discrete",
    ),
    "reset of another shape": (
        broken(Walk, reset_env=start_at(shape=(3,))),
        "shapes",
        r"observation of reset is float32\[3\], expected float32\[2\]",
    ),
    "reset of another dtype": (
        broken(Walk, reset_env=start_at(obs_dtype=jnp.int32)),
        "shapes",
        r"observation of reset is int32\[2\]",
    ),
    "step of another shape": (
        changed_step(0, lambda obs, *_: obs[:1]),
        "shapes",
        r"observation of step_env is float32\[1\]",
    ),
    "state leaf of another dtype": (
        broken(Walk, reset_env=start_at(place_dtype=jnp.int32)),
        "shapes",
        r"the state of step_env.place is float32\[\], expected int32",
    ),
    "state of another structure": (
        changed_step(1, lambda state, *_: (state,)),
        "shapes",
        "state of step_env has the structure",
    ),
    "integer reward": (
        changed_step(2, lambda reward, *_: jnp.int32(1)),
        "shapes",
        r"reward of step_env is int32\[\], expected float32",
    ),
    "vector reward": (
        changed_step(2, lambda reward, *_: reward[None]),
        "shapes",
        r"reward of step_env is float32\[1\]",
    ),
    "float truncated": (
        changed_result(lambda values, _: put(values, 4, values[4] * 1.0)),
        "shapes",
        r"truncated is float32\[\], expected bool",
    ),
    "five values": (
        changed_result(lambda values, _: (*values[:3], done(values), values[5])),
        "shapes",
        "step must return six values",
    ),
    "no final observation": (
        changed_result(lambda values, _: put(values, 5, {})),
        "final observation",
        "no entry final_observation",
    ),
    "key ignored by reset": (broken(Walk, reset_env=fixed_start), "reset keys", "the same start"),
    "hidden counter": (counting(), "determinism", "different results"),
    "different when compiled": (changed_step(2, uncompiled_only), "jit", "differ"),
    "branch on a traced value": (
        changed_step(2, lambda value, state, _: value if state.place > 0 else -value),
        "shapes",
        "TracerBoolConversionError",
    ),
    "branch on params": (changed_step(2, python_branch), "shapes", "TracerBoolConversionError"),
    "lanes that mix": (changed_step(2, lane_mean), "vmap", "differs from the same call alone"),
    "params that do not vmap": (changed_step(2, only_first_stride), "params", "changes the result"),
    "reward NaN at the border": (
        changed_step(2, lambda reward, *_: jnp.where(reward < -0.9, jnp.nan, reward)),
        "reward",
        "not finite",
    ),
    "observation outside": (
        changed_step(0, lambda obs, *_: obs * 1.5),
        "observation space",
        "outside",
    ),
    "observation NaN": (
        changed_step(0, lambda obs, *_: jnp.where(obs > 0.9, jnp.nan, obs)),
        "observation space",
        "outside",
    ),
    "reward of step differs": (
        changed_result(lambda values, _: put(values, 2, values[2] + 1.0)),
        "step",
        "reward of step",
    ),
    "terminated where done": (
        changed_result(lambda values, _: put(values, 3, done(values))),
        "step",
        "terminated of step",
    ),
    "final observation after the reset": (
        changed_result(lambda values, _: final(values, values[0])),
        "final observation",
        "not the observation that step_env returns",
    ),
    "observation not reset": (
        changed_result(lambda values, _: put(values, 0, values[5]["final_observation"])),
        "reset",
        "not those of reset_env",
    ),
    "one start for every reset": (
        changed_result(
            lambda values, reset: put(
                values,
                1,
                jax.tree.map(lambda x, y: jnp.where(done(values), x, y), reset[1], values[1]),
            )
        ),
        "reset",
        "not those of reset_env",
    ),
    "state lost within an episode": (
        changed_result(
            lambda values, _: put(values, 1, values[1].replace(place=values[1].place * 0.5))
        ),
        "step",
        "within an episode",
    ),
    "time limit called termination": (
        changed_step(
            3,
            lambda ended, state, params: ended | (state.time + 1 >= params.max_steps_in_episode),
        ),
        "time limit",
        "terminated depends on max_steps_in_episode",
    ),
    "time limit one step late": (
        broken(
            Walk, is_truncated=lambda self, state, params: state.time > params.max_steps_in_episode
        ),
        "time limit",
        "truncated is not true exactly",
    ),
    "no time limit": (
        broken(Walk, is_truncated=lambda self, state, params: state.time < 0),
        "time limit",
        "truncated is not true exactly",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("case", BROKEN)
def test_each_broken_environment_is_caught_by_its_clause(case):
    env, clause, message = BROKEN[case]
    with pytest.raises(ConformanceError, match=message) as caught:
        check_environment(env, Params(), **FAST)
    assert caught.value.clause == clause
    assert isinstance(caught.value, AssertionError)
    assert f"{env.name} breaks the clause '{clause}'" in str(caught.value)


def test_a_small_sound_environment_passes():
    check_environment(Walk(), Params(), **FAST)


def test_a_fixed_start_must_be_announced_and_true():
    check_environment(
        broken(Walk, reset_env=fixed_start), Params(), deterministic_reset=True, **FAST
    )
    with pytest.raises(ConformanceError, match="different keys gave different starts"):
        check_environment(Walk(), Params(), deterministic_reset=True, **FAST)


def test_params_without_a_time_limit_are_refused():
    with pytest.raises(ConformanceError, match="field max_steps_in_episode"):
        check_environment(Walk(), {"stride": 0.25}, **FAST)


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="num_steps is 0; it must be at least 1"):
        check_environment(Walk(), Params(), num_steps=0)


def test_time_limit_of_the_default_is_reached():
    """A limit that only shows beyond the short ones is still found by the long rollout."""

    def is_truncated(self, state, params):
        limit = params.max_steps_in_episode
        return jnp.where(limit > 3, state.time >= limit - 1, state.time >= limit)

    with pytest.raises(ConformanceError, match=r"truncated is not true exactly.*limit 6"):
        check_environment(broken(Walk, is_truncated=is_truncated), Params(), **FAST)


class WrongShape(Walk):
    def observe(self, key, state, action, params):
        return state.place


class WrongType(Walk):
    def observe(self, key, state, action, params):
        return jnp.stack([state.place, 1.0]).astype(jnp.float16)


class PythonIf(Walk):
    def is_terminated(self, state, params):
        return jnp.bool_(True) if state.place >= 0.99 else jnp.bool_(False)


class NumPyCosine(Walk):
    def reset_env(self, key, params):
        obs, state = super().reset_env(key, params)
        return obs * np.cos(params.stride), state


class CountedResets(Walk):
    resets = 0

    def reset_env(self, key, params):
        self.resets += 1
        obs, state = super().reset_env(key, params)
        return obs, state.replace(place=jnp.float32(self.resets))


class BeyondTheBorder(Walk):
    def observe(self, key, state, action, params):
        return jnp.stack([jnp.float32(0.0), 2.0 + 0.0 * state.place])


class RootOfLess(Walk):
    def step_env(self, key, state, action, params):
        obs, state, _, terminated, info = super().step_env(key, state, action, params)
        return obs, state, jnp.sqrt(jnp.float32(1.0) - state.time), terminated, info


class WholeReward(Walk):
    def step_env(self, key, state, action, params):
        obs, state, _, terminated, info = super().step_env(key, state, action, params)
        return obs, state, jnp.where(terminated, 1, 0), terminated, info


class TimeIsUp(Walk):
    def is_terminated(self, state, params):
        return state.time >= params.max_steps_in_episode


class TooLate(Walk):
    def is_truncated(self, state, params):
        return state.time > params.max_steps_in_episode


class Forgetful(Walk):
    def reset_env(self, key, params):
        obs, state = super().reset_env(key, params)
        return obs, {"place": state.place, "time": state.time}

    def step_env(self, key, state, action, params):
        state = {"place": state["place"]}
        return jnp.ones(2), state, jnp.float32(0.0), jnp.bool_(False), {}


class Steering(Walk):
    def action_space(self, params=None):
        return spaces.Box(-1.0, 1.0, (1,))


class OldStyle(Walk):
    def step_env(self, key, state, action, params):
        return super().step_env(key, state, action, params)[:4]


class Outsourced(Walk):
    def is_terminated(self, state, params):
        like = jax.ShapeDtypeStruct((), jnp.bool_)
        return jax.pure_callback(lambda place, stride: place > 1 - stride, like, 0.0, params.stride)


MESSAGES = {
    WrongShape: (
        "'shapes': the observation of reset is float32[], expected float32[2] as "
        "observation_space has it"
    ),
    WrongType: (
        "'shapes': the observation of reset is float16[2], expected float32[2] as "
        "observation_space has it"
    ),
    PythonIf: (
        "'shapes': step_env fails in test_conformance.py, line {line}, with "
        "TracerBoolConversionError: `if`, `while`, `and`, `or` and `not` of Python cannot look at "
        "a traced value; use jnp.where, jax.lax.cond, &, | or ~"
    ),
    NumPyCosine: (
        "'shapes': reset_env fails in test_conformance.py, line {line}, with "
        "TracerArrayConversionError: NumPy cannot look at a traced value; use the same function of "
        "jax.numpy"
    ),
    CountedResets: (
        "'determinism': twice the same key gave different results: the state of reset_env.place is "
        "5.0 and 6.0; everything must follow from the arguments, not from Python's random or what "
        "was changed by an earlier call"
    ),
    BeyondTheBorder: (
        "'observation space': an observation lies outside its space: element 1 is 2, not within -1 "
        "and 1 (step 1 of random play in lane 0, time limit 6)"
    ),
    RootOfLess: (
        "'reward': the reward is not finite but nan (step 2 of random play in lane 0, time limit 6)"
    ),
    WholeReward: (
        "'shapes': the reward of step_env is int32[], expected float32[] as the contract has it"
    ),
    TimeIsUp: (
        "'time limit': terminated depends on max_steps_in_episode; a time limit is truncation "
        "(step 6 of random play in lane 0, time limit 6)"
    ),
    TooLate: (
        "'time limit': truncated is not true exactly on step max_steps_in_episode: it is False on "
        "step 6 of an episode (step 6 of random play in lane 0, time limit 6)"
    ),
    Forgetful: (
        "'shapes': the state of step_env has the structure PyTreeDef({{'place': *}}), not "
        "PyTreeDef({{'place': *, 'time': *}}) as reset_env gives it"
    ),
    Steering: (
        "'spaces': action_space is continuous, Box(low=-1.0, high=1.0, shape=(1,), dtype=float32); "
        "it must be Discrete"
    ),
    OldStyle: (
        "'shapes': step_env must return five values: obs, state, reward, terminated, info; it "
        "returns 4"
    ),
    Outsourced: (
        "'params': vmap over the floats of params fails in test_conformance.py, line {line}, with "
        "NotImplementedError: {cause}"
    ),
}


@pytest.mark.parametrize("broken_class", MESSAGES)
def test_a_quick_check_names_what_is_broken_in_one_line(broken_class):
    with pytest.raises(ConformanceError) as caught:
        check_environment(broken_class(), Params(), quick=True)
    # Where a line is named, it is the last one of the class; JAX's own words are its own.
    source, start = inspect.getsourcelines(broken_class)
    cause = str(caught.value.__cause__).partition("\n")[0]
    message = MESSAGES[broken_class].format(line=start + len(source) - 1, cause=cause)
    assert str(caught.value) == f"{broken_class.__name__} breaks the clause {message}"
    assert "\n" not in str(caught.value)


class Remembering(Walk):
    """Traced to another program when it has been before, but to one that gives the same."""

    ones = None

    def reset_env(self, key, params):
        obs, state = super().reset_env(key, params)
        if self.ones is None:
            self.ones = np.ones(2, np.float32)
            return obs, state
        return obs * self.ones, state


def numpy_bounds(self, params):
    high = np.array([4 * params.stride, 1.0])
    return spaces.Box(-high, high, (2,), jnp.float32)


@pytest.mark.parametrize(
    "env",
    [
        broken(Remembering, observation_space=numpy_bounds),
        broken(Walk, reset_env=fixed_start),
    ],
)
def test_a_quick_check_accepts_what_can_be_trained_on(env):
    check_environment(env, Params(), quick=True, deterministic_reset=None)
