"""Files of a study that tell damage: JSON with a checksum of itself, data with one in a record.

A seal finds damage and not malice, see ``docs/verify.md``. Nothing here needs JAX.
"""

import contextlib
import hashlib
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np

from dqx.files import whole_file, write_json
from dqx.study import contents, strict
from dqx.study.entries import StudyError, open_plain, read_plain
from dqx.study.strict import Form


class Mark(NamedTuple):
    """Size in bytes and SHA-256 of a file as it was written."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        """The mark in a record."""
        return cls(record["bytes"], record["sha256"])


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


def write_sealed(path: Path, content: Mapping[str, Any]) -> bytes:
    """Writes strict JSON with a checksum of itself.

    Returns:
        What was written.

    Raises:
        OSError: when it cannot be written; nothing is left behind, an older file stays.
    """
    return write_json(path, {**content, "sha256": seal(content)})


def read_sealed(path: Path, form: Form = strict.anything, runs: int = 0) -> dict[str, Any]:
    """Reads what `write_sealed` wrote, with its checksum under ``sha256``.

    Args:
        path: of the file.
        form: that its content must have.
        runs: how many it may list, if it lists those of the whole study.

    Raises:
        StudyError: naming the file, if it is missing, not as it was written, or of another form.
    """
    try:
        content = read_plain(path, strict.most_bytes(runs))
    except OSError as error:
        raise StudyError(f"{path}: {error.strerror}") from None
    return unsealed(path, content, form, runs)


def unsealed(
    path: Path, content: bytes, form: Form = strict.anything, runs: int = 0
) -> dict[str, Any]:
    """What a file holds of which the bytes were read; as `read_sealed`."""
    found = strict.parse(path, content, runs)
    try:
        intact = isinstance(found, dict) and seal(found) == found.get("sha256")
    except (ValueError, RecursionError):  # of an infinite number, and of lists in lists in lists
        raise StudyError(f"{path}: it is no JSON, so it was damaged") from None
    if not intact:
        raise StudyError(f"{path}: its content is not what was written (checksum differs)")
    strict.check(path, found, form)
    return dict(found)


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
