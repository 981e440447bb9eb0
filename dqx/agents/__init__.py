"""Agents: one file a variant, on one shared `kit`.

A variant is a function that builds an `Agent` from settings and a `Spec`, and a name to choose it
by. The modules of this package register their own; others do so by `register`, from wherever they
are.
"""

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from dqx.core.agent import Agent, Spec
from dqx.core.averaging import averaging
from dqx.core.normalization import normalizing
from dqx.settings import Config, Hyper, Setting, registry

# What an agent has unless it says otherwise: so settings that its loss may not read are refused.
DEFAULT = ("network", "gradient", "target")
# What one has whose loss is `kit.scalar_loss`.
BASIC = (*DEFAULT, "scalar target", "TD error", "Huber delta")
Build = Callable[[Config, Spec], Agent]


class Variant(NamedTuple):
    """A kind of agent.

    Attributes:
        name: as the field ``agent`` takes it.
        build: ``build(config, spec) -> Agent``; raises `ConfigError` where the network cannot take
            the observations.
        has: its traits, which say what settings concern it: ``"network"``, ``"gradient"``,
            ``"target"``, ``"table"``; ``"target rule"`` if its loss reads `kit.Outputs.weight`, and
            ``"rescaled values"`` if it obeys ``value_rescaling``; ``"scalar target"`` if it obeys
            ``loss``, ``"TD error"`` if ``td_error_clip``, ``"Huber delta"`` if ``huber_delta``;
            ``"rollout"`` if it has ``targets``, and so no replay.
        settings: those that it brings, each made by ``dqx.settings.own_setting``; afterwards they
            are attributes of the configuration or, if traced, of the hyperparameters.
        about: what it is, in a few words.
        check: ``check(config, hyper)`` raises `ConfigError` where its settings do not fit one
            another; None if they always do.
    """

    name: str
    build: Build
    has: Iterable[str] = DEFAULT
    settings: Iterable[Setting] = ()
    about: str = ""
    check: Callable[[Config, Hyper], None] | None = None


_VARIANTS: dict[str, Variant] = {}


def register(variant: Variant) -> None:
    """Makes a variant known, so that ``agent = NAME`` chooses it wherever settings are given.

    Raises:
        ConfigError: if the name is taken, or a setting's name is.
    """
    registry.register_agent(
        variant.name,
        has=variant.has,
        settings=variant.settings,
        doc=variant.about,
        check=variant.check,
    )
    _VARIANTS[variant.name] = variant


def make_agent(config: Config, spec: Spec) -> Agent:
    """Builds the agent that ``config`` describes.

    Raises:
        ConfigError: if there is no such agent, or it cannot take the observations.
    """
    registry.agent(config.agent)  # imports a module of this package on first use

    def build(spec: Spec) -> Agent:
        agent = _VARIANTS[config.agent].build(config, spec)
        if config.averaging == "none":
            return agent
        return averaging(agent, acting=config.averaging == "acting")

    return normalizing(build, spec) if config.normalize_observations else build(spec)


def source_of(name: str) -> Path | None:
    """The file that defines an agent; None if it was typed into a session."""
    registry.agent(name)
    try:
        found = inspect.getsourcefile(inspect.unwrap(_VARIANTS[name].build))
    except TypeError:
        return None
    return Path(found) if found and Path(found).is_file() else None
