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
import hashlib
import io
import json
import math
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np

from dqx.arguments import PATH, require
from dqx.files import whole_file, write_json
from dqx.settings import MAX_SEEDS, brief
from dqx.study import contents, entries, forms
from dqx.study.entries import StudyError, open_plain
from dqx.study.forms import Form
from dqx.study.planned import check_plan

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


class Mark(NamedTuple):
    """Size in bytes and SHA-256 of a file as it was written."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        """The mark in a record."""
        return cls(record["bytes"], record["sha256"])


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


class _Summing(io.RawIOBase):
    """Passes writes on and adds up size and checksum; cannot go back, so that both hold."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._sum, self._bytes = file, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        self._file.write(view)
        self._sum.update(view)
        self._bytes += len(view)
        return len(view)

    def tell(self) -> int:
        return self._bytes

    @property
    def mark(self) -> Mark:
        return Mark(self._bytes, self._sum.hexdigest())


@contextlib.contextmanager
def marked_file(path: Path) -> Iterator[_Summing]:
    """`whole_file` that tells its ``mark`` once written.

    Raises:
        OSError: when it cannot be written; nothing is left behind, an older file stays.
    """
    with whole_file(path) as file:
        yield _Summing(file)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> Mark:
    """Writes arrays by name in NumPy's own format, without pickle."""
    with marked_file(path) as file:
        np.savez(file, allow_pickle=False, **arrays)
    return file.mark


def read_arrays(path: Path, mark: Mark) -> dict[str, np.ndarray]:
    """Reads what `write_arrays` wrote, after checking it.

    Raises:
        StudyError: if the file is not as it was written.
    """
    return contents.arrays(path, read_checked(path, mark))


def read_checked(path: Path, mark: Mark) -> bytes:
    """The content of a file that was written with this mark.

    Raises:
        StudyError: naming the file, if it is missing or is not what was written.
    """
    try:
        with open(open_plain(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != mark.bytes:
                raise StudyError(f"{path}: {size:,} bytes instead of {mark.bytes:,}")
            contents.check_room(path, size)
            content = file.read()
    except OSError as error:
        raise StudyError(f"{path}: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != mark.sha256:
        raise StudyError(f"{path}: its content is not what was written (checksum differs)")
    return content


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Writes strict JSON with a checksum of itself.

    Raises:
        OSError: when it cannot be written; nothing is left behind, an older file stays.
    """
    write_json(path, {**content, "sha256": seal(content)})


def read_sealed(path: Path, form: Form = forms.anything, runs: int = 0) -> dict[str, Any]:
    """Reads what `write_sealed` wrote, with its checksum under ``sha256``.

    Args:
        path: of the file.
        form: that its content must have.
        runs: how many it may list, if it lists those of the whole study.

    Raises:
        StudyError: naming the file, if it is missing, not as it was written, or of another form.
    """
    try:
        content = forms.parse(path, runs)
    except OSError as error:
        raise StudyError(f"{path}: {error.strerror}") from None
    try:
        intact = isinstance(content, dict) and seal(content) == content.get("sha256")
    except (ValueError, RecursionError):  # of an infinite number, and of lists in lists in lists
        raise StudyError(f"{path}: it is no JSON, so it was damaged") from None
    if not intact:
        raise StudyError(f"{path}: its content is not what was written (checksum differs)")
    forms.check(path, content, form)
    return dict(content)


def plain(value: Any) -> Any:
    """A value as strict JSON can hold it: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def seal(content: Mapping[str, Any]) -> str:
    """The SHA-256 of a record, its own entry ``sha256`` left out."""
    bare = {key: value for key, value in content.items() if key != "sha256"}
    text = json.dumps(bare, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


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
        forms.check(path, record, forms.PLAN)
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


class Lock:
    """Keeps a second process out of a study's folder; the system frees it when this one dies.

    Raises:
        StudyError: if another process holds it, naming that process.
    """

    def __init__(self, folder: Folder) -> None:
        self._path = folder.path / "lock"
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        import fcntl  # not on Windows, where reading a study needs none

        try:
            number = open_plain(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        except OSError as error:
            raise StudyError(
                f"cannot write in {self._path.parent}: {error.strerror}; make it writable"
            ) from None
        self._file = os.fdopen(number, "a+b")  # closed when the lock goes
        for _ in range(4):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.05)  # `holder` holds it too, for a moment
        else:
            self._file.close()
            raise StudyError(
                f"{self._path.parent} is being worked on by {holder(self._path.parent)}: wait for "
                "it, or watch it with `dqx study status`"
            )
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        self._file.flush()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()  # which frees it; the file stays, as another may already wait on it


def holder(path: Path) -> str | None:
    """Who works on a study's folder, None if nobody does."""
    import fcntl

    try:
        with open(open_plain(path / "lock"), "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return file.read().decode(errors="replace") or "another process"
    except OSError:
        return None
    return None
