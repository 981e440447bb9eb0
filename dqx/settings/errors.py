"""What a mistake in the settings is called, and what a message about one ends with."""

import difflib
from collections.abc import Iterable

from dqx.arguments import shown as brief

__all__ = ["ConfigError", "ConfigWarning", "brief", "closest"]


class ConfigError(ValueError):
    """A configuration that cannot work; names the field, its value and what is allowed."""


class ConfigWarning(UserWarning):
    """A configuration that works, but was changed to do so or is unlikely to be meant."""


def closest(name: str, names: Iterable[str]) -> str:
    """Words that name the closest of ``names``, to end a message; empty if none is close."""
    found = difflib.get_close_matches(str(name), list(names), n=3, cutoff=0.5)
    return f"; the closest are {', '.join(found)}" if found else ""
