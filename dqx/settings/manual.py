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
    columns = shutil.get_terminal_size().columns - 2 if width is None else width
    sections = [
        (
            "fields of --set, with the defaults that a preset may change:",
            [s for s in SETTINGS.values() if not s.traced],
        ),
        ("hyperparameters of --set:", [s for s in SETTINGS.values() if s.traced]),
    ]
    for entry in registry.registered():
        about = f", {entry.doc}" if entry.doc else ""
        if entry.settings:
            sections.append((f"settings of agent {entry.name}{about}:", list(entry.settings)))
    lines: list[str] = []
    for title, settings in sections:
        heading = textwrap.wrap(title, max(50, columns))
        lines += [*([""] if lines else []), *heading, "", *_lines(settings, max(50, columns))]
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
