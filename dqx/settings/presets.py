"""The presets: configurations by name, from the TOML files beside this module."""

import functools
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from dqx.arguments import instance, require
from dqx.settings.config import Config
from dqx.settings.errors import ConfigError, closest
from dqx.settings.hyper import Hyper
from dqx.settings.values import override

# What is tuned along with a method on one game, and no part of it.
_TUNED = (
    "gamma", "averaging", "average_decay", "learning_rate", "learning_rate_decay", "annealed",
    "anneal_steps", "anneal_scale",
)  # fmt: skip
_NAME = instance("a preset's name, such as 'cartpole'", str)


class PresetAbout(NamedTuple):
    """What a preset says of itself, beside its fields.

    Attributes:
        about: one sentence on what it is.
        source: whose settings it follows, or "our own".
        claim: what the source says that it reaches; empty for our own.
        seeds: those it is measured on, how many (16) or which ("0:16"); None if it is not measured.
        bar: the interquartile mean of the last greedy return that it has to reach, if any.
        base: another preset, whose fields it has where it sets none of its own.
    """

    about: str
    source: str = ""
    claim: str = ""
    seeds: str | int | None = None
    bar: float | None = None
    base: str = ""


def preset(name: str) -> tuple[Config, Hyper]:
    """The configuration of a preset, such as ``"cartpole"`` or ``"cartpole/cleanrl"``.

    Raises:
        ConfigError: if there is no such preset; the message lists the closest.
    """
    return override(Config(), Hyper(), **preset_fields(name))


def preset_fields(name: str) -> dict[str, Any]:
    """All fields that a preset and its base set, by name, as their files say; loads no agent.

    Raises:
        ConfigError: if there is no such preset; the message lists the closest.
    """
    base = preset_about(name).base
    return {**(preset_fields(base) if base else {}), **own_fields(name)}


def own_fields(name: str) -> dict[str, Any]:
    """The fields that a preset sets itself, by name.

    Raises:
        ConfigError: if there is no such preset; the message lists the closest.
    """
    return {k: v for k, v in _table(name).items() if k not in PresetAbout._fields}


def method_fields(name: str) -> dict[str, Any]:
    """Those of `own_fields` that make a preset's method, without what was tuned along with it.

    Raises:
        ConfigError: if there is no such preset; the message lists the closest.
    """
    return {k: v for k, v in own_fields(name).items() if k not in _TUNED}


def preset_about(name: str) -> PresetAbout:
    """What a preset says of itself.

    Raises:
        ConfigError: if there is no such preset; the message lists the closest.
    """
    return PresetAbout(**{k: v for k, v in _table(name).items() if k in PresetAbout._fields})


def preset_names() -> tuple[str, ...]:
    """The names of all presets, sorted."""
    return tuple(sorted(_tables()))


def _table(name: str) -> dict[str, Any]:
    require(ConfigError, name=(name, _NAME))
    tables = _tables()
    if name not in tables:
        raise ConfigError(
            f"unknown preset {name!r}{closest(name, tables)}; `dqx presets` lists them all"
        )
    return tables[name]


@functools.cache
def _tables() -> dict[str, dict[str, Any]]:
    tables: dict[str, dict[str, Any]] = {}
    for file in (Path(__file__).parent / "presets").glob("*.toml"):
        tables.update(tomllib.loads(file.read_text(encoding="utf-8")))
    return tables
