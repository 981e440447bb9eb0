"""A run's folder: read back by other means than it was written with, and whole or absent."""

import dataclasses
import errno
import json
import math
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pandas
import pytest

import dqx
from dqx import files, output, plots
from dqx.config import Config, Hyper, override
from dqx.files import OutputError
from dqx.run import TrainResult

SEEDS = [7, 2, 5]
STEPS = [100, 200, 300, 400]


def make_result(**changes) -> TrainResult:
    """What training gives, with numbers that tell every seed and step from the others."""
    values = 10.0 * np.arange(3)[:, None] + np.arange(4, dtype=np.float32)
    evals = np.where(np.array(STEPS) % 200 == 0, values, np.nan).astype(np.float32)
    result = TrainResult(
        config=Config(total_steps=400, log_period=100, eval_period=200, chunk_width=4),
        hyper=Hyper(gamma=0.9),
        seeds=np.array(SEEDS, np.int64),
        metrics={
            "step": np.array(STEPS, np.int64),
            "episode_count": (values + 1).astype(np.int64),
            "episode_return": values.astype(np.float32),
            "eval_return": evals,
        },
        episodes=pandas.DataFrame(
            {
                "seed": np.array([7, 7, 5]),
                "step": np.array([11, 30, 17]),
                "return": np.array([11.5, 19.0, 17.0], np.float32),
                "length": np.array([11, 19, 17], np.int32),
            }
        ),
        params={
            "params": {
                "Dense_0": {"kernel": np.arange(18, dtype=np.float32).reshape(3, 2, 3)},
                "Dense_1": {"bias": np.array([[1.0], [math.nan], [3.0]], np.float32)},
            }
        },
        diverged_at=np.array([-1, 300, -1], np.int64),
        digests=("a" * 64, "b" * 64, "c" * 64),
        root_seed=9,
        devices=("cpu:0", "cpu:1"),
        device_kind="cpu: cpu",
        compile_seconds=1.5,
        run_seconds=2.5,
    )
    return dataclasses.replace(result, **changes)


def write(out: Path, overwrite: bool = False, **changes) -> Path:
    with output.prepare(out, overwrite) as folder:
        output.write_run(make_result(**changes), folder, label="mine", command="dqx train 'a b'")
    return out


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every name below a folder, with the bytes of files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("runs") / "mine")


def test_the_folder_holds_these_files_and_nothing_is_left_beside_it(run_folder):
    assert {name for name, data in contents(run_folder).items() if data is not None} == {
        "manifest.json",
        "metrics/part-0.parquet",
        "episodes/part-0.parquet",
        "params/part-0.npz",
        "learning_curve.png",
    }
    assert os.listdir(run_folder.parent) == ["mine"]
    mask = os.umask(0)
    os.umask(mask)
    assert run_folder.stat().st_mode & 0o777 == 0o777 & ~mask


def test_pandas_reads_the_metrics(run_folder):
    table = pandas.read_parquet(run_folder / "metrics")
    assert list(table) == [
        "config", "seed", "step", "episode_count", "episode_return", "eval_return"
    ]  # fmt: skip
    assert (table["seed"].dtype, table["step"].dtype) == (np.int64, np.int64)
    assert {table[name].dtype for name in list(table)[3:]} == {np.dtype(np.float32)}
    assert set(table["config"]) == {"mine"} and len(table) == 12
    one = table[(table["seed"] == 2) & (table["step"] == 300)].iloc[0]
    assert (one["episode_return"], one["episode_count"]) == (12.0, 13.0)
    assert math.isnan(one["eval_return"])
    np.testing.assert_array_equal(
        table.pivot(index="seed", columns="step", values="eval_return").loc[SEEDS, [200, 400]],
        [[1, 3], [11, 13], [21, 23]],
    )


def test_pandas_reads_the_episodes(run_folder):
    table = pandas.read_parquet(run_folder / "episodes")
    assert {name: str(kind) for name, kind in table.dtypes.items() if name != "config"} == {
        "seed": "int64", "step": "int64", "return": "float32", "length": "int64"
    }  # fmt: skip
    assert table.to_numpy().tolist() == [
        ["mine", 7, 11, 11.5, 11],
        ["mine", 7, 30, 19.0, 19],
        ["mine", 5, 17, 17.0, 17],
    ]


def test_no_finished_episode_is_a_table_without_rows(tmp_path):
    write(tmp_path / "a", episodes=make_result().episodes.iloc[:0])
    table = pandas.read_parquet(tmp_path / "a" / "episodes")
    assert list(table) == ["config", "seed", "step", "return", "length"] and table.empty
    assert str(table["return"].dtype) == "float32"


def test_parameters_come_back_as_they_were(run_folder):
    loaded, given = output.load_params(run_folder / "params"), make_result().params
    assert set(loaded) == {"params"} and set(loaded["params"]) == {"Dense_0", "Dense_1"}
    for layer, name in (("Dense_0", "kernel"), ("Dense_1", "bias")):
        assert loaded["params"][layer][name].dtype == np.float32
        np.testing.assert_array_equal(loaded["params"][layer][name], given["params"][layer][name])
    with np.load(run_folder / "params" / "part-0.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"seeds", "params/Dense_0/kernel", "params/Dense_1/bias"}
        assert arrays["seeds"].tolist() == SEEDS and arrays["seeds"].dtype == np.int64
    with pytest.raises(OutputError, match="does not exist"):
        output.load_params(run_folder)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"a/b": np.zeros(3)}, "'a/b'.*slash"),
        ({"a": {"b": np.zeros(3, ml_dtypes.bfloat16)}}, "a/b has dtype bfloat16.*float32"),
        ({"a": np.array([None, {}])}, "a has dtype object"),
        ({"seeds": np.zeros(3)}, "'seeds'"),
    ],
)
def test_parameters_that_would_not_come_back_are_refused(tmp_path, params, words):
    with pytest.raises(ValueError, match=words):
        output.write_params(tmp_path, np.arange(3), params)
    assert os.listdir(tmp_path) == []


def test_the_manifest_repeats_the_run(run_folder):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    text = (run_folder / "manifest.json").read_text()
    record = json.loads(text, parse_constant=refuse)
    assert record == output.read_manifest(run_folder)
    assert record["hyper"]["max_grad_norm"] == "inf"
    hyper = {name: float(value) for name, value in record["hyper"].items()}
    config, hyper = override(Config(), Hyper(), **record["config"], **hyper)
    assert (config, hyper) == (make_result().config, make_result().hyper)
    assert record["seeds"] == SEEDS and record["diverged_at"] == [-1, 300, -1]
    assert (record["chunk_width"], record["root_seed"]) == (4, 9)
    assert (record["label"], record["command"]) == ("mine", "dqx train 'a b'")
    assert (record["compile_seconds"], record["run_seconds"]) == (1.5, 2.5)
    assert (record["device_kind"], record["devices"]) == ("cpu: cpu", ["cpu:0", "cpu:1"])


def test_the_manifest_names_the_software_the_time_and_the_memory(tmp_path, monkeypatch):
    import jax
    import psutil

    monkeypatch.setenv("XLA_FLAGS", "--xla_some_flag=1")
    before = pandas.Timestamp.now("UTC").floor("ms")
    record = output.read_manifest(write(tmp_path / "a"))
    started, ended = pandas.Timestamp(record["started"]), pandas.Timestamp(record["ended"])
    assert before <= started <= ended <= pandas.Timestamp.now("UTC")
    assert str(started.tz) == "UTC" and record["xla_flags"] == "--xla_some_flag=1"
    assert record["versions"]["jax"] == jax.__version__
    assert record["versions"]["dqx"] == dqx.__version__
    assert set(record["versions"]) == {
        "python", "jax", "jaxlib", "dqx", "flax", "optax", "gymnax", "numpy"
    }  # fmt: skip
    now = psutil.Process().memory_info().rss
    assert 0.9 * now < record["peak_memory_bytes"] < 2**40
    assert record["peak_device_memory_bytes"] is None


def test_the_commit_is_that_of_the_checkout(tmp_path, monkeypatch):
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    root = tmp_path / "checkout"
    (root / "dqx").mkdir(parents=True)
    monkeypatch.setattr(output, "__file__", str(root / "dqx" / "output.py"))
    nothing = {"git_commit": None, "git_modified": None}
    assert output.checkout() == nothing

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        command = ["git", "-C", str(root), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    assert output.checkout() == nothing  # no commit yet
    (root / "file").write_text("1")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    expected = (root / ".git" / "refs" / "heads").rglob("*")
    (commit,) = (path.read_text().strip() for path in expected if path.is_file())
    assert output.checkout() == {"git_commit": commit, "git_modified": False}
    (root / "file").write_text("2")
    assert output.checkout() == {"git_commit": commit, "git_modified": True}
    # Packages installed somewhere below a checkout are not that checkout.
    monkeypatch.setattr(output, "__file__", str(root / "venv" / "dqx" / "output.py"))
    assert output.checkout() == nothing
    monkeypatch.setattr(output, "__file__", str(root / "dqx" / "output.py"))
    monkeypatch.setenv("PATH", "")
    assert output.checkout() == nothing


def drawn(tmp_path, monkeypatch, **changes):
    calls = []
    monkeypatch.setattr(
        plots,
        "learning_curve",
        lambda *args, **named: calls.append(SimpleNamespace(args=args, **named)),
    )
    output.draw_learning_curve(tmp_path / "a.png", "mine", make_result(**changes))
    return calls


def test_the_picture_shows_greedy_returns_or_says_that_it_does_not(tmp_path, monkeypatch):
    result = make_result()
    (call,) = drawn(tmp_path, monkeypatch)
    np.testing.assert_array_equal(call.args[1], result.metrics["eval_return"])
    assert call.ylabel == "greedy return (sum of rewards an episode)"
    assert call.title == "mine: CartPole-v1" and call.diverged_at.tolist() == [-1, 300, -1]
    config = dataclasses.replace(result.config, eval_period=0)
    (call,) = drawn(tmp_path, monkeypatch, config=config)
    np.testing.assert_array_equal(call.args[1], result.metrics["episode_return"])
    assert "training episodes" in call.ylabel and "no evaluation" in call.ylabel


def test_without_a_finite_value_there_is_no_picture(tmp_path):
    metrics = {**make_result().metrics, "eval_return": np.full((3, 4), np.nan, np.float32)}
    write(tmp_path / "a", metrics=metrics)
    assert not (tmp_path / "a" / "learning_curve.png").exists()


def test_an_empty_folder_is_used_and_missing_parents_are_made(tmp_path):
    (tmp_path / "empty").mkdir()
    for out in ("empty", "some/where/new"):
        write(tmp_path / out)
        assert output.read_manifest(tmp_path / out)["label"] == "mine"
    assert sorted(os.listdir(tmp_path)) == ["empty", "some"]


def test_a_link_is_followed_not_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk/run")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert output.read_manifest(tmp_path / "disk" / "run")["label"] == "mine"


def make_obstacles(root: Path) -> None:
    (root / "file").write_text("mine")
    (root / "other").mkdir()
    (root / "other" / "thesis.txt").write_text("years of work")
    (root / "json").mkdir()
    (root / "json" / "manifest.json").write_text('{"name": "a web app"}')
    (root / "binary").mkdir()
    (root / "binary" / "manifest.json").write_bytes(b"\xff\x00")
    write(root / "old")


@pytest.mark.parametrize(
    ("out", "overwrite", "words"),
    [
        ("file", False, "file is a file"),
        ("file", True, "file is a file"),
        ("file/below", False, "Not a directory"),
        ("file/far/below", True, "Not a directory"),
        ("old", False, "old exists.*--overwrite"),
        ("other", False, "other exists"),
        ("other", True, "no manifest.json of a dqx run"),
        ("json", True, "no manifest.json of a dqx run"),
        ("binary", True, "no manifest.json of a dqx run"),
        (".", True, "current folder"),
        ("..", True, "current folder"),
        ("", False, "current folder"),
        ("x" * 300, False, "too long"),
    ],
)
def test_what_is_in_the_way_is_named_and_left_alone(tmp_path, monkeypatch, out, overwrite, words):
    make_obstacles(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(OutputError, match=words) as caught:
        output.prepare(out, overwrite)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_parent_that_cannot_be_written_is_found_early(tmp_path, monkeypatch, number):
    def mkdir(path, *_, **__):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "mkdir", mkdir)
    with pytest.raises(OutputError, match=f"{tmp_path}.*{os.strerror(number)}"):
        output.prepare(tmp_path / "a")
    assert os.listdir(tmp_path) == []


def test_a_disk_that_is_nearly_full_is_found_early(tmp_path, monkeypatch):
    usage = SimpleNamespace(free=files.MIN_FREE_BYTES - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match="nearly full: 100 MiB"):
        output.prepare(tmp_path / "new" / "a")
    assert os.listdir(tmp_path) == []
    usage.free += 1
    with output.prepare(tmp_path / "a"):
        pass


def test_a_mount_point_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path / "disk")
    with pytest.raises(OutputError, match="mount point"):
        output.prepare(tmp_path / "disk")


def test_overwriting_replaces_the_whole_old_run(tmp_path):
    write(tmp_path / "a")
    (tmp_path / "a" / "metrics" / "part-1.parquet").write_text("of an older run")
    write(tmp_path / "a", overwrite=True, root_seed=10)
    assert output.read_manifest(tmp_path / "a")["root_seed"] == 10
    assert len(contents(tmp_path)) == 1 + 5 + 3
    pandas.read_parquet(tmp_path / "a" / "metrics")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", range(1, 10))
def test_a_failed_write_leaves_the_old_run(tmp_path, monkeypatch, call, error, overwrite):
    """Calls 1 to 5 sync the files, 6 to 9 the four folders, before anything is renamed."""
    if overwrite:
        write(tmp_path / "a")
    before, calls, sync = contents(tmp_path), [], os.fsync

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == call:
            raise error
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises((OutputError, KeyboardInterrupt), match="No space|^$"):
        write(tmp_path / "a", overwrite)
    assert len(calls) == call
    assert contents(tmp_path) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_everything_is_synced_before_it_is_renamed_and_the_parent_after(
    tmp_path, monkeypatch, overwrite
):
    if overwrite:
        write(tmp_path / "a")
    events, sync, rename = [], os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(os.fstat(fd).st_ino), sync(fd)))
    monkeypatch.setattr(os, "rename", lambda *paths: (events.append("rename"), rename(*paths)))
    write(tmp_path / "a", overwrite)
    paths = [tmp_path / "a", *(tmp_path / "a").rglob("*")]
    renames = 2 if overwrite else 1
    assert set(events[: len(paths)]) == {path.stat().st_ino for path in paths}
    assert events[len(paths) :] == ["rename"] * renames + [tmp_path.stat().st_ino]


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_a_failed_rename_restores_the_old_run(tmp_path, monkeypatch, call, error):
    write(tmp_path / "a")
    before, calls, rename = contents(tmp_path), [], os.rename

    def failing(source, target):
        calls.append(source)
        if len(calls) == call:
            raise error
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        write(tmp_path / "a", overwrite=True)
    assert contents(tmp_path) == before


def test_an_interrupt_after_the_rename_keeps_the_new_run(tmp_path, monkeypatch):
    write(tmp_path / "a")
    rename = os.rename

    def interrupted(source, target):
        rename(source, target)
        if target == tmp_path / "a":
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), output.prepare(tmp_path / "a", True) as folder:
        output.write_run(make_result(root_seed=10), folder, label="mine")
    assert folder.in_place
    assert output.read_manifest(tmp_path / "a")["root_seed"] == 10
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_appears_during_training_is_not_replaced(tmp_path, overwrite):
    with (
        pytest.raises(OutputError, match="exists|not replaced"),
        output.prepare(tmp_path / "a", overwrite) as folder,
    ):
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "notes").write_text("another's")
        output.write_run(make_result(), folder, label="mine")
    assert contents(tmp_path) == {"a": None, "a/notes": b"another's"}


def test_a_run_that_fails_leaves_no_folder_and_no_parent(tmp_path):
    with pytest.raises(ZeroDivisionError), output.prepare(tmp_path / "b" / "c" / "a") as folder:
        assert folder.folder.parent == tmp_path / "b" / "c" and folder.folder.name.startswith(".")
        (folder.folder / "half").write_text("written")
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_an_old_run_that_cannot_be_deleted_is_named(tmp_path, monkeypatch):
    write(tmp_path / "a")
    monkeypatch.setattr(shutil, "rmtree", lambda path, ignore_errors: None)
    with pytest.warns(UserWarning, match=r"could not be deleted: .*\.a\.\w{8}\.old"):
        write(tmp_path / "a", overwrite=True, root_seed=10)
    assert output.read_manifest(tmp_path / "a")["root_seed"] == 10


def test_two_runs_to_one_parent_do_not_disturb_each_other(tmp_path):
    with output.prepare(tmp_path / "p" / "a") as first:
        with output.prepare(tmp_path / "p" / "b"):
            pass
        output.write_run(make_result(), first, label="mine")
    assert os.listdir(tmp_path / "p") == ["a"]


def test_a_broken_manifest_is_named(tmp_path):
    for text in (None, "{", "[]", '{"versions": {"jax": "1"}}'):
        if text is not None:
            (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(OutputError, match="manifest.json is no manifest of a dqx run"):
            output.read_manifest(tmp_path)
