"""Folders that are hostile: nothing is written outside, nothing hangs, swells or fails raw."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from dqx.study import load
from tests.hostile import hostilities, studies
from tests.hostile.server import Server
from tests.study.kit import assert_digests_hold, assert_same_runs, toml

SECONDS = 5.0  # of work that a command may take
CLOCK_SECONDS = (
    60.0  # by the clock, where other work shares the machine; for all commands of a case
)
PEAK_BYTES = 2 * 2**30
MORE_BYTES = 6 * 2**30  # of address space, so that the machine is safe


pytestmark = pytest.mark.slow  # which puts the file before quick ones


@pytest.fixture(scope="module")
def server(cache_folder):
    server = Server(TMPDIR="/tmp")
    yield server
    server.close()


@pytest.fixture
def place(templates, tmp_path):
    """A study that was stopped, a folder outside of it, and one to be in."""
    with tempfile.TemporaryDirectory(prefix="dqx-hostile-") as name:
        place = Path(name)
        place.chmod(0o755)  # for another user
        (place / "home").mkdir()
        outside = place / "outside"
        (outside / "thesis").mkdir(parents=True)
        (outside / "thesis" / "chapter").write_text("years of work")
        names = ("precious", "00001.json", "00001-176.npz", "part-00000.parquet", ".a.0a1b2c3d.tmp")
        for name in names:
            (outside / name).write_text(f"not the study's: {name}")
        (place / "plan.toml").write_text(toml(studies.PLAN))
        shutil.copytree(templates / "mine-stopped", place / "s")
        yield place
        for folder, _, _ in os.walk(place):
            os.chmod(folder, 0o755)


def tree(place):
    """All that is in a folder but the study: kinds, contents and times."""
    found = {}
    for folder, names, files in os.walk(place):
        if Path(folder) == place and "s" in names:
            names.remove("s")
        for path in [Path(folder), *(Path(folder) / name for name in files)]:
            state = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            entry = (oct(state.st_mode), state.st_size, hashlib.sha256(content).hexdigest())
            found[str(path)] = (*entry, *([] if path.is_dir() else [state.st_mtime_ns]))
    return found


def assert_safe(place, server, reference, arrange, plain=False, more=()):
    """Lets every command loose on the study, and holds them to what is promised."""
    study, outside = place / "s", place / "outside"
    arrange(study, outside)
    before = tree(place)
    commands = [["study", "status", study], ["compare", study]]
    commands += [["verify", study, "--sample", 1, "--quiet"]]
    commands += [*more, ["study", "resume", study, "--quiet", "--devices", "cpu:1"]]
    commands = [[str(word) for word in words] for words in commands]
    outcome = server.call(
        "visit", str(study), commands, str(place / "home"), plain,
        seconds=CLOCK_SECONDS, more_bytes=MORE_BYTES,
    )  # fmt: skip
    after = tree(place)
    assert {n: s for n, s in after.items() if before.get(n) != s} == {}, "written outside"
    assert before.keys() == after.keys(), "deleted outside"
    assert not outcome["hung"], f"hung: {outcome['said'][-500:]}"
    assert outcome["status"] == 0, (outcome["status"], outcome["said"][-2000:])
    assert outcome["peak_bytes"] < PEAK_BYTES, f"{outcome['peak_bytes'] / 2**20:.0f} MiB"
    for did in outcome["value"]:
        assert did["status"] in (0, 1, 2), (did["command"], did["lines"])
        assert not any("Traceback" in line for line in did["lines"]), did["lines"]
        if did["status"] == 2:
            assert did["lines"][-1].startswith("dqx: error: "), did["lines"]
        assert did["cpu_seconds"] < SECONDS + 5 * ("verify" in did["command"]), did
    resumed = outcome["value"][-1]
    if resumed["status"] == 0:
        study = load(place / "s")
        if study.plan["points"] == reference.plan["points"]:
            assert study.finished
            assert_same_runs(study, reference)
            assert_digests_hold(study)


@pytest.mark.parametrize("name", list(hostilities.some_entries(60)))
def test_an_entry_of_another_kind(name, place, server, reference):
    """Links, pipes, sockets, devices, folders and files in the place of entries."""
    if "a device" in name and os.geteuid() != 0:
        pytest.skip("only root makes devices")
    assert_safe(place, server, reference, hostilities.entries()[name])


@pytest.mark.parametrize("name", list(hostilities.NAMES))
def test_an_odd_name(name, place, server, reference):
    """Names with newlines and escapes, no UTF-8, very long, in capitals, very many."""
    assert_safe(place, server, reference, hostilities.NAMES[name])


@pytest.mark.parametrize("name", list(hostilities.MODES))
def test_what_may_not_be_read_or_written(name, place, server, reference):
    """Folders and files that may not be read, or not be written."""
    assert_safe(place, server, reference, hostilities.MODES[name], plain=True)


@pytest.mark.parametrize("name", list(hostilities.RECORDS))
def test_a_sealed_record_that_cannot_be(name, place, server, reference):
    """Paths that lead out, wrong types and huge numbers in records that are sealed again."""
    assert_safe(place, server, reference, hostilities.RECORDS[name])


@pytest.mark.parametrize("name", list(hostilities.CONTENTS))
def test_content_that_swells_or_runs(name, place, server, reference):
    """Files that inflate, claim huge shapes, are pickles, or are nested without end."""
    assert_safe(place, server, reference, hostilities.CONTENTS[name])


@pytest.mark.parametrize("name", list(hostilities.some_entries(24)))
def test_a_hostile_folder_is_overwritten(name, place, server, reference):
    """The same entries where ``--overwrite`` clears the folder."""
    if "a device" in name and os.geteuid() != 0:
        pytest.skip("only root makes devices")
    words = ["study", place / "plan.toml", "--out", place / "s", "--overwrite", "--quiet"]
    more = [[*words, "--devices", "cpu:1"]]
    assert_safe(place, server, reference, hostilities.entries()[name], more=more)
