"""Who trains the chunks of a study: this machine, or a cluster; both are told of in one way.

An executor trains, and knows neither folder nor sinks. What comes out goes over a desk, which the
engine is: rows of metrics, checkpoints, finished chunks. So the process that plans is the only one
that writes, whoever trains.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from dqx.arguments import Kind
from dqx.compute.programs import Programs
from dqx.compute.session import ChunkResult, Saved
from dqx.core.types import PyTree
from dqx.settings import Config
from dqx.study.checkpoint import State
from dqx.study.folder import Folder
from dqx.study.kinds import MachineKind
from dqx.study.plan import Plan
from dqx.study.schedule import Group, Task

# The chunks of a group that are still to be trained, those with a checkpoint first.
Work = tuple[Group, Sequence[Task]]


class Desk(Protocol):
    """What takes in what executors make; may be called from several threads.

    Attributes:
        plan: of the study, settled.
        pause: least seconds between checkpoints of a chunk; infinite: none at all.
    """

    plan: Plan
    pause: float

    def phase(self, text: str) -> None:
        """Something begins that may take a while, such as compiling."""

    def compiled(self, names: Sequence[str], seconds: float) -> None:
        """Programs of these names were compiled, and nothing trained for so many seconds."""

    def restored(self, task: Task, programs: Programs) -> Saved | None:
        """The state that a chunk was last saved in, for a session of this process."""

    def state(self, task: Task) -> State | None:
        """The same as plain arrays, for a session of another process."""

    def began(self, task: Task, step: int) -> float:
        """A chunk is trained from this step on; the moment, from which checkpoints are due."""

    def row(self, task: Task, step: int, metrics: Mapping[str, np.ndarray]) -> None:
        """A row of metrics, ``{name: [w]}``; one that was there before a loss is passed over."""

    def due(self, stopping: bool, last: float, config: Config) -> bool:
        """Whether it is time for a checkpoint: when stopping, or long after the one at ``last``."""

    def save(self, task: Task, state: Callable[[], Saved | State]) -> float:
        """Writes a checkpoint, one state at a time in memory; when that was over."""

    def snapshot(self, task: Task, step: int, params: PyTree) -> None:
        """Writes the parameters of a chunk's runs at a step."""

    def finish(self, task: Task, result: ChunkResult, machine: str) -> None:
        """Takes the results of a chunk, and the machine that trained it."""

    def set_aside(self, task: Task, error: str) -> None:
        """A chunk is given up for now; the study goes on with the others."""


class Executor(Protocol):
    """Trains chunks, between entering it and leaving it.

    Attributes:
        used: names of the places of the group that used most.
    """

    used: tuple[str, ...]

    def settle(self, plan: Plan, phase: Callable[[str], None]) -> Plan:
        """The plan with its chunk widths filled in; see `schedule.settle`."""

    def identity(self, plan: Plan) -> dict[str, str]:
        """What the bits of a new study will depend on besides its plan."""

    def kinds(self, plan: Plan) -> list[MachineKind]:
        """The kinds of machines that will train a new study, if there are several."""

    def check(self, plan: Plan, folder: Folder, record: Mapping[str, Any]) -> None:
        """Refuses to go on with a study whose bits nobody here would give.

        Raises:
            StudyError: showing both sides.
        """

    def meet(self, plan: Plan, record: Mapping[str, Any]) -> list[MachineKind]:
        """Gets ready to train runs again, and gives which kinds of machines train which of them.

        That is the kind that has trained them before, if a worker here is of it.
        """

    def train(
        self,
        work: Sequence[Work],
        desk: Desk,
        stop: threading.Event,
        avoid: Mapping[int, str] | None = None,
    ) -> None:
        """Trains all chunks, or each to its next checkpoint once ``stop`` is set.

        Args:
            work: what to train.
            desk: what takes in what is made.
            stop: asks to stop.
            avoid: the machine that a chunk is not to be trained on if there is another, by number.

        Raises:
            Stopped: if it was asked to stop.
            ConfigError: if not even one chunk of a group fits in memory.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


EXECUTOR = Kind(
    "one that trains chunks, such as dqx.study.Ray()",
    lambda value: all(
        callable(getattr(value, name, None))
        for name in (
            "settle",
            "identity",
            "kinds",
            "check",
            "meet",
            "train",
            "__enter__",
            "__exit__",
        )  # fmt: skip
    ),
)
