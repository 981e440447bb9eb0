"""A study of an agent without a replay, held to what every study promises."""

import dataclasses

import jax
import numpy as np
import pytest

import dqx
from dqx.compute.footprint import measure, refusal
from dqx.compute.limits import Limit
from dqx.compute.programs import Programs
from dqx.study import engine, load, verify
from tests.shared import HYPER
from tests.study.kit import assert_whole, fields, interrupted, resume, run

pytestmark = pytest.mark.long  # its programs take a few seconds to compile

CONFIG, _ = dqx.override(
    dqx.Config(), HYPER, agent="pqn", env="CartPole-v1", hidden_sizes=(16,), layer_norm=True,
    optimizer="radam", num_envs=4, train_period=32, batch_size=8, updates_per_train=8,
    learning_starts=0, total_steps=768, log_period=128, eval_period=256, eval_episodes=2,
    annealed=("learning_rate",), normalize_observations=True, averaging="evaluation",
    chunk_width=2,
)  # fmt: skip
PLAN = {
    "name": "rollouts",
    "seeds": [5, 3, 8],
    "base": {**fields(CONFIG), **fields(HYPER)},
    "grid": {"td_lambda": [0.0, 0.9]},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("rollouts") / "whole"
    run(PLAN, path)
    return load(path)


def test_a_seed_alone_is_that_seed_among_others_and_other_lambdas(study):
    for value, name in ((0.0, "td_lambda=0"), (0.9, "td_lambda=0.9")):
        _, hyper = dqx.override(CONFIG, HYPER, td_lambda=value)
        alone = dqx.train(CONFIG, hyper, [3], devices="cpu:1")
        assert alone.digests == (study.digests[name, 3],)
        company = dqx.train(CONFIG, hyper, [9, 8, 3, 2, 5], devices="cpu:2")
        assert company.digests[1:3] == (study.digests[name, 8], study.digests[name, 3])
        assert np.isfinite(company.metrics["loss"]).all()  # from the first row on
    assert len(set(study.digests.values())) == 6


def test_stopped_and_resumed_it_has_the_same_bits(study, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "CHECKPOINT_SHARE", float("inf"))
    interrupted(PLAN, tmp_path / "s", 6)
    assert list((tmp_path / "s" / "checkpoints").glob("*.npz"))
    assert_whole(resume(tmp_path / "s"), study)


def test_its_runs_are_verified(study):
    certificate = verify(study.path, sample=2, devices="cpu:1")
    assert certificate.passed and len(certificate.checks) == 2


def test_its_memory_is_measured_without_a_replay():
    programs = Programs(CONFIG, dqx.environment_of(CONFIG), jax.devices("cpu")[0], 0)
    need = measure(programs, CONFIG)
    assert need.replay == 0 and need.working > 0
    # Rows of a round are working memory: more environments need more of it.
    more = dataclasses.replace(
        CONFIG, num_envs=32, train_period=256, batch_size=64, log_period=256, eval_period=0
    )
    wider = Programs(more, dqx.environment_of(more), programs.device, 0)
    assert measure(wider, more).working > 2 * need.working
    message = str(refusal(CONFIG, need, Limit(need.total, "memory")))
    assert "replay" not in message and "chunk_width=1 trains fewer seeds" in message
