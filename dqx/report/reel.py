"""Films as files: every picture with its Q-values beside it, as GIF, PNGs or MP4."""

import functools
import io
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dqx.files import OutputError, Staging, whole_file
from dqx.report import style
from dqx.settings import ConfigError

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

    from dqx.report.film import Episode, Film

WIDTH, FPS = 480, 20
# Pixels of a film at most, of one second of a GIF, and how long the end of an episode stays.
_WIDEST, _SLOWEST, _FASTEST, _HOLD_SECONDS = 1920, 0.1, 50, 1.2
_PAPER, _INK, _DIM, _TRACK = (250, 250, 247), (38, 42, 51), (122, 130, 146), (226, 229, 233)
# The sky blue and the orange of the palette.
_BAR, _CHOSEN = (tuple(bytes.fromhex(color[1:])) for color in style.LIGHT[4:6])
_COLOURS = (64, 32, 16)
ENDS = {
    "terminated": "the end",
    "truncated": "time limit",
    "cut": "cut here",
}


class Caption(NamedTuple):
    """What stands beside a picture.

    Attributes:
        lines: the run, the step and the return so far.
        q_values: float32 ``[A]``; None where the episode is over.
        action: the one that is chosen; -1 where the episode is over.
        end: how the episode ended, empty before.
    """

    lines: tuple[str, ...]
    q_values: np.ndarray | None
    action: int
    end: str


def captions(film: "Film", episode: "Episode") -> list[Caption]:
    """What stands beside each of the N pictures of an episode."""
    totals = np.concatenate([np.zeros(1, np.float32), np.cumsum(episode.rewards, dtype=np.float32)])
    steps = len(episode.actions)
    number = "" if len(film.episodes) == 1 else f", episode {_number(film, episode)}"
    head = f"seed {film.seed}{number}"
    found = []
    for time in episode.times.tolist():
        lines = (head, f"step {time:,}", f"return {totals[time]:.{_decimals(episode)}f}")
        over = time == steps
        found.append(
            Caption(
                lines,
                None if over else episode.q_values[time],
                -1 if over else int(episode.actions[time]),
                ENDS[episode.end] if over else "",
            )
        )
    return found


def value_range(film: "Film") -> tuple[float, float]:
    """The least and the greatest Q-value of a film; they differ."""
    values = np.concatenate([episode.q_values.ravel() for episode in film.episodes])
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def value_text(value: float, bounds: tuple[float, float]) -> str:
    """A Q-value with as many digits as tell actions apart."""
    span = bounds[1] - bounds[0]
    return f"{value:.{3 if span < 1 else 2 if span < 30 else 1}f}"


def pictures(film: "Film", width: int = WIDTH) -> Iterator[np.ndarray]:
    """The pictures of a film, Q-values beside them, uint8 ``[H, width, 3]``; H and width even."""
    bounds, sheet = value_range(film), _Sheet(film, width)
    for episode in film.episodes:
        for frame, caption in zip(episode.frames, captions(film, episode), strict=True):
            yield sheet.drawn(frame, caption, bounds)


def gif_bytes(
    film: "Film", *, width: int = WIDTH, fps: float = FPS, limit: int | None = None
) -> bytes:
    """A film as an animated GIF that begins again at its end.

    Args:
        film: to be shown.
        width: in pixels, Q-values included.
        fps: pictures a second, at most 50, which is what browsers show.
        limit: bytes at most; colours, pictures and pixels are left out until it fits.

    Raises:
        ConfigError: for a width or rate out of range, or if it cannot be made to fit.
    """
    check_size(width, fps)
    if limit is None:
        return _gif(_drawn(film, width), fps, _COLOURS[0], 1)
    attempts = [(width, colours, 1) for colours in _COLOURS[:2]]
    attempts += [(width, _COLOURS[1], every) for every in (2, 3, 4)]
    attempts += [(max(int(width * share), 240), _COLOURS[2], 6) for share in (0.75, 0.5)]
    drawn: dict[int, list[list[Image.Image]]] = {}
    for wide, colours, every in attempts:
        if wide not in drawn:
            drawn = {wide: _drawn(film, wide)}
        content = _gif(drawn[wide], fps, colours, every)
        if len(content) <= limit:
            return content
    raise ConfigError(
        f"the film does not fit into {limit:,} bytes, the smallest has {len(content):,}: give "
        "more, or make it shorter by max_steps or max_frames"
    )


def write_gif(film: "Film", path: Path, **options: Any) -> None:
    """Writes a film as `gif_bytes` gives it, whole or not at all."""
    content = gif_bytes(film, **options)
    with whole_file(path) as file:
        file.write(content)


def write_pngs(film: "Film", folder: Path, *, width: int = WIDTH) -> int:
    """Writes each picture as a PNG into a new folder, whole or not at all; returns how many.

    Raises:
        OutputError: if something is in the way, or it cannot be written.
        ConfigError: for a width out of range.
    """
    from PIL import Image

    check_size(width, FPS)
    count = 0
    with Staging(folder, is_replaced) as staging:
        for count, picture in enumerate(pictures(film, width), start=1):
            Image.fromarray(picture).save(staging.folder / f"{count - 1:05}.png", optimize=True)
        staging.commit()
    return count


def is_replaced(folder: Path) -> bool:
    """Whether there is an empty folder that one of pictures takes the place of.

    Raises:
        OutputError: if anything else is there.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder} is there already: choose another folder or remove it")
    return folder.exists()


def write_mp4(film: "Film", path: Path, *, width: int = WIDTH, fps: float = FPS) -> None:
    """Writes a film as MP4 by the program ``ffmpeg``, whole or not at all.

    Raises:
        ConfigError: if there is no ``ffmpeg``, for a width or rate out of range, or with the words
            of ``ffmpeg`` if it fails.
    """
    check_size(width, fps)
    program = find_ffmpeg()
    shown = list(pictures(film, width))
    height, wide, _ = shown[0].shape
    # Even sizes and this pixel format are what every player takes.
    command = [
        program, "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24",
        "-s", f"{wide}x{height}", "-r", f"{fps:g}", "-i", "-", "-an", "-pix_fmt", "yuv420p",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "film.mp4"  # it has to seek in what it writes
        content = b"".join(picture.tobytes() for picture in shown)
        done = subprocess.run([*command, made], input=content, capture_output=True, check=False)
        if done.returncode or not made.is_file():
            said = " ".join(done.stderr.decode(errors="replace").split())
            raise ConfigError(f"ffmpeg could not write {path}: {said or done.returncode}")
        with whole_file(path) as file:
            file.write(made.read_bytes())


def find_ffmpeg() -> str:
    """The program ``ffmpeg``.

    Raises:
        ConfigError: if there is none.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise ConfigError(
            "an MP4 is written by the program ffmpeg, and none is found on PATH: install it (apt "
            "install ffmpeg, brew install ffmpeg), or give --gif FILE"
        )
    return program


def check_size(width: int, fps: float) -> None:
    """Refuses sizes and rates that no film has."""
    if not 240 <= width <= _WIDEST:
        raise ConfigError(f"the width of a film is from 240 to {_WIDEST} pixels, got {width}")
    if not _SLOWEST <= fps <= _FASTEST:
        raise ConfigError(f"a film shows {_SLOWEST:g} to {_FASTEST} pictures a second, got {fps:g}")


def _number(film: "Film", episode: "Episode") -> int:
    return next(i for i, other in enumerate(film.episodes, start=1) if other is episode)


def _decimals(episode: "Episode") -> int:
    """Digits behind the point that its rewards have, three at most."""
    rewards = episode.rewards.astype(np.float64)
    return next((d for d in range(3) if np.allclose(rewards, np.round(rewards, d), atol=1e-5)), 3)


def _drawn(film: "Film", width: int) -> "list[list[Image.Image]]":
    """The pictures of each episode, Q-values beside them."""
    from PIL import Image

    whole = pictures(film, width)
    return [[Image.fromarray(next(whole)) for _ in episode.times] for episode in film.episodes]


def _gif(
    episodes: "Sequence[Sequence[Image.Image]]", fps: float, colours: int, every: int
) -> bytes:
    from PIL import Image

    shown, seconds = [], []
    for whole in episodes:
        taken = [p for i, p in enumerate(whole) if i % every == 0 or i == len(whole) - 1]
        shown += taken
        seconds += [min(every, 2) / fps] * (len(taken) - 1) + [_HOLD_SECONDS]
    palette = _palette(shown, colours)
    frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in shown]
    content = io.BytesIO()
    frames[0].save(
        content,
        format="GIF",
        save_all=True,
        append_images=frames[1:],
        duration=[round(100 * s) * 10 for s in seconds],  # a GIF counts hundredths of a second
        loop=0,
        optimize=True,
        disposal=1,
    )
    return content.getvalue()


def _palette(shown: Sequence["Image.Image"], colours: int) -> "Image.Image":
    """Colours for all pictures, those of the panel among them, which are few pixels but matter."""
    from PIL import Image

    # The last picture shows the end, which may have colours of its own.
    some = [*shown[:: max(1, len(shown) // 12)], shown[-1]]
    width, height = some[0].size
    board = Image.new("RGB", (width, height * len(some)))
    for index, picture in enumerate(some):
        board.paste(picture, (0, index * height))
    flat = [value for colour in (_PAPER, _INK, _DIM, _TRACK, _BAR, _CHOSEN) for value in colour]
    # Half of the rest are those of most pixels, half reach the rare ones.
    for way in (Image.Quantize.MEDIANCUT, Image.Quantize.MAXCOVERAGE):
        found = board.quantize(colors=(colours - 6) // 2, method=way)
        flat += (found.getpalette() or [])[: 3 * ((colours - 6) // 2)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(flat)
    return palette


class _Sheet:
    """Draws pictures with their panels, all of one size.

    Args:
        film: whose pictures they are.
        width: of the whole, in pixels.
    """

    def __init__(self, film: "Film", width: int) -> None:
        self._film = film
        self._panel = round(min(max(0.4 * width, 150), 260))
        self._unit = self._panel / 200
        tall, wide, _ = film.episodes[0].frames.shape[1:]
        self._room = width - self._panel
        scale = min(self._room / wide, 1.2 * self._room / tall)
        self._picture = (max(1, round(wide * scale)), max(1, round(tall * scale)))
        rows = len(film.action_names)
        self._row = max(5, min(26, round(150 / rows))) * self._unit
        least = (124 + 8) * self._unit + rows * self._row
        height = round(max(self._picture[1], least))
        self._size = (width - width % 2, height + height % 2)

    def drawn(self, frame: np.ndarray, caption: Caption, bounds: tuple[float, float]) -> np.ndarray:
        """One picture, uint8 ``[H, width, 3]``."""
        from PIL import Image, ImageDraw

        page = Image.new("RGB", self._size, _PAPER)
        picture = Image.fromarray(frame)
        grows = self._picture[0] >= picture.width
        way = Image.Resampling.NEAREST if grows else Image.Resampling.BOX
        left = (self._room - self._picture[0]) // 2
        top = (self._size[1] - self._picture[1]) // 2
        page.paste(picture.resize(self._picture, way), (left, top))
        self._write_panel(ImageDraw.Draw(page), caption, bounds)
        return np.asarray(page)

    def _write_panel(
        self, pen: "ImageDraw.ImageDraw", caption: Caption, bounds: tuple[float, float]
    ) -> None:
        unit, left = self._unit, self._room + 14 * self._unit
        right = self._size[0] - 12 * unit
        name, font = _fitting(self._film.env, right - left, round(14 * unit), True)
        pen.text((left, 10 * unit), name, _INK, font)
        for index, line in enumerate(caption.lines):
            place = (left, (32 + 18 * index) * unit)
            pen.text(place, line, _INK, _font(round(13 * unit)))
        head = caption.end or "Q-values"
        pen.text((left, 94 * unit), head, _DIM, _font(round(12 * unit)))
        top = 114 * unit
        for index, name in enumerate(self._film.action_names):
            self._write_row(pen, index, name, (left, top + index * self._row, right), caption,
                            bounds)  # fmt: skip

    def _write_row(
        self,
        pen: "ImageDraw.ImageDraw",
        index: int,
        name: str,
        place: tuple[float, float, float],
        caption: Caption,
        bounds: tuple[float, float],
    ) -> None:
        """One action: its name, its bar, its number."""
        (left, top, right), unit = place, self._unit
        chosen = index == caption.action
        bottom = top + self._row - max(1, 3 * unit)
        tall = self._row >= 10 * unit
        font = _font(round(min(12 * unit, self._row * 0.72)), chosen)
        middle = (top + bottom) / 2
        start, end = (left + 62 * unit, right - 48 * unit) if tall else (left, right)
        if tall:
            shown, small = _fitting(name, 56 * unit, round(font.size), chosen)
            pen.text((left, middle), shown, _INK, small, anchor="lm")
        pen.rectangle((start, top, end, bottom), fill=_TRACK)
        if caption.q_values is None:
            return
        value = float(caption.q_values[index])
        share = (value - bounds[0]) / (bounds[1] - bounds[0])
        colour = _CHOSEN if chosen else _BAR
        pen.rectangle((start, top, start + max(1, share * (end - start)), bottom), fill=colour)
        if tall:
            text, small = _fitting(value_text(value, bounds), 45 * unit, round(font.size), chosen)
            pen.text((right, middle), text, _INK, small, anchor="rm")


def _fitting(
    text: str, room: float, size: int, bold: bool = False
) -> "tuple[str, ImageFont.FreeTypeFont]":
    """A text and a font for so many pixels: smaller letters, and then fewer of them."""
    while size > 8 and _font(size, bold).getlength(text) > room:
        size -= 1
    font = _font(size, bold)
    while text and font.getlength(text) > room:
        text = text[:-1]
    return text, font


@functools.cache
def _font(size: int, bold: bool = False) -> "ImageFont.FreeTypeFont":
    """The font that matplotlib brings along."""
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)
