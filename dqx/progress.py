"""What a person sees while seeds train: one live bar on a terminal, now and then a line elsewhere.

Nothing here imports JAX, so that the first words appear before JAX does.
"""

import contextlib
import math
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import numpy as np

if TYPE_CHECKING:
    from dqx.run import Progress

# Seconds from one plain line to the next.
LINE_PERIOD = 5.0


class Display(Protocol):
    """Shows a run; called with every `dqx.Progress`."""

    def phase(self, text: str) -> None:
        """Says what is being done where there are no numbers; speeds count from the last one."""

    def __call__(self, event: "Progress") -> None:
        """Shows the numbers."""


@contextlib.contextmanager
def display(name: str, num_seeds: int, stream: TextIO, quiet: bool = False) -> Iterator[Display]:
    """Opens the display that suits ``stream``: a bar, plain lines, or nothing if ``quiet``.

    Args:
        name: of the run, such as that of its preset.
        num_seeds: S.
        stream: a bar needs a terminal that understands control characters; any other stream gets
            none.
    """
    if quiet:
        yield _Silent()
    elif stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        with _bar(stream) as bar:
            yield _Bar(name, num_seeds, bar)
    else:
        yield _Lines(name, num_seeds, stream)


class _Numbers:
    """Turns events into what is shown."""

    def __init__(self, num_seeds: int) -> None:
        self._num_seeds, self._last_return = num_seeds, math.nan
        self.restart()

    def restart(self) -> None:
        self._started = time.perf_counter()

    def __call__(self, event: "Progress") -> dict[str, str]:
        seconds = time.perf_counter() - self._started - event.compile_seconds
        rate = event.steps / max(seconds, 1e-9)
        left = (event.total_steps - event.steps) / rate
        returns = event.row["eval_return"]
        if np.isfinite(returns).any():
            self._last_return = float(returns[np.isfinite(returns)].mean())
        shown = {
            "percent": f"{100 * event.steps // event.total_steps} %",
            "rate": f"{rate:,.0f} steps/s",
            "seeds": f"{event.seeds_done}/{self._num_seeds} seeds done",
            "left": f"{clock(left)} left",
        }
        if not math.isnan(self._last_return):
            shown["return"] = f"greedy return {self._last_return:.1f}"
        return shown


class _Silent:
    def phase(self, text: str) -> None:
        pass

    def __call__(self, event: "Progress") -> None:
        pass


class _Lines:
    def __init__(self, name: str, num_seeds: int, stream: TextIO) -> None:
        self._name, self._stream, self._numbers = name, stream, _Numbers(num_seeds)
        self._printed = time.perf_counter()

    def phase(self, text: str) -> None:
        self._numbers.restart()
        self._print(text)

    def __call__(self, event: "Progress") -> None:
        shown = self._numbers(event)
        if time.perf_counter() - self._printed >= LINE_PERIOD:
            self._print(", ".join(shown.values()))

    def _print(self, text: str) -> None:
        print(f"{self._name}: {text}", file=self._stream, flush=True)
        self._printed = time.perf_counter()


class _Bar:
    def __init__(self, name: str, num_seeds: int, bar: Any) -> None:
        self._bar, self._numbers = bar, _Numbers(num_seeds)
        self._task = bar.add_task(name, total=None, shown="")

    def phase(self, text: str) -> None:
        self._numbers.restart()
        self._bar.update(self._task, total=None, shown=text)

    def __call__(self, event: "Progress") -> None:
        shown = " ".join(self._numbers(event).values()).replace(" seeds done", " seeds")
        self._bar.update(self._task, completed=event.steps, total=event.total_steps, shown=shown)


def _bar(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    return Progress(
        SpinnerColumn("line"),  # moves while something compiles: it is not stuck
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[shown]}", markup=False),
        console=Console(file=stream),
        transient=True,
        expand=True,
    )


def clock(seconds: float) -> str:
    """Seconds as 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
