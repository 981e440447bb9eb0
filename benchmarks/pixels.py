"""Learning from pixels: gradient of a convolutional network, and steps a second of the whole loop.

    python benchmarks/pixels.py                   # both tables
    python benchmarks/pixels.py --seeds 4 --json pixels.json

The first table times the gradient of the wall-dodge article's network (nature_cnn, dense 100) on a
batch of 32 uint8 frames of 40 x 40, for seeds side by side on one core: ``blocks`` as agents
compute it, ``at once`` the same without taking seeds one after another, and ``plain``, XLA's
convolution. The forms take turns, so that a busy machine slows all of them; ratios are medians over
the turns. The second table times the training loop, a thread and a chunk in every place, an update
of batch 32 every four environment steps, compile time apart.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import dqx

BATCH, SIDE, ACTIONS = 32, 40, 2
HIDDEN = (100,)
FORMS = ("blocks", "at once", "plain")
LOOPS = {
    "WallDodge-v0": dqx.Config(network="nature_cnn", hidden_sizes=HIDDEN),
    "Breakout-MinAtar": dqx.Config(network="minatar_cnn", hidden_sizes=(128,)),
}


def gradients(num_seeds: int, repeats: int) -> dict[str, Any]:
    """One row of the first table, and all times."""
    import jax

    runs = {form: _compiled(form, num_seeds) for form in FORMS}
    seconds: dict[str, list[float]] = {form: [] for form in FORMS}
    for form in FORMS:
        jax.block_until_ready(runs[form]())
    for _ in range(repeats):
        for form in FORMS:
            started = time.perf_counter()
            jax.block_until_ready(runs[form]())
            seconds[form].append(time.perf_counter() - started)
    row: dict[str, Any] = {"seeds": num_seeds}
    for form, times in seconds.items():
        row[f"{form} best ms"] = 1e3 * min(times) / num_seeds
        row[f"{form} median ms"] = 1e3 * statistics.median(times) / num_seeds
    for form in FORMS[1:]:
        pairs = zip(seconds[form], seconds["blocks"], strict=True)
        row[f"{form} / blocks"] = statistics.median(a / b for a, b in pairs)
    return {"row": row, "seconds": seconds}


def _compiled(form: str, num_seeds: int) -> Callable[[], Any]:
    """The gradient of every seed, as a function of nothing."""
    import jax
    import jax.numpy as jnp

    from dqx.core.convolution import TORSOS, seed_by_seed
    from dqx.core.networks import ConvNet

    network = ConvNet(
        ACTIONS, HIDDEN, TORSOS["nature_cnn"], form="plain" if form == "plain" else "blocks"
    )

    def loss(params: Any, obs: Any, targets: Any) -> Any:
        return jnp.mean(jnp.square(network.apply(params, obs) - targets))

    gradient = jax.grad(loss)
    keys = jax.random.split(jax.random.key(0), num_seeds)
    obs = jax.random.randint(keys[0], (num_seeds, BATCH, SIDE, SIDE, 1), 0, 256).astype(jnp.uint8)
    targets = jax.random.normal(keys[0], (num_seeds, BATCH, ACTIONS))
    params = jax.vmap(lambda key: network.init(key, obs[0, :1]))(keys)
    arguments = (params, obs, targets)
    chunk = jax.jit(jax.vmap(seed_by_seed(gradient) if form == "blocks" else gradient))
    # As `Programs` compiles segments: one thread, whole vectors.
    options: dict[str, Any] = {}
    if jax.default_backend() == "cpu":
        options = {"xla_cpu_multi_thread_eigen": False, "xla_cpu_prefer_vector_width": 512}
    program = chunk.lower(*arguments).compile(compiler_options=options)
    return lambda: program(*arguments)


def loop(env_name: str, form: str, num_seeds: int, repeats: int, devices: str | None) -> dict:
    """One row of the second table, and all rates."""
    from common import SideBySide, median_and_spread

    from dqx.compute.devices import select_devices
    from dqx.compute.programs import chunk_width
    from dqx.settings import to_record

    available = select_devices(devices)
    config = dataclasses.replace(
        LOOPS[env_name], env=env_name, convolution=form, train_period=4, batch_size=BATCH,
        replay_capacity=10_000, learning_starts=2_000, log_period=1_000, target_period=1_000,
        total_steps=100_000,
    )  # fmt: skip
    width = min(num_seeds, chunk_width(config, available[0].platform))
    config = dataclasses.replace(config, chunk_width=width)
    hyper = dqx.Hyper(learning_rate=1e-4)
    dqx.validate(config, hyper)
    used = available[: -(-num_seeds // width)]
    side_by_side = SideBySide(config, hyper, used)
    side_by_side.start(0, len(used))
    seeds = width * len(used)
    times = [side_by_side.seconds(1) for _ in range(repeats + 1)][1:]  # the first warms caches
    rates = [seeds * config.log_period / seconds for seconds in times]
    rate, spread = median_and_spread(rates)
    row = {
        "environment": env_name,
        "form": form,
        "seeds": seeds,
        "devices": len(used),
        "steps/s": int(rate),
        "best": int(max(rates)),
        "spread": f"{100 * spread:.0f}%",
        "compile s": side_by_side.compile_seconds,
    }
    return {"row": row, "rates": rates, **to_record(config, hyper)}


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="1,4,16,32", help="seeds of the first table, by commas")
    parser.add_argument("--envs", default=",".join(LOOPS), help="of the second table, by commas")
    parser.add_argument("--loop-seeds", type=int, default=8, help="seeds of the second table")
    parser.add_argument("--repeats", type=int, default=20, help="timed repetitions")
    parser.add_argument("--devices", help="of the second table, as of dqx train")
    parser.add_argument("--json", help="write rows and manifest to this file")
    args = parser.parse_args()

    from common import manifest, print_table, write_json

    from dqx.compute.devices import select_devices

    record = manifest(select_devices(args.devices))
    found = [gradients(int(seeds), args.repeats) for seeds in args.seeds.split(",")]
    print_table([result["row"] for result in found])
    repeats = max(3, args.repeats // 4)
    loops = [
        loop(env, form, args.loop_seeds, repeats, args.devices)
        for env in filter(None, args.envs.split(","))
        for form in ("blocks", "plain")
    ]
    if loops:
        print_table([result["row"] for result in loops])
    write_json(args.json, {"gradients": found, "loops": loops, "manifest": record})


if __name__ == "__main__":
    main()
