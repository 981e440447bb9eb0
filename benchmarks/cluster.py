"""What a cluster costs beside the training: speed, chunks and messages a second, memory.

    python benchmarks/cluster.py               # everything, about ten minutes on 2 idle cores
    python benchmarks/cluster.py --only empty

``speed``: steps/s of two Ray nodes of one core over those of two cores of one process, on chunks
of about a minute, compile time apart, in turn.
``empty``: chunks a second through the driver, all of them written, from two workers that make
results up at once.
``memory``: resident memory of the driver over 5,000 such chunks.
``messages``: what each message costs the driver, and what 1,000 workers would ask of it.

Needs the extra ``cluster``. Every row tells how busy the machine was with other things.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

WORKLOAD = {"preset": "mountain-car/toptal", "eval_period": 0}
SMALL = {
    "preset": "mountain-car/toptal",
    "total_steps": 2_000,
    "learning_starts": 1_000,
    "log_period": 1_000,
    "eval_period": 0,
    "chunk_width": 4,
}


def made_up_worker() -> type:
    """A worker that makes results up: no training, the same messages."""
    from dqx.study.executors.worker import Worker, result_message

    class MadeUp(Worker):
        def _prepared(self, plan: Any, point: int) -> tuple[Any, ...]:
            self._plan = plan
            return ("prepared", 1, 1, [])

        def train(self, order: Any, state: Any) -> Any:
            yield [("began", 0), ("result", self._made(len(order["seeds"]), order["seeds"]))]

        def rows(self, count: int) -> Any:
            row = {f"metric_{i}": np.zeros(4, np.float32) for i in range(20)}
            for step in range(count):
                yield [("row", step, row)]

        def states(self, count: int, size: int) -> Any:
            for step in range(count):
                yield [("state", step, {"replay": np.zeros(size, np.uint8)})]

        def _made(self, width: int, seeds: list[int]) -> dict[str, Any]:
            from dqx.compute.rows import EPISODE_METRICS, EVAL_METRICS
            from dqx.compute.session import ChunkResult

            names = (*EPISODE_METRICS, "loss", "q_mean", *EVAL_METRICS)
            params = {"params": {"Dense_0": {"kernel": np.zeros((width, 32, 32), np.float32)}}}
            lanes = np.repeat(np.arange(width), 10)
            steps = np.tile(np.arange(1, 11) * 200, width)
            return result_message(
                ChunkResult(
                    seeds=np.array(seeds, np.int64),
                    steps=np.array([1_000, 2_000], np.int64),
                    metrics={name: np.ones((width, 2), np.float32) for name in names},
                    episodes=(lanes, steps, -steps.astype(np.float32), np.full(10 * width, 200)),
                    params=params,
                    diverged_at=np.full(width, -1, np.int64),
                )
            )

    return MadeUp


class Nodes:
    """A cluster of nodes of one core each, as processes of this machine."""

    def __init__(self, count: int) -> None:
        from ray.cluster_utils import Cluster

        from dqx.study.executors.cluster import quiet_forks

        head = {"num_cpus": 0, "object_store_memory": 300 * 2**20, "include_dashboard": False}
        with quiet_forks():
            self._cluster = Cluster(initialize_head=True, head_node_args=head)
            for _ in range(count):
                self._cluster.add_node(num_cpus=1, object_store_memory=300 * 2**20)
        self.address = self._cluster.address

    def __enter__(self) -> "Nodes":
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.shutdown()


def busy() -> float:
    """Cores that other processes keep busy, over three seconds."""
    return psutil.cpu_percent(3.0) / 100 * (psutil.cpu_count() or 1)


def speed(folder: Path, turns: int, steps: int) -> list[dict[str, Any]]:
    """Two nodes against two cores of one process."""
    from dqx import study

    seeds = 8  # two chunks of four
    plan = {"name": "s", "seeds": seeds, "base": {**WORKLOAD, "total_steps": steps}}
    rates: dict[str, list[float]] = {"here": [], "nodes": []}
    others = []
    for turn in range(turns):
        others.append(busy())
        found = study.run(plan, folder / f"here-{turn}", devices="cpu:2", sinks=[])
        rates["here"].append(found.manifest["steps_per_second"])
        with Nodes(2) as nodes:
            others.append(busy())
            executor = study.Ray(nodes.address)
            found = study.run(plan, folder / f"nodes-{turn}", executor=executor, sinks=[])
        rates["nodes"].append(found.manifest["steps_per_second"])
    ratios = [there / here for here, there in zip(rates["here"], rates["nodes"], strict=True)]
    return [
        {
            "seeds": seeds,
            "steps": steps,
            "steps/s here": round(statistics.median(rates["here"])),
            "steps/s nodes": round(statistics.median(rates["nodes"])),
            "ratio": round(statistics.median(ratios), 3),
            "ratios": [round(ratio, 3) for ratio in ratios],
            "cores busy with other things": [round(x, 2) for x in others],
        }
    ]


def empty(folder: Path, chunks: int) -> list[dict[str, Any]]:
    """Chunks a second through the driver, and its memory on the way."""
    from dqx import study
    from dqx.study.executors.cluster import Ray

    class Pretended(Ray):
        worker = made_up_worker()

    plan = {"name": "s", "seeds": 4 * chunks, "base": SMALL}
    process, moments, memory = psutil.Process(), [], []

    def progress(event: Any) -> None:
        if event.chunks_done >= len(moments) * (chunks // 10):
            moments.append(time.perf_counter())
            memory.append(process.memory_info().rss)

    with Nodes(2) as nodes:
        other = busy()
        executor = Pretended(nodes.address)
        study.run(plan, folder / f"empty-{chunks}", executor=executor, sinks=[], progress=progress)
    seconds = moments[9] - moments[1]
    return [
        {
            "chunks": chunks,
            "chunks/s": round(8 * (chunks // 10) / seconds, 1),
            "memory MiB at each tenth": [round(value / 2**20) for value in memory],
            "cores busy with other things": round(other, 2),
        }
    ]


def messages(folder: Path) -> list[dict[str, Any]]:
    """What each message costs the driver."""
    import ray

    rows = []
    with Nodes(1) as nodes:
        ray.init(address=nodes.address, logging_level="error", log_to_driver=False)
        worker = ray.remote(made_up_worker()).options(max_concurrency=2).remote("cpu", [], False)

        def timed(name: str, count: int, *arguments: Any) -> None:
            method = getattr(worker, name).options(num_returns="streaming")
            for _ in range(2):  # the second is told
                started, cpu = time.perf_counter(), time.process_time()
                for reference in method.remote(count, *arguments):
                    ray.get(reference)
                wall, own = time.perf_counter() - started, time.process_time() - cpu
            what = name if not arguments else f"{name} of {arguments[0] / 2**20:.0f} MiB"
            rows.append(
                {
                    "message": what,
                    "ms": round(1e3 * wall / count, 3),
                    "ms of the driver": round(1e3 * own / count, 3),
                }
            )

        timed("rows", 2_000)
        for size, count in ((2**20, 50), (16 * 2**20, 20), (128 * 2**20, 4)):
            timed("states", count, size)
        ray.shutdown()
    return rows


def main() -> None:
    """Prints the rows, and writes them with their manifest if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("speed", "empty", "memory", "messages"))
    parser.add_argument("--turns", type=int, default=2, help="of `speed`; default: 2")
    parser.add_argument(
        "--steps",
        type=int,
        default=1_200_000,
        help="of a seed in `speed`; default: 1,200,000, a minute a chunk on an idle core",
    )
    parser.add_argument("--json", type=Path, help="write what was measured")
    options = parser.parse_args()
    import jax
    from common import manifest

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measures = {
            "empty": lambda: empty(folder, 500),
            "memory": lambda: empty(folder, 5_000),
            "messages": lambda: messages(folder),
            "speed": lambda: speed(folder, options.turns, options.steps),
        }
        for what, measure in measures.items():
            if options.only in (None, what):
                found[what] = measure()
                for row in found[what]:
                    print(what, json.dumps(row), flush=True)
    if options.json is not None:
        from dqx.files import write_json

        write_json(options.json, {"manifest": manifest(jax.local_devices()[:1]), **found})


if __name__ == "__main__":
    main()
