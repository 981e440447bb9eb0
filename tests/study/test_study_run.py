"""Running a study as a user does: going on with what is there, and what the folder tells."""

import json

import pytest

import dqx
from dqx.study import Sink, StudyError, load
from dqx.study.sealed import read_sealed
from tests.shared import HYPER, TINY
from tests.study.kit import (
    OTHER,
    PLAN,
    assert_same_runs,
    assert_whole,
    call,
    computed_steps,
    contents,
    interrupted,
    plan,
    resume,
    run,
    toml,
)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return run(PLAN, tmp_path_factory.mktemp("reference") / "s")


class Silent(Sink):
    """Must not be opened."""

    def open(self, plan):
        raise AssertionError


# --- go_on.


def test_going_on_with_nothing_starts(reference, tmp_path):
    assert_whole(run(PLAN, tmp_path / "s", go_on=True), reference)
    (tmp_path / "empty").mkdir()
    assert_whole(run(PLAN, tmp_path / "empty", go_on=True), reference)


@pytest.mark.parametrize("row", [2, 9])
def test_going_on_with_what_was_interrupted(reference, row, tmp_path):
    with computed_steps() as steps:
        interrupted(PLAN, tmp_path / "s", row)
        seen = []
        study = run(PLAN, tmp_path / "s", go_on=True, progress=seen.append, devices="cpu:2")
    assert sum(steps) == 3 * TINY.total_steps and seen[-1].runs_done == 12
    assert_whole(study, reference)


def test_what_is_finished_is_only_loaded(finished, made):
    before, manifest = contents(finished), (finished / "manifest.json").read_bytes()
    with computed_steps() as steps:
        study = run(PLAN, finished, go_on=True, sinks=[Silent()])
        assert run(PLAN, finished, go_on=True, overwrite=True, sinks=[Silent()]).finished
    assert steps == [] and contents(finished) == before
    assert (finished / "manifest.json").read_bytes() == manifest
    assert_same_runs(study, load(made / "mine"), count=12)


def test_a_missing_manifest_is_written_again(finished):
    runs = read_sealed(finished / "manifest.json")["runs"]
    (finished / "manifest.json").unlink()
    with computed_steps() as steps:
        study = run(PLAN, finished, go_on=True)
    assert steps == [] and study.manifest["runs"] == runs == study.runs


def test_another_plan_is_not_gone_on_with(finished, made):
    before = contents(finished)
    for other in (OTHER, plan(13, snapshot_every=176), {**PLAN, "name": "else"}):
        with pytest.raises(StudyError, match="holds another plan"):
            run(other, finished, go_on=True)
    assert contents(finished) == before
    study = run(OTHER, finished, go_on=True, overwrite=True)
    assert_same_runs(study, load(made / "other"), count=12)


def test_what_is_no_study_is_not_gone_on_with(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StudyError, match="holds no study of dqx, so it is not replaced"):
        run(PLAN, tmp_path, go_on=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_plan_that_leaves_the_width_open_is_known_again(tmp_path):
    opened = plan(6)
    del opened["base"]["chunk_width"]
    with computed_steps() as steps:
        interrupted(opened, tmp_path / "s", 2)
        study = run(opened, tmp_path / "s", go_on=True)
        assert study.finished and run(opened, tmp_path / "s", go_on=True).runs == study.runs
    assert sum(steps) == 2 * TINY.total_steps
    assert study.point()[0].chunk_width == 4


# --- What the folder tells of the whole.


@pytest.mark.long
def test_the_manifest_of_one_configuration_can_be_trained_as_it_is(tmp_path):
    changes = {"hidden_sizes": [8, 12], "double": True, "max_grad_norm": 5.0, "tau": 0.5,
               "loss": "huber", "huber_delta": float("inf")}  # fmt: skip
    study = run(plan([7, 1, 4], changes, root_seed=3), tmp_path / "s")
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert manifest == study.manifest
    assert manifest["hyper"]["huber_delta"] == "inf" and manifest["config"]["chunk_width"] == 4
    result = dqx.train(
        manifest["config"],
        manifest["hyper"],
        manifest["seeds"],
        root_seed=manifest["root_seed"],
        devices="cpu:1",
    )
    assert list(result.digests) == [run["digest"] for run in manifest["runs"]]
    assert (result.config, result.hyper) == study.point()
    assert result.scores.tolist() == [run["score"] for run in manifest["runs"]]


def test_the_manifest_of_several_names_each(tmp_path):
    study = run(plan(2, grid={"learning_rate": [1e-2, 3e-3]}), tmp_path / "s")
    manifest = study.manifest
    assert "config" not in manifest and "hyper" not in manifest
    assert manifest["plan_seal"] == read_sealed(tmp_path / "s" / "plan.json")["sha256"]
    assert manifest["runs"] == study.runs and manifest["steps"] == 4 * TINY.total_steps
    for point in manifest["points"]:
        result = dqx.train(point["config"], point["hyper"], 2, devices="cpu:1")
        assert result.digests == tuple(study.digests[point["name"], seed] for seed in (0, 1))
    assert manifest["steps_per_second"] > 0 < manifest["run_seconds"]
    assert manifest["devices"] == ["cpu:0"] and manifest["checkpoint_seconds"] == 0
    assert manifest["peak_memory_bytes"] > 2**26 and manifest["peak_device_memory_bytes"] is None


def test_a_study_by_the_command_and_by_the_library_are_the_same(reference, tmp_path):
    (tmp_path / "plan.toml").write_text(toml(PLAN))
    status, out, _ = call("study", tmp_path / "plan.toml", "--out", tmp_path / "s", "--quiet",
                          "--devices", "cpu:1")  # fmt: skip
    assert status == 0 and out[0].startswith("tiny: 12 runs")
    assert_whole(load(tmp_path / "s"), reference)


def test_training_in_memory_gives_the_same(reference):
    result = dqx.train(TINY, HYPER, 12, devices="cpu:2")
    assert result.digests == tuple(reference.digests.values())


def test_a_manifest_that_a_kill_left_out_is_written_by_resume(tmp_path):
    """A kill between the last record and the manifest: `resume` writes it, and trains nothing."""
    run(plan(2), tmp_path / "s")
    (tmp_path / "s" / "manifest.json").unlink()
    with computed_steps() as steps:
        study = resume(tmp_path / "s")
    assert steps == [] and study.manifest["runs"] == study.runs
