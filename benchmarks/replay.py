"""What each form of the replay takes: bytes a transition, and time a step beside the plain one.

    python benchmarks/replay.py --json benchmarks/results/replay.json

Each workload is a preset, trained by a chunk on one core with a replay that counts as full. Forms
take turns; a turn's processor time, of all threads, is related to that of the plain form beside it,
so that other work on the machine weighs little. Ratios are medians over the turns, compile time
apart.
"""

import argparse
import dataclasses
import statistics
import time
from typing import Any

# A preset, and the capacity that fits beside the other forms' replays.
WORKLOADS = {
    "cartpole/cleanrl": 10_000,
    "wall-dodge": 50_000,
    "breakout": 20_000,
    "taxi": 50_000,
}
FORMS = ("plain", "sketch", "once")


class Turns:
    """A chunk of a preset past its warm-up, which goes on a segment at a time."""

    def __init__(self, preset: str, form: str, capacity: int, steps: int) -> None:
        import jax
        import jax.numpy as jnp
        import numpy as np

        import dqx
        from dqx.compute.devices import select_devices
        from dqx.compute.footprint import state_of
        from dqx.compute.programs import Programs, chunk_width
        from dqx.settings import complete, environments, rounded

        config, hyper = dqx.override(
            *dqx.preset(preset), replay=form, replay_capacity=capacity, log_period=steps
        )
        config, hyper = environments.resolved(config, hyper)
        width = chunk_width(config, "cpu")
        config, _ = rounded(dataclasses.replace(config, chunk_width=width))
        (place,) = select_devices("cpu:1")
        self.env = dqx.environment_of(config)
        self.programs, self.steps = Programs(config, self.env, place, 0), config.log_period
        need = state_of(self.programs, config)
        self.bytes = need.replay / (width * config.replay_capacity)
        self.hypers = self.programs.place(
            jax.tree.map(lambda x: np.full(width, x, np.float32), complete(config, hyper))
        )
        clock, lanes = self.programs.init(np.arange(width), self.hypers)
        clock, self.lanes, _ = self.programs.warm_up(
            clock, lanes, self.programs.config.num_envs * 400
        )
        # As if filled long ago: samples come from everywhere.
        full = jnp.full_like(clock.size, capacity)
        self.clock = clock.replace(size=full, step=clock.step + capacity)
        self.seconds()  # compiles, and warms the caches

    def seconds(self) -> float:
        """Processor time of a segment."""
        import jax

        begun = time.process_time()
        self.clock, self.lanes, *_ = self.programs.segment(
            self.clock, self.lanes, self.hypers, self.steps
        )
        jax.block_until_ready(self.lanes)
        return time.process_time() - begun


def measure(preset: str, repeats: int, steps: int) -> list[dict[str, Any]]:
    """A row for each form that the preset's environment has."""
    runs = {}
    for form in FORMS:
        if form != "sketch" or runs["plain"].env.sketch is not None:
            runs[form] = Turns(preset, form, WORKLOADS[preset], steps)
    seconds: dict[str, list[float]] = {form: [] for form in runs}
    for _ in range(repeats):
        for form, run in runs.items():
            seconds[form].append(run.seconds())
    rows = []
    for form, run in runs.items():
        ratios = [a / b for a, b in zip(seconds[form], seconds["plain"], strict=True)]
        rows.append(
            {
                "workload": preset,
                "environment": run.env.name,
                "form": form,
                "bytes a transition": round(run.bytes, 1),
                "time a step": round(statistics.median(ratios), 3),
                "least": round(min(ratios), 3),
                "most": round(max(ratios), 3),
                "us a step": round(min(seconds[form]) / run.steps * 1e6, 1),
            }
        )
    return rows


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="presets, by commas")
    parser.add_argument("--repeats", type=int, default=9, help="turns of every form")
    parser.add_argument("--steps", type=int, default=2_000, help="environment steps of a turn")
    parser.add_argument("--json", help="write rows and manifest to this file")
    args = parser.parse_args()

    from common import manifest, print_table, write_json

    from dqx.compute.devices import select_devices

    record = manifest(select_devices("cpu:1"))
    rows = []
    for preset in args.workloads.split(","):
        rows += measure(preset, args.repeats, args.steps)
    print_table(rows)
    write_json(args.json, {"rows": rows, "manifest": record})


if __name__ == "__main__":
    main()
