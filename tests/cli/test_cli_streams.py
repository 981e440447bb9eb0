"""Output that is closed, full, without a reader or without the letters: no work fails by it."""

import io
import os
import shutil
import subprocess
import sys

import pytest

import dqx
from dqx import cli
from dqx.cli import streams
from tests.cli.kit import TINY, environment
from tests.study.kit import make_study


def without_reader():
    """A stream of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


def full():
    return open("/dev/full", "w")


def closed():
    with open(os.devnull, "w") as stream:
        return stream


BROKEN = {"no reader": without_reader, "full": full, "closed": closed, "none": lambda: None}


def call_with(monkeypatch, stream, *arguments):
    """The status of the command whose standard output and standard error are such a stream."""
    both = (stream(), stream())
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", both[0])
        patch.setattr(sys, "stderr", both[1])
        status = cli.main([str(argument) for argument in arguments])
        assert (sys.stdout, sys.stderr) == both
    for one in both:
        if one is not None:
            one.close()  # and nothing is left in it that fails now
    return status


@pytest.mark.parametrize("stream", BROKEN)
def test_a_training_is_neither_stopped_nor_failed(trained, tmp_path, monkeypatch, stream):
    monkeypatch.chdir(tmp_path)
    arguments = ("train", "cartpole", "--seeds", "3,17", *TINY)
    assert call_with(monkeypatch, BROKEN[stream], *arguments) == 0
    assert dqx.load("runs/cartpole").digests == dqx.load(trained.folder).digests
    assert (tmp_path / "runs" / "cartpole" / "report" / "index.html").is_file()
    again = ("study", "resume", "runs/cartpole")
    assert call_with(monkeypatch, BROKEN[stream], *again) == 0


@pytest.mark.parametrize("stream", ["no reader", "none"])
def test_what_writes_files_is_not_failed(trained, tmp_path, monkeypatch, stream):
    folder = shutil.copytree(trained.folder, tmp_path / "s")
    shutil.rmtree(folder / "report")
    if stream == "no reader":
        assert call_with(monkeypatch, BROKEN[stream], "report", folder, "--no-films") == 0
        assert (folder / "report" / "scores.pdf").stat().st_size > 1000
    assert call_with(monkeypatch, BROKEN[stream], "verify", folder, "--sample", "1") == 0
    assert '"identical"' in (folder / "certificate.json").read_text()


@pytest.mark.parametrize(
    ("stream", "status"), [("no reader", 1), ("full", 2), ("closed", 0), ("none", 0)]
)
def test_an_answer_that_could_not_be_printed_is_no_success(trained, monkeypatch, stream, status):
    for arguments in (("presets",), ("study", "status", trained.folder)):
        assert call_with(monkeypatch, BROKEN[stream], *arguments) == status


def test_mistakes_keep_their_status(monkeypatch, tmp_path):
    for stream in BROKEN.values():
        assert call_with(monkeypatch, stream, "compare", tmp_path / "none") == 2
        assert call_with(monkeypatch, stream, "tune", tmp_path / "none.toml") == 2
        assert call_with(monkeypatch, stream, "watch", tmp_path / "none") == 2
        assert call_with(monkeypatch, stream, "play", tmp_path / "none", "--gif", "x.gif") == 2


def shell(line, cwd):
    """Status and both outputs of a line of the shell, in which ``dqx`` is the command."""
    line = line.replace("dqx ", f"{sys.executable} -m dqx ")
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=cwd, env=environment(PYTHONIOENCODING="ascii"), capture_output=True, text=True,
        timeout=100,
    )  # fmt: skip
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dqx study status s >&-", (0, 0, 0)),
        ("dqx study status s 2>&-", (0, 4, 0)),
        ("dqx study status s >/dev/full", (2, 0, 1)),
        ("dqx --help | head -1", (0, 1, 0)),
        ("dqx study status none 2>/dev/full", (2, 0, 0)),
        ("dqx study status none >&- 2>&-", (2, 0, 0)),
    ],
)
def test_in_a_shell(tmp_path, line, expected):
    """Python adds no line of its own at its end, and no status 120."""
    make_study(tmp_path / "s", {"seeds": 2})
    status, out, err = shell(line, tmp_path)
    assert (status, len(out), len(err)) == expected, (out, err)


def test_names_outside_the_encoding_are_printed_with_replacements(tmp_path):
    make_study(tmp_path / "s", {"seeds": 2, "case": [{"name": "größe-\u4e09"}, {"name": "b"}]})
    status, out, err = shell("dqx study status s", tmp_path)
    assert (status, err) == (0, [])
    assert any("gr\\xf6\\xdfe-\\u4e09" in line for line in out), out
    status, out, err = shell("dqx study status 'n\u4e09'", tmp_path)
    assert (status, out) == (2, []) and "n\\u4e09 holds no study" in err[0]


def test_a_closed_descriptor_is_not_given_to_a_file(tmp_path):
    """What libraries print on standard error would go into a file of results."""
    code = (
        "import os, sys\nfrom dqx.cli import streams\nwith streams.guarded():\n"
        f"    number = os.open({str(tmp_path / 'a')!r}, os.O_CREAT | os.O_WRONLY)\n"
        "    sys.stderr.write('x'); os.write(2, b'y')\n"
        "os._exit(number)\n"
    )
    status, _, _ = shell(f'{sys.executable} -c "{code}" >&- 2>&- <&-', tmp_path)
    assert status > 2 and (tmp_path / "a").read_bytes() == b""


def test_a_stream_is_lost_once_and_for_all(monkeypatch):
    one = streams.Stream(full(), True)
    assert one.write("a") == 1 and not one.lost
    one.flush()
    assert one.lost
    one.write("b" * 100_000)
    one.flush()
    one.close()
    strict = streams.Stream(full(), False)
    strict.write("a")
    with pytest.raises(OSError, match="No space left"):
        strict.flush()
    streams.discard(strict)
    strict.close()
    text = io.StringIO()
    kept = streams.Stream(text, False)
    kept.writelines(["a", "b\n"])
    print("c", file=kept, flush=True)
    assert text.getvalue() == "ab\nc\n" and not kept.lost and not kept.isatty()
