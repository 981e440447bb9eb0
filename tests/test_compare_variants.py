"""The script that compares variants: what it trains, that it goes on, and its tables."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

import dqx
from dqx import stats
from dqx.study import load

SCRIPTS = Path(__file__).parent.parent / "scripts"
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield importlib.import_module("compare_variants")


def called(script, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["compare_variants.py", *map(str, arguments)])
    return script.main()


def test_every_variant_can_be_trained_on_every_game(script):
    plans = script.planned(None, None, None, None)
    for game in script.GAMES:
        names = {name.partition("/")[2] for name in plans if name.partition("/")[0] == game}
        assert {"plain", "dueling", "n-step", "c51", "qr", "iqn", "noisy", "per"} <= names
        assert {"maxmin", "bootstrapped"} <= names
        assert ({"double", "hidden"} <= names) == (game == "breakout")
    for name, plan in plans.items():
        (point,) = dqx.study.read_plan(plan).points
        plain = dqx.study.read_plan(plans[f"{name.partition('/')[0]}/plain"]).points[0]
        assert point.name == name and point.config.env == plain.config.env
        assert (point.config == plain.config) == name.endswith("/plain")
        assert point.config.total_steps == plain.config.total_steps or name.endswith("/pqn")
        seeds = dqx.study.read_plan(plan).seeds  # on which nothing was tuned
        assert seeds == tuple(range(10) if "breakout" in name else range(30_000, 30_032))
    mountain = dqx.study.read_plan(plans["mountain-car/c51"]).points[0]
    assert (
        mountain.hyper.v_min == -100 and mountain.hyper.v_max == 0 and mountain.hyper.gamma == 0.99
    )
    taxi = dqx.study.read_plan(plans["taxi/per"]).points[0]
    assert taxi.hyper.importance_steps == taxi.config.total_steps
    assert taxi.hyper.gamma == dqx.preset("taxi")[1].gamma


@pytest.mark.filterwarnings("ignore:learning_starts")
def test_two_games_in_one_report(script, monkeypatch, tmp_path, capsys):
    # So few steps that learning does not start: its program takes longest to compile.
    line = ["--games", "cartpole,catch", "--variants", "dueling", "--seeds", 3, "--steps", 800]
    line += ["--out", tmp_path, "--quiet"]
    assert called(script, monkeypatch, *line) == 0
    text = (tmp_path / "comparison.md").read_text()
    assert text in capsys.readouterr().out and "Not trained" not in text
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "report" / "index.html").read_text()
    scores = {
        name: load(tmp_path / name).scores()
        for name in ("cartpole/plain", "cartpole/dueling", "catch/plain", "catch/dueling")
    }
    rows = tables(text)
    for name, values in scores.items():
        game, _, variant = name.partition("/")
        (row,) = [row for row in rows[game] if row["variant"] == variant]
        assert row["IQM"] == f"{stats.iqm(values):.2f}" and row["mean"] == f"{values.mean():.2f}"
        assert name in page
        if variant == "dueling":
            plain = scores[f"{game}/plain"]
            wins = np.mean((np.sign(values[:, None] - plain) + 1) / 2)
            assert row["P(> plain)"].startswith(f"{wins:.2f}") and row["verdict"] == "cannot tell"
    # Over both games, by hand: shares of 500, and of the way from -1 to 1.
    for row in rows["Over cartpole, catch"]:
        both = np.stack(
            [
                scores[f"cartpole/{row['variant']}"] / 500,
                (scores[f"catch/{row['variant']}"] + 1) / 2,
            ]
        )
        expected = np.sort(both.ravel())[1:5].mean()  # of 6 scores a quarter is 1, rounded down
        assert row["normalised IQM"] == f"{expected:.3f}"
    assert called(script, monkeypatch, *line, "--page", "--against", "dueling") == 0
    rows = tables((tmp_path / "comparison.md").read_text())["cartpole"]
    (row,) = [row for row in rows if row["variant"] == "plain"]
    wins = np.mean(
        (np.sign(scores["cartpole/plain"][:, None] - scores["cartpole/dueling"]) + 1) / 2
    )
    assert row["P(> dueling)"].startswith(f"{wins:.2f}")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert called(script, monkeypatch, *line) == 0  # trains nothing again
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")} == before
    # What is kept is enough: without studies, the same tables.
    for game in ("cartpole", "catch"):
        shutil.rmtree(tmp_path / game)
    assert called(script, monkeypatch, *line) == 0
    assert (tmp_path / "comparison.md").read_text() == text
    assert not (tmp_path / "cartpole").exists()
    # Of other seeds or settings nothing is passed over, or replaced, in silence.
    line[line.index("--seeds") + 1] = 4
    with pytest.raises(SystemExit):
        called(script, monkeypatch, *line)
    said = capsys.readouterr().err
    assert "holds cartpole/plain, cartpole/dueling, catch/plain and catch/dueling with oth" in said
    assert called(script, monkeypatch, *line, "--page", "--variants", "dueling,noisy") == 0
    text = (tmp_path / "comparison.md").read_text()
    assert "- `dueling`: head=dueling_avg\n" in text
    assert "Not trained yet: `cartpole/noisy`, `catch/noisy`." in text
    assert "other settings or seeds than these have now: `cartpole/plain`, `cartpole/duel" in text
    assert called(script, monkeypatch, *line, "--games", "catch", "--overwrite") == 0
    assert len(load(tmp_path / "catch" / "dueling").scores()) == 4
    assert " 4 seeds from 30,000 on." in (tmp_path / "comparison.md").read_text()


def tables(text):
    """The rows of the tables of a page, by heading."""
    found = {}
    for part in text.split("## ")[1:]:
        lines = [line for line in part.splitlines() if line.startswith("|")]
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        found[part.splitlines()[0]] = [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]
    return found


def test_a_diverged_seed_counts_as_the_worst(script, tmp_path):
    pages = sys.modules["variants_page"]
    found = []
    for name, last in (("catch/plain", [0.5, 1.0]), ("catch/dueling", [np.nan, 1.0])):
        facts = {"env": "Catch-bsuite", "metric": "eval_return", "total_steps": 20}
        curves = np.array([[-1.0, last[0]], [0.0, last[1]]])
        found.append(pages.Kept(name, facts, np.arange(2), np.array([10, 20]), curves))
    (group,) = pages.groups(found)
    plain, dueling = sorted(pages.table(group), key=lambda row: row["variant"], reverse=True)
    assert (plain["mean"], plain["least"]) == ("0.75", "0.50")
    assert (dueling["mean"], dueling["least"]) == ("0.00", "-1.00")


def test_a_file_that_is_no_variant_is_named(script, tmp_path):
    (tmp_path / "kept").mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"seed": [1]}), tmp_path / "kept" / "x.parquet")
    with pytest.raises(dqx.ConfigError, match=r"x\.parquet holds no variant: move it away"):
        sys.modules["variants_page"].kept_in(tmp_path / "kept")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--games", "chess"], "there is no game 'chess'; known are cartpole"),
        (["--variants", "dulling"], "there is no variant 'dulling'; known are plain"),
        (["--games", "catch", "--against", "pqn"], "--against pqn is none of the variants chosen"),
        (["--page", "--keep", "/nowhere"], "/nowhere holds none of these variants yet"),
        (["--seeds", "1"], "--seeds must be at least 2, got 1"),
        (["--steps", "0", "--games", "catch"], "catch/plain: .*total_steps must be at least 1"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(script, monkeypatch, capsys, line, words):
    with pytest.raises(SystemExit) as stop:
        called(script, monkeypatch, *line)
    assert stop.value.code == 2
    assert re.search(words, capsys.readouterr().err)


@pytest.mark.parametrize("name", ["compare_variants", "atlas"])
def test_a_reader_that_goes_costs_no_file(name, tmp_path):
    results = SCRIPTS.parent / "benchmarks" / "results"
    folders = {
        "compare_variants": ["--keep", results / "variants", "--games", "catch", "--out", tmp_path],
        "atlas": ["--results", results / "atlas", "--presets", "taxi", "--docs", tmp_path],
    }
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, SCRIPTS / f"{name}.py", "--page", *folders[name]]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".md", ".png"]
