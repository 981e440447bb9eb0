"""What the tests of studies share: plans of the tiny configuration, comparisons, interruptions."""

import contextlib
import dataclasses
import io
import json
import os
import signal

import numpy as np
import pytest

import dqx.files
from dqx.digest import digest, flatten
from dqx.parallel import Programs
from dqx.study import StudyInterrupted, engine
from tests.shared import HYPER, TINY

ROWS = TINY.total_steps // TINY.log_period


def plan(seeds=8, fields=(), **entries):
    """A plan of the tiny configuration, as a dictionary; ``fields`` change the configuration."""
    base = {**dataclasses.asdict(TINY), **dataclasses.asdict(HYPER), **dict(fields)}
    return {"name": "tiny", "seeds": seeds, "base": base, **entries}


PLAN = plan(12, snapshot_every=176)  # three chunks
OTHER = plan(12, {"learning_rate": 3e-3}, snapshot_every=176)


# A file of the second chunk, of each kind.
KINDS = {
    "metrics": "metrics/part-00001.parquet",
    "episodes": "episodes/part-00001.parquet",
    "params": "params/part-00001.npz",
    "snapshots": "snapshots/part-00001-352.npz",
    "record": "chunks/00001.json",
}


def toml(table):
    """A plan without grid, cases or search as the text of a TOML file."""
    lines = [f"{key} = {json.dumps(v)}" for key, v in table.items() if key != "base"]
    base = {k: v for k, v in table["base"].items() if v is not None}
    infinite = {k: "inf" for k, v in base.items() if v == float("inf")}
    fields = [f"{k} = {infinite.get(k) or json.dumps(v)}" for k, v in base.items()]
    return "\n".join([*lines, "[base]", *fields, ""])


def assert_same_runs(one, two, count=None):
    """Digests, metrics, episodes and parameters of the runs in both studies, bit for bit."""
    common = sorted(one.digests.keys() & two.digests.keys())
    assert len(common) == (len(one.digests) if count is None else count)
    tables = [dict(list(s.episodes.groupby(["config", "seed"], observed=True))) for s in (one, two)]
    for config, seed in common:
        assert one.digests[config, seed] == two.digests[config, seed], (config, seed)
        for name in ("step", "return", "length"):
            mine, theirs = (table[config, seed][name].to_numpy() for table in tables)
            assert len(mine) > 10
            assert_same_bits(mine, theirs, name)
        mine, theirs = one.curves(config, seed), two.curves(config, seed)
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert_same_bits(mine[name], theirs[name], name)
        mine, theirs = (flatten(study.params(config, seed)) for study in (one, two))
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert_same_bits(mine[name], theirs[name], name)


def assert_same_bits(one, two, name=""):
    """NaNs are equal whatever their payload, zeros of different sign are not."""
    one, two = np.asarray(one), np.asarray(two)
    assert (one.dtype, one.shape) == (two.dtype, two.shape), name
    np.testing.assert_array_equal(one, two, err_msg=name)
    if one.dtype.kind == "f":
        finite = ~np.isnan(one)
        np.testing.assert_array_equal(np.signbit(one)[finite], np.signbit(two)[finite], name)


def assert_digests_hold(study):
    """The digests are those of what the files hold now."""
    for (config, seed), recorded in study.digests.items():
        curves = study.curves(config, seed)
        params = flatten(study.params(config, seed))
        assert digest(curves.pop("step"), curves, params) == recorded, (config, seed)


def interrupted(total, out, rows, call=engine.run, **options):
    """Starts or resumes a study and asks it to stop, as Ctrl-C does, at a row of metrics.

    Returns what it says.
    """
    seen = []

    def stop(event):
        seen.append(event.steps)
        if len(set(seen)) == rows + 1:  # the first event comes before any row
            seen.append(-1)  # once is enough
            signal.raise_signal(signal.SIGINT)

    arguments = (out,) if call is engine.resume else (total, out)
    with pytest.raises(StudyInterrupted) as caught:
        call(
            *arguments, progress=stop, **{"checkpoint_seconds": 1e9, "devices": "cpu:1", **options}
        )
    return str(caught.value)


@contextlib.contextmanager
def computed_steps():
    """A list of the environment steps of each call of a compiled program that steps lanes."""
    steps = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("warm_up", "segment"):
            patch.setattr(Programs, name, _counting(getattr(Programs, name), name, steps))
        yield steps


def _counting(method, name, steps):
    place = 2 if name == "warm_up" else 3

    def counted(self, *args):
        steps.append(args[place])
        return method(self, *args)

    return counted


def contents(folder):
    """Path, inode, time and content of every file of results, by name."""
    found = {}
    for kind in ("metrics", "episodes", "params", "snapshots", "chunks"):
        for path in sorted((folder / kind).iterdir()):
            state = path.stat()
            found[f"{kind}/{path.name}"] = (state.st_ino, state.st_mtime_ns, path.read_bytes())
    return found


class Killed(BaseException):
    """In place of SIGKILL: nothing catches it, and nothing reaches the disk after it."""


class Death:
    """A process that dies at the n-th moment at which a file is written, in this process.

    Every file has three moments: halfway through its content, written but not yet in its place,
    and just put there. From then on no file of the study can be written, renamed or deleted, as
    if the process were gone; what it left half-written stays.

    Args:
        moment: counted from 0.
    """

    def __init__(self, moment):
        self.left, self.dead, self.at = moment, False, ""
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
