"""A study on paper: configurations x seeds, from a TOML file or a dictionary, checked and named."""

import collections
import dataclasses
import itertools
import math
import os
import re
import tomllib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dqx.arguments import PATH, shown
from dqx.settings import (
    MAX_SEEDS,
    SETTINGS,
    Config,
    ConfigWarning,
    Hyper,
    brief,
    check_root_seed,
    check_seeds,
    closest,
    complete,
    environments,
    notes,
    parse_seeds,
    rounded,
    validate,
)
from dqx.study.draws import random_points
from dqx.study.entries import StudyError
from dqx.study.forms import MAX_POINTS
from dqx.study.point import Point, made_of, naming

_KEYS = ("name", "seeds", "root_seed", "snapshot_every", "base", "grid", "case", "search")
MAX_RUNS = MAX_SEEDS
MAX_FILE_BYTES = 16 * 2**20
MAX_LABEL = 4_000


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a study trains.

    Attributes:
        name: of the study.
        points: its configurations.
        seeds: every configuration is trained on all of them.
        root_seed: of the key that every seed's key is folded from.
        snapshot_every: environment steps from one snapshot of the parameters to the next; 0: none.
    """

    name: str
    points: tuple[Point, ...]
    seeds: tuple[int, ...]
    root_seed: int = 0
    snapshot_every: int = 0

    @property
    def num_runs(self) -> int:
        """Pairs of a configuration and a seed."""
        return len(self.points) * len(self.seeds)

    @property
    def total_steps(self) -> int:
        """Environment steps of all runs."""
        return sum(point.config.total_steps for point in self.points) * len(self.seeds)

    @property
    def agents(self) -> set[str]:
        """The names of the agents of its configurations."""
        return {point.config.agent for point in self.points}

    @property
    def environments(self) -> set[str]:
        """The names of the environments of its configurations."""
        return {point.config.env for point in self.points}


def read_plan(source: str | os.PathLike[str] | Mapping[str, Any] | Plan) -> Plan:
    """A checked plan, from a TOML file, a dictionary of the same form, or as it is.

    Raises:
        StudyError: if the file cannot be read or the plan's form is wrong.
        ConfigError: if a configuration cannot work; names the configuration.
    """
    if isinstance(source, Plan):
        return _checked(source, is_new=False)
    if isinstance(source, Mapping):
        return _plan(source, "the plan")
    return _plan(read_file(source, "the plan"), str(source))


def read_file(path: str | os.PathLike[str], what: str) -> dict[str, Any]:
    """The table in a TOML file, under the file's name if it gives none.

    Args:
        path: of the file.
        what: the file is, for messages.

    Raises:
        StudyError: if it cannot be read, is no TOML, or is empty.
    """
    if not PATH.holds(path):
        raise StudyError(f"{what} must be a TOML file's path or a dictionary, got {shown(path)}")
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)  # it may be a device that never ends
        if len(content) > MAX_FILE_BYTES:
            raise StudyError(
                f"{what} {path} is larger than {MAX_FILE_BYTES // 2**20} MiB: give a TOML file of "
                "fewer lines, such as a range of seeds instead of a list"
            )
        table = tomllib.loads(content.decode())
    except OSError as error:
        raise StudyError(f"cannot read {what} {path}: {error.strerror}; give a TOML file") from None
    except StudyError:
        raise
    except ValueError as error:  # also of a whole number with more digits than Python reads
        raise StudyError(f"{path} is no TOML: {error}") from None
    except RecursionError:
        raise StudyError(
            f"{path} is nested too deeply for a plan: lists and tables within lists have no place "
            "in it"
        ) from None
    if not table:
        raise StudyError(f"{path} is empty: give at least [base], with a preset or fields")
    return {"name": Path(path).stem, **table}


def _plan(table: Mapping[str, Any], where: str) -> Plan:
    if not table:
        raise StudyError(f"{where} is empty: give at least [base], with a preset or fields")
    for key in table:
        if key not in _KEYS:
            raise StudyError(
                f"{where} has an unknown entry {key!r}{closest(key, _KEYS)}; known are "
                f"{', '.join(_KEYS)} (fields such as learning_rate belong under [base])"
            )
    base = _table(table, "base")
    return _checked(
        Plan(
            name=table.get("name", "study"),
            points=made_of(base, _settings(table)),
            seeds=_seeds(table.get("seeds", 1)),
            root_seed=table.get("root_seed", 0),
            snapshot_every=table.get("snapshot_every", 0),
        )
    )


def single(
    name: str,
    config: Config,
    hyper: Hyper,
    seeds: Iterable[int] | int,
    *,
    label: str | None = None,
    root_seed: int = 0,
    snapshot_every: int = 0,
) -> Plan:
    """The checked plan of one configuration.

    Args:
        name: of the study.
        config: static fields.
        hyper: traced fields.
        seeds: seed numbers, or how many.
        label: of the configuration, such as that of its preset; ``name`` if left out.
        root_seed: see `Plan`.
        snapshot_every: see `Plan`.

    Raises:
        StudyError: for a name that names no folder.
        ConfigError: for a configuration or seeds that cannot work.
    """
    point = Point(label or name, config, hyper, {})
    numbers = tuple(check_seeds(seeds).tolist())
    return _checked(Plan(name, (point,), numbers, root_seed, snapshot_every))


def _checked(plan: Plan, is_new: bool = True) -> Plan:
    """The plan with its periods rounded; tells of that, once, in `ConfigWarning`."""
    check_name(plan.name)
    if not plan.points:
        raise StudyError("points: none are given; a study needs at least one configuration")
    _check_labels([point.name for point in plan.points])
    told: dict[str, None] = {}  # each line once, in order
    points = []
    for point in plan.points:
        with naming(point.name if len(plan.points) > 1 else ""):
            validate(point.config, point.hyper)
            config, hyper = environments.resolved(point.config, point.hyper)
            config, lines = rounded(config)
            told |= dict.fromkeys([*lines, *(notes(config, hyper) if is_new else ())])
        varied = {f: _as_trained(f, v, config, hyper) for f, v in point.varied.items()}
        hyper = complete(config, hyper)
        points.append(Point(point.name, config, hyper, varied))
    for line in told:
        warnings.warn(ConfigWarning(line), stacklevel=4)
    plan = dataclasses.replace(plan, points=tuple(points))
    check_seeds(plan.seeds)
    check_root_seed(plan.root_seed)
    _check_snapshots(plan)
    if plan.num_runs > MAX_RUNS:
        raise StudyError(
            f"{len(plan.points):,} configurations x {len(plan.seeds):,} seeds are "
            f"{plan.num_runs:,} runs, at most {MAX_RUNS:,} are allowed: split the study"
        )
    return plan


def _as_trained(field: str, value: Any, config: Config, hyper: Hyper) -> Any:
    """A varied field's value after rounding, or the default that the environment has for it."""
    if environments.is_own(field):
        value = environments.given(config, hyper).get(field)
        return environments.defaults(config).get(field) if value is None else value
    rounds = field in SETTINGS and not SETTINGS[field].traced
    return getattr(config, field, value) if rounds else value


def check_name(name: Any) -> None:
    """Raises `StudyError` unless it names a folder, whatever the system."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,99}", name):
        raise StudyError(
            f"name must be letters, digits and any of _ . + = - (at most 100), since it names a "
            f"folder, got {brief(name)}: set name in the plan"
        )


def _seeds(seeds: Any) -> tuple[int, ...]:
    given = parse_seeds(seeds, "seeds") if isinstance(seeds, str) else seeds
    return tuple(check_seeds(given).tolist())


def _table(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        raise StudyError(f"{key} must be a table, such as [{key}], got {brief(value)}")
    return environments.flattened(value)


def _settings(table: Mapping[str, Any]) -> list[tuple[str | None, dict[str, Any]]]:
    """What is set beyond the base for every point, and the names of the named ones."""
    settings: list[tuple[str | None, dict[str, Any]]] = []
    grid = _table(table, "grid")
    for field, values in grid.items():
        if not isinstance(values, Sequence) or isinstance(values, str) or not values:
            raise StudyError(
                f"grid: {field} must be a list of values, such as {field} = [...], got "
                f"{brief(values)}"
            )
    count = math.prod(len(values) for values in grid.values())
    if count > MAX_POINTS:
        raise StudyError(f"the grid has {count:,} points, at most {MAX_POINTS:,} are allowed")
    if grid:
        for values in itertools.product(*grid.values()):
            settings.append((None, dict(zip(grid, values, strict=True))))
    cases = table.get("case", [])
    if not isinstance(cases, Sequence) or not all(isinstance(case, Mapping) for case in cases):
        raise StudyError(f"case must be a list of tables, each [[case]], got {brief(cases)}")
    for case in cases:
        fields = environments.flattened(case)
        name = fields.pop("name", None)
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise StudyError(
                "every [[case]] needs a name, a text in one line such as 'no-target'; got "
                f"{brief(name)}"
            )
        settings.append((name, fields))
    if "search" in table:
        settings += [(None, fields) for fields in random_points(_table(table, "search"))]
    return settings or [(None, {})]


def _check_labels(names: Sequence[str]) -> None:
    """Refuses names of configurations that cannot tell them apart in a line."""
    if len(names) > MAX_POINTS:
        raise StudyError(
            f"{len(names):,} configurations are too many, at most {MAX_POINTS:,} are allowed: "
            "split the study"
        )
    for name in names:
        if not isinstance(name, str) or len(name) > MAX_LABEL or not name.isprintable():
            raise StudyError(
                f"the name of a configuration is a text in one line of at most {MAX_LABEL:,} "
                f"characters, got {brief(name)}: give it a [[case]] with such a name"
            )
    for name, count in collections.Counter(names).items():
        if count > 1:
            raise StudyError(f"two configurations are named {brief(name)}: every name must differ")


def _check_snapshots(plan: Plan) -> None:
    every = plan.snapshot_every
    if not isinstance(every, int) or isinstance(every, bool) or not 0 <= every < 2**31:
        raise StudyError(f"snapshot_every must be a whole number, 0 for none, got {brief(every)}")
