"""A disk that takes nothing, at every write there is: a clear line, and equal bits once mended."""

import errno
import os
import shutil
import subprocess
import warnings

import pytest

from dqx.files import OutputError
from dqx.study import StudyError, StudyWarning
from tests.hostile import studies
from tests.hostile.moments import Full
from tests.hostile.server import Server
from tests.study.kit import assert_whole

ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT)


pytestmark = pytest.mark.slow  # which puts the file before quick ones


# Parts of the moments of each scenario, which are about as long; where they are trained over again
# as at a start, every third will do.
PARTS = {"start": (6, 1), "resume": (2, 1), "repair": (3, 1), "overwrite": (2, 3)}


@pytest.mark.parametrize(
    ("name", "part"), [(name, part) for name, (parts, _) in PARTS.items() for part in range(parts)]
)
def test_every_write_fails_once(name, part, templates, reference, cases, tmp_path):
    """ENOSPC, EIO or EDQUOT at the n-th write, sync, rename or folder, for every n."""
    scenario, (parts, step) = studies.SCENARIOS[name], PARTS[name]
    moment, ended = part * step, False
    while not ended:
        out = tmp_path / f"{moment}" / "s"
        out.parent.mkdir()
        scenario.prepare(templates, out)
        ended = not fails(scenario, out, moment, reference, cases)
        shutil.rmtree(out.parent)
        moment += parts * step
    cases.judge(least=10)


def fails(scenario, out, moment, reference, cases):
    """Lets a moment fail, and in every other case all that follow; whether there was such one."""
    number, error = ERRORS[moment % len(ERRORS)], None
    with (
        Full(moment, number, lasting=bool(moment // 2 % 2)) as disk,
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        try:
            scenario.act(out)
        except Exception as raised:
            error = raised
    texts = [str(w.message) for w in caught if not issubclass(w.category, StudyWarning)]
    if disk.at:
        with cases.case(f"{moment}: {disk.at}"):
            if error is not None:  # some may fail without harm, such as the deletion of what was
                assert_told(error, number, out)
            assert_whole(scenario.mend(out), reference)
            assert all("could not be deleted" in text for text in texts), texts
    return bool(disk.at)


def assert_told(error, number, out):
    """An error of ours in one line, which says what could not be written and why."""
    assert isinstance(error, StudyError | OutputError), repr(error)
    text = str(error)
    assert os.strerror(number) in text and "\n" not in text, text
    assert str(out.parent) in text, text


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a few hundred KiB, where mounting is allowed."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(place)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here ({done.stderr.strip()[:60]})")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_small_disk(small_disk, reference, cases, tmp_path):
    """True: a file system of 600 KiB that a study, and what lies beside it, fills up."""
    server, refused = Server(), 0
    try:
        for free in range(60, 600, 60):
            with cases.case(f"{free} KiB"):
                out = small_disk / "s"
                (small_disk / "full").write_bytes(bytes((600 - free) * 1024))
                told = server.call("train_in", str(out))
                assert told["status"] == 0, told["said"]
                if told["value"] is not None:
                    refused += 1
                    assert os.strerror(errno.ENOSPC) in told["value"], told["value"]
                (small_disk / "full").unlink()
                moved = shutil.copytree(out, tmp_path / f"{free}") if out.exists() else None
                if moved is not None:
                    assert_whole(studies.begin_again(moved), reference)
                shutil.rmtree(out, ignore_errors=True)
    finally:
        server.close()
    assert refused  # else the disk was never full
    cases.judge(least=9)
