"""``plan.json``: what a study trains and on what, as written, read back and compared."""

import datetime
import json
from collections.abc import Mapping
from typing import Any

from dqx.settings import SETTINGS, ConfigError, agent, environments, show
from dqx.study import identity
from dqx.study.folder import FORMAT, Folder, StudyError, seal
from dqx.study.host import checkout
from dqx.study.plan import Plan, point_of, point_record

# What makes two studies the same; the rest says when and on what they were trained.
_SAME = ("name", "seeds", "root_seed", "snapshot_every")


def plan_record(
    plan: Plan, present: Mapping[str, str], command: str | None = None
) -> dict[str, Any]:
    """The content of ``plan.json``, sealed; ``command`` is the command line, if there was one."""
    record: dict[str, Any] = {
        "format": FORMAT,
        "name": plan.name,
        "seeds": list(plan.seeds),
        "root_seed": plan.root_seed,
        "snapshot_every": plan.snapshot_every,
        "points": [point_record(point) for point in plan.points],
        "identity": dict(present),
        **checkout(),
        "command": command,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    record = json.loads(json.dumps(record))  # tuples become lists, as they are when read back
    return {**record, "sha256": seal(record)}


def plan_of(folder: Folder, record: Mapping[str, Any]) -> Plan:
    """The plan that was written.

    Raises:
        StudyError: if it has fields that this version of dqx does not know.
        ConfigError: if an agent or an environment of a module of one's own is not known here.
    """
    for point in record["points"]:
        agent(point["config"].get("agent", SETTINGS["agent"].default))
        environments.check_loaded(point["config"].get("env", SETTINGS["env"].default))
    try:
        points = tuple(point_of(point) for point in record["points"])
    except ConfigError as error:
        raise StudyError(f"{folder.plan} is of another version of dqx: {error}") from None
    return Plan(
        name=record["name"],
        points=points,
        seeds=tuple(record["seeds"]),
        root_seed=record["root_seed"],
        snapshot_every=record["snapshot_every"],
    )


def check_same_study(folder: Folder, record: Mapping[str, Any], present: Mapping[str, str]) -> None:
    """Refuses to mix bits of different software or devices in one study.

    Raises:
        StudyError: showing both sides.
    """
    found = identity.differences(record["identity"], present)
    if found:
        raise StudyError(
            f"{folder.path} cannot be resumed here, since bits might differ: {'; '.join(found)}. "
            "Resume it with what it was made with, or start a new study in another folder"
        )


def plan_differences(stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """What differs between two plans, one text each that shows both sides; at most five."""
    texts = [
        f"{name} was {_brief(stored[name])} and is {_brief(given[name])} now"
        for name in _SAME
        if stored[name] != given[name]
    ]
    before = {point["name"]: point for point in stored["points"]}
    after = {point["name"]: point for point in given["points"]}
    if list(before) != list(after):
        texts.append(
            f"the configurations were {_brief(list(before))} and are {_brief(list(after))}"
        )
    for name in [name for name in before if name in after]:
        for part in ("config", "hyper"):
            old, new = before[name][part], after[name][part]
            for field in [field for field in old if old[field] != new.get(field)]:
                if field == "chunk_width" and new.get(field) is None:
                    continue  # not settled yet
                texts.append(
                    f"{field} of {name} was {show(old[field])} and is {show(new.get(field))} now"
                )
    return texts[:5]


def _brief(value: Any) -> str:
    if not isinstance(value, list):
        return repr(value)
    shown = ", ".join(map(str, value[:4]))
    return f"{shown}, ... ({len(value)} in all)" if len(value) > 4 else shown
