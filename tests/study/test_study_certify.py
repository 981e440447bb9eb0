"""`verify`: runs trained again are compared with what is on disk, and every difference is found."""

import dataclasses
import json
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from dqx.files import OutputError
from dqx.settings import ConfigError
from dqx.study import StudyError, certify, differing, load, verify
from dqx.study.executors.local import Local
from dqx.study.folder import Folder, read_plan_record
from dqx.study.sealed import read_sealed
from tests.shared import TINY
from tests.study.kit import call, fields, make_study, run
from tests.study.reseal import (
    change_metrics,
    change_params,
    change_record,
    derive,
    place,
    with_value,
)

PLAN = {
    "name": "tiny",
    "seeds": [4, 0, 9],
    "root_seed": 5,
    "snapshot_every": 264,
    "base": {**fields(TINY), "epsilon_steps": 400},
    "grid": {"learning_rate": [1e-2, 1e-3]},
}
FAST, SLOW = "learning_rate=0.01", "learning_rate=0.001"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A study of six runs in two chunks, trained once."""
    path = tmp_path_factory.mktemp("studies") / "tiny"
    assert run(PLAN, path, devices=None).finished
    return path


@pytest.fixture
def folder(original, tmp_path):
    return Folder(shutil.copytree(original, tmp_path / "copy"))


def by_run(certificate):
    return {(check.config, check.seed): check for check in certificate.checks}


def test_every_run_is_identical(folder):
    calls = []
    found = verify(folder.path, sample=None, progress=lambda *numbers: calls.append(numbers))
    assert found.verdict == "identical" and found.passed and found.runs == 6
    assert [(c.config, c.seed) for c in found.checks] == [
        (config, seed) for config in (FAST, SLOW) for seed in (4, 0, 9)
    ]
    runs = {(run["config"], run["seed"]): run for run in load(folder.path).runs}
    for key, check in by_run(found).items():
        assert check.stored == check.found == runs[key]["digest"] and len(check.found) == 64
        assert (check.verdict, check.detail) == ("identical", "")
        assert check.found_score == check.stored_score == runs[key]["score"]
    assert (found.differences, found.statistics) == ((), "")
    assert calls == [(i, 6) for i in range(1, 7)]


def test_the_certificate_is_written(folder):
    found = verify(folder.path, sample=2, pick=11)
    assert list(by_run(found)) == [
        (run["config"], run["seed"]) for run in certify._chosen(load(folder.path), 2, 11)
    ]
    record = read_sealed(folder.certificate)
    assert (record["verdict"], record["checked"], record["runs"]) == ("identical", 2, 6)
    assert record["pick"] == 11 and record["differences"] == [] and record["statistics"] == ""
    assert [tuple(check.values()) for check in record["checks"]] == list(found.checks)
    plan = read_plan_record(folder)
    assert record["plan_seal"] == plan["sha256"] and record["identity"] == plan["identity"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", record["written"])
    json.loads(folder.certificate.read_text(), parse_constant=lambda text: 1 / 0)  # strict JSON


def test_a_pick_draws_the_same_runs_again(original):
    study = load(original)

    def drawn(pick, sample=2):
        return [(run["config"], run["seed"]) for run in certify._chosen(study, sample, pick)]

    assert drawn(1) == drawn(1) and len(set(drawn(1))) == 2
    assert len({tuple(drawn(pick)) for pick in range(6)}) > 2
    everything = [(run["config"], run["seed"]) for run in study.runs]
    assert drawn(1, sample=6) == drawn(1, sample=100) == drawn(1, sample=None) == everything


def test_without_a_pick_the_draw_is_another_one_each_time(folder):
    picks = set()
    for _ in range(2):
        assert verify(folder.path, sample=1).passed
        picks.add(read_sealed(folder.certificate)["pick"])
    assert len(picks) == 2


def test_a_parameter_that_was_changed_is_found(folder):
    def change(arrays, index):
        arrays["params/Dense_0/kernel"][index, 0, 1] += np.float32(0.25)
        arrays["params/Dense_0/kernel"][index, 1, 1] -= np.float32(0.5)

    change_params(folder, SLOW, 0, change)
    found = verify(folder.path, sample=None)
    assert found.verdict == "different" and not found.passed
    checks = by_run(found)
    check = checks.pop((SLOW, 0))
    assert check.verdict == "different"
    name, gap = re.fullmatch(
        r"equal metrics, but the final (\S+) differs by up to (\S+)", check.detail
    ).groups()
    assert name == "params/Dense_0/kernel" and float(gap) == pytest.approx(0.5, abs=1e-6)
    assert {check.verdict for check in checks.values()} == {"identical"}
    assert read_sealed(folder.certificate)["verdict"] == "different"


@pytest.mark.parametrize("kind", ["last bit", "no number"])
def test_the_least_change_of_a_parameter_is_found(folder, kind):
    value = load(folder.path).params(FAST, 9)["params"]["Dense_0"]["bias"][2]
    other = np.float32(np.nan) if kind == "no number" else np.nextafter(value, np.float32(np.inf))
    change_params(
        folder, FAST, 9, lambda arrays, i: arrays["params/Dense_0/bias"][i].__setitem__(2, other)
    )
    check = by_run(verify(folder.path, sample=None))[FAST, 9]
    assert check.verdict == "different" and "params/Dense_0/bias" in check.detail
    gap = float(check.detail.rpartition(" ")[2])
    assert gap == (np.inf if kind == "no number" else pytest.approx(other - value, rel=1e-4))


def test_the_sign_of_zero_is_a_bit_and_that_of_nan_is_none():
    then = np.array([0, 0, np.nan, np.nan, np.inf, 1], np.float32)
    now = np.array([0, -0.0, np.nan, -np.nan, -np.inf, np.nan], np.float32)
    assert differing.unequal(then, now).tolist() == [False, True, False, False, True, True]
    assert differing.gap(then[:2], now[:2]) == 0 and differing.gap(then[4:], now[4:]) == np.inf


def test_a_metric_that_was_changed_is_found_with_its_step(folder):
    before = load(folder.path).curves(FAST, 0)

    def change(table, rows):
        table = with_value(table, "loss", rows[4], before["loss"][4] + 0.5)
        table = with_value(table, "q_max", rows[3], before["q_max"][3] - 2)
        return with_value(table, "grad_norm", rows[3], before["grad_norm"][3] + 1)

    change_metrics(folder, FAST, 0, change)
    found = verify(folder.path, sample=None)
    check = by_run(found)[FAST, 0]
    # The first step, and there the largest gap.
    step, name, gap = re.fullmatch(
        r"differs from step (\d+) on, in (\w+) by (\S+)", check.detail
    ).groups()
    assert (int(step), name) == (4 * TINY.log_period, "q_max")
    assert float(gap) == pytest.approx(2, abs=1e-4)
    assert [c.verdict for c in found.checks].count("identical") == 5


def test_a_number_that_has_gone_is_found(folder):
    change_metrics(
        folder, SLOW, 4, lambda table, rows: with_value(table, "epsilon", rows[5], np.nan)
    )
    check = by_run(verify(folder.path, sample=None))[SLOW, 4]
    assert check.detail == "differs from step 528 on, in epsilon by inf"


def test_a_record_emptied_of_its_runs_is_named_though_nothing_can_be_trained(folder):
    change_record(folder, 0, lambda record: record["runs"].clear())
    status, out, err = call("verify", folder.path, "--all")
    assert (status, err) == (1, [])
    assert re.match(
        rf"differs: {folder.record(0)}: runs must be a list of 1 to .*, got \[\]", out[0]
    )
    assert out[1:] == [
        "verdict: different (no run could be trained again)",
        f"certificate: {folder.certificate}",
    ]
    record = read_sealed(folder.certificate)
    assert (record["verdict"], record["digest"], record["checks"]) == ("different", "", [])
    assert record["problems"] == [out[0].removeprefix("differs: ")]


def test_runs_that_are_not_there_are_no_difference_but_not_whole(folder):
    """A study under way, or one whose manifest and record were taken away together."""
    for path in (folder.record(1), folder.manifest):
        path.unlink()
    status, out, _ = call("verify", folder.path, "--sample", 1, "--quiet")
    assert status == 1 and out[0] == (
        "verdict: incomplete (1 of 1 runs trained again have the same bits; 4 of the 6 planned are "
        "there)"
    )
    certificate = read_sealed(folder.certificate)
    assert (certificate["runs"], certificate["planned"], certificate["digest"]) == (4, 6, "")


@pytest.mark.parametrize(
    "damage",
    [
        "another column",
        "rows",
        "shape",
        pytest.param("no array", marks=pytest.mark.long),
        pytest.param("another array", marks=pytest.mark.long),
        pytest.param("no column", marks=pytest.mark.long),
        pytest.param("step", marks=pytest.mark.long),
    ],
)
def test_files_of_another_form_are_different(folder, damage):
    def change(arrays, index):
        if damage == "no array":
            del arrays["params/Dense_0/bias"]
        elif damage == "another array":
            arrays["params/Dense_9/bias"] = arrays["params/Dense_0/bias"]
        else:
            arrays["params/Dense_0/bias"] = arrays["params/Dense_0/bias"][:, :-1]

    def reform(table, rows):
        if damage == "another column":
            return table.append_column("x", table["loss"])
        if damage == "no column":
            return table.drop_columns(["q_mean"])
        if damage == "rows":
            return table.take([i for i in range(table.num_rows) if i % 6])
        return with_value(table, "step", rows[2], 7)

    if damage in ("no array", "another array", "shape"):
        change_params(folder, FAST, 4, change)
        words = "snapshots/part-00000-264.npz: its arrays are not those of the final parameters"
    else:
        change_metrics(folder, FAST, 4, reform)
        words = {
            "rows": "metrics/part-00000.parquet: 20 rows, and the plan has 24 of them",
            "step": "its rows are not those of the chunk's runs and steps",
        }.get(damage, "its file of metrics has other rows or columns")
    check = by_run(verify(folder.path, sample=None))[FAST, 4]
    assert check.verdict == "different" and words in check.detail


def test_a_record_of_another_digest_is_different(folder):
    chunk, index = place(folder, FAST, 4)
    change_record(folder, chunk, lambda r: r["runs"][index].update(digest="0" * 64))
    check = by_run(verify(folder.path, sample=None))[FAST, 4]
    assert check.verdict == "different" and check.stored == "0" * 64 != check.found
    assert check.detail == "the files agree, the digest in the record does not"


def test_a_damaged_file_is_different_and_named(folder):
    chunk, _ = place(folder, FAST, 4)
    path = folder.part("params", chunk)
    path.write_bytes(path.read_bytes()[:-1])
    found = by_run(verify(folder.path, sample=None))
    assert found[FAST, 4].verdict == "different"
    assert str(path) in found[FAST, 4].detail and "dqx study resume" in found[FAST, 4].detail


@pytest.fixture
def foreign(monkeypatch):
    """Another processor and another version of JAX, as far as the study can tell."""
    real = Local.identity

    def identity(self, plan):
        return {**real(self, plan), "device_kind": "cpu: abacus", "jax": "99"}

    monkeypatch.setattr(Local, "identity", identity)


def test_the_same_bits_elsewhere_are_identical_too(folder, foreign):
    found = verify(folder.path, sample=2)
    assert found.passed and len(found.differences) == 2 and found.statistics == ""
    assert found.differences[0].endswith("and is 'cpu: abacus' here")


def pretend(folder, shift):
    """Shifts the last greedy return of each run by a number, and all that follows from it."""
    for one, by in zip(load(folder.path).runs, shift, strict=True):
        last = one["score"] + by if by is not None else np.nan
        change_metrics(
            folder,
            one["config"],
            one["seed"],
            lambda table, rows, last=last: with_value(table, "eval_return", rows[-1], last),
        )
    derive(folder)


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        ([5, 6, 5, 6, 5, 6], "they are not the same"),
        ([5, -5, 5, -5, 5, -5], "they could well be the same"),
    ],
)
def test_other_bits_elsewhere_are_not_comparable_but_by_statistics(folder, foreign, shift, words):
    pretend(folder, shift)
    found = verify(folder.path, sample=None)
    assert found.verdict == "not comparable" and not found.passed
    assert {check.verdict for check in found.checks} == {"not comparable"}
    value, low, high, runs = re.match(
        r"scores here are (\S+) apart in the mean, 95 % interval (\S+) to (\S+) over (\d)",
        found.statistics,
    ).groups()
    assert found.statistics.endswith(words)
    assert float(value) == pytest.approx(-np.mean(shift), rel=0.01, abs=1e-6) and runs == "6"
    # Not far from what the normal distribution gives.
    middle, error = -np.mean(shift), scipy.stats.sem(shift)
    assert middle - 3 * error <= float(low) <= middle <= float(high) <= middle + 3 * error
    record = read_sealed(folder.certificate)
    assert record["verdict"] == "not comparable" and record["statistics"] == found.statistics
    assert record["differences"] == list(found.differences)
    assert record["identity"]["device_kind"] == "cpu: abacus"


def test_a_gap_that_is_the_same_in_every_run_has_no_interval():
    def words(now):
        pairs = zip((20.0, 8.0), now, strict=True)
        return certify._compared(
            [
                certify.Check("c", i, "", "", "", "", *both, again_kind=1)
                for i, both in enumerate(pairs)
            ]
        )

    assert words((20.0, 8.0)) == "scores here are those of the study, in all of 2 runs"
    assert words((15.0, 3.0)) == "scores here are -5 apart in each of 2 runs"


def test_statistics_need_two_scores(folder, foreign):
    pretend(folder, [None] * 6)
    found = verify(folder.path, sample=None)
    assert found.statistics == "fewer than two runs with finite scores: nothing can be said"
    assert all(np.isnan(check.stored_score) for check in found.checks)
    checks = read_sealed(folder.certificate)["checks"]
    assert {check["stored_score"] for check in checks} == {None}


@pytest.mark.long
def test_without_evaluation_the_last_return_of_training_counts(tmp_path):
    base = {**PLAN["base"], "eval_period": 0, "log_period": 8, "total_steps": 184}
    run({**PLAN, "base": base}, tmp_path / "a")
    found = verify(tmp_path / "a", sample=None)
    assert found.passed
    study = load(tmp_path / "a")
    last = study.to_arrays("episode_return")
    assert np.isnan(last[:, :, -1]).any()  # rows are so short that few have an episode
    for check, rows in zip(found.checks, last.reshape(6, -1), strict=True):
        assert check.found_score == check.stored_score == rows[np.isfinite(rows)][-1]


def test_what_cannot_be_verified_is_said(original, tmp_path):
    with pytest.raises(StudyError, match="holds no study"):
        verify(tmp_path)
    make_study(tmp_path / "a", {"seeds": 2}, leave_out={0})
    with pytest.raises(StudyError, match="no run of .* is finished: there is nothing to verify"):
        verify(tmp_path / "a")
    with pytest.raises(ConfigError, match="sample must be a whole number from 1 on"):
        verify(original, sample=0)
    assert not Folder(original).certificate.exists()


def test_the_command_prints_a_table_and_a_verdict(folder):
    status, out, err = call("verify", folder.path, "--all")
    assert status == 0
    digests = load(folder.path).digests
    assert out[0].split() == ["CONFIGURATION", "SEED", "DIGEST", "AGAIN", "VERDICT"]
    assert [line.split() for line in out[1:7]] == [
        [c, str(s), digests[c, s][:12], digests[c, s][:12], "identical"]
        for c in (FAST, SLOW) for s in (4, 0, 9)
    ]  # fmt: skip
    assert out[7:] == [
        "verdict: identical (6 of 6 runs trained again have the same bits; the study has 6)",
        f"digest: {load(folder.path).digest()}",
        f"certificate: {folder.certificate}",
    ]
    assert err[0] == "verify: training again..."
    assert re.fullmatch(r"verify: 6/6 runs, \d+ s", err[-1]) and len(err) == 7


def test_the_command_fails_on_other_bits(folder):
    change_params(folder, FAST, 0, lambda arrays, i: arrays["params/Dense_0/bias"][i].__iadd__(1.0))
    status, out, err = call("verify", folder.path, "--sample", 6, "--quiet")
    assert (status, err) == (1, [])
    assert out[0].startswith(f"differs: chunks/00000.json: digest of seed 0 of {FAST} is ")
    assert out[1] == "differs: manifest.json: its digest is not that of the other files"
    assert out[2].startswith("verdict: different (5 of 6 runs trained again have the same bits")
    status, out, _ = call("verify", folder.path, "--all")
    (line,) = [line for line in out if line.startswith(FAST) and "different: " in line]
    assert line.split()[:2] == [FAST, "0"] and line.endswith("bias differs by up to 1")
    assert status == 1
    _, out, _ = call("study", "status", folder.path)
    (line,) = [line for line in out if line.startswith("certificate: ")]
    assert line.startswith("certificate: different (6 of 6 runs trained again, 20")


def test_the_command_fails_where_nothing_can_be_compared(folder, foreign):
    pretend(folder, [5, -5] * 3)
    status, out, _ = call("verify", folder.path, "--all")
    assert status == 1 and out[-3].startswith("verdict: not comparable (0 of 6 runs")
    assert "note: jax was " in "\n".join(out) and any("apart in the mean" in line for line in out)


def test_a_folder_that_cannot_be_written_is_said(folder, monkeypatch):
    def full(path, record):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(certify, "write_sealed", full)
    status, out, err = call("verify", folder.path, "--sample", 2, "--quiet")
    assert (status, out) == (2, [])
    assert err == [f"dqx: error: cannot write {folder.certificate}: No space left on device"]


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_trained(folder, monkeypatch):
    def read_only(**options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    monkeypatch.setattr(certify, "audit", lambda *given: 1 / 0)
    with pytest.raises(OutputError) as caught:
        verify(folder.path)
    assert str(caught.value) == (
        f"cannot write in {folder.path}: Read-only file system; verify a copy, or make it writable"
    )


def test_a_study_is_verified_where_it_was_moved_to(original, tmp_path, monkeypatch):
    shutil.copytree(original, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    assert verify(Path("elsewhere"), sample=2).passed
    assert dataclasses.asdict(verify("elsewhere", sample=2))["runs"] == 6
