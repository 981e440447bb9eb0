"""Wrong winners and seeds needed against other ways of counting; stopping early keeps its word."""

import math
import re
import types
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import scipy.stats

import dqx
from dqx import stats
from dqx.stats.reference import reference_seeds

ATLAS = Path(__file__).parents[2] / "benchmarks" / "results" / "atlas"


def test_wrong_winners_equal_enumeration():
    a, b = [0.0, 4.0], [1.0, 2.0]  # a's IQM is 2, b's 1.5
    rates = stats.wrong_winner(a, b, [1, 2], resamples=40_000)
    # One seed each: 0 loses to both, 4 beats both. Two: sums 0, 4, 4, 8 against 2, 3, 3, 4; the
    # sum 0 always loses, 4 ties with 4 in one of four.
    assert rates == pytest.approx([0.5, 0.25 + 0.5 * 0.25 * 0.5], abs=0.01)
    assert stats.wrong_winner([1, 2, 3], [1, 2, 3], [3]) == pytest.approx([0.5])
    assert stats.wrong_winner([9, 9], [1, 1], [1, 50]).tolist() == [0, 0]
    # The same seed on both sides: a is always one higher.
    luck = np.random.default_rng(0).normal(0, 100, 30)
    assert stats.wrong_winner(luck + 1, luck, [1, 3], paired=True).tolist() == [0, 0]
    assert stats.wrong_winner(luck + 1, luck, [3])[0] > 0.4


def test_wrong_winners_grow_rarer_as_for_normal_values():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.5, 1, 4_000), rng.normal(0, 1, 4_000)
    rates = stats.wrong_winner(a, b, [3, 20], resamples=20_000)
    assert rates[0] == pytest.approx(scipy.stats.norm.cdf(-0.5 / np.sqrt(2 / 3)), abs=0.03)
    assert rates[1] == pytest.approx(
        scipy.stats.norm.cdf(-0.5 / (1.09 * np.sqrt(2 / 20))), abs=0.03
    )


@pytest.mark.parametrize("effect", [0.8, 1.5])
def test_seeds_needed_are_about_those_of_the_textbook(effect):
    rng = np.random.default_rng(0)
    a, b = rng.normal(effect, 1, 3_000), rng.normal(0, 1, 3_000)
    effect = stats.iqm(a) - stats.iqm(b)  # of the seeds at hand
    found = stats.seeds_needed(a, b, 0.8)
    # Twice the variance of an IQM, 1.19 / n, times the square of both quantiles.
    textbook = 2 * 1.19 * ((1.96 + 0.842) / effect) ** 2
    assert textbook * 0.85 < found < textbook * 1.25 + 2
    assert stats.seeds_needed(a, b, 0.95) > found
    assert stats.seeds_needed(b, a, 0.8) == pytest.approx(found, abs=2)


def test_studies_of_so_many_seeds_do_find_it():
    rng = np.random.default_rng(3)
    a, b = rng.exponential(1.6, 500), rng.exponential(1, 500)
    n = stats.seeds_needed(a, b, 0.8)
    seen = 0
    for repeat in range(150):
        gap = stats.difference(rng.choice(a, n), rng.choice(b, n), resamples=300, seed=repeat)
        seen += bool(gap.low > 0)
    assert 0.65 < seen / 150 < 0.9  # the hull with the bootstrap asks for a little more


def test_pairs_need_fewer_seeds_and_the_hopeless_has_no_number():
    luck = np.random.default_rng(0).normal(0, 10, 40)
    noise = np.random.default_rng(1).normal(0, 1, 40)
    assert stats.seeds_needed(luck + 2 + noise, luck, paired=True) < 12
    assert stats.seeds_needed(luck + 2 + noise, luck, most=100) is None
    assert stats.seeds_needed([5, 5, 6], [5, 6, 5]) is None
    # However far apart: two sides of 3 seeds cannot reach 5 % in a permutation test, 4 can.
    assert stats.seeds_needed([100, 101], [1, 2], 0.9) >= 4
    assert stats.seeds_needed([500.0, 500], [1.0, 1]) == 4


def test_what_is_drawn_spreads_more_than_the_few_seeds_at_hand():
    """A thousand copies of three seeds are known to be all there is; three seeds are not."""
    a, b = np.array([10.0, 14.0, 18.0]), np.array([8.0, 11.0, 14.0])
    few, many = stats.seeds_needed(a, b), stats.seeds_needed(np.tile(a, 999), np.tile(b, 999))
    assert few == pytest.approx(1.5 * many, rel=0.25)  # the variance of 3 is 2/3 of the truth


def test_bets_do_not_see_the_seed_that_they_are_on():
    from dqx.stats.sequential import _bets

    x = np.random.default_rng(0).random(20)
    other = np.concatenate([x[:10], 1 - x[10:]])
    one, two = _bets(x, 0.05), _bets(other, 0.05)
    np.testing.assert_array_equal(one[:11], two[:11])
    assert (one[11:] != two[11:]).any()


def test_whoever_looks_after_every_seed_errs_as_rarely_as_he_says():
    """Both sides equal, and a look after each of 150 seeds: found in 5 % of studies at most."""
    rng = np.random.default_rng(0)
    early = {"cap": 0, "uniform": 0}
    naive = 0
    for _ in range(150):
        sides = rng.random((2, 150))
        early["uniform"] += stats.decide(*sides, (0, 1)).seeds is not None
        capped = np.where(sides < 0.3, 0.0, 500.0)
        early["cap"] += stats.decide(*capped, (0, 500)).seeds is not None
        gaps = sides[0] - sides[1]
        n = np.arange(5, 151)
        means = np.cumsum(gaps)[4:] / n
        errors = np.sqrt((np.cumsum(gaps**2)[4:] / n - means**2) / (n - 1))
        naive += bool((np.abs(means) > scipy.stats.t.ppf(0.975, n - 1) * errors).any())
    # 150 studies at a true rate of 5 %: above 11 % once in a thousand.
    assert early["cap"] / 150 <= 0.11 and early["uniform"] / 150 <= 0.11
    assert naive / 150 > 0.2  # which a t interval looked at after every seed does not keep


def test_a_real_difference_is_found_and_its_sign_told():
    rng = np.random.default_rng(1)
    x = np.where(rng.random(200) < 0.9, 500.0, 100.0)
    y = np.where(rng.random(200) < 0.4, 500.0, 100.0)
    found = stats.decide(x, y, (0, 500))
    assert 5 < found.seeds < 80 and found.sign == 1
    assert stats.decide(y, x, (0, 500)) == (found.seeds, -1)
    # It hangs on nothing that came later.
    assert stats.decide(x[: found.seeds], y[: found.seeds], (0, 500)) == found
    assert stats.decide(x[: found.seeds - 1], y[: found.seeds - 1], (0, 500)) == (None, 0)


def test_the_sequence_of_intervals_closes_in_and_equals_a_loop():
    rng = np.random.default_rng(2)
    values = rng.beta(2, 3, 60)
    found = stats.confidence_sequence(values, (0, 1))
    assert (np.diff(found.low) >= 0).all() and (np.diff(found.high) <= 0).all()
    assert (found.low < found.high).all() and found.low[-1] < 0.4 < found.high[-1]
    np.testing.assert_allclose(found.value, np.cumsum(values) / np.arange(1, 61))
    moved = stats.confidence_sequence(100 * values - 50, (-50, 50))
    np.testing.assert_allclose(moved.low, 100 * found.low - 50)

    def capital(mean):
        """Both gamblers' largest capital over time, in the words of the source."""
        up = down = 1.0
        spread, most = 0.25, 0.0
        for t, x in enumerate(values, start=1):
            bet = math.sqrt(2 * math.log(2 / 0.05) / (spread * t * math.log(t + 1)))
            up *= 1 + min(bet, 0.75 / mean) * (x - mean)
            down *= 1 - min(bet, 0.75 / (1 - mean)) * (x - mean)
            most = max(most, up, down)
            means = [(0.5 + values[:i].sum()) / (i + 1) for i in range(1, t + 1)]
            spread = (0.25 + ((values[:t] - means) ** 2).sum()) / (t + 1)
        return most

    low, high, step = found.low[-1], found.high[-1], 0.002
    for mean, left_out in ((low - step, 1), (low + step, 0), (high - step, 0), (high + step, 1)):
        assert (capital(mean) >= 2 / 0.05) == left_out


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: stats.wrong_winner([1], [2], [0]), "seeds hold 0"),
        (lambda: stats.seeds_needed([1], [2, 3]), "at least two"),
        (lambda: stats.seeds_needed([1, 2], [2, 3], 80), "power is 80"),
        (lambda: stats.confidence_sequence([1, 2], (0, 1)), "beyond the bounds 0"),
        (lambda: stats.confidence_sequence([1, 2], (1, 0)), "bounds are 1 and 0"),
        (lambda: stats.decide([1, 2], [3, 7], (0, 5)), "beyond the bounds"),
        (lambda: stats.decide([1, np.nan], [3, 4], (0, 5)), "NaN"),
        (lambda: stats.decide([1, 2], [3], (0, 5)), "paired"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_reference_scores_stand_for_those_of_the_atlas():
    """The package's 200 scores of a preset beside all of its seeds, where the checkout has them."""
    presets = stats.reference_presets()
    assert {"cartpole": "CartPole-v1", "taxi": "Taxi-v4"}.items() <= presets.items()
    for preset in presets:
        path = ATLAS / f"{preset.replace('/', '-')}-scores.parquet"
        table = pyarrow.parquet.read_table(path)
        every = np.sort(table.column("score").to_numpy().astype(float))
        assert np.isfinite(every).all()
        spaced = stats.reference_scores(preset)
        assert len(spaced) == min(200, len(every)) and (np.diff(spaced) >= 0).all()
        assert reference_seeds(preset) == len(every)
        wide = np.ptp(every)
        # Seven digits of each are there.
        assert stats.iqm(spaced) == pytest.approx(stats.iqm(every), rel=1e-6, abs=0.005 * wide)
        for share in (0.05, 0.25, 0.5, 0.75, 0.95):
            low, high = np.quantile(every, (share - 0.01, share + 0.01))
            assert low - 1e-3 <= np.quantile(spaced, share) <= high + 1e-3


def test_reference_scores_plan_a_study():
    scores = stats.reference_scores("cartpole/keras-rl")
    wide, narrow = (stats.seeds_needed(scores, scores - gap) for gap in (40, 20))
    assert 4 < wide < narrow < 200
    # By the textbook for normal scores of that spread, of which trimming loses some.
    needed = 2 * ((1.96 + 0.84) * scores.std() / 20) ** 2
    assert needed / 2 < narrow < 2 * needed
    with pytest.raises(
        ValueError, match="'Pong' has no reference scores: choose one of .*cartpole"
    ):
        stats.reference_scores("Pong")


def test_an_agent_whose_middle_seeds_spread_is_lower_seed_by_seed():
    scores = np.array([1.0, 5.0, 7.0, 9.0])
    assert stats.lowered(scores, 2.5).tolist() == [-1.5, 2.5, 4.5, 6.5]


def test_where_seeds_tie_at_the_best_more_of_them_fall_short():
    rng = np.random.default_rng(0)
    scores = np.concatenate([np.full(80, 500.0), rng.uniform(300, 499, 20)])
    for difference in (1.0, 20.0, 60.0):
        weaker = stats.lowered(scores, difference)
        assert stats.iqm(weaker) == pytest.approx(500 - difference, abs=0.5)
        assert set(weaker) <= set(scores) and len(weaker) == 1000
        # Of those that fall short each is there as often as any other.
        _, counts = np.unique(weaker[weaker < 500], return_counts=True)
        assert len(counts) == 20 and counts.max() - counts.min() <= 1
    with pytest.raises(ValueError, match="if all fell short as 20 of 100 do, the IQM would be lo"):
        stats.lowered(scores, 300)
    with pytest.raises(ValueError, match="all middle seeds end at 500, and 9 of 89 below, too few"):
        stats.lowered(scores[:89], 20)
    with pytest.raises(ValueError, match="difference is 0: give a number above 0"):
        stats.lowered(scores, 0)


def test_the_best_score_is_the_one_that_seeds_have_not_a_rounded_mean_of_it():
    scores = np.concatenate([np.full(168, 7.93), np.linspace(-5, 7, 12)])
    weaker = stats.lowered(scores, 1.0)
    assert stats.iqm(weaker) == pytest.approx(6.93, abs=0.1) and np.mean(weaker < 7.93) < 1


def test_planned_seeds_find_what_they_were_planned_for_where_seeds_tie():
    rng = np.random.default_rng(0)
    scores = stats.reference_scores("cartpole/cleanrl")
    weaker = stats.lowered(scores, 50)
    n = stats.seeds_needed(scores, weaker, 0.8)
    studies = ((rng.choice(scores, n), rng.choice(weaker, n)) for _ in range(200))
    found = [stats.permutation_test(x, y, permutations=1000).p <= 0.05 for x, y in studies]
    assert np.mean(found) > 0.75


def test_the_study_of_the_documents_that_stops_by_itself(monkeypatch, capsys):
    """As printed, with scores that are made up: one side is at 180, the other at 40."""
    asked = []

    def train(config, hyper, seeds):
        asked.append((config.double, list(seeds)))
        scores = np.random.default_rng(seeds.start).uniform(-20, 20, len(seeds))
        return types.SimpleNamespace(scores=scores + (180 if config.double else 40))

    monkeypatch.setattr(dqx, "train", train)
    text = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text()
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", text, re.S) if "stats.decide" in b]
    exec(block, {})
    after = re.fullmatch(r"the preset is better, after (\d+) seeds\n", capsys.readouterr().out)
    assert 1 < int(after[1]) <= len(asked) * 8 / 2 < 40
    assert [double for double, _ in asked] == [True, False] * (len(asked) // 2)
    assert [seed for _, seeds in asked[::2] for seed in seeds] == list(range(4 * len(asked)))
