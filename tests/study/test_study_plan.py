"""Plans: what a file or a dictionary means, and what is said about mistakes."""

import dataclasses
import json
import math
import re
import time
import warnings

import numpy as np
import pytest

import dqx
from dqx.settings import Config, ConfigError, ConfigWarning, Hyper
from dqx.study import Plan, Point, StudyError, read_plan
from dqx.study.plan import MAX_POINTS, single
from dqx.study.point import point_of, point_record

EXAMPLE = """
name = "lr-and-target"
seeds = "0:64"
[base]
preset = "cartpole/cleanrl"
[grid]
learning_rate = [1e-4, 2.5e-4, 1e-3]
double = [false, true]
[[case]]
name = "no-target"
target_period = 1
"""
SMALL = {"total_steps": 400, "learning_starts": 100, "log_period": 100, "eval_period": 200}


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    path = tmp_path_factory.mktemp("plans") / "some-file.toml"
    path.write_text(EXAMPLE)
    return read_plan(path)


def names(plan):
    return [point.name for point in plan.points]


def test_the_example_is_understood(example):
    assert (example.name, example.root_seed, example.snapshot_every) == ("lr-and-target", 0, 0)
    assert example.seeds == tuple(range(64))
    # The last list turns fastest, and cases come after the grid.
    assert names(example) == [
        "learning_rate=0.0001, double=false",
        "learning_rate=0.0001, double=true",
        "learning_rate=0.00025, double=false",
        "learning_rate=0.00025, double=true",
        "learning_rate=0.001, double=false",
        "learning_rate=0.001, double=true",
        "no-target",
    ]
    config, hyper = dqx.preset("cartpole/cleanrl")
    assert config.target_period != 1
    rates = [1e-4, 1e-4, 2.5e-4, 2.5e-4, 1e-3, 1e-3]
    for i, (point, rate) in enumerate(zip(example.points[:6], rates, strict=True)):
        assert point.config == dataclasses.replace(config, double=i % 2 == 1)
        assert point.hyper == hyper.replace(learning_rate=rate)
        assert point.varied == {
            "target_period": config.target_period, "double": i % 2 == 1, "learning_rate": rate,
        }  # fmt: skip
    case = example.points[6]
    assert (case.config, case.hyper) == (dataclasses.replace(config, target_period=1), hyper)
    assert (example.num_runs, example.total_steps) == (7 * 64, 7 * 64 * config.total_steps)


def test_defaults_and_the_name_of_the_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("seeds = 1\n")
    plan = read_plan(path)
    assert (plan.name, plan.seeds, names(plan)) == ("mine", (0,), ["default"])
    assert plan.points[0] == Point("default", Config(), Hyper(), {})
    assert read_plan({"base": {"preset": "cartpole"}}).points[0].name == "cartpole"
    assert read_plan(plan) == plan and read_plan(str(path)) == plan


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [(3, (0, 1, 2)), ("8:10", (8, 9)), ("5,2", (5, 2)), ([7, 2**32 - 1], (7, 2**32 - 1))],
)
def test_seeds_and_the_rest_of_the_head(seeds, expected):
    plan = read_plan({"seeds": seeds, "root_seed": 9, "snapshot_every": 30_000})
    assert (plan.seeds, plan.root_seed, plan.snapshot_every) == (expected, 9, 30_000)


def test_presets_in_the_grid():
    plan = read_plan({"grid": {"preset": ["cartpole", "mountain-car"], "gamma": [0.9]}})
    assert names(plan) == ["preset=cartpole, gamma=0.9", "preset=mountain-car, gamma=0.9"]
    for point, name in zip(plan.points, ("cartpole", "mountain-car"), strict=True):
        config, hyper = dqx.preset(name)
        assert (point.config, point.hyper) == (config, hyper.replace(gamma=0.9))
        assert point.varied["preset"] == name and "gamma" not in point.varied
        assert point.varied["env"] == config.env
        assert point_of(json.loads(json.dumps(point_record(point)))) == point


def test_presets_in_cases_and_what_a_case_sets_wins():
    plan = read_plan(
        {
            "base": {"preset": "cartpole", "gamma": 0.5},
            "case": [
                {"name": "as base"},
                {"name": "other", "preset": "cartpole/cleanrl"},
                {"name": "own", "gamma": 0.6},
            ],
        }
    )
    assert [p.varied["preset"] for p in plan.points] == ["cartpole", "cartpole/cleanrl", "cartpole"]
    assert [p.hyper.gamma for p in plan.points] == [0.5, 0.5, 0.6]
    assert [p.config for p in plan.points[:2]] == [
        dqx.preset("cartpole")[0], dqx.preset("cartpole/cleanrl")[0]
    ]  # fmt: skip


def test_lists_of_lists_and_infinities(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("[grid]\nhidden_sizes = [[64, 64], [32]]\nmax_grad_norm = [inf, 10]\n")
    plan = read_plan(path)
    assert names(plan)[:2] == [
        "hidden_sizes=64,64, max_grad_norm=inf", "hidden_sizes=64,64, max_grad_norm=10"
    ]  # fmt: skip
    assert [p.varied for p in plan.points[1:3]] == [
        {"hidden_sizes": (64, 64), "max_grad_norm": 10.0},
        {"hidden_sizes": (32,), "max_grad_norm": math.inf},
    ]


def test_points_survive_strict_json():
    hyper = Hyper(reward_clip=1.0, max_grad_norm=math.inf, learning_rate=1 / 3)
    config = Config(hidden_sizes=(7, 5), chunk_width=None)
    varied = {"hidden_sizes": (7, 5), "max_grad_norm": math.inf, "preset": "mine", "double": False}
    point = Point("a", config, hyper, varied)
    text = json.dumps(point_record(point), allow_nan=False)
    again = point_of(json.loads(text))
    assert again == point
    assert type(again.config.hidden_sizes) is tuple and type(again.hyper.gamma) is float
    assert point_of(json.loads(text) | {"varied": {"preset": None}}).varied == {"preset": None}


def test_points_of_another_version_are_refused():
    record = json.loads(json.dumps(point_record(Point("a", Config(), Hyper(), {}))))
    record["config"]["dueling"] = True
    with pytest.raises(ConfigError, match="unknown field 'dueling'"):
        point_of(record)


def test_names_tell_close_numbers_apart():
    plan = read_plan({"grid": {"learning_rate": [0.12345678, 0.12345679, 0.1]}})
    assert names(plan) == [
        "learning_rate=0.12345678", "learning_rate=0.12345679", "learning_rate=0.1"
    ]  # fmt: skip


def told(call):
    """What a call gives, and the lines of its `ConfigWarning`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = call()
    assert all(line.category is ConfigWarning for line in caught)
    return found, [str(line.message) for line in caught]


def test_periods_are_rounded_and_each_change_is_told_once():
    table = {
        "base": {**SMALL, "train_period": 16},
        "grid": {"learning_rate": [1e-3, 1e-4], "log_period": [96, 100]},
    }
    plan, lines = told(lambda: read_plan(table))
    assert lines == [
        "learning_starts 100 is rounded up to 112, the next multiple of train_period 16",
        "eval_period 200 is rounded up to 208, the next multiple of train_period 16",
        "log_period 100 is rounded up to 112, the next multiple of train_period 16",
    ]
    assert [p.config.log_period for p in plan.points] == [96, 112, 96, 112]
    # A point keeps its name and shows what is trained.
    assert names(plan)[1] == "learning_rate=0.001, log_period=100"
    assert plan.points[1].varied == {"log_period": 112, "learning_rate": 1e-3}
    assert {p.config.eval_period for p in plan.points} == {208}
    assert told(lambda: read_plan(plan)) == (plan, [])
    again = [point_of(json.loads(json.dumps(point_record(point)))) for point in plan.points]
    assert tuple(again) == plan.points


def test_what_is_hardly_meant_is_told_for_a_new_plan_only():
    table = {"base": SMALL, "case": [{"name": "a"}, {"name": "long", "learning_starts": 400}]}
    plan, lines = told(lambda: read_plan(table))
    (line,) = lines
    assert line.startswith("learning_starts 400 is not below total_steps 400: every action is rand")
    assert told(lambda: read_plan(plan)) == (plan, [])


def test_the_plan_of_one_configuration():
    config, hyper = dqx.preset("cartpole")
    plan = single("cartpole-v1", config, hyper, [3, 4], label="cartpole", root_seed=2)
    assert plan == Plan("cartpole-v1", (Point("cartpole", config, hyper, {}),), (3, 4), 2, 0)
    assert single("mine", config, hyper, 2).points[0].name == "mine"
    assert single("mine", config, hyper, 2, snapshot_every=7).snapshot_every == 7
    with pytest.raises(StudyError, match="name must be letters"):
        single("../mine", config, hyper, 2)
    with pytest.raises(ConfigError, match="none are given"):
        single("mine", config, hyper, [])
    odd = dataclasses.replace(config, train_period=8, log_period=81)
    plan, lines = told(lambda: single("mine", odd, hyper, 1))
    assert plan.points[0].config.log_period == 88
    assert "log_period 81 is rounded up to 88, the next multiple of train_period 8" in lines


def test_fields_of_another_agent_are_refused_where_they_are_given():
    base = {"env": "Taxi-v4", "agent": "tabular"}
    (point,) = read_plan({"base": {**base, "visit_power": 0.5}}).points
    assert (point.config.agent, point.hyper.visit_power) == ("tabular", 0.5)
    for field, value in (("double", True), ("hidden_sizes", [3]), ("tau", 0.5)):
        with pytest.raises(ConfigError, match=f"configuration b: {field} = .*agent is tabular"):
            read_plan({"base": base, "case": [{"name": "a"}, {"name": "b", field: value}]})
    both = {
        "base": {"env": "Taxi-v4"},
        "case": [
            {"name": "net", "network": "embedding", "double": True},
            {"name": "table", **base},
        ],
    }
    plan = read_plan(both)
    assert [p.varied["agent"] for p in plan.points] == ["dqn", "tabular"]
    assert [p.varied["double"] for p in plan.points] == [True, False]


MISTAKES = {
    "unknown entry": ({"sedes": 3}, "unknown entry 'sedes'.*closest are seeds"),
    "field at top": (
        {"learning_rate": 1e-3}, r"unknown entry 'learning_rate'.*belong under \[base\]"
    ),
    "unknown field": ({"base": {"gama": 0.9}}, "unknown field 'gama'.*gamma"),
    "unknown field of grid": ({"grid": {"lerning_rate": [1]}}, "'lerning_rate'.*learning_rate"),
    "unknown preset": ({"base": {"preset": "cartpol"}}, "unknown preset 'cartpol'.*cartpole"),
    "preset no text": ({"grid": {"preset": [["cartpole"]]}}, r"preset must be.*\['cartpole'\]"),
    "base no table": ({"base": [1]}, r"base must be a table, such as \[base\], got \[1\]"),
    "grid no table": ({"grid": "x"}, "grid must be a table.*'x'"),
    "search no table": ({"search": 3}, "search must be a table.*3"),
    "value no list": ({"grid": {"double": True}}, r"grid: double must be a list.*double = \[...\]"),
    "text no list": ({"grid": {"loss": "huber"}}, "grid: loss must be a list.*'huber'"),
    "empty list": ({"grid": {"gamma": []}}, r"grid: gamma must be a list of values.*got \[\]"),
    "type": ({"base": {"double": 1}}, "double must be true or false, got 1"),
    "type in grid": (
        {"grid": {"hidden_sizes": [64]}},
        "configuration hidden_sizes=64: hidden_sizes must be a list of whole numbers.*got 64",
    ),
    "twice in grid": ({"grid": {"gamma": [0.9, 0.9]}}, "two .* named 'gamma=0.9': .*must differ"),
    "two cases": ({"case": [{"name": "a"}, {"name": "a"}]}, "two configurations are named 'a'"),
    "case like grid": (
        {"grid": {"gamma": [0.9]}, "case": [{"name": "gamma=0.9"}]}, "two .* named 'gamma=0.9'"
    ),
    "case a table": ({"case": {"name": "a"}}, r"list of tables, each \[\[case\]\]"),
    "case a text": ({"case": ["a"]}, r"list of tables, each \[\[case\]\], got \['a'\]"),
    "case no name": ({"case": [{"gamma": 0.9}]}, r"every \[\[case\]\] needs a name.*got None"),
    "case blank": ({"case": [{"name": " "}]}, "needs a name.*got ' '"),
    "case unprintable": ({"case": [{"name": "a\nb"}]}, r"needs a name.*got 'a\\nb'"),
    "name": ({"name": "../x"}, r"name must be letters.*names a folder, got '\.\./x'.*set name"),
    "name of dots": ({"name": ".."}, r"name must be letters.*'\.\.'"),
    "name with a line": ({"name": "a\n"}, r"name must be letters.*'a\\n'"),
    "name empty": ({"name": ""}, "name must be letters.*''"),
    "name long": ({"name": "a" * 101}, "at most 100"),
    "name number": ({"name": 3}, "name must be letters.*3"),
    "huge grid": (
        {"grid": {"gamma": [0.1] * 200, "tau": [0.1] * 200}}, "40,000 points, at most 10,000"
    ),
    "too many runs": (
        {"grid": {"gamma": [0.8, 0.9]}, "seeds": 600_000},
        "2 configurations x 600,000 seeds are 1,200,000 runs, at most 1,000,000.*split",
    ),
    "seeds": ({"seeds": "many"}, "seeds 'many' is not understood"),
    "no seeds": ({"seeds": []}, "none are given"),
    "seeds twice": ({"seeds": [3, 3]}, "more than once: 3"),
    "seeds float": ({"seeds": 2.5}, "seeds must be whole numbers.*2.5"),
    "seeds bool": ({"seeds": True}, "seeds must be whole numbers.*True"),
    "seed negative": ({"seeds": [-1]}, r"0 to 2\*\*32 - 1, got -1"),
    "far too many seeds": ({"seeds": 10**12}, "1,000,000,000,000 are more than 1,000,000"),
    "root seed": ({"root_seed": "x"}, "root_seed must be a whole number, got 'x'"),
    "root seed negative": ({"root_seed": -1}, "root_seed.*-1"),
    "snapshots negative": ({"snapshot_every": -100}, "snapshot_every must be .*0 for none.*-100"),
    "snapshots float": ({"snapshot_every": 1e5}, "snapshot_every must be a whole number"),
    "search empty": ({"search": {}}, "search: draws must be a whole number, got None"),
    "search nothing": ({"search": {"draws": 3}}, "no field is drawn; add learning_rate"),
    "search draws": (
        {"search": {"draws": 0, "gamma": {"choice": [1]}}}, "draws must be from 1 to 10,000, got 0"
    ),
    "search too many": (
        {"search": {"draws": 10_001, "gamma": {"choice": [1]}}}, "from 1 to 10,000, got 10001"
    ),
    "search seed": (
        {"search": {"draws": 1, "seed": -1, "gamma": {"choice": [1]}}}, "seed must be .*got -1"
    ),
    "search rule": (
        {"search": {"draws": 1, "gamma": {"normal": [0, 1]}}},
        "search: gamma must be drawn by one of log_uniform, uniform, choice.*'normal'",
    ),
    "search list": ({"search": {"draws": 1, "gamma": [0.9, 1]}}, "gamma must be drawn by one of"),
    "search choice": (
        {"search": {"draws": 1, "loss": {"choice": "huber"}}}, "choice of loss takes a list"
    ),
    "search no choice": ({"search": {"draws": 1, "loss": {"choice": []}}}, r"list, got \[\]"),
    "search falling": (
        {"search": {"draws": 1, "gamma": {"uniform": [1, 0.5]}}}, "two rising numbers.*1, 0.5"
    ),
    "search from 0": (
        {"search": {"draws": 1, "learning_rate": {"log_uniform": [0, 1]}}},
        "log_uniform of learning_rate takes two rising positive numbers",
    ),
    "search field": (
        {"search": {"draws": 1, "gama": {"uniform": [0, 1]}}}, "unknown field 'gama'.*gamma"
    ),
    "search preset": (
        {"search": {"draws": 1, "preset": {"uniform": [0, 1]}}}, "preset must be the name"
    ),
    "cannot work": (
        {"grid": {"gamma": [0.9, 1.5]}}, r"configuration gamma=1\.5: gamma must be between 0 and 1"
    ),
    "cannot work in a case": (
        {"base": SMALL, "case": [{"name": "small", "replay_capacity": 64}, {"name": "usual"}]},
        "configuration small: .*replay_capacity",
    ),
    "environment": ({"base": {"env": 3}}, "env must be a text, got 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_line(name):
    table, words = MISTAKES[name]
    with pytest.raises((StudyError, ConfigError)) as caught:
        read_plan(table)
    text = str(caught.value)
    assert "\n" not in text and re.search(words, text), text


def test_files_that_are_no_plan(tmp_path):
    with pytest.raises(StudyError, match=r"cannot read the plan .*a\.toml: No such file.*TOML"):
        read_plan(tmp_path / "a.toml")
    with pytest.raises(StudyError, match="cannot read the plan .*: Is a directory"):
        read_plan(tmp_path)
    path = tmp_path / "b.toml"
    path.write_text("seeds: 3\n")
    with pytest.raises(StudyError, match=r"b\.toml is no TOML: .*line 1, column 6"):
        read_plan(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StudyError, match=r"b\.toml is no TOML: 'utf-8'"):
        read_plan(path)
    path.write_text("sedes = 3\n")
    with pytest.raises(StudyError, match=r"b\.toml has an unknown entry 'sedes'"):
        read_plan(path)
    odd = tmp_path / "my plan.toml"
    odd.write_text("seeds = 3\n")
    with pytest.raises(StudyError, match="name .*'my plan': set name in the plan"):
        read_plan(odd)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "../x"}, "name must be letters"),
        ({"points": ()}, "at least one configuration"),
        ({"points": (Point("a", Config(), Hyper(), {}),) * 2}, "two configurations are named 'a'"),
        ({"points": (Point("a", Config(batch_size=0), Hyper(), {}),)}, "batch_size must be"),
        ({"seeds": ()}, "none are given"),
        ({"seeds": (1, 1)}, "more than once"),
        ({"root_seed": -1}, "root_seed"),
        ({"snapshot_every": -3}, "snapshot_every must be a whole number, 0 for none, got -3"),
    ],
)
def test_plans_made_by_hand_are_checked_too(changes, words):
    plan = Plan("a", (Point("a", Config(), Hyper(), {}),), (0, 1))
    assert read_plan(plan) == plan
    with pytest.raises((StudyError, ConfigError), match=words):
        read_plan(dataclasses.replace(plan, **changes))


def test_the_largest_grid_is_read_soon():
    grid = {"gamma": np.linspace(0, 1, MAX_POINTS // 2).tolist(), "double": [False, True]}
    started = time.process_time()
    plan = read_plan({"grid": grid})
    assert len(plan.points) == MAX_POINTS == len(set(names(plan)))
    assert time.process_time() - started < 5
