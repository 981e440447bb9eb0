"""Shared by the benchmarks: the machine's matrix-multiply peak, the manifest, and the table."""

import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import psutil

import dqx


def matmul_peak(devices: list[jax.Device], size: int = 2048, repeats: int = 8) -> float:
    """Float32 matrix-multiply rate in FLOP/s over ``devices`` together, the median of ``repeats``.

    On a CPU one product uses the threads of all cores, so it is measured once, on the first
    device; on accelerators one device is measured and counted as often as there are devices.
    """
    x = jax.device_put(jnp.ones((size, size), jnp.float32), devices[0])
    product = jax.jit(lambda a: a @ a)
    product(x).block_until_ready()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        product(x).block_until_ready()
        seconds.append(time.perf_counter() - started)
    rate = 2 * size**3 / statistics.median(seconds)
    return rate if devices[0].platform == "cpu" else rate * len(devices)


def update_flops(config: dqx.Config, obs_size: int, num_actions: int) -> float:
    """Floating-point operations of the matrix products of one environment step of training.

    Acting: one forward pass a step. An update: a forward pass of the online and of the target
    network (two of the online one for Double DQN), and a backward pass for weights and, above the
    first layer, inputs.
    """
    sizes = (obs_size, *config.hidden_sizes, num_actions)
    layers = [2 * a * b for a, b in zip(sizes, sizes[1:], strict=False)]
    forward, backward = sum(layers), sum(layers) + sum(layers[1:])
    passes = (3 if config.double else 2) * forward + backward
    updates_a_step = config.updates_per_train / config.train_period
    return forward + updates_a_step * config.batch_size * passes


def manifest(devices: list[jax.Device]) -> dict[str, Any]:
    """What a figure depends on besides the code."""
    return {
        "dqx": dqx.__version__,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "device": f"{len(devices)} x {devices[0].platform}: {devices[0].device_kind}",
        "processor": _processor(),
        "cores": psutil.cpu_count(),
        "load_before": psutil.getloadavg()[0],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def median_and_spread(values: list[float]) -> tuple[float, float]:
    """The median, and half the distance from least to greatest as a share of it."""
    middle = statistics.median(values)
    return middle, (max(values) - min(values)) / 2 / middle


def print_table(rows: list[dict[str, Any]]) -> None:
    """Prints rows of equal keys as aligned columns, numbers to the right."""
    texts = [{k: f"{v:,.3g}" if isinstance(v, float) else f"{v:,}" if isinstance(v, int) else str(v)
              for k, v in row.items()} for row in rows]  # fmt: skip
    widths = {k: max(len(k), *(len(t[k]) for t in texts)) for k in rows[0]}
    print("  ".join(k.rjust(w) for k, w in widths.items()))
    for text in texts:
        print("  ".join(text[k].rjust(w) for k, w in widths.items()), flush=True)


def write_json(path: str | None, content: dict[str, Any]) -> None:
    """Writes a result file, whole or not at all; does nothing without a path."""
    if path is None:
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(target.name + ".part")
    beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    beside.replace(target)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "")
