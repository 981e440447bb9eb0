"""A crew without a cluster: workers that give made-up numbers, and die or fall silent when told."""

import collections
import math
import threading
import time
from types import SimpleNamespace

import numpy as np

from dqx.settings import row_steps
from dqx.study.checkpoint import State
from dqx.study.executors.dispatch import Dispatch
from dqx.study.executors.hands import Hand, Lost, Patience
from dqx.study.executors.worker import plan_from, plan_message, result_message
from dqx.study.kinds import MachineKind
from dqx.study.schedule import Task, groups
from tests.study.kit import IDENTITY, chunk_result, numbers

DIE, DIE_WITH_NODE, FAIL, HANG, STOP = "die", "die with node", "fail", "hang", "stop"


class FakeCrew:
    """Workers of made-up numbers.

    Args:
        nodes: the node of each worker.
        fate: ``fate(worker's name, chunk, step)`` before each row: None, or what happens.
        machines: of nodes, if not called as these.
        free: bytes of memory of a node; a chunk takes 100 and 10 for its checkpoint.
        pause: seconds that each poll takes on the clock.

    Attributes:
        trained: chunks by worker, in order; restarts: chunk and step of each that went on.
        most: how many chunks were under way at a time, by node.
    """

    coming = False

    def __init__(self, nodes, fate=lambda *_: None, machines=None, free=10**6, refuses=()):
        self._numbers = collections.Counter()
        self._machines, self._free, self._refuses = machines or {}, free, refuses
        self._fate, self._streams, self._stopped, self._plan = fate, {}, set(), None
        self.hands = [self._hand(node) for node in nodes]
        self.trained, self.starts, self.most = collections.defaultdict(list), [], {}
        self.orders = []
        self._gone = []

    def _hand(self, node):
        self._numbers[node] += 1
        name = f"{node}-{self._numbers[node]}"
        return Hand(name, node, self._machines.get(node, node), self._free)

    def start(self, hand, what, *arguments):
        self._streams[hand.name] = (hand, getattr(self, f"_{what}")(hand, *arguments))

    def poll(self, seconds):
        found = []
        for name, (hand, stream) in list(self._streams.items()):
            try:
                said = next(stream)
            except StopIteration:
                if self._streams.get(name, (None, None))[1] is stream:
                    del self._streams[name]
                continue
            except Lost as lost:
                said = lost
            if said is not None:
                found.append((hand, said))
        return found

    def stop(self, hand):
        self._stopped.add(hand.name)

    def drop(self, hand):
        self.hands.remove(hand)
        self._streams.pop(hand.name, None)
        self._gone.append(hand.node)

    def look(self):
        gone, self._gone = self._gone, []
        come = [node for node in gone if not node.startswith("dead")]
        self.hands += [self._hand(node) for node in come]
        return come

    def _prepare(self, hand, plan, point):
        if hand.node in self._refuses:
            yield [("refused", f"too large for {hand.node}")]
            return
        self._plan = plan_from(plan)
        yield [("prepared", 100, 10, ["segment"])]

    def _train(self, hand, order, state):
        plan = self._plan
        points = tuple(plan.points[i] for i in order["points"])
        task = Task(order["number"], points, order["seeds"], plan.root_seed)
        self.trained[hand.name].append(task.number)
        self.orders.append(order)
        at = 0 if state is None else state[0]
        self.starts.append((task.number, at))
        busy = [h for h in self.hands if h.node == hand.node and h.training]
        self.most[hand.node] = max(self.most.get(hand.node, 0), len(busy))
        result = chunk_result(
            SimpleNamespace(seeds=np.array(task.seeds), points=points, config=points[0].config),
            [numbers(p, s) for p, s in zip(points, task.seeds, strict=True)],
        )
        yield [("began", at)]
        for k, step in enumerate(row_steps(points[0].config)):
            if step <= at:
                continue
            match self._fate(hand.name, task.number, step):
                case "die":
                    raise Lost("it died")
                case "die with node":
                    hand.node = f"dead {hand.node}"
                    raise Lost("its node died")
                case "fail":
                    yield [("failed", f"ValueError: of chunk {task.number}")]
                    return
                case "hang":
                    while True:
                        yield None
            yield [("row", step, {n: v[:, k] for n, v in result.metrics.items()})]
            if math.isfinite(order["pause"]):
                yield [("state", step, {"step": step})]
            if hand.name in self._stopped:
                yield [("stopped",)]
                return
        yield [("result", result_message(result))]


class Notes:
    """A desk that keeps what it is told."""

    def __init__(self, plan, pause=0.0):
        self.plan, self.pause = plan, pause
        self.rows, self.states, self.results = [], {}, {}
        self.machines, self.aside, self.compiled_seconds = {}, {}, 0.0

    def phase(self, text):
        pass

    def compiled(self, names, seconds):
        self.compiled_seconds += seconds

    def state(self, task):
        return self.states.get(task.number)

    def began(self, task, step):
        return 0.0

    def row(self, task, step, metrics):
        self.rows.append((task.number, step))

    def save(self, task, state):
        self.states[task.number] = State(*state())
        return 0.0

    def finish(self, task, result, machine):
        assert task.number not in self.results  # once
        self.results[task.number], self.machines[task.number] = result, machine

    def set_aside(self, task, error):
        self.aside[task.number] = error


def dispatch(crew, plan, desk, stop=None, avoid=None, kinds=None, **patience):
    """Trains a plan by a crew."""
    made = Dispatch(
        crew,
        [(group, group.tasks) for group in groups(plan)],
        desk,
        plan_message(plan),
        {point.name: i for i, point in enumerate(plan.points)},
        Patience(**patience),
        wait_seconds=60.0,
        kinds=kinds,
        avoid=avoid,
    )
    made.run(threading.Event() if stop is None else stop)


class Clock:
    """A clock that moves on by half of some seconds whenever it is read."""

    def __init__(self, patch, module, seconds):
        self.now, self.seconds = 100.0, seconds
        patch.setattr(module, "time", SimpleNamespace(monotonic=self, perf_counter=time.monotonic))

    def __call__(self):
        self.now += self.seconds / 2  # read once a round
        return self.now


class Pretended:
    """An executor whose workers are a fake crew's; another crew each time it is entered.

    Args:
        crews: that train, in turn.
    """

    def __init__(self, *crews):
        self._crews, self.used = list(crews), ("made up",)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def settle(self, plan, phase):
        return plan

    def identity(self, plan):
        return IDENTITY

    def kinds(self, plan):
        return []

    def meet(self, plan, record):
        return [MachineKind(IDENTITY, [point.name for point in plan.points])]

    def check(self, plan, folder, record):
        assert record["identity"] == IDENTITY

    def train(self, work, desk, stop):
        places = {point.name: i for i, point in enumerate(desk.plan.points)}
        crew = self._crews.pop(0)
        Dispatch(crew, work, desk, plan_message(desk.plan), places, Patience()).run(stop)
