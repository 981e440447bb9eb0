"""A bundle: many finished chunks in one file of each kind, sealed piece by piece.

    chunks/bundle-00003.json        its record, written last: what lies where, and the checksums
    chunks/bundle-00003-copy.json   the record and the ends of its tables, a second time
    metrics/bundle-00003.parquet    row groups of whole chunks, ordered by configuration
    episodes/bundle-00003.parquet   the same way
    params/bundle-00003.zip         the chunks' own files of parameters, uncompressed
    snapshots/bundle-00003.zip      those of their snapshots, if there are any

A row group and a member each have a checksum of their own, so that damage costs the chunks that it
touches. What all chunks of a bundle depend on, its record and the index that ends a Parquet file,
is there twice.
"""

import base64
import contextlib
import hashlib
import itertools
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dqx.study import contents, entries, forms
from dqx.study.entries import open_plain
from dqx.study.folder import Folder, ForeignRecord, StudyError
from dqx.study.held import RUN_KEYS, TABLES, Piece, present
from dqx.study.planned import Chunks
from dqx.study.sealed import Mark, read_sealed, seal

ARRAYS = ("params", "snapshots")
_RECORD = re.compile(r"bundle-([0-9]{5,9})(-copy)?\.json")


def numbers(folder: Folder) -> list[int]:
    """The numbers of the bundles that have a record, or its copy, the newest first."""
    found = map(_RECORD.fullmatch, entries.names(folder.path / "chunks"))
    return sorted({int(match[1]) for match in found if match}, reverse=True)


def bundle_files(folder: Folder, number: int) -> list[Path]:
    """All files of a bundle, in the order in which they go."""
    data = [folder.bundle(kind, number) for kind in (*TABLES, *ARRAYS)]
    return [folder.bundle_record(number), folder.bundle_copy(number), *data]


def member_name(chunk: int, step: int | None) -> str:
    """The name of a chunk's arrays within a bundle: that of a file of its own."""
    return f"part-{chunk:05d}.npz" if step is None else f"part-{chunk:05d}-{step}.npz"


def read(folder: Folder, plan_seal: str, number: int, chunks: Chunks) -> dict[str, Any]:
    """The record of a bundle, or its copy.

    Args:
        folder: of the study.
        plan_seal: of its plan.
        number: of the bundle.
        chunks: of the plan.

    Raises:
        ForeignRecord: if it is of another plan.
        StudyError: if both are missing or damaged.
    """
    path = folder.bundle_record(number)
    try:
        record = read_sealed(path, forms.BUNDLE)
    except StudyError:
        try:
            record = read_copy(folder, number)["record"]
        except StudyError:
            record = {}
        if not record:
            raise
    if record["plan_seal"] != plan_seal:
        raise ForeignRecord(
            f"{path}: it belongs to another study, of plan {record['plan_seal'][:12]}, "
            f"and {folder.plan.name} is plan {plan_seal[:12]}: put the study's own plan back, or "
            "move the bundles of others away"
        )
    if record["bundle"] != number or not _fits(record, chunks):
        raise StudyError(f"{path}: it is no record of this bundle of the plan's chunks")
    return record


def read_copy(folder: Folder, number: int) -> dict[str, Any]:
    """What is there a second time: ``record``, and by kind the ``ends`` of tables, as base64.

    Raises:
        StudyError: if it is missing or damaged.
    """
    path = folder.bundle_copy(number)
    copy = read_sealed(path, forms.BUNDLE_COPY)
    if copy["record"].get("sha256") != seal(copy["record"]):
        raise StudyError(f"{path}: the record in it is not what was written (checksum differs)")
    return copy


def _fits(record: Mapping[str, Any], chunks: Chunks) -> bool:
    """Whether a record agrees with the plan and with itself."""
    mine, runs, counts = record["chunks"], record["runs"], record["counts"]
    if not (len(mine) == len(counts) == len(record["machines"]) == len(set(mine))):
        return False
    if max(mine) >= chunks.count or max(runs["config"], default=0) >= len(record["configs"]):
        return False
    planned = {chunk: chunks.chunk(chunk) for chunk in mine}
    names = [record["configs"][i] for i in runs["config"]]
    wanted = [run for chunk in mine for run in planned[chunk].runs]
    ends = [planned[chunk].total_steps for chunk in mine for _ in planned[chunk].runs]
    good = list(zip(names, runs["seed"], strict=False)) == wanted
    good &= counts == [len(planned[chunk].runs) for chunk in mine]
    good &= all(isinstance(runs[key], list) and len(runs[key]) == len(wanted) for key in runs)
    good &= all(at <= end for at, end in zip(runs["diverged_at"], ends, strict=False))
    for kind in TABLES:
        pieces, end = record[kind]["pieces"], record[kind]["end"]
        good &= [chunk for piece in pieces for chunk in piece["chunks"]] == mine
        good &= all(len(piece["rows"]) == len(piece["chunks"]) for piece in pieces)
        rows = [n for piece in pieces for n in piece["rows"]]
        least = [planned[chunk].rows if kind == "metrics" else 0 for chunk in mine]
        most = [planned[c].rows if kind == "metrics" else planned[c].most_episodes for c in mine]
        good &= all(a <= n <= b for a, n, b in zip(least, rows, most, strict=False))
        sizes = [part["bytes"] for part in (*pieces, end)]
        good &= sum(sizes) == record["files"][kind]["bytes"]
    good &= [member["chunk"] for member in record["params"]] == mine
    good &= bool(record["snapshots"]) == ("snapshots" in record["files"])
    for kind in (kind for kind in ARRAYS if record[kind]):
        inside = record["files"][kind]["bytes"]
        good &= all(m["offset"] + m["bytes"] <= inside for m in record[kind])
    taken = [(m["chunk"], m.get("step")) for m in record["snapshots"]]
    good &= all(c in planned and step in planned[c].steps for c, step in taken)
    return bool(good and len(set(taken)) == len(taken))


class Bundle:
    """Many chunks; see `dqx.study.held.Held`.

    Args:
        folder: of the study.
        number: of the bundle.
        record: its record, as `read` gives it.
        chunks: of the plan.
    """

    def __init__(
        self, folder: Folder, number: int, record: Mapping[str, Any], chunks: Chunks
    ) -> None:
        self.path, self.number = folder.bundle_record(number), number
        self.chunks: tuple[int, ...] = tuple(record["chunks"])
        self._folder, self._record, self._planned = folder, record, chunks
        self._machines: dict[int, str] = dict(zip(self.chunks, record["machines"], strict=True))
        self._members: dict[tuple[int, int | None], Mapping[str, Any]] = {
            (m["chunk"], m.get("step")): m for kind in ARRAYS for m in record[kind]
        }

    def columns(self) -> dict[str, Any]:
        record, counts = self._record, self._record["counts"]
        names = record["configs"]
        return {
            **{key: record["runs"][key] for key in RUN_KEYS},
            "config": [names[i] for i in record["runs"]["config"]],
            "chunk": np.repeat(self.chunks, counts).tolist(),
            "index": np.concatenate([np.arange(n) for n in counts]).tolist(),
        }

    def runs(self) -> dict[int, list[dict[str, Any]]]:
        columns = {**self._record["runs"], "config": self.columns()["config"]}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        left = iter(rows)
        counts = zip(self.chunks, self._record["counts"], strict=True)
        return {chunk: list(itertools.islice(left, n)) for chunk, n in counts}

    def pieces(
        self, kind: str, chunks: Collection[int], columns: Collection[str] | None = None
    ) -> Iterator[Piece]:
        wanted = [
            number
            for number, piece in enumerate(self._record[kind]["pieces"])
            if not set(chunks).isdisjoint(piece["chunks"])
        ]
        for _, found in self._row_groups(kind, wanted, columns):
            if isinstance(found, StudyError):
                raise found
            yield _only(found, chunks)

    def _row_groups(
        self, kind: str, wanted: Collection[int], columns: Collection[str] | None
    ) -> Iterator[tuple[int, Piece | StudyError]]:
        """Row groups by number, checked, or what is wrong with them.

        Raises:
            StudyError: if none can be read.
        """
        if not wanted:
            return
        pieces, path = self._record[kind]["pieces"], self._folder.bundle(kind, self.number)
        # Pages that nothing is read into take no memory.
        content = np.zeros(self._record["files"][kind]["bytes"], np.uint8)
        view = content.data
        with self._opened(kind) as file:
            self._read_end(kind, file, view)
            problems = {i: self._read_piece(kind, i, file, view) for i in wanted}
        table = contents.opened(path, content, [sum(piece["rows"]) for piece in pieces])
        names = table.schema_arrow.names
        asked = present(names, columns)
        for i in wanted:
            try:
                if problems[i]:
                    raise StudyError(problems[i])
                rows = contents.row_group(path, table, i, asked)
                found = Piece(tuple(pieces[i]["chunks"]), tuple(pieces[i]["rows"]), rows, names)
                if asked is None:
                    planned = [self._planned.chunk(chunk) for chunk in found.chunks]
                    contents.CHECKS[kind](path, rows, planned)
                yield i, found
            except StudyError as error:
                yield i, error

    def beside(self, kind: str, chunk: int) -> tuple[int, ...]:
        pieces = self._record[kind]["pieces"]
        return next(tuple(p["chunks"]) for p in pieces if chunk in p["chunks"])

    def content(self, chunk: int, step: int | None = None) -> tuple[bytes, Mark]:
        kind, member = "params" if step is None else "snapshots", self._members[chunk, step]
        with self._opened(kind) as file:
            content = os.pread(file, member["bytes"], member["offset"])
        mark = Mark.of(member)
        if Mark(len(content), hashlib.sha256(content).hexdigest()) != mark:
            raise StudyError(f"{self._member(chunk, step)} is not what was written")
        return content, mark

    def arrays(self, chunk: int, step: int | None = None) -> dict[str, np.ndarray]:
        content, _ = self.content(chunk, step)
        return contents.params(Path(self._member(chunk, step)), content, self._planned.chunk(chunk))

    def _member(self, chunk: int, step: int | None) -> str:
        path = self._folder.bundle("params" if step is None else "snapshots", self.number)
        return f"{path}: {member_name(chunk, step)} in it"

    def snapshots(self, chunk: int) -> tuple[int, ...]:
        return tuple(m["step"] for m in self._record["snapshots"] if m["chunk"] == chunk)

    def machine(self, chunk: int) -> str:
        return self._machines[chunk]

    def name(self, kind: str, chunk: int, step: int | None = None) -> str:
        path = self.path if kind == "chunks" else self._folder.bundle(kind, self.number)
        part = member_name(chunk, step) if kind in ARRAYS else f"chunk {chunk}"
        return f"{path.relative_to(self._folder.path).as_posix()}, {part} in it"

    def files(self) -> dict[Path, int]:
        marks = self._record["files"].items()
        return {self._folder.bundle(kind, self.number): mark["bytes"] for kind, mark in marks}

    def damage(self) -> dict[str, tuple[int, ...]]:
        found = self._damaged_copy()
        for kind, mark in self._record["files"].items():
            path = self._folder.bundle(kind, self.number)
            try:
                parts = self._damaged_tables(kind) if kind in TABLES else self._damaged_arrays(kind)
                if not parts and _mark_of(path) != Mark.of(mark):
                    parts = {f"{path}: what holds its parts together was damaged": ()}
                found |= parts
            except OSError as error:
                found[f"{path}: {error.strerror}"] = self.chunks
            except StudyError as error:
                found[str(error)] = self.chunks
        return found

    def _damaged_copy(self) -> dict[str, tuple[int, ...]]:
        """Damage to what is there twice, which costs no chunk as long as one is intact."""
        try:
            read_sealed(self.path)
            if read_copy(self._folder, self.number)["record"] != self._record:
                raise StudyError(
                    f"{self._folder.bundle_copy(self.number)}: it is of another record"
                )
        except StudyError as error:
            return {str(error): ()}
        return {}

    def _damaged_tables(self, kind: str) -> dict[str, tuple[int, ...]]:
        pieces = self._record[kind]["pieces"]
        return {
            str(found): tuple(pieces[i]["chunks"])
            for i, found in self._row_groups(kind, range(len(pieces)), None)
            if isinstance(found, StudyError)
        }

    def _damaged_arrays(self, kind: str) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        with self._opened(kind):
            pass  # a file that is missing is told of once
        for member in self._record[kind]:
            try:
                self.arrays(member["chunk"], member.get("step"))
            except StudyError as error:
                found[str(error)] = (member["chunk"],)
        return found

    def remove(self) -> None:
        for path in bundle_files(self._folder, self.number):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _opened(self, kind: str) -> Iterator[int]:
        path = self._folder.bundle(kind, self.number)
        try:
            file = open_plain(path)
        except OSError as error:
            raise StudyError(f"{path}: {error.strerror}") from None
        try:
            yield file
        finally:
            os.close(file)

    def _read_piece(self, kind: str, number: int, file: int, view: memoryview) -> str:
        """Reads a row group to its place; what is wrong with it, in words."""
        pieces = self._record[kind]["pieces"]
        first = sum(piece["bytes"] for piece in pieces[:number])
        last = first + pieces[number]["bytes"]
        if _read_part(file, view[first:last], first) == pieces[number]["sha256"]:
            return ""
        return (
            f"{self._folder.bundle(kind, self.number)}: row group {number} in it (bytes {first:,} "
            f"to {last:,}) is not what was written (checksum differs)"
        )

    def _read_end(self, kind: str, file: int, view: memoryview) -> None:
        """Reads the index at the end of a table to its place, or the copy of it.

        Raises:
            StudyError: if both are damaged.
        """
        end = self._record[kind]["end"]
        first = len(view) - end["bytes"]
        if _read_part(file, view[first:], first) == end["sha256"]:
            return
        with contextlib.suppress(StudyError, ValueError):
            copy = base64.b64decode(read_copy(self._folder, self.number)["ends"][kind])
            if Mark(len(copy), hashlib.sha256(copy).hexdigest()) == Mark.of(end):
                view[first:] = copy
                return
        path = self._folder.bundle(kind, self.number)
        raise StudyError(f"{path}: its index was damaged, and so was the copy of that")


def _only(piece: Piece, chunks: Collection[int]) -> Piece:
    """The rows of these chunks alone."""
    kept = [chunk in chunks for chunk in piece.chunks]
    if all(kept):
        return piece
    import pyarrow

    rows = pyarrow.array(np.repeat(kept, piece.rows))
    pairs = zip(piece.chunks, piece.rows, kept, strict=True)
    mine = [(chunk, count) for chunk, count, keep in pairs if keep]
    return Piece(
        tuple(chunk for chunk, _ in mine),
        tuple(count for _, count in mine),
        piece.table.filter(rows),
        piece.names,
    )


def _read_part(file: int, view: memoryview, offset: int) -> str:
    """Fills a buffer from a place in a file; the checksum of what was there."""
    done = 0
    while done < len(view) and (got := os.preadv(file, [view[done:]], offset + done)):
        done += got
    return hashlib.sha256(view[:done]).hexdigest()


def _mark_of(path: Path) -> Mark:
    with open(open_plain(path), "rb") as file:
        total = hashlib.file_digest(file, "sha256").hexdigest()
        return Mark(file.tell(), total)
