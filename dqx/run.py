"""What a user calls: `train` keeps a run in memory, `run` and `resume` keep studies in folders.

All three are one road: a plan is settled, an engine trains it, a store keeps what comes out, and
sinks watch.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dqx.arguments import (
    FLAG,
    FUNCTION,
    MAPPING,
    PATH,
    SECONDS,
    TEXT,
    instance,
    maybe,
    require,
)
from dqx.compute.devices import select_devices
from dqx.compute.limits import resident_bytes
from dqx.files import Staging
from dqx.report.picture import Picture
from dqx.settings import Config, ConfigError, Hyper, from_record, override, preset
from dqx.study import finish
from dqx.study.background import Stopped
from dqx.study.engine import CHECKPOINT_SECONDS, Engine
from dqx.study.entries import is_ours
from dqx.study.executors import EXECUTOR, Executor
from dqx.study.executors.local import Devices, Local, chosen
from dqx.study.folder import Folder, StudyError, read_plan_record
from dqx.study.host import peak_device_bytes
from dqx.study.in_memory import TrainResult, result_of
from dqx.study.lock import Lock
from dqx.study.plan import Plan, read_plan, single
from dqx.study.record import (
    check_own,
    mend_plan,
    plan_of,
    plan_record,
    write_plan,
)
from dqx.study.results import Study, load
from dqx.study.sinks import SINKS, Callback, Progress, Sink, Sinks, opened
from dqx.study.stops import StudyInterrupted, explained
from dqx.study.store import FolderStore, MemoryStore, StudyWarning

__all__ = ["StudyInterrupted", "TrainResult", "resume", "run", "train"]

OnProgress = Callable[[Progress], None] | None


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
        sinks=(sinks, SINKS),
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
    return result_of(plan, engine, store, executor)


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
        executor=(executor, maybe(EXECUTOR)),
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
        chosen(executor, devices) as trainer,
    ):
        since = time.perf_counter()
        plan = trainer.settle(plan, watching.phase)
        record = plan_record(plan, trainer.identity(plan), command, trainer.kinds(plan))
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
    require(ConfigError, executor=(executor, maybe(EXECUTOR)))
    _check_training(checkpoint_seconds, replay_checkpoint, progress, sinks)
    folder = Folder(path)
    record = read_plan_record(folder)
    plan = plan_of(folder, record)
    least = checkpoint_seconds if replay_checkpoint else float("inf")
    with chosen(executor, devices) as trainer:
        trainer.check(plan, folder, record)
        with opened(_watching(sinks, progress), plan) as watching:
            return _train(folder, record, plan, trainer, watching, least)


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
        sinks=(sinks, maybe(SINKS)),
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
    with explained(folder, least_seconds), Lock(folder.path):
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
