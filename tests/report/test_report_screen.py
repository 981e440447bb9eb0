"""The live view of a film: colours where they belong, panels that fit, frames at their time."""

import io
import re

import numpy as np
import pytest

from dqx.report import reel, screen
from dqx.settings import ConfigError
from tests.report.kit import Terminal, shown
from tests.report.test_report_film import drawn_film


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)


def played(film, size=(100, 30), **options):
    stream, waits = Terminal(), []
    screen.show(film, stream, fps=options.pop("fps", 10), sleep=waits.append, size=size)
    return stream, waits


def test_half_blocks_are_two_pixels_each():
    frame = np.zeros((4, 3, 3), np.uint8)
    frame[0], frame[1], frame[3, 2] = (255, 0, 0), (0, 0, 255), (0, 255, 0)
    text = screen.half_blocks(frame)
    assert text.plain == "▀▀▀\n▀▀▀"
    styles = [(span.start, span.end, str(span.style)) for span in text.spans]
    assert styles == [
        (0, 3, "#ff0000 on #0000ff"),
        (4, 6, "#000000 on #000000"),
        (6, 7, "#000000 on #00ff00"),
    ]


def test_without_colours_brightness_is_shown(monkeypatch):
    frame = np.zeros((4, 2, 3), np.uint8)
    frame[:, 1], frame[2:, 0] = 255, 128
    assert screen.shades(frame).plain == " █\n▒█"
    monkeypatch.setenv("NO_COLOR", "1")
    stream, _ = played(drawn_film(count=2))
    assert "38;2" not in stream.getvalue() and "░" in stream.getvalue()


@pytest.mark.parametrize("size", [(100, 30), (50, 40), (60, 12)])
def test_picture_and_panel_fit_into_the_terminal(size):
    film = drawn_film(count=3)
    stream, waits = played(film, size)
    lines = [line for line in shown(stream) if line]
    assert 0 < len(lines) <= size[1] and max(map(len, lines)) <= size[0]
    text = "\n".join(lines)
    assert "Square-v0" in text and "step 2" in text and "return 1.0" in text and "the end" in text
    assert "step 1" not in text  # what stays is the last picture
    # Every picture is there for a tenth of a second less what drawing took, the last one longer.
    assert len(waits) == 3 and all(0 <= wait <= 0.1 for wait in waits[:2]) and waits[2] >= 1
    assert stream.getvalue().count("\x1b[?25h") == 1  # the cursor is back


def test_panel_marks_the_chosen_action_and_tells_its_values():
    film = drawn_film()
    caption = reel.captions(film, film.episodes[0])[3]
    lines = screen.panel(film, caption, reel.value_range(film), 20).plain.split("\n")
    assert lines[:5] == ["Square-v0", "seed 4", "step 3", "return 1.5", "Q-values"]
    marked = [i for i, line in enumerate(lines[5:]) if line.startswith("▶")]
    assert marked == [caption.action]
    values = [float(re.search(r"[-\d.]+$", line)[0]) for line in lines[5:]]
    np.testing.assert_allclose(values, caption.q_values, atol=0.006)


def test_panel_of_many_actions_keeps_the_chosen_one():
    names = [f"a{i}" for i in range(40)]
    film = drawn_film(actions=40, names=names)
    for caption in reel.captions(film, film.episodes[0])[:-1]:
        lines = screen.panel(film, caption, reel.value_range(film), 15).plain.split("\n")
        assert len(lines) == 15
        assert sum(line.startswith(f"▶ a{caption.action} ") for line in lines) == 1


def test_other_streams_are_refused(monkeypatch):
    screen.check(Terminal())
    with pytest.raises(ConfigError, match="no terminal .*: give --gif FILE"):
        screen.check(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    with pytest.raises(ConfigError, match="no terminal"):
        screen.check(Terminal())


class Latin(Terminal):
    encoding = "latin-1"


def test_an_encoding_without_blocks_is_refused():
    with pytest.raises(ConfigError, match="latin-1, has no blocks"):
        screen.check(Latin())
