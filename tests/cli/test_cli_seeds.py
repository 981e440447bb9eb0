"""`dqx seeds`: how many seeds to plan with."""

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


def test_where_most_seeds_end_at_the_best_score_there_is_no_plan():
    """An agent whose IQM is lower by 20 spreads, and 4 seeds would find it in 8 % of studies."""
    status, (line,), err = call("seeds", "cartpole", "--difference", "20")
    assert (status, err) == (0, [])
    assert line.startswith("cartpole (CartPole-v1): no plan, since all middle seeds end at 500.00 ")


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
