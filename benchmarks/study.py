"""What a study costs beside its training: time, memory, checkpoints, reading.

    python benchmarks/study.py              # everything below, about 25 minutes on 2 cores
    python benchmarks/study.py --only many  # 1,000 seeds of mountain-car/toptal, 20,000 steps each

``many``: wall time, peak memory and compiled programs of a study of many short runs.
``speed``: steps/s of a study (compile time apart, files and checkpoints included) over those of
``throughput.py`` for as many steps of the same workload, in turn; the ratio is the median.
``kill``: what is computed twice after `kill -9`, and the share of the time checkpoints take.
``gravity``: steps/s of a grid of three gravities on 64 seeds of cartpole over those of the plain
preset on 192, in turn, and how many segments were compiled.
``load``: seconds to open 2,000 runs of 100 rows of metrics as a table and as an array.

Every measurement runs in a process of its own.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MANY = {
    "name": "many",
    "seeds": 1000,
    "base": {"preset": "mountain-car/toptal", "total_steps": 20_000},
}

GRAVITIES = [8.0, 9.8, 12.0]


def many(folder: Path) -> list[dict[str, Any]]:
    """1,000 short runs."""
    row = _in_process("train", folder / "many", MANY)
    return [{"study": "1,000 x mountain-car/toptal x 20,000 steps", **row}]


def speed(folder: Path) -> list[dict[str, Any]]:
    """A study against the bare training loop, three times in turn."""
    rows = []
    # As many steps of both: a replay that fills up leaves the cache, and the steps slow down.
    for workload, seeds, steps in (
        ("cartpole/cleanrl", 32, 200_000),
        ("mountain-car/toptal", 32, 200_000),
    ):
        base = {"preset": workload, "total_steps": steps, "eval_period": 0}
        plan = {"name": "speed", "seeds": seeds, "base": base}
        ratios, rates = [], []
        for turn in range(3):
            bare = _throughput(workload, seeds, steps)
            row = _in_process("train", folder / f"{workload.replace('/', '-')}-{turn}", plan)
            rates.append(row["steps/s"])
            ratios.append(row["steps/s"] / bare)
            text = f"{workload}: {row['steps/s']:,.0f} and {bare:,.0f} steps/s"
            print(text, file=sys.stderr, flush=True)
        rows.append(
            {
                "workload": workload,
                "seeds": seeds,
                "study steps/s": statistics.median(rates),
                "of throughput.py": statistics.median(ratios),
                "least": min(ratios),
                "most": max(ratios),
            }
        )
    return rows


def kill(folder: Path) -> list[dict[str, Any]]:
    """A long study, killed after a while and resumed."""
    out = folder / "kill"
    plan = {
        "name": "kill",
        "seeds": 8,
        "base": {"preset": "mountain-car/toptal", "total_steps": 1_600_000, "eval_period": 0},
    }
    command = [sys.executable, __file__, "--child", "train", str(out), json.dumps(plan)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    time.sleep(60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = json.loads((out / "progress.json").read_text())
    records = sorted((out / "checkpoints").glob("*.json"))
    kept = sum(json.loads(path.read_text())["step"] * 4 for path in records)
    finished = len(list((out / "chunks").glob("*.json"))) * 4 * 1_600_000
    lost = killed["steps"] - kept - finished
    row = _in_process("resume", out, plan)
    return [
        {
            "study": "8 x mountain-car/toptal x 1,600,000 steps, killed after 60 s",
            "lost s": lost / killed["steps_per_second"],
            "wall s of the rest": row["wall s"],
            "checkpoints, share of the time": row["checkpoint s"] / row["wall s"],
        }
    ]


def gravity(folder: Path) -> list[dict[str, Any]]:
    """As many runs with a traced gravity and with the environment's own, three times in turn."""
    base = {"preset": "cartpole/one-step", "total_steps": 40_000, "eval_period": 0}
    plain = {"name": "plain", "seeds": 192, "base": base}
    grid = {"name": "grid", "seeds": 64, "base": base, "grid": {"env": {"gravity": GRAVITIES}}}
    ratios, rates, segments = [], [], []
    for turn in range(3):
        without = _in_process("train", folder / f"plain-{turn}", plain)["steps/s"]
        row = _in_process("train", folder / f"grid-{turn}", grid)
        rates.append(row["steps/s"])
        ratios.append(row["steps/s"] / without)
        segments.append(row["segments compiled"])
        text = f"gravity: {row['steps/s']:,.0f} and {without:,.0f} steps/s"
        print(text, file=sys.stderr, flush=True)
    return [
        {
            "study": f"{len(GRAVITIES)} gravities x 64 seeds of cartpole x 40,000 steps",
            "steps/s": statistics.median(rates),
            "of the plain preset": statistics.median(ratios),
            "least": min(ratios),
            "most": max(ratios),
            "segments compiled": max(segments),
        }
    ]


def load(folder: Path) -> list[dict[str, Any]]:
    """Opening a study of 2,000 runs with 100 rows of metrics."""
    plan = {
        "name": "load",
        "seeds": 2000,
        "base": {
            "preset": "cartpole/one-step",
            "hidden_sizes": [8],
            "total_steps": 3_200,
            "learning_starts": 32,
            "log_period": 32,
            "eval_period": 0,
            "batch_size": 8,
        },
    }
    _in_process("train", folder / "load", plan)
    return [{"study": "2,000 runs x 100 rows", **_in_process("load", folder / "load", plan)}]


def _throughput(workload: str, seeds: int, steps: int) -> float:
    script = Path(__file__).with_name("throughput.py")
    command = [sys.executable, str(script), "--one", "--workloads", workload]
    command += ["--seeds", str(seeds), "--repeats", "1", "--steps", str(steps)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])["row"]["steps/s"]


def _in_process(what: str, out: Path, plan: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", what, str(out), json.dumps(plan)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _child(what: str, out: str, plan: str) -> None:
    """Runs in a process of its own and prints one line of JSON."""
    import dqx

    started = time.perf_counter()
    if what == "load":
        study = dqx.study.load(out)
        opened = time.perf_counter()
        rows = len(study.metrics)
        framed = time.perf_counter()
        shape = study.to_arrays("loss").shape
        row = {
            "rows": rows,
            "array": str(shape),
            "open s": opened - started,
            "metrics s": framed - opened,
            "array s": time.perf_counter() - framed,
            "total s": time.perf_counter() - started,
        }
    else:
        train = dqx.study.resume if what == "resume" else dqx.study.run
        given = {} if what == "resume" else {"out": out}
        study = train(out if what == "resume" else json.loads(plan), **given)
        row = {
            "wall s": time.perf_counter() - started,
            "steps/s": study.manifest["steps_per_second"],
            "compile s": study.manifest["compile_seconds"],
            "checkpoint s": study.manifest["checkpoint_seconds"],
            "segments compiled": study.manifest["compiled"].count("segment"),
            "peak memory MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "disk MiB": sum(p.stat().st_size for p in Path(out).rglob("*") if p.is_file()) / 2**20,
        }
    print(json.dumps(row))


def main() -> None:
    """Runs what is asked for and prints a table each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = {"many": many, "speed": speed, "kill": kill, "gravity": gravity, "load": load}
    parser.add_argument("--only", choices=parts, help="one of them (default: all)")
    parser.add_argument("--json", help="write rows and manifest to this file")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        _child(*args.child)
        return

    from common import manifest, print_table, write_json

    from dqx.compute.devices import select_devices

    record = manifest(select_devices())
    results: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="study-", dir=os.environ.get("TMPDIR")))
    try:
        for name in [args.only] if args.only else parts:
            results[name] = parts[name](folder)
            print(f"\n{name}")
            print_table(results[name])
    finally:
        shutil.rmtree(folder)
    write_json(args.json, {"results": results, "manifest": record})


if __name__ == "__main__":
    main()
