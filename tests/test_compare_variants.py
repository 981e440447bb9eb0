"""The script that compares variants: what it trains, that it goes on, and its tables."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import dqx
from dqx import stats
from dqx.study import load

SCRIPT = Path(__file__).parent.parent / "scripts" / "compare_variants.py"
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("compare_variants", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def called(script, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["compare_variants.py", *map(str, arguments)])
    return script.main()


def test_every_variant_can_be_trained_on_every_game(script):
    plans = script.planned(None, None, None, None)
    for game in script.GAMES:
        names = {name.partition("/")[2] for name in plans if name.partition("/")[0] == game}
        assert {"plain", "dueling", "n-step", "c51", "qr", "iqn", "noisy", "per"} <= names
    for name, plan in plans.items():
        (point,) = dqx.study.read_plan(plan).points
        plain = dqx.study.read_plan(plans[f"{name.partition('/')[0]}/plain"]).points[0]
        assert point.name == name and point.config.env == plain.config.env
        assert (point.config == plain.config) == name.endswith("/plain")
        assert point.config.total_steps == plain.config.total_steps or name.endswith("/pqn")
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
    text, record = (tmp_path / "variants.md").read_text(), (tmp_path / "variants.json").read_text()
    assert text in capsys.readouterr().out
    page = (tmp_path / "report" / "index.html").read_text()
    found = json.loads(record)
    scores = {
        name: load(tmp_path / name).scores()
        for name in ("cartpole/plain", "cartpole/dueling", "catch/plain", "catch/dueling")
    }
    for name, values in scores.items():
        assert found["scores"][name] == values.tolist() and name in page
        game, _, variant = name.partition("/")
        (row,) = [row for row in found["games"][game] if row["variant"] == variant]
        assert row["IQM"] == f"{stats.iqm(values):.2f}" and row["mean"] == f"{values.mean():.2f}"
        if variant == "dueling":
            plain = scores[f"{game}/plain"]
            wins = np.mean((np.sign(values[:, None] - plain) + 1) / 2)
            assert row["P(> plain)"].startswith(f"{wins:.2f}") and row["verdict"] == "cannot tell"
    # Over both games, by hand: shares of 500, and of the way from -1 to 1.
    for row in found["over_games"]:
        both = np.stack(
            [
                scores[f"cartpole/{row['variant']}"] / 500,
                (scores[f"catch/{row['variant']}"] + 1) / 2,
            ]
        )
        expected = np.sort(both.ravel())[1:5].mean()  # of 6 scores a quarter is 1, rounded down
        assert row["normalised IQM"] == f"{expected:.3f}"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert called(script, monkeypatch, *line) == 0  # trains nothing again
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")} == before


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--games", "chess"], "there is no game 'chess'; known are cartpole"),
        (["--variants", "dulling"], "there is no variant 'dulling'; known are plain"),
        (["--seeds", "1"], "--seeds must be at least 2, got 1"),
        (["--steps", "0", "--games", "catch"], "catch/plain: .*total_steps must be at least 1"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(script, monkeypatch, capsys, line, words):
    with pytest.raises(SystemExit) as stop:
        called(script, monkeypatch, *line)
    assert stop.value.code == 2
    assert re.search(words, capsys.readouterr().err)
