"""Evaluations that take long: in pieces of the same bits, stopped in between, and gone on with."""

import os
import signal
import subprocess
import sys
import time

import pytest

from dqx.compute import session as sessions
from dqx.compute.programs import Programs
from dqx.settings import ConfigError
from dqx.study import Sink, engine, load
from dqx.study.executors import local
from tests.cli.kit import environment
from tests.study.kit import interrupted, plan, resume, run, toml

# No greedy episode of a network that has hardly learned ends before its time limit.
LONG = {
    "env": "MountainCar-v0", "env.max_steps_in_episode": 700, "total_steps": 352,
    "eval_episodes": 2,
}  # fmt: skip


PLAN = plan(2, LONG)
STEPS = [88, 176, 264, 352]  # rows; there is an evaluation at every second one


class Heard(Sink):
    """What a study says of evaluations, and the steps of its rows."""

    def __init__(self):
        self.said, self.steps = [], []

    def phase(self, text):
        if text.startswith("evaluating"):
            self.said.append(text)

    def row(self, row):
        self.steps.append(row.step)


@pytest.fixture
def pieces(monkeypatch):
    """Pieces of a hundred steps, each told of; the steps of every call that goes on with one."""
    monkeypatch.setattr(sessions, "PIECE", 100)
    monkeypatch.setattr(sessions, "_PIECES", (100, 100))
    monkeypatch.setattr(local, "_TOLD_SECONDS", 0.0)
    calls, play = [], Programs.play

    def counted(self, clock, lanes, played, until):
        calls.append(until)
        return play(self, clock, lanes, played, until)

    monkeypatch.setattr(Programs, "play", counted)
    return calls


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The study whose evaluations are one piece each."""
    path, calls = tmp_path_factory.mktemp("whole") / "s", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Programs, "play", lambda *args: calls.append(args))
        found = run(PLAN, path)
    assert calls == []
    lengths = found.to_arrays("eval_length")[0]
    assert (lengths[:, 1::2] == 700).all()
    return found


def test_pieces_have_the_bits_of_the_whole(whole, tmp_path, pieces):
    heard = Heard()
    assert run(PLAN, tmp_path / "s", sinks=[heard]).digests == whole.digests
    assert pieces == [*range(200, 701, 100)] * 2
    assert heard.steps == STEPS
    times = [f"evaluating: 0 of 4 episodes over, step {100 * i}" for i in range(1, 7)]
    assert heard.said == times * 2


@pytest.mark.parametrize("waited", [1, 8])  # at the first evaluation, and at the second
def test_an_evaluation_can_be_stopped_and_goes_on_with_the_same_bits(
    whole, tmp_path, pieces, waited
):
    first, later = Heard(), Heard()
    said = interrupted(
        PLAN, tmp_path / "s", lambda _: len(first.said) == waited, sinks=[first], of="phase"
    )
    assert said.startswith("interrupted; everything so far is in ")
    ended = 1 if waited == 1 else 3  # the row of the evaluation that was stopped is not there yet
    assert first.steps == STEPS[:ended] and load(tmp_path / "s").runs == []
    assert len(first.said) == waited
    found = resume(tmp_path / "s", sinks=[later])
    assert later.steps == STEPS[ended:]
    assert found.digests == whole.digests


def test_a_state_is_kept_once_while_an_evaluation_takes_long(whole, tmp_path, pieces, monkeypatch):
    """So that a kill then costs no training."""
    monkeypatch.setattr(engine, "CHECKPOINT_SHARE", float("inf"))
    saved, save = [], engine.Engine.save

    def counted(self, task, state):
        saved.append(len(pieces))
        return save(self, task, state)

    monkeypatch.setattr(engine.Engine, "save", counted)
    found = run(PLAN, tmp_path / "s", checkpoint_seconds=0)
    assert saved == [0, 0, 6, 6]  # after each row, and before the evaluations of the even ones
    assert found.digests == whole.digests


@pytest.mark.long
def test_an_evaluation_that_never_ends_is_told_of_and_stops_at_ctrl_c(tmp_path):
    table = plan(2, {**LONG, "env.max_steps_in_episode": 2**31 - 1})
    table["base"]["env.name"] = table["base"].pop("env")  # as TOML has both
    (tmp_path / "never.toml").write_text(toml(table))
    command = [sys.executable, "-m", "dqx", "study", "never.toml", "--devices", "cpu:1"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "of 4 episodes over, step" in line:
                asked = time.monotonic()
                os.kill(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
    assert time.monotonic() - asked < 30
    assert "interrupted; everything so far is in " in lines[-1]
    assert sum("of 4 episodes over, step" in line for line in lines) == 1


def test_an_episode_that_outlives_the_counter_is_told(tmp_path, pieces, monkeypatch):
    monkeypatch.setattr(sessions, "_MOST_STEPS", 250)
    with pytest.raises(ConfigError, match="has not ended after 250 steps: give the environment a"):
        run(PLAN, tmp_path / "s")
    assert pieces == [200, 250]
