"""The executor of a cluster: Ray starts workers, carries what they say, and tells who has died.

This process plans and is the only one that writes the study's folder. Ray is imported here alone,
and this file only when a cluster is named.
"""

import contextlib
import dataclasses
import logging
import os
import re
import socket
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from dqx.arguments import FLAG, SECONDS, TEXT, Kind, each, maybe, one_of, require, whole
from dqx.settings import ConfigError
from dqx.study.executors import Desk, Work
from dqx.study.executors.crew import RayCrew, reason
from dqx.study.executors.dispatch import Dispatch
from dqx.study.executors.hands import Hand, Lost, Patience
from dqx.study.executors.worker import Message, Worker, plan_message
from dqx.study.folder import Folder, StudyError
from dqx.study.identity import differences
from dqx.study.kinds import MachineKind, commonest, kinds_of, present_kinds, shared_out
from dqx.study.plan import Plan
from dqx.study.point import Point, point_of

_REACH_SECONDS = 10.0
INSTALL = "pip install 'dqx[cluster]'"
_FORM = r"auto|local:[1-9][0-9]{0,3}|(?!local:)[A-Za-z0-9.-]+:[0-9]{1,5}"
_ADDRESS = Kind(
    "auto, HOST:PORT of its head, or local:N",
    lambda value: isinstance(value, str) and re.fullmatch(_FORM, value) is not None,
)
_TIMES = Kind("how many times, 0 or more and finite", SECONDS.holds)


class Ray:
    """Trains the chunks of studies on a Ray cluster; give it to `run` and `resume`.

    Every node needs dqx with the same versions, and modules of one's own where Python finds them.

    Args:
        address: ``"auto"``, the cluster that this machine is part of; ``"HOST:PORT"`` of a
            cluster's head; or ``"local:4"``, four workers on this machine alone.
        workers: how many at most; one for each GPU of the cluster, or if it has none for each core,
            if left out.
        devices: ``"cpu"`` or ``"gpu"``, where both are there.
        kinds: ``"same"``: workers of one kind train a study, those that most are of; ``"split"``:
            all do, and every configuration stays on one kind (those that share a compiled program
            stay together).
        modules: to import in every worker, which may register agents and environments.
        cached: whether workers keep compiled programs for the next time.
        patience: after so many times the usual silence a worker counts as hanging.
        least_silence: seconds of silence that are always allowed.

    Raises:
        StudyError: if Ray is not installed, or there is no such cluster.
        ConfigError: for arguments that cannot work.
    """

    worker: type = Worker  # what its actors are

    def __init__(
        self,
        address: str = "auto",
        *,
        workers: int | None = None,
        devices: str | None = None,
        kinds: str = "same",
        modules: Sequence[str] = (),
        cached: bool = True,
        patience: float = 10.0,
        least_silence: float = 60.0,
    ) -> None:
        require(
            ConfigError,
            cluster=(address, _ADDRESS),
            workers=(workers, maybe(whole(1))),
            devices=(devices, maybe(one_of("cpu", "gpu"))),
            kinds=(kinds, one_of("same", "split")),
            modules=(modules, each(TEXT, "names of modules, such as ['my_agents']")),
            cached=(cached, FLAG),
            patience=(patience, _TIMES),
            least_silence=(least_silence, SECONDS),
        )
        self.used: tuple[str, ...] = ()
        self._split, self._kinds = kinds == "split", list[MachineKind]()
        self._address, self._workers, self._devices = address, workers, devices
        self._modules, self._cached = tuple(modules), cached
        self._patience, self._least_silence = patience, least_silence
        self._crew: RayCrew | None = None
        try:
            import ray
        except ModuleNotFoundError:
            raise StudyError(f"a cluster needs Ray, which is not installed: {INSTALL}") from None
        self._ray: Any = ray

    def __enter__(self) -> Self:
        ray = self._ray
        _connect(ray, self._address)
        try:
            kind = self._devices
            if kind is None:
                kind = "gpu" if ray.cluster_resources().get("GPU", 0) else "cpu"
            worker, how = self.worker, (self._modules, self._cached)
            self._crew = RayCrew(ray, worker, kind, self._workers, how)
        except BaseException:
            ray.shutdown()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        crew, self._crew = self._crew, None
        if crew is not None:
            crew.close()

    @property
    def crew(self) -> "RayCrew":
        """The workers, between entering and leaving.

        Raises:
            StudyError: before and after.
        """
        if self._crew is None:
            raise StudyError("the cluster is not connected: use `with Ray(...) as executor`")
        return self._crew

    def settle(self, plan: Plan, phase: Callable[[str], None]) -> Plan:
        phase("waiting for workers...")
        self.crew.gather(plan)
        self._kinds = shared_out(plan, self.crew.identities, self._split)
        self.crew.admit([kind.identity for kind in self._kinds])
        phase("compiling...")
        points = {point.name: point for point in plan.points}
        for number, kind in enumerate(self._kinds):
            part = dataclasses.replace(plan, points=tuple(points[name] for name in kind.points))
            points |= {point.name: point for point in self._settled(part, number)}
        return dataclasses.replace(plan, points=tuple(points.values()))

    def identity(self, plan: Plan) -> dict[str, str]:
        return self._kinds[0].identity

    def kinds(self, plan: Plan) -> list[MachineKind]:
        return self._kinds if len(self._kinds) > 1 else []

    def check(self, plan: Plan, folder: Folder, record: Mapping[str, Any]) -> None:
        self.crew.gather(plan)
        self._kinds = kinds_of(record)
        self.crew.admit([kind.identity for kind in self._kinds])
        for number, kind in enumerate(self._kinds):
            if not any(hand.kind == number for hand in self.crew.hands):
                found = differences(kind.identity, commonest(self.crew.identities)[0])
                raise StudyError(
                    f"{folder.path} cannot be resumed on this cluster, since bits might differ: "
                    f"{'; '.join(found)}. Resume it with what it was made with, or start a new "
                    "study in another folder"
                )

    def meet(self, plan: Plan, record: Mapping[str, Any]) -> list[MachineKind]:
        self.crew.gather(plan)
        self._kinds = present_kinds(kinds_of(record), self.crew.identities)
        self.crew.admit([kind.identity for kind in self._kinds])
        return self._kinds

    def train(
        self,
        work: Sequence[Work],
        desk: Desk,
        stop: threading.Event,
        avoid: Mapping[int, str] | None = None,
    ) -> None:
        plan = desk.plan
        places = {point.name: i for i, point in enumerate(plan.points)}
        patience = Patience(self._patience, self._least_silence)
        dispatch = Dispatch(
            self.crew,
            work,
            desk,
            self.crew.kept(plan_message(plan)),
            places,
            patience,
            kinds={name: i for i, kind in enumerate(self._kinds) for name in kind.points},
            avoid=avoid,
        )
        try:
            dispatch.run(stop)
        finally:
            self.used = tuple(sorted(self.crew.used))

    def _settled(self, plan: Plan, number: int) -> list[Point]:
        """The points of a plan with the chunk widths of a kind of workers.

        Raises:
            ConfigError: if a configuration does not fit in memory there.
        """
        hand = next(hand for hand in self.crew.hands if hand.kind == number)
        kind, *content = self._asked(hand, "settle", plan_message(plan))
        if kind == "refused":
            raise ConfigError(content[0])
        points, notes = content
        for note in notes:
            warnings.warn(note, stacklevel=5)
        return [point_of(point) for point in points]

    def _asked(self, hand: Hand, what: str, *arguments: Any) -> Message:
        """What a worker says to a question.

        Raises:
            StudyError: if it is lost over that.
        """
        self.crew.start(hand, what, *arguments)
        while True:
            for other, said in self.crew.poll(1.0):
                if other is hand and isinstance(said, Lost):
                    raise StudyError(f"worker {hand.name} was lost while it compiled: {said}")
                if other is hand and not isinstance(said, Lost):
                    return said[0]


@contextlib.contextmanager
def quiet_forks() -> Iterator[None]:
    """Lets Ray start processes without a warning of JAX.

    They are other programs at once, so that the threads of this one do not matter to them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called")
        yield


def _connect(ray: Any, address: str) -> None:
    """Connects Ray to a cluster, or starts one on this machine.

    Raises:
        StudyError: if there is no cluster there.
    """
    if ray.is_initialized():
        raise StudyError("this process is connected to Ray already: call ray.shutdown() first")
    quiet: dict[str, Any] = {
        "logging_level": logging.ERROR,
        "log_to_driver": False,
    }
    kind, _, count = address.partition(":")
    if kind not in ("auto", "local"):
        _check_reachable(kind, int(count))
    try:
        with quiet_forks():
            if kind == "local":
                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it tells nobody of it
                ray.init(address="local", num_cpus=int(count), include_dashboard=False, **quiet)
            else:
                ray.init(address=address, **quiet)
    except (ray.exceptions.RayError, ValueError, RuntimeError, OSError) as error:
        if kind == "local":
            raise StudyError(f"no workers can be started here: {reason(error)}") from None
        raise StudyError(
            f"there is no Ray cluster at {address} ({reason(error)}): `ray start --head` starts "
            "one, `--cluster local:4` needs none"
        ) from None


def _check_reachable(host: str, port: int) -> None:
    """Refuses an address where nobody answers, which Ray would try for minutes.

    Raises:
        StudyError: naming it.
    """
    try:
        socket.create_connection((host, port), timeout=_REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise StudyError(
            f"nothing answers at {host}:{port} ({error}): give the address that `ray start --head` "
            "prints, or --cluster local:4, which needs none"
        ) from None
