"""What a caller hands in, checked before anything is done with it: errors say what is allowed."""

import functools
import inspect
import math
import numbers
import os
import reprlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


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


def shown(value: Any) -> str:
    """A value as a message shows it: in one line, its ``repr`` where that is short, else some."""
    return " ".join(_BRIEF.repr(value).split())


class Kind(NamedTuple):
    """What an argument has to be.

    Attributes:
        words: it, to follow "must be".
        holds: ``holds(value)``, whether a value is of this kind; never raises.
    """

    words: str
    holds: Callable[[Any], bool]


def require(error: type[ValueError], /, **given: tuple[Any, Kind]) -> None:
    """Refuses the first argument that is not of its kind.

    Args:
        error: what is raised.
        given: value and kind of each argument, by its name.
    """
    for name, (value, kind) in given.items():
        if not kind.holds(value):
            raise error(f"{name} must be {kind.words}, got {shown(value)}")


def checked(
    error: type[ValueError], kinds: Mapping[str, Kind]
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Makes a decorator of functions whose arguments are checked at every call.

    Args:
        error: what is raised.
        kinds: of arguments, by name; others are not checked.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        bind = inspect.signature(function).bind

        @functools.wraps(function)
        def call(*args: P.args, **named: P.kwargs) -> R:
            try:
                given = bind(*args, **named).arguments
            except TypeError:  # which the call itself says better
                given = {}
            require(error, **{n: (v, kinds[n]) for n, v in given.items() if n in kinds})
            return function(*args, **named)

        return call

    return decorate


def scalar(value: Any) -> Any:
    """A plain number of an array without axes; any other value as it is."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    return value


def is_number(value: Any) -> bool:
    """Whether a value is a real number, NaN and infinities among them."""
    value = scalar(value)
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def whole(least: int = 0, most: int | None = None) -> Kind:
    """Whole numbers within bounds."""
    words = f"a whole number from {least:,} {'on' if most is None else f'to {most:,}'}"

    def holds(value: Any) -> bool:
        value = scalar(value)
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            return False
        return least <= int(value) and (most is None or int(value) <= most)

    return Kind(words, holds)


def maybe(kind: Kind) -> Kind:
    """The same, or None."""
    return Kind(f"{kind.words}, or None", lambda value: value is None or kind.holds(value))


def instance(words: str, *types: type) -> Kind:
    """Objects of some types."""
    return Kind(words, lambda value: isinstance(value, types))


def one_of(*values: str) -> Kind:
    """One of some texts."""
    words = " or ".join([", ".join(values[:-1]), values[-1]])
    return Kind(words, lambda value: isinstance(value, str) and value in values)


def each(kind: Kind, words: str) -> Kind:
    """Lists, tuples and the like of one kind."""

    def holds(values: Any) -> bool:
        # Not what can be gone through only once: the check would use it up.
        if not isinstance(values, Collection) or isinstance(values, str | bytes | Mapping):
            return False
        if getattr(values, "ndim", 1) == 0:  # an array of one number, which has no items
            return False
        return all(kind.holds(value) for value in values)

    return Kind(words, holds)


def _is_path(value: Any) -> bool:
    if not isinstance(value, str | os.PathLike):
        return False
    path = os.fspath(value)
    return isinstance(path, str) and path != "" and "\0" not in path


def _is_time(value: Any) -> bool:
    return is_number(value) and 0 <= scalar(value) < math.inf


NUMBER = Kind("a number", is_number)
FINITE = Kind("a finite number", lambda v: is_number(v) and -math.inf < scalar(v) < math.inf)
SECONDS = Kind("seconds, 0 or more and finite", _is_time)
PATH = Kind("a path, such as 'runs/cartpole'", _is_path)
TEXT = instance("a text", str)
FUNCTION = Kind("a function", callable)
MAPPING = instance("a dictionary", Mapping)
# NumPy's own is not derived from Python's, and NumPy is not imported for this.
FLAG = Kind("True or False", lambda value: type(value).__name__ in ("bool", "bool_"))
