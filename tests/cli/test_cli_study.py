"""`dqx study` and `dqx verify` as a person uses them: what they print, and what they spare."""

import contextlib
import json
import os
import re
import shutil
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import dqx
import dqx.run
from dqx.study import load
from dqx.study.finish import read_progress
from dqx.study.folder import Folder
from dqx.study.lock import Lock
from dqx.study.sealed import read_sealed
from tests.shared import TINY
from tests.study.kit import IDENTITY, call, fields, make_study, toml

PLAN = {
    "name": "tiny",
    "seeds": 5,
    "base": {**fields(TINY), "epsilon_steps": 400},
    "grid": {"learning_rate": [1e-2, 1e-3]},
}
FAST, SLOW = "learning_rate=0.01", "learning_rate=0.001"


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """One study of two configurations, trained by the command: where, and what it said."""
    place = tmp_path_factory.mktemp("grid")
    (place / "plan.toml").write_text(toml(PLAN))
    with contextlib.chdir(place):
        status, out, err = call("study", "plan.toml")
    assert status == 0, err
    return SimpleNamespace(place=place, out=out, err=err)


@pytest.fixture
def place(grid, tmp_path, monkeypatch):
    """A copy of that folder, which is the current one."""
    shutil.copytree(grid.place, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def test_a_study_is_trained_and_its_result_printed(grid):
    folder, out = grid.place / "runs" / "tiny", grid.out
    assert sorted(os.listdir(grid.place)) == ["plan.toml", "runs"]
    study = load(folder)
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
        _, *ends = dqx.stats.interval(finals[name])
        assert low <= float(value) <= high and [low, high] == pytest.approx(ends, abs=0.051)
    assert out[4].startswith("time: ")
    page = folder / "report" / "index.html"
    assert out[5:] == [f"folder: {folder}", f"page: {page}"] and page.is_file()


def test_the_numbers_are_those_of_training_one_configuration(grid):
    study = load(grid.place / "runs" / "tiny")
    result = dqx.train(*study.point(FAST), range(5))
    np.testing.assert_array_equal(study.to_arrays("loss")[0], result.metrics["loss"])
    assert [study.digests[FAST, seed] for seed in range(5)] == list(result.digests)


def test_progress_goes_to_standard_error_in_plain_lines(grid):
    assert grid.err[0] == "tiny: compiling..."
    last = r"tiny: 100 %, 10/10 runs done, [\d,]+ steps/s, 0:00 left, best IQM .*, worst IQM .*"
    assert re.fullmatch(last, grid.err[-1])
    assert all(line.startswith("tiny: ") and line.isprintable() for line in grid.err)


def test_the_folder_tells_of_the_whole(grid):
    folder = Folder(grid.place / "runs" / "tiny")
    manifest = read_sealed(folder.manifest)
    assert manifest["plan_seal"] == read_sealed(folder.plan)["sha256"]
    assert [(run["config"], run["seed"]) for run in manifest["runs"]] == [
        (c, s) for c in (FAST, SLOW) for s in range(5)
    ]
    assert manifest["steps"] == 10 * TINY.total_steps and manifest["steps_per_second"] > 0
    assert manifest["compile_seconds"] >= 0 <= manifest["checkpoint_seconds"]
    assert manifest["run_seconds"] > 0 and manifest["peak_memory_bytes"] > 50 * 2**20
    assert load(folder.path).manifest == manifest
    assert read_progress(folder)["runs_done"] == 10
    picture = folder.picture.read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 20_000
    assert os.listdir(folder.checkpoints) == []


def test_resuming_a_finished_study_trains_nothing(place, grid):
    study = load("runs/tiny")
    kept = [path for path in study.path.glob("*/*") if path.parent.name != "report"]
    written = {path: path.stat().st_mtime_ns for path in kept}
    status, out, err = call("study", "resume", "runs/tiny", "--quiet")
    assert (status, err) == (0, []) and out[:-2] == grid.out[:-2]
    assert out[-1] == "page: runs/tiny/report/index.html"
    assert {path: path.stat().st_mtime_ns for path in kept} == written


def test_an_existing_study_is_replaced_only_if_asked(place):
    first = Path("runs/tiny/plan.json").read_bytes()
    status, out, (line,) = call("study", "plan.toml", "--quiet")
    assert (status, out) == (2, [])
    assert re.fullmatch(
        r"dqx: error: runs/tiny already holds this study: `dqx study resume runs/tiny` "
        r"goes on with it, --overwrite replaces it",
        line,
    )
    (place / "other.toml").write_text(toml({**PLAN, "seeds": 6, "root_seed": 1}))
    status, out, (line,) = call("study", "other.toml", "--quiet")
    assert (status, out) == (2, [])
    assert re.search(
        r"tiny holds another plan: seeds was 0, 1, 2, 3, \.\.\. \(5 in all\) and is 0, 1, 2, 3, "
        r"\.\.\. \(6 in all\) now; root_seed was 0 and is 1 now\. Choose another folder, or "
        "--overwrite to replace it",
        line,
    )
    assert Path("runs/tiny/plan.json").read_bytes() == first
    changed = {**PLAN["base"], "gamma": 0.5}
    (place / "third.toml").write_text(toml({**PLAN, "base": changed}))
    status, _, (line,) = call("study", "third.toml", "--quiet")
    assert status == 2 and f"gamma of {FAST} was 0.99 and is 0.5 now; gamma of {SLOW}" in line
    (place / "fourth.toml").write_text(toml({**PLAN, "seeds": 6}))
    status, _, err = call("study", "fourth.toml", "--quiet", "--overwrite")
    assert (status, err) == (0, []) and len(load("runs/tiny").seeds) == 6
    assert sorted(os.listdir("runs")) == ["tiny"]


def test_another_programs_plan_does_not_cost_its_folder(place):
    (place / "app").mkdir()
    for text in ('{"tasks": []}', "[]", "no JSON", '{"versions": {}}'):
        (place / "app" / "plan.json").write_text(text)
        status, _, (line,) = call("study", "plan.toml", "--out", "app", "--overwrite")
        assert status == 2 and "app exists and holds no study of dqx, so it is not replaced" in line
        assert (place / "app" / "plan.json").read_text() == text


def test_a_study_at_work_is_not_replaced_or_resumed(place):
    with Lock(Path("runs/tiny")):
        status, _, (line,) = call("study", "plan.toml", "--overwrite")
        assert status == 2 and f"is being worked on by process {os.getpid()} on" in line
        status, _, (line,) = call("study", "resume", "runs/tiny")
        assert status == 2 and "wait for it, or watch it with `dqx study status`" in line


def test_other_software_is_refused_with_both_sides(tmp_path):
    make_study(tmp_path / "a", {"seeds": 2})
    status, out, (line,) = call("study", "resume", tmp_path / "a")
    assert (status, out) == (2, []) and "cannot be resumed here, since bits might differ" in line
    assert f"jax was '{IDENTITY['jax']}' and is '{version('jax')}' here" in line
    assert "device_kind was 'abacus' and is 'cpu: " in line
    assert "start a new study in another folder" in line


def test_status_of_a_finished_study(place, grid):
    status, out, err = call("study", "status", "runs/tiny")
    assert (status, err) == (0, []) and out[1] == "finished"
    assert [out[0], *out[2:-2]] == grid.out[:-2] and out[-1] == "folder: runs/tiny"
    assert re.fullmatch("digest: [0-9a-f]{64}", out[-2])


def test_a_study_is_verified(place):
    status, out, err = call("verify", "runs/tiny", "--sample", 2)
    assert status == 0 and err[0] == "verify: training again..."
    assert re.fullmatch(r"verify: 2/2 runs, \d+ s", err[-1])
    assert out[0].split() == ["CONFIGURATION", "SEED", "DIGEST", "AGAIN", "VERDICT"]
    digests = {key: digest[:12] for key, digest in load("runs/tiny").digests.items()}
    for config, seed, stored, again, verdict in (re.split("  +", line) for line in out[1:3]):
        assert stored == again == digests[config, int(seed)] and verdict == "identical"
    assert out[3] == (
        "verdict: identical (2 of 2 runs trained again have the same bits; the study has 10)"
    )
    certificate = Folder("runs/tiny").certificate
    written = json.loads(certificate.read_text())["written"]
    out = call("study", "status", "runs/tiny")[1]
    expected = f"certificate: identical (2 of 10 runs trained again, {written})"
    assert out[-2:] == [expected, "folder: runs/tiny"]
    make_study(place / "other", {})
    shutil.copy(certificate, place / "other")
    assert call("study", "status", "other")[1][-2] == "certificate: of another study"
    certificate.write_text(certificate.read_text().replace("identical", "different"))
    status, out, _ = call("study", "status", "runs/tiny")
    assert status == 0 and re.fullmatch(
        r"certificate: runs/tiny/certificate\.json: its content is not what was written .*; "
        r"`dqx verify runs/tiny` writes a new one",
        out[-2],
    )


def test_status_of_an_unfinished_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cases = [{"name": "a"}, {"name": "b", "double": True}, {"name": "c", "gamma": 0.5}]
    make_study("s", {"seeds": 6, "case": cases}, leave_out={1, 2, 3})
    status, out, _ = call("study", "status", "s")
    assert status == 0
    assert out[:2] == [
        "study: 6 of 18 runs (3 configurations x 6 seeds)",
        "6 of 18 runs finished; nobody works on it: `dqx study resume s` goes on",
    ]
    # Chunk 0 holds a and c on seeds 0 and 1, chunk 4 two seeds of b.
    chunks = {(run["config"], run["seed"]): run["chunk"] for run in load("s").runs}
    assert set(chunks.values()) == {0, 4} and set(chunks) == {
        ("a", 0), ("a", 1), ("c", 0), ("c", 1), ("b", 4), ("b", 5)
    }  # fmt: skip
    rows = [re.split("  +", line)[:2] for line in out[3:6]]
    assert sorted(rows) == [["a", "2 of 6"], ["b", "2 of 6"], ["c", "2 of 6"]]
    with Lock(Path("s")):
        state = call("study", "status", "s")[1][1]
    assert re.fullmatch(rf"6 of 18 runs finished; at work: process {os.getpid()} on .+", state)
    progress = {"time": 0, "steps": 30, "total_steps": 120, "steps_per_second": 1234.5,
                "seconds_left": 99.6}  # fmt: skip
    Folder("s").progress.write_text(json.dumps(progress))
    with Lock(Path("s")):
        state = call("study", "status", "s")[1][1]
    assert re.search(r"; 25 % of the steps, 1,234 steps/s, 0:01:40 left \(\d+ s ago\)$", state)
    make_study("none", {"seeds": 6}, leave_out={0, 1})
    out = call("study", "status", "none")[1]
    assert out == [
        "study: 0 of 6 runs (1 configuration x 6 seeds)",
        "0 of 6 runs finished; nobody works on it: `dqx study resume none` goes on",
        "folder: none",
    ]


def test_a_damaged_study_is_one_line(tmp_path):
    made = make_study(tmp_path / "s", {"seeds": 2})
    record = made.folder.record(0)
    record.write_text(record.read_text().replace('"diverged_at": -1', '"diverged_at": -2', 1))
    status, out, (line,) = call("study", "status", made.folder.path)
    assert (status, out) == (2, []) and line.startswith(f"dqx: error: {record}: its content")
    assert line.endswith(f"`dqx study resume {made.folder.path}` trains its runs again")
    status, out, _ = call("verify", made.folder.path)  # certifies that it is not whole
    assert status == 1 and [text for text in out if f"{record}: its content" in text], out


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


def test_the_options_reach_the_training(place, monkeypatch):
    calls = []

    def run(plan, out, **named):
        calls.append((getattr(plan, "name", plan), str(out), named))
        return load("runs/tiny")

    monkeypatch.setattr(dqx.run, "run", run)
    monkeypatch.setattr(dqx.run, "resume", lambda path, **named: run(path, None, **named))
    (place / "new.toml").write_text(toml({**PLAN, "name": "new"}))
    call("study", "new.toml", "--quiet")
    call("study", "plan.toml", "--out", "x", "--overwrite", "--devices", "cpu:2",
         "--no-replay-checkpoint", "--quiet")  # fmt: skip
    call("study", "resume", "runs/tiny", "--devices", "cpu:1", "--checkpoint-seconds", "0",
         "--quiet")  # fmt: skip
    given = [named for _, _, named in calls]
    for named in given:
        assert named.pop("executor") is None
        assert [type(sink).__name__ for sink in named.pop("sinks")] == [
            "View", "Picture", "Page",
        ]  # fmt: skip
    assert [(plan, out) for plan, out, _ in calls] == [
        ("new", "runs/new"), ("tiny", "x"), ("runs/tiny", "None")
    ]  # fmt: skip
    assert given == [
        {"overwrite": False, "replay_checkpoint": True, "devices": None,
         "command": "dqx study new.toml --quiet"},
        {"overwrite": True, "replay_checkpoint": False, "devices": "cpu:2",
         "command": "dqx study plan.toml --out x --overwrite --devices cpu:2 "
         "--no-replay-checkpoint --quiet"},
        {"replay_checkpoint": True, "devices": "cpu:1", "checkpoint_seconds": 0.0},
    ]  # fmt: skip
