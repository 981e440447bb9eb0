"""Values given by name: replaced, read from texts, and written as JSON."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from dqx.arguments import require
from dqx.settings import environments, registry
from dqx.settings.config import Config
from dqx.settings.declared import SETTINGS, lacking, setting
from dqx.settings.errors import ConfigError, brief
from dqx.settings.field import Setting, show
from dqx.settings.hyper import Hyper
from dqx.settings.rules import A_CONFIG, A_HYPER


def override(config: Config, hyper: Hyper, /, **fields: Any) -> tuple[Config, Hyper]:
    """Replaces fields of either by name, and settings that the agent brings.

    Where another agent, network or sampling is chosen, settings that had a meaning for the one
    before and have none for it return to their defaults, unless they are given too. An own setting
    that is given its default is left out of ``extra``, so that configurations which mean the same
    are equal.

    Raises:
        ConfigError: for a name that there is not, or a value of the wrong type. Ranges are checked
            by `validate`.
    """
    require(ConfigError, config=(config, A_CONFIG), hyper=(hyper, A_HYPER))
    fields = environments.flattened(fields)
    config, hyper = _with_environment(config, hyper, fields)
    fields = {name: value for name, value in fields.items() if not environments.is_own(name)}
    fields = {**_meaningless(config, hyper, fields), **fields}
    agent = SETTINGS["agent"].typed(fields.get("agent", config.agent))
    if agent != config.agent:
        kept = {n: v for n, v in hyper.extra.items() if environments.is_own(n)}
        config = dataclasses.replace(config, extra=())
        hyper = dataclasses.replace(hyper, extra=kept)
    halves: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    extras = (dict(config.extra), dict(hyper.extra))
    for name, value in fields.items():
        declared = _declared(name, agent)
        value = declared.typed(value)
        if not declared.own:
            halves[declared.traced][name] = value
        elif value == declared.default:
            extras[declared.traced].pop(name, None)
        else:
            extras[declared.traced][name] = value
    return (
        dataclasses.replace(config, **halves[False], extra=tuple(sorted(extras[False].items()))),
        dataclasses.replace(hyper, **halves[True], extra=extras[True]),
    )


def _with_environment(
    config: Config, hyper: Hyper, fields: Mapping[str, Any]
) -> tuple[Config, Hyper]:
    """Both with what ``fields`` set of the environment; another one forgets what was set before."""
    new = {name: value for name, value in fields.items() if environments.is_own(name)}
    other = "env" in fields and SETTINGS["env"].typed(fields["env"]) != config.env
    if not new and not (other and (config.env_options or config.env_inputs)):
        return config, hyper
    kept = {} if other else environments.given(config, hyper)
    return environments.replaced(config, hyper, {**kept, **new})


def _meaningless(config: Config, hyper: Hyper, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of what has no meaning any more for what ``fields`` choose anew."""
    chosen = {
        name: SETTINGS[name].typed(fields[name])
        for name in {s.of[0] for s in SETTINGS.values() if s.of is not None} & fields.keys()
    }
    new = {name for name, value in chosen.items() if value != getattr(config, name)}
    changed = dataclasses.replace(config, **chosen)
    return {
        s.name: s.default
        for s in SETTINGS.values()
        if s.of is not None
        and new
        and getattr(hyper if s.traced else config, s.name) != s.default
        and lacking(changed, s) is not None
        and lacking(config, s) is None
    }


def complete(config: Config, hyper: Hyper) -> Hyper:
    """The hyperparameters with all that the agent brings in ``extra``, given or by default.

    Those of lanes that share a program have the same structure then.

    Raises:
        ConfigError: if there is no such agent.
    """
    own = registry.own_settings(config.agent).values()
    extra = {s.name: hyper.extra.get(s.name, s.default) for s in own if s.traced}
    extra |= {n: v for n, v in hyper.extra.items() if environments.is_own(n)}
    return dataclasses.replace(hyper, extra=dict(sorted(extra.items())))


def not_defaults(config: Config, hyper: Hyper) -> dict[str, str]:
    """The settings that are no defaults, as texts by name; the environment's as ``env.NAME``."""
    found = {}
    for name, declared in SETTINGS.items():
        value = declared.typed(getattr(hyper if declared.traced else config, name))
        if value != declared.default:
            found[name] = show(value)
    for name, value in {**dict(config.extra), **hyper.extra}.items():
        if not environments.is_own(name) and setting(name).typed(value) != setting(name).default:
            found[name] = show(value)
    return found | {name: show(v) for name, v in environments.given(config, hyper).items()}


def parse_assignments(texts: Iterable[str], what: str = "--set") -> dict[str, Any]:
    """Values by name, from texts such as ``gamma=0.98``.

    Args:
        texts: one assignment each.
        what: what a message calls them.

    Raises:
        ConfigError: for a text that is no assignment, an unknown agent or field, a text that is no
            value of its type, or a field that is given twice.
    """
    fields: dict[str, Any] = {}
    texts = list(texts)
    for text in texts:
        name, _, value = text.partition("=")
        if name.strip() == "agent":
            registry.agent(value.strip())  # before its settings are found to be unknown
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ConfigError(f"{what} takes field=value, such as gamma=0.98, got {brief(text)}")
        if name in fields:
            raise ConfigError(f"{name} is given twice: give it once")
        own = environments.is_own(name)
        fields[name] = environments.parse(name, value) if own else setting(name).parse(value)
    return fields


def to_record(config: Config, hyper: Hyper) -> dict[str, dict[str, Any]]:
    """Everything as strict JSON: ``{"config": {...}, "hyper": {...}}`` by name, defaults too.

    Settings that the agent brings stand beside the others. An infinity is the text ``"inf"``.

    Raises:
        ConfigError: if the agent is unknown or a value has the wrong type.
    """
    names = [*SETTINGS, *registry.own_settings(config.agent), *dict(config.extra), *hyper.extra]
    record: dict[str, dict[str, Any]] = {"config": {}, "hyper": {}}
    drawn = dict(config.env_inputs)
    for name, value in environments.given(config, hyper).items():
        traced = drawn.get(name.removeprefix(environments.PREFIX), value) is None
        record["hyper" if traced else "config"][name] = environments.to_json(value)
    for name in dict.fromkeys(n for n in names if not environments.is_own(n)):
        declared = setting(name)
        half, owner = ("hyper", hyper) if declared.traced else ("config", config)
        record[half][name] = declared.to_json(getattr(owner, name))
    return record


def from_record(
    config: Mapping[str, Any], hyper: Mapping[str, Any] | None = None
) -> tuple[Config, Hyper]:
    """What `to_record` wrote, from its two halves; what is missing takes its default.

    Raises:
        ConfigError: for fields that this version does not know, or values of the wrong type.
    """
    fields = {**config, **(hyper or {})}
    rest = {name: value for name, value in fields.items() if not environments.is_own(name)}
    read, numbers = override(Config(), Hyper(), **rest)
    options: list[tuple[str, Any]] = []
    inputs: list[tuple[str, Any]] = []
    values = dict(numbers.extra)
    for name, value in fields.items():
        if environments.is_own(name):
            short, value = name.removeprefix(environments.PREFIX), environments.typed(name, value)
            if isinstance(value, environments.Draw):
                inputs.append((short, value))
                values[name] = (value.low + value.high) / 2
            elif name in (hyper or {}):
                inputs.append((short, None))
                values[name] = environments.number(name, value)
            else:
                options.append((short, value))
    read = dataclasses.replace(
        read, env_options=tuple(sorted(options)), env_inputs=tuple(sorted(inputs))
    )
    return read, dataclasses.replace(numbers, extra=dict(sorted(values.items())))


def _declared(name: str, agent: str) -> Setting:
    """The declaration of a name, looked for in the agent at hand before all others."""
    if name in SETTINGS:
        return SETTINGS[name]
    return registry.own_settings(agent).get(name) or setting(name)
