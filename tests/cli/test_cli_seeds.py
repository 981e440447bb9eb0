"""`dqx seeds`: how many seeds to plan with."""

import re

import numpy as np
import pytest

from dqx import stats
from dqx.stats import reference
from tests.study.kit import call


def test_a_preset_and_an_environment():
    status, (line,), err = call("seeds", "cartpole/keras-rl", "--difference", "20")
    scores = stats.reference_scores("cartpole/keras-rl")
    needed = stats.seeds_needed(scores, scores - 20)
    assert (status, err) == (0, []) and needed is not None
    assert f"cartpole/keras-rl (CartPole-v0): plan with {needed} seeds a side to tell" in line
    assert f"difference of 20 with power 0.8 (IQM of 1,000 seeds {stats.iqm(scores):.2f}," in line
    status, lines, _ = call("seeds", "CartPole-v0", "--difference", "20", "--power", "0.95")
    presets = [name for name, env in stats.reference_presets().items() if env == "CartPole-v0"]
    assert status == 0 and [text.split()[0] for text in lines] == presets
    more = stats.seeds_needed(scores, scores - 20, 0.95)
    (line,) = [text for text in lines if text.startswith("cartpole/keras-rl")]
    assert more > needed and f"plan with {more} seeds" in line


def test_where_most_seeds_end_at_the_best_score_more_of_them_fall_short():
    status, (line,), err = call("seeds", "cartpole/cleanrl", "--difference", "20")
    scores = stats.reference_scores("cartpole/cleanrl")
    needed = stats.seeds_needed(scores, stats.lowered(scores, 20))
    assert (status, err) == (0, []) and 20 < needed < 200
    assert f"plan with {needed} seeds a side to tell a difference of 20 with power 0.8" in line
    found = re.search(r"of which (\d+) % of seeds end below 500 where (\d+) % do here", line)
    assert 25 < int(found[1]) < 90 and int(found[2]) == round(100 * np.mean(scores < 500))


@pytest.mark.parametrize(
    ("preset", "difference", "words"),
    [
        (
            "cartpole",
            "20",
            r"no plan: all middle seeds end at 500, and \d of 200 below, too few",
        ),
        ("taxi", "1", "no plan: all middle seeds end at 7.93"),
        (
            "cartpole/cleanrl",
            "300",
            r"no plan: .* the IQM would be lower by \d\d\.\d\d, not by ",
        ),
    ],
)
def test_where_too_few_fall_short_there_is_no_plan(preset, difference, words):
    status, (line,), err = call("seeds", preset, "--difference", difference)
    assert (status, err) == (0, []) and re.search(words, line), line


def test_a_preset_that_has_changed_since_is_told(monkeypatch):
    assert "other settings now" not in call("seeds", "acrobot", "--difference", "5")[1][0]
    monkeypatch.setattr(reference, "reference_settings", lambda name: {"env": "Acrobot-v1"})
    (line,) = call("seeds", "acrobot", "--difference", "5")[1]
    assert line.endswith("; the preset has other settings now)")


def test_a_difference_that_takes_too_many():
    status, (line,), _ = call("seeds", "cartpole/keras-rl", "--difference", "0.01")
    assert status == 0 and "plan with more than 1,000 seeds a side" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("Pong", "--difference", "20"), "nothing was trained before of 'Pong': choose a preset"),
        (("cartpole",), "required: --difference"),
        (("cartpole", "--difference", "0"), "--difference: must be a number above 0, got '0'"),
        (("cartpole", "--difference", "inf"), "must be a number above 0, got 'inf'"),
        (("cartpole", "--difference", "9", "--power", "1"), "must be a number between 0 and 1"),
    ],
)
def test_mistakes(arguments, words):
    status, out, err = call("seeds", *arguments)
    assert status == 2 and out == [] and len(err) == 1 and words in err[0]
