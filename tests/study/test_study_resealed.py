"""`verify` of studies in which exactly one thing was forged and everything was sealed anew."""

import re
import shutil

import numpy as np
import pyarrow
import pytest

from dqx.study import load, merge
from dqx.study.folder import Folder, read_plan_record
from dqx.study.record import plan_of
from dqx.study.schedule import groups
from dqx.study.sealed import read_sealed, seal, write_sealed
from dqx.study.store import FolderStore
from tests.shared import TINY
from tests.study import reseal
from tests.study.kit import call, fields, run

pytestmark = pytest.mark.long  # test_study_certify.py has one of each sort

PLAN = {
    "name": "tiny",
    "seeds": [4, 0, 9],
    "root_seed": 5,
    "snapshot_every": 264,
    "base": {
        **fields(TINY),
        "epsilon_steps": 400,
        "env.gravity": {"uniform": [8, 12]},
    },
    "grid": {"learning_rate": [1e-2, 1e-3]},
}
FAST, SLOW = "learning_rate=0.01", "learning_rate=0.001"
RUN = (FAST, 0)  # of chunk 0, where it is the third


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A study of six runs in two chunks with snapshots and a drawn gravity, trained once."""
    path = tmp_path_factory.mktemp("studies") / "tiny"
    assert run(PLAN, path, devices=None).finished
    status, out, _ = call("verify", path, "--all", "--quiet")
    assert status == 0 and out[0].startswith("verdict: identical (6 of 6 runs")
    Folder(path).certificate.unlink()
    return path


@pytest.fixture
def folder(original, tmp_path):
    return Folder(shutil.copytree(original, tmp_path / "copy"))


def of_run(change):
    """``change(table, rows)`` as a change of a table: of the rows of `RUN`."""
    return lambda table: change(table, reseal.rows_of(table, *RUN))


def later(table, rows):
    """An episode that ends a round of two environments later, in the same interval."""
    steps = table["step"].to_numpy()
    within = [i for i in rows[:-1] if steps[i] % TINY.log_period and steps[i + 1] > steps[i] + 2]
    return reseal.with_value(table, "step", within[0], steps[within[0]] + 2)


def text_column(table, name, rows, value):
    values = table[name].to_pylist()
    for row in rows:
        values[row] = value
    column = pyarrow.array(values, table.schema.field(name).type)
    return table.set_column(table.column_names.index(name), name, column)


def dropped(table, rows):
    return table.take([i for i in range(table.num_rows) if i != rows[1]])


def halve(arrays):
    arrays["params/Dense_0/kernel"][2] /= 2


def relabel(folder):
    """Seeds 4 and 0 change their names in every record, table and file of arrays."""
    other = {4: 0, 0: 4}

    def arrays_of(arrays):
        arrays["seed"] = np.array([other.get(s, s) for s in arrays["seed"].tolist()])
        order = np.argsort([PLAN["seeds"].index(s) for s in arrays["seed"]], kind="stable")
        for name in arrays:
            arrays[name] = arrays[name][order]

    def table_of(table):
        seeds = [other.get(s, s) for s in table["seed"].to_pylist()]
        table = table.set_column(table.column_names.index("seed"), "seed", pyarrow.array(seeds))
        order = np.argsort([PLAN["seeds"].index(s) for s in seeds], kind="stable")
        return table.take(order)

    def record_of(record):
        gravity = {(r["config"], r["seed"]): r["env.gravity"] for r in record["runs"]}
        for one in record["runs"]:
            one["seed"] = other.get(one["seed"], one["seed"])
            one["env.gravity"] = gravity[one["config"], one["seed"]]
        record["runs"].sort(key=lambda r: PLAN["seeds"].index(r["seed"]))

    for kind in ("metrics", "episodes"):
        reseal.change_table(folder, kind, 0, table_of)
    reseal.change_arrays(folder, 0, arrays_of)
    for step in (264, 528):
        reseal.change_arrays(folder, 0, arrays_of, step)
    reseal.change_record(folder, 0, record_of)
    gravity = {r["seed"]: r["env.gravity"] for r in load(folder.path).runs}

    def drawn(table):
        column = pyarrow.array([gravity[s] for s in table["seed"].to_pylist()])
        name = "env.gravity"
        return table.set_column(table.column_names.index(name), name, column)

    for kind in ("metrics", "episodes"):
        reseal.change_table(folder, kind, 0, drawn)
    reseal.derive(folder)


def table(kind, change, derive=False):
    def forged(folder):
        reseal.change_table(folder, kind, 0, of_run(change))
        if derive:
            reseal.derive(folder)

    return forged


def arrays(change, step=None, derive=True):
    def forged(folder):
        reseal.change_arrays(folder, 0, change, step)
        if derive:
            reseal.derive(folder)

    return forged


def record(change):
    return lambda folder: reseal.change_record(folder, 0, change)


def of_runs(change):
    """``change(runs)`` of the record of chunk 0."""
    return record(lambda content: change(content["runs"]))


def plan(change):
    return lambda folder: reseal.change_plan(folder, change)


def rate(content):
    point = content["points"][0]
    point["hyper"]["learning_rate"] = point["varied"]["learning_rate"] = 0.02


def rate_everywhere(folder):
    reseal.change_plan(folder, rate)
    for kind in ("metrics", "episodes"):
        for chunk in range(2):

            def change(table):
                rows = [i for i, name in enumerate(table["config"].to_pylist()) if name == FAST]
                return reseal.with_value(table, "learning_rate", rows, 0.02)

            reseal.change_table(folder, kind, chunk, change)
    reseal.derive(folder)


def copied(kind, name):
    return lambda folder: shutil.copy(folder.part(kind, 0), folder.path / kind / name)


def lost(folder):
    """A chunk without a record, in a study that its manifest calls finished."""
    folder.record(1).unlink()


def other_copy(folder):
    content = {k: v for k, v in read_sealed(folder.plan_copy).items() if k != "sha256"}
    write_sealed(folder.plan_copy, {**content, "created": "earlier"})


def first_run(**fields):
    return of_runs(lambda runs: runs[2].update(fields))


OTHER_RUNS = r"00000.json: its runs are not those that the plan has in this chunk"
# What is forged, what verify has to say of it, and whether only training again can tell.
FORGED = {
    "a metric": (
        table("metrics", lambda t, r: reseal.with_value(t, "loss", r[3], 0.5), derive=True),
        rf"{RUN[0]}  +0 .*different: differs from step 352 on, in loss by",
        True,
    ),
    "a metric, but no digest": (
        table("metrics", lambda t, r: reseal.with_value(t, "loss", r[3], 0.5)),
        rf"00000.json: digest of seed 0 of {FAST} is \w+ there, \w+ by its files and the plan",
        False,
    ),
    "the order of episodes": (
        table("episodes", reseal.swapped, derive=True),
        r"different: the return of its episode \d+ is \d+, and \d+ now",
        True,
    ),
    "the step of an episode": (
        table("episodes", later, derive=True),
        r"different: the step of its episode \d+ is \d+, and \d+ now",
        True,
    ),
    "a return of an episode": (
        table("episodes", lambda t, r: reseal.with_value(t, "return", r[0], 99), derive=True),
        rf"episodes of seed 0 of {FAST} up to step 88 give episode_return \S+, its metrics say",
        False,
    ),
    "an episode left out": (
        table("episodes", dropped, derive=True),
        rf"the episodes of seed 0 of {FAST} up to step \d+ give episode_count",
        False,
    ),
    "a parameter": (
        arrays(halve),
        r"different: equal metrics, but the final params/Dense_0/kernel differs by up to",
        True,
    ),
    "a snapshot": (
        arrays(halve, 264),
        r"different: in its snapshot at step 264 params/Dense_0/kernel differs by up to",
        True,
    ),
    "no snapshot": (
        record(lambda content: content["snapshots"].pop("264")),
        r"00000.json: its snapshots are of steps \[528\], not \[264, 528\]",
        False,
    ),
    "the digest": (first_run(digest="0" * 64), r"digest of seed 0 .* is 0{64} there, ", False),
    "the score": (first_run(score=500.0), r"score of seed 0 .* is 500.0 there, \S+ by its", False),
    "no score": (first_run(score=None), r"score of seed 0 .* is None there, \S+ by its", False),
    "the divergence": (
        first_run(diverged_at=176),
        r"different: diverged_at is 176 in the record, and -1 now",
        True,
    ),
    "a divergence after the end": (
        first_run(diverged_at=10_000),
        r"00000.json: a run diverged after its last step",
        False,
    ),
    "the drawn number": (
        first_run(**{"env.gravity": 9.5}),
        r"env.gravity of seed 0 .* is 9.5 there, \S+ by its files and the plan",
        False,
    ),
    "another number": (first_run(final_return=1.0), r"final_return of seed 0 .* nothing", False),
    "the seed column of metrics": (
        table("metrics", lambda t, r: reseal.with_value(t, "seed", r, 1)),
        r"metrics/part-00000.parquet: its rows are not those of the chunk's runs and steps",
        False,
    ),
    "the seed column of episodes": (
        table("episodes", lambda t, r: reseal.with_value(t, "seed", r, 1)),
        r"episodes/part-00000.parquet: it has episodes that are none of the chunk's runs",
        False,
    ),
    "the seeds of parameters": (
        arrays(lambda a: a["seed"].__setitem__(2, 7), derive=False),
        r"params/part-00000.npz: its arrays are not those of the chunk's runs",
        False,
    ),
    "the seeds of a snapshot": (
        arrays(lambda a: a["seed"].__setitem__(2, 7), 528, derive=False),
        r"snapshots/part-00000-528.npz: its arrays are not those of the chunk's runs",
        False,
    ),
    "the column of configurations": (
        table("metrics", lambda t, r: text_column(t, "config", r, SLOW)),
        r"metrics/part-00000.parquet: its rows are not those of the chunk's runs and steps",
        False,
    ),
    "a varied column": (
        table("metrics", lambda t, r: reseal.with_value(t, "learning_rate", r[:1], 0.5)),
        r"metrics/part-00000.parquet: its column learning_rate has 0.5 in row 12, not 0.01",
        False,
    ),
    "a drawn column": (
        table("episodes", lambda t, r: reseal.with_value(t, "env.gravity", r[:1], 9.5)),
        r"episodes/part-00000.parquet: its column env.gravity has 9.5 in row \d+, not",
        False,
    ),
    "the seeds, everywhere": (relabel, r"different: differs from step 88 on", True),
    "a point's number": (
        plan(rate),
        r"its column learning_rate has 0.01 in row 0, not 0.02",
        False,
    ),
    "a point's number, everywhere": (rate_everywhere, r"different: differs from step 264 on", True),
    "a point's varied number": (
        plan(lambda content: content["points"][1]["varied"].update(learning_rate=0.5)),
        rf"plan.json: varied of {SLOW} is not what its settings say",
        False,
    ),
    "another seed planned": (
        plan(lambda content: content.update(seeds=[4, 1, 9])),
        OTHER_RUNS,
        False,
    ),
    "no runs": (of_runs(list.clear), r"00000.json: runs must be a list of 1 to", False),
    "a run left out": (of_runs(list.pop), OTHER_RUNS, False),
    "a run doubled": (
        of_runs(lambda runs: runs.append(dict(runs[0]))),
        OTHER_RUNS,
        False,
    ),
    "a run of another seed": (first_run(seed=8), OTHER_RUNS, False),
    "runs in another order": (of_runs(list.reverse), OTHER_RUNS, False),
    "no record": (
        lost,
        rf"seed 9 of {FAST}, seed 9 of {SLOW}: not there, though manifest.json says",
        False,
    ),
    "a record of another plan": (
        record(lambda content: content.update(plan_seal=seal({}))),
        r"00000.json: it belongs to another study",
        False,
    ),
    "a file of metrics more": (
        copied("metrics", "part-00007.parquet"),
        r"metrics/part-00007.parquet: no record names such a file",
        False,
    ),
    "a folder of metrics more": (
        lambda folder: shutil.copytree(folder.path / "metrics", folder.path / "metrics" / "more"),
        r"metrics/more: no record names such a file",
        False,
    ),
    "a bundle more": (
        copied("episodes", "bundle-00007.parquet"),
        r"episodes/bundle-00007.parquet: no record names such a file",
        False,
    ),
    "a snapshot more": (
        lambda folder: shutil.copy(folder.snapshot(0, 264), folder.snapshot(0, 88)),
        r"snapshots/part-00000-88.npz: no record names such a file",
        False,
    ),
    "the plan's copy": (other_copy, r"plan-copy.json: it is of another plan", False),
    "the manifest's runs": (
        lambda f: reseal.change_manifest(f, lambda m: m["runs"][2].update(score=500.0)),
        r"manifest.json: its runs is not that of the other files",
        False,
    ),
    "the manifest's digest": (
        lambda f: reseal.change_manifest(f, lambda m: m.update(digest="0" * 64)),
        r"manifest.json: its digest is not that of the other files",
        False,
    ),
}


@pytest.mark.parametrize("forged", FORGED)
def test_what_was_forged_is_named(forged, folder):
    change, words, needs_training = FORGED[forged]
    change(folder)
    status, out, err = call("verify", folder.path, "--all")
    assert status == 1 and re.search(words, "\n".join(out)), out
    assert any(line.startswith("verdict: different (") for line in out)
    assert read_sealed(folder.certificate)["verdict"] == "different"
    # What only training again can tell is no problem of the folder.
    of_folder = [line for line in out if line.startswith("differs: ")]
    assert bool(of_folder) != needs_training or "divergence" in forged, of_folder


def test_a_study_whose_chunks_are_merged_is_verified_alike(original, folder, monkeypatch):
    before = load(folder.path).digest()
    for name, value in {"MANY": 1, "LEAST": 2}.items():
        monkeypatch.setattr(merge, name, value)
    record = read_plan_record(folder)
    tasks = [task for group in groups(plan_of(folder, record)) for task in group.tasks]
    store = FolderStore(folder, record["sha256"])
    assert len(store.finished({task.number: task for task in tasks})) == 2
    store.complete()
    assert [path.name for path in (folder.path / "metrics").iterdir()] == ["bundle-00000.parquet"]
    status, out, _ = call("verify", folder.path, "--all", "--quiet", "--expect", before)
    assert status == 0 and out[0].startswith("verdict: identical (6 of 6 runs")
    shutil.copy(original / "metrics" / "part-00001.parquet", folder.path / "metrics")
    status, out, _ = call("verify", folder.path, "--sample", 1, "--quiet")
    assert status == 1
    assert out[0] == "differs: metrics/part-00001.parquet: no record names such a file"
