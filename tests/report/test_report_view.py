"""What a person sees while a study runs: lines without control characters, or a live panel."""

import dataclasses
import io
import math
import re

import numpy as np
import pytest

from dqx.report import view as module
from dqx.report.view import LineView, LiveView, View, view
from dqx.settings import Config, Hyper
from dqx.study import Plan, Point, Progress, Row
from tests.report.kit import Terminal, shown

ALONE = Plan("mine", (Point("lr=1", Config(), Hyper(), {}),), (0, 1))
SEVERAL = dataclasses.replace(
    ALONE, points=tuple(Point(f"lr={i}", Config(), Hyper(), {}) for i in (1, 2, 3))
)
START = Progress(
    name="mine",
    chunks_done=2,
    chunks=12,
    runs_done=8,
    runs=1234,
    steps=300,
    total_steps=1000,
    steps_per_second=54321.6,
    seconds_left=754.0,
    compile_seconds=4.0,
    diverged=(),
)
FRESH = START._replace(
    steps_per_second=math.nan, seconds_left=math.nan, steps=0, chunks_done=0, runs_done=0
)
# Of five numbers the IQM is the mean of the three in the middle.
FINISHED = [
    *({"config": "lr=1", "score": score} for score in (480, 481, 479.75, 1000, -1000)),
    {"config": "lr=3", "score": None},
    {"config": "lr=3", "score": 20.0},
    {"config": "lr=2", "score": 9.0},
]


def row(returns):
    """A row of metrics with these greedy returns."""
    metrics = {"eval_return": np.array(returns, np.float32)}
    return Row(ALONE.points * len(returns), np.arange(len(returns)), 100, metrics)


def watching(plan, stream=None, make=View):
    """A sink that has seen the start of a plan."""
    sink = make("mine", io.StringIO() if stream is None else stream)
    sink.open(plan)
    return sink


def test_the_words_of_several_configurations():
    sink = watching(SEVERAL)
    sink.row(row([3.0, 4.0]))
    sink.finished(FINISHED[:3])
    sink.finished(FINISHED[3:])
    assert list(sink.words(START).values()) == [
        "30 %", "8/1,234 runs done", "54,322 steps/s", "12:34 left",
        "best IQM 480.2 of 5 runs: lr=1", "worst IQM -490.0 of 2 runs: lr=3",
    ]  # fmt: skip


def test_the_words_of_one_configuration_hold_its_last_greedy_return():
    sink = watching(ALONE)
    assert list(sink.words(FRESH).values()) == ["0 %", "0/1,234 runs done"]
    sink.row(row([np.nan, np.nan]))
    assert "return" not in sink.words(START)
    sink.row(row([10.0, 30.0]))
    sink.row(row([np.nan, np.nan]))  # of an interval without an evaluation
    assert sink.words(START)["return"] == "greedy return 20.0"
    sink.row(row([np.nan, 50.0]))
    assert sink.words(START)["return"] == "greedy return 50.0"
    sink.finished(FINISHED[:5])
    assert list(sink.words(START)) == ["percent", "runs", "rate", "left", "return"]


def test_the_words_of_a_single_standing_and_of_the_end():
    sink = watching(SEVERAL)
    assert list(sink.words(START)) == ["percent", "runs", "rate", "left"]
    sink.finished(FINISHED[:5])
    assert list(sink.words(START))[-1] == "best"
    over = FRESH._replace(runs_done=1234, steps=1000)
    assert list(sink.words(over).values())[:2] == ["100 %", "1,234/1,234 runs done"]


def test_diverged_runs_are_named_and_counted():
    sink, runs = View("mine", io.StringIO()), [("lr=1", seed, 1000 * seed) for seed in range(1009)]
    assert sink.words(START._replace(diverged=tuple(runs[1:2])))["diverged"] == (
        "diverged: 1 run: lr=1 seed 1 at step 1,000"
    )
    five = sink.words(START._replace(diverged=tuple(runs[1:6])))["diverged"]
    assert five.startswith("diverged: 5 runs: lr=1 seed 1 at") and five.endswith("at step 5,000")
    many = sink.words(START._replace(diverged=tuple(runs[1:])))["diverged"]
    assert many == five.replace("5 runs:", "1,008 runs:") + ", and 1,003 more"


class Clock:
    """Stands in for the time module."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_lines_come_seldom_and_the_last_once_and_always(clock):
    stream = io.StringIO()
    sink = watching(ALONE, stream, LineView)
    sink.start()
    for text in ("compiling...", "compiling..."):
        sink.phase(text)
    sink.progress(FRESH)
    clock.now += 5
    for step in range(100):
        sink.progress(START._replace(steps=10 * step))
        clock.now += 0.25
    sink.progress(START._replace(steps=1000))
    over = START._replace(steps=1000, runs_done=1234)
    for seconds_left in (0.0, 1.0, 0.0):
        sink.progress(over._replace(seconds_left=seconds_left))
        clock.now += 6
    sink.close()
    lines = stream.getvalue().splitlines()
    assert [line[:10] for line in lines] == [
        "mine: comp", "mine: 0 %,", "mine: 20 %", "mine: 40 %", "mine: 60 %", "mine: 80 %",
        "mine: 100 ", "mine: 100 ",
    ]  # fmt: skip
    assert lines[2] == "mine: " + ", ".join(sink.words(START._replace(steps=200)).values())
    assert "1,234/1,234 runs done, 54,322 steps/s, 0:00 left" in lines[-1]
    assert stream.getvalue().replace("\n", "").isprintable()


@pytest.fixture
def terminal(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal()


def last_frame(sink, stream, progress):
    """What a live view shows of these numbers; it redraws when it ends, then clears."""
    sink.start()
    sink.progress(progress)
    sink._live.refresh()  # what its clock does four times a second
    frame = shown(stream)
    sink.close()
    return frame


def test_a_terminal_gets_a_live_panel(terminal):
    sink = watching(SEVERAL, terminal, LiveView)
    sink.finished(FINISHED)
    lines = last_frame(sink, terminal, START)
    assert re.fullmatch(r"mine ━+\S*━* 30 %", lines[0]) and len(lines[0]) == 80
    assert lines[1:] == [
        "  8/1,234 runs done  54,322 steps/s  12:34 left",
        "  best IQM 480.2 of 5 runs: lr=1",
        "  worst IQM -490.0 of 2 runs: lr=3",
    ]
    # When it is over, it is gone and the cursor is back.
    assert shown(terminal) == [""]
    text = terminal.getvalue()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_a_terminal_sees_at_once_that_something_starts_and_compiles(terminal):
    sink = LiveView("[red]mine", terminal)
    sink.start()
    sink._live.refresh()
    assert re.fullmatch(r"\S \[red\]mine: starting\.\.\.", shown(terminal)[-1])
    sink.phase("compiling...")
    sink._live.refresh()
    assert re.fullmatch(r"\S \[red\]mine: compiling\.\.\.", shown(terminal)[-1])
    sink.close()
    assert shown(terminal) == [""]


def test_the_panel_of_one_configuration_holds_its_return(terminal):
    sink = watching(ALONE, terminal, LiveView)
    sink.row(row([10.0, 30.0]))
    lines = last_frame(sink, terminal, START)
    assert lines[1:] == ["  8/1,234 runs done  54,322 steps/s  12:34 left  greedy return 20.0"]


def test_long_names_are_cut_but_diverged_runs_are_told_in_full(terminal):
    name = "[red]" + ", ".join(f"field{i}={i}" for i in range(20))
    sink = watching(SEVERAL, terminal, LiveView)
    sink.finished([{"config": name, "score": 1.0}, *FINISHED[-1:]])
    diverged = (("x" * 70, 5, 100), ("y" * 70, 6, 200))
    lines = last_frame(sink, terminal, START._replace(diverged=diverged))
    assert lines[3].startswith("  worst IQM 1.0 of 1 run: [red]field0=0, ")
    assert lines[3].endswith("…") and max(map(len, lines)) == 80
    assert lines[4] == "  diverged: 2 runs:"
    assert all(line.startswith("  ") for line in lines[1:])
    rest = "".join(line.strip() for line in lines[4:]).replace(" ", "")
    assert f"{'x' * 70}seed5atstep100" in rest and f"{'y' * 70}seed6atstep200" in rest


def test_the_stream_chooses_the_view(terminal, monkeypatch):
    found = [type(view("mine", stream)) for stream in (terminal, io.StringIO())]
    quiet = [type(view("mine", stream, quiet=True)) for stream in (terminal, io.StringIO())]
    assert (found, quiet) == ([LiveView, LineView], [View, View])
    for name in ("dumb", None):
        monkeypatch.delenv("TERM") if name is None else monkeypatch.setenv("TERM", name)
        assert type(view("mine", terminal)) is LineView


def test_quiet_shows_nothing_even_on_a_terminal(terminal):
    sink = view("mine", terminal, quiet=True)
    sink.start()
    sink.open(ALONE)
    sink.phase("compiling...")
    sink.row(row([1.0]))
    sink.finished(FINISHED)
    sink.progress(START._replace(runs_done=1234))
    sink.close()
    assert terminal.getvalue() == ""
