"""A search as a picture and as lines: what stands where, and that everything is said."""

import json
import re

import matplotlib.image
import numpy as np
import pytest

from dqx.report import cases, findings, page, tune_picture
from dqx.report.page import search
from dqx.report.tune_table import result_lines, search_lines
from dqx.study.tuning.file import read_tune
from dqx.study.tuning.results import Tuned
from dqx.study.tuning.search import Search
from tests.study.tune_kit import Listed, Maker, table


@pytest.fixture
def tuned(tmp_path):
    """Six candidates: one wins, one finishes, two are dropped, one repeats, one cannot work."""
    born = [{"learning_rate": rate, "gamma": 0.95} for rate in (1e-5, 1e-3, 1.2e-3, 1e-2, 1e-3)]
    born.append({"learning_rate": 1e-3, "gamma": 7.0})
    made = Search(read_tune(table(generations=1, rungs=[4, 8])))
    made.run(Listed(born), Maker(tmp_path))
    return Tuned(tmp_path, made)


def test_every_candidate_has_its_row_and_the_winner_its_score(tuned):
    lines = result_lines(tuned)
    winner = tuned.winner
    assert lines[0].startswith("made: 6 candidates (2 dropped, 1 repeated, 1 refused) in 1 gen")
    row = next(line for line in lines if line.startswith(f"{winner.number}  "))
    assert f"  {tuned.search_value.value:.1f}  " in row and "  winner  " in row
    dropped = tuned.candidates[0]
    assert f"dropped: ends below {dropped.dropped.bar:.1f}" in "\n".join(lines)
    assert any(line.startswith("cannot work: learning_rate=0.001, gamma=7: ") for line in lines)
    assert f"winner: candidate {winner.number}, {winner.name}" in lines
    score = next(line for line in lines if line.startswith("score, on 5 fresh seeds: "))
    assert f"IQM {tuned.score.value:.1f}, 95 % interval: {tuned.score.low:.1f} to" in score
    gap = tuned.search_value.value - tuned.score.value
    assert any(line.startswith(f"optimism of the search: {gap:+.1f}") for line in lines)


def test_a_search_under_way_has_lines_too(tuned):
    assert search_lines(Search(tuned.tune)) == ["made: 0 candidates in 1 generation, 0 runs"]


def test_candidates_stand_at_their_values(tuned):
    left, right = tune_picture.figure(tuned).axes
    shown = {}
    for line in left.lines:
        if line.get_marker() in ("o", "D"):
            shown |= dict(zip(line.get_xdata(), line.get_ydata(), strict=True))
    trained = [one for one in tuned.candidates if one.history]
    assert shown == {one.number: one.judged.value for one in trained}
    low, high = left.get_ylim()
    scores = [s for one in trained for s in one.scores]
    assert low < min(scores) and max(scores) < high
    squares = {line.get_marker(): line for line in right.lines}
    assert squares["D"].get_ydata() == [tuned.search_value.value]
    assert squares["s"].get_ydata() == [tuned.score.value]
    assert sorted(squares["."].get_ydata()) == sorted(tuned.fresh_scores)
    assert f"optimism {tuned.optimism.value:+.1f}" in right.get_xlabel()
    assert tuned.winner.name in left.get_xlabel().replace("\n", " ")


def test_the_picture_is_written_whole_and_the_same_every_time(tuned, tmp_path):
    one, two = (tune_picture.draw(tmp_path / f"{n}.png", tuned) for n in range(2))
    assert one.read_bytes() == two.read_bytes()
    pixels = matplotlib.image.imread(one)
    assert pixels.shape[:2] == (750, 1500) and len(np.unique(pixels[..., :3])) > 20


def test_the_page_holds_the_search_beside_the_study_of_its_winner(tuned):
    path = search.write(tuned)
    assert path == tuned.path / "report" / "index.html"
    found = re.search(r'<script[^>]* id="data">(.*?)</script>', path.read_text(), re.DOTALL)
    data = json.loads(found[1])
    assert data["title"] == "made: the winner"
    assert [case["label"] for case in data["groups"][0]["cases"]] == [tuned.winner.name]
    here = data["search"]
    assert here["winner"] == tuned.winner.number and len(here["candidates"]) == 6
    np.testing.assert_allclose(here["score"]["iqm"], tuned.score.value, rtol=1e-5)
    np.testing.assert_allclose(here["optimism"]["iqm"], tuned.optimism.value, rtol=1e-4)
    assert [seed for seed, _ in here["freshScores"]] == list(tuned.tune.fresh)
    assert here["candidates"][0]["state"].startswith("dropped: ends below")
    assert "gamma" in here["candidates"][5]["state"] and "iqm" not in here["candidates"][5]
    assert here["candidates"][0]["values"] == [1e-5, 0.95]


def test_the_page_of_a_study_has_no_search(tuned):
    studies = [tuned.study]
    assert "search" not in page.content(studies, findings.groups(cases.read(studies)))
