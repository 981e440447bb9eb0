"""What a plan's record says of each chunk: its runs and its rows. Needs no JAX and no agent.

`dqx.study.schedule.groups` makes the same chunks of a `Plan`, to train them.
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from dqx.settings import SETTINGS, Config, ConfigError, brief, environments, row_steps
from dqx.settings.field import Setting
from dqx.settings.periods import check_rows
from dqx.settings.seeds import MAX_SEEDS
from dqx.settings.single import is_number
from dqx.study.entries import StudyError

_PERIODS = ("total_steps", "log_period", "eval_period")


class PlannedChunk(NamedTuple):
    """A chunk as it is planned.

    Attributes:
        runs: configuration and seed of each, in the order of training.
        steps: of the rows of metrics, int64 ``[K]``.
    """

    runs: list[tuple[str, int]]
    steps: np.ndarray

    @property
    def total_steps(self) -> int:
        """Environment steps of each run."""
        return int(self.steps[-1])

    @property
    def rows(self) -> int:
        """Rows of metrics."""
        return len(self.runs) * len(self.steps)

    @property
    def most_episodes(self) -> int:
        """Training episodes, if each took a single step."""
        return len(self.runs) * self.total_steps


class Chunks(Protocol):
    """The chunks of a plan: how many, and each by its number.

    Attributes:
        count: how many there are.
    """

    count: int

    def chunk(self, number: int) -> PlannedChunk:
        """The chunk of a number from 0 to ``count - 1``."""


def check_record(path: Path, record: Mapping[str, Any], planned: PlannedChunk) -> None:
    """Refuses the record of a chunk whose runs or snapshots are not those of the plan.

    Raises:
        StudyError: naming the record.
    """
    if [(run["config"], run["seed"]) for run in record["runs"]] != planned.runs:
        raise StudyError(f"{path}: its runs are not those that the plan has in this chunk")
    if any(run["diverged_at"] > planned.total_steps for run in record["runs"]):
        raise StudyError(f"{path}: a run diverged after its last step")
    taken = [int(step) for step in record["snapshots"]]
    if taken and not set(taken) <= set(planned.steps.tolist()):
        raise StudyError(f"{path}: it has snapshots at steps that have no row")


class Planned:
    """The chunks of a plan, by number.

    Args:
        plan: its record, checked.
    """

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self._seeds: list[int] = plan["seeds"]
        groups: dict[str, list[Mapping[str, Any]]] = {}
        for point in plan["points"]:
            groups.setdefault(_compiled(point), []).append(point)
        self._firsts: list[tuple[int, list[str], Mapping[str, Any]]] = []
        self.count = 0
        for points in groups.values():
            config = points[0]["config"]
            self._firsts.append((self.count, [point["name"] for point in points], config))
            self.count += -(-len(points) * len(self._seeds) // config["chunk_width"])

    def chunk(self, number: int) -> PlannedChunk:
        """The chunk of a number from 0 to ``count - 1``."""
        first, names, config = next(g for g in reversed(self._firsts) if g[0] <= number)
        width = config["chunk_width"]
        start = (number - first) * width
        places = range(start, min(start + width, len(names) * len(self._seeds)))
        runs = [(names[i % len(names)], self._seeds[i // len(names)]) for i in places]
        return PlannedChunk(runs, _steps(*(_period(config, name) for name in _PERIODS)))


def check_plan(path: Path, plan: Mapping[str, Any]) -> None:
    """Refuses a plan whose entries fit their form and cannot be a plan all the same.

    Settings are held against their declarations. How they fit together is checked where they are
    trained or played, since only that may load agents and environments.

    Raises:
        StudyError: naming the file, the entry, what is allowed and what it is.
    """
    names = [point["name"] for point in plan["points"]]
    if len(set(names)) < len(names) or len(set(plan["seeds"])) < len(plan["seeds"]):
        raise StudyError(f"{path}: a configuration or a seed is there twice")
    if len(names) * len(plan["seeds"]) > MAX_SEEDS:
        raise StudyError(f"{path}: its {len(names) * len(plan['seeds']):,} runs are too many")
    shared = [name for kind in plan.get("kinds", ()) for name in kind["points"]]
    if "kinds" in plan and sorted(shared) != sorted(names):
        raise StudyError(f"{path}: kinds: each configuration must be of one kind of machines")
    known: set[Any] = set()
    varied = plan["points"][0]["varied"].keys()
    for point in plan["points"]:
        try:
            _check_settings(point, known)
            if point["varied"].keys() != varied:
                raise ConfigError("it varies other fields than the first configuration does")
            for name, value in point["varied"].items():
                _check_varied(name, value)
        except ConfigError as error:
            label = brief(point["name"])
            raise StudyError(f"{path}: configuration {label}: {error}") from None


def _check_settings(point: Mapping[str, Any], known: set[Any]) -> None:
    """Raises `ConfigError` for a value that its setting does not take; remembers those it does."""
    for half, traced in (("config", False), ("hyper", True)):
        for name, value in point[half].items():
            if isinstance(value, dict | list):
                _check_setting(name, value, traced)
            elif (key := (name, traced, type(value), value)) not in known:
                _check_setting(name, value, traced)
                known.add(key)
    config = point["config"]
    if type(config.get("chunk_width")) is not int:
        raise ConfigError("chunk_width must be a whole number in the plan of a study, got none")
    check_rows(_of_periods(*(_period(config, name) for name in _PERIODS)))


def _check_setting(name: str, value: Any, traced: bool) -> None:
    if environments.is_own(name):
        found = environments.typed(name, value)
        if traced or isinstance(found, float) or type(found) is int:
            environments.number(name, found)
        return
    declared: Setting | None = SETTINGS.get(name)
    if declared is None:  # an agent's own, which may not be known here
        return
    if declared.traced != traced:
        raise ConfigError(f"{name} is {'' if declared.traced else 'no '}hyperparameter")
    if name == "agent":
        declared.typed(value)
    else:
        declared.check(value)


def _check_varied(name: str, value: Any) -> None:
    """Raises `ConfigError` unless a report can show a value of a varied field."""
    if isinstance(value, str) or value is None:
        return
    if name in SETTINGS or environments.is_own(name):
        _check_setting(name, value, name in SETTINGS and SETTINGS[name].traced)
    elif isinstance(value, int | float) and not (isinstance(value, bool) or is_number(value)):
        raise ConfigError(f"{name} must be a number, got {brief(value)}")


def _compiled(point: Mapping[str, Any]) -> str:
    """What of a configuration decides which program it shares, as text."""
    inputs = sorted(name for name in point["hyper"] if environments.is_own(name))
    return json.dumps([point["config"], inputs], sort_keys=True)


def _period(config: Mapping[str, Any], name: str) -> int:
    return int(config.get(name, SETTINGS[name].default))


@functools.lru_cache(maxsize=64)
def _steps(total_steps: int, log_period: int, eval_period: int) -> np.ndarray:
    steps = np.array(row_steps(_of_periods(total_steps, log_period, eval_period)), np.int64)
    steps.setflags(write=False)
    return steps


def _of_periods(total_steps: int, log_period: int, eval_period: int) -> Config:
    return Config(total_steps=total_steps, log_period=log_period, eval_period=eval_period)
