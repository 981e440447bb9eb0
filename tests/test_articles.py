"""The presets hold what their sources state, and the script that trains them counts rightly."""

import importlib.util
import json
import math
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import dqx
import dqx.study
from dqx.agents.kit.policies import epsilon_at
from dqx.core.agent import Now
from dqx.settings import notes, preset_about, setting

SCRIPT = Path(__file__).parent.parent / "scripts" / "reproduce_articles.py"
RECORD = Path(__file__).parent.parent / "benchmarks" / "results" / "articles.json"

# As the articles give them; what a preset adds to them is its own matter.
STATED = {
    "wall-dodge/road-env": {
        "env": "WallDodge-v0", "network": "nature_cnn", "hidden_sizes": (100,),
        "activation": "relu",
        "scale_pixels": False, "optimizer": "adam", "learning_rate": 1e-6, "loss": "keras_mse",
        "gamma": 0.95, "replay_capacity": 2_000, "updates_per_train": 32, "batch_size": 1,
        "double": False, "epsilon_schedule": "per_episode", "epsilon_start": 1.0,
        "epsilon_decay": 0.995, "epsilon_end": 0.01, "initializer": "glorot_uniform",
        "optimizer_epsilon": 1e-7,
    },
    "taxi/rubiks-code": {
        "env": "Taxi-v4", "network": "embedding", "embedding_size": 10, "hidden_sizes": (50, 50),
        "activation": "relu", "optimizer": "adam", "learning_rate": 0.01, "loss": "keras_mse",
        "gamma": 0.6, "epsilon_schedule": "constant", "epsilon_start": 0.1,
        "replay_capacity": 2_000, "batch_size": 32, "train_period": 1, "double": False, "tau": 1.0,
        "num_envs": 1, "initializer": "glorot_uniform", "optimizer_epsilon": 1e-7,
    },
    "taxi/tabular": {
        "env": "Taxi-v4", "agent": "tabular", "initial_q": 0.0, "sampling": "newest",
        "policy": "epsilon_greedy", "epsilon_schedule": "constant", "visit_power": 0.0,
        "train_period": 1, "batch_size": 1, "num_envs": 1,
    },
    "mountain-car/toptal": {
        "env": "MountainCar-v0", "hidden_sizes": (32, 32), "activation": "relu",
        "optimizer": "adam", "learning_rate": 1e-3, "max_grad_norm": 1.0, "loss": "keras_mse",
        "gamma": 0.99, "epsilon_schedule": "constant", "epsilon_start": 0.01,
        "replay_capacity": 50_000, "batch_size": 64, "learning_starts": 2_000, "train_period": 1,
        "target_period": 1_000, "total_steps": 200_000, "log_period": 2_000, "eval_period": 20_000,
        "eval_states": 10_000, "double": False, "tau": 1.0, "optimizer_epsilon": 1e-7,
    },
    "mountain-car/zoo": {
        "env": "MountainCar-v0", "hidden_sizes": (256, 256), "optimizer": "adam",
        "learning_rate": 4e-3, "batch_size": 128, "replay_capacity": 10_000, "gamma": 0.98,
        "target_period": 600, "train_period": 16, "updates_per_train": 8, "loss": "huber",
        "huber_delta": 1.0, "max_grad_norm": 10.0, "epsilon_schedule": "linear",
        "epsilon_start": 1.0, "epsilon_end": 0.07, "epsilon_steps": 24_000.0,
        "total_steps": 120_000, "double": False,
    },
    "cartpole/keras-rl": {
        "env": "CartPole-v0", "hidden_sizes": (16,), "activation": "relu", "optimizer": "adam",
        "learning_rate": 1e-3, "gamma": 0.99, "epsilon_schedule": "constant", "epsilon_start": 0.1,
        "replay_capacity": 50_000, "batch_size": 32, "learning_starts": 10, "train_period": 1,
        "tau": 0.01, "target_period": 1, "loss": "huber", "huber_delta": math.inf,
        "total_steps": 5_000, "eval_episodes": 5, "double": True, "optimizer_epsilon": 1e-7,
    },
    "cartpole/double-dqn": {
        "env": "CartPole-v0", "hidden_sizes": (16, 16), "activation": "tanh", "optimizer": "sgd",
        "learning_rate": 0.0075, "momentum": 0.5, "learning_rate_decay": 1e-6, "gamma": 0.99,
        "max_grad_norm": 2.0, "loss": "keras_mse", "replay_capacity": 500_000, "batch_size": 32,
        "learning_starts": 100, "train_period": 1, "double": True, "target_period": 300, "tau": 1.0,
    },
}  # fmt: skip

# Dopamine gives every game of MinAtar the same.
MINATAR = {
    "network": "minatar_cnn", "hidden_sizes": (), "activation": "relu",
    "initializer": "glorot_uniform", "scale_pixels": False,
    "env_options": (("use_minimal_action_set", False),),
    "sticky_actions": 0.1, "frame_stack": 1, "optimizer": "adam", "learning_rate": 2.5e-4,
    "optimizer_epsilon": 3.125e-4, "loss": "squared", "gamma": 0.99, "double": False, "tau": 1.0,
    "learning_starts": 1_000, "train_period": 4, "updates_per_train": 1, "batch_size": 32,
    "replay_capacity": 100_000, "target_period": 1_000, "policy": "epsilon_greedy",
    "epsilon_schedule": "linear", "epsilon_start": 1.0, "epsilon_end": 0.01,
    "epsilon_steps": 250_000.0,
}  # fmt: skip
STATED |= {
    "breakout": {**MINATAR, "env": "Breakout-MinAtar"},
    "asterix": {**MINATAR, "env": "Asterix-MinAtar"},
    "freeway": {**MINATAR, "env": "Freeway-MinAtar"},
    "space-invaders": {**MINATAR, "env": "SpaceInvaders-MinAtar"},
}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("reproduce_articles", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", STATED)
def test_a_preset_is_what_its_article_states(name):
    config, hyper = dqx.preset(name)
    for field, value in STATED[name].items():
        traced = field != "env_options" and setting(field).traced
        owner = hyper if traced else config
        assert getattr(owner, field) == value, field


def test_exploration_of_the_article_on_double_dqn():
    config, hyper = dqx.preset("cartpole/double-dqn")
    for step in (0, 100, 1_000, 5_000):
        expected = 0.1 + 0.7 * math.exp(-0.00075 * step)
        now = Now(hyper, step, updates=step, episodes=0)
        assert float(epsilon_at(config, now)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", dqx.preset_names())
def test_every_preset_says_what_it_is_and_is_measured_on_seeds(name):
    about = preset_about(name)
    assert about.about.endswith(".") and isinstance(about.seeds, int) and about.seeds >= 8
    assert notes(*dqx.preset(name)) == ()
    own = about.source.split(";")[0] == "our own"
    assert own == (about.claim == "")
    assert own or about.source.split(" ")[-1] in about.about


def solved(script, totals):
    totals = np.asarray(totals, float)
    return script.until_solved((totals, np.cumsum(totals)))


def test_when_cartpole_counts_as_solved(script):
    assert solved(script, [195.0] * 100) == (0, 19_500)
    assert np.isnan(solved(script, [195.0] * 99)).all()
    assert np.isnan(solved(script, [194.9] * 400)).all()
    rng = np.random.default_rng(0)
    totals = np.minimum(200, np.linspace(10, 260, 400) + rng.normal(0, 20, 400)).round()
    first = next(i for i in range(301) if totals[i : i + 100].mean() >= 195)
    assert first > 100
    assert solved(script, totals) == (first, totals[: first + 100].sum())


def test_seeds_that_never_solve_it_count_as_later_than_all_others(script):
    found = np.array([[50.0, 9e3]] * 2 + [[200.0, 4e4]] * 4 + [[np.nan, np.nan]] * 4)
    lines = script.solved_words("cartpole/keras-rl", found).strip().splitlines()
    assert "reached by 6 of 10 seeds within 200,000 steps" in lines[0]
    assert "median 200, 10th to 90th percentile 50 to never, least 50" in lines[1]
    assert "median 40,000, 10th to 90th percentile 9,000 to never, least 9,000" in lines[2]
    assert lines[3].endswith(": 20 % of the seeds")
    assert "\n" not in script.solved_words("cartpole/keras-rl", found[6:]).strip()


def call(*arguments):
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip


@pytest.mark.long
def test_the_script_trains_prints_draws_and_goes_on(tmp_path):
    arguments = ("--presets", "cartpole/keras-rl", "--seeds", 2, "--out", tmp_path, "--quiet")
    first, again = call(*arguments), call(*arguments)
    assert first.returncode == 0, first.stderr
    assert again.stdout == first.stdout and first.stderr == ""
    head, _, line, *_ = first.stdout.splitlines()
    assert head.split("|")[1].strip() == "preset"
    assert [cell.strip() for cell in line.split("|")[1:4]] == ["cartpole/keras-rl", "2", "5,000"]
    assert "of 2 seeds within 200,000 steps" in first.stdout
    assert (tmp_path / "articles.md").read_text() in first.stdout
    record = json.loads((tmp_path / "articles.json").read_text())
    assert len(record["scores"]["cartpole/keras-rl"]) == 2
    for name in ("articles.png", "solved.png"):
        assert (tmp_path / name).stat().st_size > 10_000

    steps = record["curves"]["cartpole/keras-rl"]["steps"]
    assert steps[-1] == 5_000 and len(record["curves"]["cartpole/keras-rl"]["center"]) == len(steps)
    # Of a record of all presets it renews its own row, prints all, and draws those with a curve.
    kept = tmp_path / "kept.json"
    kept.write_text(RECORD.read_text())
    third = call(*arguments, "--keep", kept)
    assert third.returncode == 0, third.stderr
    old, new = json.loads(RECORD.read_text()), json.loads(kept.read_text())
    names = [row["preset"] for row in old["rows"]]
    assert [row["preset"] for row in new["rows"]] == names
    for one, other in zip(old["rows"], new["rows"], strict=True):
        assert (one == other) == (one["preset"] != "cartpole/keras-rl")
        assert one["preset"] in third.stdout
    assert new["scores"]["cartpole/keras-rl"] == record["scores"]["cartpole/keras-rl"]
    assert set(new["curves"]) == {*old["curves"], "cartpole/keras-rl"}
    assert "/articles.png, without wall-dodge/road-env, " in third.stdout
    assert {k: new["scores"][k] for k in names if k != "cartpole/keras-rl"} == {
        k: old["scores"][k] for k in names if k != "cartpole/keras-rl"
    }


def test_the_record_of_the_readme_has_a_row_a_score_and_an_identity_of_each_preset(script):
    record = script.read_record(RECORD)
    names = [row["preset"] for row in record["rows"]]
    assert len(set(names)) == len(names)
    assert set(names) == record["scores"].keys() == record["identity"].keys()
    assert record["curves"].keys() <= set(names)
    for row in record["rows"]:
        assert len(record["scores"][row["preset"]]) == row["seeds"]


SHORT = {"total_steps": 1_000, "log_period": 500, "eval_period": 500}


def trained(script, folder, name, changes):
    """A study as the script trains it, of two seeds."""
    args = SimpleNamespace(seeds=2, out=folder, quiet=True, devices="cpu:1")
    return script.trained(name, changes, args)


@pytest.mark.long
def test_results_of_other_settings_are_not_taken_for_those_of_a_preset(script, tmp_path):
    first = trained(script, tmp_path, "cartpole/keras-rl", SHORT)
    again = trained(script, tmp_path, "cartpole/keras-rl", SHORT)
    assert again.digests == first.digests and again.manifest == first.manifest
    plan = json.loads((first.path / "plan.json").read_text())
    assert plan["seeds"] == [0, 1] and plan["points"][0]["config"]["total_steps"] == 1_000
    (folder,) = tmp_path.iterdir()
    folder.rename(tmp_path / folder.name.replace("-500-500", "-500-1000"))
    with pytest.raises(dqx.study.StudyError, match="holds another plan: .*eval_period of .* 1000"):
        trained(script, tmp_path, "cartpole/keras-rl", {**SHORT, "eval_period": 1_000})


def test_bars_are_those_of_the_presets(script, tmp_path):
    presets = script.chosen(None, bars=True)
    assert {name: preset_about(name).bar for name in presets} == {
        "acrobot": -100, "frozen-lake": 0.7, "cartpole": 475, "cartpole/cleanrl": 490,
        "cartpole/one-step": 475,
        "mountain-car": -115, "mountain-car/one-step": -115, "taxi": 7.8, "taxi/tabular": 7.9,
        "wall-dodge": 48,
        "wall-dodge-80": 36, "cartpole/munchausen": 475, "cartpole/n-step": 475,
        "cartpole/per": 475, "cartpole/dueling": 475, "cartpole/noisy": 475, "cartpole/c51": 475,
        "cartpole/rainbow": 475, "cartpole/qr": 475, "cartpole/iqn": 475, "cartpole/pqn": 475,
        "cartpole/maxmin": 475, "cartpole/bootstrapped": 475,
    }  # fmt: skip
    of_suites = {name for name in dqx.preset_names() if ":" in dqx.preset(name)[0].env}
    assert set(dqx.preset_names()) - set(script.chosen(None, bars=False)) <= of_suites
    assert script.chosen(" taxi,cartpole ", bars=True) == ["taxi", "cartpole"]
    with pytest.raises(dqx.ConfigError, match="taxi/rubiks-code has no bar"):
        script.chosen("taxi/rubiks-code", bars=True)


def test_a_preset_whose_suite_is_not_installed_is_left_out_and_named(script, monkeypatch, capsys):
    def version(package):
        if package == "navix":
            raise metadata.PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr(metadata, "version", version)
    names = script.chosen(None, bars=False)
    assert [name for name in dqx.preset_names() if name not in names] == ["navix/empty"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("preset navix/empty is left out: ") and "'dqx[navix]'" in line
    assert script.chosen("navix/empty", bars=False) == ["navix/empty"]


@pytest.mark.parametrize(
    ("scores", "missed"),
    [([474.0, 475.9], ["cartpole"]), ([474.0, 476.0], []), ([500.0, np.nan], ["cartpole"])],
)
def test_a_bar_is_missed_below_it_and_by_what_is_not_finite(script, scores, missed):
    def study(values):
        return SimpleNamespace(scores=lambda: np.array(values))

    found = script.missed_bars({"cartpole": study(scores), "cartpole/keras-rl": study([0.0])})
    assert found == missed


@pytest.mark.long
def test_diverged_seeds_are_counted_and_leave_a_row(script, tmp_path):
    """A step size of 1e30 ends in parameters that are not finite; the taxi then drives south."""
    changes = {"learning_rate": 1e30, "total_steps": 4_000, "eval_period": 4_000}
    row = script.row("taxi", trained(script, tmp_path, "taxi", changes))
    assert row["diverged"] == 2
    assert row["IQM"] == "-200.00" and row["95 % interval"] == "all middle seeds agree, no interval"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--presets", "cartpol"), "unknown preset 'cartpol'; the closest are cartpole"),
        (("--presets", "taxi/rubiks-code", "--bars"), "taxi/rubiks-code has no bar"),
        (("--seeds", "0"), "--seeds must be at least 1, got 0"),
        (("--out", SCRIPT / "x"), "cannot write in"),
        (("--presets", "taxi", "--keep", SCRIPT), "holds no record of this script"),
        (("--presets", "taxi", "--keep", "no/where.json"), "there is no folder no for where.json"),
    ],
)
def test_the_script_says_what_is_wrong(arguments, words):
    done = call(*arguments)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
