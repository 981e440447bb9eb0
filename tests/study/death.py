"""Killed in this process, at every moment at which a file is written."""

import io
import os

import pytest

import dqx.files


class Killed(BaseException):
    """In place of SIGKILL: nothing catches it, and nothing reaches the disk after it."""


class Death:
    """A process that dies at the n-th moment at which a file is written, in this process.

    Every file has three moments: halfway through its content, written but not yet in its place,
    and just put there. From then on no file of the study can be written, renamed or deleted, as
    if the process were gone; what it left half-written stays.

    Args:
        moment: counted from 0.
        removals: whether there is a moment after the removal of each file too.
    """

    def __init__(self, moment, removals=False):
        self.left, self.dead, self.at, self.removals = moment, False, "", removals
        self._patch = pytest.MonkeyPatch()

    def __enter__(self):
        patch, real_replace, real_unlink = self._patch, os.replace, os.unlink
        death = self

        class File(io.BufferedWriter):
            def __init__(self, path):
                super().__init__(io.FileIO(path, "x"))
                self.kept = []

            def write(self, data):
                death.check()
                self.kept.append(bytes(memoryview(data).cast("B")))
                return len(self.kept[-1])

            def flush(self):
                if not self.closed and self.kept and not death.dead:
                    content, self.kept = b"".join(self.kept), []
                    dying = death.counts(f"half of {self.raw.name}")
                    super().write(content[: len(content) // 2] if dying else content)
                    super().flush()
                    death.die(dying)
                    death.die(death.counts(f"unnamed {self.raw.name}"))

        def replace(source, target):
            death.check()
            real_replace(source, target)
            death.die(death.counts(f"whole {target}"))

        def unlink(path, *args, **named):
            death.check()
            real_unlink(path, *args, **named)
            if death.removals:
                death.die(death.counts(f"gone {path}"))

        patch.setattr(dqx.files, "open", lambda path, mode: File(path), raising=False)
        patch.setattr(os, "replace", replace)
        patch.setattr(os, "unlink", unlink)
        return self

    def __exit__(self, kind, error, trace):
        self._patch.undo()
        return kind is Killed

    def counts(self, what):
        """Whether this is the moment."""
        self.left -= 1
        if self.left == -1:
            self.at = what
        return self.left == -1

    def die(self, now):
        self.dead = self.dead or now
        self.check()

    def check(self):
        if self.dead:
            raise Killed
