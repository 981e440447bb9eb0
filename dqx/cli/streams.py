"""Standard output and standard error that cannot stop a training.

Whoever reads them may go (``2>&1 | head -1``), they may be closed (``>&-``) or their disk full
(``>/dev/full``), and a name may hold characters that their encoding lacks.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class Stream:
    """A text stream that may be lost: nothing is written any more after that.

    Everything but writing is the stream's own.

    Args:
        stream: that is written to.
        forgiving: whether a failure to write is forgiven; else it is raised.

    Attributes:
        forgiving: the same.
        lost: whether a write has failed and was forgiven.
    """

    def __init__(self, stream: TextIO, forgiving: bool) -> None:
        self._stream, self.forgiving, self.lost = stream, forgiving, False

    def write(self, text: str) -> int:
        if not self.lost:
            with self._forgiven():
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        if not self.lost:
            with self._forgiven():
                self._stream.flush()

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _forgiven(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):  # the second is of a stream that Python itself has closed
            if not self.forgiving:
                raise
            self.lost = True
            discard(self._stream)


class _Nowhere(io.TextIOBase):
    """Takes the place of a stream that is closed."""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


def discard(stream: TextIO) -> None:
    """Sends to nowhere what a stream still holds, so that Python does not fail when it ends."""
    with contextlib.suppress(OSError, ValueError):
        number = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
        stream.flush()


def forgive() -> None:
    """From here on the command's work is kept in files: no failure of its output may stop it."""
    if isinstance(sys.stdout, Stream):
        sys.stdout.forgiving = True


@contextlib.contextmanager
def guarded(forgiving: bool = False) -> Iterator[None]:
    """Guards standard output and standard error while the command runs.

    Args:
        forgiving: of standard output from the start, as `forgive` makes it later.
    """
    _fill()
    before = sys.stdout, sys.stderr
    for name, forgives in (("stdout", forgiving), ("stderr", True)):
        stream = getattr(sys, name)
        if stream is None or stream.closed:  # by whoever has started the command
            stream = _Nowhere()
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, Stream(stream, forgives))
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):  # which has been told, or had a reader that has gone
                discard(stream)
        sys.stdout, sys.stderr = before


def _fill() -> None:
    """Opens the null device for descriptors that are closed.

    A file that is opened later would get their numbers, and what libraries print would go into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
