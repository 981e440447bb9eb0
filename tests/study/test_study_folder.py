"""A study's folder: what is damaged is found and named, and one process works on it at a time."""

import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest

import dqx
from dqx.study import folder as folders
from dqx.study import lock, sealed
from dqx.study.folder import Folder, StudyError
from dqx.study.lock import Lock
from dqx.study.sealed import Mark
from tests.study.kit import make_study

ROOT = str(Path(dqx.__file__).resolve().parent.parent)
CONTENT = {
    "text": "é\n\"'\\",
    "numbers": [0, 10, -1.5, 1e-08, 2**53],
    "nothing": None,
    "yes": True,
    "table": {"b": {}, "a": []},
}


def test_sealed_json_comes_back_and_is_plain_json(tmp_path):
    path = tmp_path / "a.json"
    sealed.write_sealed(path, CONTENT)
    found = sealed.read_sealed(path)
    assert {k: v for k, v in found.items() if k != "sha256"} == CONTENT
    assert json.loads(path.read_text()) == found
    compact = json.dumps(CONTENT, sort_keys=True, separators=(",", ":")).encode()
    assert found["sha256"] == hashlib.sha256(compact).hexdigest() == sealed.seal(found)
    assert os.listdir(tmp_path) == ["a.json"]


def test_every_flip_of_a_byte_is_found(tmp_path):
    path = tmp_path / "a.json"
    sealed.write_sealed(path, CONTENT)
    whole, content = path.read_bytes(), sealed.read_sealed(path)
    refused = 0
    for at in range(len(whole)):
        for mask in [1 << bit for bit in range(8)] + [0xFF]:
            damaged = bytearray(whole)
            damaged[at] ^= mask
            path.write_bytes(damaged)
            try:
                # 1e-08 may turn into 1E-08, which is the same content.
                assert sealed.read_sealed(path) == content
                assert (whole[at], damaged[at]) == (ord("e"), ord("E"))
            except StudyError as error:
                assert str(error).startswith(f"{path}: it")
                refused += 1
    assert refused == 9 * len(whole) - 1
    for length in range(len(whole) - 1):  # the last byte is a line feed
        path.write_bytes(whole[:length])
        with pytest.raises(StudyError):
            sealed.read_sealed(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is no JSON"),
        ("[]", "its content is not what was written"),
        ("{}", "its content is not what was written"),
        ('{"a": 1}', "its content is not what was written"),
        ('{"a": NaN, "sha256": "0"}', "it is no JSON"),
        ("[" * 100_000, "it is no JSON"),
    ],
)
def test_foreign_json_is_refused(tmp_path, text, words):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(StudyError, match=words):
        sealed.read_sealed(path)
    with pytest.raises(StudyError, match=r"b\.json: No such file"):
        sealed.read_sealed(tmp_path / "b.json")


def test_what_strict_json_cannot_hold_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        sealed.write_sealed(tmp_path / "a.json", {"a": float("nan")})
    assert os.listdir(tmp_path) == []


def real_mark(path):
    content = path.read_bytes()
    return Mark(len(content), hashlib.sha256(content).hexdigest())


def test_marks_are_those_of_the_file(tmp_path):
    arrays = {
        "a": np.arange(70_000, dtype=np.float32).reshape(7, -1),
        "b/c": np.array([], np.int64),
        "name": np.array(["x", "yé"], np.str_),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    }
    mark = sealed.write_arrays(tmp_path / "a.npz", arrays)
    assert mark == real_mark(tmp_path / "a.npz")
    found = sealed.read_arrays(tmp_path / "a.npz", mark)
    assert list(found) == list(arrays)
    for name, values in arrays.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)
    with sealed.marked_file(tmp_path / "a.parquet") as file:
        pyarrow.parquet.write_table(pyarrow.table({"x": np.arange(100_000)}), file)
    assert file.mark == real_mark(tmp_path / "a.parquet")
    assert pandas.read_parquet(tmp_path / "a.parquet")["x"].tolist() == list(range(100_000))
    with sealed.marked_file(tmp_path / "empty") as file:
        pass
    assert file.mark == (0, hashlib.sha256(b"").hexdigest())


def test_no_pickle_is_written_or_read(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle=False"):
        sealed.write_arrays(tmp_path / "a.npz", {"a": np.array([{}], object)})
    assert os.listdir(tmp_path) == []
    np.savez(tmp_path / "b.npz", a=np.array([{}], object))
    with pytest.raises(ValueError, match="is of object, and no numbers"):
        sealed.read_arrays(tmp_path / "b.npz", real_mark(tmp_path / "b.npz"))


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.npz"
    before = sealed.write_arrays(path, {"a": np.zeros(3)})

    with pytest.raises(OSError, match="full"), sealed.marked_file(path) as file:
        file.write(b"new")
        raise OSError(errno.ENOSPC, "disk full")
    assert os.listdir(tmp_path) == ["a.npz"] and real_mark(path) == before


def test_checked_reading_names_the_file_and_what_is_wrong(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 2000)
    mark = real_mark(path)
    assert sealed.read_checked(path, mark) == b"x" * 2000
    path.write_bytes(b"x" * 1000 + b"y" + b"x" * 999)
    with pytest.raises(StudyError, match=rf"^{path}: its content is not what was written"):
        sealed.read_checked(path, mark)
    path.write_bytes(b"x" * 1999)
    with pytest.raises(StudyError, match=rf"^{path}: 1,999 bytes instead of 2,000$"):
        sealed.read_checked(path, mark)
    path.unlink()
    with pytest.raises(StudyError, match=rf"^{path}: No such file or directory$"):
        sealed.read_checked(path, mark)
    path.mkdir()
    with pytest.raises(StudyError, match=rf"^{path}: Is a directory$"):
        sealed.read_checked(path, mark)


HOLD = """
import sys, time
from pathlib import Path
from dqx.study.lock import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def held(tmp_path):
    """Another process that holds the lock of a folder."""
    env = {**os.environ, "PYTHONPATH": ROOT}
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_until_the_first_dies(held, tmp_path):
    holder = lock.holder(tmp_path)
    assert holder.startswith(f"process {held.pid} on ")
    with pytest.raises(StudyError, match=f"is being worked on by {holder}: .*dqx study status"):
        Lock(tmp_path).__enter__()
    assert lock.holder(tmp_path) == holder  # asking again and again harms nothing
    held.send_signal(signal.SIGKILL)
    held.wait()
    assert lock.holder(tmp_path) is None
    with Lock(tmp_path):
        assert lock.holder(tmp_path).startswith(f"process {os.getpid()} on ")
        with pytest.raises(StudyError, match=f"by process {os.getpid()} on"):
            Lock(tmp_path).__enter__()
    assert lock.holder(tmp_path) is None


def test_asking_who_holds_it_never_refuses_a_worker(tmp_path):
    """Status looks at the lock by holding it for a moment."""
    (tmp_path / "lock").touch()
    asking = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time\nfrom pathlib import Path\nfrom dqx.study.lock import holder\n"
            "print(flush=True)\nend = time.monotonic() + 1\n"
            "while time.monotonic() < end: holder(Path(sys.argv[1])); time.sleep(0.002)",
            str(tmp_path),
        ],
        env={**os.environ, "PYTHONPATH": ROOT},
        stdout=subprocess.PIPE,
    )
    with asking:
        asking.stdout.readline()
        count = 0
        while asking.poll() is None:
            with Lock(tmp_path):
                count += 1
    assert count > 20


def test_nobody_holds_what_is_not_there(tmp_path):
    assert lock.holder(tmp_path) is None and lock.holder(tmp_path / "none") is None
    with pytest.raises(StudyError, match=f"cannot write in {tmp_path / 'none'}: No such file"):
        Lock(tmp_path / "none").__enter__()
    assert os.listdir(tmp_path) == []


def test_strangers_and_leftovers(tmp_path):
    folder = make_study(tmp_path / "a", {"seeds": 5, "snapshot_every": 100}).folder
    assert folder.strangers(2) == [] and folder.leftovers() == []
    odd = ["metrics/part-00002.parquet", "params/old.npz", "chunks/00002.json", "chunks/1.json",
           "snapshots/mine.txt", "snapshots/part-00002-100.npz", "checkpoints/00002.json",
           ]  # fmt: skip
    for name in odd:
        (folder.path / name).write_text("x")
    for name in ("00001.json", "00001-200.npz"):  # of a chunk under way
        (folder.path / "checkpoints" / name).write_text("x")
    left = ["metrics/.part-00000.parquet.0a1b2c3d.tmp", ".plan.json.ffffffff.tmp",
            "checkpoints/.00000-100.npz.00000000.tmp"]  # fmt: skip
    for name in left:
        (folder.path / name).write_text("x")
    for name in ("metrics/.DS_Store", ".mine.tmp", "notes.tmp"):
        (folder.path / name).write_text("a user's own")
    assert folder.strangers(2) == sorted(folder.path / name for name in odd)
    assert sorted(folder.leftovers()) == sorted(folder.path / name for name in left)


def test_no_name_leaves_the_folder(tmp_path):
    """Whatever configurations are called and whatever a link points to."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ".part-00000.npz.0a1b2c3d.tmp").write_text("not ours")
    cases = [{"name": "../../x"}, {"name": "/etc/passwd"}, {"name": "con"}]
    folder = make_study(tmp_path / "s", {"seeds": 2, "snapshot_every": 100, "case": cases}).folder
    (folder.path / "params" / "link").symlink_to(outside)
    assert folder.leftovers() == []
    assert sorted(os.listdir(tmp_path)) == ["outside", "s"]
    made = [p for p in folder.path.rglob("*") if p.is_file()]
    assert len(made) == 1 + 2 * (1 + 3 + 4)
    allowed = r"^(plan\.json|chunks/\d{5}\.json|(metrics|episodes)/part-\d{5}\.parquet|params/part-\d{5}\.npz|snapshots/part-\d{5}-\d+\.npz)$"  # noqa: E501
    names = pandas.Series([str(p.relative_to(folder.path)) for p in made])
    assert names.str.match(allowed).all()
    for name in ("../../x", "/etc/passwd", "con"):
        assert dqx.study.load(folder.path).params(name, 1)


def test_plans_of_another_form_are_refused(tmp_path):
    folder = make_study(tmp_path / "a", {}).folder
    assert folders.read_plan_record(folder)["name"] == "study"
    record = folders.read_plan_record(folder)
    sealed.write_sealed(folder.plan, {**record, "format": 1})
    with pytest.raises(StudyError, match=r"plan\.json has format 1, and this version .* reads 2"):
        folders.read_plan_record(folder)
    with pytest.raises(StudyError, match=r"holds no study: there is no plan\.json in it"):
        folders.read_plan_record(Folder(tmp_path))


def test_records_of_another_study_or_chunk_are_refused(tmp_path):
    folder = make_study(tmp_path / "a", {"seeds": 5}).folder
    seal = folders.read_plan_record(folder)["sha256"]
    assert folders.read_record(folder, seal, 1)["chunk"] == 1
    assert folders.read_record(folder, seal, 2) is None
    with pytest.raises(StudyError, match=r"00001\.json: it belongs to another study"):
        folders.read_record(folder, "0" * 64, 1)
    folder.record(0).rename(folder.record(2))
    with pytest.raises(StudyError, match=r"00002\.json: it belongs to another study"):
        folders.read_record(folder, seal, 2)


def test_the_files_of_a_chunk(tmp_path):
    folder = make_study(tmp_path / "a", {"seeds": 5, "snapshot_every": 100}).folder
    seal = folders.read_plan_record(folder)["sha256"]
    found = folders.chunk_files(folder, 1, folders.read_record(folder, seal, 1))
    assert [str(path.relative_to(folder.path)) for path, _ in found] == [
        "metrics/part-00001.parquet", "episodes/part-00001.parquet", "params/part-00001.npz",
        "snapshots/part-00001-100.npz", "snapshots/part-00001-200.npz",
        "snapshots/part-00001-300.npz", "snapshots/part-00001-400.npz",
    ]  # fmt: skip
    assert all(mark == real_mark(path) for path, mark in found)


def test_nothing_here_needs_jax(tmp_path):
    code = "import sys, dqx.study.folder\nprint({'jax', 'pandas', 'pyarrow'} & set(sys.modules))"
    env = {**os.environ, "PYTHONPATH": ROOT}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_raw_writes_of_any_buffer_are_counted(tmp_path):
    with sealed.marked_file(tmp_path / "a") as file:
        sizes = [file.write(b"ab"), file.write(bytearray(b"c")), file.write(np.arange(4)[::1])]
        assert (sizes, file.tell()) == ([2, 1, 32], 35)
        assert file.writable() and not file.seekable()
        with pytest.raises(io.UnsupportedOperation):
            file.seek(0)
    assert file.mark == real_mark(tmp_path / "a")
