"""What a study's folder says of the study as a whole: whether it may go, progress, manifest."""

import contextlib
import datetime
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dqx.files import whole_file
from dqx.study import forms, strict
from dqx.study.folder import Folder, StudyError, intact_plans, is_free, read_plan_record
from dqx.study.lock import holder
from dqx.study.plan import MAX_RUNS
from dqx.study.record import plan_differences
from dqx.study.sealed import plain, read_sealed, write_sealed
from dqx.study.sinks import Progress

# Runs that a manifest lists.
LISTED = 10_000


def replaces(target: Path, given: Mapping[str, Any], overwrite: bool) -> bool:
    """Whether there is an old study to replace by a new one; False where there is nothing.

    Args:
        target: the folder.
        given: the record of the new plan.
        overwrite: whether an old study may go; nothing else ever may.

    Raises:
        StudyError: if something is in the way, saying what it is and what to do.
    """
    if is_free(target):
        return False
    folder = Folder(target)
    if not holds_study(folder):
        raise StudyError(
            f"{target} exists and holds no study of dqx, so it is not replaced: choose another "
            "folder"
        )
    working = holder(target)
    if working is not None:
        raise StudyError(f"{target} is being worked on by {working}: choose another folder")
    if overwrite:
        return True
    if not folder.plan.exists() and not intact_plans(folder):
        raise StudyError(
            f"{target} holds a run of dqx 0.1, which this version does not read: choose another "
            "folder, or --overwrite to replace it"
        )
    found = plan_differences(read_plan_record(folder), given)
    if found:
        raise StudyError(
            f"{target} holds another plan: {'; '.join(found)}. Choose another folder, or "
            "--overwrite to replace it"
        )
    raise StudyError(
        f"{target} already holds this study: `dqx study resume {target}` goes on with it, "
        "--overwrite replaces it"
    )


def holds(folder: Folder, given: Mapping[str, Any]) -> bool:
    """Whether a folder holds a study of this very plan.

    Raises:
        StudyError: if its plan is damaged.
    """
    if not folder.plan.is_file() and not intact_plans(folder):
        return False
    return not plan_differences(read_plan_record(folder), given)


def holds_study(folder: Folder) -> bool:
    """Whether dqx has written a folder, damaged or not: another program's must not be replaced."""
    plan = {"format", "points", "identity"}
    marks = [(path, plan) for path in (folder.plan, folder.plan_copy, folder.manifest)]
    for path, keys in (*marks, (folder.manifest, {"versions"})):  # the last is of dqx 0.1
        with contextlib.suppress(OSError, ValueError):
            content = strict.read(path, MAX_RUNS)
            if isinstance(content, dict) and keys <= set(content):
                return True
    return False


def write_progress(folder: Folder, progress: Progress) -> None:
    """Writes ``progress.json``, which `dqx study status` reads."""
    content = {key: plain(value) for key, value in progress._asdict().items()}
    content["time"] = time.time()
    with whole_file(folder.progress) as file:
        file.write(json.dumps(content).encode())


def read_progress(folder: Folder) -> dict[str, Any]:
    """What `write_progress` wrote; empty if there is nothing, since no result depends on it."""
    try:
        content = strict.read(folder.progress)
        strict.check(folder.progress, content, forms.PROGRESS)
    except (OSError, StudyError):
        return {}
    return dict(content)


def write_manifest(folder: Folder, facts: Mapping[str, Any]) -> None:
    """Writes ``manifest.json`` of a finished study: its plan, its runs, and ``facts``.

    More than `LISTED` runs are left to the records of chunks: `dqx study status` reads a manifest.
    """
    from dqx.study.results import load

    study, record = load(folder.path), read_plan_record(folder)
    points = record["points"]
    alone = {part: points[0][part] for part in ("config", "hyper")} if len(points) == 1 else {}
    write_sealed(
        folder.manifest,
        {
            **{key: value for key, value in record.items() if key != "sha256"},
            "plan_seal": record["sha256"],
            **alone,  # `dqx.train` takes them as they are
            **({"runs": study.runs} if study.num_finished <= LISTED else {}),
            "digest": study.digest(),
            **{key: plain(value) for key, value in facts.items()},
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        },
    )


def has_manifest(folder: Folder, seal: str | None = None) -> bool:
    """Whether ``manifest.json`` is there, undamaged and of this plan."""
    with contextlib.suppress(StudyError):
        seal = read_plan_record(folder)["sha256"] if seal is None else seal
        manifest = read_sealed(folder.manifest, forms.MANIFEST, MAX_RUNS)
        return bool(manifest["plan_seal"] == seal)
    return False
