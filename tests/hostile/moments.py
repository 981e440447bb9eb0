"""Every moment at which a process touches the disk, counted, so that one can be its last.

A file has four moments: halfway through its content, written, synced, and in its place. A folder
that is made or renamed, and whatever is deleted, is a moment as well.
"""

import errno
import io
import os

import pytest

import dqx.files
from dqx.study import engine
from tests.study.death import Killed


class Disk:
    """Stands between dqx and the disk; derived classes say what happens at a moment.

    Attributes:
        count: moments so far.
        at: the moment at which something was done, in words.
    """

    def __init__(self):
        self.count, self.at, self.opened = 0, "", []
        self._patch = pytest.MonkeyPatch()

    def before(self, what, path):
        """Called before something is changed; may raise instead."""

    def passed(self, what, path):
        """Called after it."""

    def half(self, path):
        """Whether only half of a file's content gets to the disk."""
        return False

    def __enter__(self):
        self._patch.setattr(dqx.files, "open", lambda path, mode: _File(self, path), raising=False)
        for name in ("fsync", "replace", "rename", "unlink", "rmdir", "mkdir"):
            self._patch.setattr(os, name, self._wrapped(name, getattr(os, name)))
        # What is written beside the training would be in another order each time.
        self._patch.setattr(engine.Writer, "submit", lambda _, function, *args: function(*args))
        self._patch.setattr(engine, "CHECKPOINT_SHARE", float("inf"))
        return self

    def __exit__(self, *_):
        self._patch.undo()
        for raw in self.opened:
            raw.close()

    def _wrapped(self, name, action):
        def wrapped(path, *args, **named):
            self.before(name, path)
            found = action(path, *args, **named)
            self.passed(name, args[0] if name in ("replace", "rename") else path)
            return found

        return wrapped


class _File(io.BufferedWriter):
    """Keeps its content in memory until it is flushed, as the system does until it is synced."""

    def __init__(self, disk, path):
        disk.before("open", path)
        super().__init__(io.FileIO(path, "x"))
        disk.opened.append(self.raw)
        self._disk, self._path, self._kept = disk, path, []
        disk.passed("open", path)

    def write(self, data):
        self._disk.before("write" if not self._kept else "more", self._path)
        self._kept.append(bytes(memoryview(data).cast("B")))
        return len(self._kept[-1])

    def flush(self):
        if self.closed or not self._kept:
            return
        self._disk.before("flush", self._path)
        content, self._kept = b"".join(self._kept), []
        if self._disk.half(self._path):
            self.raw.write(content[: len(content) // 2])
            self._disk.passed("half", self._path)
            content = content[len(content) // 2 :]
        self.raw.write(content)
        self._disk.passed("written", self._path)


class Counting(Disk):
    """Lets everything happen, and lists the moments."""

    def __init__(self):
        super().__init__()
        self.moments = []

    def half(self, path):
        return True

    def passed(self, what, path):
        self.count += 1
        self.moments.append((what, str(path)))


class Death(Disk):
    """A process that dies at a moment.

    Args:
        moment: counted from 0.
        leave: called then; it does not return, or what it raises ends the process. Left out: from
            then on nothing can be written, renamed or deleted, as if the process were gone.
    """

    def __init__(self, moment, leave=None):
        super().__init__()
        self.moment, self.leave, self.dead = moment, leave, False

    def half(self, path):
        return True

    def before(self, what, path):
        if self.dead:
            raise Killed

    def passed(self, what, path):
        self.before(what, path)
        self.count += 1
        if self.count == self.moment + 1:
            self.dead, self.at = True, f"{what} {path}"
            if self.leave is not None:
                self.leave()
            raise Killed

    def __exit__(self, kind, error, trace):
        super().__exit__(kind, error, trace)
        return kind is Killed


class Full(Disk):
    """A disk that takes nothing at a moment; deleting goes on.

    Args:
        moment: counted from 0, of what would take room.
        number: of the error, such as ``errno.ENOSPC``.
        lasting: whether all that follows fails too.
    """

    NEEDS_ROOM = ("open", "write", "fsync", "replace", "rename", "mkdir")

    def __init__(self, moment, number=errno.ENOSPC, lasting=True):
        super().__init__()
        self.moment, self.number, self.lasting = moment, number, lasting

    def before(self, what, path):
        if what not in self.NEEDS_ROOM:
            return
        self.count += 1
        late = self.count > self.moment + 1 and self.lasting and self.moment >= 0
        if self.count == self.moment + 1 or late:
            self.at = self.at or f"{what} {path}"
            shown = None if isinstance(path, int) else str(path)
            raise OSError(self.number, os.strerror(self.number), shown)
