"""Environments of other JAX suites by prefix, such as `navix:Navix-Empty-5x5-v0`.

A suite is one file of this folder with three functions: `names()` says what it can make,
`refused()` says of the suite's other environments why not, and `make(name, **options)` builds one
as a gymnax environment and its parameters. A suite is imported when it is named, never before.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, cast

from gymnax.environments.environment import Environment


class Suite(NamedTuple):
    """A suite: the package that brings it (also its module), and the oldest Python it runs on."""

    package: str
    python: str = "3.11"


class Adapter(Protocol):
    """What a suite's file gives."""

    def names(self) -> tuple[str, ...]:
        """Name every environment that `make` can build, without the prefix."""
        ...

    def refused(self) -> Mapping[str, str]:
        """Say of the suite's other environments why they cannot be made."""
        ...

    def make(self, name: str, **options: Any) -> tuple[Environment, Any]:
        """Build one of `names()`, with options of the suite."""
        ...


SUITES = {
    "craftax": Suite("craftax"),
    "jaxtari": Suite("jaxtari"),
    "jumanji": Suite("jumanji"),
    "navix": Suite("navix", python="3.12"),
    "pgx": Suite("pgx"),
    "xminigrid": Suite("xminigrid"),
}


def prefixes() -> tuple[str, ...]:
    """Name the suites, installed or not."""
    return tuple(SUITES)


def names(prefix: str) -> tuple[str, ...]:
    """Name every environment of a suite, with its prefix.

    Raises ValueError for an unknown prefix, and where the suite is not installed.
    """
    return tuple(f"{prefix}:{name}" for name in _load(prefix).names())


def make(name: str, **options: Any) -> tuple[Environment, Any]:
    """Build the environment `PREFIX:NAME` of another suite and its default parameters.

    `options` go to the suite's own constructor; `params.max_steps_in_episode` is the time limit,
    whatever the suite itself makes of one. Raises ValueError for a name that cannot be made, where
    the suite is not installed or cannot fetch its data, and TypeError for an unknown option.
    """
    prefix, _, inner = name.partition(":")
    adapter = _load(prefix)
    if reason := adapter.refused().get(inner):
        raise ValueError(f"{name} cannot be trained: {reason}")
    if inner not in adapter.names():
        raise ValueError(_unknown(name, prefix, inner, adapter))
    try:
        return adapter.make(inner, **options)
    except OSError as error:
        raise ValueError(
            f"{name} cannot be made, since it needs data that cannot be read or fetched: "
            f"{_first_line(error)}"
        ) from error
    except TypeError as error:
        if not options:
            raise
        raise TypeError(
            f"{name} does not take the options {sorted(options)} ({_first_line(error)})"
        ) from error


def factory_of(name: str) -> Callable[..., Any]:
    """Return what builds `PREFIX:NAME`: its parameters are the options that the suite takes.

    Raises ValueError for an unknown prefix, and where the suite is not installed.
    """
    prefix, _, inner = name.partition(":")
    return functools.partial(_load(prefix).make, inner)


def module_of(prefix: str) -> str:
    """Name the module of this package that adapts a suite."""
    return f"{__name__}.{prefix}"


def version_of(name: str) -> str | None:
    """Name package and version of the suite that `name` belongs to, such as "navix 4.0.0".

    None for names without a prefix. Raises ValueError for an unknown prefix, and where the suite
    is not installed.
    """
    prefix, colon, _ = str(name).partition(":")
    if not colon:
        return None
    suite = _suite(prefix)
    try:
        return f"{suite.package} {importlib.metadata.version(suite.package)}"
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(_missing(prefix, suite)) from None


def _suite(prefix: str) -> Suite:
    if prefix not in SUITES:
        raise ValueError(
            f"unknown prefix {prefix!r}: a name with a colon is SUITE:NAME, and the suites are "
            f"{', '.join(SUITES)}"
        )
    return SUITES[prefix]


def _load(prefix: str) -> Adapter:
    suite = _suite(prefix)
    try:
        return cast(Adapter, importlib.import_module(f"envs.adapters.{prefix}"))
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] != suite.package:
            raise
        raise ValueError(_missing(prefix, suite)) from None


def _missing(prefix: str, suite: Suite) -> str:
    line = f"{prefix}: environments need the package {suite.package}: pip install 'dqx[{prefix}]'"
    return line if suite.python == "3.11" else f"{line} (Python {suite.python} or newer)"


def _unknown(name: str, prefix: str, inner: str, adapter: Adapter) -> str:
    known = {candidate.lower(): candidate for candidate in adapter.names()}
    close = [known[match] for match in difflib.get_close_matches(inner.lower(), known, cutoff=0.4)]
    hint = f"did you mean {', '.join(f'{prefix}:{match}' for match in close)}? " if close else ""
    return (
        f"unknown environment {name!r}: {hint}envs.adapters.names({prefix!r}) lists all "
        f"{len(known)}"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
