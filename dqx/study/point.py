"""One configuration of a study: made of fields, named, written as JSON and read back."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from dqx.settings import (
    SETTINGS,
    Config,
    ConfigError,
    Hyper,
    agent,
    brief,
    complete,
    environments,
    from_record,
    override,
    preset,
    setting,
    to_record,
)
from dqx.study.draws import label


class Point(NamedTuple):
    """One configuration of a study.

    Attributes:
        name: unique within the study.
        config: static fields.
        hyper: traced fields.
        varied: those fields that differ between the points of the study, with this point's values.
    """

    name: str
    config: Config
    hyper: Hyper
    varied: dict[str, Any]


def made_of(
    base: dict[str, Any], settings: list[tuple[str | None, dict[str, Any]]]
) -> tuple[Point, ...]:
    """The points of fields.

    Args:
        base: fields of all of them.
        settings: of each, its name if it has one, and its fields beyond the base.

    Raises:
        ConfigError: naming the configuration, for fields that there are none of.
    """
    built = []
    for name, fields in settings:
        called = name or label(fields)
        fields = {**base, **fields}
        chosen = fields.pop("preset", None)
        with naming(called):
            config, hyper = override(*_start(chosen), **fields)
        built.append((called or chosen or "default", config, hyper, chosen))
    varied = _varied(built)
    return tuple(
        Point(name, config, hyper, {f: _value(f, config, hyper, chosen) for f in varied})
        for name, config, hyper, chosen in built
    )


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Tells which configuration a mistake is in."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"configuration {name}: {error}" if name else str(error)) from None


def _start(chosen: Any) -> tuple[Config, Hyper]:
    if chosen is None:
        return Config(), Hyper()
    if not isinstance(chosen, str):
        raise ConfigError(
            f"preset must be the name of one, such as 'cartpole', got {brief(chosen)}"
        )
    return preset(chosen)


def _varied(built: list[tuple[str, Config, Hyper, str | None]]) -> list[str]:
    """Fields whose values differ between points, in the order of their definition."""
    own = dict.fromkeys(
        name
        for _, config, hyper, _ in built
        for name in (*dict(config.extra), *complete(config, hyper).extra)
    )
    games = dict.fromkeys(n for _, c, h, _ in built for n in environments.given(c, h))
    fields = ["preset", *SETTINGS, *games, *(n for n in own if not environments.is_own(n))]
    rows = [[_value(f, *point[1:]) for f in fields] for point in built]
    return [f for i, f in enumerate(fields) if any(row[i] != rows[0][i] for row in rows)]


def _value(field: str, config: Config, hyper: Hyper, chosen: str | None) -> Any:
    """A field's value at a point; None for a setting that only another agent brings."""
    if field == "preset":
        return chosen
    if environments.is_own(field):
        return environments.given(config, hyper).get(field)
    declared = setting(field)
    if declared.own and field not in {own.name for own in agent(config.agent).settings}:
        return None
    return getattr(hyper if declared.traced else config, field)


def point_record(point: Point) -> dict[str, Any]:
    """A point as JSON can hold it; `point_of` reads it back."""
    varied = {field: _json(field, value) for field, value in point.varied.items()}
    return {"name": point.name, **to_record(point.config, point.hyper), "varied": varied}


def _json(field: str, value: Any) -> Any:
    if field == "preset" or value is None:
        return value
    if environments.is_own(field):
        return environments.to_json(value)
    return setting(field).to_json(value)


def point_of(record: Mapping[str, Any]) -> Point:
    """The point that `point_record` wrote.

    Raises:
        ConfigError: for fields that this version does not know.
    """
    config, hyper = from_record(record["config"], record["hyper"])
    varied = {
        field: environments.typed(field, value)
        if environments.is_own(field) and value is not None
        else _value(field, config, hyper, value if isinstance(value, str) else None)
        for field, value in record["varied"].items()
    }
    return Point(record["name"], config, complete(config, hyper), varied)
