"""Files that are sealed and malformed: each reading command says so in one line, and at once."""

import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pyarrow
import pytest

import dqx
from dqx.compute import limits
from dqx.report.trackers.wandb import _known
from dqx.settings import Config, ConfigError, Hyper
from dqx.study import StudyError, StudyWarning, contents, finish, load, record, store
from dqx.study.engine import groups
from dqx.study.folder import Folder, read_plan_record
from dqx.study.plan import Plan, read_plan
from dqx.study.planned import check_plan
from dqx.study.point import Point
from tests.study.forge import DEFLATED, Forge, archive, header, read_all
from tests.study.kit import call, make_study

ROOT = str(Path(dqx.__file__).resolve().parents[1])
PLAN = {"seeds": 5, "snapshot_every": 200, "case": [{"name": "a"}, {"name": "b", "gamma": 0.9}]}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two configurations and five seeds in three chunks, finished."""
    path = tmp_path_factory.mktemp("made") / "s"
    make_study(path, PLAN)
    finish.write_manifest(Folder(path), {"steps_per_second": 9.0, "devices": ["cpu:0"],
                                         "compile_seconds": 1.0, "run_seconds": 2.0})  # fmt: skip
    return path


@pytest.fixture
def forge(made, tmp_path):
    return Forge(shutil.copytree(made, tmp_path / "s"))


def put(*place, value):
    """A change that puts a value at a place of a file."""

    def change(content):
        for name in place[:-1]:
            content = content[name]
        content[place[-1]] = value

    return change


def cut(*place):
    """A change that takes an entry away."""

    def change(content):
        for name in place[:-1]:
            content = content[name]
        del content[place[-1]]

    return change


def config(**values):
    return lambda plan: plan["points"][0]["config"].update(values)


def hyper(**values):
    return lambda plan: plan["points"][0]["hyper"].update(values)


POINT = ("points", 0)
PLANS = {
    "no name": (cut("name"), "its content must be a table with an entry 'name'"),
    "name": (put("name", value="../../x"), "name must be a name that a folder can have"),
    "name none": (put("name", value=None), "name must be a name that a folder can have, got None"),
    "no points": (put("points", value=[]), "points must be a list of 1 to 10,000 entries"),
    "points table": (put("points", value={"a": 1}), "points must be a list"),
    "point text": (put(*POINT, value="a"), r"points\[0\] must be a table, got 'a'"),
    "no config": (cut(*POINT, "config"), r"points\[0\] must be a table with an entry 'config'"),
    "label": (put(*POINT, "name", value="a\x1b[2J"), r"points\[0\]\.name must be a text in one"),
    "label number": (put(*POINT, "name", value=3), r"points\[0\]\.name must be a text in one"),
    "twice": (put(*POINT, "name", value="b"), "a configuration or a seed is there twice"),
    "seeds twice": (put("seeds", value=[1, 1]), "a configuration or a seed is there twice"),
    "seeds": (put("seeds", value=5), r"seeds must be a list"),
    "seed text": (put("seeds", 1, value="1"), r"seeds\[1\] must be a whole number from 0 to 4,294"),
    "seed true": (put("seeds", 1, value=True), r"seeds\[1\] must be a whole number"),
    "seed huge": (put("seeds", 1, value=10**4000), r"seeds\[1\] must be .* about 4,001 digits"),
    "seed half": (put("seeds", 1, value=0.5), r"seeds\[1\] must be a whole number"),
    "root": (put("root_seed", value=-1), "root_seed must be a whole number"),
    "snapshots": (put("snapshot_every", value=2**40), "snapshot_every must be a whole number"),
    "identity": (put("identity", value=[1]), "identity must be a table"),
    "identity value": (put("identity", "jax", value=3), "identity.'jax' must be a text"),
    "command": (put("command", value=["x"]), "command must be a text"),
    "created": (put("created", value=None), "created must be a text in one line"),
    "no width": (config(chunk_width=None), "chunk_width must be a whole number"),
    "width 0": (config(chunk_width=0), "chunk_width must be at least 1"),
    "width half": (config(chunk_width=1.5), "chunk_width must be a whole number or none"),
    "total 0": (config(total_steps=0), "total_steps must be at least 1"),
    "total text": (config(total_steps="400"), "total_steps must be a whole number, got '400'"),
    "rows": (config(total_steps=2**31 - 1, log_period=1), "log_period 1 makes 2,147,483,647 rows"),
    "period 0": (config(log_period=0), "log_period must be at least 1"),
    "eval": (config(eval_period=-200), "eval_period must be at least 0"),
    "sizes": (config(hidden_sizes=[8, [8]]), "must be the value of a setting"),
    "choice": (config(loss="none"), "loss must be one of"),
    "env table": (config(env={"name": "no_module:Maze"}), "env must be a text"),
    "agent": (config(agent=3), "agent must be a text"),
    "env nested": (config(**{"env.x": {"a": {"b": 1}}}), "must be the value of a setting"),
    "env rule": (config(**{"env.x": {"uniform": [2, 1]}}), r"env\.x is drawn by uniform"),
    "env huge": (config(**{"env.x": 10**400}), r"env\.x must be a finite number, got a whole"),
    "varied": (put(*POINT, "varied", "gamma", value=10**400), "gamma must be a number, got a w"),
    "varied huge": (put(*POINT, "varied", value={"own": 10**400}), "varies other fields|own must"),
    "varied less": (put(*POINT, "varied", value={}), "it varies other fields than the first"),
    "env traced": (hyper(**{"env.x": "far"}), r"env\.x must be a finite number, got 'far'"),
    "gamma": (hyper(gamma=7), "gamma must be between 0 and 1, got 7"),
    "gamma none": (hyper(gamma=None), "gamma must be a number, got None"),
    "gamma tiny": (hyper(learning_rate=1e-46), "too small for float32"),
    "gamma list": (hyper(gamma=[0.9]), r"gamma must be a number, got \[0.9\]"),
    "traced": (config(gamma=0.9), "gamma is hyperparameter"),
    "static": (hyper(batch_size=8), "batch_size is no hyperparameter"),
    "deep": (hyper(gamma="DEEP"), "it is no JSON, so it was damaged"),
}  # fmt: skip
# What only shows where settings are put together, which reading a table needs not.
TRAINED = {
    "unknown": (config(gama=1), "is of another version of dqx: unknown field 'gama'"),
    "unfit": (config(batch_size=2**20), "batch_size 1048576 is larger than replay_capacity"),
    "odd": (config(log_period=97), "is of another version of dqx, in which configuration 'a'"),
    "env name": (config(env="no module:Maze"), "no module:Maze"),
    "env field": (config(**{"env.nothing": 3}), "CartPole-v1 has no env.nothing"),
    "env option": (config(**{"env.gravity": 3.0}), "is of another version of dqx, in which"),
}
COMMANDS = {
    "status": ("study", "status"),
    "resume": ("study", "resume"),
    "verify": ("verify",),
    "report": ("report",),
    "play": ("play", "--gif", "film.gif"),
    "compare": ("compare",),
}


def refused(words, path, *commands):
    """Each command ends with status 2 and one line that has these words."""
    for name in commands:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            status, _, said = call(*COMMANDS[name], path)
        told = [line for line in said if line.startswith("dqx: error: ")]
        assert (status, len(told)) == (2, 1), (name, status, said)
        assert len(told[0]) < 1000 and re.search(words, told[0]), (name, told)


def deep(path):
    """Puts lists in lists where a text says so; whoever writes them, the seal is of no use."""
    for file in path.glob("plan*.json"):
        text = file.read_text()
        if "DEEP" in text:
            file.write_text(text.replace('"DEEP"', "[" * 100_000 + "]" * 100_000))


@pytest.mark.parametrize("case", PLANS)
def test_a_malformed_plan_is_refused_by_every_command(forge, case):
    change, words = PLANS[case]
    (forge.folder.path / "manifest.json").unlink()
    forge.plan(change)
    deep(forge.folder.path)
    with pytest.raises(StudyError, match=words) as caught:
        load(forge.folder.path)
    assert str(caught.value).startswith(f"{forge.folder.plan}: ")
    refused(words, forge.folder.path, *(("status",) if case != "no name" else COMMANDS))


@pytest.mark.parametrize("case", TRAINED)
def test_a_plan_that_cannot_be_trained_is_refused_where_it_is_trained(forge, case):
    change, words = TRAINED[case]
    forge.plan(change)
    content = read_plan_record(forge.folder)
    with pytest.raises((StudyError, ConfigError), match=words):
        record.plan_of(forge.folder, content)
    if case == "odd":
        refused(words, forge.folder.path, "resume")


def test_a_plan_as_it_was_written_is_read_back(made, forge):
    content = read_plan_record(Folder(made))
    plan = record.plan_of(Folder(made), content)
    assert [point.name for point in plan.points] == ["a", "b"] and plan.num_runs == 10
    # A malformed copy is damage: the other copies are read instead.
    forge.json(forge.folder.plan, cut("points"))
    assert load(forge.folder.path).plan == content


def test_where_a_parameter_of_the_environment_is_given_for_some_only(tmp_path):
    """They need a program of their own, and so chunks of their own."""
    given = [{"name": "a"}, {"name": "b", "env.gravity": 12.0}]
    make_study(tmp_path / "s", {"seeds": 5, "case": given})
    assert load(tmp_path / "s").finished


def test_a_plan_with_too_many_runs_is_refused(tmp_path):
    many = {"points": [{"name": "a"}, {"name": "b"}], "seeds": range(600_000)}
    with pytest.raises(StudyError, match="its 1,200,000 runs are too many"):
        check_plan(tmp_path / "plan.json", many)
    with pytest.raises(StudyError, match="10,001 configurations are too many"):
        read_plan(Plan("x", (Point("a", Config(), Hyper(), {}),) * 10_001, (0,)))


RECORDS = {
    "no runs": (put("runs", value=[]), "runs must be a list of 1 to"),
    "fewer runs": (cut("runs", -1), "its runs are not those that the plan has in this chunk"),
    "run twice": (lambda r: r["runs"].__setitem__(1, r["runs"][0]), "its runs are not those"),
    "order": (lambda r: r["runs"].reverse(), "its runs are not those"),
    "another seed": (put("runs", 0, "seed", value=77), "its runs are not those"),
    "another config": (put("runs", 0, "config", value="z"), "its runs are not those"),
    "no digest": (cut("runs", 0, "digest"), r"runs\[0\] must be a table with an entry 'digest'"),
    "digest": (put("runs", 0, "digest", value="x"), r"runs\[0\]\.digest must be a SHA-256"),
    "digest none": (put("runs", 0, "digest", value=None), r"runs\[0\]\.digest must be a SHA-256"),
    "score": (put("runs", 0, "score", value="5"), r"runs\[0\]\.score must be a number, got '5'"),
    "score huge": (put("runs", 0, "score", value=10**400), r"runs\[0\]\.score must be a number"),
    "diverged": (put("runs", 0, "diverged_at", value=-5), r"diverged_at must be a whole number"),
    "diverged late": (put("runs", 0, "diverged_at", value=999), "diverged after its last step"),
    "diverged none": (put("runs", 0, "diverged_at", value=None), "diverged_at must be a whole"),
    "files": (put("files", value=[]), "files must be a table"),
    "no mark": (cut("files", "params"), "files must be a table with an entry 'params'"),
    "mark": (put("files", "params", value="x"), r"files\.params must be a table"),
    "bytes": (put("files", "params", "bytes", value=-1), r"files\.params\.bytes must be a whole"),
    "snapshot": (put("snapshots", "../1", value={}), "snapshots must be a table whose names are"),
    "snapshot at": (lambda r: r["snapshots"].update({"3": r["files"]["params"]}), "at steps that"),
    "snapshots": (put("snapshots", value=None), "snapshots must be a table"),
    "run list": (put("runs", value={"0": 1}), "runs must be a list"),
}


def restarted(forge, words):
    """Resuming takes chunk 0 as damaged, says why, and the others as they are."""
    content = read_plan_record(forge.folder)
    plan = record.plan_of(forge.folder, content)
    tasks = {task.number: task for group in groups(plan) for task in group.tasks}
    kept = store.FolderStore(forge.folder, content["sha256"])
    with pytest.warns(StudyWarning, match=words) as told:
        done = kept.finished(tasks)
    assert sorted(done) == [1, 2] and len(told) == 1
    assert "The runs of chunk 0 are trained again" in str(told[0].message)


@pytest.mark.parametrize("case", RECORDS)
def test_a_malformed_record_is_refused_and_trained_again(forge, case):
    change, words = RECORDS[case]
    forge.record(change)
    with pytest.raises(StudyError, match=words) as caught:
        load(forge.folder.path)
    assert str(caught.value).startswith(f"{forge.folder.record(0)}: ")
    assert str(caught.value).endswith(f"`dqx study resume {forge.folder.path}` trains its runs "
                                      "again")  # fmt: skip
    refused(words, forge.folder.path, *(("status", "report") if case == "score" else ()))
    restarted(forge, words)


def column(name, change):
    """A change of one column of a table."""

    def changed(table):
        place = table.column_names.index(name)
        return table.set_column(place, name, pyarrow.array(change(table.column(name).to_numpy())))

    return changed


def more(count):
    """A change to a table of so many equal rows, of which Parquet makes a few bytes."""

    def changed(table):
        dictionary = [pyarrow.array(np.zeros(count, np.int8)).cast(pyarrow.int64())]
        return table.take(dictionary[0])

    return changed


TABLES = {
    "fewer rows": ("metrics", lambda t: t.slice(1), "and the plan has 16 of them"),
    "more rows": ("metrics", more(100), "100 rows, and the plan has 16 of them"),
    "no rows": ("metrics", lambda t: t.slice(0, 0), "0 rows, and the plan has 16"),
    "seed": ("metrics", column("seed", lambda v: v + 1), "its rows are not those of the chunk's"),
    "step": ("metrics", column("step", lambda v: v + 1), "its rows are not those of the chunk's"),
    "config": ("metrics", column("config", lambda v: v[::-1]), "its rows are not those of the"),
    "no step": ("metrics", lambda t: t.drop_columns(["step"]), "its columns are not those"),
    "metric": ("metrics", column("loss", lambda v: v.astype(str)), "its columns are not those of"),
    "nested": (
        "metrics",
        column("loss", lambda v: [[x] for x in v]),
        "a column is packed otherwise",
    ),
    "seed text": ("metrics", column("seed", lambda v: v.astype(str)), "its columns are not those"),
    "gap": ("metrics", column("seed", lambda v: [None, *v.tolist()[1:]]), "or have gaps"),
    "twice": ("metrics", lambda t: t.append_column("seed", t.column("seed")), "its columns are"),
    "episodes": ("episodes", more(2_000), "2,000 rows, and the plan has at most 1,600"),
    "episode": ("episodes", column("seed", lambda v: v + 50), "episodes that are none of the"),
    "episode of": ("episodes", column("config", lambda v: ["z"] * len(v)), "episodes that are"),
    "late": ("episodes", column("step", lambda v: v + 10**6), "episodes that are none of the"),
    "length": ("episodes", column("length", lambda v: v * 0), "episodes that are none of the"),
    "return": ("episodes", lambda t: t.drop_columns(["return"]), "its columns are not those"),
}
BYTES = {
    "metrics": {
        "empty": (b"", "it holds no table that dqx has written"),
        "text": (b"PAR1 or so PAR1", "it holds no table that dqx has written"),
    },
    "params": {
        "empty": (b"", "it holds no arrays that dqx has written"),
        "text": (b"PK\5\6" + b"\0" * 5, "it holds no arrays that dqx has written"),
        "bomb": (
            archive({"a.npy": header("(100, 100)") + bytes(40_000)}, DEFLATED),
            "its array 'a' is packed or there twice",
        ),
        "shape": (archive({"a.npy": header("(10**12,)")}), "holds no arrays that dqx"),
        "shape huge": (archive({"a.npy": header((10**12,))}), "'a' has the shape .1000000000000."),
        "shape over": (archive({"a.npy": header((2**62, 4))}), "'a' has the shape"),
        "negative": (archive({"a.npy": header((-1,))}), "no numbers|no arrays"),
        "object": (archive({"a.npy": header((1,), "'|O'") + b"x"}), "is of object, and no numb"),
        "no bytes": (archive({"a.npy": header((10**12,), "'<U0'")}), "is of <U0, and no numbers"),
        "struct": (archive({"a.npy": header((1,), "[('x', '<f4')]")}), "and no numbers"),
        "version": (archive({"a.npy": header((1,), version=9)}), "holds no arrays that dqx"),
        "other name": (archive({"a.npy": header((4,)) + bytes(16)}), "not those of the chunk's"),
    },
}  # fmt: skip


def leaf(name, value):
    return lambda arrays: arrays.update({name: value})


KERNEL = "params/Dense_0/kernel"
ARRAYS = {
    "seeds": (lambda a: a["seed"].__iadd__(1), "its arrays are not those of the chunk's runs"),
    "no seeds": (lambda a: a.pop("seed"), "its arrays are not those of the chunk's runs"),
    "names": (lambda a: a["config"].fill("z"), "its arrays are not those of the chunk's runs"),
    "fewer": (lambda a: a.update({KERNEL: a[KERNEL][:1]}), "the first axis must be the chunk's 4"),
    "text": (leaf("x", np.array(["1"] * 4)), "the first axis must be the chunk's 4 runs"),
    "under": (leaf(f"{KERNEL}/x", np.zeros(4)), "is no name of parameters"),
    "deep": (leaf("x/" * 400, np.zeros(4)), "is no name of parameters"),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_table_that_is_not_planned_is_refused_and_trained_again(forge, case):
    kind, change, words = TABLES[case]
    forge.table(kind, change)
    with pytest.raises(StudyError, match=words) as caught:
        read_all(forge.folder.path)
    assert str(caught.value).startswith(f"{forge.folder.part(kind, 0)}: ")
    restarted(forge, words)
    # `dqx compare` takes scores from the records, and reads no table where every run has one.
    refused(words, forge.folder.path, *(("report",) if case == "fewer rows" else ()))


@pytest.mark.parametrize(("kind", "case"), [(kind, case) for kind in BYTES for case in BYTES[kind]])
def test_what_is_no_data_file_is_refused_and_trained_again(forge, kind, case):
    content, words = BYTES[kind][case]
    forge.part(kind, lambda _: content)
    with pytest.raises(StudyError, match=words) as caught:
        read_all(forge.folder.path)
    assert str(caught.value).startswith(f"{forge.folder.part(kind, 0)}: ")
    restarted(forge, words)


@pytest.mark.parametrize("case", ARRAYS)
def test_parameters_of_other_runs_are_refused_and_trained_again(forge, case):
    change, words = ARRAYS[case]
    forge.arrays(change)
    with pytest.raises(StudyError, match=words):
        read_all(forge.folder.path)
    restarted(forge, words)


@pytest.mark.parametrize("codec", ["zstd", "gzip"])
def test_a_table_packed_otherwise_is_refused(forge, codec):
    forge.table("metrics", lambda table: table, compression=codec)
    with pytest.raises(StudyError, match="a column is packed otherwise"):
        read_all(forge.folder.path)


def test_a_codec_that_there_is_not_ends_no_process(forge):
    """Asked for its name, pyarrow would."""

    def changed(content):
        head = b"\x19\x18\x04step\x15"
        place = content.rindex(head) + len(head)
        assert content[place] == 2  # Snappy
        return content[:place] + b"\x72" + content[place + 1 :]

    forge.part("metrics", changed)
    with pytest.raises(StudyError, match="a column is packed otherwise than by Snappy"):
        read_all(forge.folder.path)


def test_names_that_are_long_or_odd_tell_their_codec(forge):
    names = ["x" * 127, "y" * 128, "z" * 300, "a.b+(c)", "\u00e9", "step step"]

    def changed(table):
        for name in names:
            table = table.append_column(name, table.column("loss"))
        return table

    forge.table("metrics", changed)
    assert set(names) < set(load(forge.folder.path).metrics)
    forge.table("metrics", lambda table: table, compression={name: "zstd" for name in names[:1]})
    with pytest.raises(StudyError, match="a column is packed otherwise than by Snappy"):
        read_all(forge.folder.path)


def test_what_stands_beside_the_results_is_left_out_where_it_is_malformed(forge):
    path, folder = forge.folder.path, forge.folder
    for content in ('{"steps": 1, "total_steps": 0}', "[1]", "null", "{", "[" * 10**5,
                    '{"steps": 1, "total_steps": 9, "time": 1e999, "seconds_left": 1,'
                    '"steps_per_second": 1}'):  # fmt: skip
        folder.progress.write_text(content)
        assert finish.read_progress(folder) == {}
    forge.json(folder.manifest, put("steps_per_second", value="9"))
    refused(r"manifest\.json: steps_per_second must be a number from 0 on", path, "status")
    assert not finish.has_manifest(folder)  # so that resuming writes it anew
    folder.manifest.unlink()
    for content in ({}, {"checks": {}}, {"verdict": 3}, {"plan_seal": load(path).plan["sha256"]}):
        folder.certificate.write_text("{}")
        forge.json(folder.certificate, lambda _, given=content: given)
        status, out, _ = call("study", "status", path)
        assert status == 0
        assert any("must be" in line for line in out if line.startswith("certificate:"))


def test_parameters_of_another_network_are_not_played(forge):
    """Whether they fit is known only where the network is made."""
    with pytest.raises(ConfigError, match=r"are not those of agent dqn on CartPole-v1: .* is ano"):
        load(forge.folder.path).agent("a", 0)  # the made-up ones
    status, _, said = call("play", "--gif", forge.folder.path.parent / "film.gif", "--config", "a",
                           "--quiet", forge.folder.path)  # fmt: skip
    assert status == 2 and "are not those of agent dqn on CartPole-v1" in said[-1]


def test_an_array_of_all_runs_is_made_where_there_is_room(forge, monkeypatch):
    found = load(forge.folder.path)
    monkeypatch.setattr(contents, "_SMALL", 0)
    monkeypatch.setattr(limits, "free_memory", lambda: limits.Limit(159, "a limit"))
    with pytest.raises(StudyError, match=r"takes 0.0 GiB to read, and a limit leaves 0.0 GiB"):
        found.to_arrays("loss")  # 2 x 5 x 4 numbers
    monkeypatch.setattr(limits, "free_memory", lambda: limits.Limit(10**6, "a limit"))
    assert found.to_arrays("loss").nbytes == 160


def test_names_of_trackers_runs_are_taken_from_a_file_of_their_form_alone(tmp_path):
    (tmp_path / "wandb").mkdir()
    path = tmp_path / "wandb" / "dqx-runs.json"
    assert _known(path) == {}
    for content in ("{", "[]", '{"a": 3}', '{"a": "../../x"}', "[" * 10**5, '{"a": null}'):
        path.write_text(content)
        assert _known(path) == {}
    path.write_text('{"seed 1": "0123456789ab"}')
    assert _known(path) == {"seed 1": "0123456789ab"}
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StudyError, match=r"dqx-runs.json is a symbolic link, where a study has"):
        _known(path)


# --- Files that would unpack to more than there is: read in a process that has 256 MiB more.

BOMBS = """
import re, resource, sys, time
import numpy, pandas, pyarrow.parquet, pyarrow.compute, psutil
from dqx.report import cases
from dqx.study import StudyError, contents, load
from tests.study.forge import read_all

contents.check_room = lambda path, needed: None  # what the plan says has to do
used = psutil.Process().memory_info().vms
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
for path, words in zip(sys.argv[1::2], sys.argv[2::2]):
    started = time.process_time()
    try:
        read_all(path)
    except StudyError as error:
        assert re.search(words, str(error)), error
    else:
        raise AssertionError(path)
    assert time.process_time() - started < 2, path
try:  # the limit is one
    numpy.ones(2**28, numpy.uint8)
except MemoryError:
    print("refused")
"""


def alone(change):
    """A change of a folder in which nothing else tells of the plan."""

    def changed(forge):
        forge.folder.manifest.unlink()
        forge.folder.plan_copy.unlink(missing_ok=True)
        change(forge)

    return changed


def inflated():
    """Zeros for more than the process has, in an archive of a thousandth of that."""
    return archive({"a.npy": header((5 * 2**23,), "'<f8'") + bytes(5 * 2**26)}, DEFLATED)


def all_of_one_text(length):
    """A change of the labels to one long text, which Parquet holds once."""

    def changed(table):
        rows = np.zeros(len(table), np.int32)
        names = pyarrow.DictionaryArray.from_arrays(rows, ["x" * length])
        return table.set_column(0, "config", names)

    return changed


SHAPE = archive({"a.npy": header((10**12,))})
MANY = [
    ("its array 'a' is packed", lambda f: f.part("params", lambda _: inflated())),
    ("'a' has the shape", lambda f: f.part("params", lambda _: SHAPE)),
    (r"1,000,000 rows, and the plan has 16", lambda f: f.table("metrics", more(10**6))),
    (r"1,000,000 rows, and the plan has at m", lambda f: f.table("episodes", more(10**6))),
    ("that say they unpack to", lambda f: f.table("metrics", all_of_one_text(10**7))),
    ("a text of 900,000 letters", lambda f: f.table(
        "metrics", all_of_one_text(900_000), store_schema=False)),
    ("log_period 1 makes 2,147,483,647 rows",
     alone(lambda f: f.plan(config(total_steps=2**31 - 1, log_period=1)))),
    ("400,000,000 bytes, and at most", alone(lambda f: os.truncate(f.folder.plan, 4 * 10**8))),
    ("more than 4,000,000 values",
     alone(lambda f: f.folder.plan.write_text("[" + "[]," * 3_000_000 + "[]]"))),
    ("instead of", lambda f: os.truncate(f.folder.part("metrics", 0), 10**12)),
]  # fmt: skip


def test_what_would_unpack_to_gigabytes_is_refused_in_little_memory(made, tmp_path):
    arguments, long = [], tmp_path / "long"
    make_study(long, {"seeds": 4, "base": {"total_steps": 20_000, "log_period": 10}})
    for number, (words, change) in enumerate(MANY):
        path = shutil.copytree(long if "letters" in words else made, tmp_path / str(number))
        change(Forge(path))
        arguments += [str(path), words]
    done = subprocess.run(
        [sys.executable, "-c", BOMBS, *arguments],
        env={**os.environ, "PYTHONPATH": ROOT}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("refused\n", 0), done.stderr[-2000:]


# --- Changes at random.


def mutated(content, rng):
    """A copy of parsed JSON with one change at a random place."""
    content = json.loads(json.dumps(content))
    places = []

    def visit(parent):
        for name in parent if isinstance(parent, dict) else range(len(parent)):
            if name != "sha256":
                places.append((parent, name))
                if isinstance(parent[name], dict | list):
                    visit(parent[name])

    visit(content)
    parent, name = rng.choice(places)
    value = parent[name]
    ways = [lambda: parent.__delitem__(name)]
    others = [None, True, -1, 0, 10**400, 1e300, "x", "", [], {}, [[]], {"a": None}, [value],
              {"x": value}, math.pi, "9" * 50, 2**31, 2**63]  # fmt: skip
    ways += [lambda: parent.__setitem__(name, rng.choice(others))] * 4
    if isinstance(value, int | float) and not isinstance(value, bool):
        numbers = [-value, value * 10**6, value + 1, value / 3, str(value)]
        ways += [lambda: parent.__setitem__(name, rng.choice(numbers))] * 4
    rng.choice(ways)()
    return content


FILES = ["plan", "chunks/00000.json", "manifest.json"]


def check_mutations(made, tmp_path, seeds):
    """Only errors of ours, whatever is changed; and what reads well reads as finished or less."""
    wrong, told = [], 0
    for seed in seeds:
        rng = random.Random(seed)
        path = shutil.copytree(made, tmp_path / f"m{seed}")
        forge, name = Forge(path), rng.choice(FILES)

        def change(content, rng=rng):
            return mutated(content, rng)

        state = rng.getstate()
        if name == "plan":

            def change(content, state=state):
                rng = random.Random()
                rng.setstate(state)
                return mutated(content, rng)

            forge.folder.manifest.unlink()
            forge.plan(change)
        else:
            forge.json(path / name, change)
        try:
            read_all(path)
            found = load(path)
            assert len(found.runs) <= 10 and found.manifest
            record.plan_of(forge.folder, found.plan)
        except (StudyError, ConfigError) as error:
            told += 1
            assert "\n" not in str(error) and len(str(error)) < 1500
        except Exception as error:
            wrong.append((seed, name, repr(error)))
        try:
            status, _, _ = call("study", "status", path)
            assert status in (0, 2)
        except Exception as error:
            wrong.append((seed, name, "status", repr(error)))
        shutil.rmtree(path)
    assert wrong == [] and told > len(seeds) // 2


def test_changes_at_random_give_errors_of_ours(made, tmp_path):
    check_mutations(made, tmp_path, range(20))


@pytest.mark.long
def test_many_changes_at_random_give_errors_of_ours(made, tmp_path):
    check_mutations(made, tmp_path, range(100, 400))
