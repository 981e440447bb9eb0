"""How long resampling takes: intervals of many seeds, bands over whole curves, plans.

    python benchmarks/resampling.py --json benchmarks/results/resampling.json

NumPy alone, no JAX; the matrix products use all cores, the rest one. Each figure is the median of
--repeats calls; CPU seconds are the mean of all threads together, and the load of the machine
before the first call is part of the result.
"""

import argparse
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dqx import stats
from dqx.files import write_json
from dqx.report.terminal import markdown


def cases() -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    rng = np.random.default_rng(0)
    curves = np.cumsum(rng.normal(size=(1000, 100)), axis=1)
    scores = rng.lognormal(size=(10, 50))
    left, right = rng.normal(0.3, 1, 64), rng.normal(0, 1, 64)
    return {
        "50,000 resamples of 1,000 seeds x 100 points": lambda: stats.interval(
            curves, resamples=50_000
        ),
        "band over whole curves, 1,000 resamples of 1,000 seeds x 100 points": lambda: (
            stats.simultaneous_band(curves)
        ),
        "2,000 stratified resamples of 10 seeds x 50 tasks": lambda: stats.get_interval_estimates(
            {"x": scores}, stats.aggregate_iqm
        ),
        "seeds needed from 64 seeds a side": lambda: stats.seeds_needed(left, right),
        "permutation test, 10,000 of 64 seeds a side": lambda: stats.permutation_test(left, right),
    }


def main() -> int:
    """Times every case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where the result goes")
    args = parser.parse_args()
    manifest = {
        "numpy": np.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    rows = []
    for name, call in cases().items():
        seconds, used = [], time.process_time()
        for _ in range(args.repeats):
            begun = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - begun)
        used = (time.process_time() - used) / args.repeats
        rows.append({"what": name, "seconds": round(statistics.median(seconds), 3),
                     "slowest": round(max(seconds), 3), "CPU s": round(used, 3)})  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("\n".join(markdown(rows)))
    print(f"peak memory {peak:,.0f} MiB, load before {manifest['load_before']:.1f}")
    if args.json:
        write_json(args.json, {"manifest": manifest, "peak_mib": round(peak), "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
