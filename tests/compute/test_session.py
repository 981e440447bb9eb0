"""Sessions: a run is cut into pieces that fit and are few, and neither where rows lie nor how
intervals are cut changes what is learned."""

import collections
import dataclasses

import jax
import numpy as np
import pytest

import dqx
from dqx.compute.intervals import intervals
from dqx.compute.programs import programs_for
from dqx.compute.rows import row_metrics
from dqx.compute.session import Chunk, Session
from dqx.settings import ConfigError, rounded
from tests.shared import HYPER, TINY

# --- How a run is cut.


def drawn_configs(count):
    """Configurations of all proportions, rounded as they are trained."""
    rng = np.random.default_rng(7)
    for _ in range(count):
        unit = int(rng.choice([1, 2, 4, 24]))
        rounds = int(rng.integers(1, rng.choice([5, 60, 4_000])))
        starts, log, evaluation = (int(n) for n in rng.integers(1, 2 * unit * rounds + 1, 3))
        config = dqx.Config(
            num_envs=unit,
            train_period=unit,
            total_steps=unit * rounds - int(rng.integers(unit)),
            learning_starts=starts,
            log_period=max(log // int(rng.choice([1, 10, 100])), 1),
            eval_period=int(rng.choice([0, 1])) * evaluation,
        )
        yield rounded(config)[0]


CONFIGS = list(drawn_configs(600))


def walked(config):
    """The same intervals round by round: ``(end, evaluates, warm steps, learning steps)``."""
    found, warm, learn, step = [], 0, 0, 0
    while step < config.total_steps:
        warm += step < config.learning_starts
        learn += step >= config.learning_starts
        step += config.train_period
        is_last = step == config.total_steps
        is_eval = config.eval_period > 0 and (step % config.eval_period == 0 or is_last)
        if step % config.log_period == 0 or is_eval or is_last:
            found.append((step, is_eval, warm * config.train_period, learn * config.train_period))
            warm = learn = 0
    return found


def test_the_drawn_configurations_differ_in_what_matters():
    parts = [intervals(config) for config in CONFIGS]
    rows = [len(p) for p in parts]
    assert min(rows) == 1 and max(rows) > 300
    pieces = [max(len(i.warm + i.learn) for i in p) for p in parts]
    assert 1 in pieces and sum(n > 5 for n in pieces) > 20
    late = sum(c.learning_starts >= c.total_steps for c in CONFIGS)
    assert 50 < late < 550 and 50 < sum(c.eval_period == 0 for c in CONFIGS) < 550


def test_intervals_are_those_of_walking_round_by_round():
    for config in CONFIGS:
        found = intervals(config)
        ends = [(i.end, i.evaluates, sum(i.warm), sum(i.learn)) for i in found]
        assert ends == walked(config), config
        assert [i.start for i in found] == [0, *(i.end for i in found[:-1])]


def test_pieces_are_whole_rounds_of_few_lengths():
    for config in CONFIGS:
        unit, found = config.train_period, intervals(config)
        for parts in ([i.warm for i in found], [i.learn for i in found]):
            lengths = collections.Counter(sum(p) for p in parts if p)
            used = {piece for p in parts for piece in p}
            assert all(piece > 0 and piece % unit == 0 for piece in used)
            if len(lengths) <= 3:
                assert used == set(lengths) and all(len(p) <= 1 for p in parts)
                continue
            # The commonest, and powers of 32 rounds.
            powers = {unit, 32 * unit, 1024 * unit}
            assert len(used - powers) <= 1
            whole = (used - powers or {max(lengths, key=lengths.__getitem__)}).pop()
            assert lengths[whole] == max(lengths.values())
            for p in parts:
                # No more calls than the digits of the length to the base of 32.
                rounds = sum(p) // unit
                assert len(p) <= 1 or len(p) <= rounds // 1024 + rounds // 32 % 32 + rounds % 32


# --- Neither rows nor pieces change what is learned.

# A row every round; rows so odd that most intervals are cut, after 2 and after 34 rounds among
# others; and one row for all.
ROUND = dataclasses.replace(
    TINY, num_envs=2, train_period=2, learning_starts=62, total_steps=402, log_period=2,
    eval_period=0, chunk_width=2,
)  # fmt: skip
ODD = dataclasses.replace(ROUND, log_period=94, eval_period=70)
ONE = dataclasses.replace(ROUND, log_period=402)
KINDS = {"loss": "mean", "q_mean": "mean", "td_error_abs": "mean", "grad_norm": "mean",
         "q_max": "max", "weight_norm": "last", "epsilon": "last"}  # fmt: skip


@pytest.fixture(scope="module")
def runs():
    return [dqx.train(config, HYPER, 3, devices="cpu:1") for config in (ROUND, ODD, ONE)]


def test_odd_rows_come_from_many_pieces(runs):
    pieces = [i.learn for i in intervals(runs[1].config)]
    assert (64, 2, 2) in pieces and (2,) in pieces
    assert runs[1].metrics["step"].tolist() == [70, 94, 140, 188, 210, 280, 282, 350, 376, 402]
    assert runs[2].metrics["step"].tolist() == [402]


def test_where_rows_lie_changes_nothing_that_is_learned(runs):
    fine, *others = runs
    assert len(fine.episodes) > 40
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, fine.params, other.params)
        assert fine.episodes.equals(other.episodes)
        np.testing.assert_array_equal(fine.diverged_at, other.diverged_at)


def combined(fine, row, name):
    """The number of a row from the rounds since the row before, which are as many rows."""
    values = fine.metrics[name][:, row].astype(np.float64)
    values = values[:, ~np.isnan(values[0])]  # no update yet
    match KINDS[name]:
        case "mean":
            return values.mean(axis=1)
        case "max":
            return values.max(axis=1)
        case _:
            return values[:, -1]


@pytest.mark.parametrize("which", [1, 2], ids=["odd", "one"])
def test_metrics_of_pieces_are_put_together(runs, which):
    fine, other = runs[0], runs[which]
    ends = other.metrics["step"]
    for k, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        rounds = (fine.metrics["step"] > start) & (fine.metrics["step"] <= end)
        for name, kind in KINDS.items():
            found, expected = other.metrics[name][:, k], combined(fine, rounds, name)
            if kind == "mean":
                np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=name)
            else:
                np.testing.assert_array_equal(found, expected.astype(np.float32), name)
        counts = fine.metrics["episode_count"][:, rounds].sum(axis=1)
        np.testing.assert_array_equal(other.metrics["episode_count"][:, k], counts)
        for seed in range(3):
            table = other.episodes[other.episodes.seed == seed]
            inside = table[(table.step > start) & (table.step <= end)]["return"]
            for suffix, value in (("", "mean"), ("_min", "min"), ("_max", "max")):
                number = other.metrics[f"episode_return{suffix}"][seed, k]
                expected = getattr(inside, value)()  # NaN of none
                np.testing.assert_allclose(number, expected, rtol=1e-6, equal_nan=True)


def test_evaluations_are_where_they_belong_and_leave_training_as_it_is(runs):
    evaluated = [np.isfinite(run.metrics["eval_return"]) for run in runs]
    at = np.isin(runs[1].metrics["step"], [70, 140, 210, 280, 350, 402])
    np.testing.assert_array_equal(evaluated[1], np.tile(at, (3, 1)))
    # The two that never evaluate have learned the same, see above.
    assert not evaluated[0].any() and not evaluated[2].any()


# --- A session by itself.


@pytest.fixture(scope="module")
def programs(runs):
    return programs_for(ODD, jax.devices("cpu")[0], 0)


def chunk(count=2):
    hypers = jax.tree.map(lambda x: np.full(count, x, np.float32), HYPER)
    return Chunk(np.arange(count), hypers)


def finished(session):
    while not session.finished:
        session.advance()
    return session.result()


def assert_same(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_a_session_tells_of_every_row_as_it_comes(programs, runs):
    seen = []
    result = finished(Session(programs, ODD, chunk(), lambda *row: seen.append(row)))
    assert [step for step, _ in seen] == result.steps.tolist()
    for k, (_, row) in enumerate(seen):
        assert set(row) == set(row_metrics(programs))
        for name, values in row.items():
            np.testing.assert_array_equal(values, result.metrics[name][:, k], err_msg=name)
    for name, values in result.metrics.items():
        np.testing.assert_array_equal(values, runs[1].metrics[name][:2], err_msg=name)


def test_a_session_goes_on_from_any_row(programs):
    whole = finished(Session(programs, ODD, chunk()))
    for row in range(len(whole.steps)):
        session = Session(programs, ODD, chunk())
        for _ in range(row):
            session.advance()
        saved = session.save()
        assert int(saved.clock.step) == session.step == [0, *whole.steps][row]
        later = Session(programs, ODD, chunk(), saved=saved)
        assert later.step == session.step
        assert_same(finished(later), whole)
        assert_same(finished(session), whole)  # saving has disturbed nothing


def test_padding_is_left_out(programs):
    one = finished(Session(programs, ODD, chunk(1)))
    two = finished(Session(programs, ODD, chunk(2)))
    assert_same(one.metrics, {name: values[:1] for name, values in two.metrics.items()})
    assert_same(one.params, jax.tree.map(lambda x: x[:1], two.params))
    assert set(one.episodes[0]) == {0} and set(two.episodes[0]) == {0, 1}
    assert len(one.seeds) == len(one.diverged_at) == 1


def test_many_chunks_need_no_more_programs(programs, runs):
    names = programs.compiled
    dqx.train(ODD, HYPER, 7, devices="cpu:2")
    assert programs.compiled == names
    # Once for each length that `intervals` asks for, whatever the seeds.
    lengths = {(kind, n) for c in (ROUND, ODD, ONE) for i in intervals(c)
               for kind in ("warm", "learn") for n in getattr(i, kind)}  # fmt: skip
    assert sorted(names)[2:] == sorted(
        {"warm": "warm_up", "learn": "segment"}[kind] for kind, _ in lengths
    )


# --- A replay that holds each observation once.

ONCE = dataclasses.replace(
    ROUND, learning_starts=134, log_period=134, replay_capacity=60, replay="once", replay_ends=60
)


def test_a_seed_with_more_ends_than_its_replay_holds_is_an_error():
    few = dataclasses.replace(ONCE, replay_ends=1)
    session = Session(programs_for(few, jax.devices("cpu")[0], 0), few, chunk())
    session.advance()
    with pytest.raises(
        ConfigError, match=r"seed 0 had more ends .* 60 .*\(replay_ends = 1\): raise"
    ):
        session.settle()


@pytest.mark.long
@pytest.mark.parametrize(
    ("env", "form"),
    [
        ("CartPole-v1", "once"),
        ("Catch-bsuite", "sketch"),
        ("Taxi-v4", "once"),
        ("Taxi-v4", "sketch"),
    ],
)
def test_a_session_goes_on_and_learns_what_it_does_with_a_plain_replay(env, form):
    """As training compiles it, where sums may be fused otherwise than in quick programs."""
    ends = 60 if form == "once" else 0
    config = dataclasses.replace(ONCE, env=env, replay=form, replay_ends=ends, batch_size=16)
    device = jax.devices("cpu")[0]
    programs = programs_for(config, device, 0)
    whole = finished(Session(programs, config, chunk()))
    session = Session(programs, config, chunk())
    session.advance()
    session.advance()
    saved = session.save()
    assert int(saved.clock.step) == 268
    assert_same(finished(Session(programs, config, chunk(), saved=saved)), whole)
    plain = dataclasses.replace(config, replay="plain", replay_ends=0)
    assert_same(finished(Session(programs_for(plain, device, 0), plain, chunk())), whole)
