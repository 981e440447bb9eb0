"""A worker of a cluster: one process with one place, which trains the chunks that it is told of.

It knows nothing of Ray, and what it takes and gives is plain: the plan as JSON holds it, numbers,
texts and arrays by name. It writes no file of the study. A generator hands on what a session makes,
in lists of messages:

    ("began", step)            the step that the chunk goes on from
    ("row", step, metrics)     a row of metrics, ``{name: [w]}``
    ("snapshot", step, params) parameters by name, leading axis ``w``
    ("state", step, arrays)    a checkpoint
    ("result", fields)         of a finished chunk, see `result_of`
    ("stopped",)               it was asked to
    ("failed", text)           what training raised
"""

import importlib
import math
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dqx.compute import cache
from dqx.compute.devices import free_bytes, select_devices
from dqx.compute.digest import flatten, nested
from dqx.compute.footprint import chunks_that_fit, measure, refusal
from dqx.compute.programs import Programs, programs_for
from dqx.compute.session import ChunkResult, Session
from dqx.settings import ConfigError
from dqx.study import checkpoint, identity, schedule
from dqx.study.checkpoint import State
from dqx.study.engine import CHECKPOINT_SHARE
from dqx.study.executors.training import Moment, trained
from dqx.study.host import machine
from dqx.study.plan import Plan
from dqx.study.point import point_of, point_record
from dqx.study.schedule import Task

Message = tuple[Any, ...]


def plan_message(plan: Plan) -> dict[str, Any]:
    """A plan as JSON can hold it."""
    return {
        "name": plan.name,
        "points": [point_record(point) for point in plan.points],
        "seeds": list(plan.seeds),
        "root_seed": plan.root_seed,
        "snapshot_every": plan.snapshot_every,
    }


def plan_from(message: Mapping[str, Any]) -> Plan:
    """The plan that `plan_message` was given."""
    return Plan(
        name=message["name"],
        points=tuple(point_of(record) for record in message["points"]),
        seeds=tuple(message["seeds"]),
        root_seed=message["root_seed"],
        snapshot_every=message["snapshot_every"],
    )


def result_message(result: ChunkResult) -> dict[str, Any]:
    """What training has given, as plain arrays."""
    return {**result._asdict(), "params": flatten(result.params)}


def result_of(fields: Mapping[str, Any]) -> ChunkResult:
    """The result that `result_message` was given."""
    return ChunkResult(**{**fields, "params": nested(fields["params"])})


class Worker:
    """Trains one chunk at a time in one place.

    Args:
        kind: of the place, such as ``cpu``.
        modules: to import first, which may register agents and environments of one's own.
        cached: whether compiled programs are kept for the next time.
    """

    def __init__(self, kind: str, modules: Sequence[str], cached: bool) -> None:
        self._kind, self._stop = kind, threading.Event()
        for module in modules:
            importlib.import_module(module)
        if cached:
            cache.enable()
        else:
            cache.disable()
        self._place = select_devices(kind)[0]
        self._plan: Plan | None = None

    def hello(self, agents: Sequence[str], games: Sequence[str]) -> Iterator[list[Message]]:
        """Who this is: ``("hello", identity, machine, free bytes)``."""
        present = identity.identity([self._place], agents, games)
        yield [("hello", present, machine(), free_bytes([self._place]).bytes)]

    def settle(self, plan: Mapping[str, Any]) -> Iterator[list[Message]]:
        """The points of a plan with their chunk widths: ``("settled", points, notes)``."""
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                settled = schedule.settle(plan_from(plan), [self._place])
            except ConfigError as error:
                yield [("refused", str(error))]
                return
        notes = [str(warning.message) for warning in told]
        yield [("settled", [point_record(point) for point in settled.points], notes)]

    def prepare(self, plan: Mapping[str, Any], point: int) -> Iterator[list[Message]]:
        """Compiles for a point's chunks: ``("prepared", bytes, saved bytes, programs)``.

        Or ``("refused", text)`` where not even one chunk fits in the memory here.
        """
        try:
            yield [self._prepared(plan_from(plan), point)]
        except Exception as error:  # told of to the driver, as in `train`
            yield [("failed", _told(error))]

    def _prepared(self, plan: Plan, point: int) -> Message:
        started = time.perf_counter()
        self._plan, config = plan, plan.points[point].config
        programs = self._programs(config)
        need, limit = measure(programs, config), free_bytes([self._place])
        saved = need.state if self._place.platform == "cpu" else 0
        if not chunks_that_fit(need, limit, 1, saved):
            return ("refused", str(refusal(config, need, limit, saved)))
        names = list(programs.compiled_since(started))
        return ("prepared", need.total, saved, names)

    def train(
        self, order: Mapping[str, Any], state: tuple[int, Mapping[str, np.ndarray]] | None
    ) -> Iterator[list[Message]]:
        """Trains a chunk to its end, or to a checkpoint if asked to stop.

        Args:
            order: ``number``, ``points`` (their places in the plan) and ``seeds`` of the chunk;
                ``pause``, least seconds between checkpoints; ``gap``, least seconds between
                lists of messages.
            state: step and arrays to go on from; None: from the beginning.
        """
        messages = _Messages(order["gap"])
        trained = self._trained(order, state, messages)
        del state  # it is the session's now
        try:
            for _ in trained:
                if messages.due:
                    yield messages.taken()
        except Exception as error:  # told of to the driver, which decides what becomes of the chunk
            messages.add("failed", _told(error))
        yield messages.taken()

    def stop(self) -> None:
        """Lets `train`, which runs in another thread, end at the next row."""
        self._stop.set()

    def _programs(self, config: Any) -> Programs:
        assert self._plan is not None  # see `prepare`
        return programs_for(config, self._place, self._plan.root_seed)

    def _trained(
        self,
        order: Mapping[str, Any],
        state: tuple[int, Mapping[str, np.ndarray]] | None,
        messages: "_Messages",
    ) -> Iterator[None]:
        """Trains a chunk, and gives way after every row."""
        plan = self._plan
        assert plan is not None  # see `prepare`
        points = tuple(plan.points[i] for i in order["points"])
        task = Task(order["number"], points, np.array(order["seeds"], np.int64), plan.root_seed)
        programs, every = self._programs(task.config), plan.snapshot_every
        saved = None if state is None else checkpoint.unpacked(State(*state), programs)
        session = Session(
            programs,
            task.config,
            task.chunk,
            lambda *row: messages.add("row", *row),
            saved,
            on_wait=lambda *_: self._stop.is_set(),
        )
        del saved, state  # a replay may fill a good part of the memory
        messages.add("began", session.collected)
        last, pause = time.monotonic(), order["pause"]

        def due(stopping: bool) -> bool:
            wanted = stopping and math.isfinite(pause)
            return wanted or time.monotonic() - last >= pause

        for moment in trained(session, every, due, self._stop.is_set):
            if moment is Moment.SNAPSHOT:
                messages.add("snapshot", session.step, flatten(session.params()))
            elif moment is Moment.SAVE:
                started = time.monotonic()
                messages.add("state", *checkpoint.packed(session.save()))
                yield
                last = time.monotonic()
                pause = max(order["pause"], (last - started) / CHECKPOINT_SHARE)
            elif moment is Moment.FINISHED:
                messages.add("result", result_message(session.result()))
            elif moment is Moment.STOPPED:
                messages.add("stopped")
            else:
                yield


def _told(error: Exception) -> str:
    """An error in a line, with the place that raised it."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{text[:1000]} ({place.name} in {place.filename}:{place.lineno})"


class _Messages:
    """Messages that wait to be handed on together, so that short rows cost little.

    Args:
        gap: least seconds between two lists.
    """

    def __init__(self, gap: float) -> None:
        self._gap, self._last = gap, -math.inf
        self._waiting: list[Message] = []
        self._large = False

    def add(self, kind: str, *content: Any) -> None:
        self._waiting.append((kind, *content))
        self._large |= kind in ("state", "snapshot")  # which are not to wait in memory

    @property
    def due(self) -> bool:
        """Whether it is time to hand on what waits."""
        late = time.monotonic() - self._last >= self._gap
        return bool(self._waiting) and (late or self._large)

    def taken(self) -> list[Message]:
        """What waits, which does so no more."""
        found, self._waiting, self._large = self._waiting, [], False
        self._last = time.monotonic()
        return found
