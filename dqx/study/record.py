"""``plan.json``: what a study trains and on what, as written, read back and compared."""

import dataclasses
import datetime
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from dqx.settings import SETTINGS, ConfigError, ConfigWarning, agent, brief, environments, show
from dqx.study import identity
from dqx.study.folder import FORMAT, Folder, StudyError, intact_plans, read_plan_file
from dqx.study.host import checkout
from dqx.study.kinds import MachineKind, kinds_of
from dqx.study.plan import Plan, read_plan
from dqx.study.point import point_of, point_record
from dqx.study.sealed import read_sealed, seal, write_sealed

# What makes two studies the same; the rest says when and on what they were trained.
_SAME = ("name", "seeds", "root_seed", "snapshot_every")


def plan_record(
    plan: Plan,
    present: Mapping[str, str],
    command: str | None = None,
    kinds: Sequence[MachineKind] = (),
) -> dict[str, Any]:
    """The content of ``plan.json``, sealed.

    Args:
        plan: settled.
        present: what its bits depend on beside it.
        command: the command line, if there was one.
        kinds: of machines that train it, if there are several; each has its configurations.
    """
    record: dict[str, Any] = {
        "format": FORMAT,
        "name": plan.name,
        "seeds": list(plan.seeds),
        "root_seed": plan.root_seed,
        "snapshot_every": plan.snapshot_every,
        "points": [point_record(point) for point in plan.points],
        "identity": dict(present),
        **({"kinds": [kind._asdict() for kind in kinds]} if kinds else {}),
        **checkout(),
        "command": command,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    record = json.loads(json.dumps(record))  # tuples become lists, as they are when read back
    return {**record, "sha256": seal(record)}


def write_plan(folder: Folder, record: Mapping[str, Any]) -> None:
    """Writes a plan twice, so that one damaged file does not end a study.

    Raises:
        OSError: when it cannot be written.
    """
    for path in (folder.plan_copy, folder.plan):
        write_sealed(path, record)


def plan_of(folder: Folder, record: Mapping[str, Any]) -> Plan:
    """The plan that was written.

    It is checked as a new one is: the values, how they fit, and what the environments say to them.

    Raises:
        StudyError: if it has fields that this version of dqx does not know, or cannot be trained.
        ConfigError: if an agent or an environment of a module of one's own is not known here.
    """
    for point in record["points"]:
        agent(point["config"].get("agent", SETTINGS["agent"].default))
        environments.check_loaded(point["config"].get("env", SETTINGS["env"].default))
    try:
        points = tuple(point_of(point) for point in record["points"])
        found = Plan(
            name=record["name"],
            points=points,
            seeds=tuple(record["seeds"]),
            root_seed=record["root_seed"],
            snapshot_every=record["snapshot_every"],
        )
        anew = _made_anew(found)
    except ConfigError as error:
        raise StudyError(f"{folder.plan} is of another version of dqx: {error}") from None
    for old, new in zip(found.points, anew.points, strict=True):
        if (old.config, old.hyper) != (new.config, new.hyper):
            raise StudyError(
                f"{folder.plan} is of another version of dqx, in which configuration "
                f"{brief(old.name)} would be another: use the version that wrote it"
            )
    return found


def _made_anew(plan: Plan) -> Plan:
    """A plan as `read_plan` makes it of what was given: nothing sorted yet, nothing rounded."""
    points = tuple(
        point._replace(config=config, hyper=hyper)
        for point in plan.points
        for given in [environments.given(point.config, point.hyper)]
        for config, hyper in [environments.replaced(point.config, point.hyper, given)]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConfigWarning)  # of what is rounded, told when it was
        return read_plan(dataclasses.replace(plan, points=points))


def check_same_study(folder: Folder, record: Mapping[str, Any], present: Mapping[str, str]) -> None:
    """Refuses to mix bits of different software or devices in one study.

    Raises:
        StudyError: showing both sides.
    """
    apart = [identity.differences(kind.identity, present) for kind in kinds_of(record)]
    found = next(filter(None, apart), [])
    if found:
        raise StudyError(
            f"{folder.path} cannot be resumed here, since bits might differ: {'; '.join(found)}. "
            "Resume it with what it was made with, or start a new study in another folder"
        )


def check_own(folder: Folder, record: Mapping[str, Any]) -> None:
    """Refuses a folder in which a record of runs or a checkpoint names another plan.

    Args:
        folder: of the study.
        record: of the plan that is to be trained.

    Raises:
        StudyError: showing both plans, as far as the folder has them.
    """
    own = record["sha256"]
    for path in folder.records():
        try:
            other = read_sealed(path).get("plan_seal", own)
        except StudyError:
            continue  # it is damaged, which is told where it is read
        if other == own:
            continue
        known = [plan for plan in intact_plans(folder).items() if plan[1]["sha256"] == other]
        texts = plan_differences(known[0][1], record) if known else []
        where = f", which is still in {known[0][0].name}" if known else ""
        raise StudyError(
            f"{path} is of plan {str(other)[:12]}{where}, and {folder.plan.name} is plan "
            f"{own[:12]} ({record['name']}, of {record['created']})"
            f"{': ' if texts else ''}{'; '.join(texts)}. Nothing is trained over another study's "
            "runs: put its own plan back, or move its records away"
        )


def mend_plan(folder: Folder, record: Mapping[str, Any]) -> list[str]:
    """Writes the copies of a plan that are missing or damaged; what was damaged, in words.

    Raises:
        OSError: when one cannot be written.
    """
    texts = []
    for path in (folder.plan, folder.plan_copy):
        try:
            intact = read_plan_file(path)["sha256"] == record["sha256"]
            text = f"{path}: it is of another plan"
        except StudyError as error:
            intact, text = False, str(error)
        if not intact:
            # Folders of before have one copy only, which is no damage.
            if path == folder.plan or path.exists():
                texts.append(f"{text}. It is restored from the plan's other copy")
            write_sealed(path, record)
    return texts


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
