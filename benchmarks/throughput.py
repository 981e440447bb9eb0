"""Environment steps a second of the whole training loop, compile time apart.

    python benchmarks/throughput.py                      # every workload at 1, 8, 32 and 128 seeds
    python benchmarks/throughput.py --seeds 512 --workloads cartpole/cleanrl
    python benchmarks/throughput.py --widths 1,2,4,8,16  # chunk widths side by side at 32 seeds
    python benchmarks/throughput.py --seeds 192 --set env.gravity=12  # beside the preset as it is

Every row runs in a process of its own, so that its peak memory is its own. Chunks run as in
training, in as many threads as there are places. Steps are counted for the seeds asked for, padding
left out, summed over them; a row is the median of several repetitions, each of every chunk. ``of
peak`` divides the arithmetic of the network's matrix products by the matrix-multiply peak, measured
between the repetitions (the median again).
"""

import argparse
import dataclasses
import itertools
import json
import resource
import subprocess
import sys
from typing import Any

WORKLOADS = ("cartpole/cleanrl", "mountain-car/toptal")


def measure(
    workload: str,
    num_seeds: int,
    width: int | None,
    repeats: int,
    devices: str | None,
    timed_steps: int | None = None,
    changes: str = "",
) -> dict:
    """One row of the table."""
    import numpy as np
    from common import SideBySide, manifest, matmul_peak, median_and_spread, update_flops

    import dqx
    from dqx.compute.devices import select_devices
    from dqx.compute.programs import chunk_width
    from dqx.settings import complete, environments, parse_assignments, rounded, to_record

    fields = parse_assignments(changes.split())
    config, hyper = dqx.override(*dqx.preset(workload), **fields)
    config, hyper = environments.resolved(config, hyper)
    hyper = complete(config, hyper)
    available = select_devices(devices)
    record = manifest(available)
    platform = available[0].platform
    if width is None:
        width = 1 if num_seeds == 1 and platform == "cpu" else chunk_width(config, platform)
    config, _ = rounded(dataclasses.replace(config, chunk_width=width))
    chunks = -(-num_seeds // width)
    used = available[:chunks]
    side_by_side = SideBySide(config, hyper, used)
    steps = config.log_period  # segments of the length that training uses

    def all_chunks(segments: int) -> float:
        """Seconds that the segments take, for as many chunks at a time as there are places."""
        seconds = 0.0
        for first in range(0, chunks, len(used)):
            side_by_side.start(first * width, min(len(used), chunks - first))
            seconds += side_by_side.seconds(segments)
        return seconds

    all_chunks(1)
    segments = max(1, round(1.5 / all_chunks(1)))
    if timed_steps is not None:
        segments = max(1, timed_steps // steps)
    peaks, rates = [matmul_peak(available)], []
    for _ in range(repeats):
        rates.append(num_seeds * steps * segments / all_chunks(segments))
        peaks.append(matmul_peak(available))
    rate, spread = median_and_spread(rates)
    peak, _ = median_and_spread(peaks)
    env = dqx.environment_of(config)
    obs_size = env.num_categories or int(np.prod(env.obs_shape))
    flops = update_flops(config, obs_size, env.num_actions)
    row = {
        "workload": f"{workload} {changes}".strip(),
        "seeds": num_seeds,
        "width": width,
        "devices": len(used),
        "steps/s": int(rate),
        "spread": f"{100 * spread:.0f}%",
        "us a step and seed": 1e6 / rate,
        "memory MiB": _peak_memory(used),
        "peak GFLOP/s": int(peak / 1e9),
        "of peak": rate * flops / peak,
        "compile s": side_by_side.compile_seconds,
    }
    settings = to_record(config, hyper)
    return {"row": row, "rates": rates, "peaks": peaks, "manifest": record, **settings}


def _peak_memory(devices: Any) -> int:
    """Peak memory in MiB: of the process on a CPU, of the device elsewhere."""
    if devices[0].platform == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return devices[0].memory_stats()["peak_bytes_in_use"] // 2**20


def main() -> None:
    """Runs the rows asked for, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="presets, by commas")
    parser.add_argument("--seeds", default="1,8,32,128", help="numbers of seeds, by commas")
    parser.add_argument("--widths", help="chunk widths by commas, at 32 seeds unless --seeds says")
    parser.add_argument("--set", action="append", default=[], metavar="'FIELD=VALUE ...'",
                        help="a row more with these fields changed; repeatable")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=5, help="timed repetitions a row")
    parser.add_argument("--steps", type=int, help="of a seed a repetition (default: 1.5 s in all)")
    parser.add_argument("--devices", help="as of dqx train, such as cpu:2 or gpu")
    parser.add_argument("--json", help="write rows and manifest to this file")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    seeds = [int(s) for s in args.seeds.split(",")]
    widths: list[int | None] = [None]
    if args.widths:
        widths = [int(w) for w in args.widths.split(",")]
        seeds = [32] if args.seeds == parser.get_default("seeds") else seeds
    if args.one:
        given = (args.workloads, seeds[0], widths[0], args.repeats, args.devices, args.steps)
        print(json.dumps(measure(*given, *args.set)))
        return

    from common import print_table, write_json

    results = []
    for workload in args.workloads.split(","):
        for num_seeds in seeds:
            for width, changes in itertools.product(widths, ["", *args.set]):
                command = [sys.executable, __file__, "--one", "--workloads", workload]
                command += ["--seeds", str(num_seeds), "--repeats", str(args.repeats)]
                command += ["--widths", str(width)] if width else []
                command += ["--devices", args.devices] if args.devices else []
                command += ["--steps", str(args.steps)] if args.steps else []
                command += ["--set", changes] if changes else []
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                results.append(json.loads(done.stdout.splitlines()[-1]))
                print(f"{workload} {num_seeds} seeds: {results[-1]['row']['steps/s']:,} steps/s",
                      file=sys.stderr, flush=True)  # fmt: skip
    print_table([result["row"] for result in results])
    write_json(args.json, {"results": results})


if __name__ == "__main__":
    main()
