"""What the presets reach: greedy return over many seeds, with intervals, and the time it took.

    python benchmarks/learning.py                             # every preset of the README's table
    python benchmarks/learning.py --presets cartpole --seeds 64 --json learning.json

The return is that of the final greedy evaluation, on environments and keys of its own; the interval
is a 95 % bootstrap interval over seeds. A preset with a bar (below) fails the run if it misses it.
"""

import argparse
import dataclasses
import sys
import time

from common import manifest, print_table, write_json

import dqx
from dqx import stats
from dqx.devices import select_devices

# Preset: least interquartile mean, least lower end of its interval (None: no bar).
BARS: dict[str, tuple[float | None, float | None]] = {
    "cartpole": (475.0, 450.0),
    "cartpole/cleanrl": (490.0, None),
    "mountain-car": (-115.0, None),
    "mountain-car/toptal": (None, None),
}


def main() -> int:
    """Trains the presets one after the other and compares them with their bars."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", default=",".join(BARS), help="by commas")
    parser.add_argument("--seeds", type=int, default=32)
    parser.add_argument("--devices", help="as of dqx train, such as cpu:2 or gpu")
    parser.add_argument("--json", help="write rows and manifest to this file")
    args = parser.parse_args()
    devices = select_devices(args.devices)
    record = manifest(list(devices))
    rows, raw, failed = [], {}, []
    for name in args.presets.split(","):
        config, hyper = dqx.preset(name)
        started = time.perf_counter()
        result = dqx.train(config, hyper, seeds=args.seeds, devices=devices)
        final = result.metrics["eval_return"][:, -1]
        summary = stats.summarize(final)
        least, least_low = BARS.get(name, (None, None))
        # Written so that a NaN, as of one seed's interval, does not meet a bar.
        meets_iqm = least is None or summary.iqm >= least
        meets_low = least_low is None or summary.low >= least_low
        if not (meets_iqm and meets_low):
            failed.append(name)
        row = {
            "preset": name,
            "seeds": summary.n,
            "steps": config.total_steps,
            "IQM": f"{summary.iqm:.1f}",
            "95 % interval": f"{summary.low:.1f} to {summary.high:.1f}",
            "mean": f"{summary.mean:.1f}",
            "min": f"{summary.min:.1f}",
            "max": f"{summary.max:.1f}",
            "bar": "none" if least is None else "missed" if name in failed else "met",
            "compile s": f"{result.compile_seconds:.1f}",
            "run s": f"{result.run_seconds:.1f}",
            "wall s": f"{time.perf_counter() - started:.1f}",
        }
        rows.append(row)
        raw[name] = {
            "config": dataclasses.asdict(result.config),
            "hyper": {k: str(v) for k, v in dataclasses.asdict(result.hyper).items()},
            "seeds": result.seeds.tolist(),
            "final_return": final.tolist(),
        }
        print(f"{name}: IQM {row['IQM']} ({row['95 % interval']})", file=sys.stderr, flush=True)
    print_table(rows)
    write_json(args.json, {"rows": rows, "raw": raw, "manifest": record})
    if failed:
        print(f"below the bar: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
