"""The settings in words, for a terminal."""

import shutil
import textwrap
from collections.abc import Iterable

from dqx.settings import registry
from dqx.settings.declared import SETTINGS
from dqx.settings.field import Setting


def field_help(width: int | None = None) -> list[str]:
    """Lines that list all settings: fields, hyperparameters, and those of registered agents.

    Args:
        width: of a line, at least 50; None: that of the terminal.
    """
    sections: list[tuple[str, Iterable[Setting]]] = [
        (
            "fields of --set, with the defaults that a preset may change:",
            [s for s in SETTINGS.values() if not s.traced],
        ),
        ("hyperparameters of --set:", [s for s in SETTINGS.values() if s.traced]),
    ]
    sections += [_brought(entry) for entry in registry.registered() if entry.settings]
    return _listed(sections, width)


def agent_help(name: str, width: int | None = None) -> list[str]:
    """Lines that list the settings that an agent brings; raises as `agent` does.

    Args:
        name: of the agent.
        width: of a line, at least 50; None: that of the terminal.
    """
    entry = registry.agent(name)
    if entry.settings:
        return _listed([_brought(entry)], width)
    about = f", {entry.doc}," if entry.doc else ""
    return [f"agent {name}{about} brings no settings of its own"]


def _brought(entry: registry.AgentEntry) -> tuple[str, Iterable[Setting]]:
    about = f", {entry.doc}" if entry.doc else ""
    return f"settings of agent {entry.name}{about}:", entry.settings


def _listed(sections: Iterable[tuple[str, Iterable[Setting]]], width: int | None) -> list[str]:
    columns = max(50, shutil.get_terminal_size().columns - 2 if width is None else width)
    lines: list[str] = []
    for title, settings in sections:
        heading = textwrap.wrap(title, columns)
        lines += [*([""] if lines else []), *heading, "", *_lines(settings, columns)]
    return lines


def _lines(settings: Iterable[Setting], width: int) -> list[str]:
    lines = []
    for setting in settings:
        lines += textwrap.wrap(
            setting.help(),
            width,
            initial_indent=f"  {setting.name:<23} ",
            subsequent_indent=" " * 26,
        )
    return lines
