"""Noise of noisy layers, drawn beside whatever else an agent draws."""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax

from dqx.core.noise import draw_noise, draw_rows_of_noise
from dqx.core.types import Key, PyTree

# What networks are asked for in an update, as `kit.Outputs` names it; the order says whose noise is
# whose.
PASSES = ("now", "next_target", "next_online", "now_target")
Draws = Callable[[Key], PyTree]


class Noisy(NamedTuple):
    """Random numbers of one step or update of an agent whose network has noisy layers.

    Attributes:
        draws: what there is to draw without such layers.
        noise: of a step `RowsOfNoise`, a row for each environment; of an update float32 ``[N]`` for
            each network and observation, by its name in `kit.Outputs`.
    """

    draws: PyTree
    noise: Any


def with_rows_of_noise(draws: Draws, size: int, num_envs: int) -> Draws:
    """Beside what is drawn for a step, noise for each environment, if the layers take any."""
    if size == 0:
        return draws

    def both(key: Key) -> Noisy:
        key, own = jax.random.split(key)
        return Noisy(draws(key), draw_rows_of_noise(own, size, num_envs))

    return both


def with_noise(draws: Draws, size: int, passes: Collection[str]) -> Draws:
    """Beside what is drawn for an update, noise for each of ``passes``, if layers take any."""
    if size == 0:
        return draws

    def both(key: Key) -> Noisy:
        key, own = jax.random.split(key)
        keys = dict(zip(PASSES, jax.random.split(own, len(PASSES)), strict=True))
        # In an order of their own: that of a set, and so the program, changes between processes.
        needed = [name for name in PASSES if name in passes]
        return Noisy(draws(key), {name: draw_noise(keys[name], size) for name in needed})

    return both


def parted(draws: PyTree) -> tuple[PyTree, Any]:
    """What is drawn without noisy layers, and the noise, None without such."""
    if not isinstance(draws, Noisy):
        return draws, None
    # The barrier takes one step's noise out of a block's before it is used: each number is used for
    # many weights, and XLA's CPU backend would look it up in the block, one at a time, for each.
    return draws.draws, jax.lax.optimization_barrier(draws.noise)
