"""Shared by the benchmarks: chunks timed side by side, the machine's peak, manifest and table."""

import os
import platform
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jaxlib
import numpy as np
import psutil
from jax import numpy as jnp

import dqx
from dqx import files
from dqx.compute.programs import Programs
from dqx.report import terminal
from dqx.study.background import over_places


class SideBySide:
    """Chunks of a configuration, each in a place and a thread of its own, as training runs them.

    Args:
        config: validated and rounded, with its chunk width.
        hyper: of every seed.
        places: as of ``select_devices``.
    """

    def __init__(self, config: dqx.Config, hyper: dqx.Hyper, places: Sequence[jax.Device]) -> None:
        env = dqx.environment_of(config)
        self.config, self.places, self.lanes = config, tuple(places), config.chunk_width
        self.programs = {device: Programs(config, env, device, 0) for device in set(places)}
        self._hyper = jax.tree.map(lambda x: np.full(self.lanes, x, np.float32), hyper)
        self._states: list[Any] = []

    def start(self, first_seed: int, chunks: int) -> None:
        """Fresh lanes for so many chunks, at most as many as places, past their warm-up."""
        self._states = [None] * chunks

        def work(place: jax.Device, index: int) -> None:
            programs, first = self.programs[place], first_seed + index * self.lanes
            hypers = programs.place(self._hyper)
            clock, lanes = programs.init(np.arange(first, first + self.lanes), hypers)
            if self.config.learning_starts:
                clock, lanes, _ = programs.warm_up(clock, lanes, self.config.learning_starts)
            self._states[index] = clock, jax.block_until_ready(lanes), hypers

        self._each(work)

    def seconds(self, segments: int) -> float:
        """From the common start of the chunks to the end of the last after so many segments."""
        ready, times = threading.Barrier(len(self._states), timeout=600), []

        def work(place: jax.Device, index: int) -> None:
            programs, (clock, lanes, hypers) = self.programs[place], self._states[index]
            programs.program("segment", self.config.log_period)  # not compiled while timed
            ready.wait()
            begun = time.perf_counter()
            for _ in range(segments):
                clock, lanes, episodes, metrics = programs.segment(
                    clock, lanes, hypers, self.config.log_period
                )
                jax.block_until_ready((episodes, metrics))
            times.append((begun, time.perf_counter()))
            self._states[index] = clock, lanes, hypers

        self._each(work)
        return max(end for _, end in times) - min(begun for begun, _ in times)

    def state(self, index: int) -> tuple[Any, Any]:
        """Clock and lanes of a chunk."""
        clock, lanes, _ = self._states[index]
        return clock, lanes

    @property
    def compile_seconds(self) -> float:
        return sum(programs.compile_seconds for programs in self.programs.values())

    def _each(self, work: Any) -> None:
        count = len(self._states)
        over_places(self.places[:count], range(count), work)


def matmul_peak(places: Sequence[jax.Device], size: int = 2048, repeats: int = 8) -> float:
    """Float32 matrix-multiply rate in FLOP/s over ``places`` together, the median of ``repeats``.

    On a CPU one product uses the threads of all cores, so it is measured once; on accelerators one
    device is measured and counted as often as there are devices.
    """
    x = jax.device_put(jnp.ones((size, size), jnp.float32), places[0])
    product = jax.jit(lambda a: a @ a)
    product(x).block_until_ready()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        product(x).block_until_ready()
        seconds.append(time.perf_counter() - started)
    rate = 2 * size**3 / statistics.median(seconds)
    return rate if places[0].platform == "cpu" else rate * len(places)


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


def manifest(places: Sequence[jax.Device]) -> dict[str, Any]:
    """What a figure depends on besides the code."""
    return {
        "dqx": dqx.__version__,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "device": f"{len(places)} x {places[0].platform}: {places[0].device_kind}",
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
    """Prints rows of equal keys as a Markdown table."""
    print("\n".join(terminal.markdown(rows)), flush=True)


def write_json(path: str | None, content: dict[str, Any]) -> None:
    """Writes a result file, whole or not at all; does nothing without a path."""
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        files.write_json(Path(path), content)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "")
