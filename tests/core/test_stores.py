"""Stores of every form against whole transitions in a dictionary, and runs that must be equal."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import dqx
from dqx.core import loop, sampling
from dqx.core.forms import make_store
from dqx.core.stores import Ring
from dqx.settings import ConfigError, complete, environments
from tests import probes
from tests.core.layouts import FORMS, filled_to, number_store, recorded, stacked
from tests.core.ledger import seed_keys
from tests.oracles import returns as oracle
from tests.shared import quickly


def check_every_moment(
    form, steps, envs, capacity, frames, layouts=3, seed=0, finals=None, history=None
):
    """Writes step by step, and after every step compares every row with what was written there.

    What was written is kept whole by a dictionary in Python, by its place among ``capacity``.
    Returns how many rows of ends were compared.
    """
    if history is None:
        history = oracle.histories(np.random.default_rng(seed), layouts, steps, envs)
    layouts = len(history["obs"])
    store = number_store(form, capacity, envs, frames, finals=finals)
    given, newest = jax.tree.map(np.asarray, recorded(store, history, frames))
    obs, next_obs = stacked(history, frames)

    @jax.jit
    def step(rows, total, given, newest):
        def one(rows, given, newest):
            rows = store.write(rows, filled_to(total, capacity), *given)
            filled = filled_to(total + envs, capacity)
            indices = jnp.arange(capacity) % filled.size
            return rows, store.gather(rows, filled, indices, newest)

        return jax.vmap(one)(rows, given, newest)

    rows = jax.tree.map(lambda x: jnp.stack([x] * layouts), store.init())
    names = ("action", "reward", "terminated", "ends")
    twin, ends = {}, 0
    for t in range(steps):
        now = jax.tree.map(lambda x, t=t: x[:, t], (given, newest))
        rows, found = step(rows, jnp.int32(t * envs), *now)
        for env in range(envs):
            action, reward, terminated, ended = (history[name][:, t, env] for name in names)
            seen = obs[:, t, env], action, reward, 1.0 - terminated, next_obs[:, t, env], ended
            twin[(t * envs + env) % capacity] = seen
        expected = [np.stack(x, axis=1) for x in zip(*(twin[i] for i in sorted(twin)), strict=True)]
        ends += expected[-1].sum()
        for name, values in zip(found._fields, expected, strict=False):
            np.testing.assert_array_equal(
                getattr(found, name)[:, : len(twin)], values, err_msg=name
            )
    assert len(twin) == min(capacity, steps * envs)
    return ends


CASES = [  # steps, environments, capacity, frames
    (40, 1, 13, 1),
    (20, 3, 24, 1),
    (30, 2, 20, 4),  # what stands before the oldest row is read too
    (9, 2, 40, 3),  # not full
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES[:3])
def test_every_row_is_what_was_written_whatever_is_kept_of_it(form, case):
    assert check_every_moment(form, *case) > 100


@pytest.mark.long
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES)
def test_every_row_of_many_layouts_is_what_was_written(form, case):
    check_every_moment(form, *case, layouts=300, seed=1)


def test_a_ring_by_hand():
    ring = Ring(capacity=6, num_envs=2, frames=3)
    assert ring.num_rows == 10
    # 14 written: transitions 8 to 13 are kept, and 4 to 7 are what their stacks begin with.
    filled = filled_to(14, 6)
    np.testing.assert_array_equal(ring.numbers(filled, jnp.arange(6)), [12, 13, 8, 9, 10, 11])
    np.testing.assert_array_equal(ring.rows_at(filled, jnp.arange(6)), [2, 3, 8, 9, 0, 1])
    assert ring.next_row(filled) == 4
    single = Ring(capacity=6, num_envs=2)
    assert single.num_rows == 6 and single.next_row(filled) == 2
    np.testing.assert_array_equal(single.rows_at(filled, jnp.arange(6)), np.arange(6))


# Final observations apart from the others.


def final_losses(ends, capacity, finals):
    """After which steps of a history ``[T, E]`` a final observation is missing, by a dictionary."""
    places, missing, found = {}, False, []
    count = 0
    for t, step in enumerate(ends):
        oldest = (t + 1) * len(step) - capacity
        for env in np.flatnonzero(step):
            missing |= places.get(count % finals, oldest - 1) >= oldest
            places[count % finals], count = t * len(step) + env, count + 1
        found.append(missing)
    return found


@pytest.mark.parametrize(("envs", "capacity", "finals"), [(1, 10, 3), (3, 24, 6), (2, 8, 2)])
def test_a_lost_final_observation_is_told_at_once(envs, capacity, finals):
    history = oracle.histories(np.random.default_rng(3), 40, 60, envs)
    store = number_store("once", capacity, envs, finals=finals)
    given, _ = recorded(store, history, 1)

    def one(given):
        def add(rows, now):
            t, (steps, age, ended) = now
            rows = store.write(rows, filled_to(t * envs, capacity), steps, age, ended)
            return rows, rows.lost

        return jax.lax.scan(add, store.init(), (jnp.arange(60), given))[1]

    found = np.asarray(jax.jit(jax.vmap(one))(given))
    expected = [final_losses(ends, capacity, finals) for ends in history["ends"]]
    np.testing.assert_array_equal(found, expected)
    assert 5 < found[:, -1].sum() < 40


def test_few_final_observations_are_enough_where_episodes_are_long():
    """As many places as ends that are kept at a time: all of them are needed, and right."""
    history = oracle.histories(np.random.default_rng(4), 1, 90, 1)
    history["ends"][:] = (np.arange(90) % 5 == 3)[None, :, None]
    history["terminated"] &= history["ends"]
    age = np.where(np.arange(90) < 4, np.arange(90), (np.arange(90) - 4) % 5)
    history["age"][:] = age[None, :, None]
    following = np.concatenate([history["obs"][:, 1:], history["obs"][:, -1:] + 1], axis=1)
    history["next_obs"] = np.where(history["ends"], history["obs"] + 1, following)
    assert not final_losses(history["ends"][0], 20, 4)[-1]
    assert final_losses(history["ends"][0], 20, 3)[-1]
    check_every_moment("once", 90, 1, 20, 1, finals=4, history=history)
    with pytest.raises(AssertionError, match="next_obs"):
        check_every_moment("once", 90, 1, 20, 1, finals=3, history=history)


# What a transition takes.


def row_widths(env, form, **settings):
    store = make_store(env, 100, form=form, **settings)
    rows = jax.eval_shape(store.init)
    return {word: x.shape[1] for word, x in rows.items()}


def test_sketches_take_a_few_bytes():
    # Of WallDodge three small numbers, of Breakout a bit a cell; action, reward and discount.
    wall_dodge = dqx.make_environment("WallDodge-v0")
    assert row_widths(wall_dodge, "plain") == {"uint8": 2 * 1600, "uint32": 3}
    assert row_widths(wall_dodge, "auto") == {"uint8": 2 * 3, "uint32": 3}
    breakout = dqx.make_environment("Breakout-MinAtar")
    assert row_widths(breakout, "plain") == {"uint32": 2 * 400 + 3}
    assert row_widths(breakout, "auto") == {"uint8": 2 * 400 // 8, "uint32": 3}
    assert row_widths(breakout, "sketch", n_step=3) == {"uint8": 100, "uint32": 4}
    cartpole = dqx.make_environment("CartPole-v1")
    assert row_widths(cartpole, "auto") == row_widths(cartpole, "plain") == {"uint32": 2 * 4 + 3}


def test_a_stack_costs_one_frame_and_an_age():
    env = dqx.environment_of(dqx.Config(env="WallDodge-v0", frame_stack=4))
    assert row_widths(env, "plain") == {"uint8": 2 * 1600, "uint32": 4}
    assert row_widths(env, "sketch") == {"uint8": 2 * 3, "uint32": 4}


def test_sketches_of_an_environment_that_has_none_are_refused():
    config = dqx.Config(env="CartPole-v1", replay="sketch")
    with pytest.raises(ConfigError, match="replay = sketch asks for .* CartPole-v1 has none: set"):
        dqx.make_trainer(config, dqx.environment_of(config))


BASE = {"hidden_sizes": (8,), "batch_size": 16, "replay_capacity": 60, "learning_starts": 40,
        "train_period": 4, "target_period": 8}  # fmt: skip


class Shaded(probes.ClockFace):
    """Its hour is observed as a shade, which is a parameter that may differ from lane to lane."""

    @property
    def default_params(self):
        return ShadedParams(max_steps_in_episode=self.time_limit)

    def step_env(self, key, state, action, params):
        _, state, reward, terminated, info = super().step_env(key, state, action, params)
        return self.observe(key, state, action, params), state, reward, terminated, info

    def reset_env(self, key, params):
        _, state = super().reset_env(key, params)
        return self.observe(key, state, None, params), state

    def observe(self, key, state, action, params):
        return self.draw(state.time, params)

    def sketch(self, obs, state, params):
        return state.time

    def draw(self, sketch, params):
        return jnp.float32(params.shade) * self.look(probes.State(mark=jnp.int32(0), time=sketch))


@struct.dataclass
class ShadedParams(probes.Params):
    shade: float = 0.5


@pytest.mark.parametrize("form", ["sketch", "once"])
def test_a_lane_draws_with_its_own_parameters(form):
    env = probes.adapted(Shaded)
    config = dqx.Config(**BASE, replay=form, replay_ends=60 if form == "once" else 0)
    seen = []

    def learn(state, batch, draws, now, sync):
        jax.debug.callback(
            lambda *x: seen.append(np.stack(x)), batch.steps.obs, batch.steps.next_obs
        )
        return agent.learn(state, batch, draws, now, sync)

    agent = dqx.make_agent(config, env)
    store = make_store(env, 60, form=form, ends=config.replay_ends)
    sampler = sampling.uniform(config)
    trainer = loop.make_trainer(config, env, agent._replace(learn=learn), store, sampler)

    def one(key, shade):
        clock, lane = trainer.start(), trainer.init(key, {"shade": shade})
        clock, lane, _ = trainer.warm_up(clock, lane, 40)
        return trainer.segment(clock, lane, dqx.Hyper(), 8)[3]["loss"]

    shades = jnp.array([0.25, 3.0])
    quickly(jax.vmap(one))(seed_keys(2), shades)
    jax.effects_barrier()
    found = [set(x.ravel().tolist()) for x in seen]
    assert len(found) == 4 and sorted(map(sorted, found)) == [[0, 0.25]] * 2 + [[0, 3.0]] * 2


# Whole runs.

RUNS = {
    "n steps of stacks": {"env": "WallDodge-v0", "n_step": 3, "frame_stack": 2, "num_envs": 2,
                          "env.wall_speed": 4, "time_limit": 7},
    "priorities": {"env": "Breakout-MinAtar", "sampling": "prioritized", "num_envs": 4,
                   "time_limit": 9, "time_limit_is_terminal": True},
    "time limits": {"env": "Catch-bsuite", "time_limit": 5},
    "time limits as ends": {"env": "Catch-bsuite", "time_limit": 5, "n_step": 2,
                            "time_limit_is_terminal": True},
    "repeated and sticky": {"env": "Catch-bsuite", "action_repeat": 2, "sticky_actions": 0.3,
                            "frame_stack": 3, "time_limit": 7},
    "newest": {"env": "WallDodge-v0", "sampling": "newest", "batch_size": 4, "double": True,
               "time_limit": 7},
    "ranked": {"env": "Catch-bsuite", "sampling": "ranked", "rank_period": 5, "num_envs": 2},
    "no sketches": {"env": "CartPole-v1", "n_step": 3, "num_envs": 2, "time_limit": 9},
    "a table of atoms": {"env": "Catch-bsuite", "agent": "c51", "n_step": 3},
}  # fmt: skip


@functools.cache
def run(name, form):
    """Everything that two lanes are after a run, the replay apart, and the run's metrics."""
    given = {**BASE, **RUNS[name], "replay": form, "replay_ends": 60 if form == "once" else 0}
    config, hyper = dqx.override(dqx.Config(), dqx.Hyper(), **given)
    config, hyper = environments.resolved(config, hyper)
    trainer = dqx.make_trainer(config, dqx.environment_of(config))
    hyper = jax.tree.map(jnp.float32, complete(config, hyper))
    clock, lanes, episodes, metrics = probes.run_trainer(
        trainer, hyper, seed_keys(2), 40, 120, compiled=jax.jit
    )
    rows = sum(x.nbytes for x in jax.tree.leaves(lanes.replay_rows))
    lanes = lanes.replace(key=jax.random.key_data(lanes.key), replay_rows=None)
    return jax.tree.map(np.asarray, (clock, lanes, episodes, metrics)), rows


def check_run(name, form):
    (expected, most), (found, least) = (run(name, form) for form in ("plain", form))
    # Observations of CartPole are no larger than what tells where a final one is.
    assert least < most or RUNS[name]["env"] == "CartPole-v1"
    assert np.isfinite(found[3]["loss"]).all() and (found[2].length > 0).sum() > 20
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


COMBINED = [(name, form) for name in RUNS for form in ("sketch", "once")]
COMBINED.remove(("no sketches", "sketch"))
COMBINED.remove(("time limits as ends", "once"))


@pytest.mark.long
def test_a_run_is_the_same_where_each_observation_is_held_once():
    check_run("time limits as ends", "once")


@pytest.mark.long
@pytest.mark.parametrize(("name", "form"), COMBINED)
def test_runs_are_the_same_whatever_the_form_of_their_replay(name, form):
    check_run(name, form)
