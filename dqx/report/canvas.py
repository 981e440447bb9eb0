"""Axes, ticks and legends that every picture shares.

matplotlib is imported when something is drawn, because `import dqx` has to be fast.
"""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dqx.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (8.0, 5.0)  # inches
DPI = 150  # pixels an inch


def figure(title: str, xlabel: str, ylabel: str) -> tuple["Figure", "Axes"]:
    """An empty figure with axes; texts are taken as they are."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    size = min(13.0, 13 * 50 / max(len(title), 1))  # as long as the axes are wide
    axes.set_title(title, loc="left", fontsize=size, fontweight="bold", parse_math=False)
    axes.set_xlabel(xlabel, fontsize=11, parse_math=False)
    axes.set_ylabel(textwrap.fill(ylabel, 42), fontsize=11, parse_math=False)
    axes.grid(True, color=style.GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def limit_y(axes: "Axes", shown: npt.NDArray[np.float64]) -> None:
    """Set the y limits to what is shown and a twentieth of it more on both sides."""
    low, high = float(shown.min()), float(shown.max())
    pad = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set_ylim(low - pad, high + pad)


def count_steps(axes: "Axes", steps: npt.NDArray[np.float64]) -> None:
    """Label the x axis in engineering notation (100k, 2M) from the first step or 0 on."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, steps=[1, 2, 2.5, 5, 10]))
    # Training starts at 0, so a curve that is not a late excerpt is shown from there.
    span = steps[-1] - steps[0]
    left = 0.0 if steps.size == 1 or 0 <= steps[0] <= 0.25 * span else steps[0]
    right = max(steps[-1], left + 1.0)
    axes.set_xlim(left - 0.01 * (right - left), right + 0.02 * (right - left))


def legend(figure: "Figure", entries: Sequence[tuple[Any, str]], title: str | None = None) -> None:
    """Put the legend under the axes, where it hides no curve."""
    handles, labels = zip(*entries, strict=True)
    labels = tuple(
        label if len(label) <= 90 else f"{label[:44]} ... {label[-41:]}" for label in labels
    )
    columns = len(labels) if len(labels) < 4 else 2
    while columns > 1 and _legend_width(labels, columns) > 0.975 * SIZE[0]:
        columns -= 1
    rows = -(-len(labels) // columns)
    figure.set_figheight(SIZE[1] + 0.21 * max(0, rows - 4))  # what the legend takes more
    legend = figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=10,
        title=title,
        title_fontsize=9,
    )
    legend.get_title().set(color=style.GREY, parse_math=False)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _legend_width(labels: Sequence[str], columns: int) -> float:
    """About how wide a legend is, in inches."""
    parts = np.array_split(np.array([len(label) for label in labels]), columns)
    return sum(0.6 + 0.077 * int(part.max()) for part in parts)
