"""What a person sees: lines without control characters, or one live bar."""

import io
import re

import numpy as np
import pytest

from dqx import progress
from dqx.run import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    """Stands in for the time module's clock."""

    def __init__(self):
        self.now = 1000.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def event(steps, returns=(np.nan, np.nan), seeds_done=0, compile_seconds=4.0):
    row = {"eval_return": np.array(returns, np.float32), "episode_count": np.ones(len(returns))}
    return Progress(steps, 8000, seeds_done, steps // 8, row, compile_seconds)


def test_lines_hold_the_numbers_and_come_seldom(clock):
    stream = io.StringIO()
    with progress.display("cartpole", 8, stream) as show:
        show.phase("starting...")
        clock.now += 100
        show.phase("compiling...")
        clock.now += 4 + 1  # 4 seconds of it compile
        show(event(1000, (10, 30)))
        clock.now += 1
        show(event(2000))
        clock.now += 6
        show(event(4000, (np.nan, 50), seeds_done=4))
        clock.now += 4
        show(event(4100))
    assert stream.getvalue().splitlines() == [
        "cartpole: starting...",
        "cartpole: compiling...",
        "cartpole: 12 %, 1,000 steps/s, 0/8 seeds done, 0:07 left, greedy return 20.0",
        "cartpole: 50 %, 500 steps/s, 4/8 seeds done, 0:08 left, greedy return 50.0",
    ]


def test_without_an_evaluation_no_return_is_shown(clock):
    stream = io.StringIO()
    with progress.display("a", 8, stream) as show:
        clock.now += 10
        show(event(6000))
    assert stream.getvalue() == "a: 75 %, 1,000 steps/s, 0/8 seeds done, 0:02 left\n"


def test_quiet_shows_nothing_even_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with progress.display("a", 8, stream, quiet=True) as show:
        show.phase("compiling...")
        show(event(8000))
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar_that_ends_cleanly(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    with pytest.raises(KeyboardInterrupt), progress.display("cart[pole]", 8, stream) as show:
        show.phase("compiling...")
        show._bar.refresh()
        show(event(4000, (10, 30), seeds_done=4))
        show._bar.refresh()
        raise KeyboardInterrupt
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert re.search(r"cart\[pole\] \S+ compiling\.\.\.", text)
    last = r"cart\[pole\] \S+ 50 % [\d,]+ steps/s 4/8 seeds \d+:\d\d left greedy return 20\.0"
    assert re.search(last, text)
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")


def test_a_dumb_terminal_gets_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with progress.display("a", 8, stream) as show:
        show.phase("compiling...")
    assert stream.getvalue() == "a: compiling...\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0:00"), (0.2, "0:01"), (59.5, "1:00"), (754, "12:34"), (3723, "1:02:03")],
)
def test_clock(seconds, words):
    assert progress.clock(seconds) == words
