"""What is said when an environment cannot be used."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class UnusableEnvironment(ValueError):
    """An environment that cannot be made, or not as asked; the message is one line."""


def did_you_mean(wanted: Any, known: Iterable[str]) -> str:
    """Suggest the closest of the `known` names, as "did you mean A, B? "; empty if none is close.

    Names are compared without case, since "cartpole-v1" is a likely slip.
    """
    by_lower = {name.lower(): name for name in known}
    close = [by_lower[match] for match in difflib.get_close_matches(str(wanted).lower(), by_lower)]
    return f"did you mean {', '.join(close)}? " if close else ""


def in_one_line(error: BaseException) -> str:
    """Name the kind of `error` and the first line of what it says."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
