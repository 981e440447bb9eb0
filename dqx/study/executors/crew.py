"""Workers of a cluster as Ray's actors: they join, say who they are, are heard, and are ended."""

import contextlib
import re
import time
import warnings
from collections.abc import Sequence
from typing import Any

from dqx.compute.devices import THREADS
from dqx.study.executors.hands import ClusterWarning, Hand, Lost
from dqx.study.executors.worker import Message
from dqx.study.folder import StudyError
from dqx.study.identity import differences
from dqx.study.plan import Plan

_HELLO_SECONDS = 60.0  # for those who are slower than the first
_COME_SECONDS = 300.0  # for the first


class RayCrew:
    """Workers as Ray's actors, one a GPU or a core.

    Attributes:
        hands: those that can train: their bits are the study's.
        identities: of all that have said hello, by actor.
        used: names of those that have trained.
    """

    def __init__(
        self,
        ray: Any,
        worker: type,
        kind: str,
        workers: int | None,
        options: tuple[Sequence[str], bool],
    ) -> None:
        self.hands: list[Hand] = []
        self.identities: dict[str, dict[str, str]] = {}
        self.used: set[str] = set()
        self._ray, self._kind, self._workers, self._options = ray, kind, workers, options
        self._actor_class = ray.remote(worker)
        self._actors: dict[str, Any] = {}  # by name of the worker
        self._starting: dict[Any, tuple[str, str]] = {}  # hello: name and node
        self._streams: dict[Any, Hand] = {}
        self._aside: dict[str, Hand] = {}  # by name; those with other bits
        self._hopeless: dict[str, int] = {}  # workers that cannot start on a node
        self._numbers: dict[str, int] = {}  # of workers made on a node
        self._wanted: list[dict[str, str]] | None = None
        self._names: tuple[list[str], list[str]] = ([], [])
        if workers is not None:
            self._ask_for_nodes(workers)

    @property
    def coming(self) -> bool:
        return bool(self._starting)

    # --- Joining.

    def gather(self, plan: Plan) -> None:
        """Starts workers wherever there is room, and waits until they have said hello.

        Raises:
            StudyError: if none does.
        """
        self._names = (sorted(plan.agents), sorted(plan.environments))
        began = first = time.monotonic()
        while True:
            self._hire()
            self._welcome(0.5)
            now = time.monotonic()
            if not self.identities:
                first = now
                if now - began > _COME_SECONDS:
                    raise StudyError(
                        f"no worker has come up in {_COME_SECONDS:.0f} s: `ray status` says what "
                        "the cluster has, and its nodes need dqx installed"
                    )
            elif not self._starting or now - first > _HELLO_SECONDS:
                return

    def admit(self, identities: list[dict[str, str]]) -> None:
        """Keeps workers of these kinds, and leaves others aside, now and later."""
        self._wanted = identities
        everyone, self.hands, self._aside = [*self.hands, *self._aside.values()], [], {}
        told: dict[tuple[str, str], int] = {}
        for hand in everyone:
            apart = self._placed(hand)
            if apart:
                key = (hand.machine, apart)
                told[key] = told.get(key, 0) + 1
        for (machine, texts), count in told.items():
            _left_aside(count, machine, texts)

    def _placed(self, hand: Hand) -> str:
        """Puts a worker with its kind, or aside; how it differs then, in words."""
        wanted, own = self._wanted, self.identities[hand.name]
        if wanted is None or own in wanted:
            hand.kind = 0 if wanted is None else wanted.index(own)
            self.hands.append(hand)
            return ""
        self._aside[hand.name] = hand
        return "; ".join(differences(wanted[0], own))

    def look(self) -> list[str]:
        before = {hand.name for hand in self.hands}
        self._hire()
        self._welcome(0.0)
        return [hand.node for hand in self.hands if hand.name not in before]

    def _hire(self) -> None:
        """Starts as many workers on every node as it has GPUs or cores for."""
        resource = "GPU" if self._kind == "gpu" else "CPU"
        nodes = {n["NodeID"]: n for n in self._ray.nodes() if n["Alive"]}
        there: dict[str, int] = {node: self._hopeless.get(node, 0) for node in nodes}
        for hand in (*self.hands, *self._aside.values()):
            there[hand.node] = there.get(hand.node, 0) + 1
        for _, node in self._starting.values():
            there[node] = there.get(node, 0) + 1
        for node, facts in nodes.items():
            for _ in range(int(facts["Resources"].get(resource, 0)) - there[node]):
                if self._workers is None or sum(there.values()) < self._workers:
                    self._begin(node, facts["NodeManagerHostname"])
                    there[node] += 1

    def _begin(self, node: str, host: str) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        number = self._numbers[node] = self._numbers.get(node, 0) + 1
        name = f"{host}/{node[:6]}/{self._kind}-{number}"
        actor = self._actor_class.options(
            num_cpus=0 if self._kind == "gpu" else 1,
            num_gpus=1 if self._kind == "gpu" else 0,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=2,  # `stop` is heard while `train` runs
            runtime_env={"env_vars": {THREADS: "1"}} if self._kind == "cpu" else None,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        ).remote(self._kind, *self._options)
        self._actors[name] = actor
        stream = actor.hello.options(num_returns="streaming").remote(*self._names)
        self._starting[stream] = (name, node)

    def _welcome(self, seconds: float) -> None:
        """Takes in workers that have said hello, and gives up those that cannot."""
        if not self._starting:
            return
        wait = self._ray.wait
        ready, _ = wait(list(self._starting), num_returns=1, timeout=seconds, fetch_local=False)
        if ready:
            ready, _ = wait(list(self._starting), num_returns=len(self._starting), timeout=0)
        for stream in ready:
            name, node = self._starting.pop(stream)
            try:
                ((_, identity, machine, free),) = self._ray.get(next(stream))
            except (self._ray.exceptions.RayError, StopIteration) as error:
                self._actors.pop(name, None)
                alive = {n["NodeID"] for n in self._ray.nodes() if n["Alive"]}
                if node in alive:
                    text = f"worker {name} cannot start: {reason(error)}"
                    warnings.warn(ClusterWarning(text), stacklevel=4)
                    self._hopeless[node] = self._hopeless.get(node, 0) + 1  # not tried again
                continue
            self.identities[name] = identity
            if apart := self._placed(Hand(name, node, machine, free)):
                _left_aside(1, machine, apart)

    def _ask_for_nodes(self, workers: int) -> None:
        """Tells an autoscaler, if the cluster has one, how many workers are wanted."""
        from ray.autoscaler.sdk import request_resources

        resource = "GPU" if self._kind == "gpu" else "CPU"
        request_resources(bundles=[{resource: 1}] * workers)

    # --- Work.

    def kept(self, content: Any) -> Any:
        """A reference to what all workers are to get."""
        return self._ray.put(content)

    def start(self, hand: Hand, what: str, *arguments: Any) -> None:
        method = getattr(self._actors[hand.name], what)
        self._streams[method.options(num_returns="streaming").remote(*arguments)] = hand
        if what == "train":
            self.used.add(hand.name)

    def poll(self, seconds: float) -> list[tuple[Hand, list[Message] | Lost]]:
        streams = list(self._streams)
        if not streams:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(streams, num_returns=1, timeout=seconds)
        if len(streams) > 1 and ready:
            ready, _ = self._ray.wait(streams, num_returns=len(streams), timeout=0)
        found: list[tuple[Hand, list[Message] | Lost]] = []
        for stream in ready:
            hand = self._streams[stream]
            try:
                found.append((hand, self._ray.get(next(stream))))
            except StopIteration:
                del self._streams[stream]
            except self._ray.exceptions.RayError as error:
                del self._streams[stream]
                text = reason(error)
                # The whole error: of a death out of memory the last line alone need not say so.
                memory = bool(re.search(r"(?i)out of memory|low on memory|\boom\b", str(error)))
                found.append((hand, Lost(text, memory)))
        return found

    def stop(self, hand: Hand) -> None:
        self._actors[hand.name].stop.remote()

    def drop(self, hand: Hand) -> None:
        if hand in self.hands:
            self.hands.remove(hand)
        self.identities.pop(hand.name, None)
        self._streams = {s: h for s, h in self._streams.items() if h is not hand}
        actor = self._actors.pop(hand.name, None)
        if actor is not None:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor)

    def close(self) -> None:
        """Ends all workers, and a cluster that was started for this."""
        self._streams.clear()
        self._starting.clear()
        for actor in self._actors.values():
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor)
        if self._workers is not None:  # what was asked for stays wanted until it is taken back
            self._ask_for_nodes(0)
        self._ray.shutdown()


def _left_aside(count: int, machine: str, apart: str) -> None:
    workers = "a worker is" if count == 1 else f"{count} workers are"
    text = f"{workers} left aside on {machine}, where bits might differ: {apart}"
    warnings.warn(ClusterWarning(text), stacklevel=5)


def reason(error: BaseException) -> str:
    """The last line of what Ray says that tells something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [
        line for line in lines if not re.match(r"(class_name|actor_id|pid|namespace|ip):", line)
    ]
    return (telling or [type(error).__name__])[-1][:300]
