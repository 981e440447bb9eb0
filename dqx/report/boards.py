"""Figures without a step axis: rows of seeds, matrices, parallel axes."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dqx.report import canvas, findings, style
from dqx.report.findings import Group
from dqx.report.numbers import Center

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_ROWS = 40  # of effects


def shown(group: Group) -> list[int]:
    """The cases of a figure: all, or of many the best five and the worst three."""
    ranking = group.ranking
    return ranking if len(ranking) <= style.MAX_COLORS else [*ranking[:5], *ranking[-3:]]


def which(group: Group) -> str | None:
    """Which cases are shown, if not all are."""
    if len(group.cases) <= style.MAX_COLORS:
        return None
    return f"best 5 and worst 3 of {len(group.cases)}"


def scores(group: Group, title: str) -> "Figure":
    """The final score of every seed, with IQM and interval of each case."""
    places = shown(group)
    rows = [(group.cases[i].label, group.centers[i], group.scores[i]) for i in places]
    figure = _rows(title, f"{group.label} (sum of rewards an episode)", rows)
    if which(group):
        figure.axes[0].set_ylabel(str(which(group)), fontsize=9, color=style.GREY)
    return figure


def _rows(
    title: str, label: str, rows: Sequence[tuple[str, Center, np.ndarray | None]]
) -> "Figure":
    """Rows of seeds with IQM and interval, the first at the top, each named above it."""
    figure, axes = canvas.figure(title, label, "")
    figure.set_figheight(max(2.4, 1.3 + (0.76 if rows[0][2] is not None else 0.55) * len(rows)))
    rng = np.random.default_rng(0)  # of the dots' heights alone
    for place, (name, center, scores) in enumerate(rows):
        color = style.LIGHT[place % style.MAX_COLORS] if scores is not None else style.BLUE
        y = -float(place)
        if scores is not None:
            heights = y + rng.uniform(-0.2, 0.1, scores.size)
            alpha = float(np.clip(6 / np.sqrt(scores.size), 0.15, 0.75))
            axes.plot(scores, heights, ".", color=color, alpha=alpha, zorder=2, rasterized=True)
        ink = style.BLACK if scores is not None else color
        at = y - 0.3 if scores is not None else y - 0.05
        if np.isfinite(center.low):
            axes.plot([center.low, center.high], [at, at], color=ink, linewidth=2.4, zorder=3)
        axes.plot(center.iqm, at, "D", color=ink, markersize=6, zorder=4)
        words = style.number(center.iqm)
        if np.isfinite(center.low):
            words += f" ({style.number(center.low)} to {style.number(center.high)})"
        elif center.note:
            words += f" ({center.note})"
        short = name if len(name) <= 62 else f"{name[:30]} ... {name[-28:]}"
        named = axes.get_yaxis_transform()
        for x, text, side in ((0.005, short, "left"), (0.995, words, "right")):
            axes.text(
                x, y + 0.28, text, ha=side, fontsize=9, transform=named, parse_math=False, zorder=5
            )
    axes.set_ylim(-len(rows) + 0.45, 0.62)
    axes.set_yticks([])
    axes.grid(False, axis="y")
    if rows[0][2] is not None:
        _limit_x(axes, rows)
    return figure


def _limit_x(axes: "Axes", rows: Sequence[tuple[str, Center, np.ndarray | None]]) -> None:
    """Leaves out ends of intervals that lie far from all scores, as those of two seeds do."""
    centers = [center for _, center, _ in rows]
    values = np.concatenate(
        [[c.iqm for c in centers], *(scores for _, _, scores in rows if scores is not None)]
    )
    low, high = float(values.min()), float(values.max())
    far = 0.3 * (high - low)
    ends = np.array([end for c in centers for end in (c.low, c.high) if np.isfinite(end)])
    if far > 0 and ends.size and (ends.min() < low - far or ends.max() > high + far):
        pad = 0.03 * (high - low)
        axes.set_xlim(
            max(low - far, min(low, ends.min())) - pad, min(high + far, max(high, ends.max())) + pad
        )


def improvement(group: Group, title: str) -> "Figure":
    """How likely a seed of the row beats one of the column."""
    places = group.ranking[: style.MAX_COLORS]
    table = findings.improvements(group, places)
    names = [group.cases[i].label for i in places]
    texts = [
        ["" if a == b else _cell(*(float(v) for v in table[a, b])) for b in range(len(places))]
        for a in range(len(places))
    ]
    few = (
        f", the best {len(places)} of {len(group.cases)}" if len(places) < len(group.cases) else ""
    )
    figure = _matrix(
        f"{title}: P(row > column){few}",
        names,
        names,
        table[..., 0],
        texts,
        style.DIVERGING,
        (0, 1),
    )
    return figure


def _cell(value: float, low: float, high: float) -> str:
    return f"{value:.2f}" + (f"\n{low:.2f} to {high:.2f}" if np.isfinite(low) else "")


def heat_map(group: Group, found: findings.Cells, title: str) -> "Figure":
    """The IQM over two varied fields."""
    values = np.array([[cell.iqm for cell in row] for row in found.cells])
    texts = [
        [
            ""
            if not np.isfinite(cell.iqm)
            else style.number(cell.iqm)
            + (
                f"\n{style.number(cell.low)} to {style.number(cell.high)}"
                if np.isfinite(cell.low)
                else ""
            )
            for cell in row
        ]
        for row in found.cells
    ]
    known = values[np.isfinite(values)]
    down, across = (
        [f"{field}={name}" for name in names]
        for field, names in zip(found.fields, found.names, strict=True)
    )
    limits = (float(known.min()), float(known.max()))
    name = f"{title}: IQM of {group.label}"
    if found.left_out or not found.matched:
        name += f", {_averaged(found.left_out, found.matched)}"
    return _matrix(name, down, across, values, texts, style.SEQUENTIAL, limits)


def _matrix(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: np.ndarray,
    texts: Sequence[Sequence[str]],
    colors: Sequence[str],
    limits: tuple[float, float],
) -> "Figure":
    """Cells with their numbers written in them."""
    from matplotlib.colors import LinearSegmentedColormap

    figure, axes = canvas.figure(title, "", "")
    figure.set_size_inches(max(5.0, 2.4 + 1.3 * len(columns)), max(2.6, 1.7 + 0.52 * len(rows)))
    colormap = LinearSegmentedColormap.from_list("dqx", list(colors))
    low, high = limits
    pad = 0.0 if high > low else 0.5
    image = axes.imshow(values, cmap=colormap, vmin=low - pad, vmax=high + pad, aspect="auto")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            if text and np.isfinite(values[i, j]):
                red, green, blue, _ = image.cmap(image.norm(values[i, j]))
                ink = style.BLACK if 0.3 * red + 0.59 * green + 0.11 * blue > 0.58 else "white"
                axes.text(j, i, text, ha="center", va="center", fontsize=8, color=ink)
    wrapped = [_wrapped(name, 16) for name in columns]
    axes.set_xticks(range(len(columns)), wrapped, fontsize=8, parse_math=False)
    axes.set_yticks(
        range(len(rows)), [_wrapped(name, 24) for name in rows], fontsize=8, parse_math=False
    )
    axes.tick_params(length=0)
    return figure


def _wrapped(name: str, width: int) -> str:

    width = min(26, max(width, *map(len, name.split()), 1))
    return "\n".join(textwrap.wrap(name, width)[:4]) or name


def effects(group: Group, effects: Sequence[findings.Effect], title: str) -> "Figure":
    """The marginal effect of each varied field."""
    rows: list[tuple[str, Center, np.ndarray | None]] = [
        (f"{effect.field} = {level.name}", level.center, None)
        for effect in effects
        for level in effect.levels
        if np.isfinite(level.center.iqm)
    ]
    few = f" ({_MOST_ROWS} of {len(rows)} values)" if len(rows) > _MOST_ROWS else ""
    left_out, matched = max(e.left_out for e in effects), all(e.matched for e in effects)
    title = f"{title}, {_averaged(left_out, matched)}{few}"
    return _rows(title, group.label, rows[:_MOST_ROWS])


def _averaged(left_out: int, matched: bool) -> str:
    """Over what other settings values are averaged."""
    words = "others averaged over" if matched else "averaged over what others are set to"
    return words + (f", up to {left_out} configurations left out" if left_out else "")


def parallel(group: Group, effects: Sequence[findings.Effect], study: int, title: str) -> "Figure":
    """Every configuration as a line over its varied fields and its IQM, the best on top."""
    from matplotlib.colors import LinearSegmentedColormap

    places = [i for i in group.ranking if group.cases[i].study == study]
    names = [effect.field for effect in effects]
    columns = [[group.cases[i].varied[name] for i in places] for name in names]
    columns.append([group.centers[i].iqm for i in places])
    figure, axes = canvas.figure(f"{title}: IQM of {group.label}", "", "")
    figure.set_figwidth(max(5.0, 1.7 * len(columns)))
    axes.grid(False)
    axes.spines[:].set_visible(False)
    heights = []
    ground = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6}
    for x, values in enumerate(columns):
        at, marks = _placed(values)
        heights.append(at)
        axes.axvline(x, color=style.GREY, linewidth=1)
        for y, mark in marks:
            short = mark if len(mark) <= 18 else f"{mark[:8]}...{mark[-7:]}"
            axes.text(x + 0.03, y, short, fontsize=8, va="center", parse_math=False, bbox=ground)
    colormap = LinearSegmentedColormap.from_list("dqx", [style.LIGHT[1], "#9aa0a8", style.BLUE])
    for line in np.array(heights).T[::-1]:
        axes.plot(range(len(columns)), line, color=colormap(line[-1]), linewidth=1.3, alpha=0.8)
    axes.set_xticks(range(len(columns)), [*names, "IQM"], fontsize=9, parse_math=False)
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(columns) - 0.6)
    return figure


def _placed(values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights from 0 to 1 of values on an axis, and where the axis names which."""
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        names = sorted({findings.show(value) for value in values})
        gaps = max(len(names) - 1, 1)
        height = {name: i / gaps for i, name in enumerate(names)}
        return [height[findings.show(v)] for v in values], [(y, n) for n, y in height.items()]
    array = np.array(values, float)
    scaled = np.log(array) if array.min() > 0 and array.max() > 50 * array.min() else array
    span = float(np.ptp(scaled)) or 1.0
    at = ((scaled - scaled.min()) / span).tolist()
    marks: list[tuple[float, str]] = []
    for y, value in sorted(zip(at, values, strict=True)):
        if not marks or y - marks[-1][0] > 0.05:
            marks.append((y, f"{value:.4g}"))
    return at, marks
