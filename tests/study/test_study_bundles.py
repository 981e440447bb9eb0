"""Bundles of chunks: read as the chunks themselves, damaged in part, killed at any moment."""

import random
import re
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas
import pyarrow.dataset
import pyarrow.parquet
import pytest

from dqx.report import terminal
from dqx.study import StudyError, StudyWarning, finish, held, load, merge
from dqx.study.audit import audit
from dqx.study.audit_runs import audit_chunk
from dqx.study.folder import Folder, ForeignRecord, read_plan_record
from dqx.study.held import Piece
from dqx.study.merge import Merger
from dqx.study.schedule import groups
from dqx.study.sealed import read_sealed, write_sealed
from dqx.study.store import FolderStore
from dqx.study.whole import by_chunk
from tests.study.death import Death
from tests.study.kit import (
    PLAN,
    ROWS,
    assert_digests_hold,
    assert_same_arrays,
    assert_whole,
    chunk_result,
    computed_steps,
    interrupted,
    make_study,
    resume,
    scaled,
    snapshot_steps,
)

GRID = {
    "seeds": 6,
    "snapshot_every": 200,
    "grid": {"learning_rate": [0.002, 0.001], "batch_size": [32, 64]},
}


USUAL = {name: getattr(merge, name) for name in ("MANY", "LEAST", "CHUNKS", "ROW_GROUP")}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Bundles of two chunks or more, a row group for each or two."""
    for name, value in {"MANY": 1, "LEAST": 2, "CHUNKS": 4, "ROW_GROUP": 3000}.items():
        monkeypatch.setattr(merge, name, value)


def lacks_loss(name, seed, run):
    """Configurations of one batch size have a metric less, as another agent would."""
    if "batch_size=64" in name:
        del run["metrics"]["loss"]


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """Four configurations of two compiled programs on six seeds: six chunks in their own files."""
    return make_study(tmp_path_factory.mktemp("made") / "s", GRID, change=lacks_loss)


def store_of(apart, path):
    """The store of a copy, its tasks, and what it finds finished and warns of."""
    folder = Folder(path)
    store = FolderStore(folder, read_plan_record(folder)["sha256"])
    tasks = {task.number: task for group in groups(apart.plan) for task in group.tasks}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        done = store.finished(tasks)
    assert {warning.category for warning in caught} <= {StudyWarning}
    return store, tasks, done, [str(warning.message) for warning in caught]


def merged(apart, path):
    """A copy of the study with its chunks merged."""
    shutil.copytree(apart.folder.path, path)
    store, _, done, texts = store_of(apart, path)
    assert len(done) == 6 and texts == []
    store.complete()
    return load(path)


def train_again(apart, path):
    """Finishes the chunks that are missing, as training does; what was warned of."""
    store, tasks, done, texts = store_of(apart, path)
    for task in (task for number, task in tasks.items() if number not in done):
        runs = [apart.runs[p.name, s] for p, s in zip(task.points, task.seeds, strict=True)]
        result = chunk_result(task, runs)
        for step in snapshot_steps(task.config, apart.plan.snapshot_every):
            store.snapshot(task, step, scaled(result.params, step / 400))
        store.finish(task, result, machine="another")
    store.complete()
    return sorted(set(tasks) - set(done)), texts


def names(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())


BUNDLES = sorted(
    name.format(number)
    for number in ("00000", "00001")
    for name in ("chunks/bundle-{}.json", "chunks/bundle-{}-copy.json", "metrics/bundle-{}.parquet",
                 "episodes/bundle-{}.parquet", "params/bundle-{}.zip", "snapshots/bundle-{}.zip")
)  # fmt: skip


def assert_equal(one, two):
    """Everything that can be read of two studies."""
    assert one.runs == two.runs and one.finished and two.finished
    for kind in ("metrics", "episodes"):
        pandas.testing.assert_frame_equal(getattr(one, kind), getattr(two, kind))
    for metric in ("loss", "eval_return"):
        np.testing.assert_array_equal(one.to_arrays(metric), two.to_arrays(metric))
    for config in one.configs:
        np.testing.assert_array_equal(one.scores(config), two.scores(config))
        for seed in (0, 5):
            assert_same_arrays(one.curves(config, seed), two.curves(config, seed))
            for step in (None, 200):
                ours, theirs = (s.params(config, seed, step)["params"] for s in (one, two))
                assert_same_arrays(ours["Dense_0"], theirs["Dense_0"])


def test_what_an_audit_finds_names_a_file_that_is_there(apart, tmp_path):
    """Made-up episodes do not give the made-up metrics, and no score is that of the files."""
    study = merged(apart, tmp_path / "s")
    found = audit(study._folder, study.plan, apart.plan)
    assert found.missing == () and found.unsound == {}
    problems = list(found.problems)
    for task in (task for group in groups(apart.plan) for task in group.tasks):
        said = {run: {**known, "score": 1.5} for run, known in by_chunk(study)[task.number].items()}
        problems += audit_chunk(study, task, said)[0]
    named = {text.split(": ")[0] for text in problems}
    assert {re.sub("[0-9]+", "0", name) for name in named} == {
        "episodes/bundle-0.parquet, chunk 0 in it",
        "chunks/bundle-0.json, chunk 0 in it",
    }
    for name in named:
        path, chunk = re.fullmatch(r"(.+), chunk (\d+) in it", name).groups()
        number = int(Path(path).stem.split("-")[1])
        assert (study.path / path).is_file()
        assert int(chunk) in read_sealed(study._folder.bundle_record(number))["chunks"]
    shelf = study._shelf
    assert shelf.name("snapshots", 5, 200).endswith(".zip, part-00005-200.npz in it")
    alone = load(apart.folder.path)._shelf
    for kind, step in (("chunks", None), ("metrics", None), ("params", None), ("snapshots", 200)):
        assert (apart.folder.path / alone.name(kind, 5, step)).is_file()


@pytest.mark.parametrize("most", [1, 10**9])
def test_merging_reads_each_file_once_unless_too_much_would_wait(
    apart, tmp_path, most, monkeypatch
):
    shutil.copytree(apart.folder.path, tmp_path / "s")
    monkeypatch.setattr(merge, "BYTES", most)
    monkeypatch.setattr(merge, "LEAST", 5)
    store, *_ = store_of(apart, tmp_path / "s")
    read, real = [], held.read_checked
    monkeypatch.setattr(held, "read_checked", lambda *given: read.append(given[0]) or real(*given))
    store.complete()
    assert len(set(read)) == 30 and len(read) == (30 if most > 1 else 60)
    assert_equal(load(tmp_path / "s"), load(apart.folder.path))


def test_merged_and_unmerged_folders_read_equal(apart, tmp_path):
    study = merged(apart, tmp_path / "s")
    assert names(study.path) == sorted(["plan.json", *BUNDLES])
    assert_equal(study, load(apart.folder.path))
    assert_digests_hold(study)
    assert study.absent() == []
    assert study.digest() == load(apart.folder.path).digest()
    assert Folder(study.path).strangers(6) == [] and len(Folder(study.path).records()) == 2
    config = study.configs[2]
    part = study.frame("metrics", columns=["loss"], configs=[config])
    assert part.columns.tolist() == ["config", "seed", "step", "loss"]
    whole = study.metrics[study.metrics["config"] == config][part.columns].reset_index(drop=True)
    pandas.testing.assert_frame_equal(part, whole)
    with pytest.raises(StudyError, match="no column 'los' in metrics of .*; there are: config"):
        study.frame("metrics", columns=["los"])
    with pytest.raises(StudyError, match="no table 'params'; there are: metrics, episodes"):
        study.frame("params")
    with pytest.raises(StudyError, match="there is no configuration 'x'"):
        study.frame("metrics", configs=["x"])


def test_other_programs_read_the_tables_by_a_pattern(apart, tmp_path):
    """Merged or not: a row a run and step, in row groups that tell their configurations."""
    study = merged(apart, tmp_path / "s")
    for path in (study.path, apart.folder.path):
        files = sorted(map(str, path.glob("metrics/*.parquet")))
        tables = pyarrow.dataset.dataset(files, format="parquet")
        assert tables.count_rows() == len(study.metrics) == 24 * 4
        asked = pyarrow.dataset.field("config") == study.configs[0]
        rows = tables.to_table(["seed", "eval_return"], filter=asked).to_pandas()
        assert sorted(rows["seed"]) == sorted([*range(6)] * 4)
        np.testing.assert_array_equal(
            rows.sort_values("seed", kind="stable")["eval_return"],
            study.metrics[study.metrics["config"] == study.configs[0]]["eval_return"],
        )
    file = pyarrow.parquet.ParquetFile(study.path / "metrics/bundle-00000.parquet")
    columns = {file.metadata.row_group(0).column(i).path_in_schema: i for i in range(6)}
    assert file.metadata.num_row_groups > 1
    assert file.metadata.row_group(0).column(columns["config"]).statistics.has_min_max


def test_an_archive_holds_the_files_of_the_chunks(apart, tmp_path):
    path = merged(apart, tmp_path / "s").path
    for kind in ("params", "snapshots"):
        found = {}
        for bundle in sorted(path.glob(f"{kind}/*.zip")):
            with zipfile.ZipFile(bundle) as archive:
                assert archive.testzip() is None
                found |= {name: archive.read(name) for name in archive.namelist()}
        own = {p.name: p.read_bytes() for p in (apart.folder.path / kind).iterdir()}
        assert found == own


def test_summaries_of_very_many_runs_list_and_resample_less(apart, tmp_path, monkeypatch):
    path = merged(apart, tmp_path / "s").path
    finish.write_manifest(Folder(path), {"steps": 1})
    assert load(path).manifest["runs"] == load(path).runs
    before = terminal.summary(load(path))
    monkeypatch.setattr(finish, "LISTED", 23)
    monkeypatch.setattr(terminal, "MAX_RESAMPLED", 23)
    finish.write_manifest(Folder(path), {"steps": 1})
    assert "runs" not in load(path).manifest
    after = terminal.summary(load(path))
    assert [line.split()[:5] for line in after[:1]] == [line.split()[:5] for line in before[:1]]
    assert sum("see compare" in line for line in after) == 4
    assert load(path).diverged == []


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def in_table(kind, index):
    """Damages a row group, or the index that ends the file."""

    def damage(path, record):
        pieces = record[kind]["pieces"]
        sizes = [piece["bytes"] for piece in pieces]
        flip(
            path / kind / "bundle-00000.parquet", sum(sizes[: index + 1]) + (9 if index < 0 else -9)
        )
        return pieces[index]["chunks"] if index >= 0 else []

    return damage


def in_index(path, record):
    flip(path / "metrics/bundle-00000.parquet", -20)
    return []


def in_archive(kind):
    def damage(path, record):
        flip(path / kind / "bundle-00000.zip", record[kind][1]["offset"] + 300)
        return [record[kind][1]["chunk"]]

    return damage


def of_file(name, change, costs_all):
    def damage(path, record):
        change(path / name)
        return record["chunks"] if costs_all else []

    return damage


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\0")


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


TABLE, ARRAYS = "metrics/bundle-00000.parquet", "params/bundle-00000.zip"
RECORD, COPY = "chunks/bundle-00000.json", "chunks/bundle-00000-copy.json"
DAMAGES = {
    "a row group of metrics": (in_table("metrics", 1), f"{TABLE}: row group 1 in it "),
    "a row group of episodes": (in_table("episodes", 0), r"bundle-00000\.parquet: row group 0 in"),
    "an index": (in_index, f"{TABLE}: what holds its parts together was damaged"),
    "parameters": (in_archive("params"), rf"{ARRAYS}: part-0000\d\.npz in it is not"),
    "a snapshot": (in_archive("snapshots"), r"bundle-00000\.zip: part-0000\d-400\.npz in it is"),
    "no parameters": (of_file(ARRAYS, Path.unlink, True), f"{ARRAYS}: No such file"),
    "more": (of_file(TABLE, lengthen, False), f"{TABLE}: what holds its parts together"),
    "a record": (of_file(RECORD, halve, False), f"{RECORD}: it is no JSON"),
    "a copy": (of_file(COPY, halve, False), f"{COPY}: it is no JSON"),
    "no copy": (of_file(COPY, Path.unlink, False), f"{COPY}: No such file"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_costs_what_it_touches_and_is_named(apart, tmp_path, case):
    damage, words = DAMAGES[case]
    path = merged(apart, tmp_path / "s").path
    record = read_sealed(path / "chunks/bundle-00000.json")
    costs = damage(path, record)
    assert len(costs) in (0, 1, 2, len(record["chunks"]))
    study, intact = load(path), load(apart.folder.path)
    assert study.absent() == [f"{TABLE}"] * (case == "more") + [ARRAYS] * (case == "no parameters")
    # What was damaged is refused where it is read, and all else is read.
    for each in (each for each in study.runs if each["chunk"] not in costs):
        one = each["config"], each["seed"]
        assert_same_arrays(study.curves(*one), intact.curves(*one))
        study.params(*one), study.params(*one, 200)
    if costs:
        with pytest.raises(StudyError, match=f"{words}.*dqx study resume"):
            study.metrics, study.episodes, [study._arrays(c, s) for c in costs for s in (None, 400)]
    trained, texts = train_again(apart, path)
    assert trained == sorted(costs) and len(texts) == 1
    assert re.search(words, texts[0])
    assert ("trained again" in texts[0]) == bool(costs) and ("mended" in texts[0]) != bool(costs)
    assert_digests_hold(load(path))
    assert load(path).runs == intact.runs and store_of(apart, path)[3] == []
    assert {c for c, name in load(path).machines.items() if name == "another"} == set(costs)
    rows = pyarrow.dataset.dataset(sorted(map(str, path.glob("metrics/*.parquet")))).count_rows()
    assert rows == 24 * 4


def test_a_bundle_whose_record_is_lost_twice_is_trained_again(apart, tmp_path):
    path = merged(apart, tmp_path / "s").path
    for name in ("chunks/bundle-00000.json", "chunks/bundle-00000-copy.json"):
        halve(path / name)
    with pytest.raises(StudyError, match=r"bundle-00000\.json: it is no JSON.*dqx study resume"):
        load(path)
    trained, texts = train_again(apart, path)
    assert trained == [0, 1, 2] and len(texts) == 1 and "nor is its copy intact" in texts[0]
    assert_equal(load(path), load(apart.folder.path))
    assert not list(path.glob("*/bundle-00000*"))


def test_records_that_cannot_be_true_are_refused(apart, tmp_path):
    path = merged(apart, tmp_path / "s").path
    record = read_sealed(path / "chunks/bundle-00000.json")
    (path / "chunks/bundle-00000-copy.json").unlink()
    runs, table = record["runs"], record["metrics"]
    for wrong in [
        {"chunks": [*record["chunks"][:-1], 6]},
        {"chunks": record["chunks"][:1] * len(record["chunks"])},
        {"counts": record["counts"][:-1]},
        {"runs": {**runs, "score": runs["score"][1:]}},
        {"runs": {**runs, "config": [99] * len(runs["config"])}},
        {"metrics": {**table, "pieces": table["pieces"][1:]}},
        {"metrics": {**table, "end": {**table["end"], "bytes": 2**40}}},
        {"params": [{**member, "offset": -1} for member in record["params"]]},
        {"bundle": 1},
        {"configs": record["configs"][::-1]},
        {"snapshots": [{**member, "step": 7} for member in record["snapshots"]]},
        {"episodes": None},
    ]:
        write_sealed(path / "chunks/bundle-00000.json", {**record, **wrong})
        with pytest.raises(
            StudyError, match=r"it is no record of this bundle|dqx has not written it like this"
        ):
            load(path)
    write_sealed(path / "chunks/bundle-00000.json", {**record, "plan_seal": "0" * 64})
    with pytest.raises(ForeignRecord, match="belongs to another study, of plan 000000000000"):
        load(path)


# --- Killed while merging, and read meanwhile.


def test_a_kill_at_any_moment_of_a_merge_loses_and_doubles_nothing(tmp_path):
    apart = make_study(tmp_path / "apart", {"seeds": 8, "snapshot_every": 400})  # two chunks
    reference, moment = load(apart.folder.path), 0
    while True:
        path = tmp_path / f"{moment}"
        shutil.copytree(apart.folder.path, path)
        store, *_ = store_of(apart, path)
        with Death(moment, removals=True) as death:
            store.complete()
        if not death.dead:
            break
        assert load(path).runs == reference.runs  # at once, and what is read of it
        pandas.testing.assert_frame_equal(load(path).metrics, reference.metrics)
        store, _, done, texts = store_of(apart, path)
        assert len(done) == 2 and texts == []
        store.complete()
        assert len(names(path)) == 1 + 6
        assert len(pandas.read_parquet(path / "episodes")) == len(reference.episodes)
        assert_digests_hold(load(path))
        moment += 1
    assert moment == 6 * 3 + 2 * 5  # the files of a bundle, and those of the chunks in it


@pytest.mark.slow
@pytest.mark.long
def test_a_kill_while_a_damaged_bundle_is_written_anew(apart, tmp_path):
    whole, moment = merged(apart, tmp_path / "whole").path, 0
    while True:
        path = tmp_path / f"{moment}"
        shutil.copytree(whole, path)
        costs = in_table("metrics", 0)(path, read_sealed(path / "chunks/bundle-00000.json"))
        with Death(moment, removals=True) as death:
            store_of(apart, path)
        trained, texts = train_again(apart, path)
        assert trained == sorted(costs)
        assert load(path).runs == load(whole).runs
        assert len(pandas.read_parquet(path / "metrics")) == 24 * 4
        if not death.dead:
            break
        moment += 1
    assert moment == 6 * 3 + 6


def test_a_study_that_is_open_is_read_on_while_it_is_merged(apart, tmp_path):
    path = tmp_path / "s"
    shutil.copytree(apart.folder.path, path)
    early, reference = load(path), load(apart.folder.path)
    store_of(apart, path)[0].complete()
    assert not list(path.glob("*/part-*"))
    assert_equal(early, reference)


def test_a_chunk_that_was_damaged_is_not_merged(apart, tmp_path):
    path = tmp_path / "s"
    shutil.copytree(apart.folder.path, path)
    store, *_ = store_of(apart, path)
    flip(path / "params/part-00001.npz", 300)
    with pytest.warns(StudyWarning, match=r"part-00001\.npz: .*\. It is not merged with others"):
        store.complete()
    assert [p.name for p in path.glob("*/part-*")].count("part-00001.parquet") == 2
    assert len(list(path.glob("metrics/part-*"))) == 1  # the others are merged all the same
    assert load(path).runs == load(apart.folder.path).runs
    trained, texts = train_again(apart, path)
    assert trained == [1] and "params/part-00001.npz" in texts[0]


@pytest.mark.slow
@pytest.mark.long
def test_thousands_of_runs_are_few_files_through_kills_and_damage(tmp_path, monkeypatch):
    """As it is by default, killed here and there, with a byte damaged in any file each time."""
    for name, value in {**USUAL, "CHUNKS": 128}.items():
        monkeypatch.setattr(merge, name, value)
    rates = {"learning_rate": [0.001, 0.002, 0.003, 0.004]}
    apart = make_study(tmp_path / "apart", {"seeds": 500, "grid": rates})  # 500 chunks
    path, reference, dice = tmp_path / "s", load(apart.folder.path), random.Random(1)
    shutil.copytree(apart.folder.path, path)
    assert len(names(path)) > 2000
    for _ in range(6):
        with Death(dice.randrange(500), removals=True):
            store_of(apart, path)[0].complete()
        assert len(load(path).runs) == 2000
        victim = path / dice.choice([name for name in names(path) if "plan" not in name])
        flip(victim, dice.randrange(victim.stat().st_size))
        trained, texts = train_again(apart, path)
        assert len(trained) <= 128
    assert len(names(path)) < 40
    assert load(path).runs == reference.runs
    pandas.testing.assert_frame_equal(load(path).metrics, reference.metrics)
    assert load(path).digest() == reference.digest()


# --- When chunks are merged.


def test_each_chunk_of_a_row_group_is_weighed_once(monkeypatch):
    """A row group of small chunks has hundreds of them."""
    asked = []

    class Weighed:
        @property
        def nbytes(self):
            asked.append(self)
            return 10

    class Held:
        def pieces(self, kind, chunks):
            yield Piece(tuple(chunks), (1,), Weighed(), [])

    monkeypatch.setattr(merge, "ROW_GROUP", 1_000)
    order = [*range(5, 255)]
    groups = [*merge._row_groups("metrics", order, dict.fromkeys(order, Held()))]
    assert [len(group) for group in groups] == [100, 100, 50] and len(asked) == 250
    assert [chunk for group in groups for chunk in group] == order


class Sized(NamedTuple):
    """Stands in for a chunk in files of its own."""

    chunks: tuple[int, ...]
    size: int
    width: int = 4
    path = runs = machine = snapshots = None  # which are not looked at


class Count(NamedTuple):
    """Stands in for the chunks of a plan."""

    count: int


def bundles_of(monkeypatch, sizes, count=1000, rest=True):
    """Which chunks are merged when chunks of these sizes are finished one after the other."""
    made = []
    monkeypatch.setattr(merge, "_shape", lambda chunk: ())
    monkeypatch.setattr(
        Merger, "_bundle", lambda self, some: made.append([c.chunks[0] for c in some])
    )
    merger = Merger(Folder("nowhere"), "", Count(count), 0)
    for i, size in enumerate(sizes):
        merger.note(Sized((i,), *(size if isinstance(size, tuple) else (size,))))
        merger.step()
    if rest:
        merger.rest()
    return made


def test_chunks_are_merged_by_their_number_and_their_bytes(monkeypatch):
    for name, value in {"MANY": 10, "LEAST": 3, "CHUNKS": 5, "BYTES": 100, "LARGE": 40, "RUNS": 90,
             "WIDE": 60}.items():  # fmt: skip
        monkeypatch.setattr(merge, name, value)
    assert bundles_of(monkeypatch, [1] * 12) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]
    assert bundles_of(monkeypatch, [1] * 12, rest=False) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert bundles_of(monkeypatch, [30] * 8) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert bundles_of(monkeypatch, [40, 41] * 4) == [[0, 2, 4]]  # large ones stay
    assert bundles_of(monkeypatch, [(1, 50)] * 5) == [[0, 1], [2, 3]]  # by their runs
    assert bundles_of(monkeypatch, [(1, 61)] * 5) == []
    assert bundles_of(monkeypatch, [1] * 9, count=9) == []  # a plan of few chunks
    assert bundles_of(monkeypatch, [1] * 11) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]  # none alone


# --- Trained for real.


def test_a_study_that_merges_as_it_trains_has_the_same_bits(made, tmp_path, monkeypatch):
    monkeypatch.setattr(merge, "CHUNKS", 2)
    interrupted(PLAN, tmp_path / "s", 2 * ROWS + 2)
    assert list((tmp_path / "s").glob("chunks/bundle-00000.json"))  # in the midst of the third
    trained = load(made / "mine")
    assert_whole(resume(tmp_path / "s"), trained)
    with computed_steps() as steps:
        assert_whole(resume(tmp_path / "s"), trained)
    assert steps == []
