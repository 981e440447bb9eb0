"""Calls with one wrong argument, and whose error it is that they end in."""

import linecache
import math
import traceback
from pathlib import Path

import numpy as np

import dqx

HOUSE = Path(dqx.__file__).parent
# Of every kind: nothing, empty, of a wrong type, negative, not a number, huge, nested, a function.
WRONG = (
    None, "", "abc", "a\0b", b"x", [], {}, (1, 2, 3), [None], ["a"], [[1.0, 2.0], [3.0]], {"a": 1},
    -1, 0, 2.5, math.nan, math.inf, -math.inf, 10**30, True, 1j, [math.nan] * 3, print, object(),
    np.zeros((0, 3)), np.zeros((2, 2, 2)),
)  # fmt: skip


class Accepted(Exception):
    """A call came so far that it would have trained."""


def refusals(call, given, name, values=WRONG):
    """What is said of each wrong value of one argument; None where it is taken.

    Args:
        call: the function.
        given: arguments that it takes.
        name: of the argument to replace.
        values: to put in its place.
    """
    said = []
    for value in values:
        try:
            call(**{**given, name: value})
        except Accepted:
            said.append(None)
        except Exception as error:
            assert isinstance(error, ValueError), (name, value, error)
            assert is_ours(error), (name, value, traceback.format_exception(error))
            assert "\n" not in str(error), (name, value, str(error))
            assert len(str(error)) < 400, (name, value, str(error))
            said.append(str(error))
        else:
            said.append(None)
    return said


def is_ours(error):
    """Whether a `raise` of dqx gave an error, not a library that it called."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(last.filename, last.lineno).strip()
    return Path(last.filename).is_relative_to(HOUSE) and line.startswith("raise ")
