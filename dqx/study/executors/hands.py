"""Workers of a cluster as the driver sees them: hands of a crew, and how long they may be silent.

This file knows nothing of Ray.
"""

from typing import Any, Protocol

from dqx.study.executors.worker import Message
from dqx.study.schedule import Task


class ClusterWarning(UserWarning):
    """Workers that are left aside or lost, and chunks that are set aside."""


class Patience:
    """How long a worker may be silent.

    Args:
        times: what is usual, that is the longest silence so far of chunks of the same group.
        least: seconds that are always allowed; ten times as long while nothing is known yet.
    """

    def __init__(self, times: float = 10.0, least: float = 60.0) -> None:
        self.times, self.least = times, least
        self._longest: dict[int, float] = {}

    def heard(self, group: int, silence: float) -> None:
        """A worker of this group has spoken after a silence."""
        self._longest[group] = max(self._longest.get(group, 0.0), silence)

    def limit(self, group: int) -> float:
        """Seconds after which a worker of this group counts as hanging."""
        longest = self._longest.get(group)
        return 10 * self.least if longest is None else max(self.least, self.times * longest)


class Hand:
    """A worker as the driver sees it.

    Attributes:
        name: for people.
        node: which node of the cluster it is on; those on one share its memory.
        machine: the name of that node's machine in records.
        free: bytes of memory that were free there when it started.
        kind: which kind of machine it is, of those that train the study.
        group: number of the group whose programs it has; None: of none yet.
        task: what it does or will do; None: nothing.
        wanted: number of the group of its task.
        silence: seconds since it has last been heard.
        busy: whether it was told to do something and has not done it.
        training: whether its chunk is under way.
        unfit: groups whose chunks do not fit there, and why.
    """

    def __init__(self, name: str, node: str, machine: str, free: int) -> None:
        self.name, self.node, self.machine, self.free = name, node, machine, free
        self.kind = 0
        self.group: int | None = None
        self.task: Task | None = None
        self.wanted: int = -1  # the group of its task
        self.silence = 0.0
        self.busy = self.training = False
        self.unfit: dict[int, str] = {}  # groups whose chunks do not fit here, and why


class Lost(Exception):
    """A worker is gone; the text says why.

    Attributes:
        memory: whether it was ended because its node ran out of memory.
    """

    def __init__(self, text: str, memory: bool = False) -> None:
        super().__init__(text)
        self.memory = memory


class Crew(Protocol):
    """The workers of a cluster.

    Attributes:
        hands: those who can train now.
    """

    hands: list[Hand]

    def start(self, hand: Hand, what: str, *arguments: Any) -> None:
        """Lets a worker begin something that gives lists of messages."""

    def poll(self, seconds: float) -> list[tuple[Hand, list[Message] | Lost]]:
        """What workers have said since; waits at most so long for the first."""

    def stop(self, hand: Hand) -> None:
        """Asks a worker to end at its next row."""

    def drop(self, hand: Hand) -> None:
        """Ends a worker, whatever it does, and asks for another in its place."""

    def look(self) -> list[str]:
        """Lets workers join that have come up; the nodes that have gained one."""

    @property
    def coming(self) -> bool:
        """Whether workers are starting."""
