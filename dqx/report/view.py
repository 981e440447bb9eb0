"""What a person sees while a study runs: a live view on a terminal, a line now and then elsewhere.

Nothing here imports JAX, so that the first words appear before JAX does.
"""

import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from dqx.report.terminal import Standing, clock, counted, rank
from dqx.study.sinks import Progress, Row, Sink

if TYPE_CHECKING:
    from dqx.study.plan import Plan

# Seconds from one plain line to the next.
LINE_PERIOD = 5.0
# Diverged runs that are named; more are counted.
_NAMED = 5


def view(name: str, stream: TextIO, quiet: bool = False) -> "View":
    """The sink that suits ``stream``: live, plain lines, or nothing if ``quiet``.

    Args:
        name: of the study.
        stream: a live view needs a terminal that understands control characters.
        quiet: whether to show nothing.
    """
    if quiet:
        return View(name, stream)
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return LiveView(name, stream)
    return LineView(name, stream)


class View(Sink):
    """Shows nothing; collects what is shown beside the progress: standings, and last returns."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self._name, self._stream = name, stream
        self._scores: dict[str, list[float]] = {}
        self._standings: list[Standing] = []
        self._configs = 1
        self._last_return = math.nan

    def start(self) -> None:
        """The command begins; a mistake may still be found in it."""

    def open(self, plan: "Plan") -> None:
        self._configs = len(plan.points)

    def row(self, row: Row) -> None:
        returns = np.asarray(row.metrics["eval_return"], float)
        if np.isfinite(returns).any():
            self._last_return = float(returns[np.isfinite(returns)].mean())

    def finished(self, runs: Sequence[Mapping[str, Any]]) -> None:
        for run in runs:
            score = math.nan if run["score"] is None else run["score"]
            self._scores.setdefault(run["config"], []).append(score)
        self._standings = rank(self._scores)

    def words(self, progress: Progress) -> dict[str, str]:
        """The numbers as a person reads them, in the order of their weight."""
        shown = {
            "percent": f"{100 * progress.steps // max(progress.total_steps, 1)} %",
            "runs": f"{progress.runs_done:,}/{progress.runs:,} runs done",
        }
        if math.isfinite(progress.steps_per_second):
            shown["rate"] = f"{progress.steps_per_second:,.0f} steps/s"
            shown["left"] = f"{clock(progress.seconds_left)} left"
        if self._configs == 1 and not math.isnan(self._last_return):
            shown["return"] = f"greedy return {self._last_return:.1f}"
        if self._configs > 1 and self._standings:
            best, worst = self._standings[0], self._standings[-1]
            shown["best"] = f"best {_standing(best)}"
            if worst != best:
                shown["worst"] = f"worst {_standing(worst)}"
        if progress.diverged:
            shown["diverged"] = f"diverged: {_diverged(progress.diverged)}"
        return shown


class LineView(View):
    """Prints a line at every phase, every few seconds, and at the end."""

    def __init__(self, name: str, stream: TextIO) -> None:
        super().__init__(name, stream)
        self._printed, self._last, self._over = -math.inf, "", False

    def phase(self, text: str) -> None:
        if text != self._last:
            self._print(text)

    def progress(self, progress: Progress) -> None:
        before, self._over = self._over, progress.runs_done == progress.runs
        due = not self._over and time.monotonic() - self._printed >= LINE_PERIOD
        if due or self._over > before:
            text = ", ".join(self.words(progress).values())
            if text != self._last:
                self._print(text)

    def _print(self, text: str) -> None:
        self._last = text
        print(f"{self._name}: {text}", file=self._stream, flush=True)
        self._printed = time.monotonic()


class LiveView(View):
    """Keeps a panel on the terminal up to date."""

    def __init__(self, name: str, stream: TextIO) -> None:
        super().__init__(name, stream)
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(file=stream), transient=True, refresh_per_second=4)

    def start(self) -> None:
        self._live.start()
        self.phase("starting...")

    def phase(self, text: str) -> None:
        from rich.spinner import Spinner  # moves while something compiles: it is not stuck
        from rich.text import Text

        self._live.update(Spinner("line", Text(f"{self._name}: {text}")))

    def progress(self, progress: Progress) -> None:
        self._live.update(self.panel(progress))

    def close(self) -> None:
        self._live.stop()

    def panel(self, progress: Progress) -> Any:
        """What is shown, for rich."""
        from rich.console import Group
        from rich.padding import Padding
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        shown = self.words(progress)
        head = Table.grid(padding=(0, 1), expand=True)
        head.add_column(no_wrap=True)
        head.add_column(ratio=1)
        head.add_column(justify="right", no_wrap=True)
        bar = ProgressBar(total=max(progress.total_steps, 1), completed=progress.steps)
        head.add_row(Text(self._name, style="bold"), bar, shown.pop("percent"))
        keys = ("runs", "rate", "left", "return")
        lines = [Text("  ".join(shown.pop(key) for key in keys if key in shown))]
        styles = {"best": "green", "worst": "yellow", "diverged": "red"}
        for key, text in shown.items():
            line = Text(text, style=styles[key], no_wrap=key != "diverged")
            line.overflow = "ellipsis" if key != "diverged" else "fold"
            lines.append(line)
        return Group(head, *(Padding(line, (0, 0, 0, 2)) for line in lines))


def _standing(standing: Standing) -> str:
    return f"IQM {standing.iqm:.1f} of {counted(standing.runs, 'run')}: {standing.name}"


def _diverged(runs: Sequence[tuple[str, int, int]]) -> str:
    named = [f"{name} seed {seed} at step {step:,}" for name, seed, step in runs[:_NAMED]]
    more = f", and {len(runs) - _NAMED:,} more" if len(runs) > _NAMED else ""
    return f"{counted(len(runs), 'run')}: {', '.join(named)}{more}"
