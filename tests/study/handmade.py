"""Studies of made-up numbers: files as training writes them, without training."""

import contextlib
import dataclasses
import io
import json
import zlib
from typing import Any, NamedTuple

import numpy as np

from dqx import cli
from dqx.rounds import METRICS, ChunkResult
from dqx.run import row_steps
from dqx.study.folder import Folder, read_plan_record, write_sealed
from dqx.study.plan import Plan, Point, read_plan
from dqx.study.record import plan_record
from dqx.study.schedule import Task, groups
from dqx.study.store import write_chunk, write_snapshot

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
    count = len(row_steps(config))
    metrics = {name: rng.normal(20, 5, count).astype(np.float32) for name in METRICS}
    metrics["episode_count"] = rng.integers(0, 9, count)
    evaluated = row_steps(config) % config.eval_period == 0 if config.eval_period else False
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
    """The runs of a task, stacked as a round gives them."""
    dense = [run["params"]["params"]["Dense_0"] for run in runs]
    lanes = np.repeat(np.arange(len(runs)), [len(run["episodes"][0]) for run in runs])
    columns = [np.concatenate(c) for c in zip(*(run["episodes"] for run in runs), strict=True)]
    step, total, length = columns
    return ChunkResult(
        seeds=task.seeds,
        metrics={name: np.stack([run["metrics"][name] for run in runs]) for name in METRICS},
        episodes=(lanes, step, total, length),
        params={
            "params": {
                "Dense_0": {name: np.stack([d[name] for d in dense]) for name in ("kernel", "bias")}
            }
        },
        diverged_at=np.array([run["diverged_at"] for run in runs], np.int64),
    )


def make_study(path, plan, *, leave_out=(), change=None, identity=IDENTITY) -> Made:
    """Writes a study; ``plan`` is a dictionary, its [base] in addition to `BASE`.

    Args:
        leave_out: numbers of chunks that are not finished.
        change: ``change(name, seed, run)`` may alter what is made up before it is written.
    """
    plan = read_plan({**plan, "base": {**BASE, **plan.get("base", {})}})
    folder, runs = Folder(path), {}
    folder.make()
    write_sealed(folder.plan, plan_record(plan, identity))
    seal = read_plan_record(folder)["sha256"]
    for group in groups(plan):
        for task in group.tasks:
            if task.number in leave_out:
                continue
            made = []
            for point, seed in zip(task.points, task.seeds.tolist(), strict=True):
                made.append(numbers(point, seed))
                if change is not None:
                    change(point.name, seed, made[-1])
                runs[point.name, seed] = made[-1]
            result, marks = chunk_result(task, made), {}
            if plan.snapshot_every:
                taken = range(plan.snapshot_every, group.config.total_steps, plan.snapshot_every)
                for step in taken:
                    halved = _scaled(result.params, step / group.config.total_steps)
                    marks[step] = write_snapshot(
                        folder, task.number, task.points, task.seeds, step, halved
                    )
            steps = row_steps(group.config)
            write_chunk(folder, seal, task.number, task.points, steps, result, marks)
    return Made(folder, plan, runs)


def _scaled(tree, factor):
    if isinstance(tree, dict):
        return {name: _scaled(value, factor) for name, value in tree.items()}
    return tree * np.float32(factor)


def fields(config, *, without=()) -> dict[str, Any]:
    """The fields of a `Config` as a plan's [base] takes them."""
    return {k: v for k, v in dataclasses.asdict(config).items() if k not in without}


def toml(plan) -> str:
    """A plan without cases as a file; numbers, texts and lists are written as in JSON."""
    head = {name: value for name, value in plan.items() if not isinstance(value, dict)}
    tables = {"": head, **{name: value for name, value in plan.items() if name not in head}}
    lines = []
    for table, entries in tables.items():
        lines += [f"[{table}]"] * bool(table)
        lines += [f"{name} = {json.dumps(value)}" for name, value in entries.items()]
    return "\n".join(lines) + "\n"


def call(*arguments) -> tuple[int, list[str], list[str]]:
    """Status and lines of standard output and standard error of the command `dqx`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as done:  # argparse leaves this way after help
            status = done.code
    return status, out.getvalue().splitlines(), err.getvalue().splitlines()
