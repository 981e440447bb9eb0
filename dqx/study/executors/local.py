"""The executor of one machine: a thread for each place, all in this process."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np

from dqx.compute.devices import names_of, select_devices
from dqx.compute.programs import Programs, programs_for
from dqx.compute.session import Session
from dqx.settings import ConfigError
from dqx.study import identity, schedule
from dqx.study.background import Stopped, over_places
from dqx.study.executors import Desk, Executor, Work
from dqx.study.executors.training import Moment, trained
from dqx.study.folder import Folder
from dqx.study.host import machine
from dqx.study.kinds import MachineKind
from dqx.study.plan import Plan
from dqx.study.record import check_same_study
from dqx.study.schedule import Group, Task, fitting_places

# What a user may say of them, see `select_devices`.
Devices = str | Sequence[jax.Device] | None
# From one line on an evaluation that takes long to the next.
_TOLD_SECONDS = 5.0


class Local:
    """Trains group after group, as many chunks at a time as there are places and memory for.

    Args:
        places: one for each chunk that may run at a time.
    """

    def __init__(self, places: Sequence[jax.Device]) -> None:
        self.places = tuple(places)
        self.used: tuple[str, ...] = ()
        self._since = time.perf_counter()  # programs compiled later are this study's

    def settle(self, plan: Plan, phase: Callable[[str], None]) -> Plan:
        return schedule.settle(plan, self.places, phase)

    def identity(self, plan: Plan) -> dict[str, str]:
        return identity.identity(self.places, plan.agents, plan.environments)

    def kinds(self, plan: Plan) -> list[MachineKind]:
        return []

    def check(self, plan: Plan, folder: Folder, record: Mapping[str, Any]) -> None:
        check_same_study(folder, record, self.identity(plan))

    def meet(self, plan: Plan, record: Mapping[str, Any]) -> list[MachineKind]:
        return [MachineKind(self.identity(plan), [point.name for point in plan.points])]

    def train(
        self,
        work: Sequence[Work],
        desk: Desk,
        stop: threading.Event,
        avoid: Mapping[int, str] | None = None,
    ) -> None:
        for group, waiting in work:
            if stop.is_set():
                raise Stopped  # before anything compiles
            self._train_group(group, waiting, desk, stop)

    def _train_group(
        self, group: Group, waiting: Sequence[Task], desk: Desk, stop: threading.Event
    ) -> None:
        config, root_seed = group.config, desk.plan.root_seed
        programs = {d: programs_for(config, d, root_seed) for d in dict.fromkeys(self.places)}
        if not all(found.compiled for found in programs.values()):
            desk.phase("compiling...")
        started = time.perf_counter()
        places = fitting_places(programs[self.places[0]], config, self.places, len(waiting))
        desk.compiled((), time.perf_counter() - started)
        self.used = max(self.used, names_of(places), key=len)

        def work(place: jax.Device, task: Task) -> None:
            _train_chunk(programs[place], task, desk, stop)

        over_places(places, waiting, work, stop)
        for found in programs.values():
            desk.compiled(found.compiled_since(self._since), 0.0)
        self._since = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass  # its threads end with `train`


def chosen(given: Executor | None, devices: Devices) -> Executor:
    """The executor that was given, or that of this machine's devices.

    Raises:
        ConfigError: if both are given, or the devices cannot be had.
    """
    if given is None:
        return Local(select_devices(devices))
    if devices is not None:
        raise ConfigError("devices and an executor are given: say to the executor which to use")
    return given


def _train_chunk(programs: Programs, task: Task, desk: Desk, stop: threading.Event) -> None:
    """Trains a chunk to its end, or to a checkpoint if asked to stop."""
    config, every = task.config, desk.plan.snapshot_every
    kept, told = 0, time.monotonic()  # the step last saved at; when an evaluation was told of

    def on_row(step: int, metrics: dict[str, np.ndarray]) -> None:
        desk.row(task, step, metrics)

    def on_wait(step: int, over: int, episodes: int, steps: int) -> bool:
        nonlocal told
        if not stop.is_set() and time.monotonic() - told >= _TOLD_SECONDS:
            told = time.monotonic()
            desk.phase(f"evaluating: {over:,} of {episodes:,} episodes over, step {steps:,}")
        # Once in an evaluation the state before it is saved: it does not change any more.
        return stop.is_set() or (kept < step and desk.due(False, last, config))

    saved = desk.restored(task, programs)
    session = Session(programs, config, task.chunk, on_row, saved, on_wait)
    kept = 0 if saved is None else session.step
    del saved  # a replay may fill a good part of the memory
    last = desk.began(task, session.collected)

    def due(stopping: bool) -> bool:
        return desk.due(stopping, last, config)

    for moment in trained(session, every, due, stop.is_set):
        if moment is Moment.SNAPSHOT:
            desk.snapshot(task, session.step, session.params())
        elif moment is Moment.SAVE:
            last, kept = desk.save(task, session.save), session.step
        elif moment is Moment.STOPPED:
            raise Stopped
    desk.finish(task, session.result(), machine())
