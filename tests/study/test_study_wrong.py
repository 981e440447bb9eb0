"""Public functions of dqx and dqx.study with one argument wrong: an error of ours, before all."""

import math

import jax
import numpy as np
import pytest

import dqx
import envs
from dqx import study
from dqx.study import StudyError, certify, estimate
from dqx.study.executors.local import Local
from tests.study.kit import BASE, make_study
from tests.wrong_calls import Accepted, refusals

CONFIG, HYPER = dqx.preset("cartpole")
ENV = dqx.make_environment("CartPole-v1")
GYM, PARAMS = envs.make("CartPole-v1")
TRAINING = {
    "devices": "cpu:1", "executor": None, "checkpoint_seconds": 15.0, "replay_checkpoint": True,
    "progress": None, "sinks": (),
}  # fmt: skip
FOLDER = "the folder"  # is put in its place where a test runs
CALLS = {
    "train": (dqx.train, {
        "config": "cartpole", "hyper": None, "seeds": 1, "root_seed": 0, "env": None,
        "devices": "cpu:1", "progress": None, "sinks": (),
    }),
    "run": (study.run, {
        "plan": {"base": BASE}, "out": "new", "overwrite": False, "go_on": False, "command": None,
        **TRAINING,
    }),
    "resume": (study.resume, {"path": FOLDER, **TRAINING}),
    "verify": (study.verify, {
        "path": FOLDER, "sample": 1, "pick": 0, "devices": "cpu:1", "progress": None,
    }),
    "dry_run": (study.dry_run, {
        "plan": {"base": BASE}, "devices": "cpu:1", "timed": False, "progress": None,
    }),
    "tune": (dqx.tune, {
        "source": {"base": BASE, "tune": {"space": {"gamma": {"uniform": [0.5, 0.9]}}}},
        "out": "new", "devices": "cpu:1", "overwrite": False, "checkpoint_seconds": 15.0,
        "replay_checkpoint": True, "command": None, "progress": print, "watch": print,
    }),
    "read_plan": (study.read_plan, {"source": {"base": BASE}}),
    "load": (dqx.load, {"path": FOLDER}),
    "load_tune": (dqx.load_tune, {"path": FOLDER}),
    "preset": (dqx.preset, {"name": "cartpole"}),
    "override": (lambda config, hyper, **fields: dqx.override(config, hyper, **fields), {
        "config": CONFIG, "hyper": HYPER, "gamma": 0.9, "hidden_sizes": (8,), "double": True,
        "env": "CartPole-v1", "annealed": (), "agent": "dqn", "total_steps": 9,
    }),
    "validate": (dqx.validate, {"config": CONFIG, "hyper": HYPER}),
    "use_cache": (dqx.use_cache, {"folder": FOLDER}),
    "make_environment": (dqx.make_environment, {"name": "CartPole-v1", "gravity": 9.8}),
    "environment_of": (dqx.environment_of, {"config": CONFIG}),
    "make_agent": (dqx.make_agent, {"config": CONFIG, "env": ENV}),
    "make_trainer": (dqx.make_trainer, {"config": CONFIG, "env": ENV}),
    "make_replay": (dqx.make_replay, {"example": np.float32(1), "capacity": 4, "num_envs": 2}),
    "adapt": (dqx.adapt, {"env": GYM, "params": PARAMS}),
}  # fmt: skip
# Of 26 wrong values so many are refused at least; an example of what is stored may be any numbers.
FEWEST = {("make_replay", "example"): 12}
METHODS = {
    "to_arrays": {"metric": "loss"},
    "params": {"config": None, "seed": 0, "step": None},
    "point": {"config": None},
    "agent": {"config": None, "seed": 0, "step": None},
    "scores": {"config": None},
    "curves": {"config": None, "seed": 0},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("wrong") / "s"
    make_study(path, {})
    return path


@pytest.fixture
def no_training(monkeypatch, tmp_path):
    """Nothing is trained, compiled or written."""

    def accepted(*args, **named):
        raise Accepted

    monkeypatch.chdir(tmp_path)
    for name in ("settle", "check"):
        monkeypatch.setattr(Local, name, accepted)
    monkeypatch.setattr(certify, "retrain", accepted)
    monkeypatch.setattr(estimate, "settle", accepted)
    monkeypatch.setattr("dqx.tuning.Search", accepted)
    monkeypatch.setattr("dqx.compute.cache._prepare", accepted)


def test_every_public_function_is_in_the_table():
    functions = {n for n in dqx.__all__ if type(getattr(dqx, n)).__name__ == "function"}
    functions |= {n for n in study.__all__ if type(getattr(study, n)).__name__ == "function"}
    assert functions == CALLS.keys() | {"preset_names"}  # which takes nothing


@pytest.mark.filterwarnings("ignore::dqx.settings.ConfigWarning")
@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_argument_is_an_error_of_ours(name, made, no_training):
    function, given = CALLS[name]
    given = {n: str(made) if v is FOLDER else v for n, v in given.items()}
    for argument in given:
        said = refusals(function, given, argument)
        least = FEWEST.get((name, argument), 19)
        assert sum(text is not None for text in said) >= least, (argument, said)
    assert not any(made.parent.glob("new"))


@pytest.mark.parametrize("name", METHODS)
def test_so_it_is_for_what_a_study_is_asked(name, made):
    found = dqx.load(made)
    for argument in METHODS[name]:
        said = refusals(getattr(found, name), METHODS[name], argument)
        assert sum(text is not None for text in said) >= 25, (argument, said)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda path: dqx.load(None), "path must be a path, such as 'runs/cartpole', got None"),
        (lambda path: dqx.load(3), "path must be a path, .* got 3"),
        (lambda path: dqx.load(""), "path must be a path, .* got ''"),
        (lambda path: study.run([]), r"the plan must be a TOML file's path or a dict.*, got \[\]"),
        (lambda path: study.run(None), "the plan must be a TOML file's path or a .*, got None"),
        (lambda path: study.run({}), r"the plan is empty: give at least \[base\]"),
        (lambda path: study.verify(path, pick=-1), "pick must be a whole number from 0 on, or N"),
        (lambda path: study.verify(path, sample=0), "sample must be a whole number from 1 on"),
        (lambda path: study.verify(path, devices="cpu", executor=Local(())), "devices and an exec"),
        (lambda path: study.resume(path, devices="cpu", executor=Local(())), "devices and an exec"),
        (lambda path: dqx.train("cartpole", seeds=[]), "seeds: none are given; ask for at least"),
        (lambda path: dqx.train("cartpole", seeds=-1), "seeds: none are given"),
        (lambda path: dqx.train("cartpole", seeds="4"), "seeds must be whole numbers or how many"),
        (lambda path: dqx.train("cartpole", seeds=[0.5]), r"seeds must be .* got 0\.5"),
        (lambda path: dqx.train(None), "config must be a Config, a preset's name, or the config"),
        (lambda path: dqx.train("cartpole", 3), "hyper must be a Hyper or the hyper of a manif"),
        (lambda path: dqx.train("cartpole", devices=3), "devices must be cpu, gpu or tpu, .*got 3"),
        (lambda path: dqx.train("cartpole", sinks=[3]), "sinks must be a list of dqx.Sink objects"),
        (lambda path: dqx.validate(HYPER, CONFIG), r"config must be a dqx.Config, got Hyper"),
        (lambda path: dqx.adapt(GYM, None), "params must be parameters of it, a EnvParams, got N"),
    ],
)  # fmt: skip
def test_what_is_allowed_is_said(call, words, made):
    with pytest.raises(ValueError, match=words):
        call(made)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, -1, None, "15", True, [15]])
def test_the_time_between_checkpoints_is_one(seconds, made, no_training):
    words = "checkpoint_seconds must be seconds, 0 or more and finite, got "
    calls = [
        lambda: study.run({"base": BASE}, "new", checkpoint_seconds=seconds),
        lambda: study.resume(made, checkpoint_seconds=seconds),
        lambda: dqx.tune({}, "new", checkpoint_seconds=seconds),
    ]
    for call in calls:
        with pytest.raises(dqx.ConfigError, match=words):
            call()


def test_what_a_path_and_a_device_may_be_is_taken_still(made):
    assert len(dqx.load(made).runs) == len(dqx.load(str(made)).runs) == 1
    (cpu,) = jax.devices("cpu")[:1]
    assert study.dry_run({"base": BASE}, devices=[cpu], timed=False).groups[0].devices == 1
    with pytest.raises(StudyError, match="no plan.json"):
        dqx.load(made.parent)
