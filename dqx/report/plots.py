"""Pictures of studies, written as PNG files.

Each picture has a function that builds a `matplotlib.figure.Figure` and one that writes it. They
use matplotlib's objects alone, so no global state of pyplot is read or changed, no window opens,
and threads may draw at the same time. matplotlib is imported when something is drawn, because
`import dqx` has to be fast.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dqx import stats
from dqx.files import whole_file
from dqx.report import canvas, style
from dqx.report.terminal import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STEPS_LABEL = "environment steps"
_SOFTWARE = "dqx"  # as a picture names what has drawn it
RETURN_LABEL = "greedy return (sum of rewards an episode)"

DPI = canvas.DPI

_BLUE, _RED, _GREY, _BLACK, _COLORS = style.BLUE, style.RED, style.GREY, style.BLACK, style.LIGHT


def learning_curve(
    steps: npt.ArrayLike,
    values: npt.ArrayLike,
    *,
    path: str | os.PathLike[str],
    title: str,
    ylabel: str = RETURN_LABEL,
    threshold: float | None = None,
    diverged_at: npt.ArrayLike | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Path:
    """Write a learning curve as a PNG of 1200 x 750 pixels, whole or not at all.

    Args:
        steps: see `learning_curve_figure`, as for all arguments but `path`.
        path: of the file, ending in .png; an existing file is replaced.

    Returns:
        The path.

    Raises:
        ValueError: as `learning_curve_figure`, and for a path that does not end in .png.
        OSError: when the file cannot be written; nothing is left behind, an older file stays.
    """
    target = _png_path(path)
    figure = learning_curve_figure(
        steps,
        values,
        title=title,
        ylabel=ylabel,
        threshold=threshold,
        diverged_at=diverged_at,
        level=level,
        seed=seed,
    )
    return write(figure, target)


def learning_curve_figure(
    steps: npt.ArrayLike,
    values: npt.ArrayLike,
    *,
    title: str,
    ylabel: str = RETURN_LABEL,
    threshold: float | None = None,
    diverged_at: npt.ArrayLike | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> "Figure":
    """Draw every seed thin and the IQM over seeds thick, with the band of its intervals.

    Non-finite values are not drawn: steps where no seed has a value are left out, and at the others
    the IQM and its band are those of the seeds that have one; the legend says how many these are.

    Args:
        steps: environment steps of a seed [K], rising.
        values: one number a seed and step [S, K], in the unit that `ylabel` names.
        title: plain text.
        ylabel: of the y axis, with its unit.
        threshold: a value to draw a dashed line at, such as what counts as solved.
        diverged_at: integer [S], environment steps at which seeds diverged, -1 for never; each gets
            a cross. If not given, a seed without values from some step to the end has diverged.
        level: of the band, between 0 and 1; pointwise (see `dqx.stats`).
        seed: of the bootstrap.

    Raises:
        ValueError: shapes that do not fit, steps that do not rise, or no finite value at all.
    """
    curves = _curves(steps, values, diverged_at)
    center, low, high = stats.interval(curves.values, level=level, seed=seed, nan="drop")
    figure, axes = canvas.figure(title, STEPS_LABEL, ylabel)
    label = _center_label(curves, low, level)
    entries = [_draw_center(axes, curves.steps, center, low, high, label)]
    if curves.values.shape[0] > 1:
        entries.append(_draw_seeds(axes, curves.steps, curves.values))
    if threshold is not None:
        line = axes.axhline(
            threshold, color=_BLACK, linestyle=(0, (5, 3)), linewidth=1.4, zorder=3.5
        )
        entries.append((line, f"threshold {threshold:g}"))
    if curves.diverged.any():
        entries.append(_draw_diverged(axes, curves))
    finite = curves.values[np.isfinite(curves.values)]
    canvas.limit_y(axes, finite if threshold is None else np.append(finite, threshold))
    canvas.count_steps(axes, curves.steps)
    canvas.legend(figure, entries)
    return figure


class _Curves(NamedTuple):
    """What a learning curve shows; columns without any value are gone."""

    steps: npt.NDArray[np.float64]  # [K]
    values: npt.NDArray[np.float64]  # [S, K], NaN where missing
    diverged: npt.NDArray[np.bool_]  # [S]
    diverged_at: npt.NDArray[np.float64]  # [S], NaN where unknown


def _curves(
    steps: npt.ArrayLike, values: npt.ArrayLike, diverged_at: npt.ArrayLike | None
) -> _Curves:
    x, y = np.asarray(steps, dtype=np.float64), np.array(values, dtype=np.float64)
    if x.ndim != 1 or y.ndim != 2 or y.shape[1] != x.size:
        raise ValueError(
            f"steps have shape {list(x.shape)}, values {list(y.shape)}: give [K] and [seeds, K]"
        )
    if not (np.isfinite(x).all() and (np.diff(x) > 0).all()):
        raise ValueError("steps must be finite and rise from each to the next")
    y[~np.isfinite(y)] = np.nan
    present = np.isfinite(y)
    if not present.any():
        raise ValueError(f"none of the {y.size} values is finite: there is nothing to draw")
    keep = present.any(axis=0)
    x, y, present = x[keep], y[:, keep], present[:, keep]
    if diverged_at is None:
        diverged = ~present[:, -1]
        last = np.where(present, x, -np.inf).max(axis=1)
        at = np.where(diverged & np.isfinite(last), last, np.nan)
    else:
        at = np.asarray(diverged_at, dtype=np.float64)
        if at.shape != y.shape[:1]:
            raise ValueError(
                f"diverged_at has shape {list(at.shape)}: give one step a seed, [{y.shape[0]}]"
            )
        diverged = at >= 0
    return _Curves(x, y, diverged, at)


def _center_label(curves: _Curves, low: npt.NDArray[np.float64], level: float) -> str:
    total = curves.values.shape[0]
    if total == 1:
        return "1 seed (no interval)"
    counts = np.isfinite(curves.values).sum(axis=0)
    fewest, most = int(counts.min()), int(counts.max())
    seeds = f"{most}" if fewest == most else f"{fewest} to {most}"
    if fewest < total:
        seeds += f" of {total}"
    if most < 2:
        return f"IQM of {seeds} seeds, no interval"
    if np.isnan(low).all():
        return f"IQM of {seeds} seeds, {stats.AGREE}"
    return f"IQM of {seeds} seeds, {100 * level:g} % interval{_gaps(counts, low)}"


def _gaps(counts: npt.NDArray[np.int64], low: npt.NDArray[np.float64]) -> str:
    """Say why a band has gaps where there are enough seeds for one."""
    return " (none where all middle seeds agree)" if np.isnan(low[counts > 1]).any() else ""


def _draw_center(
    axes: "Axes",
    steps: npt.NDArray[np.float64],
    center: npt.NDArray[np.float64],
    low: npt.NDArray[np.float64],
    high: npt.NDArray[np.float64],
    label: str,
    color: str = _BLUE,
    alpha: float = 0.28,
) -> tuple[Any, str]:
    """Draw a thick line within its band; both make one entry of the legend."""
    few = steps.size <= 40
    (line,) = axes.plot(
        steps,
        center,
        color=color,
        linewidth=2.4,
        marker="o" if few else "",
        markersize=4.5,
        zorder=4,
        solid_capstyle="round",
    )
    if not np.isfinite(low).any():
        return line, label
    if steps.size == 1:
        # A band over one point has no area.
        bars = np.abs(np.stack([center - low, high - center]))
        axes.errorbar(steps, center, yerr=bars, color=color, linewidth=2.0, capsize=6, zorder=3)
    band = axes.fill_between(steps, low, high, color=color, alpha=alpha, linewidth=0, zorder=3)
    return (band, line), label


def _draw_seeds(
    axes: "Axes", steps: npt.NDArray[np.float64], values: npt.NDArray[np.float64]
) -> tuple[Any, str]:
    """Draw every seed thin, as one collection; its missing points are bridged."""
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    present = np.isfinite(values)
    segments = [
        np.column_stack([steps[has], row[has]]) for row, has in zip(values, present, strict=True)
    ]
    # The more seeds, the fainter each, so that the density of the bundle stays legible.
    alpha = float(np.clip(2.2 / np.sqrt(len(segments)), 0.07, 0.6))
    width = 0.9 if len(segments) <= 64 else 0.6
    lines = LineCollection(
        [s for s in segments if len(s) > 1], colors=_GREY, alpha=alpha, linewidths=width, zorder=2
    )
    axes.add_collection(lines)
    dots = [s[0] for s in segments if len(s) == 1]
    if dots:
        axes.plot(*np.array(dots).T, ".", color=_GREY, alpha=alpha, zorder=2)
    return Line2D([], [], color=_GREY, alpha=max(alpha, 0.5), linewidth=width), "each seed"


def _draw_diverged(axes: "Axes", curves: _Curves) -> tuple[Any, str]:
    """Put a cross where each diverged seed was last seen."""
    bottom = float(np.nanmin(curves.values))
    points = []
    for row, at in zip(
        curves.values[curves.diverged], curves.diverged_at[curves.diverged], strict=True
    ):
        before = np.flatnonzero(np.isfinite(row) & (curves.steps <= at))
        x = at if np.isfinite(at) else curves.steps[0]
        points.append((x, row[before[-1]] if before.size else bottom))
    (crosses,) = axes.plot(
        *np.array(points).T,
        linestyle="",
        marker="X",
        markersize=8,
        color=_RED,
        markeredgecolor="white",
        markeredgewidth=0.7,
        zorder=5,
    )
    return crosses, f"{counted(len(points), 'seed')} diverged"


def _png_path(path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise ValueError(f"path is {str(target)!r}: pictures are PNG files, so end it in .png")
    return target


def write(figure: "Figure", path: Path) -> Path:
    """Writes a figure as a PNG, whole or not at all; the same picture is the same bytes."""
    with whole_file(path) as file:
        # No software version inside: the same picture is then the same bytes.
        figure.savefig(file, format="png", dpi=DPI, metadata={"Software": _SOFTWARE})
    return path


# How the pictures begin of versions that did not write their name: of our size and resolution, and
# nothing but the picture after that. Matplotlib writes its own name unless it is told not to.
_NAMELESS = re.compile(
    rb"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x04\xb0.{4}\x08\x06\0\0\0.{4}"
    rb"\0\0\0\tpHYs\0\0\x17\x12\0\0\x17\x12\x01.{4}.{4}IDAT",
    re.DOTALL,
)


def is_drawn(path: Path) -> bool:
    """Whether a file is a picture that `write` has written, or empty; nobody else's is one."""
    with path.open("rb") as file:
        start = file.read(1024)
    by_name = b"tEXtSoftware\0" + _SOFTWARE.encode() in start
    return not start or by_name or _NAMELESS.match(start) is not None


def comparison(
    curves: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]],
    *,
    path: str | os.PathLike[str],
    title: str,
    ylabel: str = RETURN_LABEL,
    level: float = 0.95,
    seed: int = 0,
) -> Path:
    """Write the learning curves of several configurations in one picture, a PNG, whole or absent.

    Args:
        curves: see `comparison_figure`, as for all arguments but `path`.
        path: of the file, ending in .png; an existing file is replaced.

    Raises:
        ValueError: as `comparison_figure`, and for a path that does not end in .png.
        OSError: when the file cannot be written.
    """
    target = _png_path(path)
    return write(
        comparison_figure(curves, title=title, ylabel=ylabel, level=level, seed=seed), target
    )


def comparison_figure(
    curves: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]],
    *,
    title: str,
    ylabel: str = RETURN_LABEL,
    level: float = 0.95,
    seed: int = 0,
) -> "Figure":
    """Draw the IQM over seeds of each configuration with the band of its intervals.

    More than eight configurations cannot be told apart: the five that end best and the three that
    end worst are drawn, and the legend says so.

    Args:
        curves: steps [K] and values [S, K] by name, in the order of the legend.
        title: plain text.
        ylabel: of the y axis, with its unit.
        level: of the bands.
        seed: of the bootstrap.

    Raises:
        ValueError: shapes that do not fit, or a configuration without any finite value.
    """
    if not curves:
        raise ValueError("curves holds no configuration: there is nothing to draw")
    known = {name: _curves(steps, values, None) for name, (steps, values) in curves.items()}
    centers = {name: stats.iqm(c.values, nan="drop") for name, c in known.items()}
    shown, which = list(known), ""
    if len(shown) > len(_COLORS):
        best = sorted(shown, key=lambda name: -centers[name][-1])
        shown = [*best[:5], *best[-3:]]
        which = f"best 5 and worst 3 of {len(best)}: "
    figure, axes = canvas.figure(title, STEPS_LABEL, ylabel)
    entries, drawn, gaps = [], [], ""
    for name, color in zip(shown, _COLORS, strict=False):
        curve = known[name]
        _, low, high = stats.interval(curve.values, level=level, seed=seed, nan="drop")
        gaps = _gaps(np.isfinite(curve.values).sum(axis=0), low) or gaps
        entries.append(
            _draw_center(axes, curve.steps, centers[name], low, high, name, color, alpha=0.15)
        )
        # With two or three seeds a band is many times as wide as all that they did.
        around = np.array([np.nanmin(curve.values), np.nanmax(curve.values)])
        ends = np.concatenate([low[np.isfinite(low)], high[np.isfinite(high)]])
        drawn += [centers[name], ends.clip(*around)]
    canvas.limit_y(axes, np.concatenate(drawn))
    canvas.count_steps(axes, max((known[name].steps for name in shown), key=lambda s: s[-1]))
    counts = sorted({known[name].values.shape[0] for name in shown})
    seeds = " to ".join(str(n) for n in (counts[0], counts[-1])[: len(counts)])
    what = f"IQM of {seeds} seeds, {100 * level:g} % intervals{gaps}"
    canvas.legend(
        figure, entries, which + (what if counts[-1] > 1 else "1 seed each (no interval)")
    )
    return figure
