"""One list of variants: every axis of the value-based family, of which tests over all are made.

An axis is a setting, and its values are those that the setting's declaration gives: a choice or an
agent that is added anywhere is in every test without a line here. Rows combine values of all axes,
so that few rows use them all (`covering`) or use every pair that is allowed (`pairwise`).
"""

import functools
import itertools

import dqx
from dqx.settings import SETTINGS, ConfigError
from tests.shared import HYPER, TINY

# Choices that are no axis of learning: tested by themselves, or by the environments that need them.
APART = {"env", "network", "convolution", "activation", "initializer", "optimizer", "loss",
         "epsilon_schedule", "replay", "diagnostics", "scale_pixels",
         "time_limit_is_terminal"}  # fmt: skip
# Values of axes that are numbers.
NUMBERS = {"n_step": (1, 3), "value_rescaling": (0.0, 1e-2), "frame_stack": (1, 2)}
# What a value needs beside it.
BESIDE = {
    ("agent", "tabular"): {"env": "Taxi-v4"},
    ("agent", "c51"): {"v_max": 50.0},
    ("agent", "pqn"): {"batch_size": 8, "train_period": 16, "updates_per_train": 4},
    ("exact_metrics", True): {"env": "Taxi-v4"},
    ("head", "dueling_max"): {"stream_sizes": (6,)},
    ("sampling", "newest"): {"batch_size": 8, "train_period": 8, "updates_per_train": 1},
    ("sampling", "ranked"): {"rank_period": 5},
}


@functools.cache
def axes():
    """The values of each axis, the default first, by the axis's name."""
    found = dict(NUMBERS)
    for name, setting in SETTINGS.items():
        if setting.traced or name in APART or name in found:
            continue
        if setting.type is bool:
            found[name] = (False, True)
        elif setting.choices is not None:
            default = setting.default
            found[name] = (default, *(n for n in setting.names() if n != default))
    return {name: found[name] for name in sorted(found, key=lambda n: -len(found[n]))}


def fields_of(row):
    """The fields of a row, with what its values need beside them."""
    beside = [BESIDE.get(item, {}) for item in row.items()]
    return {key: value for part in (*beside, row) for key, value in part.items()}


def settled(row, config=TINY, hyper=HYPER):
    """Configuration and hyperparameters of a row, laid over others.

    Raises:
        ConfigError: if its values cannot be combined.
    """
    config, hyper = dqx.override(config, hyper, **fields_of(row))
    dqx.validate(config, hyper)
    if config.env == "Taxi-v4" and (config.frame_stack > 1 or config.normalize_observations):
        dqx.make_trainer(config, dqx.environment_of(config))  # which knows what is observed
    return config, hyper


@functools.cache
def _refusal(items):
    try:
        settled(dict(items))
    except ConfigError as error:
        return str(error)
    return None


def refusal(row):
    """What is said against a row; None if its values can be combined."""
    return _refusal(tuple(sorted(row.items())))


def changes(row):
    """What a row changes, leaving out what is as by default."""
    return {name: value for name, value in row.items() if value != axes()[name][0]}


def name_of(row):
    """A name for tests."""
    parts = (
        v if isinstance(v, str) else n if v is True else f"{n}={v}" for n, v in changes(row).items()
    )
    return ", ".join(parts) or "dqn"


def pairs():
    """All pairs of values of two axes, as rows of two; those of defaults alone are left out."""
    for (one, values), (other, others) in itertools.combinations(axes().items(), 2):
        for row in itertools.product(values, others):
            if changes(dict(zip((one, other), row, strict=True))):
                yield dict(zip((one, other), row, strict=True))


def _grown(wanted, size):
    """Rows that use everything wanted: ``wanted`` holds sets of ``size`` items of axes."""
    wanted, rows = dict.fromkeys(wanted), []
    while wanted:
        first = dict(next(iter(wanted)))
        row = {axis: first[axis] for axis in axes() if axis in first}  # whatever a set's order is
        for axis, values in axes().items():
            if axis in row:
                continue

            def gain(value, axis=axis, row=row):
                others = itertools.combinations(row.items(), size - 1)
                return sum(frozenset({(axis, value), *other}) in wanted for other in others)

            # Of equal gain, what differs from the default first: rows that combine much are few.
            def rank(value, usual=values[0], gain=gain):
                return -gain(value), (value == usual) == (gain(value) > 0)

            ranked = sorted(values, key=rank)
            fitting = (v for v in ranked if refusal(changes({**row, axis: v})) is None)
            row[axis] = next(fitting)
        for used in itertools.combinations(row.items(), size):
            wanted.pop(frozenset(used), None)
        rows.append(row)
    return rows


@functools.cache
def covering():
    """A few rows that between them use every value of every axis, by name."""
    wanted = [frozenset({(axis, v)}) for axis, values in axes().items() for v in values]
    wanted = [one for one in wanted if refusal(dict(one)) is None]
    return {name_of(row): changes(row) for row in _grown(wanted, 1)}


@functools.cache
def pairwise():
    """Rows that between them use every pair of values that can be combined, by name."""
    wanted = [frozenset(row.items()) for row in pairs() if refusal(changes(row)) is None]
    return {name_of(row): changes(row) for row in _grown(wanted, 2)}


def singles():
    """Every value of every axis by itself, by name."""
    rows = ({axis: value} for axis, values in axes().items() for value in values[1:])
    return {name_of(row): row for row in rows if refusal(row) is None}
