"""What values a search may take of a field, and points drawn from them at random."""

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dqx.settings import brief, environments, setting, show
from dqx.settings.single import is_number
from dqx.study.folder import StudyError
from dqx.study.forms import MAX_POINTS

KINDS = ("log_uniform", "uniform", "choice")


class Rule(NamedTuple):
    """The values that a search may take of one field.

    Attributes:
        kind: ``"log_uniform"``, ``"uniform"`` or ``"choice"``.
        values: the two ends, or the choices.
        whole: whether the field takes whole numbers only.
    """

    kind: str
    values: tuple[Any, ...]
    whole: bool

    def at(self, uniform: float) -> Any:
        """The value at a place from 0 to 1 of the rule's distribution."""
        if self.kind == "choice":
            return self.values[int(uniform * len(self.values))]
        low, high = self.values
        if self.kind == "log_uniform":
            low, high = math.log(low), math.log(high)
        place = low + uniform * (high - low)
        return self.rounded(float(np.exp(place)) if self.kind == "log_uniform" else place)

    def rounded(self, number: float) -> float | int:
        """A number of the range as it is trained.

        Six digits tell draws apart, can be read, and are the same wherever exp differs in its last.
        """
        short = float(f"{number:.6g}")
        return round(short) if self.whole else short


def read_rule(where: str, field: str, rule: Any) -> Rule:
    """The rule of a field, from a table such as ``{log_uniform = [1e-5, 1e-2]}``.

    Args:
        where: the rule stands, for messages: ``"search"``.
        field: its full name, such as ``env.gravity``.
        rule: as TOML gives it.

    Raises:
        StudyError: if it is no such table.
        ConfigError: if there is no such field.
    """
    if not isinstance(rule, Mapping) or len(rule) != 1 or next(iter(rule)) not in KINDS:
        raise StudyError(
            f"{where}: {field} must be drawn by one of {', '.join(KINDS)}, such as "
            f"{field} = {{log_uniform = [1e-5, 1e-2]}}, got {brief(rule)}"
        )
    ((kind, values),) = rule.items()
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise StudyError(f"{where}: {kind} of {field} takes a list, got {brief(values)}")
    if kind == "choice":
        return Rule(kind, tuple(values), False)
    lowest = 0.0 if kind == "log_uniform" else -math.inf
    numeric = len(values) == 2 and all(map(is_number, values))
    if not numeric or not lowest < values[0] < values[1]:
        positive = "positive " if kind == "log_uniform" else ""
        raise StudyError(
            f"{where}: {kind} of {field} takes two rising {positive}numbers, got {brief(values)}"
        )
    return Rule(kind, tuple(values), _whole(field))


def label(fields: Mapping[str, Any]) -> str:
    """The name of a configuration by what is set of it."""
    return ", ".join(f"{field}={show(value)}" for field, value in fields.items())


def random_points(search: dict[str, Any]) -> list[dict[str, Any]]:
    """The points of a random search.

    Each field has a stream of its own: more draws, or another field, leave what was drawn as it is.
    What is drawn again, as happens among few choices, is one point: it would give the same bits.
    """
    draws, seed = search.pop("draws", None), search.pop("seed", 0)
    for name, value in (("draws", draws), ("seed", seed)):
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
            raise StudyError(f"search: {name} must be a whole number, got {brief(value)}")
    if not 1 <= draws <= MAX_POINTS:
        raise StudyError(f"search: draws must be from 1 to {MAX_POINTS:,}, got {draws}")
    if not search:
        raise StudyError(
            "search: no field is drawn; add learning_rate = {log_uniform = [1e-5, 0.1]}, say"
        )
    columns = {}
    for field, given in search.items():
        rule = read_rule("search", field, given)
        stream = np.random.default_rng([seed, zlib.crc32(field.encode())])
        columns[field] = [rule.at(place) for place in stream.random(draws).tolist()]
    found: dict[str, dict[str, Any]] = {}
    for i in range(draws):
        fields = {field: values[i] for field, values in columns.items()}
        found.setdefault(label(fields), fields)
    return list(found.values())


def _whole(field: str) -> bool:
    if field == "preset" or environments.is_own(field):
        return False
    return not setting(field).traced and setting(field).parquet == "int64"
