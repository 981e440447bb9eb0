"""Settings of the environment, ``env.NAME``: its options, and its parameters.

What is given is kept as it is until `resolved` asks the environment which of it is a number that a
program takes as input, and which decides what is compiled. Only that loads environments.
"""

import contextlib
import dataclasses
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from dqx.settings.errors import ConfigError, brief, closest
from dqx.settings.field import INT_END
from dqx.settings.single import check_single, is_number

if TYPE_CHECKING:
    import numpy as np

    from dqx.settings.config import Config
    from dqx.settings.hyper import Hyper

PREFIX = "env."
_RULES = ("uniform", "log_uniform")


class Draw(NamedTuple):
    """A parameter whose value is drawn once a run, from its seed.

    Attributes:
        rule: ``"uniform"`` or ``"log_uniform"``.
        low: the least value.
        high: a limit above all values.
    """

    rule: str
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.rule}({self.low:g},{self.high:g})"


def is_own(name: str) -> bool:
    """Whether a field's name is that of an environment's setting."""
    return name.startswith(PREFIX)


def flattened(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields with an ``env`` that is a mapping, as TOML reads ``env.gravity = 12``, by full names.

    Its entry ``name`` is the environment itself.

    Raises:
        ConfigError: if a field is given twice.
    """
    found: dict[str, Any] = {}
    for field, value in fields.items():
        parts = {field: value}
        if field == "env" and isinstance(value, Mapping):
            parts = {"env" if k == "name" else f"{PREFIX}{k}": v for k, v in value.items()}
        for name, item in parts.items():
            if name in found:
                raise ConfigError(f"{name} is given twice: give it once")
            found[name] = item
    return found


def parse(name: str, text: str) -> Any:
    """The value of a text: a number, true, false, ``uniform(8,12)``, or the text as it is.

    Raises:
        ConfigError: for a rule of drawing that cannot be used.
    """
    text = text.strip()
    rule, bracket, rest = text.partition("(")
    if bracket and rest.endswith(")") and rule in _RULES:
        try:
            bounds = [float(part) for part in rest[:-1].split(",")]
        except ValueError:
            bounds = []
        return typed(name, {rule: bounds})
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def typed(name: str, value: Any) -> Any:
    """A value in its canonical type: bool, int, float, str or `Draw`.

    Raises:
        ConfigError: for anything else.
    """
    if isinstance(value, Draw):
        value = {value.rule: [value.low, value.high]}
    if isinstance(value, Mapping):
        return _rule(name, value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()  # a scalar of NumPy or JAX
    if isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(
        f"{name} must be a number, true, false, a text, or drawn for every seed, such as "
        f"{{uniform = [8, 12]}}, got {brief(value)}"
    )


def _rule(name: str, value: Mapping[str, Any]) -> Draw:
    pairs: list[tuple[Any, Any]] = list(value.items()) if len(value) == 1 else [("", ())]
    ((rule, given),) = pairs
    bounds = list(given) if isinstance(given, list | tuple) else []
    lowest = 0.0 if rule == "log_uniform" else -math.inf
    numeric = len(bounds) == 2 and all(map(is_number, bounds))
    fits = numeric and lowest < bounds[0] < bounds[1]
    if rule not in _RULES or not fits:
        raise ConfigError(
            f"{name} is drawn by uniform or log_uniform between two rising"
            f"{' positive' if rule == 'log_uniform' else ''} numbers, such as "
            f"{{uniform = [8, 12]}}, got {_brief(value)}"
        )
    return Draw(rule, float(bounds[0]), float(bounds[1]))


def _brief(value: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(dict(value))
    except (TypeError, ValueError, RecursionError):
        return brief(value)
    return text if len(text) <= 120 else brief(value)


def given(config: "Config", hyper: "Hyper") -> dict[str, Any]:
    """All that is set of the environment, by full names."""
    rules = dict(config.env_inputs)
    values = {PREFIX + name: value for name, value in config.env_options}
    values |= {n: v for n, v in hyper.extra.items() if is_own(n)}
    values |= {PREFIX + name: rule for name, rule in rules.items() if rule is not None}
    return values


def replaced(
    config: "Config", hyper: "Hyper", values: Mapping[str, Any]
) -> tuple["Config", "Hyper"]:
    """Both with ``values`` (by full names) as what is set of the environment, not yet resolved."""
    options = sorted((name.removeprefix(PREFIX), typed(name, v)) for name, v in values.items())
    extra = {name: value for name, value in hyper.extra.items() if not is_own(name)}
    config = dataclasses.replace(config, env_options=tuple(options), env_inputs=())
    return config, dataclasses.replace(hyper, extra=extra)


def resolved(config: "Config", hyper: "Hyper") -> tuple["Config", "Hyper"]:
    """Sorts what is set of the environment into what is compiled in and what is traced.

    A float parameter is traced: it becomes an input of the programs, and its value one of the
    hyperparameters. Everything else is compiled in.

    Raises:
        ConfigError: for an unknown setting, with the closest; a value of the wrong type; something
            compiled in that is to be drawn for every seed; or an environment that cannot be loaded.
    """
    if not config.env_options:
        return config, hyper
    import envs

    try:
        known = {p.name: p for p in envs.describe(config.env).parameters}
    except ValueError as error:
        raise ConfigError(str(error)) from error
    options: list[tuple[str, Any]] = []
    inputs, values = dict(config.env_inputs), dict(hyper.extra)
    for name, value in config.env_options:
        full = PREFIX + name
        if name not in known:
            raise ConfigError(
                f"{config.env} has no {full}{closest(full, [PREFIX + k for k in known])}; it has "
                f"{', '.join(PREFIX + k for k in known) or 'none'} (`dqx envs {config.env}`)"
            )
        if known[name].traced:
            inputs[name] = value if isinstance(value, Draw) else None
            ends = [value.low, value.high] if inputs[name] else [value]
            values[full] = sum(number(full, end) for end in ends) / len(ends)
        elif isinstance(value, Draw):
            raise ConfigError(
                f"{full} decides what is compiled, so it cannot be drawn for every seed: give a "
                f"list of values under [grid]"
            )
        else:
            options.append((name, _of_type(full, known[name].type, value)))
    config = dataclasses.replace(
        config, env_options=tuple(sorted(options)), env_inputs=tuple(sorted(inputs.items()))
    )
    return config, dataclasses.replace(hyper, extra=dict(sorted(values.items())))


def number(name: str, value: Any) -> float:
    """A number that programs take as input.

    Raises:
        ConfigError: if it is none, is not finite, or float32 cannot hold it.
    """
    if not is_number(value):
        raise ConfigError(f"{name} must be a finite number, got {brief(value)}")
    check_single(name, value)
    return float(value)


def _of_type(name: str, kind: type, value: Any) -> Any:
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return number(name, value)
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        if isinstance(value, int) and not -INT_END <= value < INT_END:
            raise ConfigError(f"{name} must fit into int32, got {brief(value)}")
        return value
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    raise ConfigError(f"{name} must be {words[kind]}, got {brief(value)}")


def defaults(config: "Config") -> dict[str, Any]:
    """The default of every setting of the environment, by full names; loads it.

    Raises:
        ConfigError: if it cannot be loaded.
    """
    import envs

    try:
        return {PREFIX + p.name: p.default for p in envs.describe(config.env).parameters}
    except ValueError as error:
        raise ConfigError(str(error)) from error


# Settings of a run that change what is played, beside the environment's own.
OF_TASKS = ("action_repeat", "sticky_actions", "time_limit")


def check_loaded(name: object) -> None:
    """Refuses an environment that would have to be imported, where a folder alone asks for it.

    Raises:
        ConfigError: with the module to import; for what is no name of an environment.
    """
    if not isinstance(name, str):
        raise ConfigError(f"env must be the name of an environment, got {name!r}")
    if ":" not in name:
        return
    import envs

    try:
        needed = envs.is_foreign(name) and not envs.is_loaded(name)
        module = envs.module_of(name) if needed else ""
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if needed:
        raise ConfigError(
            f"environment {name} is of the module {module}, and a study's folder makes no code run "
            f"by itself: give --import {module} (in Python: import {module} first)"
        )


def drawn(config: "Config", root_seed: int, seeds: Iterable[int]) -> "dict[str, np.ndarray]":
    """The values that are drawn for seeds, float64 ``[S]``, by full names.

    Every parameter has a stream of its own, and a seed the same value in every study with this root
    seed.
    """
    import numpy as np

    found = {}
    for name, rule in config.env_inputs:
        if rule is not None:
            stream = zlib.crc32(name.encode())
            u = np.array([np.random.default_rng([root_seed, s, stream]).random() for s in seeds])
            low, high = rule.low, rule.high
            if rule.rule == "log_uniform":
                values = np.exp(math.log(low) + u * (math.log(high) - math.log(low)))
            else:
                values = low + u * (high - low)
            # Six digits can be read, and are the same wherever exp differs in its last.
            found[PREFIX + name] = np.array([float(f"{value:.6g}") for value in values])
    return found


def inputs(config: "Config", numbers: Mapping[str, Any]) -> dict[str, float]:
    """The environment's inputs of one run by their short names, from its numbers by full names."""
    return {name: float(numbers[PREFIX + name]) for name, _ in config.env_inputs}


def column_type(values: Iterable[Any]) -> str:
    """The Parquet type of a column of an environment's setting, see `Setting.parquet`."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return "bool"
    if kinds == {int}:
        return "int64"
    return "float64" if kinds and kinds <= {int, float} else "string"


def to_json(value: Any) -> Any:
    """A value as strict JSON holds it; `typed` reads it back."""
    return {value.rule: [value.low, value.high]} if isinstance(value, Draw) else value
