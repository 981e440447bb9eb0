"""What a user calls: `train` keeps a run in memory, `run` and `resume` keep studies in folders.

All three are one road: a plan is settled, an engine trains it, a store keeps what comes out, and
sinks watch.
"""

import contextlib
import dataclasses
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from dqx.arguments import (
    FLAG,
    FUNCTION,
    MAPPING,
    PATH,
    SECONDS,
    TEXT,
    each,
    instance,
    maybe,
    require,
    whole,
)
from dqx.compute import trees
from dqx.compute.devices import select_devices
from dqx.compute.limits import resident_bytes
from dqx.core.types import PyTree
from dqx.files import Staging
from dqx.report.picture import Picture
from dqx.settings import Config, ConfigError, Hyper, environments, from_record, override, preset
from dqx.study import finish
from dqx.study.background import Stopped
from dqx.study.engine import CHECKPOINT_SECONDS, Engine
from dqx.study.entries import is_ours
from dqx.study.executors import Executor
from dqx.study.executors.local import Local
from dqx.study.folder import Folder, Lock, StudyError, read_plan_record
from dqx.study.host import peak_device_bytes
from dqx.study.plan import Plan, read_plan, single
from dqx.study.record import (
    check_own,
    mend_plan,
    plan_of,
    plan_record,
    write_plan,
)
from dqx.study.results import Study, load
from dqx.study.sinks import Callback, Progress, Sink, Sinks, opened
from dqx.study.store import FolderStore, MemoryStore, StudyWarning

if TYPE_CHECKING:
    import pandas

    from dqx.compute.trained import TrainedAgent

_SINKS = each(instance("a sink", Sink), "a list of dqx.Sink objects")

Devices = str | Sequence[jax.Device] | None
OnProgress = Callable[[Progress], None] | None


class StudyInterrupted(KeyboardInterrupt):
    """Ctrl-C or a termination signal; says what is kept and how to go on."""


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What training gives.

    Attributes:
        config: as trained: rounded, with ``chunk_width`` filled in.
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
        scores: float64 ``[S]``: the last exact return where it is measured, else the last greedy
            one, else that of training.
        root_seed: of the key that every seed's key is folded from.
        devices: the places where chunks ran, in words.
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
    scores: np.ndarray
    root_seed: int
    devices: tuple[str, ...]
    device_kind: str
    compile_seconds: float
    run_seconds: float

    def agent(self, seed: int | None = None) -> "TrainedAgent":
        """The trained agent of a seed, of the first if left out.

        Raises:
            ConfigError: if the seed was not trained.
        """
        from dqx.compute.trained import TrainedAgent

        require(ConfigError, seed=(seed, maybe(whole(0))))
        seed = int(self.seeds[0]) if seed is None else seed
        if seed not in self.seeds:
            raise ConfigError(f"seed {seed} was not trained: see `seeds`")
        index = int(np.flatnonzero(self.seeds == seed)[0])
        drawn = environments.drawn(self.config, self.root_seed, [seed])
        numbers = {**self.hyper.extra, **{name: values[0] for name, values in drawn.items()}}
        params = jax.tree.map(lambda x: x[index], self.params)
        return TrainedAgent(self.config, params, environments.inputs(self.config, numbers))


def train(
    config: Config | str | Mapping[str, Any],
    hyper: Hyper | Mapping[str, Any] | None = None,
    seeds: Iterable[int] | int = 1,
    *,
    root_seed: int = 0,
    env: Mapping[str, Any] | None = None,
    devices: Devices = None,
    progress: OnProgress = None,
    sinks: Sequence[Sink] = (),
) -> TrainResult:
    """Trains a configuration on many seeds and keeps everything in memory.

    Seeds run in chunks of a fixed width, one chunk a core or GPU at a time, the last one padded:
    the numbers of a seed depend on the configuration, the hyperparameters, the seed, the root seed,
    the chunk width, the kind of device and the versions of the software, and on nothing else.

    Args:
        config: a `Config`, the name of a preset, or the ``config`` of a manifest.
        hyper: its hyperparameters, a `Hyper` or the ``hyper`` of a manifest; those of the preset,
            or the defaults of `Hyper`, if left out.
        seeds: seed numbers, or how many (0, 1, 2, ...).
        root_seed: another one gives other curves for the same seed numbers.
        env: settings of the environment, such as ``{"gravity": 12.0}``; see ``dqx envs NAME``.
        devices: see ``dqx.compute.devices.select_devices``; all GPUs or CPU cores if left out.
        progress: called with a `Progress` after every row of metrics.
        sinks: that watch, see `Sink`.

    Raises:
        ConfigError: before anything compiles, for a configuration that cannot work, or an argument
            of the wrong kind.
    """
    require(
        ConfigError,
        env=(env, maybe(MAPPING)),
        progress=(progress, maybe(FUNCTION)),
        sinks=(sinks, _SINKS),
    )
    config, hyper = _settings(config, hyper)
    if env is not None:
        config, hyper = override(config, hyper, env=env)
    plan = single("train", config, hyper, seeds, root_seed=root_seed)
    places, store = select_devices(devices), MemoryStore()
    with opened(_watching(sinks, progress), plan) as watching:
        executor, since = Local(places), time.perf_counter()
        plan = executor.settle(plan, watching.phase)
        spent = time.perf_counter() - since
        engine = Engine(plan, store, executor, watching, settling_seconds=spent)
        try:
            engine.run()
        except Stopped:
            raise KeyboardInterrupt("interrupted; nothing is kept") from None
    return _result(plan, engine, store, executor)


def run(
    plan: str | os.PathLike[str] | Mapping[str, Any] | Plan,
    out: str | os.PathLike[str] | None = None,
    *,
    devices: Devices = None,
    executor: Executor | None = None,
    overwrite: bool = False,
    go_on: bool = False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    replay_checkpoint: bool = True,
    command: str | None = None,
    progress: OnProgress = None,
    sinks: Sequence[Sink] | None = None,
) -> Study:
    """Trains a study from its beginning.

    Args:
        plan: a TOML file, a dictionary of the same form, or a `Plan`.
        out: the folder to write; ``runs/NAME`` if left out. It must not exist, or be empty.
        devices: see ``dqx.compute.devices.select_devices``; all GPUs or CPU cores if left out.
        executor: who trains, such as `Ray`; the devices of this machine if left out.
        overwrite: replace an older study in that folder.
        go_on: if the folder holds this very study, go on with it, or only load it if it is
            finished.
        checkpoint_seconds: least time between checkpoints of the chunks under way; 0 or more.
        replay_checkpoint: write such checkpoints at all. They hold the replay and may be large;
            without them an interrupted chunk starts again from its beginning, with the same bits.
        command: the command line, for the record.
        progress: called with a `Progress` after every row of metrics.
        sinks: that watch, see `Sink`; one that draws the learning curves if left out.

    Returns:
        The study, as `load` gives it.

    Raises:
        StudyError: for a plan or folder that cannot be used, or files that cannot be written.
        ConfigError: for a configuration that cannot work or an argument of the wrong kind, before
            anything is written.
        StudyInterrupted: after Ctrl-C; `resume` goes on.
    """
    require(
        ConfigError,
        overwrite=(overwrite, FLAG),
        go_on=(go_on, FLAG),
        command=(command, maybe(TEXT)),
    )
    _check_training(checkpoint_seconds, replay_checkpoint, progress, sinks)
    plan = read_plan(plan)
    require(StudyError, out=(out, maybe(PATH)))
    path = Path(out) if out is not None else Path("runs") / plan.name
    given = plan_record(plan, {}, command)
    if go_on and finish.holds(Folder(path), given):
        if load(path).finished and finish.has_manifest(Folder(path)):
            return load(path)
        return resume(
            path,
            devices=devices,
            executor=executor,
            checkpoint_seconds=checkpoint_seconds,
            replay_checkpoint=replay_checkpoint,
            progress=progress,
            sinks=sinks,
        )

    def replaces(target: Path) -> bool:
        return finish.replaces(target, given, overwrite)

    with Staging(path, replaces):
        pass  # a folder that cannot be written is known before anything compiles
    with (
        opened(_watching(sinks, progress), plan) as watching,
        _executor(executor, devices) as trainer,
    ):
        since = time.perf_counter()
        plan = trainer.settle(plan, watching.phase)
        record = plan_record(plan, trainer.identity(plan), command)
        folder = _new_folder(path, replaces, record)
        least = checkpoint_seconds if replay_checkpoint else float("inf")
        spent = time.perf_counter() - since
        return _train(folder, record, plan, trainer, watching, least, spent)


def resume(
    path: str | os.PathLike[str],
    *,
    devices: Devices = None,
    executor: Executor | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    replay_checkpoint: bool = True,
    progress: OnProgress = None,
    sinks: Sequence[Sink] | None = None,
) -> Study:
    """Goes on with a study that was stopped or killed, or repairs a damaged one.

    Every file of finished chunks is checked; what is damaged is reported as a `StudyWarning` and
    trained again. The number of devices may differ from before, their kind may not.

    Args:
        path: the study's folder.
        devices: as of `run`.
        executor: as of `run`.
        checkpoint_seconds: as of `run`.
        replay_checkpoint: as of `run`.
        progress: as of `run`.
        sinks: as of `run`.

    Raises:
        StudyError: if there is no study, another process works on it, or it was made by software or
            on a kind of device with which the same bits cannot be expected; shows both sides.
        ConfigError: for an argument of the wrong kind.
        StudyInterrupted: after Ctrl-C.
    """
    _check_training(checkpoint_seconds, replay_checkpoint, progress, sinks)
    folder = Folder(path)
    record = read_plan_record(folder)
    plan = plan_of(folder, record)
    least = checkpoint_seconds if replay_checkpoint else float("inf")
    with _executor(executor, devices) as trainer:
        trainer.check(plan, folder, record)
        with opened(_watching(sinks, progress), plan) as watching:
            return _train(folder, record, plan, trainer, watching, least)


def _executor(given: Executor | None, devices: Devices) -> Executor:
    """The executor that was given, or that of this machine's devices.

    Raises:
        ConfigError: if both are given, or the devices cannot be had.
    """
    if given is None:
        return Local(select_devices(devices))
    if devices is not None:
        raise ConfigError("devices and an executor are given: say to the executor which to use")
    return given


def _check_training(
    checkpoint_seconds: float,
    replay_checkpoint: bool,
    progress: OnProgress,
    sinks: Sequence[Sink] | None,
) -> None:
    require(
        ConfigError,
        checkpoint_seconds=(checkpoint_seconds, SECONDS),
        replay_checkpoint=(replay_checkpoint, FLAG),
        progress=(progress, maybe(FUNCTION)),
        sinks=(sinks, maybe(_SINKS)),
    )


def _settings(
    config: Config | str | Mapping[str, Any], hyper: Hyper | Mapping[str, Any] | None
) -> tuple[Config, Hyper]:
    if isinstance(config, str):
        config, usual = preset(config)
    elif isinstance(config, Mapping):
        config, usual = from_record(config)
    else:
        usual = Hyper()
    require(
        ConfigError,
        config=(config, instance("a Config, a preset's name, or the config of a manifest", Config)),
        hyper=(hyper, maybe(instance("a Hyper or the hyper of a manifest", Hyper, Mapping))),
    )
    if isinstance(hyper, Mapping):
        config, hyper = override(config, Hyper(), **hyper)
    return config, usual if hyper is None else hyper


def _watching(sinks: Sequence[Sink] | None, progress: OnProgress) -> list[Sink]:
    given: Sequence[Sink] = [Picture()] if sinks is None else sinks
    return [*given, *([Callback(progress)] if progress is not None else [])]


def _new_folder(path: Path, replaces: Callable[[Path], bool], record: Mapping[str, Any]) -> Folder:
    """A study's folder with its plan, whole or not at all."""
    with Staging(path, replaces, is_ours) as staging:
        folder = Folder(staging.folder)
        try:
            folder.make()
            write_plan(folder, record)
            staging.commit()
        except OSError as error:
            raise StudyError(
                f"cannot write {path}: {error.strerror or error}; choose another folder"
            ) from error
    return Folder(staging.target)


def _train(
    folder: Folder,
    record: Mapping[str, Any],
    plan: Plan,
    executor: Executor,
    sinks: Sinks,
    least_seconds: float,
    settling_seconds: float = 0.0,
) -> Study:
    """Trains what is missing in a study's folder, and writes its manifest."""
    seal = record["sha256"]
    with _explained(folder, least_seconds), Lock(folder):
        if read_plan_record(folder)["sha256"] != seal:
            raise StudyError(f"{folder.path} was replaced by another process: start again")
        check_own(folder, record)
        for text in mend_plan(folder, record):
            warnings.warn(StudyWarning(text), stacklevel=3)
        folder.make()
        store = FolderStore(folder, seal)
        engine = Engine(plan, store, executor, sinks, least_seconds, settling_seconds)
        trained = engine.run()
        if engine.aside:
            return load(folder.path)  # its `failures` tell why
        if trained or not finish.has_manifest(folder, seal):
            finish.write_manifest(folder, _facts(engine, executor.used))
        study = load(folder.path)
        sinks.complete(study)
    return study


def _facts(engine: Engine, used: tuple[str, ...]) -> dict[str, Any]:
    """What the manifest tells of how a study was trained, by the process that ended it."""
    progress = engine.tally.progress()
    return {
        "steps": progress.total_steps,
        "steps_per_second": progress.steps_per_second,
        "compile_seconds": progress.compile_seconds,
        "run_seconds": engine.tally.seconds,
        "compiled": engine.names,
        "checkpoint_seconds": engine.checkpoint_seconds,
        "devices": list(used),
        "peak_memory_bytes": resident_bytes(),
        "peak_device_memory_bytes": peak_device_bytes(used),
    }


@contextlib.contextmanager
def _explained(folder: Folder, least_seconds: float) -> Iterator[None]:
    """Says of what stops a study what is kept and how to go on."""
    again = f"dqx study resume {folder.path}"
    try:
        yield
    except Stopped:
        kept = "what is finished" if least_seconds == float("inf") else "everything so far"
        raise StudyInterrupted(
            f"interrupted; {kept} is in {folder.path}. Go on with: {again}"
        ) from None
    except KeyboardInterrupt:
        raise StudyInterrupted(
            f"interrupted at once; {again} goes on from what was last written"
        ) from None
    except OSError as error:
        raise StudyError(
            f"cannot write {error.filename or folder.path}: {error.strerror or error}; nothing "
            f"that was finished is lost. When that is mended: {again}"
        ) from error


def _result(plan: Plan, engine: Engine, store: MemoryStore, executor: Local) -> TrainResult:
    results = [store.results[index] for index in sorted(store.results)]
    runs = [run for index in sorted(store.runs) for run in store.runs[index]]
    (point,) = plan.points
    seconds = engine.tally.seconds
    scores = [np.nan if run["score"] is None else run["score"] for run in runs]
    return TrainResult(
        config=point.config,
        hyper=point.hyper,
        seeds=np.array(plan.seeds, np.int64),
        metrics={"step": results[0].steps, **trees.joined([r.metrics for r in results])},
        episodes=_episode_frame([(r.seeds, r.episodes) for r in results]),
        params=trees.joined([r.params for r in results]),
        diverged_at=trees.joined([r.diverged_at for r in results]),
        digests=tuple(run["digest"] for run in runs),
        scores=np.array(scores, np.float64),
        root_seed=plan.root_seed,
        devices=executor.used,
        device_kind=f"{executor.places[0].platform}: {executor.places[0].device_kind}",
        compile_seconds=engine.tally.progress().compile_seconds,
        run_seconds=seconds,
    )


def _episode_frame(chunks: Sequence[tuple[np.ndarray, Any]]) -> "pandas.DataFrame":
    import pandas  # here, because it takes half a second and only results need it

    columns = [(seeds[lane], *rest) for seeds, (lane, *rest) in chunks]
    names = ("seed", "step", "return", "length")
    joined = (np.concatenate(column) for column in zip(*columns, strict=True))
    return pandas.DataFrame(dict(zip(names, joined, strict=True)))
