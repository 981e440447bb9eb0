"""The atlas keeps what its studies hold, and its page says what follows from that."""

import argparse
import dataclasses
import importlib
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest

import dqx
from dqx import stats
from dqx.settings import ConfigError, not_defaults
from tests.study.kit import make_study

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture(scope="module")
def atlas():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield importlib.import_module("atlas")


@pytest.fixture(scope="module")
def pages(atlas):
    return sys.modules["atlas_page"]


@pytest.fixture
def study(tmp_path):
    """Ten seeds of made-up numbers; one diverged."""

    def change(name, seed, run):
        if seed == 10_003:
            run["metrics"]["eval_return"][-1] = np.nan
            run["diverged_at"] = 300

    plan = {"name": "made", "seeds": list(range(10_000, 10_010))}
    return dqx.load(make_study(tmp_path / "study", plan, change=change).folder.path)


def made(pages, name, env, scores, compared=None):
    scores = np.asarray(scores, float)
    facts = {"env": env, "verified": "identical, 3 of 9 runs"}
    nothing = np.full(len(scores), np.nan)
    return pages.Kept(name, facts, 10_000 + np.arange(len(scores)), scores,
                      nothing if compared is None else np.asarray(compared, float))  # fmt: skip


def test_what_is_kept_is_what_the_study_holds(atlas, pages, study, tmp_path):
    atlas.keep(study, "cartpole", tmp_path / "kept", "identical, 3 of 10 runs")
    (kept,) = pages.kept_in(tmp_path / "kept")
    assert (kept.name, kept.env) == ("cartpole", "CartPole-v1")
    assert kept.seeds.tolist() == list(study.seeds)
    np.testing.assert_array_equal(kept.scores, study.scores())
    assert np.isnan(kept.scores[3]) and np.isnan(kept.compared).all()
    assert kept.facts["plan_seal"] == study.plan["sha256"]
    assert kept.facts["settings"] == not_defaults(*study_settings(study))
    # Read without any of dqx.
    curves = pandas.read_parquet(tmp_path / "kept" / "cartpole-curves.parquet")
    assert curves.dtypes.astype(str).tolist() == ["int32", "int32", "float32"]
    for seed in (10_000, 10_009):
        rows, whole = curves[curves["seed"] == seed], study.curves(None, seed)
        measured = np.isfinite(whole["eval_return"])
        assert rows["step"].tolist() == whole["step"][measured].tolist() == [200, 400]
        np.testing.assert_array_equal(rows["value"], whole["eval_return"][measured])
    table = pyarrow.parquet.ParquetFile(tmp_path / "kept" / "cartpole-scores.parquet")
    assert table.metadata.row_group(0).column(0).compression == "ZSTD"


def test_long_curves_are_thinned_to_their_first_and_last_points(atlas):
    steps = np.arange(100, 10_100, 100)
    values = np.where(steps % 200 == 0, steps, np.nan)[None] * np.ones((3, 1))
    kept, rows = atlas.thinned(steps, values)
    assert len(kept) == 25 and (kept[0], kept[-1]) == (200, 10_000)
    np.testing.assert_array_equal(rows, np.broadcast_to(kept, (3, 25)))


CLAIMS = {
    "cartpole/cleanrl": (498.4, 3, "training", None),
    "cartpole/double-dqn": (51.0, 1, "episodes", None),
    "mountain-car/toptal": (-136.75, 1, "greedy", 120_000),
    "mountain-car/zoo": (-100.8, 1, "greedy", None),
}


def test_every_claim_of_the_atlas_is_understood(atlas, pages):
    found = {name: pages.claim_of(name) for name in atlas.SEEDS}
    assert {name: claim[:4] for name, claim in found.items() if claim} == CLAIMS
    rest = [dqx.settings.preset_about(name).claim for name, claim in found.items() if not claim]
    assert set(rest) == {"", "no number"}


def test_numbers_are_compared_with_what_the_source_measured(atlas, study):
    training = study.to_arrays("episode_return")[0][:, -1]
    np.testing.assert_array_equal(atlas.compared(study, "cartpole/cleanrl"), training)
    np.testing.assert_array_equal(atlas.compared(study, "mountain-car/zoo"), study.scores())
    assert np.isnan(atlas.compared(study, "cartpole/double-dqn")).all()  # none solves it
    with pytest.raises(ConfigError, match="not evaluated at step 120,000"):
        atlas.compared(study, "mountain-car/toptal")


def test_a_percentile_of_one_run_by_hand(pages):
    claim = pages.Claim(3.0, 1, "greedy", None, "")
    assert pages.percentile(claim, np.array([1.0, 2.0, 3.0, 4.0])) == 62.5
    late = pages.Claim(51.0, 1, "episodes", None, "")
    assert pages.percentile(late, np.array([np.nan, 60.0, 50.0, np.nan])) == 25.0


def test_a_percentile_of_three_runs_is_that_among_means_of_three(pages):
    values = np.array([0.0, 1.0, 5.0, 9.0])
    means = np.array([np.mean(three) for three in itertools.product(values, repeat=3)])
    claim = pages.Claim(5.0, 3, "training", None, "")
    exact = 100 * (np.mean(means < 5.0) + np.mean(means == 5.0) / 2)
    # Four deviations of a share of 20,000 draws.
    assert pages.percentile(claim, values) == pytest.approx(exact, abs=4 * 50 / 20_000**0.5)


def test_the_page_says_what_follows(pages):
    rng = np.random.default_rng(0)
    kept = [
        made(pages, "cartpole", "CartPole-v1", [500.0] * 12 + [300.0, np.nan] * 2),
        made(pages, "cartpole/cleanrl", "CartPole-v1", rng.normal(450, 30, 40), np.full(40, 490.0)),
        made(pages, "taxi", "Taxi-v4", [7.93] * 9 + [-200.0]),
    ]
    lines = pages.page(kept, ["wall-dodge"], ["taxi"])
    rows = {line.split("`")[1]: line for line in lines if line.startswith("| `")}
    cells = [cell.strip() for cell in rows["taxi"].split("|")]
    assert cells[3:5] == ["10", "10,000"] and "10.0 %" in cells and "7.93" in cells
    first = next(line for line in lines if line.startswith("| `cartpole`   "))
    assert " 25.0 %" in first  # two below 475, and two that diverged
    claim = next(line for line in lines if "498.4" in line)
    assert "| 100.0 " in claim and "| 490.0 " in claim and "mean of 3 seeds" in claim
    pairs = [line for line in lines if line.startswith("| `") and line.count("`") == 4]
    assert len(pairs) == 1 and "`taxi`" not in pairs[0]
    rates = stats.wrong_winner(pages.counted_scores(kept[0], kept), kept[1].scores, pages.SMALL)
    for rate in rates:
        assert f"{100 * rate:.1f} %" in pairs[0]
    assert "Not trained yet: `wall-dodge`." in lines
    assert "Trained with settings that the preset has no longer: `taxi`." in lines


def test_the_picture_shows_the_shares(pages, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(pages.Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    kept = [made(pages, "mountain-car/zoo", "MountainCar-v0", [3.0, 1.0, 2.0, 2.0]),
            made(pages, "taxi", "Taxi-v4", [1.0, 2.0])]  # fmt: skip
    pages.picture(kept, tmp_path / "p.png")
    one, two = drawn[0].axes
    line, claim = one.lines
    assert line.get_xdata().tolist() == [1, 2, 2, 3]
    assert line.get_ydata().tolist() == [25, 50, 75, 100]
    assert set(claim.get_xdata()) == {-100.8}
    assert [axes.get_title(loc="left") for axes in (one, two)] == [
        "MountainCar-v0", "Taxi-v4",
    ]  # fmt: skip
    assert len(two.lines) == 1


def test_seeds_are_those_that_nothing_was_tuned_on(atlas):
    assert atlas.seeds_of("cartpole", None) == list(range(10_000, 11_000))
    assert atlas.seeds_of("mountain-car", 3) == [40_000, 40_001, 40_002]
    assert atlas.seeds_of("another", None) == []


def test_what_is_kept_is_not_trained_again(atlas, study, tmp_path, monkeypatch):
    atlas.keep(study, "cartpole", tmp_path, "identical")
    monkeypatch.setattr(dqx.study, "run", None)
    args = argparse.Namespace(
        seeds=10, results=tmp_path, quiet=True, out=tmp_path, devices=None, overwrite=False
    )
    refused = "holds cartpole with other settings or seeds: give --overwrite"
    with pytest.raises(ConfigError, match=refused):
        atlas.refuse_stale(["taxi", "cartpole"], args)
    atlas.refuse_stale(["taxi"], args)
    monkeypatch.setattr(atlas, "settings_of", lambda *_: not_defaults(*study_settings(study)))
    atlas.refuse_stale(["cartpole"], args)
    assert atlas.train("cartpole", args)
    args.seeds = 11
    with pytest.raises(ConfigError, match=refused):
        atlas.refuse_stale(["cartpole"], args)
    args.overwrite = True
    atlas.refuse_stale(["cartpole"], args)
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):  # it is trained
        atlas.train("cartpole", args)


def study_settings(study):
    config, hyper = study.point()
    return dataclasses.replace(config, chunk_width=None), hyper


def test_a_file_that_is_none_of_the_atlas_is_told(pages, tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"seed": [1]}), tmp_path / "x-scores.parquet")
    with pytest.raises(ConfigError, match="x-scores.parquet is none of the atlas"):
        pages.kept_in(tmp_path)


def call(*arguments, cwd):
    done = subprocess.run(
        [sys.executable, SCRIPTS / "atlas.py", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_mistakes_are_told(atlas, tmp_path, monkeypatch, capsys):
    for arguments, words in (
        (["--presets", "cartpol"], "no preset of the atlas"),
        (["--seeds", "1"], "at least 2"),
        (["--page", "--results", str(tmp_path)], "holds no preset yet"),
    ):
        monkeypatch.setattr(sys, "argv", ["atlas.py", *arguments])
        with pytest.raises(SystemExit) as caught:
            atlas.main()
        assert caught.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.long
def test_a_preset_is_trained_verified_kept_and_passed_over(tmp_path):
    arguments = ("--presets", "cartpole/keras-rl", "--seeds", 4, "--verify", 1, "--results", "r",
                 "--docs", "d", "--out", "o", "--reference", "reference.json")  # fmt: skip
    status, out, err = call(*arguments, cwd=tmp_path)
    assert status == 0 and "page: d/atlas.md" in out, err
    record = json.loads((tmp_path / "o" / "cartpole-keras-rl-4" / "certificate.json").read_text())
    assert record["verdict"] == "identical" and record["checked"] == 1
    before = {path: path.read_bytes() for path in (tmp_path / "r").iterdir()}
    assert len(before) == 2 and (tmp_path / "d" / "atlas.png").exists()
    scores = dqx.load(tmp_path / "o" / "cartpole-keras-rl-4").scores()
    given = json.loads((tmp_path / "reference.json").read_text())["cartpole/keras-rl"]
    assert given.pop("scores") == pytest.approx(np.sort(scores), rel=1e-6)
    settings = not_defaults(*dqx.preset("cartpole/keras-rl"))
    assert given == {"env": "CartPole-v0", "seeds": 4, "settings": settings}
    status, _, err = call(*arguments, cwd=tmp_path)
    assert status == 0 and "4 seeds are kept already" in err
    assert {path: path.read_bytes() for path in (tmp_path / "r").iterdir()} == before
