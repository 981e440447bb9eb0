"""How the contract test says what is broken: one line that names the clause, and where."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments.environment import Environment

from envs.errors import in_one_line
from envs.foreign import is_foreign_module

_ADVICE: dict[type[Exception], str] = {
    jax.errors.TracerBoolConversionError: (
        "`if`, `while`, `and`, `or` and `not` of Python cannot look at a traced value; use "
        "jnp.where, jax.lax.cond, &, | or ~"
    ),
    jax.errors.TracerArrayConversionError: (
        "NumPy cannot look at a traced value; use the same function of jax.numpy"
    ),
    jax.errors.TracerIntegerConversionError: (
        "Python cannot index or count by a traced value; index an array of jax.numpy"
    ),
    jax.errors.ConcretizationTypeError: (
        "a traced value is no number of Python; use jax.numpy, or an option of the constructor"
    ),
}


class ConformanceError(AssertionError):
    """An environment breaks a clause of the contract; `clause` names it."""

    def __init__(self, env: Environment, clause: str, detail: str) -> None:
        """Say which clause `env` breaks and how."""
        super().__init__(f"{env.name} breaks the clause '{clause}': {detail}")
        self.clause = clause


def fail(env: Environment, clause: str, detail: str) -> NoReturn:
    """Raise ConformanceError."""
    raise ConformanceError(env, clause, detail)


@contextmanager
def calls(env: Environment, clause: str, what: str) -> Iterator[None]:
    """Turn whatever `what` raises into a ConformanceError that says where, and what to do."""
    try:
        yield
    except Exception as error:
        # The first that fits: some of these errors are kinds of the last one.
        kind = next((kind for kind in _ADVICE if isinstance(error, kind)), None)
        reason = in_one_line(error) if kind is None else f"{type(error).__name__}: {_ADVICE[kind]}"
        detail = f"{what} fails{_place(error)} with {reason}"
        raise ConformanceError(env, clause, detail) from error


def expect(env: Environment, what: str, value: Any, wanted: Any, source: str) -> None:
    """Demand that `value` has the structure, shapes and dtypes of `wanted`, which `source` gave."""
    have_structure: Any = jax.tree.structure(value)
    want_structure: Any = jax.tree.structure(wanted)
    if have_structure != want_structure:
        detail = f"{what} has the structure {have_structure}, not {want_structure} as {source}"
        fail(env, "shapes", detail)
    paths = jax.tree_util.tree_leaves_with_path(value)
    for (path, have), want in zip(paths, jax.tree.leaves(wanted), strict=True):
        if have.shape != tuple(want.shape) or have.dtype != want.dtype:
            fail(
                env,
                "shapes",
                f"{what}{jax.tree_util.keystr(path)} is {have.dtype}{list(have.shape)}, "
                f"expected {jnp.dtype(want.dtype)}{list(want.shape)} as {source}",
            )


def difference(left: dict[str, Any], right: dict[str, Any], tolerance: float) -> str:
    """Name the first number in which two results differ beyond `tolerance`; empty if none does.

    A result holds pytrees of NumPy arrays by what they are.
    """
    right_leaves = jax.tree.leaves(right)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(left), right_leaves, strict=True):
        is_float = jnp.issubdtype(x.dtype, jnp.floating)
        bound = tolerance if is_float else 0.0
        close = np.isclose(x, y, rtol=bound, atol=bound, equal_nan=is_float)
        if not np.all(close):
            index = np.argwhere(~close)[0]
            where = f"{path[0].key}{jax.tree_util.keystr(path[1:])}{_element(index)}"
            return f"{where} is {x[tuple(index)]} and {y[tuple(index)]}"
    return ""


def _element(index: np.ndarray) -> str:
    return str(index.tolist()) if index.size else ""


def _place(error: Exception) -> str:
    """Where in the environment's own file an error came up; empty if not there."""
    frames = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if is_foreign_module(frame.f_globals.get("__name__", "builtins"))
    ]
    return f" in {Path(frames[-1][0]).name}, line {frames[-1][1]}," if frames else ""
