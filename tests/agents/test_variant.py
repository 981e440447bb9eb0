"""An agent from outside of dqx: a loss and two settings of its own, in one short module.

It is trained from Python, from a study file and from the command line.
"""

import importlib
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dqx
from dqx import agents, settings
from dqx.settings import ConfigError, registry
from tests.agents.dqn_kit import (
    CONFIG,
    SPEC,
    assert_close,
    batch_of,
    layers_of,
    memory_of,
    now,
    random_batch,
    random_state,
)
from tests.oracles import dqn
from tests.shared import quickly

MODULE = '''\
"""DQN with the loss log(cosh(sharpness * error)) / sharpness, perhaps without a target network."""

import jax.numpy as jnp

from dqx.agents import Variant, kit, register
from dqx.core import losses
from dqx.settings import own_setting

TRACES = []  # an entry each time that the loss is traced


def build(config, spec):
    def loss(outputs, step, hyper, draws):
        TRACES.append(config.own_target)
        following = outputs.next_online if config.own_target else outputs.next_target
        error = losses.q_learning(outputs.now, step.action, step.reward, step.discount, following)
        x = jnp.abs(hyper.sharpness * error)
        log_cosh = x + jnp.log1p(jnp.exp(-2 * x)) - jnp.log(2.0)
        return log_cosh / hyper.sharpness, error

    reads = ("next_online",) if config.own_target else ("next_target",)
    return kit.value_agent(config, spec, loss, reads=reads)


SETTINGS = [
    own_setting("sharpness", 1.0, "how soon the loss turns linear", traced=True, above=0),
    own_setting("own_target", False, "bootstrap from the online network"),
]
register(Variant("smooth", build, settings=SETTINGS, about="DQN with a log-cosh loss"))
'''
SMALL = {
    "env": "CartPole-v1",
    "hidden_sizes": (4,),
    "num_envs": 2,
    "total_steps": 240,
    "learning_starts": 80,
    "train_period": 8,
    "batch_size": 8,
    "replay_capacity": 200,
    "target_period": 40,
    "log_period": 80,
    "eval_period": 0,
    "chunk_width": 2,
    "learning_rate": 1e-2,
}


@pytest.fixture(scope="module")
def smooth(tmp_path_factory):
    """The module, imported from a folder of its own."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "smooth_dqn.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield importlib.import_module("smooth_dqn")
    registry.forget("smooth")
    del sys.modules["smooth_dqn"]


def test_the_module_is_short():
    assert len(MODULE.splitlines()) < 40


def twins_loss(sharpness):
    """log(cosh(k * error)) / k and its derivative tanh(k * error)."""

    def loss(error):
        return np.log(np.cosh(sharpness * error)) / sharpness, np.tanh(sharpness * error)

    return loss


@pytest.mark.parametrize("own_target", [False, True])
@pytest.mark.parametrize("sharpness", [0.5, 2.0])
def test_updates_equal_the_twins(smooth, sharpness, own_target):
    fields = {"agent": "smooth", "sharpness": sharpness, "own_target": own_target}
    config, hyper = settings.override(CONFIG, dqx.Hyper(), **fields)
    settings.validate(config, hyper)
    agent = agents.make_agent(config, SPEC)
    state, batch = random_state(agent), random_batch()
    learn = quickly(agent.learn)
    new, learned = learn(state, batch_of(batch), (), now(hyper), jnp.bool_(False))
    twin = dqn.Settings(loss=twins_loss(sharpness), learning_rate=2.5e-4)
    layers = layers_of(state.params)
    target = layers if own_target else layers_of(state.target_params)
    expected, _, _, metrics = dqn.update(layers, target, memory_of(layers), batch, twin, False)
    assert_close(expected, new.params, state.params)
    for name, value in metrics.items():
        np.testing.assert_allclose(learned.metrics[name], value, rtol=1e-4, err_msg=name)


def test_over_a_preset_it_has_no_setting_that_it_does_not_read(smooth):
    config, hyper = dqx.override(*dqx.preset("cartpole"), agent="smooth")
    dqx.validate(config, hyper)
    assert dqx.preset("cartpole")[0].double and not config.double


def test_the_module_of_an_agent_is_its_source(smooth):
    assert agents.source_of("smooth").name == "smooth_dqn.py"
    assert agents.source_of("dqn").name == "dqn.py"


def test_an_agent_can_be_evaluated_without_training(smooth):
    config, _ = dqx.override(dqx.Config(), dqx.Hyper(), agent="smooth")
    agent = dqx.make_agent(config, dqx.make_environment("CartPole-v1"))
    params = agent.init(jax.random.key(0)).params
    assert agent.q_values(params, jnp.zeros((3, 4))).shape == (3, 2)


# --- From Python.

RUNS = [(0.5, False), (2.0, False), (2.0, True)]


@pytest.fixture(scope="module")
def trained(smooth):
    """Results by sharpness and own_target, and how often the loss had been traced after each."""
    results, traces = {}, []
    for sharpness, own_target in RUNS:
        fields = {**SMALL, "agent": "smooth", "sharpness": sharpness, "own_target": own_target}
        config, hyper = dqx.override(dqx.Config(), dqx.Hyper(), **fields)
        results[sharpness, own_target] = dqx.train(config, hyper, seeds=2, devices="cpu:1")
        traces.append(list(smooth.TRACES))
    return results, traces


def test_a_traced_setting_shares_a_compile_and_a_static_one_does_not(trained):
    results, (first, second, third) = trained
    assert len(first) == len(second) < len(third)
    assert set(third[len(second) :]) == {True}
    assert len({digest for result in results.values() for digest in result.digests}) == 6
    for (sharpness, own_target), result in results.items():
        assert (result.hyper.sharpness, result.config.own_target) == (sharpness, own_target)
        assert np.all(result.diverged_at == -1)
        assert np.all(np.isfinite(result.metrics["loss"][:, -1]))
        assert result.agent(1).act(np.zeros(4)) in (0, 1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sharpness": 0.0}, "sharpness must be .*greater than 0, got 0"),
        ({"own_target": 3}, "own_target must be true or false, got 3"),
        ({"agent": "dqn", "sharpness": 2.0}, "sharpness belongs to agent smooth, and agent is dqn"),
        ({"initial_q": 1.0}, "initial_q = 1 belongs to agents with a table"),
        # What its loss does not read, since it does not say that it does.
        ({"double": True}, "double = true belongs to agents with a target rule .*, and agent"),
        ({"loss": "huber"}, "loss = huber belongs to agents with a scalar target .*, and agent"),
        (
            {"td_error_clip": 1.0},
            "td_error_clip = 1 belongs to agents with a TD error .*, and agent",
        ),
        ({"sharpnes": 2.0}, "unknown field 'sharpnes'; the closest are sharpness"),
    ],
)
def test_its_settings_are_checked_as_any_others(smooth, fields, words):
    with pytest.raises(ConfigError, match=words):
        config, hyper = dqx.override(dqx.Config(), dqx.Hyper(), **{"agent": "smooth", **fields})
        dqx.validate(config, hyper)


# --- From a study file.


def toml(value):
    if isinstance(value, str):
        return f'"{value}"'
    return str(list(value) if isinstance(value, tuple) else value).lower()


def test_a_study_file_takes_both_settings_in_its_grid(smooth, trained, tmp_path):
    base = "\n".join(f"{name} = {toml(value)}" for name, value in SMALL.items())
    path = tmp_path / "sharp.toml"
    path.write_text(
        f'seeds = 2\n[base]\nagent = "smooth"\n{base}\n'
        "[grid]\nsharpness = [0.5, 2.0]\nown_target = [false, true]\n"
    )
    before = len(smooth.TRACES)
    study = dqx.study.run(path, tmp_path / "out", devices="cpu:2", sinks=())
    assert len(smooth.TRACES) == before  # the two programs that `trained` has compiled
    assert study.finished and len(study.configs) == 4
    frame = study.metrics
    assert set(zip(frame["sharpness"], frame["own_target"], strict=True)) == {
        (0.5, False), (0.5, True), (2.0, False), (2.0, True)
    }  # fmt: skip
    for (sharpness, own_target), result in trained[0].items():
        name = f"sharpness={sharpness:g}, own_target={str(own_target).lower()}"
        config, hyper = study.point(name)
        assert (hyper.sharpness, config.own_target) == (sharpness, own_target)
        assert tuple(study.digests[name, seed] for seed in (0, 1)) == result.digests
    certificate = dqx.study.verify(tmp_path / "out", sample=1, devices="cpu:1")
    assert certificate.passed


# --- From the command line.

COMMAND = "import sys; from dqx.cli import main; sys.exit(main())"  # as the script `dqx` does


@pytest.fixture
def dqx_in(tmp_path):
    """Runs ``dqx`` in a folder that holds the module, in a process of its own."""
    (tmp_path / "smooth_dqn.py").write_text(MODULE)
    root = os.path.dirname(os.path.dirname(dqx.__file__))
    environment = {
        **os.environ,
        "PYTHONPATH": root,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiled in a hurry
    }

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-c", COMMAND, *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280,
        )  # fmt: skip

    return run


def refused(done, *words):
    """Whether a command ended with one line that says all this."""
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("dqx: error: "), done.stderr
    assert all(word in lines[0] for word in words), lines[0]
    return True


@pytest.mark.slow
@pytest.mark.long
def test_the_command_line_trains_resumes_and_verifies_it(dqx_in, tmp_path):
    out, devices = str(tmp_path / "out"), ("--devices", "cpu:1", "--quiet")
    sizes = [f"{name}={settings.show(value)}" for name, value in SMALL.items() if name != "env"]
    assignments = ["agent=smooth", "sharpness=2", *sizes]
    given = ("train", "cartpole", "--seeds", "2", "--steps", "240", "--out", out, *devices)
    given += ("--set", *(text for text in assignments if not text.startswith("total_steps")))
    assert refused(dqx_in(*given), "unknown agent 'smooth'", "known are bootstrapped", "--import")
    assert refused(dqx_in(*given, "--import", "smoth"), "no module 'smoth'")
    assert not (tmp_path / "out").exists()

    module = ("--import", "smooth_dqn")
    done = dqx_in(*given, *module)
    assert done.returncode == 0, done.stderr
    study = dqx.load(out)
    assert study.finished and study.plan["points"][0]["hyper"]["sharpness"] == 2.0
    assert "agent smooth" in study.plan["identity"]
    digests = study.digests
    assert len(set(digests.values())) == 2

    for record in (tmp_path / "out" / "chunks").iterdir():
        record.unlink()  # as if it had been killed before the chunk was finished
    assert refused(dqx_in("study", "resume", out, *devices), "unknown agent 'smooth'", "--import")
    done = dqx_in("study", "resume", out, *devices, *module)
    assert done.returncode == 0, done.stderr
    assert dqx.load(out).digests == digests

    assert refused(dqx_in("verify", out, *devices), "unknown agent 'smooth'", "--import")
    done = dqx_in("verify", out, "--all", *devices, *module)
    assert done.returncode == 0 and "identical" in done.stdout, done.stdout + done.stderr

    # The agent's file is part of what the bits hang on.
    (tmp_path / "smooth_dqn.py").write_text(MODULE + "\n# another thought\n")
    done = dqx_in("study", "resume", out, *devices, *module)
    assert refused(done, "cannot be resumed here", "agent smooth was")
