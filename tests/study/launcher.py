"""The command `dqx` in a process of its own that can be slowed down, or that kills itself.

Usage: ``launcher.py WISHES ARGUMENTS...``, the wishes as JSON:

    {"die": ["*.npz", 2, "half"]}   in the third write of such a file: halfway through its content,
                                    when it is "unnamed" (written, not in its place), or "whole"
    {"pause": 0.01}                 seconds to sleep after every row of metrics
    {"hang": true}                  stay in the first checkpoint until a signal comes

It writes a checkpoint at every row, and ``row N`` to standard error after the N-th.
"""

import builtins
import fnmatch
import io
import json
import math
import os
import signal
import sys
import time

import dqx.files
from dqx import cli


def die():
    """As the system does it when memory runs out, or a person with ``kill -9``."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


class Dying(io.FileIO):
    """Takes everything in memory, and at the time to write it dies halfway, or a little later."""

    def __init__(self, path, moment):
        super().__init__(path, "x")
        self._moment, self._kept = moment, io.BytesIO()

    def write(self, data):
        return self._kept.write(data)

    def flush(self):
        content = self._kept.getvalue()
        super().write(content[: len(content) // 2] if self._moment == "half" else content)
        if self._moment in ("half", "unnamed"):
            die()
        self._kept = io.BytesIO()


def arrange_death(pattern, number, moment):
    """Chooses the file in whose writing this process dies."""
    seen, chosen, replace = [], [], os.replace

    def opened(path, mode):
        name = path.name[1:].rpartition(".")[0].rpartition(".")[0]  # .NAME.1a2b3c4d.tmp
        if not fnmatch.fnmatch(f"{path.parent.name}/{name}", pattern):
            return builtins.open(path, mode)
        seen.append(path)
        if len(seen) <= number:
            return builtins.open(path, mode)
        chosen.append(path)
        return Dying(path, moment)

    def replaced(source, target):
        replace(source, target)
        if source in chosen:
            die()

    dqx.files.open = opened
    os.replace = replaced


def arrange_rows(pause, hang):
    """Checkpoints at every row, and how long a row and a checkpoint take."""
    from dqx.report.picture import Picture
    from dqx.study import checkpoint, engine

    engine.CHECKPOINT_SHARE = math.inf
    write, rows = checkpoint.write, []

    def slowly(self, row):
        rows.append(row.step)
        print(f"row {len(rows)}", file=sys.stderr, flush=True)
        time.sleep(pause)

    def hanging(*args):
        print("saving", file=sys.stderr, flush=True)
        time.sleep(60)
        write(*args)

    Picture.row = slowly  # a sink that the command hands in
    if hang:
        checkpoint.write = hanging


if __name__ == "__main__":
    wishes = json.loads(sys.argv[1])
    if "die" in wishes:
        arrange_death(*wishes["die"])
    arrange_rows(wishes.get("pause", 0), wishes.get("hang", False))
    sys.exit(cli.main(sys.argv[2:]))
