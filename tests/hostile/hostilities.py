"""What may be put into a study's folder by accident or in bad faith; each takes the folder."""

import io
import json
import os
import random
import shutil
import socket
import stat
import zipfile

import numpy as np

from dqx.settings import MAX_SEEDS
from dqx.study.sealed import Mark, marked_file, read_sealed, write_sealed

# --- An entry of another kind in the place of one of the layout.

FILES = (
    "plan.json", "plan-copy.json", "manifest.json", "certificate.json", "progress.json", "lock",
    "learning_curves.png", "chunks/00000.json", "metrics/part-00000.parquet",
    "episodes/part-00000.parquet", "params/part-00000.npz", "snapshots/part-00000-176.npz",
    "checkpoints/00001.json", "checkpoints/00001-176.npz", "report/index.html",
    "chunks/.00000.json.0a1b2c3d.tmp", ".plan.json.0a1b2c3d.tmp",
)  # fmt: skip
FOLDERS = (
    "chunks", "metrics", "episodes", "params", "snapshots", "checkpoints", "report", "tensorboard",
)  # fmt: skip


def make_socket(path, _):
    with socket.socket(socket.AF_UNIX) as server:
        # Its name may have 107 bytes at most.
        here = os.getcwd()
        os.chdir(path.parent)
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


KINDS = {
    "a link to a file outside": lambda path, out: path.symlink_to(out / "precious"),
    "a link to a folder outside": lambda path, out: path.symlink_to(out),
    "a link to nothing outside": lambda path, out: path.symlink_to(out / "nothing"),
    "a link to /dev/zero": lambda path, _: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path, _: path.symlink_to(path.name),
    "a link to the study": lambda path, _: path.symlink_to(".."),
    "a hard link to a file outside": lambda path, out: os.link(out / "precious", path),
    "a named pipe": lambda path, _: os.mkfifo(path),
    "a socket": make_socket,
    "a device": lambda path, _: os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5)),
    "a folder": lambda path, _: path.mkdir(),
    "a file": lambda path, _: path.write_bytes(b"x"),
}


def put(kind, name):
    """An entry of a kind in the place of a name."""

    def arrange(study, outside):
        path = study / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True)
        KINDS[kind](path, outside)

    return arrange


def entries():
    """Every kind in every place, by name."""
    found = {}
    for name in FILES:
        found |= {f"{name} is {kind}": put(kind, name) for kind in KINDS if kind != "a file"}
    for name in FOLDERS:
        found |= {f"{name} is {kind}": put(kind, name) for kind in KINDS if kind != "a folder"}
    return found


def some_entries(number):
    """As many of them, with every kind, and every name, nearly as often as the others."""
    dice, found = random.Random(11), entries()
    groups = {}
    for name in found:
        groups.setdefault(name.split(" is ")[1], []).append(name)
    for names in groups.values():
        dice.shuffle(names)
    chosen, used = [], {}
    while len(chosen) < number:
        for names in groups.values():
            if names and len(chosen) < number:
                names.sort(key=lambda name: used.get(name.split(" is ")[0], 0), reverse=True)
                name = names.pop()
                used[name.split(" is ")[0]] = used.get(name.split(" is ")[0], 0) + 1
                chosen.append(name)
    return {name: found[name] for name in chosen}


# --- Further entries, by their names.


def named(folder, name, content=b"mine"):
    def arrange(study, _):
        path = os.path.join(os.fsencode(study / folder), name)
        with open(path, "wb") as file:
            file.write(content)

    return arrange


def copied(source, name):
    def arrange(study, _):
        (study / name).write_bytes((study / source).read_bytes())

    return arrange


def deep(study, _):
    """Folders in folders, as far as names go."""
    path = study / "metrics"
    for _ in range(30):
        path = path / ("x" * 100)
    os.makedirs(path, exist_ok=True)


def many(study, _):
    for number in range(20_000):
        (study / "snapshots" / f"note-{number}").touch()


NAMES = {
    "a name with a newline": named("metrics", b"part\n00000.parquet"),
    "a name with escapes": named("chunks", b"\x1b[2J\x1b[31m00000.json"),
    "a name that is no UTF-8": named("params", b"part-\xff\xfe.npz"),
    "a name that is no UTF-8 on top": named("", b"\xff\xfe"),
    "a very long name": named("episodes", b"x" * 255),
    "a very long number": named("chunks", b"9" * 240 + b".json", b"{}"),
    "a very long step": named("snapshots", b"part-00000-" + b"9" * 200 + b".npz"),
    "a name in capitals": copied("plan.json", "PLAN.JSON"),
    "a part in capitals": copied("metrics/part-00000.parquet", "metrics/PART-00000.PARQUET"),
    "other digits": copied("chunks/00000.json", "chunks/\u0660\u0660\u0660\u0660\u0661.json"),
    "a record twice": copied("chunks/00000.json", "chunks/000000.json"),
    "deep folders": deep,
    "twenty thousand files": many,
}


# --- Who may read or write it.


def mode(name, bits):
    def arrange(study, _):
        (study / name).chmod(bits)

    return arrange


MODES = {
    "an unreadable study": mode("", 0),
    "an unreadable plan": mode("plan.json", 0),
    "an unreadable record": mode("chunks/00000.json", 0),
    "unreadable records": mode("chunks", 0),
    "an unreadable part": mode("metrics/part-00000.parquet", 0),
    "unreadable parts": mode("params", 0),
    "unreadable checkpoints": mode("checkpoints", 0),
    "a study that cannot be written": mode("", 0o555),
    "checkpoints that cannot be written": mode("checkpoints", 0o555),
}

# --- Records that are sealed and still cannot be.


def record(name, change):
    """A record changed and sealed again, as whoever forges it would."""

    def arrange(study, _):
        (path,) = sorted(study.glob(name))[:1]
        content = read_sealed(path)
        del content["sha256"]
        change(content)
        write_sealed(path, content)
        if name == "plan.json":  # its records go with it, as if all had been forged
            shutil.copyfile(path, study / "plan-copy.json")
            seal = read_sealed(path)["sha256"]
            for other in [*study.glob("chunks/*.json"), *study.glob("checkpoints/*.json")]:
                content = read_sealed(other)
                del content["sha256"]
                write_sealed(other, {**content, "plan_seal": seal})

    return arrange


def _set(*path_and_value):
    *path, last, value = path_and_value

    def change(content):
        for key in path:
            content = content[key]
        if value is None and last in content:
            del content[last]
        else:
            content[last] = value

    return change


def _config(name, value):
    return _set("points", 0, "config", name, value)


UP = "../../outside/precious"
RECORD, PLAN, POINT = "chunks/00000.json", "plan.json", "checkpoints/00001.json"
RECORDS = {
    "a record without runs": record(RECORD, _set("runs", None)),
    "a record of no runs": record(RECORD, _set("runs", [])),
    "runs that are no list": record(RECORD, _set("runs", 3)),
    "a run of no configuration": record(RECORD, _set("runs", 0, "config", UP)),
    "a run of no seed": record(RECORD, _set("runs", 0, "seed", 10**30)),
    "a run without a seed": record(RECORD, _set("runs", 0, "seed", None)),
    "a run without a score": record(RECORD, _set("runs", 0, "score", None)),
    "a score in words": record(RECORD, _set("runs", 0, "score", "\x1b[2J")),
    "a digest that is a list": record(RECORD, _set("runs", 0, "digest", [[]])),
    "a record without files": record(RECORD, _set("files", None)),
    "files that lead out": record(RECORD, _set("files", "../../outside", {"bytes": 1})),
    "a mark without a size": record(RECORD, _set("files", "metrics", "bytes", None)),
    "a mark of odd size": record(RECORD, _set("files", "metrics", "bytes", "many")),
    "a mark with more": record(RECORD, _set("files", "metrics", "path", UP)),
    "snapshots that lead out": record(RECORD, _set("snapshots", {UP: {"bytes": 1, "sha256": "0"}})),
    "a snapshot of odd step": record(RECORD, _set("snapshots", {"-1e9": {}})),
    "a chunk in words": record(RECORD, _set("chunk", "zero")),
    "a checkpoint that leads out": record(POINT, _set("step", f"/../{UP}")),
    "a checkpoint without arrays": record(POINT, _set("arrays", None)),
    "a checkpoint at a huge step": record(POINT, _set("step", 10**40)),
    "a checkpoint's snapshots in words": record(POINT, _set("snapshots", "none")),
    "a plan whose name leads out": record(PLAN, _set("name", UP)),
    "a plan without a name": record(PLAN, _set("name", None)),
    "a plan whose name is a number": record(PLAN, _set("name", 7)),
    "a configuration that leads out": record(PLAN, _set("points", 0, "name", UP)),
    "a plan without points": record(PLAN, _set("points", None)),
    "a plan of no points": record(PLAN, _set("points", [])),
    "points that are numbers": record(PLAN, _set("points", [1, 2])),
    "a plan of too many seeds": record(PLAN, _set("seeds", list(range(MAX_SEEDS + 1)))),
    "seeds in words": record(PLAN, _set("seeds", ["a", "b"])),
    "no width": record(PLAN, _config("chunk_width", 0)),
    "a width in words": record(PLAN, _config("chunk_width", "wide")),
    "a huge number of steps": record(PLAN, _config("total_steps", 2**31 - 1)),
    "a row at every step": record(PLAN, _config("log_period", 0)),
    "a replay beyond memory": record(PLAN, _config("replay_capacity", 2**31 - 1)),
    "an environment that is a module": record(PLAN, _config("env", "os:system")),
    "an agent that is a path": record(PLAN, _config("agent", "../../agent")),
    "another format": record(PLAN, _set("format", "2; rm")),
    "no identity": record(PLAN, _set("identity", None)),
    "a negative root seed": record(PLAN, _set("root_seed", -1)),
    "snapshots at odd steps": record(PLAN, _set("snapshot_every", -5)),
}  # fmt: skip


def text(name, content):
    def arrange(study, _):
        (study / name).write_text(content)

    return arrange


def resealed(study, name, kind, content):
    """A data file of other content, with its mark in the record, which is sealed again."""
    path = study / name
    with marked_file(path) as file:
        file.write(content)
    record_path = study / RECORD
    found = read_sealed(record_path)
    found["files"][kind] = Mark(*file.mark)._asdict()
    del found["sha256"]
    write_sealed(record_path, found)


def bomb(study, _):
    """Parameters whose three megabytes are three gigabytes unpacked."""
    packed = io.BytesIO()
    head = {"descr": "|u1", "fortran_order": False, "shape": (3 * 2**30,)}
    with (
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a.npy", "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array_header_1_0(file, head)
        for _ in range(192):
            file.write(bytes(2**24))
    resealed(study, "params/part-00000.npz", "params", packed.getvalue())


def huge_shape(study, _):
    """Parameters that say they have 10**12 numbers."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive, archive.open("a.npy", "w") as file:
        head = {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
        np.lib.format.write_array_header_1_0(file, head)
    resealed(study, "params/part-00000.npz", "params", packed.getvalue())


def pickled(study, outside):
    """Parameters that are a pickle, which would run code when it is read."""
    array = np.array([_Touch(str(outside / "touched"))], object)
    packed = io.BytesIO()
    np.savez(packed, a=array)
    resealed(study, "params/part-00000.npz", "params", packed.getvalue())


class _Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def many_rows(study, _):
    """Metrics of fifty million rows that are all the same, which take no room."""
    import pyarrow
    import pyarrow.parquet

    count = 50_000_000
    values = pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.zeros(count, np.int8)), ["a"])
    packed = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"config": values}), packed)
    resealed(study, "metrics/part-00000.parquet", "metrics", packed.getvalue())


def no_table(study, _):
    resealed(study, "metrics/part-00000.parquet", "metrics", b"PAR1" + bytes(64) + b"PAR1")


def other_columns(study, _):
    import pyarrow
    import pyarrow.parquet

    packed = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"a": [1, 2]}), packed)
    resealed(study, "metrics/part-00000.parquet", "metrics", packed.getvalue())


CONTENTS = {
    "parameters that inflate": bomb,
    "parameters of a huge shape": huge_shape,
    "parameters that are a pickle": pickled,
    "metrics of fifty million rows": many_rows,
    "metrics that are no table": no_table,
    "metrics with other columns": other_columns,
    "a plan nested 100,000 deep": text("plan.json", "[" * 100_000),
    "progress nested 100,000 deep": text("progress.json", '{"a":' * 100_000),
    "progress of odd numbers": text(
        "progress.json",
        json.dumps({"steps_per_second": 1, "steps": "x", "total_steps": 0, "time": [], "done": 1}),
    ),
    "a number of 100,000 digits": text("manifest.json", '{"a": ' + "9" * 100_000 + "}"),
    "a record of 64 MiB": text("chunks/00000.json", "[" + "0," * 2**25 + "0]"),
}
