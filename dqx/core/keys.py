"""Every random number of a seed comes from a key with a name.

The key of a seed is ``fold_in(root key, seed)``; each use of randomness folds in its own purpose,
and then the clock. The numbers of the purposes are part of the reproducibility promise: they may be
added to, never changed.
"""

import enum

import jax

from dqx.core.types import Array, Key


class Purpose(enum.IntEnum):
    """What a stream of random numbers is for; the values are stable, names may change."""

    PARAMS = 0
    FIRST_RESET = 1
    ENV_STEP = 2
    RESET = 3
    EXPLORATION = 4
    REPLAY = 5
    EVALUATION = 6
    FIXED_STATES = 7
    LEARN = 8
    TRANSITION = 9
    DIAGNOSTICS = 16


def seed_key(root_seed: int, seed: Array | int) -> Key:
    """The typed threefry key of one seed: ``fold_in(key(root_seed), seed)``."""
    return jax.random.fold_in(jax.random.key(root_seed, impl="threefry2x32"), seed)


def purpose_key(key: Key, purpose: Purpose) -> Key:
    """The stream of one purpose within a seed; fold the clock in before drawing from it."""
    return jax.random.fold_in(key, purpose)
