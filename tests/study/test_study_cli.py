"""`dqx study` and `dqx verify` as a person uses them: what they print, and what they refuse."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from handmade import BASE, IDENTITY, call, fields, make_study, toml
from shared import TINY

import dqx.study
from dqx import plots
from dqx.study import engine, load
from dqx.study.finish import read_progress
from dqx.study.folder import Folder, Lock, read_sealed

ROOT = str(Path(dqx.__file__).resolve().parent.parent)
PLAN = {
    "name": "tiny",
    "seeds": 5,
    "base": {**fields(TINY), "epsilon_steps": 400},
    "grid": {"learning_rate": [1e-2, 1e-3]},
}
FAST, SLOW = "learning_rate=0.01", "learning_rate=0.001"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One study, trained by the command: where, and what it said."""
    place = tmp_path_factory.mktemp("place")
    (place / "plan.toml").write_text(toml(PLAN))
    here = os.getcwd()
    os.chdir(place)
    try:
        status, out, err = call("study", "plan.toml")
    finally:
        os.chdir(here)
    assert status == 0, err
    return place, out, err


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    """A copy of that folder, which is the current one."""
    shutil.copytree(trained[0], tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def test_a_study_is_trained_and_its_result_printed(trained):
    place, out, _ = trained
    folder = Path("runs/tiny")
    assert sorted(os.listdir(place)) == ["plan.toml", "runs"]
    study = load(place / folder)
    assert study.finished and study.configs == (FAST, SLOW) and study.seeds == (0, 1, 2, 3, 4)
    assert out[0] == "tiny: 10 runs (2 configurations x 5 seeds)"
    assert out[1].split("  ")[0] == "CONFIGURATION" and out[1].endswith("DIVERGED")
    finals = {
        name: study.to_arrays("eval_return")[i, :, -1] for i, name in enumerate(study.configs)
    }
    # Of five numbers the IQM is the mean of the three in the middle.
    iqm = {name: np.sort(values)[1:4].mean() for name, values in finals.items()}
    rows = [re.split("  +", line) for line in out[2:4]]
    assert [row[0] for row in rows] == sorted(iqm, key=iqm.get, reverse=True)
    for name, runs, value, interval in rows:
        assert runs == "5 of 5" and float(value) == pytest.approx(iqm[name], abs=0.051)
        low, high = map(float, interval.split(" to "))
        assert finals[name].min() - 0.05 <= low <= float(value) <= high <= finals[name].max() + 0.05
    assert out[4:] == [f"folder: {(place / folder).resolve()}"]


def test_the_numbers_are_those_of_training_one_configuration(trained):
    study = load(trained[0] / "runs/tiny")
    hyper = dqx.Hyper(learning_rate=1e-2, epsilon_steps=400.0)
    result = dqx.train(TINY, hyper, range(5))
    np.testing.assert_array_equal(study.to_arrays("loss")[0], result.metrics["loss"])
    assert [study.digests[FAST, seed] for seed in range(5)] == list(result.digests)


def test_progress_goes_to_standard_error_in_plain_lines(trained):
    err = trained[2]
    assert err[0] == "tiny: 0 %, 0/3 chunks, 0/10 runs, compiling"
    last = (
        r"tiny: 100 %, 3/3 chunks, 10/10 runs, [\d,]+ steps/s, 0:00 left, best IQM .*, worst IQM .*"
    )
    assert re.fullmatch(last, err[-1])
    assert all(line.startswith("tiny: ") and line.isprintable() for line in err)


def test_the_folder_tells_of_the_whole(trained):
    folder = Folder(trained[0] / "runs" / "tiny")
    manifest = read_sealed(folder.manifest)
    assert manifest["plan"] == read_sealed(folder.plan)["sha256"]
    assert [(run["config"], run["seed"]) for run in manifest["runs"]] == [
        (c, s) for c in (FAST, SLOW) for s in range(5)
    ]
    assert manifest["steps"] == 10 * TINY.total_steps and manifest["steps_per_second"] > 0
    assert manifest["compile_seconds"] >= 0 <= manifest["checkpoint_seconds"]
    assert load(folder.path).manifest == manifest
    progress = read_progress(folder)
    assert progress["runs_done"] == 10 and progress["best"][0] in (FAST, SLOW)
    picture = (folder.path / "learning_curves.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 20_000
    assert os.listdir(folder.checkpoints) == []


def test_resuming_a_finished_study_trains_nothing(place, trained, monkeypatch):
    monkeypatch.setattr(engine, "Round", None)
    before = load("runs/tiny").digests
    status, out, err = call("study", "resume", "runs/tiny", "--quiet")
    assert (status, err) == (0, []) and out[:-1] == trained[1][:-1]
    assert load("runs/tiny").digests == before


def test_quiet_prints_the_result_only(place, trained):
    status, out, err = call("study", "plan.toml", "--out", "other", "--quiet")
    assert (status, err) == (0, []) and out[:-1] == trained[1][:-1]
    assert load("other").digests == load("runs/tiny").digests


def test_an_existing_study_is_replaced_only_if_asked(place, monkeypatch):
    first = Path("runs/tiny/plan.json").read_bytes()
    status, out, err = call("study", "plan.toml", "--quiet")
    assert (status, out) == (2, [])
    (line,) = err
    assert re.fullmatch(
        r"dqx: error: \S*/runs/tiny already holds this study: `dqx study resume \S*/runs/tiny` "
        r"goes on with it, --overwrite replaces it",
        line,
    )
    (place / "other.toml").write_text(toml({**PLAN, "name": "tiny", "seeds": 6, "root_seed": 1}))
    status, out, err = call("study", "other.toml", "--quiet")
    assert (status, out) == (2, [])
    assert re.search(
        r"tiny holds another plan: seeds was 0, 1, 2, 3, \.\.\. \(5 in all\) and is 0, 1, 2, 3, "
        r"\.\.\. \(6 in all\) now; root_seed was 0 and is 1 now\. Choose another folder, or "
        "--overwrite to replace it",
        err[0],
    )
    assert Path("runs/tiny/plan.json").read_bytes() == first
    changed = {**PLAN["base"], "gamma": 0.5}
    (place / "third.toml").write_text(toml({**PLAN, "base": changed}))
    status, _, err = call("study", "third.toml", "--quiet")
    assert status == 2 and f"gamma of {FAST} was 0.99 and is 0.5 now; gamma of {SLOW}" in err[0]
    (place / "fourth.toml").write_text(toml({**PLAN, "seeds": 6}))
    status, _, err = call("study", "fourth.toml", "--quiet", "--overwrite")
    assert (status, err) == (0, []) and len(load("runs/tiny").seeds) == 6
    assert sorted(os.listdir("runs")) == ["tiny"]


def test_what_is_no_study_is_never_replaced(place):
    (place / "mine").mkdir()
    (place / "mine" / "thesis.txt").write_text("years of work")
    for options in ([], ["--overwrite"]):
        status, _, err = call("study", "plan.toml", "--out", "mine", *options)
        assert status == 2 and "mine exists and holds no study: choose another folder" in err[-1]
    assert (place / "mine" / "thesis.txt").read_text() == "years of work"
    status, _, err = call("study", "plan.toml", "--out", "plan.toml")
    assert status == 2 and re.match(r"dqx: error: .*plan\.toml exists and holds no study", err[-1])


def test_another_programs_plan_does_not_cost_its_folder(place):
    (place / "app").mkdir()
    for text in ('{"tasks": []}', "[]", "no JSON"):
        (place / "app" / "plan.json").write_text(text)
        status, _, err = call("study", "plan.toml", "--out", "app", "--overwrite")
        assert status == 2 and "its plan.json is of no study: choose another folder" in err[-1]
        assert (place / "app" / "plan.json").read_text() == text


def test_a_study_at_work_is_not_replaced_or_resumed(place):
    with Lock(Folder("runs/tiny")):
        status, _, err = call("study", "plan.toml", "--overwrite", "--quiet")
        assert status == 2 and f"is being worked on by process {os.getpid()} on" in err[0]
        status, _, err = call("study", "resume", "runs/tiny", "--quiet")
        assert status == 2 and "wait for it, or watch it with `dqx study status`" in err[0]
        assert len(err) == 1


def test_other_software_is_refused_with_both_sides(tmp_path):
    make_study(tmp_path / "a", {"seeds": 2})
    status, out, err = call("study", "resume", tmp_path / "a", "--quiet")
    (line,) = err
    assert (status, out) == (2, []) and "cannot be resumed here, since bits might differ" in line
    assert f"jax was '{IDENTITY['jax']}' and is '{version('jax')}' here" in line
    assert "device_kind was 'abacus' and is 'cpu: " in line
    assert "start a new study in another folder" in line


@pytest.fixture
def folder_and_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "plan.toml").write_text(toml({"base": BASE}))
    (tmp_path / "bad.toml").write_text("learning_rate = 1e-3\n")
    make_study(tmp_path / "study", {})
    return tmp_path


MISTAKES = {
    "nothing": (["study"], r"FILE\.toml.*dqx study --help"),
    "resume nothing": (["study", "resume"], r"`dqx study resume` takes one folder, such as"),
    "status nothing": (["study", "status"], r"`dqx study status` takes one folder"),
    "resume two": (["study", "resume", "study", "folder"], "takes one folder"),
    "two plans": (["study", "plan.toml", "bad.toml"], r"takes a plan, or resume DIR, .*got plan"),
    "resume no study": (["study", "resume", "folder"], r"folder holds no study: .*plan\.json"),
    "resume none": (["study", "resume", "none"], "none holds no study"),
    "status no study": (["study", "status", "folder"], "folder holds no study"),
    "status none": (["study", "status", "none"], "none holds no study"),
    "verify no study": (["verify", "folder"], "folder holds no study"),
    "a folder": (["study", "study"], r"study is a folder: give a plan, or `dqx study resume"),
    "no file": (["study", "plan.tml"], r"cannot read the plan plan\.tml: No such file"),
    "no file dry": (["study", "plan.tml", "--dry-run"], "cannot read the plan"),
    "bad plan": (["study", "bad.toml"], r"bad\.toml has an unknown entry .*\[base\]"),
    "seconds": (["study", "plan.toml", "--checkpoint-seconds", "-1"],
                "--checkpoint-seconds: must be seconds, 0 or more, got '-1'"),
    "seconds text": (["study", "plan.toml", "--checkpoint-seconds", "x"], "0 or more, got 'x'"),
    "seconds nan": (["study", "plan.toml", "--checkpoint-seconds", "nan"], "got 'nan'"),
    "sample": (["verify", "study", "--sample", "0"],
               "--sample: must be a whole number from 1 on, got '0'"),
    "sample text": (["verify", "study", "--sample", "2.5"], "from 1 on, got '2.5'"),
    "pick": (["verify", "study", "--pick", "-1"],
             "--pick: must be a whole number from 0 on, got '-1'"),
    "both": (["verify", "study", "--sample", "3", "--all"], "--all: not allowed with .*--sample"),
    "devices": (["study", "plan.toml", "--devices", "cpu:999"], "only \\d+ cpu"),
    "verify devices": (["verify", "study", "--devices", "tpu:x"], "must be cpu, gpu or tpu"),
    "dry resume": (["study", "resume", "study", "--dry-run"], "resume` takes no --dry-run"),
    "out resume": (["study", "resume", "study", "--out", "x"], "resume` takes no --out"),
    "overwrite status": (["study", "status", "study", "--overwrite"], "takes no --overwrite"),
    "option": (["study", "plan.toml", "--sample", "3"], "--sample"),
    "here": (["study", "plan.toml", "--out", "."], "current folder"),
    "below a file": (["study", "plan.toml", "--out", "plan.toml/x"], "cannot write.*Not a direc"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(name, folder_and_file, monkeypatch):
    arguments, words = MISTAKES[name]
    # What compiles is refused: every mistake has to be found before that.
    monkeypatch.setattr("dqx.parallel.Programs._call", None)
    before = sorted(map(str, folder_and_file.rglob("*")))
    quiet = ["--quiet"] if len(arguments) > 1 else []
    status, out, err = call(*arguments, *quiet)
    assert (status, out) == (2, []), (out, err)
    (line,) = err
    assert line.startswith("dqx: error: ") and re.search(words, line), line
    assert sorted(map(str, folder_and_file.rglob("*"))) == before


def test_status_of_a_finished_study(place, trained):
    status, out, err = call("study", "status", "runs/tiny")
    assert (status, err) == (0, []) and out[1] == "finished"
    assert [out[0], *out[2:-1]] == trained[1][:-1] and out[-1] == "folder: runs/tiny"


def test_status_of_a_verified_study(place):
    assert call("verify", "runs/tiny", "--sample", 2, "--quiet")[0] == 0
    certificate = Folder("runs/tiny").certificate
    written = json.loads(certificate.read_text())["written"]
    out = call("study", "status", "runs/tiny")[1]
    expected = f"certificate: identical (2 of 10 runs trained again, {written})"
    assert out[-2:] == [expected, "folder: runs/tiny"]
    certificate.write_text(certificate.read_text().replace("identical", "different"))
    status, out, _ = call("study", "status", "runs/tiny")
    assert status == 0 and re.fullmatch(
        r"certificate: runs/tiny/certificate\.json: its content is not what was written .*; "
        r"`dqx verify runs/tiny` writes a new one",
        out[-2],
    )
    make_study(place / "other", {})
    assert call("verify", "runs/tiny", "--sample", 2, "--quiet")[0] == 0
    shutil.copy(certificate, place / "other")
    assert call("study", "status", "other")[1][-2] == "certificate: of another study"


def test_status_of_an_unfinished_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def change(name, seed, run):
        if seed in (1, 2):
            run["diverged_at"], run["metrics"]["eval_return"][-1] = 1000 + seed, np.nan

    cases = [{"name": "a"}, {"name": "b", "double": True}, {"name": "c", "gamma": 0.5}]
    made = make_study("s", {"seeds": 6, "case": cases}, leave_out={1, 2, 3}, change=change)
    status, out, _ = call("study", "status", "s")
    assert status == 0
    assert out[:2] == [
        "study: 6 runs (3 configurations x 6 seeds)",
        "6 of 18 runs finished; nobody works on it: `dqx study resume s` goes on",
    ]
    # Chunk 0 holds a and c on seeds 0 and 1, chunk 4 two seeds of b.
    chunks = {(run["config"], run["seed"]): run["chunk"] for run in load("s").runs}
    assert set(chunks.values()) == {0, 4} and set(chunks) == {
        ("a", 0), ("a", 1), ("c", 0), ("c", 1), ("b", 4), ("b", 5)
    }  # fmt: skip
    finals = {key: float(run["metrics"]["eval_return"][-1]) for key, run in made.runs.items()}
    rows = {row[0]: row for row in (re.split("  +", line) for line in out[3:6])}
    assert rows["a"] == ["a", "2 of 6", f"{finals['a', 0]:.1f}", "n/a", "1"]
    assert rows["b"][:3] == ["b", "2 of 6", f"{(finals['b', 4] + finals['b', 5]) / 2:.1f}"]
    assert " to " in rows["b"][3] and len(rows["b"]) == 4
    assert out[6:] == [
        "diverged: seed 1 of a at step 1,001", "diverged: seed 1 of c at step 1,001", "folder: s"
    ]  # fmt: skip
    with Lock(Folder("s")):
        state = call("study", "status", "s")[1][1]
    assert re.fullmatch(rf"6 of 18 runs finished; at work: process {os.getpid()} on .+", state)
    progress = {"time": 0, "steps": 30, "total_steps": 120, "steps_per_second": 1234.5,
                "seconds_left": 99.6}  # fmt: skip
    Folder("s").progress.write_text(json.dumps(progress))
    with Lock(Folder("s")):
        state = call("study", "status", "s")[1][1]
    assert re.search(r"; 25 % of the steps, 1,234 steps/s, 0:01:40 left \(\d+ s ago\)$", state)
    make_study("none", {"seeds": 6}, leave_out={0, 1})
    out = call("study", "status", "none")[1]
    assert out == [
        "study: 0 runs (1 configuration x 6 seeds)",
        "0 of 6 runs finished; nobody works on it: `dqx study resume none` goes on",
        "folder: none",
    ]


def test_a_damaged_study_is_one_line(tmp_path):
    made = make_study(tmp_path / "s", {"seeds": 2})
    record = made.folder.record(0)
    record.write_text(record.read_text().replace('"diverged_at": -1', '"diverged_at": -2', 1))
    for command in (["study", "status"], ["verify"]):
        status, out, err = call(*command, made.folder.path)
        assert (status, out) == (2, []) and err[-1].startswith(f"dqx: error: {record}: its content")
        assert err[-1].endswith(f"`dqx study resume {made.folder.path}` trains its runs again")


def test_many_configurations_and_diverged_runs_are_counted(tmp_path):
    def change(name, seed, run):
        run["diverged_at"] = 7 if seed else -1

    grid = {"gamma": [round(0.5 + i / 100, 2) for i in range(32)]}
    make_study(tmp_path / "s", {"seeds": 2, "grid": grid}, change=change)
    out = call("study", "status", tmp_path / "s")[1]
    assert out[0] == "study: 64 runs (32 configurations x 2 seeds)"
    assert out[33] == "... and 2 more configurations"
    assert len([line for line in out if line.startswith("diverged: ")]) == 10
    assert out[-2] == "... and 22 more diverged runs"


@pytest.mark.parametrize(
    ("configs", "eval_period", "name"),
    [(1, 200, "learning_curve"), (3, 200, "comparison"), (1, 0, "learning_curve")],
)
def test_the_picture_shows_what_was_measured(tmp_path, monkeypatch, configs, eval_period, name):
    from dqx.study.picture import draw

    def change(config, seed, run):
        if seed == 2:
            run["diverged_at"] = 250

    cases = [{"name": f"case {i}", "gamma": 0.5 + i / 10} for i in range(configs)]
    plan = {"seeds": 3, "base": {"eval_period": eval_period}, "case": cases}
    made, calls = make_study(tmp_path / "s", plan, change=change), []
    monkeypatch.setattr(plots, name, lambda *args, **named: calls.append((args, named)))
    assert draw(tmp_path / "a.png", load(tmp_path / "s")) is True
    ((args, named),) = calls
    metric = "eval_return" if eval_period else "episode_return"
    assert ("no evaluation" in named["ylabel"]) == (not eval_period)
    values = {
        c["name"]: np.stack([made.runs[c["name"], s]["metrics"][metric] for s in range(3)])
        for c in cases
    }
    if configs == 1:
        assert named["title"] == "study: case 0" and named["diverged_at"] == [-1, -1, 250]
        np.testing.assert_array_equal(args[1], values["case 0"])
    else:
        assert named["title"] == "study" and list(args[0]) == list(values)
        for key, (steps, drawn) in args[0].items():
            assert steps.tolist() == [100, 200, 300, 400]
            np.testing.assert_array_equal(drawn, values[key])
    make_study(tmp_path / "none", {"seeds": 3}, leave_out={0})
    assert draw(tmp_path / "b.png", load(tmp_path / "none")) is False and len(calls) == 1


@pytest.mark.filterwarnings("always::dqx.study.StudyWarning")
def test_warnings_are_lines(place):
    for chunk in (1, 2):
        part = Path(f"runs/tiny/params/part-0000{chunk}.npz")
        part.write_bytes(part.read_bytes()[:-1])
    (place / "runs/tiny/metrics/mine.parquet").write_text("x")
    before = load("runs/tiny").digests
    status, _, err = call("study", "resume", "runs/tiny")
    notes = [line for line in err if line.startswith("dqx: warning: ")]
    assert status == 0 and len(notes) == 3
    assert "mine.parquet: no file of this study; it is left alone and not read" in notes[0]
    for chunk in (1, 2):
        words = rf"part-0000{chunk}\.npz: \S+ bytes instead of \S+\. The runs of chunk {chunk} are"
        assert re.search(words, notes[chunk])
    assert load("runs/tiny").digests == before and load("runs/tiny").params(FAST, 4)


def test_ctrl_c_says_how_to_go_on(place, monkeypatch):
    def interrupted(*_, **__):
        raise engine.StudyInterrupted("interrupted; go on with: dqx study resume x")

    monkeypatch.setattr(engine, "run", interrupted)
    assert call("study", "plan.toml", "--out", "x", "--quiet") == (
        130, [], ["dqx: interrupted; go on with: dqx study resume x"]
    )  # fmt: skip


def test_the_options_reach_the_engine(place, monkeypatch):
    calls = []

    def run(plan, out, **named):
        calls.append((plan, out, named))
        return load("runs/tiny")

    monkeypatch.setattr(engine, "run", run)
    monkeypatch.setattr(engine, "resume", lambda path, **named: run(path, None, **named))
    call("study", "plan.toml", "--quiet")
    call("study", "plan.toml", "--out", "x", "--overwrite", "--devices", "cpu:2",
         "--checkpoint-seconds", "0.5", "--no-replay-checkpoint", "--quiet")  # fmt: skip
    call("study", "resume", "x", "--devices", "cpu:1", "--checkpoint-seconds", "0", "--quiet")
    given = [named for _, _, named in calls]
    for named in given:
        assert callable(named.pop("progress"))
    assert [(plan, out) for plan, out, _ in calls] == [
        ("plan.toml", None), ("plan.toml", "x"), ("x", None)
    ]  # fmt: skip
    assert given == [
        {"overwrite": False, "replay_checkpoint": True, "devices": None},
        {"overwrite": True, "replay_checkpoint": False, "devices": "cpu:2",
         "checkpoint_seconds": 0.5},
        {"replay_checkpoint": True, "devices": "cpu:1", "checkpoint_seconds": 0.0},
    ]  # fmt: skip


def test_help_tells_every_option(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    status, out, _ = call("study", "--help")
    text = "\n".join(out)
    assert status == 0 and "FILE.toml | resume DIR | status DIR" in text
    for option in ("--out DIR", "--overwrite", "--devices KIND[:N]", "--dry-run",
                   "--checkpoint-seconds S", "--no-replay-checkpoint", "--quiet"):  # fmt: skip
        assert re.search(rf"^  {re.escape(option)}( |$)", text, re.MULTILINE), option
    assert "default: 15" in text and engine.CHECKPOINT_SECONDS == 15
    status, out, _ = call("verify", "--help")
    text = "\n".join(out)
    for option in ("--sample N", "--all", "--pick SEED", "--devices KIND[:N]", "--quiet"):
        assert re.search(rf"^  {re.escape(option)}( |$)", text, re.MULTILINE), option
    assert "Status 0 if all are identical, else 1." in " ".join(text.split())
    text = "\n".join(call("--help")[1])
    assert "study" in text and "train configurations x seeds" in text and "verify" in text


def run_python(*arguments):
    """Standard output, and the seconds of processor time that it took."""
    env = {**os.environ, "PYTHONPATH": ROOT}
    before = os.times()
    done = subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True)
    after = os.times()
    assert done.returncode == 0, done.stderr
    return done.stdout, sum(after[2:4]) - sum(before[2:4])


@pytest.mark.parametrize("command", ["study", "verify"])
def test_help_is_fast(command):
    assert min(run_python("-m", "dqx", command, "--help")[1] for _ in range(2)) < 1.0


@pytest.mark.parametrize("arguments", [["study", "--help"], ["verify", "--help"], ["study",
                         "status", "{}"]])  # fmt: skip
def test_help_and_status_import_no_jax(arguments, tmp_path):
    make_study(tmp_path / "s", {"seeds": 2})
    code = (
        "import sys\nfrom dqx.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print(sorted({'jax', 'flax', 'pandas', 'matplotlib', 'rich'} & set(sys.modules)))"
    )
    out, _ = run_python("-c", code, *[a.format(tmp_path / "s") for a in arguments])
    assert out.splitlines()[-1] == "[]" and len(out.splitlines()) > 4


def test_a_defect_is_not_hidden(place, monkeypatch):
    monkeypatch.setattr(engine, "run", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call("study", "plan.toml", "--out", "x", "--quiet")
