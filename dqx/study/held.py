"""Where the results of finished chunks lie: each in files of its own, or many in a bundle.

Both are read the same way, by kind, chunks and columns, and nothing that was damaged is given.
"""

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from dqx.study import contents
from dqx.study.folder import Folder, StudyError, chunk_files, read_record
from dqx.study.planned import Chunks, PlannedChunk, check_record
from dqx.study.sealed import Mark, read_checked

if TYPE_CHECKING:
    import pyarrow

TABLES = ("metrics", "episodes")
# What is known of every run of a chunk beside the parameters that were drawn for it.
RUN_KEYS = ("config", "seed", "digest", "diverged_at", "score")
_TRIES = 5


class Piece(NamedTuple):
    """Rows that were read and checked together.

    Attributes:
        chunks: whose rows they are, in the order of the rows.
        rows: how many of each.
        table: the columns that were asked for and are there.
        names: of all columns that are there.
    """

    chunks: tuple[int, ...]
    rows: tuple[int, ...]
    table: "pyarrow.Table"
    names: list[str]


class Held(Protocol):
    """Files that hold the results of one chunk or of many.

    Attributes:
        path: of the record.
        chunks: numbers of the chunks.
    """

    path: Path
    chunks: tuple[int, ...]

    def runs(self) -> dict[int, list[dict[str, Any]]]:
        """What is known of the runs, by chunk."""

    def columns(self) -> dict[str, Any]:
        """`RUN_KEYS`, and ``chunk`` and ``index`` within it: sequences over all runs."""

    def pieces(
        self, kind: str, chunks: Collection[int], columns: Collection[str] | None = None
    ) -> Iterator[Piece]:
        """Reads tables, checked; rows of other chunks that lie in the same piece are left out.

        Raises:
            StudyError: naming the file and what of it was damaged.
        """

    def beside(self, kind: str, chunk: int) -> tuple[int, ...]:
        """The chunks whose rows are read and checked together with those of a chunk."""

    def content(self, chunk: int, step: int | None = None) -> tuple[bytes, Mark]:
        """The file of a chunk's final parameters, or of a snapshot, checked, and its mark.

        Raises:
            StudyError: naming the file.
        """

    def arrays(self, chunk: int, step: int | None = None) -> dict[str, np.ndarray]:
        """The parameters of a chunk's runs, final or at a snapshot; raises as `content` does."""

    def snapshots(self, chunk: int) -> tuple[int, ...]:
        """The steps of a chunk's snapshots."""

    def machine(self, chunk: int) -> str:
        """The machine that trained a chunk; empty where its record does not say."""

    def name(self, kind: str, chunk: int, step: int | None = None) -> str:
        """How the file on the disk is called that holds a chunk's part, below the study's folder.

        Args:
            kind: ``"chunks"`` for the record, else a kind of data.
            chunk: its number.
            step: of a snapshot.
        """

    def files(self) -> dict[Path, int]:
        """The files of data, and their bytes as they were written."""

    def damage(self) -> dict[str, tuple[int, ...]]:
        """What of it is not as it was written, in words, and the chunks that this costs."""

    def remove(self) -> None:
        """Deletes the files, the record first."""


class Loose:
    """One chunk in files of its own.

    Args:
        folder: of the study.
        chunk: its number.
        record: of the chunk.
        planned: what it is planned to hold.
    """

    def __init__(
        self, folder: Folder, chunk: int, record: Mapping[str, Any], planned: PlannedChunk
    ) -> None:
        self.path = folder.record(chunk)
        self.chunks: tuple[int, ...] = (chunk,)
        self._folder, self._chunk, self._record = folder, chunk, record
        self._planned = planned

    def runs(self) -> dict[int, list[dict[str, Any]]]:
        return {self._chunk: self._record["runs"]}

    def columns(self) -> dict[str, Any]:
        runs = self._record["runs"]
        known = {key: [run[key] for run in runs] for key in RUN_KEYS}
        return {**known, "chunk": [self._chunk] * len(runs), "index": range(len(runs))}

    def pieces(
        self, kind: str, chunks: Collection[int], columns: Collection[str] | None = None
    ) -> Iterator[Piece]:
        if self._chunk not in chunks:
            return
        path, mark = self._folder.part(kind, self._chunk), Mark.of(self._record["files"][kind])
        table = contents.READERS[kind](path, read_checked(path, mark), self._planned)
        names = table.column_names
        if columns is not None:
            table = table.select([name for name in names if name in columns])
        yield Piece(self.chunks, (table.num_rows,), table, names)

    def beside(self, kind: str, chunk: int) -> tuple[int, ...]:
        return self.chunks

    def content(self, chunk: int, step: int | None = None) -> tuple[bytes, Mark]:
        path, mark = self._arrays(step)
        return read_checked(path, mark), mark

    def arrays(self, chunk: int, step: int | None = None) -> dict[str, np.ndarray]:
        path, mark = self._arrays(step)
        return contents.params(path, read_checked(path, mark), self._planned)

    def _arrays(self, step: int | None) -> tuple[Path, Mark]:
        if step is None:
            path, mark = self._folder.part("params", self._chunk), self._record["files"]["params"]
        else:
            path = self._folder.snapshot(self._chunk, step)
            mark = self._record["snapshots"][str(step)]
        return path, Mark.of(mark)

    def snapshots(self, chunk: int) -> tuple[int, ...]:
        return tuple(map(int, self._record["snapshots"]))

    def machine(self, chunk: int) -> str:
        return str(self._record.get("machine", ""))

    def name(self, kind: str, chunk: int, step: int | None = None) -> str:
        if kind == "chunks":
            path = self.path
        elif kind in TABLES:
            path = self._folder.part(kind, chunk)
        else:
            path, _ = self._arrays(step)
        return path.relative_to(self._folder.path).as_posix()

    def files(self) -> dict[Path, int]:
        found = chunk_files(self._folder, self._chunk, self._record)
        return {path: mark.bytes for path, mark in found}

    @functools.cached_property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(self.files().values())

    @property
    def width(self) -> int:
        """How many runs it has."""
        return len(self._record["runs"])

    def damage(self) -> dict[str, tuple[int, ...]]:
        try:
            check_record(self.path, self._record, self._planned)
            for kind in TABLES:
                next(self.pieces(kind, self.chunks))
            for step in (None, *self.snapshots(self._chunk)):
                self.arrays(self._chunk, step)
        except StudyError as error:
            return {str(error): self.chunks}
        return {}

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        for path, _ in chunk_files(self._folder, self._chunk, self._record):
            path.unlink(missing_ok=True)


def apart(piece: Piece) -> "Iterator[tuple[int, pyarrow.Table]]":
    """The rows of a piece by chunk."""
    first = 0
    for chunk, rows in zip(piece.chunks, piece.rows, strict=True):
        yield chunk, piece.table.slice(first, rows)
        first += rows


def present(names: Sequence[str], wanted: Collection[str] | None) -> list[str] | None:
    """Those of the columns that are wanted; None, for all, if nothing is said."""
    return None if wanted is None else [name for name in names if name in wanted]


def find(folder: Folder, seal: str, chunks: Chunks) -> dict[int, Held]:
    """What holds each finished chunk of a plan.

    A chunk that is held twice, as a kill may leave it, is taken from the newest bundle.

    Args:
        folder: of the study.
        seal: of its plan.
        chunks: of the plan.

    Raises:
        ForeignRecord: if a record is of another plan.
        StudyError: if a record is damaged.
    """
    for _ in range(_TRIES):
        try:
            return _find(folder, seal, chunks)
        except _Gone as error:
            gone = error
    raise gone


class _Gone(StudyError):
    """A record that was listed is not there any more: a bundle holds its chunk now."""


def _find(folder: Folder, seal: str, chunks: Chunks) -> dict[int, Held]:
    from dqx.study import bundle

    # Before the bundles, which may take them in meanwhile.
    alone = [chunk for chunk in folder.finished() if chunk < chunks.count]
    found: dict[int, Held] = {}
    for number in bundle.numbers(folder):
        record = _still(folder.bundle_record(number), bundle.read, folder, seal, number, chunks)
        each = bundle.Bundle(folder, number, record, chunks)
        for chunk in each.chunks:
            found.setdefault(chunk, each)
    for chunk in alone:
        if chunk not in found:
            record = _still(folder.record(chunk), read_record, folder, seal, chunk)
            planned = chunks.chunk(chunk)
            check_record(folder.record(chunk), record, planned)
            found[chunk] = Loose(folder, chunk, record, planned)
    return found


def _still(path: Path, read: Callable[..., Any], *args: Any) -> dict[str, Any]:
    """A record that was there a moment ago."""
    try:
        record = read(*args)
    except StudyError:
        if path.exists():
            raise
        record = None
    if record is None:
        raise _Gone(f"{path}: it went while the folder was read; try again")
    return dict(record)
