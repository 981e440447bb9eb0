"""Whether the presets learn as well as they have to: greedy return over many seeds, against bars.

    python benchmarks/learning.py                             # every preset with a bar
    python benchmarks/learning.py --presets cartpole --seeds 64 --json learning.json

The return is that of the final greedy evaluation, on environments and keys of its own, or over all
starts where the preset measures exact metrics; the interval is a 95 % bootstrap interval over
seeds. A preset that misses its bar fails the run. scripts/reproduce_articles.py trains all presets.
"""

import argparse
import dataclasses
import sys
import time
from typing import NamedTuple

from common import manifest, print_table, write_json

import dqx
from dqx import stats
from dqx.devices import select_devices


class Bar(NamedTuple):
    """What a preset has to reach on so many seeds."""

    seeds: int = 32
    iqm: float | None = None
    low: float | None = None  # lower end of its interval


BARS = {
    "cartpole": Bar(32, 475.0, 450.0),
    "cartpole/cleanrl": Bar(32, 490.0),
    "mountain-car": Bar(32, -115.0),
    "taxi": Bar(32, 7.8),
    "taxi/tabular": Bar(32, 7.9),
    "wall-dodge": Bar(16, 48.0),
    "wall-dodge-80": Bar(8, 36.0),
}


def main() -> int:
    """Trains the presets one after the other and compares them with their bars."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", default=",".join(BARS), help="by commas")
    parser.add_argument("--seeds", type=int, help="of every preset (default: as the bar asks)")
    parser.add_argument("--devices", help="as of dqx train, such as cpu:2 or gpu")
    parser.add_argument("--json", help="write rows and manifest to this file")
    args = parser.parse_args()
    devices = select_devices(args.devices)
    record = manifest(list(devices))
    rows, raw, failed = [], {}, []
    for name in args.presets.split(","):
        config, hyper = dqx.preset(name)
        started = time.perf_counter()
        bar = BARS.get(name, Bar())
        result = dqx.train(config, hyper, seeds=args.seeds or bar.seeds, devices=devices)
        final = result.metrics["exact_return" if config.exact_metrics else "eval_return"][:, -1]
        summary = stats.summarize(final)
        # Written so that a NaN, as of one seed's interval, does not meet a bar.
        meets_iqm = bar.iqm is None or summary.iqm >= bar.iqm
        meets_low = bar.low is None or summary.low >= bar.low
        if not (meets_iqm and meets_low):
            failed.append(name)
        row = {
            "preset": name,
            "seeds": summary.n,
            "steps": config.total_steps,
            "IQM": f"{summary.iqm:.2f}",
            "95 % interval": f"{summary.low:.2f} to {summary.high:.2f}",
            "mean": f"{summary.mean:.1f}",
            "min": f"{summary.min:.1f}",
            "max": f"{summary.max:.1f}",
            "bar": "none" if bar.iqm is None else "missed" if name in failed else "met",
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
