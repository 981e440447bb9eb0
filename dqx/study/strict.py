"""Strict JSON: forms that values have to fit, and one reader of files, which bounds them first.

Sizes are bounded before a file is read, and counts before it is parsed. What has no form is never
looked at.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dqx.settings import MAX_SEEDS, brief
from dqx.settings.single import is_number
from dqx.study.entries import StudyError, read_plain

# Bytes and values of a file at most, which the largest plan that is allowed does not reach: each of
# its configurations takes 3 kB and 80 values, and a name. A value takes up to 100 bytes in memory.
MAX_BYTES = 96 * 2**20
MAX_VALUES = 4_000_000
# What each run may add to a manifest, which lists them all.
_RUN_BYTES, _RUN_VALUES = 512, 8

# A form raises `Wrong` for a value that does not fit it.
Form = Callable[[Any], None]


class Wrong(Exception):
    """A value that does not fit a form.

    Args:
        wanted: what it must be, in words.
        value: what it is.

    Attributes:
        where: the names and numbers that lead to it, such as ``points[2].name``.
    """

    def __init__(self, wanted: str, value: Any) -> None:
        super().__init__(wanted)
        self.wanted, self.value, self.where = wanted, value, ""

    def __str__(self) -> str:
        return f"{self.where or 'its content'} must be {self.wanted}, got {brief(self.value)}"

    def within(self, place: str) -> "Wrong":
        """The same, seen from outside."""
        self.where = place + (f".{self.where}" if self.where[:1] not in ("", "[") else self.where)
        return self


def whole(low: int = 0, high: int = 2**63 - 1) -> Form:
    """A whole number in a range."""
    end = f"{high:,}" if high < 2**33 else "what fits into 64 bits"

    def check(value: Any) -> None:
        if type(value) is not int or not low <= value <= high:
            raise Wrong(f"a whole number from {low:,} to {end}", value)

    return check


def number(low: float = -1e308, high: float = 1e308) -> Form:
    """A finite number in a range."""
    words = "a number" if low == -1e308 else f"a number from {low:g} on"

    def check(value: Any) -> None:
        if not is_number(value) or not low <= value <= high:
            raise Wrong(words, value)

    return check


def text(pattern: str = "", words: str = "a text in one line", most: int = 100_000) -> Form:
    """A text that matches a pattern as a whole; without one, that can be shown in a line."""
    known = re.compile(pattern).fullmatch if pattern else str.isprintable

    def check(value: Any) -> None:
        if not isinstance(value, str) or len(value) > most or not known(value):
            raise Wrong(words, value)

    return check


def free_text(value: Any) -> None:
    """A text of any characters that can be written as UTF-8."""
    if not isinstance(value, str) or not value.isascii() and _is_broken(value):
        raise Wrong("a text", value)


def flag(value: Any) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise Wrong("true or false", value)


def maybe(form: Form) -> Form:
    """What fits another form, or null."""

    def check(value: Any) -> None:
        if value is not None:
            form(value)

    return check


def items(form: Form, least: int = 0, most: int = MAX_SEEDS) -> Form:
    """A list of what fits another form."""

    def check(value: Any) -> None:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise Wrong(f"a list of {least:,} to {most:,} entries", value)
        for place, item in enumerate(value):
            try:
                form(item)
            except Wrong as wrong:
                raise wrong.within(f"[{place}]") from None

    return check


def table(known: Mapping[str, Form], optional: Mapping[str, Form] | None = None) -> Form:
    """A table with these entries; of others, which a later version may add, nothing is asked."""
    every = {**known, **(optional or {})}

    def check(value: Any) -> None:
        if not isinstance(value, dict):
            raise Wrong("a table", value)
        for name, form in every.items():
            if name in value:
                try:
                    form(value[name])
                except Wrong as wrong:
                    raise wrong.within(name) from None
            elif name in known:
                raise Wrong(f"a table with an entry {name!r}", list(value))

    return check


def entries(names: str, form: Form, words: str = "a table") -> Form:
    """A table whose names all match a pattern, of what fits another form."""
    known = re.compile(names).fullmatch

    def check(value: Any) -> None:
        if not isinstance(value, dict):
            raise Wrong(words, value)
        for name, item in value.items():
            if not known(name):
                raise Wrong(words, value)
            try:
                form(item)
            except Wrong as wrong:
                raise wrong.within(brief(name)) from None

    return check


def anything(value: Any) -> None:
    """Any JSON; for what is not looked at."""


def setting_value(value: Any) -> None:
    """A number, a text, true, false, null, a list of these, or a rule such as uniform: [8, 12]."""
    parts = value if isinstance(value, list) else [value]
    if isinstance(value, dict) and len(value) == 1:
        ((rule, ends),) = value.items()
        parts = [rule, *ends] if isinstance(ends, list) else [None, ends]
    for part in parts:
        if isinstance(part, dict | list) or isinstance(part, str) and _is_broken(part):
            raise Wrong("the value of a setting", value)


def _is_broken(value: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in value)


def check(path: Path, content: Any, form: Form) -> None:
    """Refuses content that does not fit its form.

    Raises:
        StudyError: naming the file, the entry, what is allowed and what it is.
    """
    try:
        form(content)
    except Wrong as wrong:
        raise StudyError(f"{path}: {wrong}; dqx has not written it like this") from None


def most_bytes(runs: int = 0) -> int:
    """The bytes that a file may have that lists so many runs."""
    return MAX_BYTES + _RUN_BYTES * runs


def read(path: Path, runs: int = 0) -> Any:
    """The JSON in a plain file that may list so many runs; raises as `parse` does, or `OSError`."""
    return parse(path, read_plain(path, most_bytes(runs)), runs)


def parse(path: Path, content: bytes, runs: int = 0) -> Any:
    """The JSON in a file.

    Args:
        path: of the file, for messages.
        content: what was read of it.
        runs: how many it may list.

    Raises:
        StudyError: naming the file, if it is no JSON, of too many values, or nested too deeply.
    """
    values = MAX_VALUES + _RUN_VALUES * runs
    if sum(map(content.count, (b",", b"[", b"{"))) > values:
        raise StudyError(f"{path}: more than {values:,} values, which dqx writes into no such file")
    try:
        return json.loads(content.decode())
    except (ValueError, RecursionError):
        raise StudyError(f"{path}: it is no JSON, so it was damaged") from None
