"""Changing a sealed study as somebody would who knows how it is sealed: all checksums hold."""

import copy

import numpy as np
import pyarrow.parquet

from dqx.compute.digest import digest, flatten
from dqx.compute.score import score
from dqx.study import load
from dqx.study.folder import read_plan_record, read_record
from dqx.study.results import Study
from dqx.study.sealed import marked_file, plain, read_sealed, seal, write_arrays, write_sealed
from tests.shared import TINY


def change_record(folder, chunk, change):
    """``change(record)`` of a chunk, sealed anew."""
    record = read_record(folder, read_plan_record(folder)["sha256"], chunk)
    change(record)
    write_sealed(folder.record(chunk), record)


def change_plan(folder, change):
    """``change(plan)``, sealed anew in both copies, in every record and in the manifest."""
    old = read_plan_record(folder)
    plan = {key: value for key, value in copy.deepcopy(old).items() if key != "sha256"}
    change(plan)
    mark = seal(plan)
    for path in (folder.plan, folder.plan_copy):
        write_sealed(path, plan)
    for path in folder.records():
        write_sealed(path, {**read_sealed(path), "plan_seal": mark})
    change_manifest(folder, lambda m: m.update({**plan, "plan_seal": mark}))


def change_manifest(folder, change):
    """``change(manifest)``, sealed anew."""
    manifest = read_sealed(folder.manifest)
    change(manifest)
    write_sealed(folder.manifest, manifest)


def place(folder, config, seed):
    """The chunk of a run, and its index there."""
    run = next(r for r in load(folder.path).runs if (r["config"], r["seed"]) == (config, seed))
    chunk = run["chunk"]
    runs = read_record(folder, read_plan_record(folder)["sha256"], chunk)["runs"]
    return chunk, [(r["config"], r["seed"]) for r in runs].index((config, seed))


def change_arrays(folder, chunk, change, step=None):
    """``change(arrays)`` of the final parameters of a chunk, or of those at a step."""
    path = folder.part("params", chunk) if step is None else folder.snapshot(chunk, step)
    with np.load(path) as file:
        arrays = {name: file[name].copy() for name in file.files}
    change(arrays)
    mark = write_arrays(path, arrays)._asdict()
    where, key = ("files", "params") if step is None else ("snapshots", str(step))
    change_record(folder, chunk, lambda record: record[where].update({key: mark}))


def change_table(folder, kind, chunk, change):
    """``change(table)`` gives the table of a chunk that takes the place of the old one."""
    path = folder.part(kind, chunk)
    table = change(pyarrow.parquet.read_table(path))
    with marked_file(path) as file:
        pyarrow.parquet.write_table(table, file)
    mark = file.mark._asdict()
    change_record(folder, chunk, lambda record: record["files"].update({kind: mark}))


def change_params(folder, config, seed, change):
    """``change(arrays, index)`` of the parameters of a run's chunk."""
    chunk, index = place(folder, config, seed)
    change_arrays(folder, chunk, lambda arrays: change(arrays, index))


def change_metrics(folder, config, seed, change):
    """``change(table, rows)`` of the metrics of a run's chunk; the rows are the run's."""
    chunk, _ = place(folder, config, seed)
    change_table(folder, "metrics", chunk, lambda t: change(t, rows_of(t, config, seed)))


def rows_of(table, config, seed):
    """The rows of a table that are a run's."""
    configs = table["config"].to_numpy(zero_copy_only=False)
    return np.flatnonzero((configs == config) & (table["seed"].to_numpy() == seed))


def with_value(table, name, rows, value):
    """A table with another value in some rows of a column."""
    column = table[name].to_numpy().copy()
    column[rows] = value
    return table.set_column(table.column_names.index(name), name, pyarrow.array(column))


def derive(folder):
    """Digests and scores in all records, and the manifest, made to follow from the files."""
    study = Study(folder)
    for path in sorted((folder.path / "chunks").glob("[0-9]*.json")):
        record = read_sealed(path)
        for run in record["runs"]:
            curves = study.curves(run["config"], run["seed"])
            params = flatten(study.params(run["config"], run["seed"]))
            config, _ = study.point(run["config"])
            run["score"] = plain(float(score(config, {n: v for n, v in curves.items()})))
            run["digest"] = digest(curves.pop("step"), curves, params)
        write_sealed(path, record)
    if folder.manifest.exists():
        study = Study(folder)
        found = {"runs": study.runs, "digest": study.digest()}
        change_manifest(folder, lambda manifest: manifest.update(found))


def _two_ends(table, rows, log_period):
    """Two rows of episodes of one interval whose lengths differ."""
    steps = table["step"].to_numpy()[rows]
    lengths = table["length"].to_numpy()[rows]
    for i in range(len(rows) - 1):
        same = (steps[i] - 1) // log_period == (steps[i + 1] - 1) // log_period
        if same and lengths[i] != lengths[i + 1]:
            return rows[[i, i + 1]]
    raise AssertionError("no such episodes")


def swapped(table, rows, log_period=TINY.log_period):
    """Returns and lengths of two episodes, exchanged: every metric of the interval stays."""
    pair = _two_ends(table, rows, log_period)
    for name in ("return", "length"):
        values = table[name].to_numpy()[pair[::-1]]
        table = with_value(table, name, pair, values)
    return table
