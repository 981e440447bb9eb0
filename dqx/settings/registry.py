"""The agents by name: what each has, and the settings that each brings.

A module of `dqx.agents` registers itself when it is imported. Until then only its name is known, so
that nothing heavy is loaded for a list of names.
"""

import dataclasses
import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from dqx.settings.errors import ConfigError, closest
from dqx.settings.field import Setting


class AgentEntry(NamedTuple):
    """What the settings know of an agent.

    Attributes:
        name: as the field ``agent`` takes it.
        has: its traits, sorted, such as ``"gradient"``; they say which settings concern it.
        settings: those that it brings.
        doc: what it is, in a few words.
        check: raises where its settings do not fit; None if they always do.
    """

    name: str
    has: tuple[str, ...]
    settings: tuple[Setting, ...]
    doc: str
    check: Callable[[Any, Any], None] | None = None


_PACKAGE = "dqx.agents"
_AGENTS: dict[str, AgentEntry] = {}
# Names that an agent's setting cannot take.
_TAKEN = {"extra", "env_options", "env_inputs", "replace", "preset", "name", "draws", "seed"}
_TAKEN |= {"about", "source", "claim", "seeds", "bar", "base"}


def register_agent(
    name: str,
    *,
    has: Iterable[str],
    settings: Iterable[Setting] = (),
    doc: str = "",
    check: Callable[[Any, Any], None] | None = None,
) -> AgentEntry:
    """Records an agent's name, traits and own settings; to do so again changes nothing.

    Args:
        name: as the field ``agent`` takes it.
        has: its traits: ``"network"``, ``"gradient"``, ``"target"``, ``"table"``, or others.
        settings: made by `own_setting`. Agents may share a name if they declare it alike.
        doc: what it is, in a few words.
        check: ``check(config, hyper)`` raises `ConfigError` where its settings do not fit one
            another.

    Raises:
        ConfigError: if the name is no word or is registered with other content, or a setting has
            the name of a field or of another agent's setting that is declared otherwise.
    """
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
        raise ConfigError(f"an agent's name must be a word such as dqn, got {name!r}")
    if isinstance(has, str):
        raise ConfigError(f"has of agent {name} must be a list of traits, such as ['{has}']")
    own = tuple(dataclasses.replace(setting, of=("agent", name)) for setting in settings)
    entry = AgentEntry(name, tuple(sorted(set(has))), own, doc, check)
    if _AGENTS.get(name, entry)._replace(check=check) != entry:
        raise ConfigError(f"agent {name} is registered with other content: choose another name")
    for setting in own:
        _check_own(entry, setting)
    _AGENTS[name] = entry
    return entry


def forget(name: str) -> None:
    """Takes an agent out again, if it is there; for tests."""
    _AGENTS.pop(name, None)


def reserve(names: Iterable[str]) -> None:
    """Keeps agents from bringing settings of these names."""
    _TAKEN.update(names)


def agent_names() -> tuple[str, ...]:
    """The names of all agents, sorted: those registered, and the modules of `dqx.agents`."""
    return tuple(sorted({*_AGENTS, *_modules(_PACKAGE)}))


def agent(name: str) -> AgentEntry:
    """The entry of an agent; its module is imported if it is not registered yet.

    Raises:
        ConfigError: if there is no such agent; the message names the closest, and all.
    """
    names = agent_names()
    if name not in names:
        raise ConfigError(
            f"unknown agent {name!r}{closest(name, names)}; known are {', '.join(names)}: import "
            "the module that registers it first (--import MODULE)"
        )
    if name not in _AGENTS:
        importlib.import_module(f"{_PACKAGE}.{name}")
    if name not in _AGENTS:
        raise ConfigError(
            f"module {_PACKAGE}.{name} does not register agent {name}: call register_agent in it"
        )
    return _AGENTS[name]


def agent_traits(name: str) -> tuple[str, ...]:
    """The traits of an agent, ``"replay"`` if it has no ``"rollout"``; raises as `agent` does."""
    has = agent(name).has
    return has if "rollout" in has else (*has, "replay")


def registered() -> tuple[AgentEntry, ...]:
    """The agents that are registered by now, sorted by name."""
    return tuple(_AGENTS[name] for name in sorted(_AGENTS))


def load_all() -> None:
    """Imports the modules of all agents, so that all of their settings are known."""
    for name in agent_names():
        agent(name)


def own_settings(name: str) -> dict[str, Setting]:
    """The settings that an agent brings, by name; raises as `agent` does."""
    return {setting.name: setting for setting in agent(name).settings}


def find_own(name: str) -> Setting | None:
    """The setting of this name that a registered agent brings; None if none does."""
    found = (s for entry in registered() for s in entry.settings if s.name == name)
    return next(found, None)


def owners(name: str) -> tuple[str, ...]:
    """The registered agents that bring a setting of this name, sorted."""
    return tuple(e.name for e in registered() if any(s.name == name for s in e.settings))


@functools.cache
def _modules(package: str) -> tuple[str, ...]:
    import pkgutil  # only where names are asked for

    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        return ()
    if spec is None or spec.submodule_search_locations is None:
        return ()
    # An agent is a module; what agents share is a package beside them.
    found = pkgutil.iter_modules(spec.submodule_search_locations)
    return tuple(m.name for m in found if not m.ispkg and not m.name.startswith("_"))


def _check_own(entry: AgentEntry, setting: Setting) -> None:
    if setting.name in _TAKEN:
        raise ConfigError(
            f"agent {entry.name} cannot bring {setting.name}, which has a meaning for all agents: "
            "choose another name"
        )
    if sum(other.name == setting.name for other in entry.settings) > 1:
        raise ConfigError(f"agent {entry.name} brings {setting.name} twice: bring it once")
    other = find_own(setting.name)
    if other is not None and _content(other) != _content(setting):
        raise ConfigError(
            f"agent {entry.name} declares {setting.name} otherwise than agent "
            f"{', '.join(owners(setting.name))}: declare it alike or choose another name"
        )


def _content(setting: Setting) -> Setting:
    return dataclasses.replace(setting, of=None, doc="")
