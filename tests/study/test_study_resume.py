"""Whatever stops a study, and whenever: resumed it gives the bits of one that was never stopped."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

import dqx
from dqx import files
from dqx.study import StudyWarning, checkpoint, engine, load
from tests.shared import TINY
from tests.study.engine_kit import (
    PLAN,
    ROWS,
    Death,
    assert_digests_hold,
    assert_same_runs,
    computed_steps,
    contents,
    interrupted,
    plan,
    toml,
)

BATCH = TINY.total_steps  # environment steps of a batch of chunks from start to end
EVERY_ROW = {"checkpoint_seconds": 0}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """96 seeds in one go."""
    return engine.run(plan(96), tmp_path_factory.mktemp("reference") / "s", devices="cpu:1")


@pytest.fixture(autouse=True)
def checkpoints_at_every_row(monkeypatch):
    monkeypatch.setattr(engine, "CHECKPOINT_SHARE", float("inf"))


def assert_whole(study, reference):
    """Finished, the same bits, nothing left of what was under way."""
    assert study.finished
    assert_same_runs(study, reference)
    assert_digests_hold(study)
    assert_nothing_left(study.path)


def assert_nothing_left(folder):
    assert [p for p in Path(folder).rglob("*") if p.name.startswith(".")] == []
    assert list((Path(folder) / "checkpoints").iterdir()) == []


# --- Stopped in an orderly way.


@pytest.mark.parametrize("row", [*range(1, 2 * ROWS), 3 * ROWS])
def test_what_was_computed_is_not_computed_again(reference, row, tmp_path):
    with computed_steps() as before:
        message = interrupted(PLAN, tmp_path / "s", row)
    assert message == (
        f"interrupted; everything so far is in {tmp_path / 's'}. "
        f"Go on with: dqx study resume {tmp_path / 's'}"
    )
    finished = contents(tmp_path / "s")
    steps = [p.stem for p in (tmp_path / "s" / "checkpoints").glob("*.npz")]
    under_way = sum(int(stem.partition("-")[2]) for stem in steps)
    assert sum(before) == len(load(tmp_path / "s").runs) // 4 * BATCH + under_way
    with computed_steps() as after:
        study = engine.resume(tmp_path / "s", devices="cpu:1")
    assert sum(before) + sum(after) == 3 * BATCH
    assert_whole(study, reference)
    now = contents(tmp_path / "s")
    assert {name: now[name] for name in finished} == finished  # not written again either


def test_a_study_may_be_stopped_again_and_again(reference, tmp_path):
    with computed_steps() as steps:
        interrupted(PLAN, tmp_path / "s", 1)
        for _ in range(4):
            interrupted(PLAN, tmp_path / "s", 2, engine.resume)
        study = engine.resume(tmp_path / "s", devices="cpu:1")
    assert sum(steps) == 3 * BATCH
    assert_whole(study, reference)


@pytest.mark.parametrize(("first", "second"), [("cpu:2", "cpu:1"), ("cpu:1", "cpu:2")])
@pytest.mark.parametrize("row", [2, 8])
def test_the_number_of_devices_may_change(reference, first, second, row, tmp_path):
    interrupted(PLAN, tmp_path / "s", row, devices=first)
    # Two chunks at a time, then the third; or one, then the second.
    expected = {("cpu:2", 2): [0, 1], ("cpu:2", 8): [2], ("cpu:1", 2): [0], ("cpu:1", 8): [1]}
    found = [int(p.stem) for p in sorted((tmp_path / "s" / "checkpoints").glob("*.json"))]
    assert found == expected[first, row]
    assert_whole(engine.resume(tmp_path / "s", devices=second), reference)


def test_chunks_at_different_steps_go_on_from_their_own(reference, tmp_path):
    """As after a disk that was full between the checkpoints of two chunks side by side."""
    ahead, behind = (tmp_path / name for name in ("ahead", "behind"))
    interrupted(PLAN, ahead, 3, devices="cpu:2")
    shutil.copytree(ahead, behind)
    interrupted(PLAN, behind, 1, engine.resume, devices="cpu:2")
    for path in (behind / "checkpoints").glob("00001*"):
        path.unlink()
    for path in (ahead / "checkpoints").glob("00001*"):
        shutil.copy(path, behind / "checkpoints")
    steps = {p.stem[:5]: int(p.stem[6:]) for p in (behind / "checkpoints").glob("*.npz")}
    assert steps["00000"] > steps["00001"] > 0
    with computed_steps() as taken:
        study = engine.resume(behind, devices="cpu:2")
    assert sum(taken) == sum(BATCH - step for step in steps.values()) + BATCH
    assert_whole(study, reference)


def test_a_finished_study_is_left_as_it_is(reference, tmp_path):
    engine.run(PLAN, tmp_path / "s", devices="cpu:1")
    before = contents(tmp_path / "s")
    manifest = (tmp_path / "s" / "manifest.json").read_bytes()
    with computed_steps() as steps:
        study = engine.resume(tmp_path / "s", devices="cpu:2")
    assert steps == [] and contents(tmp_path / "s") == before
    # How fast it was is not forgotten; a damaged summary is written anew.
    assert (tmp_path / "s" / "manifest.json").read_bytes() == manifest
    (tmp_path / "s" / "manifest.json").write_bytes(manifest[:-9])
    engine.resume(tmp_path / "s", devices="cpu:1")
    assert load(tmp_path / "s").manifest["runs"] == study.manifest["runs"]
    assert_whole(study, reference)


def test_without_checkpoints_a_chunk_starts_again(reference, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(checkpoint, "write", lambda *args: written.append(args))
    with computed_steps() as steps:
        interrupted(PLAN, tmp_path / "s", ROWS + 3, replay_checkpoint=False, **EVERY_ROW)
        assert list((tmp_path / "s" / "checkpoints").iterdir()) == []
        assert len(load(tmp_path / "s").runs) == 4
        first = sum(steps)
        study = engine.resume(tmp_path / "s", devices="cpu:1", replay_checkpoint=False, **EVERY_ROW)
    assert first > BATCH and sum(steps) == first + 2 * BATCH
    assert written == []
    assert_whole(study, reference)


def test_a_checkpoint_that_is_there_is_used_without_new_ones(reference, tmp_path):
    with computed_steps() as steps:
        interrupted(PLAN, tmp_path / "s", 4)
        study = engine.resume(tmp_path / "s", devices="cpu:1", replay_checkpoint=False)
    assert sum(steps) == 3 * BATCH
    assert_whole(study, reference)


def test_only_the_last_checkpoint_of_a_chunk_is_kept(reference, tmp_path, monkeypatch):
    seen, write = [], checkpoint.write

    def watched(folder, *args):
        write(folder, *args)
        seen.append(sorted(p.name for p in folder.checkpoints.iterdir()))

    monkeypatch.setattr(checkpoint, "write", watched)
    study = engine.run(plan(4), tmp_path / "s", devices="cpu:1", **EVERY_ROW)
    # The last interval has nothing to checkpoint: it is written as a result.
    steps = range(TINY.log_period, TINY.total_steps + 1, TINY.log_period)
    assert seen == [[f"00000-{step}.npz", "00000.json"] for step in steps][: len(seen)]
    assert len(seen) >= ROWS - 1
    assert_whole(study, reference)


def test_an_exception_of_the_callback_loses_nothing(reference, tmp_path):
    class Broken(Exception):
        pass

    def progress(event):
        if event.steps >= 1.5 * 4 * BATCH:
            raise Broken

    with pytest.raises(Broken):
        engine.run(PLAN, tmp_path / "s", devices="cpu:1", progress=progress, **EVERY_ROW)
    with computed_steps() as steps:
        study = engine.resume(tmp_path / "s", devices="cpu:1")
    assert sum(steps) < 2 * BATCH
    assert_whole(study, reference)


# --- Killed in this process, at every moment at which a file is written.

SHORT = plan(8, {"total_steps": 352}, snapshot_every=176)  # two chunks of four rows


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The study that dies, in one go."""
    return engine.run(SHORT, tmp_path_factory.mktemp("short") / "s", devices="cpu:1")


def study_that_dies(moment, out):
    """Starts a study, or resumes it, and lets its process die at a moment."""
    with Death(moment) as death:
        if (out / "plan.json").exists():
            engine.resume(out, devices="cpu:1", **EVERY_ROW)
        else:
            engine.run(SHORT, out, devices="cpu:1", **EVERY_ROW)
    return death


@pytest.fixture
def in_one_thread(monkeypatch):
    """Files are written in an order that is always the same; a picture takes no time."""
    monkeypatch.setattr(engine.Writer, "submit", lambda self, function, *args: function(*args))

    def draw(path, study):
        with files.whole_file(path) as file:
            file.write(b"curves")

    monkeypatch.setattr("dqx.study.picture.draw", draw)


FILES = {
    "plan.json", "progress.json", "manifest.json", "learning_curves.png",
    "checkpoints/00000-88.npz", "checkpoints/00000.json", "checkpoints/00001.json",
    "snapshots/part-00000-176.npz", "metrics/part-00000.parquet", "episodes/part-00001.parquet",
    "params/part-00000.npz", "chunks/00000.json", "chunks/00001.json",
}  # fmt: skip


@pytest.mark.slow
def test_a_kill_at_any_moment_of_any_file(short, in_one_thread, tmp_path):
    """One study for each moment: plan, checkpoints, snapshots, tables, records, summary."""
    moment, seen = 0, set()
    while (death := study_that_dies(moment, tmp_path / f"{moment}")).dead:
        out = tmp_path / f"{moment}"
        kind, _, name = death.at.partition(" ")
        seen |= {(kind, file) for file in FILES if is_named(file, name)}
        if not out.exists():
            assert "plan.json" in name
            study = engine.run(SHORT, out, devices="cpu:1")
        else:
            with warnings.catch_warnings():
                if "checkpoints" in name:  # between the first one's arrays and its record
                    warnings.filterwarnings("ignore", ".*its record is missing", StudyWarning)
                study = engine.resume(out, devices="cpu:1", **EVERY_ROW)
        assert_whole(study, short)
        shutil.rmtree(out)
        moment += 1
    assert load(tmp_path / f"{moment}").finished
    assert seen == {(kind, name) for kind in ("half", "unnamed", "whole") for name in FILES}


def is_named(file, path):
    """Whether a path, its temporary name perhaps, is that of a file of a study."""
    folder, _, name = file.rpartition("/")
    path = Path(path)
    same = path.name == name or re.fullmatch(rf"\.{re.escape(name)}\.[0-9a-f]+\.tmp", path.name)
    return bool(same) and path.parent.name.endswith(folder)


def test_a_study_that_dies_again_and_again_comes_to_its_end(short, in_one_thread, tmp_path):
    deaths = 0
    while study_that_dies(14, tmp_path / "s").dead:
        deaths += 1
    assert deaths > 4
    assert_whole(load(tmp_path / "s"), short)


# --- Killed for real.


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    """Starts the command in a process of its own; what the first compiles, the others find."""
    folder = tmp_path_factory.mktemp("compiled")
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(dqx.__file__).parents[1]),  # the same code as in this process
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }

    def start(*arguments, **wishes):
        launcher = Path(__file__).with_name("launcher.py")
        command = [sys.executable, str(launcher), json.dumps(wishes), "study"]
        options = ["--devices", "cpu:1", "--checkpoint-seconds", "0"]
        command += [*map(str, arguments), *options]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    started = []
    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


def wait_for(process, text):
    """Reads standard error up to a line, which is there before the process ends."""
    for line in process.stderr:
        if line.rstrip() == text:
            return
    raise AssertionError(f"the process ended with {process.wait()} before it said {text!r}")


def written(tmp_path, seeds):
    path = tmp_path / "plan.toml"
    path.write_text(toml(plan(seeds)))
    return path


@pytest.mark.slow
def test_kill_at_twenty_random_moments(reference, launch, tmp_path):
    """Somewhere within the rows and checkpoints that follow a start, or a resumption."""
    out, dice = tmp_path / "s", random.Random(3)
    arguments = (written(tmp_path, 96), "--out", out)
    done, earlier = [0], {}
    for _ in range(20):
        process = launch(*arguments, pause=0.004)
        wait_for(process, "row 1")
        time.sleep(dice.uniform(0, 0.15))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        arguments = ("resume", out)
        before = contents(out)
        done.append(len(list((out / "chunks").glob("0*.json"))))
        assert done[-1] >= done[-2]
        kept = {name: before[name] for name in before if name.startswith("chunks/0")}
        assert earlier.items() <= kept.items()  # what is finished is not written again
        earlier = kept
    assert done[-1] < 24
    study = engine.resume(out, devices="cpu:1")
    assert_whole(study, reference)


DEATHS = [
    ("checkpoints/*.npz", 2, "half"),
    ("checkpoints/*.json", 1, "half"),
    ("params/*", 0, "unnamed"),
    ("chunks/*", 0, "whole"),
]


@pytest.mark.slow
def test_kill_while_a_file_is_written(reference, launch, tmp_path):
    out = tmp_path / "s"
    arguments = (written(tmp_path, 8), "--out", out)
    for die in DEATHS:
        process = launch(*arguments, die=die)
        assert process.wait() == -signal.SIGKILL
        left = [p.parent.name for p in out.rglob(".*")]
        assert left == ([die[0].partition("/")[0]] if die[2] != "whole" else [])
        assert len(load(out).runs) == (4 if die == DEATHS[-1] else 0)
        arguments = ("resume", out)
    with computed_steps() as steps:
        study = engine.resume(out, devices="cpu:1")
    assert sum(steps) == BATCH
    assert_whole(study, reference)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_checkpoints_and_says_how_to_go_on(reference, launch, number, tmp_path):
    out = tmp_path / "s"
    process = launch(written(tmp_path, 12), "--out", out, "--quiet", pause=0.05)
    wait_for(process, f"row {ROWS + 4}")
    process.send_signal(number)
    said = process.stderr.read()
    assert process.wait() == 130
    last = said.splitlines()[-1]
    assert last == (
        f"dqx: interrupted; everything so far is in {out}. Go on with: dqx study resume {out}"
    )
    assert "Traceback" not in said
    assert [p.name for p in (out / "checkpoints").glob("*.json")] == ["00001.json"]
    with computed_steps() as steps:
        study = engine.resume(out, devices="cpu:1")
    assert 0 < sum(steps) < 2 * BATCH
    assert_whole(study, reference)


@pytest.mark.slow
def test_a_second_signal_stops_at_once(reference, launch, tmp_path):
    out = tmp_path / "s"
    process = launch(written(tmp_path, 8), "--out", out, "--quiet", hang=True)
    wait_for(process, "saving")
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None  # the first waits for the checkpoint
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    said = process.stderr.read()
    assert process.wait() == 130 and time.monotonic() - started < 20
    assert said == (
        f"dqx: interrupted at once; dqx study resume {out} goes on from what was last written\n"
    )
    assert_whole(engine.resume(out, devices="cpu:1"), reference)
