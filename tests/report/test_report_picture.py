"""The picture of a study shows what was measured, by what it is judged by."""

import numpy as np
import pytest

from dqx.report import plots
from dqx.report.picture import Picture, draw
from dqx.study import load
from tests.study.kit import make_study


@pytest.fixture
def drawn(monkeypatch):
    """What the pictures are given: the arguments of each call, by function."""
    calls = []
    for name in ("learning_curve", "comparison"):
        monkeypatch.setattr(
            plots, name, lambda *args, name=name, **named: calls.append((name, args, named))
        )
    return calls


@pytest.mark.parametrize(
    ("base", "metric", "ylabel"),
    [
        ({}, "eval_return", "greedy return (sum of rewards an episode)"),
        ({"eval_period": 0}, "episode_return", "no evaluation"),
        (
            {"env": "Taxi-v4", "network": "embedding", "exact_metrics": True},
            "exact_return",
            "exact greedy return over all starts",
        ),
    ],
)
def test_one_configuration_is_drawn_seed_by_seed(tmp_path, drawn, base, metric, ylabel):
    def change(config, seed, run):
        if seed == 2:
            run["diverged_at"] = 250

    made = make_study(tmp_path / "s", {"seeds": 3, "base": base}, change=change)
    assert draw(tmp_path / "a.png", load(tmp_path / "s")) is True
    ((name, (steps, values), named),) = drawn
    assert name == "learning_curve" and named["path"] == tmp_path / "a.png"
    env = base.get("env", "CartPole-v1")
    assert named["title"] == f"default: {env}" and ylabel in named["ylabel"]
    assert named["diverged_at"] == [-1, -1, 250]
    assert list(steps) == [100, 200, 300, 400]
    expected = [made.runs["default", seed]["metrics"][metric] for seed in range(3)]
    np.testing.assert_array_equal(values, expected)


def test_several_configurations_are_compared(tmp_path, drawn):
    cases = [{"name": f"case {i}", "gamma": 0.5 + i / 10} for i in range(3)]
    made = make_study(tmp_path / "s", {"seeds": 3, "case": cases})
    assert draw(tmp_path / "a.png", load(tmp_path / "s")) is True
    ((name, (curves,), named),) = drawn
    assert (name, named["title"]) == ("comparison", "study")
    assert list(curves) == [case["name"] for case in cases]
    for case, (steps, values) in curves.items():
        assert list(steps) == [100, 200, 300, 400]
        expected = [made.runs[case, seed]["metrics"]["eval_return"] for seed in range(3)]
        np.testing.assert_array_equal(values, expected)


def test_where_configurations_are_judged_differently_what_all_have_is_drawn(tmp_path, drawn):
    cases = [{"name": "silent", "eval_period": 0}, {"name": "evaluated"}]
    make_study(tmp_path / "s", {"seeds": 2, "case": cases})
    assert draw(tmp_path / "a.png", load(tmp_path / "s")) is True
    ((name, (curves,), named),) = drawn
    assert name == "comparison" and list(curves) == ["silent", "evaluated"]
    assert "no evaluation" in named["ylabel"]


def test_what_has_no_number_counts_as_the_worst_and_the_title_says_so(tmp_path, drawn):
    def change(config, seed, run):
        values = run["metrics"]["eval_return"]
        values[:] = np.where(np.isfinite(values), 3 + seed, np.nan)
        if config == "lost" or seed == 1:
            values[2:] = np.nan

    cases = [{"name": "lost"}, {"name": "kept", "gamma": 0.5}]
    make_study(tmp_path / "s", {"seeds": 2, "case": cases}, change=change)
    study = load(tmp_path / "s")
    assert draw(tmp_path / "a.png", study) is True
    ((_, (curves,), named),) = drawn
    assert named["title"].endswith(" (3 runs without a number: counted as the worst)")
    for name, rows in zip(study.configs, study.to_arrays("eval_return"), strict=True):
        there = np.isfinite(rows)
        np.testing.assert_array_equal(curves[name][1][there], rows[there])
        assert (curves[name][1][~there] == 3).sum() == (2 if name == "lost" else 1)


def test_a_shorter_budget_and_another_game_lack_nothing(tmp_path, drawn):
    def change(config, seed, run):
        values = run["metrics"]["eval_return"]
        level = {"short": 50.0, "long": 80.0, "other": -200.0}[config]
        values[:] = np.where(np.isfinite(values), level, np.nan)
        if (config, seed) == ("long", 1):
            values[-1] = np.nan

    cases = [
        {"name": "short", "total_steps": 200}, {"name": "long"},
        {"name": "other", "env": "MountainCar-v0"},
    ]  # fmt: skip
    study = load(make_study(tmp_path / "s", {"seeds": 2, "case": cases}, change=change).folder.path)
    assert draw(tmp_path / "a.png", study) is True
    ((_, (curves,), named),) = drawn
    assert named["title"] == "study (1 run without a number: counted as the worst)"
    found = {name: rows[:, 1::2].tolist() for name, (_, rows) in curves.items()}
    # The worst of CartPole, not of MountainCar.
    assert found["long"] == [[80, 80], [80, 50]] and found["other"] == [[-200, -200]] * 2
    assert np.isnan(curves["short"][1][:, 2:]).all()


def test_what_is_not_finished_is_not_counted(tmp_path, drawn):
    cases = [{"name": "a"}, {"name": "b", "gamma": 0.5}]
    plan = {"seeds": 6, "base": {"chunk_width": 4}, "case": cases}
    study = load(make_study(tmp_path / "s", plan, leave_out={1}).folder.path)
    assert draw(tmp_path / "a.png", study) is True and 0 < study.num_finished < 12
    ((_, (curves,), named),) = drawn
    assert named["title"] == "study"
    finished = {name: study.finished_runs(name).seeds for name in study.configs}
    for name, (_, rows) in curves.items():
        assert np.isfinite(rows).any(axis=1).sum() == len(finished[name])


def test_without_a_finite_number_there_is_no_picture(tmp_path, drawn):
    make_study(tmp_path / "s", {"seeds": 3}, leave_out={0})
    assert draw(tmp_path / "a.png", load(tmp_path / "s")) is False
    assert drawn == []


@pytest.mark.parametrize("configs", [1, 2])
def test_the_sink_leaves_a_png_in_the_folder(tmp_path, configs):
    cases = [{"name": f"case {i}", "gamma": 0.5 + i / 10} for i in range(configs)]
    made = make_study(tmp_path / "s", {"seeds": 3, "case": cases})
    Picture().complete(load(tmp_path / "s"))
    picture = made.folder.picture.read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 20_000
