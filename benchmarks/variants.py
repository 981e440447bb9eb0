"""What a step of each variant costs, relative to plain DQN with the same settings.

    python benchmarks/variants.py
    python benchmarks/variants.py --variants dueling,c51 --json benchmarks/results/variants.json

A variant is a preset with ``base = "cartpole/one-step"``: its method is laid over ``--preset``,
so that a new one is measured without a line here; ``MORE`` are those that no such preset sets.
Variants take turns in one process, with a chunk in every place as training runs them (the 32 seeds
of a preset are as many chunks after one another), and each turn is related to the plain one's
beside it. What is compared is the time of processors, which other work on the machine moves less
than the time that passes; ratios are medians over the turns, compile time apart.
"""

import argparse
import dataclasses
import statistics
import time
from typing import Any

# The most that a step may cost, relative to plain DQN.
AIMS = {"double": 1.15, "dueling": 1.15, "n-step": 1.05, "noisy": 1.4, "per": 1.35, "c51": 2.2,
        "qr": 2.5, "munchausen": 1.3}  # fmt: skip
MORE: dict[str, dict[str, Any]] = {
    "double": {"double": True},
    "per": {"sampling": "prioritized"},
    "ranked": {"sampling": "ranked"},
}


def variants() -> dict[str, dict[str, Any]]:
    """The fields that each variant sets, by its name; ``plain`` sets none."""
    from dqx.settings import preset_about, preset_names, presets

    found: dict[str, dict[str, Any]] = {"plain": {}, **MORE}
    for name in preset_names():
        if preset_about(name).base == "cartpole/one-step":
            found[name.removeprefix("cartpole/")] = presets.method_fields(name)
    return found


def prepared(preset: str, fields: dict[str, Any], devices: str | None) -> Any:
    """Chunks of a variant past their warm-up, one in every place."""
    from common import SideBySide

    import dqx
    from dqx.compute.devices import select_devices
    from dqx.compute.programs import chunk_width
    from dqx.settings import complete, environments, rounded

    config, hyper = dqx.override(*dqx.preset(preset), **fields)
    dqx.validate(config, hyper)
    config, hyper = environments.resolved(config, hyper)
    places = select_devices(devices)
    width = chunk_width(config, places[0].platform)
    config, _ = rounded(dataclasses.replace(config, chunk_width=width))
    side_by_side = SideBySide(config, complete(config, hyper), places)
    side_by_side.start(0, len(places))
    return side_by_side


def measure(preset: str, names: list[str], repeats: int, devices: str | None) -> list[dict]:
    """A row for each variant, with its times."""
    chosen = variants()
    runs = {name: prepared(preset, chosen[name], devices) for name in names}
    for run in runs.values():
        run.seconds(1)  # compiles, and warms the caches
    segments = max(1, round(1.0 / runs["plain"].seconds(1)))
    seconds: dict[str, list[float]] = {name: [] for name in names}
    passed: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            before = time.process_time()
            passed[name].append(runs[name].seconds(segments))
            seconds[name].append(time.process_time() - before)
    rows = []
    for name in names:
        pairs = zip(seconds[name], seconds["plain"], strict=True)
        ratios = [mine / plain for mine, plain in pairs]
        run = runs[name]
        steps = segments * run.config.log_period * run.lanes * len(run.places)
        row = {
            "variant": name,
            "steps/s": int(steps / statistics.median(passed[name])),
            "core us a step": 1e6 * statistics.median(seconds[name]) / steps,
            "ratio": statistics.median(ratios),
            "least": min(ratios),
            "aim": AIMS.get(name, "none") if name != "plain" else 1.0,
            "compile s": run.compile_seconds,
        }
        times = {"core seconds": seconds[name], "seconds passed": passed[name]}
        rows.append({"row": row, **times, "fields": chosen[name]})
    return rows


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="cartpole/cleanrl", help="what variants are laid over")
    parser.add_argument("--variants", help="by commas (default: all)")
    parser.add_argument("--repeats", type=int, default=7, help="turns of every variant")
    parser.add_argument("--devices", help="as of dqx train, such as cpu:2")
    parser.add_argument("--json", help="write rows and manifest to this file")
    args = parser.parse_args()

    from common import manifest, print_table, write_json

    from dqx.compute.devices import select_devices

    record = manifest(select_devices(args.devices))
    names = args.variants.split(",") if args.variants else list(variants())
    names = ["plain", *(name for name in names if name != "plain")]
    rows = measure(args.preset, names, args.repeats, args.devices)
    print_table([row["row"] for row in rows])
    write_json(args.json, {"preset": args.preset, "variants": rows, "manifest": record})


if __name__ == "__main__":
    main()
