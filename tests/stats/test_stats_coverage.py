"""The script that measures intervals: its truths, its gate, and the tables that it left."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def script():
    path = ROOT / "scripts" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_truths_are_the_iqm_of_what_is_drawn(script):
    rng = np.random.default_rng(0)
    for name, truth in script.truths().items():
        rising = np.sort(truth.draw(rng, (400_000, 1)).ravel())
        found = rising[100_000:300_000].mean()
        spread = np.subtract(*np.quantile(rising, [0.9, 0.1]))
        assert found == pytest.approx(truth.iqm, abs=0.01 * spread), name


def test_measuring_counts_what_is_held(script):
    found = script.measure(script.truths()["30 % at 0, 70 % at 500"], 3, 1_000, resamples=200)
    # 0.7^3 + 0.3^3 of samples agree; any other has an interval that is wide enough.
    assert found.none == pytest.approx(0.37, abs=0.05) and found.coverage == 1
    missed = script.Truth(lambda rng, shape: rng.normal(size=shape), 100.0)
    assert script.measure(missed, 5, 200, resamples=200).coverage == 0


def test_the_table_in_the_docs_keeps_every_target(script):
    text = (ROOT / "docs" / "statistics.md").read_text()
    begin, end = script.BEGIN.format("coverage"), script.END.format("coverage")
    lines = text.partition(begin)[2].partition(end)[0].strip().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows[0][:4] == ["truth", "seeds", "no interval", "holds the truth"]
    seen, truths = set(), script.truths()
    for name, seeds, _, held, plain, _ in rows[2:]:
        seen.add((name, int(seeds)))
        if truths[name].bound:
            assert float(held) >= script.TARGETS.get(int(seeds), 0), (name, seeds)
        assert float(held) >= float(plain)  # the hull holds at least what the bootstrap does
    assert seen == {(name, n) for name in truths for n in script.SEEDS}
    others = text.partition(script.BEGIN.format("other coverage"))[2]
    assert len(re.findall(r"^\|.*0\.\d{3} +\|$", others, re.MULTILINE)) >= len(script.others()) - 2


def test_tables_go_between_their_marks(script):
    text = f"a\n{script.BEGIN.format('x')}\nold\n{script.END.format('x')}\nb\n"
    assert script.written(text, "x", ["| new |"]).splitlines() == [
        "a", script.BEGIN.format("x"), "| new |", script.END.format("x"), "b",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no lines <!-- y -->"):
        script.written(text, "y", [])
