"""What a study's folder says of the study as a whole: progress, summary, picture."""

import contextlib
import datetime
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from dqx.files import whole_file
from dqx.study.folder import (
    Folder,
    StudyError,
    holder,
    plain,
    read_plan_record,
    read_sealed,
    write_sealed,
)
from dqx.study.tally import StudyProgress


def may_replace(folder: Folder, given: Mapping[str, Any], overwrite: bool) -> bool:
    """Whether an existing folder may be replaced by a new study.

    Raises:
        StudyError: if not, saying what it holds and what to do.
    """
    path = folder.path
    if not folder.plan.is_file():
        raise StudyError(f"{path} exists and holds no study: choose another folder")
    working = holder(path)
    if working is not None:
        raise StudyError(f"{path} is being worked on by {working}: choose another folder")
    if overwrite:
        # Another program's plan.json must not cost its folder; a damaged one of ours may go.
        with contextlib.suppress(OSError, ValueError):
            content = json.loads(folder.plan.read_text(encoding="utf-8"))
            if isinstance(content, dict) and {"format", "points", "identity"} <= set(content):
                return True
        raise StudyError(
            f"{path} is not replaced, because its {folder.plan.name} is of no study: choose "
            "another folder"
        )
    from dqx.study.record import plan_differences  # needs JAX, which `status` does not

    found = plan_differences(read_plan_record(folder), given)
    if found:
        raise StudyError(
            f"{path} holds another plan: {'; '.join(found)}. Choose another folder, or --overwrite "
            "to replace it"
        )
    raise StudyError(
        f"{path} already holds this study: `dqx study resume {path}` goes on with it, --overwrite "
        "replaces it"
    )


def write_progress(folder: Folder, event: StudyProgress) -> None:
    """Writes ``progress.json``, which `dqx study status` reads."""
    content = {key: plain(value) for key, value in event._asdict().items()}
    content["time"] = time.time()
    with whole_file(folder.progress) as file:
        file.write(json.dumps(content).encode())


def read_progress(folder: Folder) -> dict[str, Any]:
    """What `write_progress` wrote; empty if there is nothing, since no result depends on it."""
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(folder.progress.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}


def write_summary(
    folder: Folder, event: StudyProgress, compiled: Sequence[str], checkpoint_seconds: float
) -> None:
    """Writes the picture and ``manifest.json`` of a finished study.

    Args:
        folder: of the study.
        event: its last numbers.
        compiled: names of the programs that the last sitting compiled.
        checkpoint_seconds: what its checkpoints took.
    """
    from dqx.study.picture import draw
    from dqx.study.results import load

    study = load(folder.path)
    draw(folder.path / "learning_curves.png", study)
    record = read_plan_record(folder)
    write_sealed(
        folder.manifest,
        {
            **{key: value for key, value in record.items() if key != "sha256"},
            "plan": record["sha256"],
            "runs": study.runs,
            "steps": event.total_steps,
            "steps_per_second": plain(event.steps_per_second),
            "compile_seconds": event.compile_seconds,
            "compiled": list(compiled),
            "checkpoint_seconds": checkpoint_seconds,
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        },
    )


def has_summary(folder: Folder, seal: str) -> bool:
    """Whether ``manifest.json`` is there, undamaged and of this plan."""
    with contextlib.suppress(StudyError):
        return bool(read_sealed(folder.manifest).get("plan") == seal)
    return False
