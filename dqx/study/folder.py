"""A study's folder: what is in it, and how damage is found.

    plan.json, plan-copy.json        what is trained, on what; written once, kept twice
    chunks/00012.json                a finished chunk: digests, and the checksums of its files
    metrics/part-00012.parquet       one row a configuration, seed and step
    episodes/part-00012.parquet      one row a finished training episode
    params/part-00012.npz            final parameters, leading axis: the chunk's runs
    snapshots/part-00012-50000.npz   parameters at a step, the same way
    */bundle-00003.*                 many chunks merged, see `dqx.study.bundle`
    checkpoints/                     the state of chunks under way
    failures/00012.json              why a chunk was set aside, until it is tried again
    manifest.json, learning_curves.png   the finished study as a whole
    certificate.json                 what `dqx verify` found
    certificate.json.sig             a signature over it, if one was asked for
    report/                          the page, and the figures of `dqx report`
    progress.json, lock              of the process at work

A chunk is finished when its record in ``chunks`` is there; the record is written last. Records are
sealed with a checksum of their own and with that of the plan. Nothing here needs JAX.
"""

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dqx.arguments import PATH, require
from dqx.settings import MAX_SEEDS, brief
from dqx.study import entries, forms, strict
from dqx.study.entries import StudyError
from dqx.study.planned import check_plan
from dqx.study.sealed import Mark, read_sealed, seal, write_sealed

FORMAT = 2
# The entries of a plan, which a manifest has among its own.
PLAN_KEYS = (
    "format", "name", "seeds", "root_seed", "snapshot_every", "points", "identity", "kinds",
    "git_commit", "git_modified", "command", "created",
)  # fmt: skip
KINDS = ("metrics", "episodes", "params")
_SUFFIX = {"metrics": "parquet", "episodes": "parquet", "params": "npz", "snapshots": "npz"}


class ForeignRecord(StudyError):
    """A record of runs that names another plan than the folder's; nothing may be written then."""


class Folder:
    """The names within a study's folder. All are made of numbers: none comes from a file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        require(StudyError, path=(path, PATH))
        self.path = Path(path)

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def plan_copy(self) -> Path:
        return self.path / "plan-copy.json"

    @property
    def picture(self) -> Path:
        return self.path / "learning_curves.png"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def certificate(self) -> Path:
        return self.path / "certificate.json"

    @property
    def signature(self) -> Path:
        return self.path / "certificate.json.sig"

    @property
    def report(self) -> Path:
        return self.path / "report"

    @property
    def progress(self) -> Path:
        return self.path / "progress.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def record(self, chunk: int) -> Path:
        return self.path / "chunks" / f"{chunk:05d}.json"

    def failure(self, chunk: int) -> Path:
        return self.path / "failures" / f"{chunk:05d}.json"

    def failures(self) -> list[Path]:
        """Records of chunks that were set aside."""
        found = sorted((self.path / "failures").glob("*.json"))
        return [path for path in found if re.fullmatch(r"[0-9]{5,}\.json", path.name)]

    def records(self) -> list[Path]:
        """Records of finished chunks, of bundles and of checkpoints that are there."""
        folders = [self.path / "chunks", self.checkpoints]
        found = [path for folder in folders for path in sorted(folder.glob("*.json"))]
        return [path for path in found if re.fullmatch(r"(bundle-)?[0-9]{5,}\.json", path.name)]

    def finished(self) -> list[int]:
        """The numbers of the chunks that have a record, rising."""
        found = (self.path / "chunks").glob("[0-9]*.json")
        return sorted(
            int(p.stem) for p in found if re.fullmatch("[0-9]{5}|[1-9][0-9]{5,8}", p.stem)
        )

    def part(self, kind: str, chunk: int) -> Path:
        return self.path / kind / f"part-{chunk:05d}.{_SUFFIX[kind]}"

    def snapshot(self, chunk: int, step: int) -> Path:
        return self.path / "snapshots" / f"part-{chunk:05d}-{step}.npz"

    def bundle(self, kind: str, number: int) -> Path:
        """Data of a bundle of chunks, of a kind."""
        suffix = "parquet" if _SUFFIX[kind] == "parquet" else "zip"
        return self.path / kind / f"bundle-{number:05d}.{suffix}"

    def bundle_record(self, number: int) -> Path:
        return self.path / "chunks" / f"bundle-{number:05d}.json"

    def bundle_copy(self, number: int) -> Path:
        return self.path / "chunks" / f"bundle-{number:05d}-copy.json"

    def make(self) -> None:
        """Makes the folders that are not there yet."""
        for name in (*KINDS, "snapshots", "chunks", "checkpoints"):
            (self.path / name).mkdir(parents=True, exist_ok=True)

    def strangers(self, chunks: int) -> list[Path]:
        """Files in the study's folders that no chunk of it is made of."""
        found = []
        for name in (*KINDS, "chunks", "snapshots", "checkpoints"):
            for path in (self.path / name).glob("*"):
                match = re.fullmatch(r"(?:part-)?([0-9]{5,})\b.*", path.name)
                ours = re.fullmatch(entries.FOLDERS[name], path.name)
                canonical = match is None or match[1] == f"{int(match[1]):05d}"
                if not ours or not canonical or (match and int(match[1]) >= chunks):
                    found.append(path)
        return sorted(p for p in found if not p.name.startswith("."))

    def leftovers(self) -> list[Path]:
        """Half-written files of a process that was killed: their names start with a dot."""
        folders = [self.path, *(self.path / name for name in entries.FOLDERS)]
        found = [p for folder in folders for p in folder.glob(".*.tmp") if not p.is_dir()]
        return [p for p in found if re.fullmatch(r"\..+\.[0-9a-f]{8}\.tmp", p.name)]


def intact_plans(folder: Folder) -> dict[Path, dict[str, Any]]:
    """The plans in a folder that are undamaged, by file: both copies, and that of the manifest."""
    found = {}
    for path in (folder.plan, folder.plan_copy):
        with contextlib.suppress(StudyError):
            found[path] = read_plan_file(path)
    with contextlib.suppress(StudyError):
        manifest = read_sealed(folder.manifest, forms.MANIFEST, MAX_SEEDS)
        record = {key: manifest[key] for key in PLAN_KEYS if key in manifest}
        if seal(record) == manifest["plan_seal"]:
            record["sha256"] = manifest["plan_seal"]
            _check_plan(folder.manifest, record)
            found[folder.manifest] = record
    return found


def read_plan_file(path: Path) -> dict[str, Any]:
    """The plan in one file, checked like a new one unless it is of another version's form.

    Raises:
        StudyError: naming the file, if it is missing, damaged, or no plan.
    """
    record = read_sealed(path)
    _check_plan(path, record)
    return record


def _check_plan(path: Path, record: Mapping[str, Any]) -> None:
    if record.get("format") == FORMAT:
        strict.check(path, record, forms.PLAN)
        check_plan(path, record)


def read_plan_record(folder: Folder) -> dict[str, Any]:
    """Reads ``plan.json``; where it is missing or damaged, its copy or what the manifest has of it.

    Raises:
        StudyError: if there is none, all are damaged or of another version's form, or an entry of
            the folder is a link or the like.
    """
    entries.check(folder.path)
    try:
        record = read_plan_file(folder.plan)
    except StudyError:
        others = list(intact_plans(folder).values())
        if not others and folder.plan.exists():
            raise
        if not others:
            raise StudyError(_no_study(folder)) from None
        record = others[0]
    if record.get("format") != FORMAT:
        raise StudyError(
            f"{folder.plan} has format {brief(record.get('format'))}, and this version of dqx "
            f"reads {FORMAT}: use the version that wrote it"
        )
    return record


def _studies_below(folder: Folder) -> str:
    """Which folder may have been meant."""
    found = sorted(str(path.parent) for path in folder.path.glob(f"*/{folder.plan.name}"))
    if not found:
        return "give a folder that `dqx train` or `dqx study` has written, such as runs/cartpole"
    more = f" and {len(found) - 3:,} more" if len(found) > 3 else ""
    return f"give a study's folder, here {', '.join(found[:3])}{more}"


def _no_study(folder: Folder) -> str:
    if (folder.path / "search.json").is_file():
        return (
            f"{folder.path} holds a search: `dqx tune status {folder.path}` says how far it "
            f"is; the study of its winner, once there is one, is {folder.path / 'fresh'}"
        )
    return (
        f"{folder.path} holds no study: there is no {folder.plan.name} in it; "
        f"{_studies_below(folder)}"
    )


def read_record(folder: Folder, seal: str, chunk: int) -> dict[str, Any] | None:
    """The record of a chunk, None if it is not finished.

    Raises:
        ForeignRecord: if the record is of another plan.
        StudyError: if it is damaged or of another chunk.
    """
    path = folder.record(chunk)
    if not path.exists():
        return None
    record = read_sealed(path, forms.RECORD)
    if record["plan_seal"] != seal:
        raise ForeignRecord(
            f"{path}: it belongs to another study, of plan {record['plan_seal'][:12]}, "
            f"and {folder.plan.name} is plan {seal[:12]}: put the study's own plan back, or move "
            "the records of others away"
        )
    if record["chunk"] != chunk:
        raise StudyError(f"{path}: it belongs to another study, or another chunk of this")
    return record


def write_failure(folder: Folder, seal: str, chunk: int, error: str) -> None:
    """Writes why a chunk was set aside.

    Raises:
        OSError: when it cannot be written.
    """
    path = folder.failure(chunk)
    path.parent.mkdir(exist_ok=True)
    write_sealed(path, {"plan_seal": seal, "chunk": chunk, "error": error})


def read_failures(folder: Folder, seal: str) -> dict[int, str]:
    """Why chunks are set aside, by their number; damaged records tell of no chunk."""
    found = {}
    for path in folder.failures():
        with contextlib.suppress(StudyError):
            record = read_sealed(path, forms.FAILURE)
            if record["plan_seal"] == seal and path == folder.failure(record["chunk"]):
                found[record["chunk"]] = record["error"]
    return found


def chunk_files(folder: Folder, chunk: int, record: Mapping[str, Any]) -> list[tuple[Path, Mark]]:
    """The files of a finished chunk, and what they were when they were written."""
    parts = [(folder.part(kind, chunk), Mark.of(record["files"][kind])) for kind in KINDS]
    taken = record["snapshots"].items()
    return [*parts, *((folder.snapshot(chunk, int(at)), Mark.of(mark)) for at, mark in taken)]


def is_free(target: Path) -> bool:
    """Whether nothing is at a place, or an empty folder.

    Raises:
        StudyError: if a file is there, or a folder that cannot be read.
    """
    if not os.path.lexists(target):
        return True
    if not target.is_dir():
        raise StudyError(f"{target} is a file: choose another folder")
    try:
        return not any(target.iterdir())
    except OSError as error:
        raise StudyError(f"cannot read {target}: {error.strerror}; choose another") from None
