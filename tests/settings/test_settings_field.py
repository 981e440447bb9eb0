"""Every declaration: its default, texts, help and range, and what is said about mistakes."""

import json
import math
import re

import jax.numpy as jnp
import numpy as np
import pytest

from dqx.settings import SETTINGS, ConfigError, brief, field_help, own_setting, setting, show

NAMES = tuple(SETTINGS)
WHOLE = tuple(n for n, s in SETTINGS.items() if s.type in (int, int | None) and s.high is None)
TRACED = tuple(n for n, s in SETTINGS.items() if s.traced)

# The ranges once more, by hand: type of a column, then what is allowed and what is not.
AT_LEAST_1 = ("at least 1", (1, 2, 2**31 - 1), (0, -3))
AT_LEAST_0 = ("at least 0", (0, 1, 2**31 - 1), (-1, -50))
SHARE = ("between 0 and 1", (0.0, 0.5, 1.0, 1), (-0.5, 1.5, math.nan, math.inf, -math.inf))
POSITIVE_SHARE = ("greater than 0 and at most 1", (1e-9, 1.0), (0.0, -1.0, 1.5, math.nan, math.inf))
POSITIVE = (
    "finite and greater than 0", (1e-12, 1.0, 1e12), (0.0, -0.5, math.nan, math.inf, -math.inf)
)  # fmt: skip
NOT_NEGATIVE = (
    "finite and at least 0", (0.0, 1.0, 1e12), (-0.5, math.nan, math.inf, -math.inf)
)  # fmt: skip
LIMIT = ("greater than 0 (inf: no limit)", (1e-9, 10.0, math.inf), (0.0, -0.5, math.nan, -math.inf))
SWITCH = ("true or false", (True, False), (0, 1, "true", None))
TEXT = ("a text", ("anything", ""), (3, None, True))


def among(*choices):
    return f"one of {', '.join(choices)}", choices, ("nonsense", "")


ALLOWED = {
    "env": TEXT,
    "agent": among("dqn", "qr", "tabular"),
    "network": among("mlp", "nature_cnn", "minatar_cnn", "coarse_cnn", "embedding"),
    "hidden_sizes": ("all be at least 1", ((), (1,), (64, 3)), ((8, 0), (-1,))),
    "convolution": among("blocks", "plain"),
    "scale_pixels": SWITCH,
    "embedding_size": AT_LEAST_1,
    "initial_q": ("finite", (-1e9, 0.0, 7.5), (math.nan, math.inf, -math.inf)),
    "activation": among("relu", "tanh", "swish"),
    "initializer": among("lecun_normal", "glorot_uniform", "torch"),
    "head": among("plain", "dueling_avg", "dueling_max", "dueling_naive"),
    "stream_sizes": ("all be at least 1", ((), (1,), (64, 3)), ((8, 0), (-1,))),
    "dense": among("plain", "noisy"),
    "noisy_sigma": POSITIVE,
    "layer_norm": SWITCH,
    "frame_stack": ("between 1 and 256", (1, 4, 256), (0, -3, 257)),
    "action_repeat": AT_LEAST_1,
    "sticky_actions": SHARE,
    "time_limit": AT_LEAST_0,
    "normalize_observations": SWITCH,
    "num_envs": AT_LEAST_1,
    "total_steps": AT_LEAST_1,
    "learning_starts": AT_LEAST_0,
    "train_period": AT_LEAST_1,
    "updates_per_train": AT_LEAST_1,
    "batch_size": AT_LEAST_1,
    "replay_capacity": AT_LEAST_1,
    "replay": among("auto", "plain", "sketch", "once"),
    "replay_ends": AT_LEAST_0,
    "sampling": among("uniform", "newest", "prioritized", "ranked"),
    "rank_period": AT_LEAST_1,
    "n_step": AT_LEAST_1,
    "target_period": AT_LEAST_1,
    "log_period": AT_LEAST_1,
    "eval_period": AT_LEAST_0,
    "eval_episodes": AT_LEAST_1,
    "eval_states": AT_LEAST_0,
    "exact_metrics": SWITCH,
    "double": SWITCH,
    "target": among("max", "clipped_double", "expected_sarsa", "munchausen"),
    "value_rescaling": NOT_NEGATIVE,
    "loss": among("squared", "huber", "keras_mse"),
    "optimizer": among("adam", "radam", "sgd", "rmsprop"),
    "averaging": among("none", "evaluation", "acting"),
    "policy": among(
        "epsilon_greedy",
        "ez_greedy",
        "greedy",
        "boltzmann",
        "max_boltzmann",
        "boltzmann_gumbel",
        "softmax",
    ),
    "epsilon_schedule": among("constant", "linear", "exponential", "per_episode"),
    "epsilon_ladder": SWITCH,
    "diagnostics": (
        "one of overestimation, dormant_units, effective_rank, replay_age, target_distance",
        ((), ("replay_age",), ("target_distance", "overestimation")),
        (),
    ),
    "annealed": ("a list of names", ((), ("gamma",)), ("gamma", (1,), None)),
    "time_limit_is_terminal": SWITCH,
    "chunk_width": ("at least 1 or none", (None, 1, 64), (0, -2)),
    "learning_rate": POSITIVE,
    "learning_rate_decay": NOT_NEGATIVE,
    "gamma": SHARE,
    "epsilon_start": SHARE,
    "epsilon_end": SHARE,
    "epsilon_steps": POSITIVE,
    "epsilon_decay": SHARE,
    "ladder_power": NOT_NEGATIVE,
    "repeat_power": POSITIVE,
    "temperature": POSITIVE,
    "visit_power": SHARE,
    "priority_exponent": SHARE,
    "priority_floor": POSITIVE,
    "importance_start": SHARE,
    "importance_end": SHARE,
    "importance_steps": POSITIVE,
    "anneal_steps": POSITIVE,
    "anneal_scale": NOT_NEGATIVE,
    "tau": POSITIVE_SHARE,
    "average_decay": SHARE,
    "max_grad_norm": LIMIT,
    "reward_scale": POSITIVE,
    "reward_clip": LIMIT,
    "td_error_clip": LIMIT,
    "munchausen_scale": SHARE,
    "munchausen_temperature": POSITIVE,
    "munchausen_clip": LIMIT,
    "huber_delta": LIMIT,
    "momentum": SHARE,
    "rmsprop_decay": SHARE,
    "optimizer_epsilon": POSITIVE,
}


def test_every_setting_has_its_range_here():
    assert set(ALLOWED) == set(SETTINGS)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_allowed_passes_and_the_rest_is_refused_by_name_and_value(name):
    words, good, bad = ALLOWED[name]
    for value in good:
        assert SETTINGS[name].check(value) == value
    for value in bad:
        with pytest.raises(ConfigError) as caught:
            SETTINGS[name].check(value)
        message = str(caught.value)
        assert message.startswith(f"{name} must "), message
        assert words in message and repr(value) in message and "\n" not in message, message


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_fit_into_int32(name):
    with pytest.raises(ConfigError, match=rf"{name} must be below 2\*\*31, got {2**31}: .* int32"):
        SETTINGS[name].check(2**31)
    with pytest.raises(ConfigError, match=r"must all be below 2\*\*31"):
        SETTINGS["hidden_sizes"].check((4, 2**40))


@pytest.mark.parametrize("name", NAMES)
def test_defaults_pass_and_are_read_back(name):
    declared = SETTINGS[name]
    checked = declared.check(declared.default)
    assert checked == declared.default and type(checked) is type(declared.default)
    parsed = declared.parse(declared.show(declared.default))
    assert parsed == declared.default and type(parsed) is type(declared.default)
    text = json.dumps(declared.to_json(declared.default), allow_nan=False)
    assert declared.check(json.loads(text)) == declared.default
    assert declared.name == name and setting(name) is declared


@pytest.mark.parametrize("name", NAMES)
def test_allowed_values_survive_text_and_json(name):
    declared = SETTINGS[name]
    for value in ALLOWED[name][1]:
        assert declared.parse(declared.show(value)) == value
        text = json.dumps(declared.to_json(value), allow_nan=False)
        assert declared.typed(json.loads(text)) == value


def test_infinities_are_texts_in_json():
    assert SETTINGS["reward_clip"].to_json(math.inf) == "inf"
    assert SETTINGS["initial_q"].to_json(-math.inf) == "-inf"
    assert SETTINGS["reward_clip"].typed("inf") == math.inf
    for text in ("0.5", "Infinity", ""):
        with pytest.raises(ConfigError, match=f"reward_clip must be a number, got '{text}'"):
            SETTINGS["reward_clip"].typed(text)


@pytest.mark.parametrize("name", NAMES)
def test_help_tells_what_and_the_default(name):
    declared = SETTINGS[name]
    text = declared.help()
    assert text.startswith(declared.doc) and len(declared.doc) > 3
    shown = declared.show(declared.default) or "nothing"
    assert text.endswith(f"default {shown})"), text
    if "one of" in ALLOWED[name][0]:
        assert ALLOWED[name][0] in text


def test_help_tells_the_range_and_the_owner():
    assert "int, at least 1; for agents with a network;" in SETTINGS["hidden_sizes"].help().replace(
        "int,int,...", "int"
    )
    assert SETTINGS["chunk_width"].help().endswith("(int, at least 1 or none; default none)")
    assert (
        SETTINGS["tau"]
        .help()
        .endswith("(float, greater than 0 and at most 1; for agents with a target; default 1)")
    )
    assert "rounded up to a multiple of train_period" in SETTINGS["log_period"].help()
    assert "for networks with frames" in SETTINGS["convolution"].help()


def test_the_list_of_settings_has_every_one_in_order_and_fits_the_width():
    lines = field_help(70)
    listed = [line.split()[0] for line in lines if re.match(r"  \w", line)]
    assert listed == list(SETTINGS)
    assert max(map(len, lines)) <= 70
    assert lines[0] == "fields of --set, with the defaults that a preset may change:"
    assert "hyperparameters of --set:" in lines
    assert " ".join(" ".join(lines).split()).count("; default ") == len(SETTINGS)


COLUMNS = {
    "double": "bool",
    "total_steps": "int64",
    "chunk_width": "int64",
    "initial_q": "float64",
    "gamma": "float64",
    "env": "string",
    "hidden_sizes": "string",
    "annealed": "string",
}


@pytest.mark.parametrize("name", COLUMNS)
def test_types_of_columns(name):
    assert SETTINGS[name].parquet == COLUMNS[name]


WRONG_TYPES = [
    *[(name, 2.0, "a whole number") for name in ("total_steps", "batch_size", "num_envs")],
    ("total_steps", True, "a whole number"),
    ("total_steps", "100", "a whole number"),
    ("total_steps", None, "a whole number"),
    ("double", 1, "true or false"),
    ("double", "true", "true or false"),
    ("env", 3, "a text"),
    ("hidden_sizes", 64, "a list of whole numbers"),
    ("hidden_sizes", (64.0,), "a list of whole numbers"),
    ("hidden_sizes", (True,), "a list of whole numbers"),
    ("hidden_sizes", "64,64", "a list of whole numbers"),
    ("chunk_width", 1.5, "a whole number or none"),
    ("chunk_width", "none", "a whole number or none"),
    *[("gamma", value, "a number") for value in ("0.9", True, None, [0.9], b"1", 1j)],
    ("gamma", 10**400, "a number"),
    ("initial_q", "0", "a number"),
    ("annealed", "gamma", "a list of names"),
    ("annealed", (1,), "a list of names"),
]


@pytest.mark.parametrize(("name", "value", "words"), WRONG_TYPES)
def test_wrong_types_are_refused(name, value, words):
    message = re.escape(f"{name} must be {words}") + ".*" + re.escape(f"got {brief(value)}")
    for use in (SETTINGS[name].typed, SETTINGS[name].check, SETTINGS[name].to_json):
        with pytest.raises(ConfigError, match=message):
            use(value)


@pytest.mark.parametrize("value", [np.float32(0.5), jnp.float32(0.5), np.float64(0.5), 0.5])
@pytest.mark.parametrize("name", TRACED)
def test_hyperparameters_may_be_scalars_of_numpy_and_jax(name, value):
    checked = SETTINGS[name].check(value)
    assert checked == 0.5 and type(checked) is float
    assert SETTINGS[name].show(value) == "0.5" and SETTINGS[name].to_json(value) == 0.5


def test_canonical_values():
    assert SETTINGS["hidden_sizes"].typed([3, 4]) == (3, 4)
    assert SETTINGS["annealed"].typed(["gamma"]) == ("gamma",)
    assert type(SETTINGS["gamma"].typed(1)) is float
    assert type(SETTINGS["initial_q"].typed(-2)) is float


def test_close_choices_are_named():
    for name, value, close in [
        ("network", "natur_cnn", "nature_cnn"),
        ("policy", "bolzmann", "boltzmann"),
        ("agent", "dqm", "dqn"),
    ]:
        with pytest.raises(ConfigError, match=f"got '{value}'; the closest are {close}"):
            SETTINGS[name].check(value)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("total_steps", "500000", 500_000),
        ("total_steps", "500_000", 500_000),
        ("total_steps", "5e5", 500_000),
        ("total_steps", " 1E3 ", 1000),
        ("total_steps", "1000.0", 1000),
        ("total_steps", "-3", -3),
        ("learning_rate", "1e-3", 1e-3),
        ("max_grad_norm", "inf", math.inf),
        ("gamma", "1", 1.0),
        ("hidden_sizes", "64,32", (64, 32)),
        ("hidden_sizes", "(64, 32)", (64, 32)),
        ("hidden_sizes", "[64]", (64,)),
        ("hidden_sizes", "64,", (64,)),
        ("hidden_sizes", "", ()),
        ("double", "true", True),
        ("double", "False", False),
        ("env", "CartPole-v1", "CartPole-v1"),
        ("chunk_width", "none", None),
        ("chunk_width", "None", None),
        ("chunk_width", "8", 8),
        ("initial_q", "-2.5", -2.5),
        ("annealed", "learning_rate, temperature", ("learning_rate", "temperature")),
        ("annealed", "", ()),
    ],
)
def test_parse(name, text, value):
    parsed = SETTINGS[name].parse(text)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("total_steps", "many", "a whole number"),
        ("total_steps", "1.5", "a whole number"),
        ("total_steps", "", "a whole number"),
        ("total_steps", "inf", "a whole number"),
        ("total_steps", "nan", "a whole number"),
        ("total_steps", "none", "a whole number"),
        ("learning_rate", "fast", "a number"),
        ("learning_rate", "none", "a number"),
        ("double", "yes", "true or false"),
        ("double", "1", "true or false"),
        ("hidden_sizes", "a,b", "a list of whole numbers"),
        ("hidden_sizes", "1.5,2", "a list of whole numbers"),
        ("chunk_width", "wide", "a whole number or none"),
    ],
)
def test_parse_refuses_other_texts(name, text, words):
    with pytest.raises(ConfigError, match=re.escape(f"{name} = {text!r} is not {words}")):
        SETTINGS[name].parse(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (None, "none"),
        (3, "3"),
        (0.1, "0.1"),
        (1e-8, "1e-08"),
        (250_000.0, "250000"),
        (1333.3333333333333, "1333.3333333333333"),
        (np.float64(1333.3333333333333), "1333.3333333333333"),
        (math.inf, "inf"),
        ((64, 32), "64,32"),
        ("a b", "a b"),
        (("a", "b"), "a,b"),
    ],
)
def test_show(value, text):
    assert show(value) == text


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("a b", 1, "words"), {}, "must be a word"),
        (("_hidden", 1, "words"), {}, "must be a word"),
        (("size", None, "words"), {}, "size has the type <class 'NoneType'>: give type"),
        (("size", (), "words"), {}, "size has the type .*: give type"),
        (("size", 3, "words"), {"low": 4}, "size must be at least 4, got 3"),
        (("shape", "flat", "words"), {"choices": ("round",)}, "shape must be one of round"),
        (("size", 3, "words"), {"traced": True, "type": int}, "size is traced and must be a float"),
    ],
)
def test_own_settings_that_make_no_sense(arguments, options, words):
    with pytest.raises(ConfigError, match=words):
        own_setting(*arguments, **options)


def test_types_of_own_settings_follow_from_their_defaults():
    def kind(default, **options):
        made = own_setting("name", default, "words", **options)
        assert made.own and type(made.default) is not list
        return made.type

    assert kind(3) is int and kind(3, traced=True) is float and kind(3, type=float) is float
    assert kind(0.5) is float and kind(True) is bool and kind("a") is str
    assert kind([3]) == tuple[int, ...] and kind(("a",)) == tuple[str, ...]
    assert kind((), type=tuple[str, ...]) == tuple[str, ...]
    assert kind(None, type=int | None) == int | None
    assert own_setting("free", 1, "words", type=float, infinite=True).help() == (
        "words (float, any number but nan; default 1)"
    )
