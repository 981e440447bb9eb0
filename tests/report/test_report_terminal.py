"""Tables, sizes, times and summaries, against studies of made-up numbers."""

import math

import numpy as np
import pytest
import scipy.stats

from dqx import stats
from dqx.report import terminal
from dqx.report.terminal import Standing, rank
from dqx.study import load
from tests.study.kit import make_study

TAXI = {"env": "Taxi-v4", "network": "embedding", "exact_metrics": True}


def test_ranks_are_those_of_the_iqm():
    rng = np.random.default_rng(0)
    returns = {name: rng.normal(mean, 3, 9) for name, mean in (("a", 10), ("b", 20), ("c", 15))}
    returns["b"][0] = -1e6  # by the mean b would be the worst, by the IQM it is the best
    iqm = {name: scipy.stats.trim_mean(np.sort(v), 0.25) for name, v in returns.items()}
    found = rank(returns)
    assert [s.name for s in found] == sorted(iqm, key=iqm.get, reverse=True)
    assert found[0].name == "b" == min(returns, key=lambda name: returns[name].mean())
    for standing in found:
        assert standing.runs == 9 and standing.iqm == pytest.approx(iqm[standing.name])


def test_ranks_by_hand():
    # Of 8 numbers the two smallest and the two largest go: the mean of 3, 4, 5 and 8 is 5.
    assert rank({"a": [100, 8, 1, 5, 4, -100, 3, 9]}) == [Standing("a", 5.0, 8)]
    found = rank({"x": [math.nan], "a": [1, math.nan], "b": [2, math.inf], "y": []})
    assert [(s.name, s.runs) for s in found[:2]] == [("b", 2), ("a", 2)]
    assert [s.iqm for s in found[:2]] == [1.5, 1]  # what is not finite counts as the lowest, 1
    # Those without a finite score are last.
    assert {s.name for s in found[2:]} == {"x", "y"} and all(math.isnan(s.iqm) for s in found[2:])


def final(values):
    """A change for `make_study` that gives each metric its last values, seed by seed."""

    def change(name, seed, run):
        for metric, numbers in values.items():
            run["metrics"][metric][-1] = numbers[seed]

    return change


def summary(path, plan, **options):
    """The lines on a study of made-up numbers, without its name and its folder."""
    made = make_study(path, plan, **options)
    head, *lines, tail = terminal.summary(load(path))
    assert tail == f"folder: {path}"
    return made, head, lines


def test_one_configuration_by_its_greedy_return(tmp_path):
    scores = [3.0, 9.0, 4.0, 5.0, 100.0]
    _, head, lines = summary(tmp_path / "s", {"seeds": 5}, change=final({"eval_return": scores}))
    assert head == "study: 5 runs (1 configuration x 5 seeds)"
    _, low, high = stats.interval(np.array(scores))
    assert lines == [
        f"final greedy return: IQM 6.0, 95 % interval {low:.1f} to {high:.1f} (5 seeds)"
    ]


def test_one_configuration_by_its_exact_return(tmp_path):
    values = {
        "eval_return": [7.0, 8.0],
        "exact_return": [7.93, 6.93],
        "regret": [0.0, 1.0],
        "optimal_share": [1.0, 0.9],
        "q_error": [0.5, 1.5],
    }
    plan = {"seeds": 2, "base": TAXI}
    _, _, lines = summary(tmp_path / "s", plan, change=final(values))
    assert lines[0].startswith(
        "exact return over all starts: IQM 7.43, 95 % interval 0.09 to 14.77"
    )
    assert lines[1:] == [
        "means over seeds: regret 0.50, optimal actions in 95.0 % of the states, max |Q - Q*| 1, "
        "greedy return of evaluations 7.5"
    ]
    values["q_error"][1] = np.nan
    _, _, lines = summary(tmp_path / "t", plan, change=final(values))
    assert "max |Q - Q*| not finite, greedy" in lines[1]


def test_one_configuration_by_its_training_episodes(tmp_path):
    def change(name, seed, run):
        returns = run["metrics"]["episode_return"]
        returns[1:] = [5.0, 2.0 + seed, np.nan]  # no episode ended in the last interval

    plan = {"seeds": 2, "base": {"eval_period": 0}}
    _, _, lines = summary(tmp_path / "s", plan, change=change)
    assert lines == [
        "last return of training episodes (eval_period = 0: no evaluation): IQM 2.5, "
        "95 % interval -4.8 to 9.8 (2 seeds)"
    ]


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ([12.5], "IQM 12.5, one seed, no interval"),
        (
            [np.nan, 100.0],
            "IQM {0:.1f}, 95 % interval {1:.1f} to {2:.1f} (2 seeds), 1 seed without a finite "
            "return counted as the worst of any run and step, {3:.1f}",
        ),
        ([np.nan, -np.inf], "not finite for any seed"),
    ],
)
def test_seeds_without_a_number_are_named(tmp_path, scores, words):
    change = final({"eval_return": scores})
    made, _, lines = summary(tmp_path / "s", {"seeds": len(scores)}, change=change)
    values = np.concatenate([run["metrics"]["eval_return"] for run in made.runs.values()])
    worst = float(np.min(values[np.isfinite(values)], initial=np.inf))
    counted = [score if np.isfinite(score) else worst for score in scores]
    words = words.format(*stats.interval(counted), worst)
    assert lines[0].startswith(f"final greedy return: {words}")


def test_an_unfinished_configuration_is_judged_by_what_is_there(tmp_path):
    change = final({"eval_return": [1.0, 2.0, 3.0, 4.0, 99.0, 99.0]})
    _, head, lines = summary(tmp_path / "s", {"seeds": 6}, change=change, leave_out={1})
    assert head == "study: 4 of 6 runs (1 configuration x 6 seeds)"
    assert lines[0].startswith("final greedy return: IQM 2.5, ")
    _, head, lines = summary(tmp_path / "t", {"seeds": 6}, leave_out={0, 1})
    assert (head, lines) == ("study: 0 of 6 runs (1 configuration x 6 seeds)", [])


def test_several_configurations_are_ranked(tmp_path):
    def change(name, seed, run):
        best = {"a": 10.0, "b": 30.0, "c": 20.0}[name]
        run["metrics"]["eval_return"][-1] = best + seed
        run["diverged_at"] = 1000 if (name, seed) == ("c", 1) else -1

    cases = [{"name": "a"}, {"name": "b", "gamma": 0.5}, {"name": "c", "gamma": 0.9}]
    made, head, lines = summary(
        tmp_path / "s", {"seeds": 3, "case": cases, "base": {"total_steps": 1000}}, change=change
    )
    assert head == "study: 9 runs (3 configurations x 3 seeds)"
    scores = {name: [made.runs[name, s]["metrics"]["eval_return"][-1] for s in range(3)]
              for name in "bca"}  # fmt: skip
    rows = [[cell for cell in line.split("  ") if cell] for line in lines]
    assert [cell.strip() for cell in rows[0]] == [
        "CONFIGURATION", "RUNS", "IQM", "95 % INTERVAL", "DIVERGED"
    ]  # fmt: skip
    for row, (name, values) in zip(rows[1:], scores.items(), strict=False):
        _, low, high = stats.interval(np.array(values, np.float64))
        expected = [name, "3 of 3", f"{np.mean(values):.1f}", f"{low:.1f} to {high:.1f}"]
        assert [cell.strip() for cell in row] == expected + ["1"] * (name == "c")
    assert lines[4:] == ["diverged: 1 of 9 runs", "  seed 1 of c at step 1,000"]
    # Columns line up: each cell starts where its head does.
    starts = [lines[0].index(word) for word in ("RUNS", "IQM", "95 %")]
    assert all(line[start - 1] == " " != line[start] for line in lines[:4] for start in starts)


def test_of_several_configurations_lost_seeds_count_as_the_worst_too(tmp_path):
    def change(name, seed, run):
        run["metrics"]["eval_return"][:] = np.where(name == "b" or seed == 2, np.nan, 5.0 + seed)

    cases = [{"name": "a"}, {"name": "b", "gamma": 0.5}]
    _, _, lines = summary(tmp_path / "s", {"seeds": 3, "case": cases}, change=change)
    rows = {line.split()[0]: line.split() for line in lines[1:3]}
    assert rows["a"][4] == f"{(5 + 6 + 5) / 3:.1f}" and rows["b"][4] == "5.0"
    assert lines[3] == "4 runs without a finite score count as the worst of any run and step"


def test_many_configurations_and_diverged_runs_are_counted(tmp_path):
    def change(name, seed, run):
        run["diverged_at"] = 7 if seed else -1

    grid = {"gamma": [round(0.5 + i / 100, 2) for i in range(32)]}
    _, head, lines = summary(tmp_path / "s", {"seeds": 2, "grid": grid}, change=change)
    assert head == "study: 64 runs (32 configurations x 2 seeds)"
    assert lines[31] == "... and 2 more configurations"
    assert lines[32] == "diverged: 32 of 64 runs"
    assert [line[:9] for line in lines[33:43]] == ["  seed 1 "] * 10
    assert lines[43:] == ["  ... and 22 more"]


def test_columns_are_as_wide_as_their_widest_cells():
    assert terminal.aligned([("A", "LONG"), ("longer", "b")]) == ["A       LONG", "longer  b"]
    assert terminal.aligned([]) == []
    # Two characters of two columns each, and an accent that takes none.
    rows = [("日本", "1"), ("e\u0301", "2"), ("four", "3")]
    assert terminal.aligned(rows) == ["日本  1", "e\u0301     2", "four  3"]


def test_a_markdown_table_lines_up():
    rows = [
        {"preset": "a", "seeds": 12_345, "share": 0.12345},
        {"preset": "longer", "seeds": 1, "share": 40_600.2},
    ]
    assert terminal.markdown(rows) == [
        "| preset | seeds  | share  |",
        "|--------|--------|--------|",
        "| a      | 12,345 | 0.123  |",
        "| longer | 1      | 40,600 |",
    ]
    assert terminal.markdown([]) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0:00"), (0.2, "0:01"), (59.5, "1:00"), (754, "12:34"), (3723, "1:02:03")],
)
def test_clock(seconds, words):
    assert terminal.clock(seconds) == words


def test_durations_sizes_and_counts():
    assert [terminal.duration(x) for x in (6.2, 3723, math.nan)] == [
        "0:00:07", "1:02:03", "unknown"
    ]  # fmt: skip
    sizes = (0, 1023, 1536, 200 * 2**20, 5000 * 2**30)
    assert [terminal.size(x) for x in sizes] == [
        "0 B", "1,023 B", "1.5 KiB", "200 MiB", "5,000 GiB"
    ]  # fmt: skip
    assert [terminal.counted(n, "seed") for n in (1, 1000)] == ["1 seed", "1,000 seeds"]
