"""Who of a crew trains which chunk, and what becomes of those whose worker is lost.

A chunk whose worker dies or falls silent goes to another, from its last checkpoint. One that fails
again and again by itself is set aside. This file knows nothing of Ray.
"""

import collections
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from dqx.compute.digest import nested
from dqx.settings import ConfigError
from dqx.study.background import Stopped
from dqx.study.checkpoint import State
from dqx.study.executors import Desk, Work
from dqx.study.executors.hands import ClusterWarning, Crew, Hand, Lost, Patience
from dqx.study.executors.worker import Message, result_of
from dqx.study.folder import StudyError
from dqx.study.schedule import Task

# Failures of a chunk after which it is set aside.
MOST_FAILURES = 3
# Lists of messages a second that all workers together may send, and the share of its time that the
# driver may spend on writing checkpoints: rows and checkpoints come less often in large clusters.
_LISTS_PER_SECOND = 500.0
_WRITING_SHARE = 0.5
# Of a node's free memory, as on one machine.
_USABLE = 0.9
_POLL_SECONDS, _LOOK_SECONDS = 0.2, 2.0


class Dispatch:
    """Trains the chunks of a study by a crew.

    Args:
        crew: who trains.
        work: what is to be trained.
        desk: where results go.
        plan: as `plan_message` gives it, or a reference to that.
        places: the place of each configuration in the plan, by its name.
        patience: how long a worker may be silent.
        wait_seconds: how long to wait for a worker when there is none.
        kinds: which kind of machine trains a configuration, by its name, if there are several.
        avoid: the machine that a chunk is not to be trained on if there is another, by number.
    """

    def __init__(
        self,
        crew: Crew,
        work: Sequence[Work],
        desk: Desk,
        plan: Any,
        places: Mapping[str, int],
        patience: Patience,
        wait_seconds: float = 300.0,
        kinds: Mapping[str, int] | None = None,
        avoid: Mapping[int, str] | None = None,
    ) -> None:
        self._crew, self._desk, self._plan, self._places = crew, desk, plan, places
        self._patience, self._wait_seconds, self._avoid = patience, wait_seconds, avoid or {}
        self._tasks = {task.number: task for _, tasks in work for task in tasks}
        self._queues = [collections.deque(task.number for task in tasks) for _, tasks in work]
        self._open = set(self._tasks)
        self._kinds = [(kinds or {}).get(tasks[0].points[0].name, 0) for _, tasks in work]
        self._needs: dict[int, tuple[int, int]] = {}  # bytes of a chunk and of its checkpoint
        self._most: dict[str, int] = {}  # chunks at a time on a node that has run out of memory
        self._failures: dict[int, int] = {}
        self._last: dict[int, tuple[str, str]] = {}  # who a chunk failed with, and why
        # Chunks whose worker has died, by node: if the node lives, the chunk may be why.
        self._suspects: dict[str, list[tuple[int, int, str]]] = {}
        self._write_seconds = 0.0  # that the last checkpoint took
        self._compiling = False

    def run(self, stop: threading.Event) -> None:
        """Trains everything, or up to the next checkpoints if asked to stop.

        Raises:
            Stopped: if asked to stop.
            ConfigError: if chunks of a group fit nowhere.
            StudyError: if no worker is left.
        """
        looked = heard = before = time.monotonic()
        asked = False
        while self._open:
            if stop.is_set():
                if not asked:
                    asked = True
                    self._ask_to_stop()
                if not any(hand.training for hand in self._crew.hands):
                    raise Stopped
            else:
                self._hand_out()
            working = any(hand.busy for hand in self._crew.hands)
            compiling = working and not any(hand.training for hand in self._crew.hands)
            found = self._crew.poll(_POLL_SECONDS)
            now = time.monotonic()
            if compiling:
                self._desk.compiled((), now - before)
            self._hear(found, now - before)
            before = now
            if now - looked >= _LOOK_SECONDS or not self._crew.hands:
                looked = now
                self._count_deaths(self._crew.look())
            if working:
                heard = now
            elif now - heard > self._wait_seconds:
                raise StudyError(
                    f"no worker is left, and none has come for {self._wait_seconds:.0f} s; what is "
                    "finished is kept, and `dqx study resume` goes on"
                )

    # --- Handing out.

    def _hand_out(self) -> None:
        for hand in list(self._crew.hands):
            if hand.busy:
                continue
            if hand.task is None:
                hand.task, hand.wanted = self._next(hand)
            if hand.task is None:
                continue
            if hand.group != hand.wanted:
                if not self._compiling:
                    self._compiling = True
                    self._desk.phase("compiling...")
                self._start(hand, "prepare", self._plan, self._place_of(hand.task, 0))
            elif self._has_room(hand):
                self._train(hand, hand.task)

    def _next(self, hand: Hand) -> tuple[Task | None, int]:
        """The next chunk for a worker: of the group that it has programs of, else of the first."""
        groups = range(len(self._queues))
        for group in sorted(groups, key=lambda g: (g != hand.group, g)):
            queue = self._queues[group]
            if not queue or group in hand.unfit or self._kinds[group] != hand.kind:
                continue
            chosen = next((n for n in queue if not self._unwelcome(hand, n, group)), None)
            if chosen is not None:
                queue.remove(chosen)
                return self._tasks[chosen], group
        return None, -1

    def _unwelcome(self, hand: Hand, number: int, group: int) -> bool:
        """Whether another worker should have this chunk: it failed here, or is to go elsewhere.

        Only a worker counts that may have it.
        """
        if number not in self._last and number not in self._avoid:
            return False
        able = [h for h in self._crew.hands if h.kind == hand.kind and group not in h.unfit]
        others = [other for other in able if other is not hand]
        failed = self._last.get(number, ("", ""))[0] == hand.name and bool(others)
        machine = self._avoid.get(number)
        known = machine == hand.machine and any(other.machine != machine for other in others)
        return failed or known

    def _has_room(self, hand: Hand) -> bool:
        """Whether another chunk fits in the memory of the node, beside those under way."""
        there = [h for h in self._crew.hands if h.node == hand.node and h.training]
        if not there:
            return True
        if len(there) >= self._most.get(hand.node, len(there) + 1):
            return False
        need, saved = self._needs[hand.wanted]
        taken = sum(self._needs[other.wanted][0] for other in there)
        return taken + need + saved <= _USABLE * hand.free

    def _train(self, hand: Hand, task: Task) -> None:
        desk, count = self._desk, len(self._crew.hands)
        state = desk.state(task)
        order = {
            "number": task.number,
            "points": [self._place_of(task, i) for i in range(len(task.points))],
            "seeds": task.seeds.tolist(),
            "pause": max(desk.pause, self._write_seconds * count / _WRITING_SHARE),
            "gap": count / _LISTS_PER_SECOND,
        }
        hand.training = True
        self._start(hand, "train", order, None if state is None else tuple(state))

    def _start(self, hand: Hand, what: str, *arguments: Any) -> None:
        hand.busy, hand.silence = True, 0.0
        self._crew.start(hand, what, *arguments)

    def _place_of(self, task: Task, run: int) -> int:
        return self._places[task.points[run].name]

    # --- Taking in.

    def _hear(self, found: list[tuple[Hand, list[Message] | Lost]], seconds: float) -> None:
        """Takes in what was said within so many seconds, and loses those who say nothing."""
        for hand in self._crew.hands:
            # Not more than a while at a time: this process may have been asleep itself.
            hand.silence += min(seconds, 5 * _POLL_SECONDS) if hand.busy else 0.0
        for hand, said in found:
            if isinstance(said, Lost):
                self._lose(hand, str(said), said.memory)
            else:
                self._take(hand, said)
        self._notice_silence()

    def _take(self, hand: Hand, messages: list[Message]) -> None:
        if hand.training:
            self._patience.heard(hand.wanted, hand.silence)
        hand.silence = 0.0
        for kind, *content in messages:
            getattr(self, f"_on_{kind}")(hand, *content)

    def _on_prepared(self, hand: Hand, need: int, saved: int, names: list[str]) -> None:
        self._needs[hand.wanted] = need, saved
        hand.busy, hand.group = False, hand.wanted
        self._desk.compiled(names, 0.0)

    def _on_refused(self, hand: Hand, text: str) -> None:
        group, task = hand.wanted, hand.task
        hand.unfit[group] = text
        self._free(hand)
        assert task is not None
        self._queues[group].appendleft(task.number)
        able = [h for h in self._crew.hands if h.kind == hand.kind and group not in h.unfit]
        if not able and not self._crew.coming:
            raise ConfigError(text)

    def _on_began(self, hand: Hand, step: int) -> None:
        assert hand.task is not None
        self._desk.began(hand.task, step)

    def _on_row(self, hand: Hand, step: int, metrics: Mapping[str, Any]) -> None:
        assert hand.task is not None
        self._desk.row(hand.task, step, metrics)

    def _on_snapshot(self, hand: Hand, step: int, params: Mapping[str, Any]) -> None:
        assert hand.task is not None
        self._desk.snapshot(hand.task, step, nested(params))

    def _on_state(self, hand: Hand, step: int, arrays: Mapping[str, Any]) -> None:
        assert hand.task is not None
        started = time.monotonic()
        self._desk.save(hand.task, lambda: State(step, arrays))
        self._write_seconds = time.monotonic() - started

    def _on_result(self, hand: Hand, fields: Mapping[str, Any]) -> None:
        task = hand.task
        assert task is not None
        self._free(hand)
        self._open.discard(task.number)
        self._failures.pop(task.number, None)
        self._last.pop(task.number, None)
        self._desk.finish(task, result_of(fields), hand.machine)

    def _on_stopped(self, hand: Hand) -> None:
        self._free(hand)

    def _on_failed(self, hand: Hand, text: str) -> None:
        task, group = hand.task, hand.wanted
        assert task is not None
        self._free(hand)
        self._queues[group].append(task.number)
        self._count(task.number, group, hand.name, text)

    def _free(self, hand: Hand) -> None:
        hand.busy = hand.training = False
        hand.task = None

    # --- Faults.

    def _notice_silence(self) -> None:
        for hand in list(self._crew.hands):
            if not hand.busy:
                continue
            limit = self._patience.limit(hand.wanted) * (1 if hand.training else 10)
            if hand.silence > limit:
                self._lose(hand, f"no word for {hand.silence:.0f} s")

    def _lose(self, hand: Hand, why: str, memory: bool = False) -> None:
        """Ends a worker, and puts its chunk at the head of the queue."""
        task, group, name = hand.task, hand.wanted, hand.name
        there = [h for h in self._crew.hands if h.node == hand.node and h.training]
        if memory:
            self._most[hand.node] = max(1, len(there) - 1)
        was_training = hand.training
        self._free(hand)
        self._crew.drop(hand)
        if task is None:
            return
        text = f"worker {name} was lost ({why}): chunk {task.number} goes elsewhere"
        warnings.warn(ClusterWarning(text), stacklevel=2)
        self._queues[group].appendleft(task.number)
        self._last[task.number] = (name, why)
        if was_training:
            self._suspects.setdefault(hand.node, []).append((task.number, group, why))

    def _count_deaths(self, nodes: Sequence[str]) -> None:
        """Counts the deaths on nodes that live as failures of the chunks."""
        for node in nodes:
            for number, group, why in self._suspects.pop(node, ()):
                if number in self._open:
                    self._count(number, group, self._last.get(number, ("", ""))[0], why)

    def _count(self, number: int, group: int, name: str, text: str) -> None:
        """Counts a failure of a chunk, and sets it aside after the last that is allowed."""
        self._last[number] = (name, text)
        self._failures[number] = self._failures.get(number, 0) + 1
        if self._failures[number] < MOST_FAILURES or number not in self._queues[group]:
            return
        self._queues[group].remove(number)
        self._open.discard(number)
        told = f"chunk {number} has failed {MOST_FAILURES} times and is set aside: {text}"
        warnings.warn(ClusterWarning(told), stacklevel=2)
        self._desk.set_aside(self._tasks[number], text)

    def _ask_to_stop(self) -> None:
        for hand in self._crew.hands:
            if hand.training:
                self._crew.stop(hand)
