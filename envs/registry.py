"""Environments by name: this package's own first, then gymnax's, other suites', and users'."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from gymnax import registration
from gymnax.environments.environment import Environment

from envs import adapters, foreign
from envs.cartpole import CartPole
from envs.errors import UnusableEnvironment, did_you_mean
from envs.mountain_car import MountainCar
from envs.taxi import Taxi
from envs.wall_dodge import WallDodge

_OWN: dict[str, Callable[..., Environment]] = {
    "CartPole-v0": partial(CartPole, "v0"),
    "CartPole-v1": partial(CartPole, "v1"),
    "MountainCar-v0": MountainCar,
    "Taxi-v3": partial(Taxi, "v3"),
    "Taxi-v4": partial(Taxi, "v4"),
    "WallDodge-v0": partial(WallDodge, "v0"),
    "WallDodge-v1": partial(WallDodge, "v1"),
}


def own_names() -> tuple[str, ...]:
    """Name the environments this package implements itself; they shadow gymnax's of that name."""
    return tuple(_OWN)


def names() -> tuple[str, ...]:
    """Name every environment `make` knows: this package's own, then gymnax's, each once.

    What was added with `gymnax.register` is included; other suites are not
    (`envs.adapters.names(prefix)`).
    """
    return (*_OWN, *(name for name in registration.registered_envs if name not in _OWN))


def make(name: str, /, **options: Any) -> tuple[Environment, Any]:
    """Build the environment called `name` and its default parameters.

    `name` is one of `names()`, or "package.module:Class" for a class derived from gymnax's
    Environment, or a function that returns an instance of one; its module is imported. With the
    prefix of a suite it is one of that suite's, `SUITE:NAME` (see `envs.adapters`).

    `options` go to the environment's constructor (for example `size=10` of DeepSea-bsuite);
    the returned parameters are a pytree, changed with `params.replace(...)`.
    Raises UnusableEnvironment, a ValueError, for an unknown name and for whatever is wrong with
    "package.module:Class", and TypeError for an unknown option of one of `names()`.
    """
    if name not in names():
        prefix, _ = _split(name)
        if prefix in adapters.SUITES:
            return adapters.make(name, **options)
        return foreign.make(name, options)
    try:
        if name not in _OWN:
            return registration.make(name, **options)
        env = _OWN[name](**options)
    except TypeError as error:
        if not options:
            raise
        raise TypeError(
            f"{name} does not take the options {sorted(options)} ({error}); its dynamics and "
            "time limit are changed with params.replace(...)"
        ) from error
    return env, env.default_params


def factory_of(name: str) -> Callable[..., Any]:
    """Return what builds the environment called `name`: a class or function that takes options.

    The module of "package.module:Class" is imported, and raises what `make` does.
    """
    if name in _OWN:
        return _OWN[name]
    if name in names():
        # gymnax has no public way to ask for what was registered.
        return registration._registry[name]
    prefix, _ = _split(name)
    if prefix in adapters.SUITES:
        return adapters.factory_of(name)
    return foreign.load(name)


def module_of(name: str) -> str:
    """Name the module that defines the environment called `name`; nothing is imported.

    That is what "package.module:Class" says, and for a name registered with gymnax the module of
    the class or function that was registered. Raises UnusableEnvironment for an unknown name.
    """
    if name in names():
        return foreign.defined_in(factory_of(name))
    prefix, _ = _split(name)
    return adapters.module_of(prefix) if prefix in adapters.SUITES else foreign.module_name(name)


def is_foreign(name: str) -> bool:
    """Whether the code of `name` is neither this package's nor gymnax's nor a suite's.

    Nothing is imported. Raises UnusableEnvironment for an unknown name.
    """
    return foreign.is_foreign_module(module_of(name))


def is_loaded(name: str) -> bool:
    """Whether `make(name)` would find its code without importing anything; False if unknown."""
    if name in names():
        return True
    prefix, colon, _ = str(name).partition(":")
    return bool(colon) and (prefix in adapters.SUITES or prefix in sys.modules)


def version_of(name: str) -> str | None:
    """Name the suite that `name` is of and its version; None for what is of no suite."""
    prefix, colon, _ = str(name).partition(":")
    return adapters.version_of(name) if colon and prefix in adapters.SUITES else None


def sources_of(environment: str | Environment, /, **options: Any) -> list[Path]:
    """List the files on which an environment's behaviour hangs and that a user may change.

    These are the files of its class, of its parameters' class and of all their bases, and for a
    name also that of `module_of`; left out is what belongs to this package, gymnax, flax, JAX or
    Python. What these files import is not followed. A name is imported and built with `options`.
    Raises UnusableEnvironment for code without a file, such as a notebook's.
    """
    if not isinstance(environment, str):
        if not isinstance(environment, Environment):
            raise UnusableEnvironment(f"{environment!r} is no environment, and no name of one")
        return foreign.source_files([type(environment), type(environment.default_params)])
    if not is_foreign(environment):
        return []
    env, params = make(environment, **options)
    return foreign.source_files([type(env), type(params)], [module_of(environment)])


def _split(name: str) -> tuple[str, str]:
    """What stands before and after the colon; raises UnusableEnvironment where there is none."""
    prefix, colon, rest = str(name).partition(":")
    if not colon:
        known = names()
        raise UnusableEnvironment(
            f"unknown environment {name!r}: {did_you_mean(name, known)}`dqx envs` or envs.names() "
            f"lists all {len(known)}; one of your own is given as package.module:Class"
        )
    return prefix, rest
