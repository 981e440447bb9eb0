"""Building blocks with wrong input: told at trace time, or under checkify, and else free."""

import contextlib
import dataclasses
import io
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import checkify

import dqx
from dqx import exploration, losses
from tests.shared import TINY

Q, ONE = jnp.zeros(3), jnp.float32(1)
DRAW = exploration.draw(jax.random.key(0), 3, gumbel=True)
REPLAY = dqx.make_replay({"obs": jnp.zeros(2)}, 4, 2)
DOCS = Path(dqx.__file__).parents[1] / "docs" / "building-blocks.md"


def error_of(**changes):
    given = {"q_values": Q, "action": jnp.int32(1), "reward": ONE, "discount": ONE,
             "next_q_target": Q, "next_q_online": Q, **changes}  # fmt: skip
    return losses.double_q_learning(**given)


def trainer(**changes):
    env = dqx.make_environment("CartPole-v1")
    return dqx.make_trainer(dataclasses.replace(TINY, **changes), env)


AT_TRACE_TIME = {
    "other actions": (
        lambda: error_of(next_q_target=jnp.zeros(4)),
        r"next_q_target is float32 \[4\], and must be float \[A\] as q_values, float32 \[3\]",
    ),
    "a batch": (
        lambda: error_of(q_values=jnp.zeros((2, 3))),
        r"q_values is float32 \[2, 3\], .*: one observation at a time, map the function by vmap",
    ),
    "whole Q-values": (
        lambda: error_of(q_values=jnp.zeros(3, jnp.int32)), r"int32 \[3\], .*Q-values are floats"
    ),
    "a float action": (
        lambda: error_of(action=ONE), r"action is float32 \[\], and must be a whole number int \[\]"
    ),
    "many rewards": (lambda: error_of(reward=Q), r"reward is float32 \[3\], .* be one number"),
    "action 99": (lambda: error_of(action=99), "action must be from 0 to 2, got 99"),
    "action -1": (lambda: error_of(action=-1), "action must be from 0 to 2, got -1"),
    "policy of a batch": (lambda: exploration.greedy(jnp.zeros((2, 3))), "q_values .* by vmap"),
    "epsilons": (lambda: exploration.epsilon_greedy(DRAW, Q, Q), "epsilon .* must be one number"),
    "no noise": (
        lambda: exploration.boltzmann(DRAW._replace(gumbel=None), Q, 1.0), "gumbel=True"
    ),
    "policy without spans": (
        lambda: exploration.ez_greedy(DRAW, Q, 0.1, exploration.Repeat(0, 0), 1.0), "span=True"
    ),
    "noise of other actions": (
        lambda: exploration.boltzmann(DRAW, jnp.zeros(4), 1.0), r"gumbel is float32 \[3\].*\[4\]"
    ),
    "no actions": (lambda: exploration.draw(jax.random.key(0), 0), "num_actions must be above 0"),
    "no environments": (lambda: exploration.epsilon_ladder(0.4, 0, 7), "num_envs must be above 0"),
    "schedule of nothing": (
        lambda: exploration.linear_schedule(0, 1.0, 0.1, 0),
        r"steps must be above 0, got 0: constant_schedule\(end\) takes no steps",
    ),
    "time constant": (
        lambda: exploration.exponential_schedule(0, 1.0, 0.1, -5.0), "must be above 0, got -5.0"
    ),
    "empty replay": (
        lambda: REPLAY.sample(REPLAY.init(), jax.random.key(0), 2),
        "size must be above 0, got 0: add transitions before any are sampled",
    ),
    "rows": (lambda: REPLAY.gather(REPLAY.init(), Q), "indices of rows must be whole numbers"),
    "unlike the example": (
        lambda: REPLAY.add(REPLAY.init(), {"obs": jnp.zeros((3, 2))}),
        "transitions must be like the example .*, after a leading axis of num_envs = 2",
    ),
    "dtype": (
        lambda: REPLAY.add(REPLAY.init(), {"obs": jnp.zeros((2, 2), jnp.int32)}), "like the example"
    ),
    "period": (lambda: trainer(train_period=7), "train_period = 7 is no multiple of num_envs = 2"),
    "capacity": (lambda: trainer(replay_capacity=401), "capacity must be a multiple .*, got 401"),
    "segment": (
        lambda: trainer().segment(None, None, None, steps=12), "steps = 12 is no multiple .*give 16"
    ),
    "warm-up": (lambda: trainer().warm_up(None, None, steps=0), "steps = 0 .*give 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", AT_TRACE_TIME)
def test_what_shapes_and_known_values_tell_is_told_at_trace_time(name):
    call, words = AT_TRACE_TIME[name]
    with pytest.raises((AssertionError, ValueError), match=re.compile(words, re.DOTALL)):
        call()


def test_a_batch_of_no_rows_is_refused():
    with pytest.raises(ValueError, match="batch_size must be a whole number from 1"):
        REPLAY.sample(REPLAY.init(), jax.random.key(0), 0)


def step(action):
    env = dqx.make_environment("CartPole-v1")
    fresh = env.reset(jax.random.key(0))
    return env.step(jax.random.key(1), fresh[1], action, fresh).obs


RUNNING = {
    "action 99": (lambda a: jax.vmap(lambda a: error_of(action=a))(a), [0, 99], "0 to 2, got 99"),
    "its gradient": (
        lambda a: jax.grad(lambda q: error_of(q_values=q, action=a))(Q), -1, "0 to 2, got -1"
    ),
    "step": (step, 2, "action must be from 0 to 1, got 2"),
    "empty replay": (
        lambda n: REPLAY.sample(
            REPLAY.init().replace(size=n), jax.random.key(0), 2
        ), 0, "size must be above 0, got 0",
    ),
    "rows never written": (
        lambda i: REPLAY.gather(REPLAY.init().replace(size=jnp.int32(2)), i), [1, 2], "below size"
    ),
    "schedule": (lambda n: exploration.linear_schedule(0, 1.0, 0.1, n), 0, "steps must be above"),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNNING)
def test_what_only_a_running_program_knows_is_found_by_checkify(name):
    function, value, words = RUNNING[name]
    value = jnp.asarray(value, jnp.int32)
    error, _ = checkify.checkify(jax.jit(function), errors=checkify.user_checks)(value)
    assert words in error.get()
    jax.block_until_ready(jax.jit(function)(value))  # which raises nothing
    good = jnp.ones_like(value)
    error, _ = checkify.checkify(jax.jit(function), errors=checkify.user_checks)(good)
    assert error.get() is None


@pytest.mark.usefixtures("compiled_anew")
@pytest.mark.parametrize("name", RUNNING)
def test_checks_cost_nothing_where_nobody_asks_for_them(name, monkeypatch):
    """The compiled program is the very same as without them."""
    function, value, _ = RUNNING[name]
    value = jnp.asarray(value, jnp.int32)

    def program():
        text = jax.jit(lambda x: function(x)).lower(value).compile().as_text()
        text = re.sub(r", metadata=\{[^}]*\}|FileNames.*?\n\n\n", "", text, flags=re.DOTALL)
        return re.sub(r"\.\d+|region_\d+", "", text)  # numbers of names

    with_checks = program()
    monkeypatch.setattr(checkify, "debug_check", lambda *args, **named: None)
    assert program() == with_checks


def test_the_example_in_the_documentation_says_what_it_shows():
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    shown = re.findall(r"print\(.*\)  # (.*?)(?: \.\.\.)?$", code, re.MULTILINE)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, str(DOCS), "exec"), {})
    lines = out.getvalue().splitlines()
    assert len(lines) == len(shown) == 2
    assert all(line.startswith(text) for line, text in zip(lines, shown, strict=True))
