"""The rule by which candidates are dropped: by hand, and what it must never do."""

import math

import numpy as np
import pytest

from dqx.study.tuning.race import Judged, decide, judge, ranked


def one(value, low, high, mean=None):
    return Judged(4, value, low, high, value if mean is None else mean, low, high, 0)


def test_who_ends_below_the_highest_lower_end_is_dropped():
    judged = {0: one(10, 8, 12), 1: one(20, 11.9, 28), 2: one(13, 11, 15), 3: one(5, 4, 6)}
    out = decide(judged, None, keep=1.0)
    assert {n: (why.rule, why.bar) for n, why in out.items()} == {3: ("interval", 11.9)}
    assert set(decide({**judged, 1: one(20, 12.1, 28)}, None, 1.0)) == {0, 3}


def test_touching_intervals_drop_nobody():
    assert decide({0: one(1, 0, 2), 1: one(3, 2, 4)}, None, 1.0) == {}


def test_the_champion_of_earlier_generations_drops_too_and_is_never_dropped():
    judged = {7: one(10, 8, 12), 8: one(11, 9, 13)}
    assert decide(judged, one(50, 12.5, 60), 1.0).keys() == {7}
    assert decide(judged, one(50, 40, 60), 1.0).keys() == {7, 8}
    # One with a wide interval drops nobody, however high its value.
    assert decide(judged, one(50, 0, 100), 1.0) == {}


def test_at_most_the_share_goes_on_the_best_by_value():
    judged = {n: one(float(n), -100, 100) for n in range(5)}
    assert decide(judged, None, keep=0.5).keys() == {0, 1}  # 2.5 of five, rounded up
    assert decide(judged, None, keep=0.2).keys() == {0, 1, 2, 3}
    assert decide(judged, None, keep=0.01).keys() == {0, 1, 2, 3}  # one always goes on
    assert {why.rule for why in decide(judged, None, 0.5).values()} == {"share"}
    assert {why.bar for why in decide(judged, None, 0.5).values()} == {2.0}


def test_the_share_is_of_all_that_were_judged():
    """Those whom intervals drop count: half of four are the two that are left."""
    judged = {0: one(1, 0, 2), 1: one(2, 1, 3), 2: one(90, 80, 99), 3: one(91, 81, 99)}
    out = decide(judged, None, 0.5)
    assert {n: why.rule for n, why in out.items()} == {0: "interval", 1: "interval"}


def test_equal_values_are_ranked_by_mean_and_then_by_number():
    judged = {3: one(500, 1, 2, mean=490), 1: one(500, 1, 2, mean=480), 2: one(500, 1, 2, mean=490)}
    assert ranked(judged) == [2, 3, 1]


def test_scores_are_judged_by_hand():
    found = judge([1.0, 2.0, 3.0, 100.0, 5.0, 4.0, 0.0, 3.0], worst=-7.0, level=0.9)
    assert found.value == pytest.approx((2 + 3 + 3 + 4) / 4)
    assert found.mean == pytest.approx(118 / 8)
    assert (found.seeds, found.diverged) == (8, 0)
    assert found.low < found.value < found.high


def test_a_seed_that_diverged_counts_as_the_worst():
    found = judge([10.0, math.nan, 30.0], worst=-7.0, level=0.95)
    assert (found.value, found.mean, found.diverged) == (11.0, 11.0, 1)
    assert found.reach == judge([10.0, -7.0, 30.0], 0.0, 0.95).reach


def test_one_seed_has_no_interval_and_drops_nobody():
    judged = {n: judge([10.0 * n], worst=0.0, level=0.95) for n in range(4)}
    assert {found.reach for found in judged.values()} == {(-math.inf, math.inf)}
    assert judged[1].interval_text == "one seed, no interval"
    assert decide(judged, None, 1.0) == {}


def test_where_all_seeds_agree_they_stand_for_the_interval():
    found = judge([9.0, *[500.0] * 31], 0.0, 0.95)
    assert math.isnan(found.low) and found.reach == (9.0, 500.0)
    assert found.interval_text == "all middle seeds agree, no interval"
    low = judge([9.3, 9.4, 9.5, 9.4], 0.0, 0.95)
    assert decide({0: judge([500.0] * 4, 0.0, 0.95), 1: low}, None, 1.0).keys() == {1}
    assert decide({0: found, 1: low}, None, 1.0) == {}


@pytest.mark.parametrize("keep", [1.0, 0.5, 0.1])
def test_the_holder_of_the_bar_and_the_best_of_the_rest_stay(keep):
    rng = np.random.default_rng(3)
    for _ in range(200):
        low, high = np.sort(rng.normal(size=(2, 9)), axis=0)
        value = rng.uniform(low, high)
        judged = {n: one(*numbers) for n, numbers in enumerate(zip(value, low, high, strict=True))}
        out = decide(judged, None, keep)
        left = [n for n in judged if n not in out]
        assert 1 <= len(left) <= max(1, math.ceil(9 * keep))
        assert out.get(int(low.argmax()), ("share",))[0] == "share"
        able = [n for n in judged if high[n] >= low.max()]
        assert max(able, key=lambda n: value[n]) in left


def test_how_often_equal_candidates_lose_one_by_intervals():
    """Of two with the same truth one is dropped about as seldom as the interval's level says."""
    rng, lost = np.random.default_rng(5), 0
    for _ in range(300):
        judged = {n: judge(rng.normal(size=16).tolist(), 0.0, 0.95) for n in range(2)}
        lost += bool(decide(judged, None, 1.0))
    assert lost / 300 < 0.05
