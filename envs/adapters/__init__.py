"""Environments of other JAX suites by prefix, such as `navix:Navix-Empty-5x5-v0`.

A suite is one file of this folder with four functions: `names()` says what it can make,
`refused()` says of the suite's other environments why not, `options(name)` says what of one can be
set, and `make(name, **options)` builds it as a gymnax environment and its parameters. A suite is
imported when it is named, never before.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

from gymnax.environments.environment import Environment

from envs.errors import UnusableEnvironment, did_you_mean, in_one_line


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

    def options(self, name: str) -> Sequence[inspect.Parameter]:
        """Describe what `make` takes for one of `names()`, see `base.option`."""
        ...

    def make(self, name: str, **options: Any) -> tuple[Environment, Any]:
        """Build one of `names()`, with some of its `options`."""
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


def refused(prefix: str) -> dict[str, str]:
    """Say of a suite's environments that cannot be made why not, by name with its prefix.

    Raises ValueError for an unknown prefix, and where the suite is not installed.
    """
    return {f"{prefix}:{name}": why for name, why in _load(prefix).refused().items()}


def make(name: str, **options: Any) -> tuple[Environment, Any]:
    """Build the environment `PREFIX:NAME` of another suite and its default parameters.

    `options` go to the suite's own constructor; `params.max_steps_in_episode` is the time limit,
    whatever the suite itself makes of one. Raises UnusableEnvironment, a ValueError, for a name
    that cannot be made, where the suite is not installed or cannot fetch its data, and for values
    that the suite does not take; TypeError for an unknown option.
    """
    adapter, inner = _found(name)
    if options:
        _check_known(name, options, [option.name for option in adapter.options(inner)])
    try:
        return adapter.make(inner, **options)
    except UnusableEnvironment:
        raise
    except OSError as error:
        raise UnusableEnvironment(
            f"{name} cannot be made, since it needs data that cannot be read or fetched: "
            f"{_first_line(error)}"
        ) from None
    except Exception as error:
        if not options:
            raise
        given = ", ".join(f"{key} = {value!r}" for key, value in options.items())
        raise UnusableEnvironment(
            f"{name} cannot be made with {given}: {in_one_line(error)}"
        ) from None


def factory_of(name: str) -> Callable[..., Any]:
    """Return what builds `PREFIX:NAME`: its parameters are the options that the suite takes.

    Raises what `make` does of names.
    """
    adapter, inner = _found(name)

    def build(**options: Any) -> tuple[Environment, Any]:
        return adapter.make(inner, **options)

    build.__signature__ = inspect.Signature(adapter.options(inner))  # type: ignore[attr-defined]
    return build


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
        raise UnusableEnvironment(_missing(prefix, suite)) from None


def _found(name: str) -> tuple[Adapter, str]:
    """The adapter of a name's suite, and the name without the prefix."""
    prefix, _, inner = name.partition(":")
    adapter = _load(prefix)
    if reason := adapter.refused().get(inner):
        raise UnusableEnvironment(f"{name} cannot be trained: {reason}")
    if inner not in adapter.names():
        raise UnusableEnvironment(_unknown(name, prefix, inner, adapter))
    return adapter, inner


def _check_known(name: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for option in given:
        if option not in known:
            raise TypeError(
                f"{name} has no option {option!r}: {did_you_mean(option, known)}"
                f"its options are {', '.join(known) or 'none'}"
            )


def _suite(prefix: str) -> Suite:
    if prefix not in SUITES:
        raise UnusableEnvironment(
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
        raise UnusableEnvironment(_missing(prefix, suite)) from None


def _missing(prefix: str, suite: Suite) -> str:
    line = f"{prefix}: environments need the package {suite.package}: pip install 'dqx[{prefix}]'"
    return line if suite.python == "3.11" else f"{line} (Python {suite.python} or newer)"


def _unknown(name: str, prefix: str, inner: str, adapter: Adapter) -> str:
    known = {candidate.lower(): candidate for candidate in adapter.names()}
    close = [known[match] for match in difflib.get_close_matches(inner.lower(), known, cutoff=0.4)]
    hint = f"did you mean {', '.join(f'{prefix}:{match}' for match in close)}? " if close else ""
    return (
        f"unknown environment {name!r}: {hint}`dqx envs {prefix}:` or envs.adapters.names"
        f"({prefix!r}) lists all {len(known)}"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
