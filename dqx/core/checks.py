"""What building blocks ask of their arguments: told while tracing, or checked as a program runs.

Shapes, dtypes and Python numbers are known when a function is traced: what is wrong with them is an
AssertionError that says what to do, and costs nothing when the program runs. Values of arrays are
known only then. `holds` checks them for who asks for it by ``jax.experimental.checkify``, and is
left out of every other program.
"""

from typing import Any

import chex
import jax
import numpy as np
from jax.experimental import checkify

from dqx.core.types import Array


def one_value_an_action(**arrays: Array) -> None:
    """Each array is float ``[A]``, with one number for each of the same A actions.

    Raises:
        AssertionError: at trace time, naming the first that is not.
    """
    first, *_ = arrays
    for name, array in arrays.items():
        what = f"{name} is {_words(array)}, and must be float [A]"
        chex.assert_rank(
            array, 1, custom_message=f"{what}: one observation at a time, map the function by vmap"
        )
        chex.assert_type(array, float, custom_message=f"{what}: Q-values are floats")
        chex.assert_equal_shape(
            [arrays[first], array],
            custom_message=f"{what} as {first}, {_words(arrays[first])}: one value for each action",
        )


def one_number(**arrays: Array | float) -> None:
    """Each is a number, an array ``[]`` or a Python one.

    Raises:
        AssertionError: at trace time, naming the first that is not.
    """
    for name, array in arrays.items():
        chex.assert_rank(
            array,
            0,
            custom_message=f"{name} is {_words(array)}, and must be one number []: map the "
            "function over a batch by vmap",
        )


def an_action(action: Array, num_actions: int) -> None:
    """It is int ``[]``; and below ``num_actions``, which only checkify finds.

    Raises:
        AssertionError: at trace time, for another shape or dtype, or a Python number out of range.
    """
    one_number(action=action)
    chex.assert_type(
        action, int, custom_message=f"action is {_words(action)}, and must be a whole number int []"
    )
    words = f"action must be from 0 to {num_actions - 1}"
    if is_known(action):
        assert 0 <= int(action) < num_actions, f"{words}, got {int(action)}"
    holds((action >= 0) & (action < num_actions), f"{words}, got {{action}}", action=action)


def above_zero(words: str, **numbers: Array | float) -> None:
    """Each number is above 0; of arrays that are traced only checkify finds it.

    Args:
        words: what to do where one is not.
        numbers: by name.

    Raises:
        AssertionError: at trace time, for a number that is known then.
    """
    for name, number in numbers.items():
        if is_known(number):
            assert np.all(np.asarray(number) > 0), f"{name} must be above 0, got {number}: {words}"
        else:
            holds(number > 0, f"{name} must be above 0, got {{number}}: {words}", number=number)


def holds(true: Any, message: str, **values: Any) -> None:
    """Checks as the program runs, where it is under ``jax.experimental.checkify``; else nothing.

    Args:
        true: bool array; all of it must be true.
        message: a format text, with ``values`` by name.
        values: arrays that the message shows.
    """
    # Copies, since checkify takes elements of NumPy's arrays by traced numbers, which NumPy cannot.
    shown = {name: jax.numpy.copy(value) for name, value in values.items()}
    checkify.debug_check(jax.numpy.all(true), message, **shown)


def is_known(value: Any) -> bool:
    """Whether a value is known while tracing: a Python number, or an array that is not traced."""
    return not isinstance(value, jax.core.Tracer)


def _words(array: Any) -> str:
    shape = list(np.shape(array))
    return f"{getattr(array, 'dtype', type(array).__name__)} {shape}"
