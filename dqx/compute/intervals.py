"""The intervals of a run, from one row of metrics to the next."""

import collections
from typing import NamedTuple

from dqx.settings import Config, evaluates_at, row_steps

# So many lengths of segment are compiled as they are; of more, all but the commonest are put
# together from the powers of this many rounds.
_LENGTHS, _POWER = 3, 32


class Interval(NamedTuple):
    """From one row to the next.

    Attributes:
        start: environment step of the row before.
        end: environment step of the row.
        warm: lengths of the pieces with random actions.
        learn: lengths of the pieces with learning, after them.
        evaluates: whether there is a greedy evaluation at the end.
    """

    start: int
    end: int
    warm: tuple[int, ...]
    learn: tuple[int, ...]
    evaluates: bool


def intervals(config: Config) -> list[Interval]:
    """The intervals of a run, in pieces of a few lengths, so that few programs are compiled."""
    ends = row_steps(config)
    bounds = list(zip([0, *ends], ends, strict=False))
    starts = config.learning_starts
    warm = [max(0, min(end, starts) - start) for start, end in bounds]
    learn = [end - start - w for (start, end), w in zip(bounds, warm, strict=True)]
    parts = zip(bounds, _pieces(warm, config), _pieces(learn, config), strict=True)
    return [Interval(*bound, w, x, evaluates_at(config, bound[1])) for bound, w, x in parts]


def _pieces(lengths: list[int], config: Config) -> list[tuple[int, ...]]:
    """Each length as it is if few differ, else all but the commonest in pieces."""
    counts = collections.Counter(length for length in lengths if length)
    few = len(counts) <= _LENGTHS
    whole = set(counts) if few else {length for length, _ in counts.most_common(1)}
    return [
        _taken_apart(length, config.train_period)
        if length and length not in whole
        else (length,) * (length > 0)
        for length in lengths
    ]


def _taken_apart(length: int, unit: int) -> tuple[int, ...]:
    found: list[int] = []
    for power in (_POWER**2, _POWER, 1):
        count, length = divmod(length, power * unit)
        found += [power * unit] * count
    return tuple(found)
