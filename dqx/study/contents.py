"""Arrays and tables in a study's files, held against the plan before anything is allocated.

A file may say of itself what it likes: that it holds 10**12 rows, or a member that inflates a
thousandfold. So what it says is compared first with its own size, then with what its chunk has by
the plan, and only then read.
"""

import contextlib
import functools
import io
import math
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dqx.study.entries import StudyError
from dqx.study.planned import PlannedChunk

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

# What is looked up in free memory before it is read; less is always there.
_SMALL = 64 * 2**20
_CODECS = {b"\0", b"\2"}  # none and Snappy, as Thrift's compact protocol writes them
# Snappy, which our tables are packed with, makes at most 21 bytes of one.
_UNPACKED_TIMES, _UNPACKED_MORE = 32, 2**20
# Numbers take eight bytes, or twelve with what Parquet adds; the texts of a row may be long.
_CELL_BYTES, _ROW_BYTES = 64, 20_000
_LIMITS = {"thrift_string_size_limit": 2**24, "thrift_container_size_limit": 10**5}
_LABEL_TYPES = ("string", "bool", "int64", "double")
_MAX_TEXT, _MAX_NAME, _MAX_PARENTS = 100_000, 1_000, 50


def check_room(path: Path, needed: int) -> None:
    """Refuses to read what does not fit into the memory that is free.

    Raises:
        StudyError: with both numbers.
    """
    if needed > _SMALL:
        from dqx.compute.limits import free_memory  # it takes a moment to load

        free = free_memory()
        if needed > free.bytes:
            raise StudyError(
                f"{path} takes {needed / 2**30:,.1f} GiB to read, and {free.what} leaves "
                f"{free.bytes / 2**30:,.1f} GiB: read it where there is more"
            )


def arrays(path: Path, content: bytes) -> dict[str, np.ndarray]:
    """The arrays in a file of NumPy's format, by name; never pickled, never packed.

    Raises:
        StudyError: naming the file, if it is no such file.
    """
    with _ours(path, "arrays"), zipfile.ZipFile(io.BytesIO(content)) as archive:
        return dict(_members(path, archive, len(content)))


@contextlib.contextmanager
def _ours(path: Path, what: str) -> Iterator[None]:
    """Turns whatever the libraries make of bytes that are none of ours into a `StudyError`."""
    try:
        yield
    except StudyError:
        raise
    except Exception as error:
        raise StudyError(
            f"{path}: it holds no {what} that dqx has written ({type(error).__name__})"
        ) from error


def _members(path: Path, archive: zipfile.ZipFile, most: int) -> Iterator[tuple[str, np.ndarray]]:
    """The members of an archive of so many bytes; they may not lie over each other."""
    seen: set[str] = set()
    for info in archive.infolist():
        name, most = info.filename.removesuffix(".npy"), most - info.file_size
        is_packed = info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size
        if is_packed or most < 0 or name in seen:
            raise StudyError(f"{path}: its array {name[:100]!r} is packed or there twice")
        seen.add(name)
        with archive.open(info) as member:
            yield name, _array(path, member, name, info.file_size)


def _array(path: Path, member: Any, name: str, size: int) -> np.ndarray:
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[np.lib.format.read_magic(member)]
    shape, is_fortran, dtype = read(member)
    count = math.prod(shape)
    if dtype.kind not in "biufU" or dtype.itemsize == 0 or any(axis < 0 for axis in shape):
        raise StudyError(
            f"{path}: its array {name[:100]!r} is of {str(dtype)[:100]}, and no numbers"
        )
    if count * dtype.itemsize + member.tell() != size:
        raise StudyError(
            f"{path}: its array {name[:100]!r} has the shape {str(list(shape))[:100]} and not the "
            f"{size:,} bytes of that"
        )
    data = bytearray(count * dtype.itemsize)
    view, done = memoryview(data), 0
    while done < len(data):
        done += member.readinto(view[done : done + 2**20]) or len(data)
    return np.ndarray(shape, dtype, data, order="F" if is_fortran else "C")


def params(path: Path, content: bytes, planned: PlannedChunk) -> dict[str, np.ndarray]:
    """The parameters of a chunk's runs by their path, each with the runs as its leading axis.

    Raises:
        StudyError: naming the file, if it holds others or of other runs.
    """
    found = arrays(path, content)
    names = [name for name, _ in planned.runs]
    seeds = [seed for _, seed in planned.runs]
    labels = (found.pop(name, np.zeros(0)) for name in ("config", "seed"))
    if [values.tolist() for values in labels] != [names, seeds]:
        raise StudyError(f"{path}: its arrays are not those of the chunk's runs")
    leaves = set(found)
    for name, values in found.items():
        parents = name.split("/")[:-1]
        above = {"/".join(parents[: i + 1]) for i in range(len(parents[:_MAX_PARENTS]))}
        if above & leaves or len(parents) > _MAX_PARENTS or len(name) > _MAX_NAME:
            raise StudyError(f"{path}: {name[:100]!r} is no name of parameters")
        if values.dtype.kind == "U" or values.shape[:1] != (len(names),):
            raise StudyError(
                f"{path}: {name[:100]!r} has the shape {str(list(values.shape))[:100]}, and the "
                f"first axis must be the chunk's {len(names):,} runs"
            )
    return found


def metrics(path: Path, content: bytes, planned: PlannedChunk) -> "pyarrow.Table":
    """The rows of metrics of a chunk: labels, seed, step, and float32 metrics.

    Raises:
        StudyError: naming the file, if it holds no such table, or has other rows than planned.
    """
    rows = planned.rows
    table = _table(path, content, rows, rows)
    check_metrics(path, table, [planned])
    return table


def check_metrics(path: Path, table: "pyarrow.Table", chunks: Sequence[PlannedChunk]) -> None:
    """Holds rows of metrics against the runs and steps of their chunks, one after the other.

    Raises:
        StudyError: naming the file, if there are others.
    """
    import pyarrow

    _check_columns(path, table)
    runs = [(run, chunk.steps) for chunk in chunks for run in chunk.runs]
    row = np.repeat(np.arange(len(runs)), [len(steps) for _, steps in runs])
    names = pyarrow.array([name for (name, _), _ in runs], pyarrow.string())
    seeds = np.array([seed for (_, seed), _ in runs], np.int64)
    if not (
        len(row) == table.num_rows
        and pyarrow.chunked_array([names.take(pyarrow.array(row))]).equals(table.column("config"))
        and np.array_equal(table.column("seed").to_numpy(), seeds[row])
        and np.array_equal(
            table.column("step").to_numpy(), np.concatenate([steps for _, steps in runs])
        )
    ):
        raise StudyError(f"{path}: its rows are not those of the chunk's runs and steps")


def episodes(path: Path, content: bytes, planned: PlannedChunk) -> "pyarrow.Table":
    """The training episodes of a chunk: labels, seed, step, return and length.

    Raises:
        StudyError: naming the file, if it holds no such table, or of other runs.
    """
    table = _table(path, content, 0, planned.most_episodes)
    check_episodes(path, table, [planned])
    return table


def check_episodes(path: Path, table: "pyarrow.Table", chunks: Sequence[PlannedChunk]) -> None:
    """Holds episodes against the runs of their chunks, in whatever order they are.

    Raises:
        StudyError: naming the file, if some are of no such run, or cannot be.
    """
    import pyarrow.compute

    _check_columns(path, table, {"return": "float", "length": "int64"})
    planned = [run for chunk in chunks for run in chunk.runs]
    names = {name: place for place, name in enumerate(dict.fromkeys(name for name, _ in planned))}
    texts = pyarrow.array(list(names), pyarrow.string())
    found = pyarrow.compute.index_in(table.column("config"), texts)
    place = found.fill_null(len(names)).to_numpy().astype(np.int64)
    runs = [names[name] * 2**32 + seed for name, seed in planned]
    most = max(chunk.total_steps for chunk in chunks)
    step, length = (table.column(name).to_numpy() for name in ("step", "length"))
    if not (
        np.isin(place * 2**32 + table.column("seed").to_numpy(), runs).all()
        and ((step >= 1) & (step <= most) & (length >= 1)).all()
    ):
        raise StudyError(f"{path}: it has episodes that are none of the chunk's runs")


CHECKS = {"metrics": check_metrics, "episodes": check_episodes}
# How the files of a chunk are read, by kind.
READERS = {"metrics": metrics, "episodes": episodes, "params": params}


def _table(path: Path, content: bytes, least: int, most: int) -> "pyarrow.Table":
    """A table of so many rows, its texts as texts.

    Raises:
        StudyError: naming the file.
    """
    import pyarrow
    import pyarrow.parquet

    with _ours(path, "table"):
        source = pyarrow.BufferReader(content)
        file = pyarrow.parquet.ParquetFile(source, **_LIMITS)
        unpacked = _check_head(path, file, least, most, len(content))
        if unpacked * file.metadata.num_rows > _SMALL:
            return _of_long_texts(path, source, file)
        # Threads, and `read_table`, take longer than the reading itself.
        return file.read(use_threads=False)


def opened(path: Path, content: Any, rows: Sequence[int]) -> "pyarrow.parquet.ParquetFile":
    """Opens a table with row groups of so many rows each.

    Args:
        path: of the file.
        content: its bytes; zeros will do where nothing is read.
        rows: of each row group.

    Raises:
        StudyError: naming the file, if it holds no such table.
    """
    import pyarrow
    import pyarrow.parquet

    with _ours(path, "table"):
        source = pyarrow.BufferReader(pyarrow.py_buffer(content))
        file = pyarrow.parquet.ParquetFile(source, **_LIMITS)
        _check_head(path, file, sum(rows), sum(rows), len(content))
        parts = map(file.metadata.row_group, range(file.metadata.num_row_groups))
        if [part.num_rows for part in parts] != list(rows):
            raise StudyError(f"{path}: its row groups have other rows than its record says")
        return file


def row_group(
    path: Path, file: "pyarrow.parquet.ParquetFile", number: int, columns: list[str] | None
) -> "pyarrow.Table":
    """Reads a row group of a table.

    Raises:
        StudyError: naming the file, if it is none, or its texts would take too much memory.
    """
    part, kinds = file.metadata.row_group(number), file.schema_arrow
    texts = [i for i, kind in enumerate(kinds.types) if str(kind) == "string"]
    packed = sum(part.column(i).total_uncompressed_size for i in texts)
    check_room(path, packed * part.num_rows)
    with _ours(path, "table"):
        return file.read_row_group(number, columns=columns, use_threads=False)


def _of_long_texts(path: Path, source: Any, file: Any) -> "pyarrow.Table":
    """A table that could be large, as a few bytes may say that all rows have the same long text.

    So texts are read once a distinct one, and looked at before they are written out row by row.
    """
    import pyarrow
    import pyarrow.parquet

    found = zip(file.schema_arrow.names, file.schema_arrow.types, strict=True)
    texts = [name for name, kind in found if kind == pyarrow.string()]
    table = pyarrow.parquet.ParquetFile(
        source, metadata=file.metadata, read_dictionary=texts, **_LIMITS
    ).read(use_threads=False)
    for name in texts:
        place, column = table.column_names.index(name), table.column(name)
        parts = (part.dictionary for part in column.chunks)
        longest = max((len(t or "") for part in parts for t in part.to_pylist()), default=0)
        if longest > _MAX_TEXT:
            raise StudyError(f"{path}: its column {name!r} has a text of {longest:,} letters")
        check_room(path, longest * len(column))
        table = table.set_column(place, name, column.cast(pyarrow.string()))
    return table


def _check_head(path: Path, file: Any, least: int, most: int, size: int) -> int:
    """Holds what a Parquet file says of itself against the rows that it may have and its size.

    Returns:
        The bytes that it unpacks to.
    """
    head = file.metadata
    rows, columns, unpacked, total = head.num_rows, range(head.num_columns), 0, 0
    if not least <= rows <= most:
        wanted = f"{most:,}" if least == most else f"at most {most:,}"
        raise StudyError(f"{path}: {rows:,} rows, and the plan has {wanted} of them")
    for part in map(head.row_group, range(head.num_row_groups)):
        count, total = part.num_rows, total + part.num_rows
        for column in map(part.column, columns):
            unpacked += column.total_uncompressed_size
            if column.num_values != count:
                raise StudyError(f"{path}: a column has other rows than the table")
    if not _is_packed_as_ours(head):
        raise StudyError(f"{path}: a column is packed otherwise than by Snappy")
    most = min(_UNPACKED_TIMES * size, rows * (_CELL_BYTES * len(columns) + _ROW_BYTES))
    if total != rows or unpacked > most + _UNPACKED_MORE:
        raise StudyError(f"{path}: {size:,} bytes that say they unpack to {unpacked:,}")
    check_room(path, unpacked + 8 * rows * len(columns))
    return unpacked


def _is_packed_as_ours(head: Any) -> bool:
    """Whether all columns are packed by Snappy or not at all.

    Asked for a codec that it does not know, pyarrow ends the process. So the codecs are looked up
    in the footer as Thrift writes it anew, in which the name of a column comes before its codec.
    A text that only looks like that makes one too many.
    """
    import pyarrow

    sink = pyarrow.BufferOutputStream()
    head.write_metadata_file(sink)
    found = _codecs(tuple(head.schema.names)).findall(sink.getvalue().to_pybytes())
    return len(found) == head.num_columns * head.num_row_groups and set(found) <= _CODECS


@functools.lru_cache(maxsize=16)
def _codecs(names: tuple[str, ...]) -> re.Pattern[bytes]:
    """What matches a column's path, a list of one text, and gives the codec after it."""
    texts = [name.encode() for name in names]
    paths = [_varint(len(text)) + text for text in texts]
    return re.compile(rb"\x19\x18(?:%s)\x15(.)" % b"|".join(map(re.escape, paths)), re.DOTALL)


def _varint(number: int) -> bytes:
    """A whole number as Thrift's compact protocol writes lengths."""
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def _check_columns(
    path: Path, table: "pyarrow.Table", last: Mapping[str, str] | None = None
) -> None:
    """Holds the columns against their types: labels, then seed and step, then ``last`` or floats.

    Only labels and floats may have gaps.
    """
    names, types = table.column_names, list(map(str, table.schema.types))
    place = names.index("step") if {"config", "seed", "step"} <= set(names) else len(names)
    wanted = [
        *(("string",) if name == "config" else _LABEL_TYPES for name in names[: place - 1]),
        *((kind,) for kind in ("int64", "int64", *(last or {}).values())),
    ]
    wanted += [("float",)] * (len(names) - len(wanted))
    whole = ("config", "seed", "step", "length") if last else ("config", "seed", "step")
    if (
        len(set(names)) < len(names)
        or names[place - 1 : place] != ["seed"]
        or (last and names[place + 1 :] != list(last))
        or not all(kind in allowed for kind, allowed in zip(types, wanted, strict=True))
        or any(table.column(name).null_count for name in whole)
    ):
        raise StudyError(f"{path}: its columns are not those of a table of runs, or have gaps")
