"""What a folder of very many runs costs: files, bytes, and the time and memory of reading it.

    python benchmarks/files.py              # 100,000 runs of 20 rows, about 20 minutes on 2 cores
    python benchmarks/files.py --seeds 100  # 10,000 runs

Runs are made up and written by the storage layer as training does, in chunks of 16 (`--width`),
merged as they come. Each measurement is a process of its own, which tells seconds and peak memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

METRIC = "eval_return"


def plan_of(configs: int, seeds: int, width: int) -> dict[str, Any]:
    """Learning rates x seeds of 20 rows each."""
    base = {"env": "CartPole-v1", "total_steps": 2000, "learning_starts": 100, "log_period": 100,
            "eval_period": 200, "chunk_width": width}  # fmt: skip
    rates = [round(1e-4 * (i + 1), 6) for i in range(configs)]
    return {"name": "files", "seeds": seeds, "base": base, "grid": {"learning_rate": rates}}


def write(folder: Path, configs: int, seeds: int, width: int) -> dict[str, Any]:
    """Writes a finished study through the storage layer; waits for no disk, which is not timed."""
    from dqx.agents import kit
    from dqx.compute.rows import EPISODE_METRICS, EVAL_METRICS
    from dqx.compute.session import ChunkResult
    from dqx.settings import row_steps
    from dqx.study import finish, read_plan
    from dqx.study.folder import Folder
    from dqx.study.record import plan_record, write_plan
    from dqx.study.schedule import groups
    from dqx.study.store import FolderStore

    os.fsync = lambda number: None
    plan = read_plan(plan_of(configs, seeds, width))
    study, record = Folder(folder), plan_record(plan, {"device_kind": "abacus", "jax": "0"})
    study.make()
    write_plan(study, record)
    store, tasks = FolderStore(study, record["sha256"]), [t for g in groups(plan) for t in g.tasks]
    store.finished({task.number: task for task in tasks})
    print(f"{len(tasks):,} chunks to write", flush=True)
    rng, names = np.random.default_rng(0), (*EPISODE_METRICS, *kit.METRICS, *EVAL_METRICS)
    steps, started = np.array(row_steps(plan.points[0].config), np.int64), time.perf_counter()
    most = 0
    for task in tasks:
        ends = np.sort(rng.integers(1, 2000, (width, 10)), axis=1).ravel()
        result = ChunkResult(
            seeds=task.seeds,
            steps=steps,
            metrics={n: rng.normal(size=(width, len(steps))).astype(np.float32) for n in names},
            episodes=(
                np.repeat(np.arange(width), 10), ends, rng.normal(size=10 * width), ends % 99 + 1,
            ),
            params={"params": {"Dense_0": {
                "kernel": rng.normal(size=(width, 4, 64)).astype(np.float32),
                "bias": rng.normal(size=(width, 64)).astype(np.float32),
            }}},
            diverged_at=np.full(width, -1, np.int64),
        )  # fmt: skip
        store.finish(task, result)
        if task.number % 500 == 0:
            most = max(most, sum(1 for path in folder.rglob("*") if path.is_file()))
    store.complete()
    seconds = time.perf_counter() - started
    facts = {"steps": plan.total_steps, "steps_per_second": 0.0, "compile_seconds": 0.0,
             "run_seconds": seconds, "devices": ["made up"]}  # fmt: skip
    finish.write_manifest(study, facts)
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {
        "runs": plan.num_runs,
        "chunks": len(tasks),
        "files": len(paths),
        "most files": most,
        "MB": round(sum(path.stat().st_size for path in paths) / 1e6),
        "chunks/s written and merged": round(len(tasks) / seconds, 1),
    }


def _plan(folder: Path, configs: int, seeds: int, width: int) -> None:
    from dqx.study import read_plan
    from dqx.study.schedule import groups

    groups(read_plan(plan_of(configs, seeds, width)))


def _scan(folder: Path, configs: int, seeds: int, width: int) -> None:
    from dqx.study import read_plan
    from dqx.study.folder import Folder, read_plan_record
    from dqx.study.schedule import groups
    from dqx.study.store import FolderStore
    from dqx.study.tally import Tally

    study, plan = Folder(folder), read_plan(plan_of(configs, seeds, width))
    tasks = {t.number: t for g in groups(plan) for t in g.tasks}
    done = FolderStore(study, read_plan_record(study)["sha256"]).finished(tasks)
    tally = Tally(plan.name, len(tasks), plan.num_runs, plan.total_steps)
    for runs in done.values():
        tally.finish(runs)
    assert tally.progress().runs_done == plan.num_runs


def _load(read: Callable[[Any], Any]) -> Callable[..., None]:
    def reading(folder: Path, configs: int, seeds: int, width: int) -> None:
        from dqx.study.results import load

        read(load(folder))

    return reading


def _command(*words: str) -> Callable[..., None]:
    def calling(folder: Path, configs: int, seeds: int, width: int) -> None:
        from dqx import cli

        out = ["--out", str(folder.parent / "report")] if words == ("report",) else []
        assert cli.main([*words, str(folder), *out]) == 0

    return calling


MEASURED: dict[str, Callable[..., None]] = {
    "plan": _plan,
    "resume scan, every checksum": _scan,
    "open": _load(lambda study: study.finished),
    "one metric as an array": _load(lambda study: study.to_arrays(METRIC)),
    "one metric as a table": _load(lambda study: study.frame("metrics", columns=[METRIC])),
    "one metric of one configuration": _load(
        lambda study: study.frame("metrics", columns=[METRIC], configs=study.configs[:1])
    ),
    "all metrics as a table": _load(lambda study: study.metrics),
    "dqx study status": _command("study", "status"),
    "dqx compare": _command("compare"),
    "dqx report": _command("report"),
}


def measure(name: str, folder: Path, configs: int, seeds: int, width: int) -> dict[str, Any]:
    """One measurement, in a process of its own, imports included."""
    arguments = [__file__, "--in", str(folder), "--only", name]
    arguments += ["--configs", str(configs), "--seeds", str(seeds), "--width", str(width)]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    seconds = time.perf_counter() - started
    row = json.loads(done.stdout.splitlines()[-1])
    return {"what": name, "seconds": round(seconds, 2), **row}


def main() -> None:
    """Writes a folder, unless there is one, and measures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--configs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--width", type=int, default=16, help="runs of a chunk")
    parser.add_argument("--in", dest="folder", help="a folder that an earlier call has written")
    parser.add_argument("--only", choices=MEASURED, help=argparse.SUPPRESS)
    parser.add_argument("--json", help="write the rows to this file")
    options = parser.parse_args()
    sizes = options.configs, options.seeds, options.width
    if options.only:
        started = time.process_time()
        MEASURED[options.only](Path(options.folder), *sizes)
        used = time.process_time() - started
        memory = Path("/proc/self/status").read_text().splitlines()
        (peak,) = (line for line in memory if line.startswith("VmHWM"))
        print(
            json.dumps(
                {"processor seconds": round(used, 2), "peak MiB": int(peak.split()[1]) // 1024}
            )
        )
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(options.folder or f"{place}/study")
        found: dict[str, Any] = {}
        if not (folder / "manifest.json").exists():
            found["written"] = write(folder, *sizes)
            print(found["written"], flush=True)
        found["rows"] = []
        for name in MEASURED:
            found["rows"].append(measure(name, folder, *sizes))
            print(found["rows"][-1], flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
