"""`dqx train` is a study of one configuration: its folder, what it prints, its options."""

import dataclasses
import errno
import json
import os
import re
import warnings
from types import SimpleNamespace

import numpy as np
import pandas
import pytest

import dqx
import dqx.run
from dqx.settings import override, parse_assignments, preset, rounded, row_steps
from dqx.study import StudyInterrupted
from dqx.study.sealed import read_sealed
from tests.cli.kit import FIELDS, TINY, files
from tests.study.kit import call, make_study

NUMBER = r"\d+\.\d"


def asked(name, **fields):
    """The configuration of a preset with `FIELDS`, and with these on top."""
    return override(*preset(name), **{**parse_assignments(FIELDS), **fields})


def test_the_folder_is_that_of_a_study(trained):
    assert os.listdir(trained.place) == ["runs"] and os.listdir(trained.folder.parent) == [
        "cartpole"
    ]
    assert set(files(trained.folder)) == {
        "plan.json", "plan-copy.json", "manifest.json", "progress.json", "lock",
        "learning_curves.png",
        "chunks/00000.json", "metrics/part-00000.parquet", "episodes/part-00000.parquet",
        "params/part-00000.npz", "report/index.html",
    }  # fmt: skip
    study = dqx.load(trained.folder)
    assert study.finished and study.configs == ("cartpole",) and study.seeds == (3, 17)
    config, hyper = asked("cartpole", total_steps=800)
    assert study.point() == (dataclasses.replace(config, chunk_width=4), hyper)
    manifest = read_sealed(trained.folder / "manifest.json")
    command = "dqx train cartpole --seeds 3,17 --steps 800 --set num_envs=4 "
    assert manifest["command"].startswith(command) and manifest["name"] == "cartpole"
    assert (trained.folder / "learning_curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_numbers_are_those_of_training_in_memory(trained):
    study = dqx.load(trained.folder)
    result = dqx.train(*study.point(), (3, 17))
    assert [study.digests["cartpole", seed] for seed in (3, 17)] == list(result.digests)
    manifest = study.manifest
    again = dqx.train(manifest["config"], manifest["hyper"], 1)  # as JSON keeps them
    assert (again.config, again.hyper) == (result.config, result.hyper)


def test_pandas_reads_the_metrics_without_dqx(trained):
    table = pandas.read_parquet(trained.folder / "metrics")
    assert list(table)[:3] == ["config", "seed", "step"]
    assert set(table["config"]) == {"cartpole"} and {"loss", "eval_return"} < set(table)
    assert (table["seed"].dtype, table["step"].dtype) == (np.int64, np.int64)
    assert {table[name].dtype for name in list(table)[3:]} == {np.dtype(np.float32)}
    wide = table.pivot(index="seed", columns="step", values="loss")
    study = dqx.load(trained.folder)
    assert wide.columns.tolist() == [200, 400, 600, 800] == study.steps.tolist()
    np.testing.assert_array_equal(wide.loc[[3, 17]], study.to_arrays("loss")[0])
    episodes = pandas.read_parquet(trained.folder / "episodes")
    assert list(episodes) == ["config", "seed", "step", "return", "length"] and len(episodes) > 10


def test_the_result_is_printed(trained):
    lines, study = trained.out, dqx.load(trained.folder)
    assert lines[0] == "cartpole: 2 runs (1 configuration x 2 seeds)"
    found = re.fullmatch(
        rf"final greedy return: IQM ({NUMBER}), 95 % interval (-?{NUMBER}) to ({NUMBER}) "
        r"\(2 seeds\)",
        lines[1],
    )
    value, low, high = map(float, found.groups())
    # With two seeds no value is cut: the interquartile mean is the mean.
    assert value == pytest.approx(study.scores().mean(), abs=0.051) and low <= value <= high
    rate = study.manifest["steps_per_second"]
    assert re.fullmatch(
        rf"time: {NUMBER} s to compile, {NUMBER} s to run \({rate:,.0f} environment steps/s on "
        r"1 x .+\)",
        lines[2],
    )
    assert lines[3:] == [
        f"folder: {trained.folder}",
        f"page: {trained.folder / 'report' / 'index.html'}",
    ]
    assert (trained.folder / "report" / "index.html").read_text().startswith("<!doctype html>")


def test_progress_goes_to_standard_error_in_plain_lines(trained):
    assert trained.err[0] == "cartpole: compiling..."
    last = r"cartpole: 100 %, 2/2 runs done, [\d,]+ steps/s, 0:00 left, greedy return \d+\.\d"
    assert re.fullmatch(last, trained.err[-1])
    assert sum("100 %" in line for line in trained.err) == 1
    assert all(line.startswith("cartpole: ") for line in trained.err)
    assert all(line.isprintable() for line in [*trained.err, *trained.out])


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Training that takes no time: the list holds the plan, folder and options of each call."""
    calls = []
    make_study(tmp_path / "made", {"seeds": 2})

    def run(plan, out, **given):
        calls.append(SimpleNamespace(plan=plan, out=str(out), **given))
        return dqx.load(tmp_path / "made")

    monkeypatch.setattr(dqx.run, "run", run)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return calls


def test_defaults(runs):
    assert call("train", "cartpole/cleanrl", "--quiet")[0] == 0
    (given,) = runs
    assert (given.out, given.plan.name) == ("runs/cartpole-cleanrl", "cartpole-cleanrl")
    (point,) = given.plan.points
    assert (point.name, point.config, point.hyper) == (
        "cartpole/cleanrl", *dqx.preset("cartpole/cleanrl")
    )  # fmt: skip
    assert (given.plan.seeds, given.plan.root_seed) == (tuple(range(32)), 0)
    assert (given.devices, given.overwrite, given.replay_checkpoint) == (None, False, True)


def test_every_option_reaches_the_training(runs):
    status, *_ = call(
        "train", "cartpole", "--out", "a", "--devices", "cpu:2", "--root-seed", "5",
        "--checkpoint-seconds", "0.5", "--overwrite", "--seeds", "8:10",
        "--set", "gamma=0.5", "--set", "max_grad_norm=inf", "tau=0.5", "--quiet",
    )  # fmt: skip
    assert status == 0
    (given,) = runs
    assert (given.out, given.devices, given.plan.root_seed) == ("a", "cpu:2", 5)
    assert (given.overwrite, given.replay_checkpoint, given.checkpoint_seconds) == (
        True, True, 0.5
    )  # fmt: skip
    hyper = given.plan.points[0].hyper
    assert (hyper.gamma, hyper.max_grad_norm, hyper.tau) == (0.5, float("inf"), 0.5)
    assert given.plan.seeds == (8, 9)
    assert call("train", "cartpole", "--out", "b", "--no-replay-checkpoint", "--quiet")[0] == 0
    assert runs[-1].replay_checkpoint is False


def test_quiet_prints_the_result_only(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = call("train", "cartpole", "--seeds", "3,17", *TINY, "--quiet")
    assert (status, err, out[:2]) == (0, [], trained.out[:2])
    assert dqx.load("runs/cartpole").digests == dqx.load(trained.folder).digests


@pytest.mark.filterwarnings("always::dqx.settings.ConfigWarning")
@pytest.mark.parametrize("name", dqx.preset_names())
@pytest.mark.parametrize("steps", [30_001, 1])
def test_any_budget_suits_any_preset(runs, name, steps):
    """What must divide is rounded up, told in one line a change, and the last step evaluates."""
    status, _, err = call("train", name, "--steps", steps, "--quiet")
    assert status == 0
    asked = dataclasses.replace(dqx.preset(name)[0], total_steps=steps)
    config, lines = rounded(asked)
    notes = [line for line in err if "nothing is learned" not in line]
    assert notes == [f"dqx: note: {line}" for line in lines]
    assert len(err) - len(notes) == (config.learning_starts >= config.total_steps)
    assert runs[0].plan.points[0].config == config
    assert 0 <= config.total_steps - steps < config.train_period
    assert row_steps(config)[-1] == config.total_steps


@pytest.mark.filterwarnings("always::dqx.settings.ConfigWarning")
def test_an_odd_budget_is_trained_to_its_end(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fields = [field for field in FIELDS if not field.startswith("log_period=")]
    arguments = ("--seeds", "1", "--steps", "1399", "--set", *fields, "log_period=198")
    status, _, err = call("train", "cartpole", *arguments)
    assert status == 0
    assert err[:2] == [
        "dqx: note: total_steps 1,399 is rounded up to 1,400, the next multiple of train_period 4",
        "dqx: note: log_period 198 is rounded up to 200, the next multiple of train_period 4",
    ]
    assert not any("note" in line for line in err[2:])
    curves = dqx.load("runs/cartpole").curves(None, 0)
    assert curves["step"].tolist() == list(range(200, 1401, 200))
    evaluated = curves["step"][np.isfinite(curves["eval_return"])].tolist()
    assert evaluated == [400, 800, 1200, 1400]


def test_an_existing_folder_is_replaced_only_if_asked(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = make_study("runs/cartpole", {"name": "cartpole", "seeds": 1})
    before = files(made.folder.path)
    arguments = ("train", "cartpole", "--seeds", "3,17", *TINY, "--quiet")
    status, out, err = call(*arguments)
    assert (status, out) == (2, [])
    (line,) = err
    assert line.startswith("dqx: error: runs/cartpole holds another plan: seeds was 0 and is 3, 17")
    assert line.endswith("Choose another folder, or --overwrite to replace it")
    assert files(made.folder.path) == before
    assert call(*arguments, "--overwrite")[0] == 0
    assert dqx.load("runs/cartpole").digests == dqx.load(trained.folder).digests
    status, _, (line,) = call(*arguments)
    assert status == 2 and line == (
        "dqx: error: runs/cartpole already holds this study: `dqx study resume runs/cartpole` goes "
        "on with it, --overwrite replaces it"
    )
    assert os.listdir("runs") == ["cartpole"]


def test_a_run_of_dqx_0_1_may_be_replaced(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old = tmp_path / "runs" / "cartpole"
    (old / "metrics").mkdir(parents=True)
    (old / "metrics" / "part-0.parquet").write_text("of dqx 0.1")
    (old / "manifest.json").write_text(json.dumps({"versions": {"dqx": "0.1.0"}, "seeds": [0]}))
    arguments = ("train", "cartpole", "--seeds", "3,17", *TINY, "--quiet")
    status, _, (line,) = call(*arguments)
    assert status == 2 and line.endswith(
        "runs/cartpole holds a run of dqx 0.1, which this version does not read: choose another "
        "folder, or --overwrite to replace it"
    )
    assert set(files(old)) == {"metrics/part-0.parquet", "manifest.json"}
    assert call(*arguments, "--overwrite")[0] == 0
    assert set(files(old)) == set(files(trained.folder))
    assert dqx.load(old).digests == dqx.load(trained.folder).digests


def test_a_dry_run_trains_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ("train", "cartpole", "--seeds", "9", *TINY, "--dry-run")
    status, out, err = call(*arguments, "--devices", "cpu:1")
    assert status == 0 and os.listdir() == []
    assert out[0] == ("cartpole: 1 configuration x 9 seeds = 9 runs, 7,200 environment steps")
    assert out[2].split() == [
        *("PROGRAM", "CONFIGS", "RUNS", "CHUNKS", "WIDTH", "DEVICES"), *("MEMORY", "A", "CHUNK"),
        *("A", "TRANSITION"), "TIME",
    ]  # fmt: skip
    assert out[3].split()[:6] == ["1", "1", "9", "3", "4", "1"]
    assert [line.split(":")[0] for line in out[4:]] == ["memory", "disk", "time"]
    assert err == ["dry run: compiling...", "dry run: 1/1 programs compiled and timed"]


def test_a_full_disk_is_one_line_and_status_2(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    status, out, err = call("train", "cartpole", *TINY, "--out", tmp_path / "new" / "a", "--quiet")
    assert (status, out) == (2, [])
    folder = tmp_path / "new" / "a"
    assert err == [
        f"dqx: error: cannot write {folder}: No space left on device; choose another folder"
    ]
    assert os.listdir(tmp_path) == []


def test_a_defect_is_not_hidden(runs, monkeypatch):
    monkeypatch.setattr(dqx.run, "run", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call("train", "cartpole", "--quiet")


def test_a_warning_is_one_line(runs, monkeypatch):
    usual = dqx.run.run

    def run(*arguments, **given):
        warnings.simplefilter("always")
        warnings.warn("something\nodd", stacklevel=1)
        return usual(*arguments, **given)

    monkeypatch.setattr(dqx.run, "run", run)
    status, _, err = call("train", "cartpole", "--quiet")
    assert (status, err) == (0, ["dqx: warning: something odd"])


def test_ctrl_c_says_how_to_go_on(runs, monkeypatch):
    def interrupted(*_, **__):
        raise StudyInterrupted("interrupted; go on with: dqx study resume x")

    monkeypatch.setattr(dqx.run, "run", interrupted)
    assert call("train", "cartpole", "--quiet") == (
        130, [], ["dqx: interrupted; go on with: dqx study resume x"]
    )  # fmt: skip
