"""Training many seeds from the host: rounds of chunks, intervals of metrics, and the result."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from dqx import memory
from dqx.agent import LearnMetrics
from dqx.config import Config, ConfigError, Hyper, preset, validate
from dqx.devices import free_bytes, select_devices
from dqx.environment import make_environment
from dqx.loop import Clock, Episodes, Lane
from dqx.parallel import DEFAULT_CHUNK_WIDTH, Programs, with_company
from dqx.types import PyTree

if TYPE_CHECKING:
    import pandas

EPISODE_METRICS = (
    "episode_count",
    "episode_return", "episode_return_min", "episode_return_max",
    "episode_length", "episode_length_min", "episode_length_max",
)  # fmt: skip
EVAL_METRICS = ("eval_return", "eval_length")


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
        root_seed: of the key that every seed's key is folded from.
        devices: the devices used, in words.
        device_kind: platform and kind of the devices.
        compile_seconds: wall time spent compiling.
        run_seconds: wall time of everything else.
    """

    config: Config
    hyper: Hyper
    seeds: np.ndarray
    metrics: dict[str, np.ndarray]
    episodes: "pandas.DataFrame"
    params: PyTree
    diverged_at: np.ndarray
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
    if isinstance(root_seed, bool) or not isinstance(root_seed, int | np.integer):
        raise ConfigError(f"root_seed must be a whole number, got {root_seed!r}")
    if not 0 <= root_seed < 2**32:
        raise ConfigError(f"root_seed must be a whole number from 0 to 2**32 - 1, got {root_seed}")
    env = make_environment(config.env)
    available = select_devices(devices)
    platform = available[0].platform
    width = config.chunk_width or DEFAULT_CHUNK_WIDTH.get(platform, 1)
    config = dataclasses.replace(config, chunk_width=width)
    used = available[: max(1, min(len(available), -(-len(seed_numbers) // width)))]
    held = len(with_company(used))
    # A narrower chunk could use more devices: what is proposed has to fit on all of them.
    most_devices = max(held, min(len(available), len(seed_numbers)))
    memory.check(config, env, width * held, most_devices, free_bytes(used))
    started = time.perf_counter()
    programs = programs_for(_compiled_in(config), used, root_seed)
    compiled_before = programs.compile_seconds
    report = _Reporter(config, len(seed_numbers), programs, progress)
    parts = []
    for first in range(0, len(seed_numbers), programs.num_lanes):
        parts.append(
            _train_round(
                programs, config, hyper, seed_numbers[first : first + programs.num_lanes], report
            )
        )
    seconds = time.perf_counter() - started
    return TrainResult(
        config=config,
        hyper=hyper,
        seeds=seed_numbers,
        metrics={"step": row_steps(config), **_join([part.metrics for part in parts])},
        episodes=_episode_frame(parts),
        params=_join([part.params for part in parts]),
        diverged_at=_join([part.diverged_at for part in parts]),
        root_seed=root_seed,
        devices=tuple(str(device) for device in used),
        device_kind=f"{platform}: {used[0].device_kind}",
        compile_seconds=programs.compile_seconds - compiled_before,
        run_seconds=seconds - (programs.compile_seconds - compiled_before),
    )


@functools.lru_cache(maxsize=4)
def programs_for(config: Config, devices: tuple[jax.Device, ...], root_seed: int) -> Programs:
    """The programs of a configuration, the same object for the same arguments.

    Runs that differ in hyperparameters, seeds or budget share them and compile once.
    """
    assert config.chunk_width is not None  # filled in by `train`
    env = make_environment(config.env)
    return Programs(config, env, devices, config.chunk_width, root_seed)


def _compiled_in(config: Config) -> Config:
    """The configuration without what is not compiled in, all of it set to one value."""
    return dataclasses.replace(
        config, total_steps=1, learning_starts=1, log_period=1, eval_period=0
    )


def check_seeds(seeds: Iterable[int] | int) -> np.ndarray:
    """Seed numbers as int64 ``[S]``, from an iterable of them or a count.

    Raises:
        ConfigError: if there are none, or one is no whole number, negative, too large, or there
            twice.
    """
    if isinstance(seeds, bool) or not isinstance(seeds, int | np.integer | Iterable):
        raise ConfigError(f"seeds must be whole numbers or how many of them, got {seeds!r}")
    given = list(range(seeds)) if isinstance(seeds, int | np.integer) else list(seeds)
    if not given:
        raise ConfigError("seeds: none are given; ask for at least one, such as seeds=range(32)")
    for seed in given:
        if (
            isinstance(seed, bool)
            or not isinstance(seed, int | np.integer)
            or not 0 <= seed < 2**32
        ):
            raise ConfigError(f"seeds must be whole numbers from 0 to 2**32 - 1, got {seed!r}")
    numbers = np.asarray(given, np.int64)
    values, counts = np.unique(numbers, return_counts=True)
    if np.any(counts > 1):
        twice = ", ".join(str(v) for v in values[counts > 1][:5])
        raise ConfigError(f"seeds must differ, but these are there more than once: {twice}")
    return numbers


def row_steps(config: Config) -> np.ndarray:
    """The environment steps at which a run of ``config`` gives a row of metrics, int64 ``[K]``."""
    return np.arange(config.log_period, config.total_steps + 1, config.log_period, dtype=np.int64)


class _Part(NamedTuple):
    """The results of one round of chunks, padding removed; leading axis: its seeds."""

    seeds: np.ndarray
    metrics: dict[str, np.ndarray]
    episodes: list[tuple[np.ndarray, ...]]
    params: PyTree
    diverged_at: np.ndarray


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


def _train_round(
    programs: Programs, config: Config, hyper: Hyper, seeds: np.ndarray, report: _Reporter
) -> _Part:
    """Trains as many seeds as there are lanes, from the first step to the last."""
    num_lanes, num_seeds = programs.num_lanes, len(seeds)
    padded = np.concatenate([seeds, np.repeat(seeds[-1:], num_lanes - num_seeds)])
    hypers = programs.per_lane(jax.tree.map(lambda x: np.full(num_lanes, x, np.float32), hyper))
    clock, lanes = programs.init(padded)
    rows: list[dict[str, np.ndarray]] = []
    tables: list[tuple[np.ndarray, ...]] = []
    for step in row_steps(config):
        clock, lanes, found, metrics = _interval(programs, config, clock, lanes, hypers, int(step))
        table = _finished(found, num_seeds)
        row = {**_episode_metrics(table, num_seeds), **_on_host(metrics, num_seeds)}
        if config.eval_period and step % config.eval_period == 0:
            returns, lengths = _on_host(programs.evaluate(clock, lanes), num_seeds)
            row |= {
                "eval_return": returns.mean(axis=1),
                "eval_length": lengths.mean(axis=1, dtype=np.float32),
            }
        else:
            row |= dict.fromkeys(EVAL_METRICS, np.full(num_seeds, np.nan, np.float32))
        rows.append(row)
        tables.append(table)
        report(int(step), row)
    return _Part(
        seeds=seeds,
        metrics={name: np.stack([row[name] for row in rows], axis=1) for name in rows[0]},
        episodes=tables,
        params=_on_host(lanes.agent.params, num_seeds),
        diverged_at=_on_host(lanes.diverged_at, num_seeds).astype(np.int64),
    )


def _interval(
    programs: Programs, config: Config, clock: Clock, lanes: Lane, hypers: Hyper, end: int
) -> tuple[Clock, Lane, list[tuple[int, Episodes]], dict[str, Any]]:
    """From one row of metrics to the next, the part of it before learning starts as warm-up."""
    start = end - config.log_period
    warm = min(max(config.learning_starts - start, 0), config.log_period)
    found = []
    nothing = np.full(programs.num_lanes, np.nan, np.float32)
    metrics: dict[str, Any] = {
        **dict.fromkeys(LearnMetrics._fields, nothing),
        "epsilon": np.ones_like(nothing),
    }
    if warm:
        clock, lanes, episodes = programs.warm_up(clock, lanes, warm)
        found.append((start, episodes))
    if warm < config.log_period:
        clock, lanes, episodes, metrics = programs.segment(
            clock, lanes, hypers, config.log_period - warm
        )
        found.append((start + warm, episodes))
    return clock, lanes, found, metrics


def _finished(found: list[tuple[int, Episodes]], num_seeds: int) -> tuple[np.ndarray, ...]:
    """Finished episodes as columns: lane, environment step at the end, return, length."""
    columns = []
    for start, episodes in found:
        total, length = _on_host(episodes, num_seeds)
        lane, row, env = np.nonzero(length)
        step = start + (row + 1) * length.shape[2]
        columns.append((lane, step, total[lane, row, env], length[lane, row, env]))
    return tuple(np.concatenate(column) for column in zip(*columns, strict=True))


def _episode_metrics(table: tuple[np.ndarray, ...], num_seeds: int) -> dict[str, np.ndarray]:
    """Count, mean, least and greatest return and length of finished episodes, else NaN."""
    lane, _, returns, lengths = table
    count = np.bincount(lane, minlength=num_seeds)
    some = count > 0
    metrics = {"episode_count": count.astype(np.int64)}
    for name, values in (("episode_return", returns), ("episode_length", lengths)):
        mean = np.bincount(lane, weights=values, minlength=num_seeds) / np.maximum(count, 1)
        least, greatest = np.full(num_seeds, np.inf), np.full(num_seeds, -np.inf)
        np.minimum.at(least, lane, values)
        np.maximum.at(greatest, lane, values)
        for suffix, result in (("", mean), ("_min", least), ("_max", greatest)):
            metrics[name + suffix] = np.where(some, result, np.nan).astype(np.float32)
    return metrics


def _on_host(tree: PyTree, num_seeds: int) -> PyTree:
    """NumPy copies without the padding; copies, because a donated buffer's memory is used again."""
    return jax.tree.map(lambda x: np.array(x)[:num_seeds], tree)


def _join(parts: list[PyTree]) -> PyTree:
    return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


def _episode_frame(parts: list[_Part]) -> "pandas.DataFrame":
    import pandas  # here, because it takes half a second and only results need it

    frames = []
    for part in parts:
        lane, step, returns, lengths = (
            np.concatenate(column) for column in zip(*part.episodes, strict=True)
        )
        order = np.lexsort((step, lane))
        columns = {"seed": part.seeds[lane], "step": step, "return": returns, "length": lengths}
        frames.append(pandas.DataFrame({name: values[order] for name, values in columns.items()}))
    return pandas.concat(frames, ignore_index=True)
