"""What a search is asked for: the tune file, checked, and as its folder keeps it."""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from dqx.compute.score import score_metric
from dqx.settings import (
    MAX_SEEDS,
    SETTINGS,
    Config,
    ConfigError,
    Hyper,
    brief,
    check_root_seed,
    check_seeds,
    closest,
    environments,
    override,
    parse_seeds,
    preset,
    setting,
    show,
)
from dqx.settings.single import is_number
from dqx.study.draws import Rule, read_rule
from dqx.study.folder import StudyError
from dqx.study.plan import check_name, read_file

SAMPLERS = ("tpe", "cmaes", "random")
MAX_CANDIDATES = 10_000
_KEYS = ("name", "root_seed", "base", "tune")
_TUNE_KEYS = (
    "space", "generations", "population", "rungs", "seeds", "fresh_seeds", "sampler", "seed",
    "keep", "level",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Tune:
    """A search for good settings.

    Attributes:
        name: of the search.
        base: fields of every candidate, ``preset`` among them.
        space: the fields that candidates differ in, and the values that each may take.
        generations: how often candidates are proposed.
        population: how many are proposed at a time.
        rungs: on how many seeds a candidate has been trained when it is judged, rising; who is left
            after the last one has finished the search.
        seeds: of the search, as many as the last rung; all candidates share them.
        fresh: seeds that the winner is retrained on; none of them is one of ``seeds``.
        sampler: what proposes: ``"tpe"``, ``"cmaes"`` or ``"random"``.
        seed: of the sampler.
        keep: the largest share of those judged at a rung that may go on to the next.
        level: of the intervals that decide.
        root_seed: of the key that every seed's key is folded from.
    """

    name: str
    base: Mapping[str, Any]
    space: Mapping[str, Rule]
    generations: int
    population: int
    rungs: tuple[int, ...]
    seeds: tuple[int, ...]
    fresh: tuple[int, ...]
    sampler: str
    seed: int
    keep: float
    level: float
    root_seed: int

    @property
    def most_runs(self) -> int:
        """Runs of the search if nobody is dropped, and of the winner on fresh seeds."""
        return self.generations * self.population * self.rungs[-1] + len(self.fresh)

    @property
    def record(self) -> dict[str, Any]:
        """The search as JSON; `read_tune` takes it. Equal records are the same search."""
        return {
            "name": self.name,
            "root_seed": self.root_seed,
            "base": jsonable(self.base),
            "tune": {
                "space": {f: {r.kind: jsonable(r.values)} for f, r in self.space.items()},
                "generations": self.generations,
                "population": self.population,
                "rungs": list(self.rungs),
                "seeds": list(self.seeds),
                "fresh_seeds": list(self.fresh),
                "sampler": self.sampler,
                "seed": self.seed,
                "keep": self.keep,
                "level": self.level,
            },
        }


def read_tune(source: str | os.PathLike[str] | Mapping[str, Any] | Tune) -> Tune:
    """A checked search, from a TOML file, a dictionary of the same form, or as it is.

    Raises:
        StudyError: if the file cannot be read, or its form is wrong.
        ConfigError: for a field that there is not, or a value that it does not take.
    """
    if isinstance(source, Tune):
        return source
    if isinstance(source, Mapping):
        return _tune(source, "the search")
    return _tune(read_file(source, "the tune file"), str(source))


def _tune(table: Mapping[str, Any], where: str) -> Tune:
    _check_keys(table, _KEYS, where, "a study's [grid], [search] and seeds have no place here")
    given = table.get("tune")
    if not isinstance(given, Mapping):
        raise StudyError(
            f"{where} has no table [tune], which says what is searched: use `dqx study` for a study"
        )
    _check_keys(given, _TUNE_KEYS, "[tune]", "fields to search belong under [tune.space]")
    base = _fields(table.get("base", {}), "base")
    rungs = _rungs(given.get("rungs", [2, 4, 8, 16]))
    seeds = _seeds(given.get("seeds", rungs[-1]), "seeds")
    if len(seeds) != rungs[-1]:
        raise StudyError(
            f"[tune] seeds must be {rungs[-1]}, as many as the last of rungs, got {len(seeds)}"
        )
    found = Tune(
        name=table.get("name", "tune"),
        base=base,
        space=_space(_fields(given.get("space", {}), "tune.space"), base),
        generations=_whole(given, "generations", 4),
        population=_whole(given, "population", 16),
        rungs=rungs,
        seeds=seeds,
        fresh=_fresh(given.get("fresh_seeds", 32), seeds),
        sampler=given.get("sampler", "tpe"),
        seed=_whole(given, "seed", 0, low=0, high=2**32 - 1),
        keep=_share(given, "keep", 1.0),
        level=_share(given, "level", 0.95, below=1.0),
        root_seed=table.get("root_seed", 0),
    )
    check_name(found.name)
    check_root_seed(found.root_seed)
    _check_sampler(found)
    if found.generations * found.population > MAX_CANDIDATES:
        raise StudyError(
            f"[tune] {found.generations:,} generations of {found.population:,} candidates are more "
            f"than {MAX_CANDIDATES:,}: search less"
        )
    return found


def _check_keys(table: Mapping[str, Any], known: Sequence[str], where: str, hint: str) -> None:
    for key in table:
        if key not in known:
            raise StudyError(
                f"{where} has an unknown entry {key!r}{closest(key, known)}; known are "
                f"{', '.join(known)} ({hint})"
            )


def _fields(table: Any, name: str) -> dict[str, Any]:
    if not isinstance(table, Mapping):
        raise StudyError(f"{name} must be a table, such as [{name}], got {brief(table)}")
    return environments.flattened(table)


def _space(given: dict[str, Any], base: Mapping[str, Any]) -> dict[str, Rule]:
    """The rules of the fields, each with more than one value, all of which the field takes."""
    if not given:
        raise StudyError(
            "[tune.space] holds no field: add learning_rate = {log_uniform = [1e-5, 1e-2]}, say"
        )
    space = {}
    for field, rule in given.items():
        free = field == "preset" or environments.is_own(field)
        known = None if free else setting(field)  # names the closest if there is none
        found = read_rule("[tune.space]", field, rule)
        if len({str(jsonable(value)) for value in found.values}) < 2:
            raise StudyError(
                f"[tune.space]: {field} has one value only, so there is nothing to search: put "
                "it under [base]"
            )
        if found.kind != "choice" and known is not None and known.type not in (int, float):
            raise StudyError(
                f"[tune.space]: {field} takes no number: list its values, "
                f"{field} = {{choice = [...]}}"
            )
        tasks: dict[str, str] = {}  # and by which value first
        for value in found.values:
            if known is not None:
                known.check(value)
            task = _task({**base, field: value})
            tasks.setdefault(task, f"{field} = {brief(value)}")
        if len(tasks) > 1:
            (one, first), (two, second), *_ = tasks.items()
            raise StudyError(
                f"[tune.space]: {first} is scored by {one} and {second} by {two}, which cannot be "
                "compared: search each by itself"
            )
        space[field] = found
    return space


def _task(fields: dict[str, Any]) -> str:
    """By what candidates with these fields are scored, in words.

    Raises:
        ConfigError: if there is no such field or preset, or it takes no such value.
    """
    fields = dict(fields)
    chosen = fields.pop("preset", None)
    if chosen is not None and not isinstance(chosen, str):
        raise ConfigError(
            f"preset must be the name of one, such as 'cartpole', got {brief(chosen)}"
        )
    start = (Config(), Hyper()) if chosen is None else preset(chosen)
    config, hyper = override(*start, **fields)
    if any(environments.is_own(field) for field in fields):
        environments.resolved(config, hyper)  # the environment knows its settings
    wrapped = (
        f"{name} {show(value)}"
        for name in environments.OF_TASKS
        if (value := getattr(config, name)) != SETTINGS[name].default
    )
    return " with ".join([f"the {score_metric(config)} of {config.env}", *wrapped])


def _rungs(given: Any) -> tuple[int, ...]:
    is_list = isinstance(given, Sequence) and not isinstance(given, str) and bool(given)
    if not is_list or not all(isinstance(n, int) and not isinstance(n, bool) for n in given):
        raise StudyError(f"[tune] rungs must be a list of numbers of seeds, got {brief(given)}")
    rungs = tuple(given)
    rising = all(a < b for a, b in zip(rungs, rungs[1:], strict=False))
    if rungs[0] < 1 or not rising:
        raise StudyError(
            f"[tune] rungs must rise from 1 or more, such as [2, 4, 8], got {brief(given)}"
        )
    return rungs


def _seeds(given: Any, name: str) -> tuple[int, ...]:
    try:
        numbers = parse_seeds(given, name) if isinstance(given, str) else given
        return tuple(check_seeds(numbers).tolist())
    except ConfigError as error:
        raise StudyError(f"[tune] {name}: {error}") from None


def _fresh(given: Any, seeds: tuple[int, ...]) -> tuple[int, ...]:
    """The fresh seeds: a number of them follows the highest of the search."""
    if isinstance(given, int) and not isinstance(given, bool):
        first = max(seeds) + 1
        given = range(first, first + min(max(given, 0), MAX_SEEDS + 1))
        if len(given) < 2:
            raise StudyError("[tune] fresh_seeds must be 2 or more: one seed has no interval")
    fresh = _seeds(given, "fresh_seeds")
    if len(fresh) < 2:
        raise StudyError("[tune] fresh_seeds must be 2 or more: one seed has no interval")
    common = sorted(set(fresh) & set(seeds))
    if common:
        some = ", ".join(map(str, common[:5])) + (", ..." if len(common) > 5 else "")
        raise StudyError(
            f"[tune] fresh_seeds has {some}, which candidates are chosen on: give other numbers, "
            f"from {max(seeds) + 1} on, or how many there shall be"
        )
    return fresh


def _whole(
    given: Mapping[str, Any], name: str, default: int, low: int = 1, high: int = 9999
) -> int:
    value = given.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise StudyError(
            f"[tune] {name} must be a whole number from {low} to {high:,}, got {brief(value)}"
        )
    return value


def _share(given: Mapping[str, Any], name: str, default: float, below: float = math.inf) -> float:
    value = given.get(name, default)
    if not is_number(value) or not 0 < value <= 1 or value >= below:
        end = "1" if below > 1 else f"below {below:g}"
        raise StudyError(f"[tune] {name} must be above 0 and {end} at most, got {brief(value)}")
    return float(value)


def _check_sampler(tune: Tune) -> None:
    if tune.sampler not in SAMPLERS:
        raise StudyError(
            f"[tune] sampler must be one of {', '.join(SAMPLERS)}, got {brief(tune.sampler)}"
            f"{closest(tune.sampler, SAMPLERS)}"
        )
    if tune.sampler != "cmaes":
        return
    choices = [field for field, rule in tune.space.items() if rule.kind == "choice"]
    if choices:
        raise StudyError(
            f"[tune] sampler 'cmaes' draws numbers only, and {', '.join(choices)} is a choice: use "
            "'tpe'"
        )
    if len(tune.space) < 2:
        raise StudyError("[tune] sampler 'cmaes' needs two fields or more: use 'tpe' for one")


def jsonable(value: Any) -> Any:
    """A value of a file as strict JSON: an infinity is its text, which settings take back.

    Raises:
        StudyError: for what no field takes, such as a date.
    """
    if isinstance(value, bool | str | int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [jsonable(item) for item in value]
    raise StudyError(
        f"{brief(value)} is no value of a field: give numbers, texts, or lists of them"
    )
