"""JAX environments as pure functions, and one `make` for these, gymnax's and other suites'."""

from envs._lazy import loaded_later

# gymnax imports it for pictures of one of its games, and it takes as long to load as JAX.
with loaded_later("seaborn"):
    from gymnax.environments import spaces

# ruff: noqa: E402 (gymnax comes first)
from envs import adapters, exact, tabular
from envs._fields import setting
from envs.cartpole import CartPole
from envs.conformance import ConformanceError, check_environment
from envs.description import Description, Parameter, configure, describe
from envs.errors import UnusableEnvironment
from envs.mountain_car import MountainCar
from envs.pictures import render
from envs.registry import (
    is_foreign,
    is_loaded,
    make,
    module_of,
    names,
    own_names,
    sources_of,
    version_of,
)
from envs.sketches import Sketch, sketch_of
from envs.taxi import Taxi
from envs.wall_dodge import WallDodge

__all__ = [
    "CartPole",
    "ConformanceError",
    "Description",
    "MountainCar",
    "Parameter",
    "Sketch",
    "Taxi",
    "UnusableEnvironment",
    "WallDodge",
    "adapters",
    "check_environment",
    "configure",
    "describe",
    "exact",
    "is_foreign",
    "is_loaded",
    "make",
    "module_of",
    "names",
    "own_names",
    "render",
    "setting",
    "sketch_of",
    "sources_of",
    "spaces",
    "tabular",
    "version_of",
]
