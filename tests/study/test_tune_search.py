"""The loop of a search, with made-up scores: who is trained, who wins, what that is worth."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from dqx.settings import Hyper
from dqx.study.folder import StudyError
from dqx.study.plan import read_plan
from dqx.study.tuning.file import read_tune
from dqx.study.tuning.search import Search
from tests.study.tune_kit import SPACE, Listed, Maker, quality, table

RATES = [1e-5, 3e-4, 1e-3, 1e-2]


def listed(*rates):
    return [{"learning_rate": rate, "gamma": 0.95} for rate in rates]


def searched(tmp_path, generations, score=quality, **changes):
    """A search over candidates that are listed; what was made and told."""
    changes = {"generations": len(generations), **changes}
    search = Search(read_tune(table(**changes)))
    maker, proposer, lines = Maker(tmp_path, score), Listed(*generations), []
    search.run(proposer, maker, lines.append)
    return SimpleNamespace(search=search, maker=maker, told=proposer.told, lines=lines)


def test_seeds_grow_and_only_new_ones_are_trained(tmp_path):
    done = searched(tmp_path, [listed(*RATES)], rungs=[2, 4, 8], fresh_seeds=3)
    places = [place for place, _ in done.maker.made]
    assert places == [*(f"generation-00/seeds-{n}" for n in (2, 4, 8)), "fresh"]
    assert [plan.seeds for _, plan in done.maker.made] == [
        (0, 1), (2, 3), (4, 5, 6, 7), (8, 9, 10),
    ]  # fmt: skip
    runs = done.maker.runs()
    assert len(set(runs)) == len(runs) == sum(len(c.scores) for c in done.search.candidates) + 3
    for one in done.search.candidates:
        assert [judged.seeds for judged in one.history] == [2, 4, 8][: len(one.history)]
        point = SimpleNamespace(
            name=one.name, hyper=Hyper(learning_rate=one.values["learning_rate"])
        )
        assert one.scores == [quality(point, seed) for seed in range(len(one.scores))]


def test_who_is_dropped_is_trained_no_more(tmp_path):
    done = searched(tmp_path, [listed(*RATES)], rungs=[4, 8])
    states = [one.state for one in done.search.candidates]
    # 1e-5 is worth 40 and 1e-2 70, with a luck of 5; 1e-3 is worth 100.
    assert states[0] == states[3] == "dropped" and states[2] == "finished"
    assert [len(one.scores) for one in done.search.candidates][0] == 4
    dropped = done.search.candidates[0]
    assert dropped.dropped.rule == "interval" and dropped.judged.high < dropped.dropped.bar
    assert done.search.champion.values["learning_rate"] == 1e-3
    left = states.count("finished")
    assert f"4 seeds: {left} of 4 candidates left" in done.lines[0]


def test_the_champion_drops_candidates_of_later_generations(tmp_path):
    done = searched(tmp_path, [listed(1e-3), listed(1e-5, 2e-5)], rungs=[4, 8])
    assert [one.state for one in done.search.candidates] == ["finished", "dropped", "dropped"]
    assert [place for place, _ in done.maker.made] == [
        "generation-00/seeds-4", "generation-00/seeds-8", "generation-01/seeds-4", "fresh",
    ]  # fmt: skip
    assert done.search.champion.number == 0


def test_half_go_on(tmp_path):
    wide = lambda point, seed: quality(point, seed, spread=1000.0)  # noqa: E731
    done = searched(
        tmp_path, [listed(*np.geomspace(1e-4, 1e-2, 8).tolist())], wide, rungs=[1, 2, 3], keep=0.5
    )
    assert [len(plan.points) for _, plan in done.maker.made] == [8, 4, 2, 1]


def test_what_is_told_is_the_value_on_the_seeds_seen(tmp_path):
    done = searched(tmp_path, [listed(*RATES), listed(1e-4, *RATES)], rungs=[4, 8])
    candidates = done.search.candidates
    assert done.told[0] == [one.judged.value for one in candidates[:4]]
    assert done.told[1] == [candidates[4].judged.value, *done.told[0]]
    means = [scipy.stats.trim_mean(one.scores, 0.25) for one in candidates[:4]]
    np.testing.assert_allclose(done.told[0], means)
    assert done.search.told == done.told


def test_what_was_proposed_before_is_not_trained_again(tmp_path):
    done = searched(tmp_path, [listed(1e-3, 1e-5, 1e-3), listed(1e-5, 1e-3)])
    states = [(one.state, one.same_as) for one in done.search.candidates]
    assert states[2:] == [("repeated", 0), ("repeated", 1), ("repeated", 0)]
    runs = done.maker.runs()
    assert len(set(runs)) == len(runs)
    assert not [place for place, _ in done.maker.made if place.startswith("generation-01")]


def test_a_candidate_that_cannot_work_is_told_of_and_left_out(tmp_path):
    space = {"batch_size": {"choice": [8, 999_999]}, **SPACE}
    born = [{"batch_size": size, "learning_rate": 1e-3, "gamma": 0.9} for size in (999_999, 8)]
    done = searched(tmp_path, [born], space=space)
    refused, able = done.search.candidates
    assert refused.state == "refused" and "999,999" in refused.why.replace("999999", "999,999")
    assert done.told == [[None, able.judged.value]]
    with pytest.raises(StudyError, match=r"no candidate can be trained: .*batch_size.*\[base\]"):
        searched(tmp_path / "2", [born[:1]], space=space)


def test_seeds_that_diverge_count_as_the_worst_score(tmp_path):
    def score(point, seed):
        return math.nan if seed == 1 and point.hyper.learning_rate > 5e-3 else quality(point, seed)

    done = searched(tmp_path, [listed(1e-3, 1e-2)], score, rungs=[2, 4])
    worst = min(s for one in done.search.candidates for s in one.scores[:2] if math.isfinite(s))
    lost = done.search.candidates[1]
    assert math.isnan(lost.scores[1]) and lost.history[0].diverged == 1
    assert lost.history[0].value == pytest.approx((lost.scores[0] + worst) / 2)
    with pytest.raises(StudyError, match="every candidate diverged on every seed"):
        searched(tmp_path / "2", [listed(1e-3)], lambda point, seed: math.nan)


def test_nothing_is_told_of_candidates_of_which_all_have_diverged(tmp_path):
    """Returns may all be negative, and the 0 of no score would be the best."""

    def score(point, seed):
        return math.nan if point.hyper.learning_rate > 5e-3 else -quality(point, seed)

    done = searched(tmp_path, [listed(1e-2, 3e-2), listed(1e-3, 2e-2)], score, rungs=[2])
    assert done.told[0] == [None, None]
    able, lost = (one.judged.value for one in done.search.candidates[2:])
    assert done.told[1] == [able, lost] and lost <= able < 0


def test_one_program_where_traced_fields_differ_and_one_a_static_value(tmp_path):
    done = searched(tmp_path, [listed(*RATES)])
    for _, plan in done.maker.made:
        assert len({point.config for point in plan.points}) == 1
    space = {"double": {"choice": [False, True]}, **SPACE}
    born = [{"double": n % 2 == 0, **values} for n, values in enumerate(listed(*RATES))]
    done = searched(tmp_path / "2", [born], space=space)
    assert len({point.config for point in done.maker.made[0][1].points}) == 2


def test_later_studies_keep_the_width_of_the_first(tmp_path):
    """The bits of a seed hang on it, and a default may be halved where memory is short."""
    given = table(generations=1, rungs=[2, 4], keep=0.5)
    del given["base"]["chunk_width"]
    search, widths = Search(read_tune(given)), []

    def obtain(place, plan):
        widths.append({point.config.chunk_width for point in plan.points})
        base = {**given["base"], "chunk_width": 2}
        settled = read_plan({
            "name": plan.name, "seeds": list(plan.seeds), "base": base,
            "case": [{"name": p.name, "learning_rate": p.hyper.learning_rate} for p in plan.points],
        })  # fmt: skip
        return Maker(tmp_path)(place, settled)

    search.run(Listed(listed(*RATES)), obtain)
    assert widths == [{None}, {2}, {2}]


def test_the_search_flatters_and_fresh_seeds_do_not(tmp_path):
    """Of candidates that are all worth 0 the winner's value is that of the best of six."""

    def luck(point, seed):
        return float(
            np.float32(np.random.default_rng([int(point.hyper.gamma * 1e6), seed]).normal())
        )

    values, scores = [], []
    for trial in range(60):
        born = [
            {"learning_rate": 1e-3, "gamma": round(0.9 + 0.001 * trial + 0.0001 * n, 6)}
            for n in range(6)
        ]
        search = Search(read_tune(table(generations=1, rungs=[4], fresh_seeds=4)))
        search.run(Listed(born), _studies(luck))
        values.append(search.champion.judged.value)
        scores.append(search.fresh.score.value)
        assert search.fresh.optimism.value == pytest.approx(values[-1] - scores[-1])
    # Means of the middle two of four normals have a deviation of 0.546; the expected largest of
    # six is 1.267 deviations.
    spread = 0.546
    assert np.mean(values) == pytest.approx(1.267 * spread, abs=4 * spread * 0.65 / 60**0.5)
    assert np.mean(scores) == pytest.approx(0.0, abs=4 * spread / 60**0.5)
    assert np.mean(values) > 5 * abs(np.mean(scores))


def _studies(score):
    """Studies in memory that have what the loop reads of one."""

    def obtain(place, plan):
        runs = [
            {"config": point.name, "seed": seed, "score": score(point, seed)}
            for point in plan.points
            for seed in plan.seeds
        ]
        points = {point.name: (point.config, point.hyper) for point in plan.points}
        return SimpleNamespace(
            configs=tuple(points), runs=runs, point=points.get, digests={}, seeds=plan.seeds
        )

    return obtain
