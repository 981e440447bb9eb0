"""TensorBoard: event files beside a study, written without TensorFlow."""

import importlib.util
import itertools
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqx.files import OutputError, check_folder
from dqx.report.trackers.scalars import HIGH, LOW, RETURNS, Scalars, TrackedRun
from dqx.settings import ConfigError

if TYPE_CHECKING:
    from dqx.study.plan import Plan

_LONGEST = 120  # of a folder's name
_NUMBERS = itertools.count()


class TensorBoard(Scalars):
    """Writes every row as an event, at once, so that a kill loses nothing.

    A resumption writes new files and leaves out the steps that older ones hold.

    Args:
        folder: where a folder for each run is made.
        runs: ``"config"`` or ``"seed"``, see `Scalars`.
        go_on: whether runs that are there already may be those of this study.

    Raises:
        ConfigError: if the package ``tensorboard`` is not installed, or as `Scalars` does.
    """

    def __init__(
        self, folder: str | os.PathLike[str], runs: str = "config", *, go_on: bool = False
    ) -> None:
        super().__init__(runs)
        if importlib.util.find_spec("tensorboard") is None:
            raise ConfigError(
                "event files are written by the package tensorboard, which is not installed: "
                "pip install 'dqx[tensorboard]'"
            )
        self._folder, self._go_on = Path(folder), go_on
        self._files: dict[Path, Path] = {}
        self._places: dict[str, Path] = {}

    def open(self, plan: "Plan") -> None:
        """Chooses a folder for each run.

        Raises:
            OutputError: if one holds events already and the study does not go on, or they cannot
                be written.
        """
        super().open(plan)
        check_folder(self._folder, "choose another folder for --tensorboard")
        taken: set[str] = set()
        for run in self._runs.values():
            if (run.seed is None) is self._per_seed:
                continue
            name = _folder_name(run.name, taken)
            taken.add(name.lower())
            self._places[run.name] = self._folder / name
            if not self._go_on and any(_event_files(self._folder / name)):
                raise OutputError(
                    f"{self._folder / name} holds events of another study: choose another folder "
                    "for --tensorboard, or remove it"
                )

    def last(self, run: TrackedRun) -> int:
        from tensorboard.backend.event_processing import event_file_loader

        found = -1
        for path in _event_files(self._places[run.name]):
            for event in event_file_loader.RawEventFileLoader(str(path)).Load():
                found = max(found, _step_of(event))
        return found

    def write(self, run: TrackedRun, step: int, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2

        entries = [
            summary_pb2.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()
        ]
        summary = summary_pb2.Summary(value=entries)
        event = event_pb2.Event(wall_time=time.time(), step=step, summary=summary)
        folder = self._places[run.name]
        if folder not in self._files:
            self._files[folder] = self._begun(folder)
        _append(self._files[folder], event)

    def _begun(self, folder: Path) -> Path:
        """A new file of events in a run's folder, with what stands before the first row."""
        from tensorboard.compat.proto import event_pb2

        folder.mkdir(parents=True, exist_ok=True)
        # As TensorBoard wants it, and another name for each process and file.
        stamp = f"{time.time_ns()}.{socket.gethostname()}.{os.getpid()}.{next(_NUMBERS)}"
        is_first = not any(_event_files(folder))
        path = folder / f"events.out.tfevents.{stamp}"
        now = time.time()
        _append(path, event_pb2.Event(wall_time=now, file_version="brain.Event:2"))
        if is_first and not self._per_seed:
            _append(path, event_pb2.Event(wall_time=now, summary=_layout()))
        return path


def _append(path: Path, event: Any) -> None:
    # Open for a moment only: of a thousand seeds a thousand files would be more than may be open.
    from tensorboard.summary.writer.record_writer import RecordWriter

    with open(path, "ab") as file:
        RecordWriter(file).write(event.SerializeToString())


def _layout() -> Any:
    """Charts of IQMs with their intervals, for the tab Custom Scalars."""
    from tensorboard.compat.proto import summary_pb2, tensor_pb2, types_pb2
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata

    charts = [
        layout_pb2.Chart(
            title=f"{name} (IQM over seeds, 95 % interval)",
            margin=layout_pb2.MarginChartContent(
                series=[
                    layout_pb2.MarginChartContent.Series(
                        value=name, lower=name + LOW, upper=name + HIGH
                    )
                ]
            ),
        )
        for name in RETURNS
    ]
    layout = layout_pb2.Layout(category=[layout_pb2.Category(title="returns", chart=charts)])
    # What `custom_scalar.summary.pb` makes of it, which needs TensorFlow.
    tensor = tensor_pb2.TensorProto(
        dtype=types_pb2.DT_STRING, string_val=[layout.SerializeToString()]
    )
    value = summary_pb2.Summary.Value(
        tag=metadata.CONFIG_SUMMARY_TAG, metadata=metadata.create_summary_metadata(), tensor=tensor
    )
    return summary_pb2.Summary(value=[value])


def _event_files(folder: Path) -> Iterator[Path]:
    return iter(sorted(folder.glob("events.out.tfevents.*")))


def _step_of(serialized: bytes) -> int:
    from tensorboard.compat.proto import event_pb2

    event = event_pb2.Event.FromString(serialized)
    values = event.summary.value if event.HasField("summary") else ()
    return int(event.step) if any(v.HasField("simple_value") for v in values) else -1


def _folder_name(name: str, taken: set[str]) -> str:
    """A path of plain names below the tracker's folder, which nothing else has."""
    parts = [re.sub(r"[^\w.=+,-]+", "-", part)[:_LONGEST].strip(". ") for part in name.split("/")]
    plain = "/".join(part for part in parts if part) or "run"
    found, number = plain, 1
    while found.lower() in taken:
        number += 1
        found = f"{plain}-{number}"
    return found
