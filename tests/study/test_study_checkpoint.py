"""Checkpoints as files: every array of a chunk's state comes back, whatever its type."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment

import dqx
from dqx.compute.devices import select_devices
from dqx.compute.programs import Programs
from dqx.compute.rows import row_metrics
from dqx.compute.session import Session
from dqx.study import StudyError, checkpoint, read_plan
from dqx.study.folder import Folder
from dqx.study.schedule import groups
from tests import probes
from tests.shared import TINY
from tests.study.kit import (
    ROWS,
    assert_same_bits,
    assert_same_result,
    assert_same_runs,
    fields,
    in_a_hurry,
    interrupted,
    plan,
    resume,
    run,
    to_the_end,
)

SEAL = "5ea1" * 16


@struct.dataclass
class OddState(environment.EnvState):
    key: jax.Array
    flags: jax.Array
    pixels: jax.Array
    half: jax.Array
    time: jax.Array


class Odd(probes.Probe):
    """Keeps a key, truth values, bytes and half-precision numbers, and all of them count."""

    width = 2

    def reset_env(self, key, params):
        mine, other = jax.random.split(key)
        state = OddState(
            key=mine,
            flags=jax.random.bernoulli(other, shape=(3,)),
            pixels=jax.random.randint(other, (2, 2), 0, 256).astype(jnp.uint8),
            half=jax.random.normal(other).astype(jnp.bfloat16),
            time=jnp.int32(0),
        )
        return self.look(state), state

    def step_env(self, key, state, action, params):
        mine, draw = jax.random.split(state.key)
        reward = jnp.where(state.flags.any(), state.half.astype(jnp.float32), action * 1.0)
        state = state.replace(
            key=mine,
            flags=jnp.roll(state.flags, 1).at[0].set(jax.random.bernoulli(draw)),
            pixels=state.pixels + jnp.uint8(7),
            half=(state.half * 1.5).astype(jnp.bfloat16),
            time=state.time + 1,
        )
        return self.look(state), state, reward, state.time >= 30, {}

    def look(self, state):
        drawn = jax.random.uniform(state.key)  # so that the key shows
        return jnp.stack([drawn, state.pixels[0, 0] / 255.0 + state.flags[0]])


@pytest.fixture(scope="module")
def odd():
    """Two chunks of the odd environment, saved after four rows and trained to the end."""
    config = dataclasses.replace(TINY, env=probes.registered(Odd), chunk_width=2, eval_period=0)
    seeds = {"seeds": [5, 3, 8], "base": fields(config)}
    (group,) = groups(read_plan(seeds))
    programs = Programs(config, dqx.make_environment(config.env), select_devices("cpu:1")[0], 0)
    with in_a_hurry():
        sessions = [Session(programs, config, task.chunk) for task in group.tasks]
        for _ in range(4):
            for session in sessions:
                session.advance()
        saved = [session.save() for session in sessions]
        whole = [to_the_end(session) for session in sessions]
    return SimpleNamespace(
        programs=programs, config=config, tasks=group.tasks, saved=saved, whole=whole
    )


def back(folder, odd, number):
    """What a file gives of a chunk's state that was written to it."""
    folder.make()
    checkpoint.write(folder, SEAL, number, odd.saved[number], {})
    found = checkpoint.find(folder, SEAL, number)
    assert found.step == int(odd.saved[number].clock.step) == 4 * TINY.log_period
    return checkpoint.read(folder, number, found, odd.programs)


def test_a_checkpoint_comes_back_leaf_by_leaf(odd, tmp_path):
    folder = Folder(tmp_path)
    kinds = {str(leaf.dtype) for leaf in jax.tree.leaves(odd.programs.shapes[1].env_state)}
    assert kinds == {"key<fry>", "bool", "uint8", "bfloat16", "int32"}
    for number, saved in enumerate(odd.saved):
        found = back(folder, odd, number)
        jax.tree.map(assert_same_bits, found._asdict(), saved._asdict())
        assert sorted(found.metrics) == sorted(row_metrics(odd.programs))
        assert all(values.shape == (2, 4) for values in found.metrics.values())
    assert len(odd.saved[0].episodes[0]) > 0
    # Two chunks at the same step hold different numbers, and say nothing of one another.
    known = (checkpoint.find(folder, SEAL, i) for i in (0, 1))
    one, two = (checkpoint.read_state(folder, i, found).arrays for i, found in enumerate(known))
    assert one.keys() == two.keys()
    assert not np.array_equal(one["lanes.env_state.key"], two["lanes.env_state.key"])


def test_a_restored_session_goes_on_as_if_nothing_had_been(odd, tmp_path):
    for number, task in enumerate(odd.tasks):
        saved = back(Folder(tmp_path), odd, number)
        session = Session(odd.programs, odd.config, task.chunk, None, saved)
        assert session.step == 4 * TINY.log_period
        assert_same_result(to_the_end(session), odd.whole[number])
    assert odd.whole[1].metrics["loss"].shape == (1, ROWS)  # padding is left out


def test_what_is_no_array_of_this_state_is_refused(odd, tmp_path):
    folder = Folder(tmp_path)
    back(folder, odd, 0)
    found = checkpoint.find(folder, SEAL, 0)
    other = Programs(
        dataclasses.replace(odd.config, optimizer="sgd", hidden_sizes=(16, 8)),
        odd.programs.env, odd.programs.device, 0,
    )  # fmt: skip
    with pytest.raises(StudyError, match=r"00000-352\.npz: .*params.* is float32 .*another study"):
        checkpoint.read(folder, 0, found, other)


STATES = {
    "gone": (lambda a: a.pop("metrics/loss"), KeyError, "metrics/loss"),
    "shape": (
        lambda a: a.update({"metrics/loss": a["metrics/loss"][:, :1]}),
        ValueError,
        "its metrics have the shapes",
    ),
    "text": (
        lambda a: a.update({"metrics/loss": a["metrics/loss"].astype(str)}),
        ValueError,
        "are no numbers",
    ),
    "clock": (lambda a: a["clock.step"].__isub__(1), ValueError, "is at step 351 and not at 352"),
    "lane": (lambda a: a["episodes/lane"].__iadd__(4), ValueError, "of other lanes or steps"),
    "step": (lambda a: a["episodes/step"].__imul__(-1), ValueError, "of other lanes or steps"),
    "columns": (lambda a: a.update({"episodes/step": a["episodes/step"][1:]}), ValueError, "diff"),
}


@pytest.mark.parametrize("case", STATES)
def test_a_state_whose_parts_do_not_fit_together_is_refused(odd, case):
    change, error, words = STATES[case]
    step, arrays = checkpoint.packed(odd.saved[0])
    arrays = {name: values.copy() for name, values in arrays.items()}
    change(arrays)
    with pytest.raises(error, match=words):
        checkpoint.unpacked(checkpoint.State(step, arrays), odd.programs)


def test_a_state_without_the_rows_before_it_is_refused(odd, tmp_path):
    back(Folder(tmp_path), odd, 0)
    found = checkpoint.find(Folder(tmp_path), SEAL, 0)
    checkpoint.read(Folder(tmp_path), 0, found, odd.programs, [88, 176, 264, 352, 440])
    for steps in ([352], [44, 88, 176, 264, 352], []):
        with pytest.raises(StudyError, match=r"00000-352\.npz: it has 4 rows at step 352, so it"):
            checkpoint.read(Folder(tmp_path), 0, found, odd.programs, steps)


def test_diverged_runs_are_resumed_with_the_same_bits(tmp_path):
    sick = plan(5, grid={"learning_rate": [1e-2, 1e38]})
    whole = run(sick, tmp_path / "one")
    interrupted(sick, tmp_path / "two", 4)
    study = resume(tmp_path / "two")
    assert_same_runs(study, whole, count=10)
    lost = {(r["config"], r["seed"]): r["diverged_at"] for r in study.runs if r["diverged_at"] >= 0}
    step = TINY.learning_starts + TINY.train_period
    assert lost == {("learning_rate=1e+38", seed): step for seed in range(5)}
    assert np.isnan(study.to_arrays("loss")[1, :, -1]).all()
