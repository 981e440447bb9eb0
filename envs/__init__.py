"""JAX environments as pure functions, and one `make` for these, gymnax's and other suites'."""

from envs._lazy import loaded_later

# gymnax imports it for pictures of one of its games, and it takes as long to load as JAX.
with loaded_later("seaborn"):
    from gymnax.environments import spaces

# ruff: noqa: E402 (gymnax comes first)
from envs import adapters, exact, tabular
from envs.cartpole import CartPole
from envs.conformance import ConformanceError, check_environment
from envs.mountain_car import MountainCar
from envs.registry import make, names, own_names
from envs.taxi import Taxi
from envs.wall_dodge import WallDodge

__all__ = [
    "CartPole",
    "ConformanceError",
    "MountainCar",
    "Taxi",
    "WallDodge",
    "adapters",
    "check_environment",
    "exact",
    "make",
    "names",
    "own_names",
    "spaces",
    "tabular",
]
