"""What a person sees while a study runs: a live view, or a line now and then."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from dqx.progress import LINE_PERIOD, clock
from dqx.study.tally import Standing, StudyProgress

# Diverged runs that are named; more are counted.
_NAMED = 5

Show = Callable[[StudyProgress], None]


@contextlib.contextmanager
def view(stream: TextIO, quiet: bool = False) -> Iterator[Show]:
    """Opens the view that suits ``stream``: live, plain lines, or nothing if ``quiet``."""
    if quiet:
        yield lambda event: None
    elif stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        from rich.console import Console
        from rich.live import Live

        console = Console(file=stream)
        with Live(console=console, transient=True, refresh_per_second=4) as live:
            yield lambda event: live.update(_panel(event))
    else:
        yield _Lines(stream)


def words(event: StudyProgress) -> dict[str, str]:
    """The numbers as a person reads them, in the order of their weight."""
    shown = {
        "percent": f"{100 * event.steps // max(event.total_steps, 1)} %",
        "chunks": f"{event.chunks_done:,}/{event.chunks:,} chunks",
        "runs": f"{event.runs_done:,}/{event.runs:,} runs",
    }
    if math.isfinite(event.steps_per_second):
        shown["rate"] = f"{event.steps_per_second:,.0f} steps/s"
        shown["left"] = f"{clock(event.seconds_left)} left"
    elif event.runs_done < event.runs:
        shown["rate"] = "compiling"
    if event.best is not None:
        shown["best"] = f"best {_standing(event.best)}"
    if event.worst is not None and event.worst != event.best:
        shown["worst"] = f"worst {_standing(event.worst)}"
    if event.diverged:
        shown["diverged"] = f"diverged: {_diverged(event.diverged)}"
    return shown


def _standing(standing: Standing) -> str:
    runs = f"{standing.runs} run{'s' if standing.runs != 1 else ''}"
    return f"IQM {standing.iqm:.1f} of {runs}: {standing.name}"


def _diverged(runs: tuple[tuple[str, int, int], ...]) -> str:
    named = [f"seed {seed} of {name} at step {step:,}" for name, seed, step in runs[:_NAMED]]
    more = f", and {len(runs) - _NAMED:,} more" if len(runs) > _NAMED else ""
    return f"{len(runs):,} run{'s' * (len(runs) > 1)}: {', '.join(named)}{more}"


class _Lines:
    def __init__(self, stream: TextIO) -> None:
        self._stream, self._printed = stream, -math.inf

    def __call__(self, event: StudyProgress) -> None:
        over = event.runs_done == event.runs
        if time.monotonic() - self._printed >= LINE_PERIOD or over:
            text = ", ".join(words(event).values())
            print(f"{event.name}: {text}", file=self._stream, flush=True)
            self._printed = time.monotonic()


def _panel(event: StudyProgress) -> Any:
    from rich.console import Group
    from rich.padding import Padding
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    shown = words(event)
    head = Table.grid(padding=(0, 1), expand=True)
    head.add_column(no_wrap=True)
    head.add_column(ratio=1)
    head.add_column(justify="right", no_wrap=True)
    bar = ProgressBar(total=max(event.total_steps, 1), completed=event.steps)
    head.add_row(Text(event.name, style="bold"), bar, shown.pop("percent"))
    numbers = [shown.pop(key) for key in ("chunks", "runs", "rate", "left") if key in shown]
    lines = [Text("  ".join(numbers))]
    styles = {"best": "green", "worst": "yellow", "diverged": "red"}
    for key, text in shown.items():
        line = Text(text, style=styles[key], no_wrap=key != "diverged")
        line.overflow = "ellipsis" if key != "diverged" else "fold"
        lines.append(line)
    return Group(head, *(Padding(line, (0, 0, 0, 2)) for line in lines))
