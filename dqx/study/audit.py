"""A study's folder held against its plan and against itself, without training anything.

Every planned run has to be there once, in files that belong to it, and every copy of the plan has
to be the same; `audit_runs` looks into the files of a chunk.
"""

import collections
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from dqx.study import forms
from dqx.study.audit_runs import audit_chunk, listed, plainly, runs_of
from dqx.study.finish import LISTED
from dqx.study.folder import KINDS, PLAN_KEYS, Folder, StudyError, read_plan_file
from dqx.study.plan import Plan
from dqx.study.point import point_record
from dqx.study.results import Study, load
from dqx.study.schedule import Task, groups
from dqx.study.sealed import read_sealed
from dqx.study.shelf import TABLES
from dqx.study.whole import by_chunk, together


class Audit(NamedTuple):
    """What was found in a folder.

    Attributes:
        study: as loaded; None if its records do not allow that.
        problems: what cannot be as it is, a text each that names the file.
        missing: runs of the plan that are not finished, or cannot be read.
        unsound: chunks whose files cannot be compared, and why.
        digest: of the whole study; empty if it is not finished, or not sound enough to have one.
    """

    study: Study | None
    problems: tuple[str, ...]
    missing: tuple[tuple[str, int], ...]
    unsound: Mapping[int, str]
    digest: str


def audit(
    folder: Folder,
    record: Mapping[str, Any],
    plan: Plan,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Holds a folder against its plan and against itself.

    Args:
        folder: of the study.
        record: of its plan.
        plan: the same, read.
        progress: ``progress(done, total)`` is called after every finished chunk.
    """
    tasks = [task for group in groups(plan) for task in group.tasks]
    problems = [*_plans(folder, record, plan)]
    try:
        study = load(folder.path)
    except StudyError as error:
        planned = tuple(run for task in tasks for run in runs_of(task))
        return Audit(None, (*problems, str(error)), planned, {}, "")
    missing, texts = _runs(study, tasks)
    problems += texts
    facts: list[dict[str, Any]] = []
    unsound = {}
    said = by_chunk(study)
    finished = [task for task in tasks if task.number in said]
    for done, task in enumerate(finished, start=1):
        texts, found = audit_chunk(study, task, said[task.number])
        problems += texts
        facts += found
        if not found:
            unsound[task.number] = texts[0]
        if progress is not None:
            progress(done, len(finished))
    whole = together(study, facts) if len(facts) == plan.num_runs else ""
    problems += [*_strangers(study, len(tasks)), *_manifest(study, whole, plan)]
    return Audit(study, tuple(problems), missing, unsound, whole)


# --- What is said of the study as a whole.


def _plans(folder: Folder, record: Mapping[str, Any], plan: Plan) -> list[str]:
    """Whether all copies of the plan are the same, and each point of it agrees with itself."""
    texts = []
    for path in (folder.plan, folder.plan_copy):
        try:
            if path.exists() and read_plan_file(path)["sha256"] != record["sha256"]:
                texts.append(f"{path.name}: it is of another plan")
        except StudyError as error:
            texts.append(f"{error}; `dqx study resume {folder.path}` restores it")
    for point, written in zip(plan.points, record["points"], strict=True):
        varied = json.loads(json.dumps(point_record(point)["varied"]))
        if varied != written["varied"]:
            texts.append(f"{folder.plan.name}: varied of {point.name} is not what its settings say")
    return texts


def _runs(study: Study, tasks: Sequence[Task]) -> tuple[tuple[tuple[str, int], ...], list[str]]:
    """The runs that are not finished, and what is wrong with those that are there."""
    found = collections.Counter((run["config"], run["seed"]) for run in study.runs)
    planned = [run for task in tasks for run in runs_of(task)]
    missing = tuple(run for run in planned if run not in found)
    name = study._folder.manifest.name
    kinds = {
        f"not there, though {name} says that the study is finished": missing
        if study._folder.manifest.exists()
        else (),
        "there more than once": [run for run, count in found.items() if count > 1],
        "not planned": sorted(found.keys() - set(planned)),
    }
    return missing, [f"{listed(runs)}: {words}" for words, runs in kinds.items() if runs]


def _strangers(study: Study, chunks: int) -> list[str]:
    """Files that readers of the folders would take for results, and that no record names.

    Whoever reads all tables of a folder, as pandas does, reads whatever lies in it and below.
    """
    folder, named = study._folder, study._shelf.files()
    to_do = set(range(chunks)) - {run["chunk"] for run in study.runs}
    found = [path for path in folder.strangers(chunks) if path.suffix == ".json"]
    for kind in (*KINDS, "snapshots"):
        for path in sorted((study.path / kind).glob("[!.]*")):
            part = re.fullmatch(r"part-([0-9]{5,})\b.*", path.name)
            under_way = part is not None and int(part[1]) in to_do
            data = kind in TABLES or path.suffix in (".npz", ".zip")
            if data and path not in named and not under_way:
                found.append(path)
    return [
        f"{plainly(path.relative_to(study.path).as_posix())}: no record names such a file"
        for path in found
    ]


def _manifest(study: Study, whole: str, plan: Plan) -> list[str]:
    """Whether the manifest says of plan, runs and digest what the other files say."""
    path = study._folder.manifest
    if not path.exists():
        return []
    try:
        manifest = read_sealed(path, forms.MANIFEST, plan.num_runs)
    except StudyError as error:
        return [str(error)]
    expected = {key: study.plan[key] for key in PLAN_KEYS if key in study.plan}
    expected |= {"plan_seal": study.plan["sha256"]}
    if "runs" in manifest or study.num_finished <= LISTED:
        expected["runs"] = study.runs
    if len(plan.points) == 1:
        expected |= {part: study.plan["points"][0][part] for part in ("config", "hyper")}
    if whole and "digest" in manifest:
        expected["digest"] = whole
    if "steps" in manifest:
        expected["steps"] = plan.total_steps
    wrong = [key for key, value in expected.items() if manifest.get(key) != value]
    return [f"{path.name}: its {key} is not that of the other files" for key in wrong]
