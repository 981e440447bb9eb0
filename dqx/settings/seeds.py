"""Seed numbers as a user gives them, checked."""

import itertools
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dqx.settings.errors import ConfigError, brief

if TYPE_CHECKING:
    import numpy as np

MAX_SEEDS = 1_000_000


def parse_seeds(text: str, what: str = "seeds") -> list[int]:
    """Seed numbers from ``"32"`` (0 to 31), ``"8:16"`` (8 to 15), ``"3,17"``, or ``"0:4,9"``.

    Args:
        text: as above.
        what: what the message calls it, such as ``--seeds``.

    Raises:
        ConfigError: for any other text, an empty range, or more than a million seeds.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 1 and ":" not in text:
        parts = [f"0:{text.strip()}"]
    seeds: list[int] = []
    for part in parts:
        match = re.fullmatch(r"([0-9]{1,10})(?::([0-9]{1,10}))?", part)
        if match is None:
            raise ConfigError(
                f"{what} {brief(text)} is not understood: give how many (32), a range (0:32), or "
                "numbers (3,17)"
            )
        first = int(match[1])
        end = first + 1 if match[2] is None else int(match[2])
        if end <= first:
            raise ConfigError(f"{what} {brief(text)} asks for no seed at all: give at least one")
        if len(seeds) + end - first > MAX_SEEDS:
            raise ConfigError(
                f"{what} {brief(text)} are more than {MAX_SEEDS:,}: train fewer at once"
            )
        seeds.extend(range(first, end))
    return seeds


def check_seeds(seeds: Iterable[int] | int) -> "np.ndarray":
    """Seed numbers as int64 ``[S]``, from an iterable of them or a count.

    Raises:
        ConfigError: if there are none, or one is no whole number, negative, too large, or there
            twice.
    """
    import numpy as np  # here, so that settings alone load nothing heavy

    of_numbers = isinstance(seeds, int | np.integer | Iterable)
    if isinstance(seeds, bool | str | bytes) or not of_numbers:
        raise ConfigError(f"seeds must be whole numbers or how many of them, got {brief(seeds)}")
    if isinstance(seeds, int | np.integer):
        if seeds > MAX_SEEDS:
            count = f"{seeds:,}" if seeds < 10**18 else brief(int(seeds))
            raise ConfigError(f"seeds = {count} are more than {MAX_SEEDS:,}: train fewer at once")
        seeds = range(seeds)
    given = list(itertools.islice(seeds, MAX_SEEDS + 1))
    if len(given) > MAX_SEEDS:
        raise ConfigError(f"seeds are more than {MAX_SEEDS:,}: train fewer at once")
    if not given:
        raise ConfigError("seeds: none are given; ask for at least one, such as seeds=range(32)")
    for seed in given:
        if (
            isinstance(seed, bool)
            or not isinstance(seed, int | np.integer)
            or not 0 <= seed < 2**32
        ):
            raise ConfigError(f"seeds must be whole numbers from 0 to 2**32 - 1, got {brief(seed)}")
    numbers = np.asarray(given, np.int64)
    values, counts = np.unique(numbers, return_counts=True)
    if np.any(counts > 1):
        twice = ", ".join(str(v) for v in values[counts > 1][:5])
        raise ConfigError(f"seeds must differ, but these are there more than once: {twice}")
    return numbers


def check_root_seed(root_seed: int) -> None:
    """Raises `ConfigError` unless it is a whole number that a key can be made from."""
    import numpy as np

    if isinstance(root_seed, bool) or not isinstance(root_seed, int | np.integer):
        raise ConfigError(f"root_seed must be a whole number, got {brief(root_seed)}")
    if not 0 <= root_seed < 2**32:
        shown = brief(root_seed)
        raise ConfigError(f"root_seed must be a whole number from 0 to 2**32 - 1, got {shown}")
