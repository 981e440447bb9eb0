"""What the functions of `dqx.stats` are called with, checked by the annotations they have."""

import collections.abc
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin

import numpy as np
import numpy.typing as npt

from dqx.arguments import FLAG, FUNCTION, NUMBER, TEXT, Kind, P, R, checked, each, is_number, whole

FloatArray = npt.NDArray[np.float64]
NanPolicy = Literal["raise", "drop"] | float
Statistic = Callable[..., Any]

# So many draws of a bootstrap or of a permutation test take memory and minutes enough.
MOST_DRAWS = 1_000_000
# Of the sizes of studies that are simulated.
MOST_SEEDS = 10_000


def public(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a function that users call: arguments of another kind are a ValueError."""
    parameters = inspect.signature(function).parameters.values()
    kinds = {p.name: _kind_of(p.annotation) for p in parameters}
    return checked(ValueError, kinds)(function)


def applied_to(
    statistic: Callable[..., Any], values: FloatArray, axis: int, *, of: str = "statistic"
) -> FloatArray:
    """What a user's statistic makes of an array, checked: numbers, one axis fewer.

    Raises:
        ValueError: if it fails, or gives anything else.
    """
    name = getattr(statistic, "__name__", "it")
    wanted = values.shape[:axis] + values.shape[axis + 1 :]
    try:
        found = np.asarray(statistic(values, axis=axis))
    except Exception as error:
        raise ValueError(
            f"{of} must take (array, axis=i), as numpy.mean does: {name} raised "
            f"{type(error).__name__}: {error}"
        ) from error
    if found.dtype.kind not in "biuf" or found.shape != wanted:
        raise ValueError(
            f"{of} must give numbers without the axis that it is told, {list(wanted)} here: {name} "
            f"gave {found.dtype} {list(found.shape)}"
        )
    return found.astype(np.float64)


def _is_array(value: Any) -> bool:
    """Whether a value is real numbers in an array or nested lists of one shape; None is NaN."""
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O":
            array.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        return False
    return value is not None and array.dtype.kind in "biufO"


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(map(is_number, value))


def _kind_of(annotation: Any) -> Kind:
    """What an annotation says of an argument."""
    if annotation in _BY_ANNOTATION:
        return _BY_ANNOTATION[annotation]
    origin = get_origin(annotation)
    if origin in _BY_ORIGIN:
        return _BY_ORIGIN[origin]
    assert origin is Literal, annotation
    names = get_args(annotation)
    words = " or ".join(map(repr, names))
    return Kind(words, lambda value: isinstance(value, str) and value in names)


_ARRAY = Kind("real numbers in an array of one shape", _is_array)
_WHOLE = Kind("a whole number", whole(-(2**200), 2**200).holds)
_ARRAYS = Kind(
    "a dictionary of arrays by the algorithms' names, at least one",
    lambda value: (
        isinstance(value, Mapping) and bool(value) and all(map(_is_array, value.values()))
    ),
)
_BY_ANNOTATION = {
    npt.ArrayLike: _ARRAY,
    NanPolicy: Kind(
        "'raise', 'drop' or the number to count instead",
        lambda v: v in ("raise", "drop") if isinstance(v, str) else is_number(v),
    ),
    float: NUMBER,
    str: TEXT,
    int: _WHOLE,
    bool: FLAG,
    tuple[float, float]: Kind("two numbers, such as (0, 500)", _is_pair),
}
_BY_ORIGIN = {
    collections.abc.Callable: FUNCTION,
    collections.abc.Mapping: _ARRAYS,
    collections.abc.Sequence: Kind(
        "a list of whole numbers, at least one",
        lambda v: each(_WHOLE, "").holds(v) and len(v) > 0,
    ),
}
