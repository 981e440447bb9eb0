"""Config and Hyper as values: defaults, replacement by name, records, presets, light imports."""

import copy
import dataclasses
import json
import math
import pickle
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dqx.settings
from dqx.settings import (
    SETTINGS,
    Config,
    ConfigError,
    Hyper,
    PresetAbout,
    agent,
    complete,
    from_record,
    override,
    parse_assignments,
    preset,
    preset_about,
    preset_names,
    presets,
    rounded,
    setting,
    to_record,
    validate,
)
from dqx.settings.environments import PREFIX, is_own


def test_the_fields_are_the_settings_and_extra():
    config, hyper = Config(), Hyper()
    static = [f.name for f in dataclasses.fields(Config)]
    traced = [f.name for f in dataclasses.fields(Hyper)]
    assert static[:3] == ["env", "agent", "network"] and traced[-1] == "extra"
    assert static[-3:] == ["extra", "env_options", "env_inputs"]
    assert [*static[:-3], *traced[:-1]] == list(SETTINGS)
    assert config.extra == () and hyper.extra == {}
    for name, declared in SETTINGS.items():
        assert getattr(hyper if declared.traced else config, name) == declared.default
        assert declared.traced == (name in traced)
        assert not declared.traced or type(getattr(hyper, name)) is float
    for field in (*dataclasses.fields(Config)[:-3], *dataclasses.fields(Hyper)[:-1]):
        assert field.metadata["setting"] is SETTINGS[field.name]


def test_lists_become_tuples():
    config = dataclasses.replace(Config(), hidden_sizes=[64, 32], annealed=["learning_rate"])
    assert config.hidden_sizes == (64, 32) and config.annealed == ("learning_rate",)
    assert hash(config) == hash(Config(hidden_sizes=(64, 32), annealed=("learning_rate",)))


def test_config_error_is_a_value_error_and_its_warning_a_user_warning():
    assert issubclass(ConfigError, ValueError)
    assert issubclass(dqx.settings.ConfigWarning, UserWarning)


def test_override_reaches_both_and_leaves_the_rest():
    base = Config(num_envs=2)
    config, hyper = override(
        base, Hyper(tau=0.5), gamma=1, total_steps=960, hidden_sizes=[3, 4], double=True
    )
    assert config == dataclasses.replace(base, total_steps=960, hidden_sizes=(3, 4), double=True)
    assert hyper == Hyper(tau=0.5, gamma=1.0) and type(hyper.gamma) is float
    assert (base, Config()) == (Config(num_envs=2), Config())


def test_another_agent_leaves_the_settings_of_the_one_before_behind():
    config, hyper = preset("taxi")
    assert config.network == "embedding" and config.double and config.hidden_sizes != (120, 84)
    config, hyper = override(config, hyper, agent="tabular")
    assert (config.network, config.double, config.hidden_sizes) == ("mlp", False, (120, 84))
    assert config.env == "Taxi-v4" and config.total_steps == preset("taxi")[0].total_steps
    validate(config, hyper)


def test_another_network_leaves_the_settings_of_the_one_before_behind():
    config, hyper = override(Config(), Hyper(), network="embedding", embedding_size=7)
    assert override(config, hyper, gamma=0.5)[0].embedding_size == 7
    assert override(config, hyper, network="mlp")[0].embedding_size == 10


def test_what_is_given_with_another_agent_is_no_leftover():
    config, hyper = override(*preset("taxi"), agent="tabular", double=True)
    with pytest.raises(ConfigError, match="double = true belongs to agents with a target"):
        validate(config, hyper)


def test_replace_works_on_both():
    config, hyper = preset("cartpole")
    longer = dataclasses.replace(config, total_steps=config.total_steps * 2)
    assert longer.total_steps == 2 * config.total_steps and longer.env == config.env
    assert hyper.replace(gamma=0.5).gamma == 0.5 and hyper.gamma != 0.5
    assert hyper.replace(gamma=0.5).learning_rate == hyper.learning_rate
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.total_steps = 3
    with pytest.raises(TypeError, match="'gama'"):
        hyper.replace(gama=0.5)


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("learning_rat", "learning_rate"),
        ("total_step", "total_steps"),
        ("exploration_schedule", "epsilon_schedule"),
    ],
)
def test_an_unknown_field_names_the_closest(name, close):
    for use in (
        lambda: override(Config(), Hyper(), **{name: 1}),
        lambda: setting(name),
        lambda: from_record({name: 1}),
        lambda: parse_assignments([f"{name}=1"]),
    ):
        with pytest.raises(ConfigError, match=f"unknown field '{name}'; the closest are .*{close}"):
            use()


@pytest.mark.parametrize("name", ["extra", "config", "hyper", "zzzzzz"])
def test_names_that_are_no_settings(name):
    with pytest.raises(ConfigError, match=f"unknown field '{name}'"):
        override(Config(), Hyper(), **{name: 1})


def test_assignments():
    assert parse_assignments(["gamma=0.98", " hidden_sizes = 64,32", "env=A=B", "double=true"]) == {
        "gamma": 0.98,
        "hidden_sizes": (64, 32),
        "env": "A=B",
        "double": True,
    }
    assert parse_assignments([]) == {}


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["gamma"], "--set takes field=value, such as gamma=0.98, got 'gamma'"),
        (["=3"], "--set takes field=value, such as gamma=0.98, got '=3'"),
        (["gamma=0.9", "gamma=0.8"], "gamma is given twice: give it once"),
        (["gamma=fast"], "gamma = 'fast' is not a number"),
    ],
)
def test_assignments_that_are_none(texts, words):
    with pytest.raises(ConfigError, match=words):
        parse_assignments(texts)


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_valid_divide_as_they_are_and_come_back_from_json(real_agents, name):
    config, hyper = preset(name)
    validate(config, hyper)
    assert rounded(config) == (config, ())
    record = json.loads(json.dumps(to_record(config, hyper), allow_nan=False))
    assert from_record(record["config"], record["hyper"]) == (config, hyper)
    named = [field for half in record.values() for field in half if not is_own(field)]
    own = agent(config.agent).settings
    assert sorted(named) == sorted([*SETTINGS, *(declared.name for declared in own)])


def test_records_are_plain_and_complete():
    record = to_record(Config(chunk_width=None), Hyper(max_grad_norm=10))
    assert record["config"]["hidden_sizes"] == [120, 84] and record["config"]["annealed"] == []
    assert record["config"]["chunk_width"] is None and record["config"]["agent"] == "dqn"
    assert record["hyper"]["reward_clip"] == "inf" and record["hyper"]["max_grad_norm"] == 10.0
    assert type(record["hyper"]["max_grad_norm"]) is float
    assert from_record({"num_envs": 3}) == (Config(num_envs=3), Hyper())
    assert from_record({}, {"reward_clip": "inf", "gamma": 1})[1] == Hyper(gamma=1.0)


def test_presets_hold_what_their_files_say(real_agents):
    files = (Path(dqx.settings.__file__).parent / "presets").glob("*.toml")
    tables = [(k, v) for file in files for k, v in tomllib.loads(file.read_text("utf-8")).items()]
    assert tuple(sorted(name for name, _ in tables)) == preset_names() and len(tables) > 32
    for name, table in tables:
        config, hyper = preset(name)
        about = preset_about(name)
        for field, value in table.items():
            if field in PresetAbout._fields:
                assert getattr(about, field) == value
                continue
            if is_own(field):
                assert dict(config.env_options)[field.removeprefix(PREFIX)] == value
                continue
            got = getattr(hyper if setting(field).traced else config, field)
            assert got == (tuple(value) if isinstance(value, list) else value), (name, field)
        assert set(about._asdict()) <= set(PresetAbout._fields)


def test_what_presets_say_of_themselves(real_agents):
    for name in preset_names():
        about = preset_about(name)
        assert about.about.endswith((".", ").")) and about.source, name
        assert (about.claim == "") == about.source.startswith("our own"), name
        assert about.seeds in (8, 16, 32, 64), name
    assert preset_about("mountain-car").bar == -115.0
    assert preset_about("mountain-car/zoo").bar is None
    assert preset_about("cartpole/cleanrl").claim == "498.4 ± 2.3 (3 runs, in training)"
    assert preset("taxi/tabular")[0].agent == "tabular"


def test_a_preset_has_the_fields_of_its_base_where_it_sets_none(real_agents):
    base, own = preset("cartpole/one-step"), presets.own_fields("cartpole/qr")
    assert preset("cartpole/qr") == override(*base, **own)
    assert preset("cartpole/qr")[0].hidden_sizes == base[0].hidden_sizes == (64, 64)
    assert own["gamma"] == preset("cartpole/qr")[1].gamma != base[1].gamma
    assert not own.keys() & {"env", "base", "about"}
    fields = {**presets.own_fields("cartpole/one-step"), **own}
    assert presets.preset_fields("cartpole/qr") == fields
    assert preset_about("cartpole/qr").base == "cartpole/one-step"
    method = {"agent": "qr", "num_quantiles": 50, "huber_delta": 1.0}
    assert presets.method_fields("cartpole/qr") == method
    assert preset_about("cartpole/one-step").base == ""


@pytest.mark.parametrize(
    ("name", "close"), [("cartpol", "cartpole"), ("cartpole/cleanlr", "cartpole/cleanrl")]
)
def test_an_unknown_preset_names_the_closest(name, close):
    for use in (preset, preset_about):
        with pytest.raises(
            ConfigError, match=f"unknown preset '{name}'; the closest are .*{close}"
        ):
            use(name)
        with pytest.raises(ConfigError, match="dqx presets"):
            use("zzzzzzzz")


def test_own_settings_go_to_extra_and_are_attributes(c99):
    config, hyper = override(
        Config(), Hyper(), num_bars=21, bar_limit=3, bar_widths=[4], agent="c99", gamma=0.5
    )
    assert config.extra == (("bar_widths", (4,)), ("num_bars", 21))
    assert hyper.extra == {"bar_limit": 3.0} and type(hyper.extra["bar_limit"]) is float
    assert (config.num_bars, config.bar_widths, config.bar_shape) == (21, (4,), "flat")
    assert (hyper.bar_limit, hyper.bar_decay, hyper.gamma) == (3.0, 0.5, 0.5)
    assert hash(config) != hash(Config(agent="c99")) and hash(hyper) is not None
    for owner, name in [(config, "bar_limit"), (hyper, "num_bars"), (Config(), "num_bars")]:
        assert not hasattr(owner, name)
    with pytest.raises(AttributeError, match="agent dqn has no setting 'num_bars'"):
        Config().num_bars  # noqa: B018
    # What is given its default is as if it were not given.
    assert override(config, hyper, num_bars=51, bar_widths=(1, 2), bar_limit=10, gamma=0.99) == (
        Config(agent="c99"),
        Hyper(),
    )
    with pytest.raises(ConfigError, match="num_bars must be a whole number, got 2.5"):
        override(config, hyper, num_bars=2.5)


def test_hyper_replaces_and_completes_own_settings(c99):
    config, hyper = Config(agent="c99"), Hyper(gamma=0.5).replace(bar_decay=0.25, tau=0.5)
    assert hyper == Hyper(gamma=0.5, tau=0.5, extra={"bar_decay": 0.25})
    assert complete(config, hyper).extra == {"bar_decay": 0.25, "bar_limit": 10.0}
    assert complete(config, Hyper()).replace(bar_limit=2.0).extra == {
        "bar_decay": 0.5,
        "bar_limit": 2.0,
    }
    assert complete(Config(), hyper) == Hyper(gamma=0.5, tau=0.5)
    with pytest.raises(TypeError, match="'num_bars'"):
        hyper.replace(num_bars=3)


def test_own_settings_are_recorded_beside_the_others(c99):
    config, hyper = override(Config(), Hyper(), agent="c99", bar_shape="round", bar_limit=2.5)
    record = json.loads(json.dumps(to_record(config, hyper), allow_nan=False))
    own = {name: record["config"][name] for name in ("num_bars", "bar_shape", "bar_widths")}
    assert own == {"num_bars": 51, "bar_shape": "round", "bar_widths": [1, 2]}
    assert record["hyper"]["bar_limit"] == 2.5 and record["hyper"]["bar_decay"] == 0.5
    assert "extra" not in record["config"] and "extra" not in record["hyper"]
    assert from_record(record["config"], record["hyper"]) == (config, hyper)
    # What the agent lacks is recorded too: nothing is lost, and validation will speak of it.
    assert to_record(Config(extra={"num_bars": 7}), Hyper())["config"]["num_bars"] == 7


def test_extra_is_sorted_and_can_be_hashed():
    config = Config(extra={"b": [1, 2], "a": 3})
    assert config.extra == (("a", 3), ("b", (1, 2)))
    assert config == Config(extra=[("b", (1, 2)), ("a", 3)]) and hash(config) is not None
    assert dataclasses.replace(config, num_envs=2).extra == config.extra
    with pytest.raises(ConfigError, match="extra must be pairs of a name and a value, got 5"):
        Config(extra=5)


def test_both_survive_copies_and_pickles(c99):
    pair = override(Config(), Hyper(), agent="c99", num_bars=21, bar_limit=3.0)
    for twin in (copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        config, hyper = (twin(x) for x in pair)
        assert (config, hyper) == pair and config.num_bars == 21 and hyper.bar_limit == 3.0
    assert dataclasses.asdict(pair[1])["extra"] == {"bar_limit": 3.0}
    for kind in (Config, Hyper):
        empty = object.__new__(kind)
        for name in ("num_bars", "bar_limit", "__setstate__", "_hidden"):
            assert not hasattr(empty, name)
        assert not hasattr(kind(), "__jax_array__")


def test_equal_hypers_have_equal_hashes():
    assert hash(Hyper(gamma=0.5)) == hash(Hyper(gamma=0.5)) != hash(Hyper(gamma=0.25))
    assert Hyper(extra={"a": 1.0}) != Hyper()
    assert math.isinf(Hyper().reward_clip)


def test_importing_and_reading_settings_loads_nothing_heavy():
    code = """
import sys, dqx.settings as s
for name in s.preset_names():
    assert s.preset_about(name).about
    if s.presets.preset_fields(name).get("agent", "dqn") in ("dqn", "tabular"):
        config, hyper = s.preset(name)
        assert not s.rounded(config)[1] and s.row_steps(config)
assert s.from_record({"agent": "tabular"}, s.parse_assignments(["tau=0.5"]))[1].tau == 0.5
assert s.field_help() and s.parse_seeds("0:4") and s.agent_names()
heavy = {"jax", "flax", "numpy", "optax", "pandas", "gymnax", "dqx.agents"}
print(*sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
