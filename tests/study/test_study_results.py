"""Reading a study back: tables, arrays, parameters, digests, and what damage says."""

import dataclasses
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pyarrow.dataset
import pytest

import dqx
from dqx.compute.digest import flatten
from dqx.study import StudyError, load
from tests.study.kit import BASE, METRICS, assert_digests_hold, make_study

ROOT = str(Path(dqx.__file__).resolve().parent.parent)
SEEDS = [7, 2, 5]
# Case "b" has another number of rows, and a field that a metric has the name of.
PLAN = {
    "seeds": SEEDS,
    "snapshot_every": 200,
    "case": [
        {"name": "b", "total_steps": 800, "log_period": 200, "hidden_sizes": [8, 4]},
        {"name": "a", "loss": "huber", "max_grad_norm": math.inf, "double": True},
        {"name": "c", "preset": "cartpole", "train_period": 10, "num_envs": 2, "double": False,
         "hidden_sizes": [3], "loss": "squared", "learning_rate": 1e-3, "max_grad_norm": 1.0},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("studies") / "mine", PLAN)


@pytest.fixture(scope="module")
def study(made):
    return load(made.folder.path)


@pytest.fixture
def copy(made, tmp_path):
    return Path(shutil.copytree(made.folder.path, tmp_path / "copy"))


def test_what_a_study_says_of_itself(study, made):
    assert study.configs == ("b", "a", "c") and study.seeds == tuple(SEEDS)
    assert study.path == made.folder.path and study.finished
    assert study.plan["name"] == "study" and study.manifest is study.plan
    assert [(run["config"], run["seed"]) for run in study.runs] == [
        (config, seed) for config in "bac" for seed in SEEDS
    ]
    # Each has a program of its own and fits in one chunk.
    assert [run["chunk"] for run in study.runs] == [0] * 3 + [1] * 3 + [2] * 3
    assert set(study.steps.tolist()) == {100, 200, 300, 400, 600, 800}
    assert study.steps.dtype == np.int64 and (np.diff(study.steps) > 0).all()


def test_metrics_are_in_order_and_hold_every_number(study, made):
    table = study.metrics
    keys = list(zip(table["config"], table["seed"], table["step"], strict=True))
    rows = {"b": [200, 400, 600, 800], "a": [100, 200, 300, 400], "c": [100, 200, 300, 400]}
    assert keys == [(c, s, k) for c in "bac" for s in SEEDS for k in rows[c]]
    for (config, seed), part in table.groupby(["config", "seed"], observed=True):
        for name in METRICS:
            np.testing.assert_array_equal(part[name], made.runs[config, seed]["metrics"][name])
    assert {table[name].dtype for name in METRICS} == {np.dtype(np.float32)}
    assert table["config"].cat.categories.tolist() == ["b", "a", "c"]
    assert table.index.tolist() == list(range(len(table)))


def test_varied_fields_are_columns_of_their_type(study):
    table = study.metrics
    named = [n for n in list(table) if n not in METRICS and n not in ("config", "seed", "step")]
    assert set(made_fields := study.plan["points"][0]["varied"]) == {
        n.removesuffix("_field") for n in named
    }
    assert {"preset", "hidden_sizes", "total_steps", "log_period", "double", "loss",
            "learning_rate", "max_grad_norm"} <= set(made_fields)  # fmt: skip
    assert list(table)[: len(named) + 3] == ["config", *named, "seed", "step"]
    first = table.drop_duplicates("config").set_index("config")
    assert first["hidden_sizes"].to_dict() == {"b": "8,4", "a": "120,84", "c": "3"}
    assert first["total_steps"].to_dict() == {"b": 800, "a": 400, "c": 400}
    assert first["double"].to_dict() == {"b": False, "a": True, "c": False}
    assert first["max_grad_norm"].to_dict() == {"b": math.inf, "a": math.inf, "c": 1.0}
    assert first["loss_field"].to_dict() == {"b": "squared", "a": "huber", "c": "squared"}
    assert first["preset"].isna().to_dict() == {"b": True, "a": True, "c": False}
    assert first["preset"]["c"] == "cartpole"
    kinds = {n: table[n].dtype for n in ("total_steps", "log_period", "double", "learning_rate")}
    assert kinds == {"total_steps": np.int64, "log_period": np.int64, "double": np.bool_,
                     "learning_rate": np.float64}  # fmt: skip
    assert table["loss"].dtype == np.float32
    assert {table[n].dtype.kind for n in ("seed", "step")} == {"i"}


def test_episodes_are_in_order_and_hold_every_number(study, made):
    table = study.episodes
    assert list(table)[-4:] == ["seed", "step", "return", "length"] and list(table)[0] == "config"
    keys = list(zip(table["config"], table["seed"], strict=True))
    assert keys == [(c, s) for c in "bac" for s in SEEDS for _ in range(3)]
    for (config, seed), part in table.groupby(["config", "seed"], observed=True):
        for name, values in zip(
            ("step", "return", "length"), made.runs[config, seed]["episodes"], strict=True
        ):
            np.testing.assert_array_equal(part[name], values)
    assert [str(table[n].dtype) for n in ("step", "return", "length")] == [
        "int64", "float32", "int64"
    ]  # fmt: skip


def test_arrays_over_configurations_with_other_steps(study, made):
    values = study.to_arrays("episode_return")
    assert values.shape == (3, 3, 6) and values.dtype == np.float32
    steps = study.steps.tolist()
    for i, config in enumerate(study.configs):
        here = [200, 400, 600, 800] if config == "b" else [100, 200, 300, 400]
        for j, seed in enumerate(study.seeds):
            rows = [steps.index(step) for step in here]
            np.testing.assert_array_equal(
                values[i, j, rows], made.runs[config, seed]["metrics"]["episode_return"]
            )
            assert np.isnan(np.delete(values[i, j], rows)).all()
    counts = study.to_arrays("episode_count")[1, 2, :4]
    np.testing.assert_array_equal(counts, made.runs["a", 5]["metrics"]["episode_count"])


def test_curves_of_one_run(study, made):
    curves = study.curves("b", 5)
    assert set(curves) == {"step", *METRICS} and curves["step"].tolist() == [200, 400, 600, 800]
    for name in METRICS:
        np.testing.assert_array_equal(curves[name], made.runs["b", 5]["metrics"][name])


@pytest.mark.parametrize("config", ["a", "b", "c"])
def test_parameters_and_their_snapshots(study, made, config):
    for seed in SEEDS:
        given = flatten(made.runs[config, seed]["params"])
        found = flatten(study.params(config, seed))
        assert set(found) == set(given) == {"params/Dense_0/kernel", "params/Dense_0/bias"}
        total = 800 if config == "b" else 400
        for name, values in given.items():
            assert found[name].dtype == np.float32
            np.testing.assert_array_equal(found[name], values)
            for step in range(200, total + 1, 200):
                taken = flatten(study.params(config, seed, step=step))[name]
                np.testing.assert_array_equal(taken, values * np.float32(step / total))


def test_one_configuration_need_not_be_named(tmp_path):
    made = make_study(tmp_path / "a", {"seeds": 2})
    kernel = load(tmp_path / "a").params(None, 1)["params"]["Dense_0"]["kernel"]
    given = made.runs["default", 1]["params"]["params"]["Dense_0"]["kernel"]
    np.testing.assert_array_equal(kernel, given)


def test_digests_are_those_of_the_files(study):
    found = study.digests
    assert list(found) == [(c, s) for c in "bac" for s in SEEDS]
    assert len(set(found.values())) == 9
    assert_digests_hold(study)


def test_other_programs_read_the_tables(study, made):
    for kind in ("metrics", "episodes"):
        given = getattr(study, kind)
        keys = ["config", "seed", "step"]
        for table in (
            pandas.read_parquet(made.folder.path / kind),
            pyarrow.dataset.dataset(made.folder.path / kind).to_table().to_pandas(),
        ):
            assert list(table) == list(given)
            expected = given.astype({"config": str}).sort_values(keys, ignore_index=True)
            found = table.astype({"config": str}).sort_values(keys, ignore_index=True)
            pandas.testing.assert_frame_equal(found, expected)
    one = pyarrow.dataset.dataset(made.folder.path / "metrics").to_table(
        filter=pyarrow.dataset.field("learning_rate") == 1e-3, columns=["config", "seed"]
    )
    assert set(one["config"].to_pylist()) == {"c"} and one.num_rows == 3 * 4


def test_unfinished_runs_are_told_apart(tmp_path):
    cases = [{"name": "a"}, {"name": "b", "total_steps": 800}]
    # Chunks 0 and 1 train "a" (4 and 2 seeds), 2 and 3 train "b".
    make_study(tmp_path / "s", {"seeds": 6, "case": cases}, leave_out={1, 2})
    study = load(tmp_path / "s")
    assert not study.finished and len(study.runs) == 6
    assert set(study.digests) == {*(("a", s) for s in range(4)), ("b", 4), ("b", 5)}
    finite = np.isfinite(study.to_arrays("epsilon")).any(axis=2)
    assert finite.tolist() == [[True] * 4 + [False] * 2, [False] * 4 + [True] * 2]
    assert len(study.metrics) == 4 * 4 + 2 * 8 and len(study.episodes) == 6 * 3
    with pytest.raises(StudyError, match="seed 4 of a is not finished"):
        study.params("a", 4)
    make_study(tmp_path / "none", {"seeds": 6}, leave_out={0, 1})
    study = load(tmp_path / "none")
    assert study.runs == [] and np.isnan(study.to_arrays("loss")).all()
    for kind in ("metrics", "episodes"):
        with pytest.raises(StudyError, match=r"no run of .*none is finished yet"):
            getattr(study, kind)


def test_mixed_chunks_are_sorted_by_configuration(tmp_path):
    """Runs of one program go seed by seed, so that a chunk mixes configurations."""
    grid = {"learning_rate": [1e-3, 1e-4, 1e-5]}
    made = make_study(tmp_path / "s", {"seeds": [9, 3, 6], "grid": grid})
    study = load(tmp_path / "s")
    assert sorted({run["chunk"] for run in study.runs}) == [0, 1, 2]
    keys = study.metrics[["config", "seed"]].drop_duplicates().to_numpy().tolist()
    assert keys == [[config, seed] for config in study.configs for seed in (9, 3, 6)]
    assert [c.split("=")[1] for c in study.configs] == ["0.001", "0.0001", "1e-05"]
    values = study.to_arrays("loss")
    for i, config in enumerate(study.configs):
        for j, seed in enumerate((9, 3, 6)):
            np.testing.assert_array_equal(values[i, j], made.runs[config, seed]["metrics"]["loss"])
            bias = study.params(config, seed)["params"]["Dense_0"]["bias"]
            given = made.runs[config, seed]["params"]["params"]["Dense_0"]["bias"]
            np.testing.assert_array_equal(bias, given)


def test_scores_and_divergence_are_recorded(tmp_path):
    def change(name, seed, run):
        if seed == 1:
            run["diverged_at"] = 300
            run["metrics"]["eval_return"][-1] = np.nan

    made = make_study(tmp_path / "a", {"seeds": 3}, change=change)
    study = load(tmp_path / "a")
    runs = study.runs
    assert [run["diverged_at"] for run in runs] == [-1, 300, -1]
    returns = [made.runs["default", s]["metrics"]["eval_return"][-1] for s in (0, 2)]
    assert [run["score"] for run in runs] == [returns[0], None, returns[1]]
    np.testing.assert_array_equal(study.scores(), [returns[0], np.nan, returns[1]])

    def late(name, seed, run):
        run["metrics"]["episode_return"][4 - seed :] = np.nan  # seed 4: nothing was finished

    made = make_study(tmp_path / "b", {"seeds": 5, "base": {"eval_period": 0}}, change=late)
    for run in load(tmp_path / "b").runs:
        values = made.runs["default", run["seed"]]["metrics"]["episode_return"]
        last = None if run["seed"] == 4 else float(values[3 - run["seed"]])
        assert run["score"] == last
    assert np.isfinite(load(tmp_path / "b").scores()).tolist() == [True] * 4 + [False]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: s.to_arrays("eval_retrun"), "no metric 'eval_retrun' in .*eval_return"),
        (lambda s: s.to_arrays("preset"), "no metric 'preset'"),
        (lambda s: s.to_arrays("step"), "no metric 'step'"),
        (lambda s: s.params("d", 7), "no configuration 'd' in .*there are: b; a; c"),
        (lambda s: s.params(None, 7), "no configuration None"),
        (lambda s: s.params("a", 3), "no seed 3 in"),
        (lambda s: s.params("a", 7, step=300), "no snapshot at step 300; there are: 200, 400$"),
        (lambda s: s.curves("a", 3), "no seed 3 in"),
    ],
)
def test_what_is_not_there_is_said(study, call, words):
    with pytest.raises(StudyError, match=words):
        call(study)


def test_without_snapshots_it_says_how_to_get_some(tmp_path):
    make_study(tmp_path / "a", {})
    with pytest.raises(StudyError, match=r"there are: none \(snapshot_every of the plan is 0\)"):
        load(tmp_path / "a").params(None, 0, step=100)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


READS = {
    "metrics/part-00001.parquet": [lambda s: s.metrics, lambda s: s.to_arrays("loss"),
                                   lambda s: s.curves("a", 2)],
    "episodes/part-00001.parquet": [lambda s: s.episodes],
    "params/part-00001.npz": [lambda s: s.params("a", 2)],
    "snapshots/part-00001-200.npz": [lambda s: s.params("a", 2, step=200)],
}  # fmt: skip


@pytest.mark.parametrize("name", READS)
def test_a_damaged_file_is_named_with_its_remedy(copy, name):
    study = load(copy)
    damages = [(flip, "checksum differs"), (lambda p: p.write_bytes(b""), "0 bytes instead of"),
               (Path.unlink, "No such file")]  # fmt: skip
    for damage, words in damages:
        damage(copy / name)
        for read in READS[name]:
            with pytest.raises(StudyError) as caught:
                read(load(copy))
            text = str(caught.value)
            assert text.startswith(f"{copy / name}: ") and words in text
            assert text.endswith(f". `dqx study resume {copy}` trains its runs again")
    # What is not asked for is not read, and other chunks stay readable.
    assert len(study.runs) == 9 and study.params("b", 2)


def test_a_damaged_record_is_named_with_its_remedy(copy):
    flip(copy / "chunks" / "00001.json")
    with pytest.raises(StudyError, match=r"chunks/00001\.json: .*dqx study resume"):
        load(copy)
    (copy / "chunks" / "00001.json").unlink()
    assert len(load(copy).runs) == 6  # not finished, then
    flip(copy / "plan.json")
    with pytest.raises(StudyError, match=r"plan\.json: it"):
        load(copy)
    (copy / "plan.json").unlink()
    with pytest.raises(StudyError, match="holds no study"):
        load(copy)


@pytest.mark.parametrize("name", ["0x.json", "00003.json", "99999.json", ".00001.json.tmp", "a"])
def test_files_of_others_among_the_records_are_not_read(copy, name, study):
    (copy / "chunks" / name).write_text("{}")
    assert load(copy).digests == study.digests


IMPORTS = """
import sys
import dqx.study
study = dqx.study.load(sys.argv[1])
study.metrics, study.episodes, study.to_arrays("eval_return"), study.params("a", 2), study.digests
print(sorted({"jax", "jaxlib", "flax", "matplotlib", "scipy"} & set(sys.modules)))
"""


def run_python(code, *arguments):
    """Standard output, and the seconds of processor time that it took."""
    env = {**os.environ, "PYTHONPATH": ROOT}
    before = os.times()
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    after = os.times()
    assert done.returncode == 0, done.stderr
    seconds = sum(after[2:4]) - sum(before[2:4])
    return done.stdout, seconds


def test_loading_imports_no_jax(made):
    assert run_python(IMPORTS, made.folder.path)[0] == "[]\n"


MANY = """
import sys, time
import dqx.study
study = dqx.study.load(sys.argv[1])
frame = study.metrics
values = study.to_arrays("eval_return")
seconds = time.process_time()  # since the process started, so that imports count
import numpy
assert len(frame) == 200_000 and values.shape == (1, 2000, 100), (len(frame), values.shape)
assert numpy.isfinite(values[0, :, 1::2]).all() and numpy.isnan(values[0, :, ::2]).all()
print(seconds)
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """2,000 seeds of 100 rows in 500 chunks."""
    sync, os.fsync = os.fsync, lambda descriptor: None  # 2,000 files; no power cut is expected
    try:
        folder = tmp_path_factory.mktemp("many") / "s"
        base = {**BASE, "total_steps": 10_000}
        make_study(folder, {"seeds": 2000, "base": base})
    finally:
        os.fsync = sync
    return folder


def test_2000_seeds_of_100_rows_load_in_2_seconds(many):
    # The best of three, because other processes may slow this one.
    seconds = [float(run_python(MANY, many)[0]) for _ in range(3)]
    assert min(seconds) < 2, seconds


def test_one_run_of_many_needs_its_chunk_only(many):
    shutil.rmtree(many / "episodes")
    study = load(many)
    assert study.params(None, 1999) and len(study.curves(None, 1234)["step"]) == 100


def test_fields_of_the_plan_are_those_trained(made, study):
    for point, record in zip(made.plan.points, study.plan["points"], strict=True):
        assert record["config"]["loss"] == point.config.loss
        assert tuple(record["config"]["hidden_sizes"]) == point.config.hidden_sizes
        assert record["hyper"]["max_grad_norm"] in ("inf", point.hyper.max_grad_norm)
        assert set(record["config"]) == {f.name for f in dataclasses.fields(point.config)} - {
            "extra",
            "env_options",
            "env_inputs",
        }
