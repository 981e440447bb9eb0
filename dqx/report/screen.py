"""A film on a terminal: two pixels a character in half blocks, Q-values beside them."""

import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from dqx.report.reel import Caption, captions, value_range, value_text
from dqx.settings import ConfigError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

    from dqx.report.film import Film

_BLOCK = "\N{UPPER HALF BLOCK}"
# From dark to light, for terminals without colours.
_SHADES = " \N{LIGHT SHADE}\N{MEDIUM SHADE}\N{DARK SHADE}\N{FULL BLOCK}"
_BAR, _TRACK, _CHOSEN = "\N{FULL BLOCK}", "\N{LIGHT SHADE}", "\N{BLACK RIGHT-POINTING TRIANGLE}"
# Columns of a bar, of an action's name, and of what stands beside the picture; rows kept free.
_BAR_COLUMNS, _NAME_COLUMNS, _PANEL, _FREE = 12, 11, 38, 3
_LEAST = 20  # columns of a picture beside its panel; else the panel is below
_MOST = 100
_HOLD_SECONDS = 1.0


def check(stream: TextIO) -> None:
    """Refuses a stream that is no terminal which shows half blocks.

    Raises:
        ConfigError: with what to do instead.
    """
    other = "give --gif FILE, --mp4 FILE or --png DIR"
    if not stream.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        raise ConfigError(f"standard output is no terminal that could show the episode: {other}")
    if "utf" not in (getattr(stream, "encoding", None) or "utf-8").lower():
        raise ConfigError(f"the terminal's encoding, {stream.encoding}, has no blocks: {other}")


def show(
    film: "Film",
    stream: TextIO,
    *,
    fps: float,
    sleep: Callable[[float], None] = time.sleep,
    size: tuple[int, int] | None = None,
) -> None:
    """Plays a film on a terminal, once.

    Args:
        film: to be shown.
        stream: a terminal, see `check`.
        fps: pictures a second.
        sleep: waits.
        size: columns and rows, for tests; the terminal's own if left out.
    """
    from rich.console import Console
    from rich.live import Live

    given: dict[str, Any] = {} if size is None else {"width": size[0], "height": size[1]}
    console = Console(file=stream, highlight=False, **given)
    with Live(console=console, auto_refresh=False, transient=False) as live:
        for picture, is_last in _pictures(film, console):
            due = time.monotonic() + 1 / fps
            live.update(picture, refresh=True)
            sleep(max(0.0, due - time.monotonic()) + _HOLD_SECONDS * is_last)


def half_blocks(frame: np.ndarray) -> "Text":
    """A picture uint8 ``[2 * R, C, 3]`` as R lines of C characters."""
    from rich.color import Color
    from rich.style import Style
    from rich.text import Text

    def colour(pixel: Any) -> Color:
        return Color.from_rgb(*(float(value) for value in pixel))

    text = Text(no_wrap=True)
    for row in range(0, len(frame) - 1, 2):
        both = np.concatenate([frame[row], frame[row + 1]], axis=1)  # [C, 6]
        starts = np.flatnonzero(np.any(both[1:] != both[:-1], axis=1)) + 1
        for start, end in zip([0, *starts], [*starts, len(both)], strict=True):
            style = Style(color=colour(both[start, :3]), bgcolor=colour(both[start, 3:]))
            text.append(_BLOCK * int(end - start), style)
        text.append("\n" if row < len(frame) - 2 else "")
    return text


def shades(frame: np.ndarray) -> "Text":
    """A picture uint8 ``[2 * R, C, 3]`` as R lines of C characters, by its brightness alone."""
    from rich.text import Text

    light = (frame[0:-1:2].astype(float) + frame[1::2]).mean(-1) / 2
    index = np.minimum(light * len(_SHADES) / 255, len(_SHADES) - 1).astype(int)
    lines = ("".join(_SHADES[i] for i in row) for row in index)
    return Text("\n".join(lines), no_wrap=True)


def panel(film: "Film", caption: Caption, bounds: tuple[float, float], rows: int) -> "Text":
    """What stands beside a picture: run, step, return, and a bar for each action.

    Of more actions than there are rows for, those around the chosen one are shown.
    """
    from rich.text import Text

    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"{film.env}\n", "bold")
    for line in caption.lines:
        text.append(f"{line}\n")
    text.append(f"{caption.end or 'Q-values'}\n", "dim")
    count = len(film.action_names)
    room = max(1, min(count, rows - len(caption.lines) - 2))
    first = min(max(caption.action - room // 2, 0), count - room)
    for index in range(first, first + room):
        chosen = index == caption.action
        style = "bold yellow" if chosen else "cyan"
        name = film.action_names[index][:_NAME_COLUMNS]
        text.append(f"{_CHOSEN if chosen else ' '} {name:<{_NAME_COLUMNS}} ", "bold" * chosen)
        if caption.q_values is not None:
            value = float(caption.q_values[index])
            share = (value - bounds[0]) / (bounds[1] - bounds[0])
            filled = round(share * _BAR_COLUMNS)
            text.append(_BAR * filled, style)
            text.append(_TRACK * (_BAR_COLUMNS - filled), "dim")
            text.append(f" {value_text(value, bounds)}", "bold" * chosen)
        text.append("\n")
    text.right_crop(1)
    return text


def _pictures(film: "Film", console: "Console") -> Iterator[tuple["RenderableType", bool]]:
    """Each picture of a film with its panel, as large as the terminal is then."""
    from rich.console import Group
    from rich.table import Table

    bounds = value_range(film)
    draw = shades if console.no_color or console.color_system is None else half_blocks
    for episode in film.episodes:
        notes = captions(film, episode)
        for index, (frame, caption) in enumerate(zip(episode.frames, notes, strict=True)):
            columns, rows = console.size
            is_beside = columns >= _LEAST + _PANEL
            below = 0 if is_beside else len(film.action_names) + 5
            room = (columns - _PANEL if is_beside else columns, max(4, rows - _FREE - below))
            text = draw(_fitted(frame, *room))
            beside = panel(film, caption, bounds, rows - _FREE)
            whole: RenderableType = Group(text, beside)
            if is_beside:
                grid = Table.grid(padding=(0, 2))
                grid.add_row(text, beside)
                whole = grid
            yield whole, index == len(notes) - 1


def _fitted(frame: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """The picture as large as fits into so many characters, its pixels averaged."""
    from PIL import Image

    tall, wide, _ = frame.shape
    scale = min(min(columns, _MOST) / wide, 2 * rows / tall)
    size = (max(1, int(wide * scale)), max(2, int(tall * scale) // 2 * 2))
    small = Image.fromarray(frame).resize(size, Image.Resampling.BOX)
    # Steps of 4 in each colour do not show, and leave less to be written.
    return np.asarray(small) // 4 * 4
