"""Diagnostics on their way through a study: rows, files, checks, trackers, pages, resumption."""

import shutil

import numpy as np
import pytest

import dqx
from dqx.compute.digest import flatten
from dqx.report import cases, figures, findings
from dqx.report.trackers.scalars import Scalars
from dqx.settings import ConfigError
from dqx.study import load
from dqx.study.folder import Folder
from tests.shared import TINY, WIDTH
from tests.study import reseal
from tests.study.kit import assert_same_arrays, assert_whole, call, fields, interrupted, resume, run

pytestmark = pytest.mark.long

ASKED = ("overestimation", "dormant_units", "effective_rank", "replay_age", "target_distance")
COLUMNS = ("target_distance", "overestimation", "dormant_units", "dead_units")
COLUMNS += ("effective_rank", "replay_age")
PLAN = {
    "name": "tiny",
    "seeds": WIDTH + 1,  # the second chunk is padded
    "base": {**fields(TINY), "hidden_sizes": [16, 9], "epsilon_steps": 400.0},
    "case": [{"name": "plain"}, {"name": "asked", "diagnostics": list(ASKED)}],
}


class Told(Scalars):
    """A tracker that keeps what it is told."""

    def __init__(self):
        super().__init__("seed")
        self.values = {}

    def write(self, run, step, values):
        self.values[run.name, step] = values

    def last(self, run):
        return -1


@pytest.fixture(scope="module")
def told():
    return Told()


@pytest.fixture(scope="module")
def study(tmp_path_factory, told):
    return run(PLAN, tmp_path_factory.mktemp("studies") / "tiny", sinks=[told])


def test_rows_have_the_numbers_where_they_are_measured(study):
    found = {name: study.to_arrays(name)[1] for name in COLUMNS}
    evaluated = np.isfinite(study.to_arrays("eval_return")[1])
    learned = np.isfinite(study.to_arrays("loss")[1])
    assert evaluated.any() and not evaluated.all() and learned.any() and not learned.all()
    for name, values in found.items():
        there = {"overestimation": evaluated, "target_distance": learned}.get(name, True)
        np.testing.assert_array_equal(np.isfinite(values), np.broadcast_to(there, values.shape))
    assert (found["dead_units"] <= found["dormant_units"]).all()
    ranks = found["effective_rank"]
    assert np.array_equal(ranks, np.round(ranks)) and ranks.min() >= 1 and ranks.max() <= 9
    # 512 rows of a replay that has so many, or holds no more.
    filled = np.minimum(study.steps, TINY.replay_capacity)
    np.testing.assert_allclose(found["replay_age"].mean(axis=0), filled / 2, rtol=0.1)
    assert (found["target_distance"][learned] > 0).all()


def test_what_is_learned_is_the_same_with_and_without(study):
    for seed in study.seeds:
        assert_same_arrays(*(flatten(study.params(name, seed)) for name in study.configs))
    for name in ("loss", "eval_return", "episode_return", "grad_norm"):
        one, other = study.to_arrays(name)
        np.testing.assert_array_equal(one, other)
    config = study.point("plain")[0]
    assert config.diagnostics == () and study.point("asked")[0].diagnostics == ASKED


def test_a_seed_alone_has_the_numbers_that_it_has_in_company(study):
    config, hyper = study.point("asked")
    alone = dqx.train(config, hyper, seeds=[WIDTH - 1])
    for name in COLUMNS:
        among = study.to_arrays(name)[1][WIDTH - 1]
        np.testing.assert_array_equal(alone.metrics[name][0], among)


@pytest.mark.parametrize("rows", [2, 3, 5])
def test_a_study_that_is_resumed_has_the_same_numbers(study, tmp_path, rows):
    path = tmp_path / "resumed"
    interrupted(PLAN, path, rows, checkpoint_seconds=0)
    assert_whole(resume(path), study)


def test_trackers_are_told(study, told):
    config = "asked/seed-1"
    row = told.values[config, TINY.total_steps]
    for name in COLUMNS:
        last = study.to_arrays(name)[1][1, -1]
        assert row[f"more/{name}"] == pytest.approx(last)
    assert not any("rank" in name for name in told.values["plain/seed-1", TINY.total_steps])


def test_a_report_has_a_panel_of_each(study):
    (group,) = findings.groups(cases.read([study]))
    panels = findings.panels(group, range(2))
    for name in COLUMNS:
        assert panels[name] == findings.PANELS[name] and name not in group.cases[0].panels
    drawing = next(d for d in figures.drawings([study], [group]) if d.name == "training")
    titles = {axes.get_title(loc="left") for axes in drawing.draw().axes}
    assert {findings.PANELS[name] for name in COLUMNS} <= titles


def test_verify_trains_them_again(study):
    status, out, _ = call("verify", study.path, "--sample", 2, "--quiet")
    assert status == 0 and out[0].startswith("verdict: identical")
    Folder(study.path).certificate.unlink()


@pytest.mark.parametrize(
    ("column", "row", "value"),
    [
        ("dormant_units", 3, 1.25),
        ("dead_units", 3, 1.0),
        ("effective_rank", 2, 513.0),
        ("replay_age", 4, -1.0),
        ("replay_age", 4, TINY.replay_capacity + 1.0),
        ("target_distance", 5, -0.5),
        ("overestimation", 0, 2.0),
    ],
)
def test_numbers_that_cannot_be_are_found_without_training(study, tmp_path, column, row, value):
    folder = Folder(shutil.copytree(study.path, tmp_path / "copy"))
    reseal.change_metrics(
        folder, "asked", 2, lambda table, rows: reseal.with_value(table, column, rows[row], value)
    )
    reseal.derive(folder)
    status, out, _ = call("verify", folder.path, "--sample", 1, "--quiet")
    assert status == 1
    step = load(folder.path).steps[row]
    assert any(f"{column} of seed 2 of asked is {value:g} at step {step}" in line for line in out)


def test_a_column_that_is_left_out_is_missed(study, tmp_path):
    folder = Folder(shutil.copytree(study.path, tmp_path / "copy"))
    chunk, _ = reseal.place(folder, "asked", 0)
    reseal.change_table(
        folder, "metrics", chunk, lambda table: table.drop_columns(["effective_rank"])
    )
    status, out, _ = call("verify", folder.path, "--sample", 1, "--quiet")
    assert status == 1 and any("its column effective_rank is missing" in line for line in out)


def test_what_has_no_meaning_is_refused_before_anything_is_trained(tmp_path):
    plan = {**PLAN, "case": [{"name": "odd", "target": "munchausen", "diagnostics": list(ASKED)}]}
    with pytest.raises(ConfigError, match="overestimation compares Q-values"):
        run(plan, tmp_path / "odd")
    assert not (tmp_path / "odd").exists()
