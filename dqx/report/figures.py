"""Every figure of a report for a paper: PNG, SVG and PDF of what the page shows."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from dqx.files import whole_file
from dqx.report import boards, canvas, cases, findings, numbers, plots, style
from dqx.report.findings import Group
from dqx.study.results import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
_STEPS = plots.STEPS_LABEL
# Texts stay texts, in the reader's own fonts in an SVG and with their outlines in a PDF.
_SETTINGS: Any = {"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "dqx"}

# Without date and version the same figure is the same bytes.
_UNDATED = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


class Drawing(NamedTuple):
    """A figure that can be drawn: the name of its files, and what draws it."""

    name: str
    draw: "Callable[[], Figure]"


def drawings(studies: Sequence[Study], groups: Sequence[Group]) -> list[Drawing]:
    """The figures that there are to draw of studies, whose groups these are."""
    groups = [group for group in groups if group.cases]
    titles = cases.titles(studies)
    found = []
    for group in groups:
        end = f"-{_slug(group.env)}" if len(groups) > 1 else ""
        if [other.env for other in groups].count(group.env) > 1:  # scored in several ways
            end += f"-{_slug(group.metric)}"
        title = titles[0] if len(titles) == 1 else "comparison"
        title = f"{title}: {group.env}"
        drawn = _of_group(group, title, titles)
        found += [Drawing(f"{drawing.name}{end}", drawing.draw) for drawing in drawn]
    return found


def write(drawing: Drawing, folder: Path) -> list[Path]:
    """Draws a figure and writes it in every format, each file whole or not at all.

    Raises:
        OSError: when one cannot be written.
    """
    import matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_SETTINGS):
        figure = drawing.draw()
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once, not once a format
        written = []
        for kind in FORMATS:
            path = folder / f"{drawing.name}.{kind}"
            with whole_file(path) as file:
                figure.savefig(file, format=kind, dpi=canvas.DPI, metadata=_UNDATED[kind])
            written.append(path)
    return written


def _slug(text: str) -> str:
    """A text as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")[:60] or "environment"


def _of_group(group: Group, title: str, titles: Sequence[str]) -> Iterator[Drawing]:
    yield Drawing("learning_curves", partial(_curves, group, title))
    yield Drawing("scores", partial(boards.scores, group, title))
    yield Drawing("profiles", partial(_profiles, group, title))
    if len(group.cases) > 1:
        yield Drawing("improvement", partial(boards.improvement, group, title))
    yield Drawing("thresholds", partial(_thresholds, group, title))
    yield Drawing("episodes", partial(_episodes, group, title))
    yield Drawing("training", partial(_training, group, title))
    for number, study in enumerate(titles):
        end = f"-{number + 1}" if len(titles) > 1 else ""
        own = f"{study}: {group.env}"
        effects = findings.effects(group, number)
        if effects:
            yield Drawing(f"effects{end}", partial(boards.effects, group, effects, own))
        if len(effects) > 1:
            draw = partial(boards.parallel, group, effects, number, own)
            yield Drawing(f"parallel{end}", draw)
        for place, cells in enumerate(findings.heat_maps(group, number), start=1):
            draw = partial(boards.heat_map, group, cells, own)
            yield Drawing(f"heat_map{end}" if place == 1 else f"heat_map{end}-{place}", draw)


def _legend(figure: "Figure", axes: "Axes", group: Group) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if len(group.cases) > 1:
        canvas.legend(figure, list(zip(handles, labels, strict=True)), boards.which(group))


def _curves(group: Group, title: str) -> "Figure":
    label = f"{group.label} (sum of rewards an episode)"
    if len(group.cases) == 1:
        (case,) = group.cases
        return plots.learning_curve_figure(
            case.steps, group.curves[0], title=title, ylabel=label, diverged_at=case.diverged_at
        )
    each = {
        group.cases[i].label: (group.cases[i].steps, group.curves[i])
        for i in group.ranking
        if np.isfinite(group.curves[i]).any()
    }
    return plots.comparison_figure(each, title=title, ylabel=label)


def _lines(
    group: Group,
    title: str,
    label: str,
    lines: Sequence[tuple[int, np.ndarray, np.ndarray]],
    xlabel: str = _STEPS,
    stepped: bool = False,
) -> "Figure":
    """Lines ``[3, K]`` of middle, low and high over x, a case each."""
    figure, axes = canvas.figure(title, xlabel, label)
    drawn = []
    for slot, (place, x, (middle, low, high)) in enumerate(lines):
        color = style.LIGHT[slot % style.MAX_COLORS]
        way = "steps-post" if stepped else "default"
        name = group.cases[place].label
        axes.plot(x, middle, color=color, linewidth=2.2, drawstyle=way, label=name, zorder=3)
        if np.isfinite(low).any():
            step: Literal["post"] | None = "post" if stepped else None
            axes.fill_between(
                x, low, high, step=step, color=color, alpha=0.12, linewidth=0, zorder=2
            )
        drawn.append(x)
    if xlabel == _STEPS and drawn:
        canvas.count_steps(axes, max(drawn, key=lambda x: float(x[-1])))
    _legend(figure, axes, group)
    return figure


def _profiles(group: Group, title: str) -> "Figure":
    places = boards.shown(group)
    found = findings.profiles(group, places)
    lines = [(i, found.thresholds, rows) for i, rows in zip(places, found.shares, strict=True)]
    figure = _lines(group, title, "share of seeds above it", lines, group.label)
    _percent(figure.axes[0])
    return figure


def _percent(axes: "Axes") -> None:
    from matplotlib.ticker import PercentFormatter

    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))


def _thresholds(group: Group, title: str) -> "Figure":
    """Steps to the score that the page shows at first."""
    places = boards.shown(group)
    found = findings.thresholds(group, places)
    if not found:
        return _lines(group, title, "no score is reached", [])
    one = found[max(0, len(found) - 2)]
    lines = [(i, case.steps, case.share) for i, case in zip(places, one.cases, strict=True)]
    label = f"share of seeds that reached {style.number(one.score)}"
    figure = _lines(group, title, label, lines, stepped=True)
    _percent(figure.axes[0])
    return figure


def _episodes(group: Group, title: str) -> "Figure":
    lines = [
        (i, group.cases[i].episode_steps, numbers.quartiles(group.cases[i].episodes))
        for i in boards.shown(group)
    ]
    label = f"mean return of the last {cases.WINDOW} training episodes (median and middle half)"
    return _lines(group, title, label, lines)


def _training(group: Group, title: str) -> "Figure":
    """Every metric of training as a small panel."""
    from matplotlib.figure import Figure

    places = boards.shown(group)
    names = findings.panels(group, places)
    columns = 3
    rows = max(1, -(-len(names) // columns))
    figure = Figure(
        figsize=(canvas.SIZE[0] * 1.3, 0.9 + 1.9 * rows), dpi=canvas.DPI, layout="constrained"
    )
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", parse_math=False)
    for cell, (name, words) in enumerate(names.items()):
        axes = figure.add_subplot(rows, columns, cell + 1)
        for slot, place in enumerate(places):
            case = group.cases[place]
            if name in case.panels:
                values = case.panels[name]
                there = np.isfinite(values).any(axis=0)  # some are measured now and then
                middle, low, high = numbers.quartiles(values[:, there])
                color = style.LIGHT[slot % style.MAX_COLORS]
                axes.plot(case.rows[there], middle, color=color, linewidth=1.5, label=case.label)
                axes.fill_between(case.rows[there], low, high, color=color, alpha=0.15, linewidth=0)
        axes.set_title(words, fontsize=10, loc="left", parse_math=False)
        axes.grid(True, color=style.GRID, linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        canvas.count_steps(axes, np.array([0.0, *(group.cases[i].rows[-1] for i in places)]))
    if names:
        _legend(figure, figure.axes[0], group)
    return figure
