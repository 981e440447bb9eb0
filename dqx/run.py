"""Training many seeds from the host: rounds of chunks, intervals of metrics, and the result."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from dqx import memory
from dqx.config import Config, Hyper, preset, validate
from dqx.devices import free_bytes, select_devices
from dqx.digest import digests
from dqx.environment import make_environment
from dqx.parallel import Programs, chunk_width, enough_devices, with_company
from dqx.rounds import Chunk, ChunkResult, Round
from dqx.seeds import check_root_seed, check_seeds
from dqx.solution import check_solvable
from dqx.types import PyTree

if TYPE_CHECKING:
    import pandas


class Progress(NamedTuple):
    """Where a run is, given to its ``progress`` callback after every row of metrics.

    Attributes:
        steps: environment steps done, summed over the seeds asked for (padding left out).
        total_steps: steps there are to do, summed alike.
        seeds_done: seeds that have finished.
        step: of the chunks under way, environment steps a seed.
        row: the last row of metrics of the seeds under way, ``{name: [seeds]}``.
        compile_seconds: spent compiling so far.
    """

    steps: int
    total_steps: int
    seeds_done: int
    step: int
    row: dict[str, np.ndarray]
    compile_seconds: float


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What training gives.

    Attributes:
        config: as trained, with ``chunk_width`` filled in.
        hyper: as trained.
        seeds: int64 ``[S]``.
        metrics: ``"step"`` int64 ``[K]``, and for every other name an array ``[S, K]``: NaN where
            an interval has no such number (no finished episode, no update, no evaluation).
        episodes: every finished training episode: columns seed, step (environment step of the seed
            at its end), return and length; ordered by seed (as in ``seeds``) and step.
        params: the final online parameters, NumPy arrays with leading axis S.
        diverged_at: int64 ``[S]``, the step at which loss or parameters became non-finite, -1 if
            never.
        digests: S times the SHA-256 of a seed's metrics and final parameters: equal digests mean
            equal bits.
        root_seed: of the key that every seed's key is folded from.
        devices: the devices used, in words.
        device_kind: platform and kind of the devices.
        compile_seconds: wall time spent compiling, and solving for exact metrics.
        run_seconds: wall time of everything else.
    """

    config: Config
    hyper: Hyper
    seeds: np.ndarray
    metrics: dict[str, np.ndarray]
    episodes: "pandas.DataFrame"
    params: PyTree
    diverged_at: np.ndarray
    digests: tuple[str, ...]
    root_seed: int
    devices: tuple[str, ...]
    device_kind: str
    compile_seconds: float
    run_seconds: float


def train(
    config: Config | str,
    hyper: Hyper | None = None,
    seeds: Iterable[int] | int = 1,
    *,
    root_seed: int = 0,
    devices: str | Sequence[jax.Device] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Trains a configuration on many seeds.

    Seeds run in chunks of a fixed width, one chunk a device at a time, the last one padded: the
    numbers of a seed depend on the configuration, the hyperparameters, the seed, the root seed, the
    chunk width, the kind of device and the versions of the software, and on nothing else.

    Args:
        config: a `Config`, or the name of a preset.
        hyper: its hyperparameters; those of the preset, or the defaults of `Hyper`, if left out.
        seeds: seed numbers, or how many (0, 1, 2, ...).
        root_seed: another one gives other curves for the same seed numbers.
        devices: see ``dqx.devices.select_devices``; all GPUs or all CPU cores if left out.
        progress: called after every row of metrics.

    Raises:
        ConfigError: before anything compiles, for a configuration that cannot work.
    """
    if isinstance(config, str):
        config, preset_hyper = preset(config)
        hyper = hyper or preset_hyper
    hyper = hyper or Hyper()
    validate(config, hyper)
    seed_numbers = check_seeds(seeds)
    check_root_seed(root_seed)
    env = make_environment(config.env)
    available = select_devices(devices)
    platform = available[0].platform
    started = time.perf_counter()
    check_solvable(config, [float(hyper.gamma)])
    solving = time.perf_counter() - started if config.exact_metrics else 0.0
    width = chunk_width(config, platform)
    config = dataclasses.replace(config, chunk_width=width)
    used = enough_devices(available, len(seed_numbers), width)
    held = len(with_company(used))
    # A narrower chunk could use more devices: what is proposed has to fit on all of them.
    most_devices = max(held, min(len(available), len(seed_numbers)))
    memory.check(config, env, width * held, most_devices, free_bytes(used))
    started = time.perf_counter()
    programs = programs_for(config, used, root_seed)
    compiled_before = programs.compile_seconds
    report = _Reporter(config, len(seed_numbers), programs, progress)
    results: list[ChunkResult] = []
    for first in range(0, len(seed_numbers), programs.num_lanes):
        numbers = seed_numbers[first : first + programs.num_lanes]
        chunks = [
            Chunk(part, per_seed(hyper, len(part)))
            for part in np.split(numbers, range(width, len(numbers), width))
        ]
        under_way = Round(programs, config, chunks, report)
        while not under_way.finished:
            under_way.advance()
        results += under_way.results()
    seconds = time.perf_counter() - started
    steps = row_steps(config)
    metrics = _join([result.metrics for result in results])
    params = _join([result.params for result in results])
    return TrainResult(
        config=config,
        hyper=hyper,
        seeds=seed_numbers,
        metrics={"step": steps, **metrics},
        episodes=_episode_frame(results),
        params=params,
        diverged_at=_join([result.diverged_at for result in results]),
        digests=digests(steps, metrics, params),
        root_seed=root_seed,
        devices=tuple(str(device) for device in used),
        device_kind=f"{platform}: {used[0].device_kind}",
        compile_seconds=solving + programs.compile_seconds - compiled_before,
        run_seconds=seconds - (programs.compile_seconds - compiled_before),
    )


def programs_for(config: Config, devices: tuple[jax.Device, ...], root_seed: int) -> Programs:
    """The programs of a configuration, the same object for the same arguments.

    Runs that differ in hyperparameters, seeds or budget share them and compile once.
    """
    # What is not compiled in, all of it set to one value.
    compiled_in = dataclasses.replace(
        config, total_steps=1, learning_starts=1, log_period=1, eval_period=0
    )
    return _cached_programs(compiled_in, devices, root_seed)


@functools.lru_cache(maxsize=4)
def _cached_programs(config: Config, devices: tuple[jax.Device, ...], root_seed: int) -> Programs:
    assert config.chunk_width is not None  # filled in by the caller
    env = make_environment(config.env)
    return Programs(config, env, devices, config.chunk_width, root_seed)


def per_seed(hyper: Hyper, count: int) -> Hyper:
    """The same hyperparameters for ``count`` seeds, float32 ``[count]``."""
    return jax.tree.map(lambda x: np.full(count, x, np.float32), hyper)


def row_steps(config: Config) -> np.ndarray:
    """The environment steps at which a run of ``config`` gives a row of metrics, int64 ``[K]``."""
    return np.arange(config.log_period, config.total_steps + 1, config.log_period, dtype=np.int64)


class _Reporter:
    """Adds up the steps of the seeds asked for and hands them to the progress callback."""

    def __init__(
        self,
        config: Config,
        num_seeds: int,
        programs: Programs,
        callback: Callable[[Progress], None] | None,
    ) -> None:
        self._total, self._num_seeds = config.total_steps, num_seeds
        self._programs, self._compiled_before = programs, programs.compile_seconds
        self._callback = callback
        self._seeds_done = 0

    def __call__(self, step: int, row: dict[str, np.ndarray]) -> None:
        under_way = len(row["episode_count"])
        steps = self._seeds_done * self._total + step * under_way
        if step == self._total:
            self._seeds_done += under_way
        if self._callback is not None:
            event = Progress(
                steps=steps,
                total_steps=self._total * self._num_seeds,
                seeds_done=self._seeds_done,
                step=step,
                row=row,
                compile_seconds=self._programs.compile_seconds - self._compiled_before,
            )
            self._callback(event)


def _join(parts: list[PyTree]) -> PyTree:
    return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


def _episode_frame(results: list[ChunkResult]) -> "pandas.DataFrame":
    import pandas  # here, because it takes half a second and only results need it

    lists: list[list[np.ndarray]] = [[], [], [], []]
    for result in results:
        lane, *rest = result.episodes
        for column, values in zip(lists, (result.seeds[lane], *rest), strict=True):
            column.append(values)
    names = ("seed", "step", "return", "length")
    columns = (np.concatenate(column) for column in lists)
    return pandas.DataFrame(dict(zip(names, columns, strict=True)))
