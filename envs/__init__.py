"""JAX environments as pure functions, and one `make` for these and all of gymnax's."""

from envs._cores import split_cpu_into_cores

split_cpu_into_cores()

# ruff: noqa: E402, I001 (importing gymnax starts JAX, so the cores come first)
from envs import exact, tabular
from envs.cartpole import CartPole
from envs.conformance import ConformanceError, check_environment
from envs.mountain_car import MountainCar
from envs.registry import make, names, own_names
from envs.taxi import Taxi
from envs.wall_dodge import WallDodge
from gymnax.environments import spaces

__all__ = [
    "CartPole",
    "ConformanceError",
    "MountainCar",
    "Taxi",
    "WallDodge",
    "check_environment",
    "exact",
    "make",
    "names",
    "own_names",
    "spaces",
    "tabular",
]
