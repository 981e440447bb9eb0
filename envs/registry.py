"""Environments by name: this package's own, everything gymnax knows, other suites by prefix."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from typing import Any

from gymnax import registration
from gymnax.environments.environment import Environment

from envs import adapters
from envs.cartpole import CartPole
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


def make(name: str, **options: Any) -> tuple[Environment, Any]:
    """Build the environment called `name` and its default parameters.

    A name with a colon is one of another suite, `SUITE:NAME` (see `envs.adapters`).
    `options` go to the environment's constructor (for example `size=10` of DeepSea-bsuite);
    the returned parameters are a pytree, changed with `params.replace(...)`.
    Raises ValueError for an unknown name and TypeError for an unknown option.
    """
    if name not in names():
        if isinstance(name, str) and ":" in name:
            return adapters.make(name, **options)
        raise ValueError(_unknown(name))
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


def _unknown(name: str) -> str:
    # Compared without case, since "cartpole-v1" is a likely slip.
    known = {candidate.lower(): candidate for candidate in names()}
    close = [known[match] for match in difflib.get_close_matches(str(name).lower(), known)]
    hint = f"did you mean {', '.join(close)}? " if close else ""
    return f"unknown environment {name!r}: {hint}`dqx envs` or envs.names() lists all {len(known)}"
