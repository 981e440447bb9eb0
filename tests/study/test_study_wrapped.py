"""A study with everything around its environment at once, held to what every study promises."""

import dataclasses

import jax
import numpy as np
import pytest

import dqx
from dqx.study import engine, load, verify
from tests.agents.dqn_kit import layers_of
from tests.oracles import dqn
from tests.shared import HYPER, TINY, quickly
from tests.study.kit import assert_whole, fields, in_a_hurry, interrupted, resume, run

pytestmark = pytest.mark.slow  # its programs take a few seconds to compile

CONFIG = dataclasses.replace(
    TINY,
    frame_stack=3,
    action_repeat=2,
    sticky_actions=0.25,
    time_limit=9,
    normalize_observations=True,
    total_steps=352,
    chunk_width=2,
)
PLAN = {
    "name": "wrapped",
    "seeds": [5, 3, 8],
    "base": {**fields(CONFIG), **fields(HYPER, without=("reward_scale",))},
    "grid": {"reward_scale": [1.0, 0.1]},
}
SCALED = "reward_scale=0.1"


@pytest.fixture(scope="module", autouse=True)
def compiled_in_a_hurry():
    with in_a_hurry():
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("wrapped") / "whole"
    run(PLAN, path)
    return load(path)


def test_a_seed_alone_is_that_seed_among_others_and_other_scales(study):
    for scale, name in ((0.1, SCALED), (1.0, "reward_scale=1")):
        alone = dqx.train(CONFIG, HYPER.replace(reward_scale=scale), [3], devices="cpu:1")
        assert alone.digests == (study.digests[name, 3],)
    assert len(set(study.digests.values())) == 6


def test_stopped_and_resumed_it_has_the_same_bits(study, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "CHECKPOINT_SHARE", float("inf"))
    interrupted(PLAN, tmp_path / "s", 6)
    assert list((tmp_path / "s" / "checkpoints").glob("*.npz"))
    assert_whole(resume(tmp_path / "s"), study)


def test_its_runs_are_verified(study):
    certificate = verify(study.path, sample=2, devices="cpu:1")
    assert certificate.passed and len(certificate.checks) == 2


def test_episodes_are_counted_in_steps_and_returns_are_not_scaled(study):
    # CartPole pays 1 for each of the two steps that an action is taken for.
    episodes = study.episodes
    assert episodes.length.max() == 9 and len(episodes) > 100
    doubled = 2 * episodes.length
    assert np.all((episodes["return"] == doubled) | (episodes["return"] == doubled - 1))
    assert set(doubled - episodes["return"]) == {0, 1}
    assert study.metrics.eval_length.max() <= 9
    losses = study.to_arrays("loss")[..., -1].mean(axis=1)
    assert losses.shape == (2,) and losses[1] < 0.3 * losses[0]  # what is learned from is


def test_the_agent_that_is_loaded_stacks_and_normalises_by_itself(study):
    agent = study.agent(SCALED, 8)
    moments = agent.params["observations"]
    assert moments["count"] == CONFIG.total_steps and moments["mean"].shape == (12,)
    obs, state = quickly(agent.env.reset)(jax.random.key(0))
    step = quickly(agent.env.step)
    for time in range(4):
        normal = (obs - moments["mean"]) / np.sqrt(moments["variance"] + 1e-8)
        q, _ = dqn.forward(
            layers_of(agent.params["network"]), np.clip(normal, -10, 10)[None], "relu"
        )
        np.testing.assert_allclose(agent.q_values(obs), q[0], rtol=1e-4, atol=1e-5)
        assert agent.act(obs) == np.argmax(q)
        found = step(jax.random.key(time), state, 1, (obs, state))
        assert found.obs.shape == (12,)
        obs, state = found.obs, found.state
