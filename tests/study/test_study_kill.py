"""Killed at any moment, for real or as if: resumed it gives the bits of one that never was."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dqx.files
from dqx.study import Sink, engine, load
from dqx.study.folder import Folder
from dqx.study.sealed import read_sealed
from tests.shared import TINY
from tests.study.death import Death
from tests.study.kit import (
    ROWS,
    assert_whole,
    call,
    computed_steps,
    contents,
    plan,
    resume,
    run,
    toml,
)

BATCH = TINY.total_steps  # environment steps of a chunk from start to end
EVERY_ROW = {"checkpoint_seconds": 0}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """12 seeds in one go."""
    return run(plan(12), tmp_path_factory.mktemp("reference") / "s")


@pytest.fixture(autouse=True)
def checkpoints_at_every_row(monkeypatch):
    monkeypatch.setattr(engine, "CHECKPOINT_SHARE", float("inf"))


# --- Killed in this process, at every moment at which a file is written.


SHORT = plan(8, {"total_steps": 352}, snapshot_every=176)  # two chunks of four rows


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The study that dies, in one go."""
    return run(SHORT, tmp_path_factory.mktemp("short") / "s")


class Quick(Sink):
    """A picture that takes no time."""

    def complete(self, study):
        with dqx.files.whole_file(Folder(study.path).picture) as file:
            file.write(b"curves")


def study_that_dies(moment, out):
    """Starts a study, or resumes it, and lets its process die at a moment."""
    with Death(moment) as death:
        if (out / "plan.json").exists():
            resume(out, sinks=[Quick()], **EVERY_ROW)
        else:
            run(SHORT, out, sinks=[Quick()], **EVERY_ROW)
    return death


@pytest.fixture
def in_one_thread(monkeypatch):
    """Files are written in an order that is always the same."""
    monkeypatch.setattr(engine.Writer, "submit", lambda self, function, *args: function(*args))


FILES = {
    "plan.json", "plan-copy.json", "progress.json", "manifest.json", "learning_curves.png",
    "checkpoints/00000-88.npz", "checkpoints/00000.json", "checkpoints/00001.json",
    "snapshots/part-00000-176.npz", "metrics/part-00000.parquet", "episodes/part-00001.parquet",
    "params/part-00000.npz", "chunks/00000.json", "chunks/00001.json",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.long
def test_a_kill_at_any_moment_of_any_file(short, in_one_thread, tmp_path):
    """One study for each moment: plan, checkpoints, snapshots, tables, records, summary."""
    moment, seen = 0, set()
    while (death := study_that_dies(moment, tmp_path / f"{moment}")).dead:
        out = tmp_path / f"{moment}"
        kind, _, name = death.at.partition(" ")
        seen |= {(kind, file) for file in FILES if is_named(file, name)}
        if not out.exists():
            assert "plan.json" in name or "plan-copy.json" in name
            study = run(SHORT, out)
        else:
            study = resume(out, **EVERY_ROW)
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


@pytest.mark.long
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

    def start(*arguments, devices="cpu:1", **wishes):
        launcher = Path(__file__).with_name("launcher.py")
        command = [sys.executable, str(launcher), json.dumps(wishes), "study"]
        options = ["--devices", devices, "--checkpoint-seconds", "0"]
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
    said = []
    for line in process.stderr:
        said.append(line)
        if line.rstrip() == text:
            return
    raise AssertionError(f"status {process.wait()} before it said {text!r}: {''.join(said)}")


def written(tmp_path, seeds):
    path = tmp_path / "plan.toml"
    path.write_text(toml(plan(seeds)))
    return path


@pytest.mark.slow
@pytest.mark.long
def test_kill_at_random_moments(launch, tmp_path):
    """Two chunks side by side, somewhere within the rows that follow a start, or a resumption.

    Kills at chosen moments of one chunk after the other are among the hostile trials.
    """
    out, dice = tmp_path / "s", random.Random(3)
    arguments = (written(tmp_path, 96), "--out", out)
    done, earlier = [0], {}
    for _ in range(4):
        process = launch(*arguments, devices="cpu:2", pause=0.004)
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
    many = run(plan(96), tmp_path / "many", devices="cpu:2")
    assert_whole(resume(out, devices="cpu:2"), many)


DEATHS = [
    ("checkpoints/*.npz", 2, "half"),
    ("checkpoints/*.json", 1, "half"),
    ("params/*", 0, "unnamed"),
    ("chunks/*", 0, "whole"),
]


@pytest.mark.slow
@pytest.mark.long
def test_kill_while_a_file_is_written(reference, launch, tmp_path):
    out = tmp_path / "s"
    arguments = (written(tmp_path, 8), "--out", out)
    for die in DEATHS:
        process = launch(*arguments, die=die)
        assert process.wait() == -signal.SIGKILL
        left = {p.parent.name for p in out.rglob(".*")}
        half = {die[0].partition("/")[0]} if die[2] != "whole" else set()
        assert half <= left <= half | {"checkpoints"}  # of the chunk that trains meanwhile
        study, done = load(out), 4 if die == DEATHS[-1] else 0
        # What is planned is known, however little of it is there.
        assert (len(study.runs), len(study.configs) * len(study.seeds)) == (done, 8)
        assert not study.finished
        status, told, _ = call("study", "status", out)
        assert status == 0 and told[:2] == [
            f"tiny: {done} of 8 runs (1 configuration x 8 seeds)",
            f"{done} of 8 runs finished; nobody works on it: `dqx study resume {out}` goes on",
        ]
        arguments = ("resume", out)
    # The second chunk may have begun while the record of the first was written.
    saved = [read_sealed(path)["step"] for path in (out / "checkpoints").glob("00001.json")]
    with computed_steps() as steps:
        study = resume(out)
    assert sum(steps) == BATCH - sum(saved)
    assert_whole(study, reference)


@pytest.mark.slow
def test_sigterm_checkpoints_and_says_how_to_go_on(reference, launch, tmp_path):
    """As Ctrl-C does, of which the tests of the command are."""
    out = tmp_path / "s"
    process = launch(written(tmp_path, 12), "--out", out, "--quiet", pause=0.05)
    wait_for(process, f"row {ROWS + 4}")
    process.send_signal(signal.SIGTERM)
    said = process.stderr.read()
    assert process.wait() == 130
    last = said.splitlines()[-1]
    assert last == (
        f"dqx: interrupted; everything so far is in {out}. Go on with: dqx study resume {out}"
    )
    assert "Traceback" not in said
    assert [p.name for p in (out / "checkpoints").glob("*.json")] == ["00001.json"]
    with computed_steps() as steps:
        study = resume(out)
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
    assert_whole(resume(out), reference)
