"""Merging finished chunks into bundles while a study goes on, where many small files would pile up.

A bundle is written whole, its record last, and only then are the files that it takes the place of
removed. Whatever a kill leaves, each chunk is held at least once, and counted once.
"""

import base64
import contextlib
import hashlib
import io
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from dqx.files import sync_folder
from dqx.study import entries
from dqx.study.bundle import ARRAYS, Bundle, bundle_files, member_name
from dqx.study.folder import Folder, StudyError
from dqx.study.held import TABLES, Held, Loose, Piece
from dqx.study.planned import Chunks
from dqx.study.sealed import Mark, marked_file, seal, write_sealed

# A plan of fewer chunks keeps the files of each.
MANY = 256
# A bundle is made of so many chunks, or of fewer that take so many bytes, but of so many at least.
CHUNKS, BYTES, LEAST = 512, 64 * 2**20, 64
RUNS = 32_768  # or of so many runs, as its record lists them all
# A chunk of more bytes or runs keeps its files, which are no small ones.
LARGE, WIDE = 16 * 2**20, 1_024
# Chunks share a row group until it takes so many bytes in memory: what one damaged byte costs.
ROW_GROUP = 128 * 2**10


class StudyWarning(UserWarning):
    """Files of a study that were damaged, and what is done about it."""


class Merger:
    """Merges the chunks of a study as they are finished.

    Args:
        folder: of the study.
        plan_seal: of its plan.
        chunks: of the plan.
        number: that the next bundle gets.
    """

    def __init__(self, folder: Folder, plan_seal: str, chunks: Chunks, number: int) -> None:
        self._folder, self._seal, self._number = folder, plan_seal, number
        self._chunks, self._wanted = chunks, chunks.count >= MANY
        self._waiting: list[Loose] = []
        self._enough = 0  # so many are waited for

    def note(self, chunk: Loose) -> None:
        """Takes note of a chunk in files of its own."""
        if self._wanted and chunk.size <= LARGE and chunk.width <= WIDE:
            self._waiting.append(chunk)

    def step(self) -> None:
        """Makes a bundle if enough chunks wait for it; more of them wait for the next call.

        Raises:
            OSError: if it cannot be written; nothing is lost then.
        """
        if len(self._waiting) >= self._enough and _full(self._waiting[:CHUNKS]):
            some, self._waiting = self._waiting[:CHUNKS], self._waiting[CHUNKS:]
            few = self._merge(some, LEAST)
            self._waiting += few
            self._enough = len(few) + LEAST

    def rest(self) -> None:
        """Merges all that wait, at the end; raises as `step` does."""
        chunks, self._waiting = self._waiting, []
        self._merge(chunks, 2)

    def _merge(self, chunks: Sequence[Loose], least: int) -> list[Loose]:
        """Makes bundles; gives the chunks that are too few of their shape."""
        alike: dict[tuple[Any, ...], list[_Once]] = {}
        kept = 0  # bytes of files whose content is in memory
        for chunk in map(_Once, chunks):
            with _left_alone():
                some = alike.setdefault(_shape(chunk), [])
                some.append(chunk)
                kept += chunk.size
                if _full(some):
                    self._bundle(some)
                    kept -= sum(each.size for each in some)
                    some.clear()
                elif kept > 2 * BYTES:  # of many shapes
                    for each in (each for waiting in alike.values() for each in waiting):
                        each.forget()
                    kept = 0
        rest = []
        for some in filter(None, alike.values()):
            if len(some) >= least:
                self._bundle(some)
            else:
                rest += [each.chunk for each in some]
        return rest

    def _bundle(self, chunks: Sequence["_Once"]) -> None:
        with _left_alone():
            number, self._number = self._number, self._number + 1
            write(self._folder, self._seal, number, {c.chunks[0]: c for c in chunks}, self._chunks)
            for chunk in chunks:
                chunk.chunk.remove()


class _Once:
    """A chunk in files of its own whose content stays in memory once it was read and checked.

    Args:
        chunk: the same, read anew each time.
    """

    def __init__(self, chunk: Loose) -> None:
        self.chunk, self.chunks, self.path = chunk, chunk.chunks, chunk.path
        self.size, self.width = chunk.size, chunk.width
        self.runs, self.machine, self.snapshots = chunk.runs, chunk.machine, chunk.snapshots
        self._tables: dict[str, Piece] = {}
        self._contents: dict[int | None, tuple[bytes, Mark]] = {}

    def pieces(self, kind: str, chunks: Collection[int]) -> Iterator[Piece]:
        if kind not in self._tables:
            (self._tables[kind],) = self.chunk.pieces(kind, chunks)
        yield self._tables[kind]

    def content(self, chunk: int, step: int | None = None) -> tuple[bytes, Mark]:
        if step not in self._contents:
            self._contents[step] = self.chunk.content(chunk, step)
        return self._contents[step]

    def forget(self) -> None:
        """Frees the memory; what is asked for again is read again."""
        self._tables.clear()
        self._contents.clear()


@contextlib.contextmanager
def _left_alone() -> Iterator[None]:
    """A chunk found damaged stays as it is: it is trained again when the study is resumed."""
    try:
        yield
    except StudyError as error:
        warnings.warn(StudyWarning(f"{error}. It is not merged with others"), stacklevel=4)


def _full(chunks: "Sequence[Loose | _Once]") -> bool:
    size, runs = sum(c.size for c in chunks), sum(c.width for c in chunks)
    heavy = len(chunks) >= LEAST and size >= BYTES
    return len(chunks) >= CHUNKS or heavy or runs >= RUNS


def _shape(chunk: _Once) -> tuple[Any, ...]:
    """What chunks of one bundle have in common: the columns of their tables and of their runs.

    Raises:
        StudyError: if a file of it was damaged.
    """
    (number,) = chunk.chunks
    pieces = [next(chunk.pieces(kind, chunk.chunks)) for kind in TABLES]
    for step in (None, *chunk.snapshots(number)):
        chunk.content(number, step)
    schemas = tuple(piece.table.schema.to_string() for piece in pieces)
    return (*schemas, *chunk.runs()[number][0])


def write(
    folder: Folder, plan_seal: str, number: int, held: Mapping[int, "Held | _Once"], chunks: Chunks
) -> Bundle:
    """Writes a bundle of chunks of one shape; what held them so far is left alone.

    Args:
        folder: of the study.
        plan_seal: of its plan.
        number: of the bundle, new.
        held: what holds each of the chunks.
        chunks: of the plan.

    Raises:
        StudyError: if one of them was damaged; there is no bundle then.
        OSError: if it cannot be written.
    """
    known = {id(each): each for each in held.values()}.values()
    runs = {chunk: found for each in known for chunk, found in each.runs().items()}
    # By configuration, so that whoever asks for one finds it in few row groups.
    order = sorted(held, key=lambda chunk: (runs[chunk][0]["config"], runs[chunk][0]["seed"]))
    record: dict[str, Any] = {"plan_seal": plan_seal, "bundle": number, "chunks": order}
    record["machines"] = [held[chunk].machine(chunk) for chunk in order]
    record |= _columns([runs[chunk] for chunk in order])
    try:
        _write_files(folder, number, record, held)
    except (OSError, StudyError):
        for path in bundle_files(folder, number):
            path.unlink(missing_ok=True)
        raise
    return Bundle(folder, number, record, chunks)


def _write_files(
    folder: Folder, number: int, record: dict[str, Any], held: Mapping[int, "Held | _Once"]
) -> None:
    """Writes the data, the copy and the record, which this completes."""
    order, files, ends = record["chunks"], {}, {}
    for kind in TABLES:
        record[kind], ends[kind], files[kind] = _write_table(folder, kind, number, order, held)
    for kind in ARRAYS:
        record[kind], mark = _write_arrays(folder, kind, number, order, held)
        files |= {} if mark is None else {kind: mark}
    record["files"] = {kind: mark._asdict() for kind, mark in files.items()}
    _write_copy(folder, number, record, ends)
    write_sealed(folder.bundle_record(number), record)
    for name in (*files, "chunks"):
        sync_folder(folder.path / name)  # before what it takes the place of is removed


def _columns(chunks: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """The runs column by column, which reads ten times as fast as a table for each."""
    runs = [run for chunk in chunks for run in chunk]
    names = sorted({run["config"] for run in runs})
    place = {name: i for i, name in enumerate(names)}
    columns = {key: [run[key] for run in runs] for key in runs[0]}
    columns["config"] = [place[name] for name in columns["config"]]
    return {"counts": [len(chunk) for chunk in chunks], "configs": names, "runs": columns}


def _write_table(
    folder: Folder, kind: str, number: int, order: Sequence[int], held: Mapping[int, "Held | _Once"]
) -> tuple[dict[str, Any], bytes, Mark]:
    """Writes rows as Parquet: what of it lies where, the index at its end, and its mark."""
    import pyarrow
    import pyarrow.parquet

    pieces: list[dict[str, Any]] = []
    with marked_file(folder.bundle(kind, number)) as file, _Cut(file) as cut:
        writer = None
        for tables in _row_groups(kind, order, held):
            table = pyarrow.concat_tables(tables.values())
            if writer is None:
                names = table.column_names
                labels = names[: names.index("step") + 1]  # the rest hardly repeats
                writer = pyarrow.parquet.ParquetWriter(
                    cut, table.schema, use_dictionary=labels, write_statistics=labels
                )
            writer.write_table(table, row_group_size=max(table.num_rows, 1))
            rows = [found.num_rows for found in tables.values()]
            pieces.append({"chunks": list(tables), "rows": rows, **cut.here()._asdict()})
        assert writer is not None
        writer.close()
        ending = bytes(cut.since)
        end = cut.here()
    return {"pieces": pieces, "end": end._asdict()}, ending, file.mark


def _row_groups(
    kind: str, order: Sequence[int], held: Mapping[int, "Held | _Once"]
) -> Iterator[dict[int, Any]]:
    """The tables of chunks that share a row group, by chunk."""
    group, size = dict[int, Any](), 0
    for chunk in order:
        (piece,) = held[chunk].pieces(kind, {chunk})
        group[chunk] = piece.table
        size += piece.table.nbytes  # which takes a moment, and a group may have hundreds of them
        if size >= ROW_GROUP:
            yield group
            group, size = {}, 0
    if group:
        yield group


def _write_arrays(
    folder: Folder, kind: str, number: int, order: Sequence[int], held: Mapping[int, "Held | _Once"]
) -> tuple[list[dict[str, Any]], Mark | None]:
    """Writes the chunks' own files into an archive: what of it lies where, and its mark."""
    wanted = [
        (chunk, step)
        for chunk in order
        for step in (held[chunk].snapshots(chunk) if kind == "snapshots" else (None,))
    ]
    if not wanted:
        return [], None
    members = []
    path = folder.bundle(kind, number)
    with marked_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for chunk, step in wanted:
            content, mark = held[chunk].content(chunk, step)
            with archive.open(zipfile.ZipInfo(member_name(chunk, step)), "w") as member:
                at = {"chunk": chunk, "offset": file.tell(), **mark._asdict()}
                member.write(content)
            members.append(at if step is None else {**at, "step": step})
    return members, file.mark


def _write_copy(
    folder: Folder, number: int, record: Mapping[str, Any], ends: Mapping[str, bytes]
) -> None:
    copy = {
        "record": {**record, "sha256": seal(record)},
        "ends": {kind: base64.b64encode(end).decode() for kind, end in ends.items()},
    }
    write_sealed(folder.bundle_copy(number), copy)


class _Cut(io.RawIOBase):
    """Passes writes on, and tells size and checksum of what came since it was last asked."""

    def __init__(self, file: Any) -> None:
        self._file, self.since = file, bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self.since += memoryview(data).cast("B")
        return int(self._file.write(data))

    def tell(self) -> int:
        return int(self._file.tell())

    def here(self) -> Mark:
        mark = Mark(len(self.since), hashlib.sha256(self.since).hexdigest())
        self.since.clear()
        return mark


def next_number(folder: Folder) -> int:
    """A number that no file of a bundle has."""
    folders = (folder.path / name for name in (*TABLES, *ARRAYS, "chunks"))
    found = (bundle_number(name) for path in folders for name in entries.names(path))
    return 1 + max((number for number in found if number is not None), default=-1)


def bundle_number(name: str) -> int | None:
    """The number of a bundle that a file's name tells."""
    digits = name.removeprefix("bundle-").partition(".")[0].removesuffix("-copy")
    return int(digits) if name.startswith("bundle-") and digits.isdecimal() else None
