"""Public functions called wrongly: what is raised is raised by us, and says what is wrong."""

import ast
import inspect
import linecache
import os
import traceback
from pathlib import Path

import numpy as np
import pytest

import dqx
import dqx.stats
import dqx.study
import envs
from dqx import run as training
from dqx import tuning
from dqx.study import estimate
from dqx.study.executors.local import Local
from tests.study.kit import make_study
from tests.wrong_calls import Accepted

ROOT = Path(dqx.__file__).resolve().parents[1]
CLASSES = ("ConfigError", "StudyError", "OutputError", "UnusableEnvironment", "ConformanceError")
NOTHING = object()
RAGGED = [[1.0, 2.0], [3.0]]
DICE = np.random.default_rng(0)
SEEDS, OTHERS = DICE.normal(size=8), DICE.normal(size=8)
TABLE = {"dqn": DICE.normal(size=(4, 3)), "other": DICE.normal(size=(4, 3))}
STEPS = np.arange(1, 6) * 100

# Arguments that are right, by the names that parameters have everywhere in `dqx.stats`.
STATS = {
    "x": SEEDS, "y": OTHERS, "a": SEEDS, "b": OTHERS, "values": SEEDS, "low": 0.0, "high": 1.0,
    "scores": TABLE["dqn"], "score_dict": TABLE, "tau_list": [0.0, 0.5], "thresholds": [0.0, 0.5],
    "p_values": [0.01, 0.2], "bounds": (-9.0, 9.0), "share": 0.5, "n": 3, "until": 300.0,
    "threshold": 0.0, "bar": 0.0, "resamples": 20, "permutations": 50, "func": np.mean,
    "steps": np.array([100.0, 200.0, 300.0]), "reached": np.array([True, True, False]),
    "preset": "cartpole",
}  # fmt: skip
OWN = {
    "area_under_curve": {"steps": STEPS, "values": DICE.normal(size=(8, 5))},
    "steps_to_threshold": {"steps": STEPS, "values": DICE.normal(size=(8, 5))},
    "simultaneous_band": {"values": DICE.normal(size=(8, 5))},
    "aggregate_iqm": {"scores": TABLE["dqn"]},
    "min_max_normalize": {"scores": TABLE},
    "lowered": {"difference": 1.0},
    "improvement_over_tasks": {"x": TABLE["dqn"], "y": TABLE["other"]},
}
# What is wrong for every parameter of a name, whatever the function.
ARRAYS = ["text", RAGGED, NOTHING, None, 1j]
NUMBERS, WHOLE = ["high", NOTHING, None], ["three", 2.5, NOTHING]
WRONG = {
    **dict.fromkeys(
        ("x", "y", "a", "b", "values", "scores", "tau_list", "thresholds", "p_values", "steps",
         "reached"), ARRAYS,
    ),
    **dict.fromkeys(("share", "until", "threshold", "bar", "gamma", "target", "power"), NUMBERS),
    "difference": [*NUMBERS, 0, -1.0, float("inf"), float("nan")],
    "level": [*NUMBERS, 0, 1.5, float("nan")],
    "resamples": [*WHOLE, 0, -3],
    "permutations": [*WHOLE, 0],
    "preset": ["Pong", "", "../cartpole", 3, None, ["cartpole"]],
    "window": [*WHOLE, 0],
    "seed": [*WHOLE, -1],
    "axis": ["first", 7],
    "nan": ["keep", NOTHING, None],
    "statistic": [3, "mean"],
    "func": [3, "mean"],
    "bounds": [3, (1.0,), ("a", "b"), (2.0, 1.0)],
    "score_dict": [3, [1.0], {}, {"dqn": "text"}],
    "method": ["nothing"],
}  # fmt: skip


def functions(module):
    """The public functions of a module, by name."""
    found = {name: getattr(module, name) for name in module.__all__}
    return {name: f for name, f in found.items() if inspect.isfunction(f)}


def calls_of_stats():
    for name, function in functions(dqx.stats).items():
        parameters = inspect.signature(function).parameters
        given = {**STATS, **OWN.get(name, {})}
        right = {
            key: given[key]
            for key, one in parameters.items()
            if one.default is one.empty or key in ("resamples", "permutations")
        }
        for key in parameters:
            for number, value in enumerate(WRONG.get(key, ())):
                yield pytest.param(function, {**right, key: value}, id=f"{name}-{key}-{number}")


PATHS = [None, 3, NOTHING, b"\0", "", "\0", "nothing/here", "x" * 5000]
PLANS = [
    None, 3, [], {}, {"base": 3}, {"base": {}, "grid": 5}, {"seeds": "x"}, "none.toml", {1: 2},
    {"base": {"env": 3}}, {"base": {}, "case": [3]}, {"base": {}, "seeds": {}}, NOTHING,
    {"base": {}, "name": 7}, {"base": {}, "search": {"draws": "x"}}, {"base": {"gamma": NOTHING}},
]  # fmt: skip
SECONDS = ["soon", -1, float("nan"), None]
DEVICES = ["abacus", 3, [], ["cpu"], "cpu:0", "gpu"]
PLAN = {"base": {"preset": "cartpole"}, "seeds": 2}
TUNE = {
    "base": {"preset": "cartpole"},
    "tune": {"fresh_seeds": 2, "space": {"gamma": {"uniform": [0.9, 0.99]}}},
}
CONFIG, HYPER = dqx.preset("cartpole")
ENV, PARAMS = envs.make("CartPole-v1")

# (function, right arguments, wrong values by parameter)
CALLS = [
    (dqx.load, {}, {"path": PATHS}),
    (dqx.load_tune, {}, {"path": PATHS}),
    (dqx.study.load, {}, {"path": PATHS}),
    (dqx.study.resume, {"path": "study"}, {"path": PATHS}),
    (dqx.study.verify, {"path": "study"},
     {"path": PATHS, "sample": [0, -1, "x", 2.5], "pick": [-1, "x", 2.5], "devices": DEVICES}),
    (dqx.study.read_plan, {}, {"source": PLANS}),
    (dqx.study.run, {"plan": PLAN, "out": "new"},
     {"plan": PLANS, "out": [3, "\0", "", "file", "study", "file/x", "x" * 5000],
      "devices": DEVICES, "checkpoint_seconds": SECONDS}),
    (dqx.study.dry_run, {"plan": PLAN}, {"plan": PLANS, "devices": DEVICES}),
    (dqx.tune, {"source": TUNE, "out": "new"},
     {"source": PLANS, "out": [3, "\0", "file", "study"], "devices": DEVICES}),
    (dqx.train, {"config": "cartpole"},
     {"config": [None, 3, "none", {"gamma": "x"}, {"nothing": 1}, NOTHING], "hyper": [3, {"lr": 1}],
      "seeds": [0, -1, "x", [], [-1], [1, 1], [2**33], 2.5, NOTHING, [None]],
      "root_seed": [-1, "x", 2.5, 2**40], "env": [3, {"gravty": 1}, {"gravity": "x"}],
      "devices": DEVICES, "sinks": [3, [3]]}),
    (dqx.preset, {}, {"name": [None, 3, "", "cartpol", "../x", NOTHING]}),
    (dqx.override, {"config": CONFIG, "hyper": HYPER},
     {"gamma": ["x", None, NOTHING], "num_envs": [2.5, "x"],
      "nothing": [1], "hidden_sizes": [3, ["x"]], "agent": ["nobody", 3]}),
    (dqx.validate, {"config": CONFIG, "hyper": HYPER},
     {"config": [None, 3, dqx.Config(num_envs=0), dqx.Config(env=3), dqx.Config(agent="x")],
      "hyper": [None, 3, dqx.Hyper(gamma=3.0), dqx.Hyper(gamma="x")]}),
    (dqx.make_environment, {}, {"name": [None, 3, "", "Nothing-v0", "a:b", NOTHING]}),
    (dqx.environment_of, {}, {"config": [None, 3, "cartpole", dqx.Config(env="x")]}),
    (dqx.make_agent, {"env": dqx.make_environment("CartPole-v1")},
     {"config": [None, 3, dqx.Config(agent="x"), dqx.Config(network="nature_cnn")],}),
    (dqx.make_trainer, {"config": CONFIG, "env": dqx.make_environment("CartPole-v1")},
     {"config": [None, 3], "env": [None, 3]}),
    (dqx.make_replay, {"example": {"a": np.zeros(3)}, "capacity": 10},
     {"capacity": [0, -1, "x", 2.5], "num_envs": [0, -1, "x", 3], "example": [None, {}]}),
    (dqx.adapt, {"env": ENV, "params": PARAMS}, {"env": [None, 3]}),
    (dqx.use_cache, {}, {"folder": [3]}),
    (envs.make, {}, {"name": [None, 3, "", "Nothing-v0", "a:b", ":", "os:path", NOTHING]}),
    (envs.make, {"name": "CartPole-v1"}, {"gravty": [1], "length": ["x", NOTHING]}),
    (envs.describe, {}, {"name": [None, 3, "", "Nothing-v0", "no:x"]}),
    (envs.configure, {"name": "CartPole-v1"},
     {"name": [None, 3, "x"], "options": [3, {"none": 1}], "params": [3, {"none": 1}]}),
    (envs.check_environment, {"env": ENV, "params": PARAMS},
     {"env": [None, 3], "params": [None, 3], "num_steps": [0, -1, "x"], "seed": ["x"]}),
    (envs.is_foreign, {}, {"name": [None, 3]}),
    (envs.module_of, {}, {"name": [None, 3, "CartPole-v9"]}),
    (envs.sources_of, {}, {"environment": [None, 3, "Nothing-v0"]}),
    (envs.render, {"env": ENV, "state": None, "params": PARAMS}, {"env": [None, 3], "state": [3]}),
]  # fmt: skip
STUDY = {
    "params": {"config": ["none", 3, NOTHING], "seed": [99, "x", None], "step": [7, "x"]},
    "curves": {"config": ["none", 3], "seed": [99, "x", None]},
    "to_arrays": {"metric": ["nothing", None, 3]},
    "scores": {"config": ["none", 3]},
    "point": {"config": ["none", 3]},
    "agent": {"config": ["none", 3], "seed": [99, "x"], "step": [7, "x"]},
}


def calls_of_the_rest():
    for function, right, wrong in CALLS:
        for key, values in wrong.items():
            for number, value in enumerate(values):
                home = function.__module__.split(".")[0]
                label = f"{home}.{function.__name__}-{key}-{number}"
                yield pytest.param(function, {**right, key: value}, id=label)


def calls_of_a_study():
    for name, wrong in STUDY.items():
        for key, values in wrong.items():
            for number, value in enumerate(values):
                yield pytest.param(name, {key: value}, id=f"Study.{name}-{key}-{number}")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("calls")
    (place / "file").write_text("mine")
    make_study(place / "study", {"seeds": 3})
    return place


@pytest.fixture(autouse=True)
def nothing_begins(monkeypatch, place):
    def accepted(*_, **__):
        raise Accepted

    monkeypatch.chdir(place)
    monkeypatch.setattr(Local, "settle", accepted)
    monkeypatch.setattr(estimate, "settle", accepted)
    monkeypatch.setattr(training, "_train", accepted)
    monkeypatch.setattr(tuning, "_run", accepted)


@pytest.mark.parametrize(("function", "arguments"), list(calls_of_stats()))
def test_a_wrong_call_of_statistics(function, arguments):
    """Functions of `dqx.stats`, each argument of a wrong kind or out of range in turn."""
    assert_ours(function, arguments)


@pytest.mark.parametrize(("function", "arguments"), list(calls_of_the_rest()))
def test_a_wrong_call(function, arguments):
    """Functions of `dqx`, `dqx.study` and `envs`, each argument in turn."""
    before = sorted(os.listdir())
    assert_ours(function, arguments)
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(("name", "arguments"), list(calls_of_a_study()))
def test_a_wrong_question_to_a_study(name, arguments, place):
    """Methods of a study that was loaded."""
    right = {"config": None, "seed": 1} if name in ("params", "curves") else {}
    assert_ours(getattr(dqx.load(place / "study"), name), {**right, **arguments})


def assert_ours(function, arguments):
    """Calls it; an error of ours is one of our classes, or is raised by a line of ours."""
    positional = [arguments[key] for key in positional_only(function)]
    named = {k: v for k, v in arguments.items() if k not in positional_only(function)}
    try:
        found = function(*positional, **named)
    except Accepted:
        raise AssertionError("it was accepted, and would have trained") from None
    except Exception as error:
        text = str(error)
        assert type(error).__name__ in CLASSES or is_raised_by_us(error), (
            f"raw {type(error).__name__}: {text[:300]} at {place_of(error)}"
        )
        assert len(text) > 10 and "object at 0x" not in text.replace(repr(NOTHING), "")
        return
    raise AssertionError(f"it was accepted, and gave {found!r:.200}")


def positional_only(function):
    parameters = inspect.signature(function).parameters.values()
    return [one.name for one in parameters if one.kind is one.POSITIONAL_ONLY]


def place_of(error):
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def is_raised_by_us(error):
    """Whether the innermost line is a ``raise`` or an ``assert`` of dqx or envs."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    path = Path(frame.filename).resolve()
    if not (path.is_relative_to(ROOT / "dqx") or path.is_relative_to(ROOT / "envs")):
        return False
    tree = ast.parse("".join(linecache.getlines(frame.filename)))
    lines = [
        range(node.lineno, (node.end_lineno or node.lineno) + 1)
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise | ast.Assert)
    ]
    return any(frame.lineno in each for each in lines)
