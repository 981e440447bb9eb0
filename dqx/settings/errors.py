"""What a mistake in the settings is called, and what a message about one ends with."""

import difflib
import math
import reprlib
from collections.abc import Iterable
from typing import Any


class ConfigError(ValueError):
    """A configuration that cannot work; names the field, its value and what is allowed."""


class ConfigWarning(UserWarning):
    """A configuration that works, but was changed to do so or is unlikely to be meant."""


class _Brief(reprlib.Repr):
    """Short texts of values, however large or deep they are."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxtuple, self.maxdict, self.maxset = 3, 12, 12, 8, 8
        self.maxstring = self.maxother = 120

    def repr_int(self, x: int, level: int) -> str:
        del level
        # Python refuses to write whole numbers of thousands of digits.
        digits = int(x.bit_length() * math.log10(2)) + 1
        return f"a whole number of about {digits:,} digits" if digits > 40 else repr(x)


_BRIEF = _Brief()


def brief(value: Any) -> str:
    """A value as a message shows it: its ``repr`` where that is short, else some of it."""
    return _BRIEF.repr(value)


def closest(name: str, names: Iterable[str]) -> str:
    """Words that name the closest of ``names``, to end a message; empty if none is close."""
    found = difflib.get_close_matches(str(name), list(names), n=3, cutoff=0.5)
    return f"; the closest are {', '.join(found)}" if found else ""
