"""The lock of a study's or a search's folder: one process at a time works on it."""

import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from dqx.study.entries import StudyError, open_plain


class Lock:
    """Keeps a second process out of a folder; the system frees it when this one dies.

    Args:
        path: of the folder.

    Raises:
        StudyError: if another process holds it, naming that process.
    """

    def __init__(self, path: Path) -> None:
        self._path = path / "lock"
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
