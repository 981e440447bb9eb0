"""The settings there are, those of `Config` and of `Hyper`, by name."""

import types
from collections.abc import Mapping

from dqx.settings import registry
from dqx.settings.config import Config
from dqx.settings.errors import ConfigError, closest
from dqx.settings.field import Setting, collect
from dqx.settings.hyper import Hyper

SETTINGS: Mapping[str, Setting] = types.MappingProxyType(
    {**collect(Config, traced=False), **collect(Hyper, traced=True)}
)
registry.reserve(SETTINGS)


def setting(name: str) -> Setting:
    """The declaration of a setting, built in or brought by an agent.

    Raises:
        ConfigError: if there is none of this name; the message names the closest.
    """
    found = SETTINGS.get(name) or registry.find_own(name)
    if found is None:
        registry.load_all()
        found = registry.find_own(name)
    if found is None:
        own = [other.name for entry in registry.registered() for other in entry.settings]
        raise ConfigError(f"unknown field {name!r}{closest(name, [*SETTINGS, *own])}")
    return found


def lacking(config: Config, declared: Setting) -> tuple[str, str] | None:
    """The field and the trait which its choice lacks, so that a setting has no effect; or None."""
    if declared.of is None:
        return None
    selector, trait = declared.of
    outer = lacking(config, SETTINGS[selector])
    if outer is None and trait not in SETTINGS[selector].has(getattr(config, selector)):
        return declared.of
    return outer
