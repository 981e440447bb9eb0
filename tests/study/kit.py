"""What the tests of studies share: plans, comparisons, interruptions, and studies made by hand."""

import contextlib
import dataclasses
import io
import json
import signal
import threading
import time
import zlib
from typing import Any, NamedTuple

import numpy as np
import pytest

from dqx import cli, study
from dqx.agents import kit as agents_kit
from dqx.compute import cache, programs
from dqx.compute.digest import digest, flatten, nested
from dqx.compute.programs import Programs
from dqx.compute.rows import EPISODE_METRICS, EVAL_METRICS
from dqx.compute.session import ChunkResult
from dqx.compute.solution import EXACT_METRICS
from dqx.settings import Config, evaluates_at, row_steps
from dqx.study import Sink, StudyInterrupted, read_plan
from dqx.study.folder import Folder, read_plan_record
from dqx.study.plan import Plan
from dqx.study.point import Point
from dqx.study.record import plan_record
from dqx.study.schedule import Task, groups
from dqx.study.sealed import write_sealed
from dqx.study.store import FolderStore
from tests.shared import HYPER, TINY

# --- Plans of the tiny configuration.

ROWS = TINY.total_steps // TINY.log_period
# Metrics of a row of a built-in agent.
METRICS = (*EPISODE_METRICS, *agents_kit.METRICS, *EVAL_METRICS, *EXACT_METRICS)


def fields(config, *, without=()) -> dict[str, Any]:
    """The fields of a `Config` or `Hyper` as a plan's [base] takes them."""
    left_out = ("extra", "env_options", "env_inputs", *without)
    return {k: v for k, v in dataclasses.asdict(config).items() if k not in left_out}


def plan(seeds=8, changes=(), **entries):
    """A plan of the tiny configuration, as a dictionary; ``changes`` are of its fields."""
    base = {**fields(TINY), **fields(HYPER), **dict(changes)}
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


def toml(table) -> str:
    """A plan without cases as the text of a TOML file."""
    head = {name: value for name, value in table.items() if not isinstance(value, dict)}
    tables = {"": head, **{name: value for name, value in table.items() if name not in head}}
    lines = []
    for name, entries in tables.items():
        lines += [f"[{name}]"] * bool(name)
        for key, value in entries.items():
            if value is not None:
                lines.append(f"{key} = {'inf' if value == float('inf') else json.dumps(value)}")
    return "\n".join(lines) + "\n"


# --- Comparisons.


def assert_same_runs(one, two, count=None):
    """Digests, metrics, episodes and parameters of the runs in both studies, bit for bit."""
    common = sorted(one.digests.keys() & two.digests.keys())
    assert len(common) == (len(one.digests) if count is None else count)
    tables = [dict(list(s.episodes.groupby(["config", "seed"], observed=True))) for s in (one, two)]
    for key in common:
        assert one.digests[key] == two.digests[key], key
        mine, theirs = (table[key] for table in tables)
        assert len(mine) > 10
        for name in ("step", "return", "length"):
            assert_same_bits(mine[name].to_numpy(), theirs[name].to_numpy(), name)
        assert_same_arrays(one.curves(*key), two.curves(*key))
        assert_same_arrays(*(flatten(study.params(*key)) for study in (one, two)))


def assert_same_arrays(one, two):
    """Arrays by name, bit for bit."""
    assert one.keys() == two.keys()
    for name in one:
        assert_same_bits(one[name], two[name], name)


def assert_same_result(one, two):
    """Results of a chunk, bit for bit."""
    assert_same_arrays(one.metrics, two.metrics)
    assert_same_arrays(flatten(one.params), flatten(two.params))
    for name in ("seeds", "steps", "diverged_at"):
        assert_same_bits(getattr(one, name), getattr(two, name), name)
    for mine, theirs in zip(one.episodes, two.episodes, strict=True):
        assert_same_bits(mine, theirs)


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


def assert_whole(study, reference):
    """Finished, the same bits, nothing left of what was under way."""
    assert study.finished
    assert_same_runs(study, reference)
    assert_digests_hold(study)
    assert [path for path in study.path.rglob("*") if path.name.startswith(".")] == []
    assert list((study.path / "checkpoints").iterdir()) == []


def contents(folder):
    """Path, inode, time and content of every file of results, by name."""
    found = {}
    for kind in ("metrics", "episodes", "params", "snapshots", "chunks"):
        for path in sorted((folder / kind).iterdir()):
            state = path.stat()
            found[f"{kind}/{path.name}"] = (state.st_ino, state.st_mtime_ns, path.read_bytes())
    return found


# --- Training in one place without a picture, and interrupting that.


def run(plan, out, **options):
    return study.run(plan, out, **{"devices": "cpu:1", "sinks": [], **options})


def resume(out, **options):
    return study.resume(out, **{"devices": "cpu:1", "sinks": [], **options})


class Interrupt(Sink):
    """Asks to stop, as Ctrl-C does, when something holds of the rows so far.

    Args:
        when: ``when(rows)``, called with every new row.
        pause: seconds that a row takes longer, so that chunks side by side all get under way.
        of: ``"row"``, or ``"phase"`` to look whenever something is said to begin.
    """

    def __init__(self, when, pause=0.0, of="row"):
        self.when, self.pause, self.rows, self.asked = when, pause, [], False
        setattr(self, of, self.look)

    def look(self, row):
        time.sleep(self.pause)
        self.rows.append(row)
        if not self.asked and self.when(self.rows):
            self.asked = True
            main = threading.main_thread().ident
            signal.pthread_kill(main, signal.SIGINT)
            # Handled in the order of their numbers: then the first has been noticed too.
            signal.pthread_kill(main, signal.SIGUSR1)
            assert self.heard.wait(60)

    def open(self, plan):
        self.heard = threading.Event()
        self.before = signal.signal(signal.SIGUSR1, lambda *_: self.heard.set())

    def close(self):
        signal.signal(signal.SIGUSR1, self.before)


def interrupted(total, out, when, call=run, pause=0.0, sinks=(), of="row", **options):
    """Starts or resumes a study and interrupts it at a row of metrics, or when something holds.

    Returns what it says.
    """
    asks = Interrupt(when if callable(when) else lambda rows: len(rows) == when, pause, of)
    options = {"checkpoint_seconds": 1e9, "sinks": [*sinks, asks], **options}
    with pytest.raises(StudyInterrupted) as caught:
        call(*((out,) if call is resume else (total, out)), **options)
    assert asks.asked
    return str(caught.value)


def to_the_end(session):
    """What a session gives once it has trained all that is left."""
    while not session.finished:
        session.advance()
    return session.result()


@contextlib.contextmanager
def in_a_hurry():
    """Programs are compiled in half of the time meanwhile; for those that no other test has.

    Their last bits are those of none that a user has, but the same whoever runs them.
    """
    usual = programs._compiler_options
    with pytest.MonkeyPatch.context() as patch:
        hurried = {"xla_backend_optimization_level": 0}
        patch.setattr(programs, "_compiler_options", lambda *given: {**usual(*given), **hurried})
        yield


@contextlib.contextmanager
def computed_steps():
    """A list of the environment steps of each call of a compiled program that steps lanes."""
    steps = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("warm_up", "segment"):
            patch.setattr(Programs, name, _counting(getattr(Programs, name), steps))
        yield steps


def _counting(method, steps):
    def counted(self, *args):
        steps.append(args[-1])
        return method(self, *args)

    return counted


def call(*arguments) -> tuple[int, list[str], list[str]]:
    """Status and lines of standard output and standard error of the command `dqx`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as done:  # argparse leaves this way after help
            status = done.code
        finally:
            cache.disable()  # the command has no tests after it
    return status, out.getvalue().splitlines(), err.getvalue().splitlines()


# --- Studies of made-up numbers: files as training writes them, without training.

IDENTITY = {"device_kind": "abacus", "jax": "0"}
BASE = {
    "env": "CartPole-v1",
    "total_steps": 400,
    "learning_starts": 100,
    "log_period": 100,
    "eval_period": 200,
    "chunk_width": 4,
}


class Made(NamedTuple):
    """A folder, its plan, and what was written of each run: by (configuration, seed)."""

    folder: Folder
    plan: Plan
    runs: dict[tuple[str, int], dict[str, Any]]


def numbers(point: Point, seed: int) -> dict[str, Any]:
    """Made-up metrics, episodes and parameters that tell every run from all others."""
    rng = np.random.default_rng([zlib.crc32(point.name.encode()), seed])
    config = point.config
    steps = row_steps(config)
    metrics = {name: rng.normal(20, 5, len(steps)).astype(np.float32) for name in METRICS}
    metrics["episode_count"] = rng.integers(0, 9, len(steps))
    evaluated = np.array([evaluates_at(config, step) for step in steps])
    metrics["eval_return"] = np.where(evaluated, metrics["eval_return"], np.nan).astype(np.float32)
    ends = np.sort(rng.choice(config.total_steps, 3, replace=False)) + 1
    return {
        "metrics": metrics,
        "episodes": (ends, rng.normal(size=3).astype(np.float32), rng.integers(1, 99, 3)),
        "params": {
            "params": {
                "Dense_0": {
                    "kernel": rng.normal(size=(2, 3)).astype(np.float32),
                    "bias": rng.normal(size=3).astype(np.float32),
                }
            }
        },
        "diverged_at": -1,
    }


def chunk_result(task: Task, runs: list[dict[str, Any]]) -> ChunkResult:
    """The runs of a task, stacked as a session gives them."""
    params = [flatten(run["params"]) for run in runs]
    lanes = np.repeat(np.arange(len(runs)), [len(run["episodes"][0]) for run in runs])
    columns = [np.concatenate(c) for c in zip(*(run["episodes"] for run in runs), strict=True)]
    step, total, length = columns
    names = runs[0]["metrics"]
    return ChunkResult(
        seeds=task.seeds,
        steps=np.array(row_steps(task.config), np.int64),
        metrics={name: np.stack([run["metrics"][name] for run in runs]) for name in names},
        episodes=(lanes, step, total, length),
        params=nested({name: np.stack([p[name] for p in params]) for name in params[0]}),
        diverged_at=np.array([run["diverged_at"] for run in runs], np.int64),
    )


def make_study(path, plan, *, leave_out=(), change=None, identity=IDENTITY, kinds=()) -> Made:
    """Writes a study; ``plan`` is a `Plan`, or a dictionary, its [base] in addition to `BASE`.

    Args:
        leave_out: numbers of chunks that are not finished.
        change: ``change(name, seed, run)`` may alter what is made up before it is written.
        kinds: of machines that have trained it, if several.
    """
    if not isinstance(plan, Plan):
        plan = read_plan({**plan, "base": {**BASE, **plan.get("base", {})}})
    folder, runs = Folder(path), {}
    folder.make()
    write_sealed(folder.plan, plan_record(plan, identity, kinds=kinds))
    store = FolderStore(folder, read_plan_record(folder)["sha256"])
    for task in [task for group in groups(plan) for task in group.tasks]:
        if task.number in leave_out:
            continue
        made = []
        for point, seed in zip(task.points, task.seeds.tolist(), strict=True):
            made.append(numbers(point, seed))
            if change is not None:
                change(point.name, seed, made[-1])
            runs[point.name, seed] = made[-1]
        result = chunk_result(task, made)
        for step in snapshot_steps(task.config, plan.snapshot_every):
            share = step / task.config.total_steps
            store.snapshot(task, step, scaled(result.params, share))
        store.finish(task, result)
    return Made(folder, plan, runs)


def snapshot_steps(config: Config, every: int) -> list[int]:
    """The first row at or after each multiple of ``every``."""
    steps = row_steps(config)
    multiples = range(every, config.total_steps + 1, every) if every else ()
    return sorted({min(step for step in steps if step >= multiple) for multiple in multiples})


def scaled(tree, factor):
    if isinstance(tree, dict):
        return {name: scaled(value, factor) for name, value in tree.items()}
    return tree * np.float32(factor)
