"""What a study says while it runs: the numbers, and how a person sees them."""

import io
import math
import re
import sys
import threading

import numpy as np
import pytest
import scipy.stats

from dqx.study import Standing, StudyProgress, tally, view
from dqx.study.tally import Tally, rank


class Clock:
    """Stands in for the time module's clocks."""

    def __init__(self):
        self.now = 1000.0

    def perf_counter(self):
        return self.now

    monotonic = perf_counter


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(tally, "time", clock)
    monkeypatch.setattr(view, "time", clock)
    return clock


def chunk(*runs):
    """A chunk's record, of (config, seed, final return, step of divergence)."""
    names = ("config", "seed", "final_return", "diverged_at")
    return {"runs": [dict(zip(names, run, strict=True)) for run in runs]}


def test_a_fresh_tally(clock):
    event = Tally("mine", 3, 10, 1000).event()
    assert event[:7] == ("mine", 0, 3, 0, 10, 0, 1000)
    assert math.isnan(event.steps_per_second) and math.isnan(event.seconds_left)
    assert (event.best, event.worst, event.diverged, event.compile_seconds) == (None, None, (), 0)


def test_the_rate_leaves_out_compiling_and_earlier_sittings(clock):
    counts = Tally("mine", 3, 10, 1000)
    counts.found(300)
    clock.now += 7
    counts.advance(50, 5.0)
    event = counts.event()
    assert (event.steps, event.compile_seconds) == (350, 5.0)
    assert event.steps_per_second == 25 and event.seconds_left == 650 / 25
    clock.now += 8
    counts.advance(150, 5.0)
    event = counts.event()
    assert event.steps == 500
    assert event.steps_per_second == 20 and event.seconds_left == 500 / 20


def test_the_best_and_the_worst_are_those_of_the_iqm():
    counts = Tally("mine", 4, 40, 1000)
    rng = np.random.default_rng(0)
    returns = {name: rng.normal(mean, 3, 9) for name, mean in (("a", 10), ("b", 20), ("c", 15))}
    returns["b"][
        0
    ] = -1e6  # an outlier: by the mean b would be the worst, by the IQM it is the best
    for name, values in returns.items():
        counts.finish(chunk(*((name, i, float(v), -1) for i, v in enumerate(values[:4]))))
        counts.finish(chunk(*((name, i, float(v), -1) for i, v in enumerate(values[4:]))))
    iqm = {name: scipy.stats.trim_mean(np.sort(v), 0.25) for name, v in returns.items()}
    event = counts.event()
    assert (event.chunks_done, event.runs_done) == (6, 27)
    best, worst = max(iqm, key=iqm.get), min(iqm, key=iqm.get)
    assert best == "b" == min(returns, key=lambda name: returns[name].mean())
    assert (event.best.name, event.best.runs) == (best, 9)
    assert event.best.iqm == pytest.approx(iqm[best])
    assert event.worst.name == worst and event.worst.iqm == pytest.approx(iqm[worst])
    assert [s.name for s in rank(returns)] == sorted(iqm, key=iqm.get, reverse=True)


def test_the_iqm_by_hand():
    # Of 8 numbers the two smallest and the two largest go: the mean of 3, 4, 5 and 8 is 5.
    found = rank({"a": [100, 8, 1, 5, 4, -100, 3, 9]})
    assert found == [Standing("a", 5.0, 8)]
    found = rank({"x": [math.nan], "a": [1, math.nan], "b": [2, math.inf], "y": []})
    assert [(s.name, s.runs) for s in found[:2]] == [("b", 2), ("a", 2)]
    assert [s.iqm for s in found[:2]] == [2, 1]
    # Those without a finite return are last.
    assert {s.name for s in found[2:]} == {"x", "y"} and all(math.isnan(s.iqm) for s in found[2:])


def test_diverged_runs_are_listed():
    counts = Tally("mine", 2, 4, 1000)
    counts.finish(chunk(("a", 3, None, 200), ("b", 3, 5.0, -1)))
    counts.finish(chunk(("a", 4, 2.0, 0), ("b", 4, None, 900)))
    event = counts.event()
    assert event.diverged == (("a", 3, 200), ("a", 4, 0), ("b", 4, 900))
    assert event.best == Standing("b", 5.0, 2) and event.worst == Standing("a", 2.0, 2)


def test_many_threads_may_finish_chunks():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that a missing lock shows
    counts, threads, each, seen = Tally("mine", 2000, 6000, 1), 8, 250, []
    go, stop = threading.Barrier(threads + 1), threading.Event()

    def finish(thread):
        go.wait()
        for i in range(each):
            runs = ((f"config {j}", thread * each + i, float(j), i - 50) for j in range(3))
            counts.finish(chunk(*runs))

    def watch():
        while not stop.is_set():
            seen.append(counts.event())

    workers = [threading.Thread(target=finish, args=(i,)) for i in range(threads)]
    watcher = threading.Thread(target=watch)
    for thread in [*workers, watcher]:
        thread.start()
    go.wait()
    for thread in workers:
        thread.join()
    stop.set()
    watcher.join()
    sys.setswitchinterval(interval)
    event = counts.event()
    assert (event.chunks_done, event.runs_done) == (2000, 6000)
    assert len(event.diverged) == len(set(event.diverged)) == threads * 200 * 3
    assert event.best == ("config 2", 2.0, 2000) and event.worst == ("config 0", 0.0, 2000)
    assert len(seen) > 20
    for one in seen:  # never a chunk without its runs
        assert one.runs_done == 3 * one.chunks_done
    done = [one.chunks_done for one in seen]
    assert done == sorted(done)


def event(**changes):
    start = StudyProgress(
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
        best=Standing("lr=1", 480.25, 5),
        worst=Standing("lr=2", 9.0, 1),
        diverged=(),
    )
    return start._replace(**changes)


def test_the_words():
    assert list(view.words(event()).values()) == [
        "30 %", "2/12 chunks", "8/1,234 runs", "54,322 steps/s", "12:34 left",
        "best IQM 480.2 of 5 runs: lr=1", "worst IQM 9.0 of 1 run: lr=2",
    ]  # fmt: skip
    fresh = event(
        steps_per_second=math.nan, seconds_left=math.nan, steps=0, best=None, worst=None,
        chunks_done=0, runs_done=0,
    )  # fmt: skip
    assert list(view.words(fresh).values()) == ["0 %", "0/12 chunks", "0/1,234 runs", "compiling"]
    over = fresh._replace(runs_done=1234, chunks_done=12, steps=1000)
    assert list(view.words(over).values()) == ["100 %", "12/12 chunks", "1,234/1,234 runs"]
    alone = event(worst=event().best)
    assert [key for key in view.words(alone)][-1] == "best"


def test_diverged_runs_are_named_and_counted():
    runs = tuple(("lr=1", seed, 1000 * seed) for seed in range(1, 1009))
    assert view.words(event(diverged=runs[:1]))["diverged"] == (
        "diverged: 1 run: seed 1 of lr=1 at step 1,000"
    )
    five = view.words(event(diverged=runs[:5]))["diverged"]
    assert five.startswith("diverged: 5 runs: seed 1 of") and five.endswith("at step 5,000")
    many = view.words(event(diverged=runs))["diverged"]
    assert many == five.replace("5 runs:", "1,008 runs:") + ", and 1,003 more"


def test_lines_come_seldom_and_the_last_always(clock):
    stream = io.StringIO()
    with view.view(stream) as show:
        for step in range(100):
            clock.now += 0.25
            show(event(steps=10 * step))
        show(event(steps=1000, runs_done=1234))
    lines = stream.getvalue().splitlines()
    assert [line[:10] for line in lines] == [
        "mine: 0 %,", "mine: 20 %", "mine: 40 %", "mine: 60 %", "mine: 80 %", "mine: 100 "
    ]  # fmt: skip
    assert lines[1] == "mine: " + ", ".join(view.words(event(steps=200)).values())
    assert stream.getvalue().replace("\n", "").isprintable()


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal()


def shown(stream):
    """What is on the terminal after all, line by line."""
    lines = [""]
    for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\n)", stream.getvalue()):
        if part == "\n":
            lines.append("")
        elif part.endswith("[1A"):
            lines.pop()
        elif part.endswith("[2K"):
            lines[-1] = ""
        elif not part.startswith("\x1b["):
            lines[-1] += part.replace("\r", "")
    return [line.rstrip() for line in lines]


def last_frame(stream, **changes):
    with view.view(stream) as show:
        show(event(steps=0))
        show(event(**changes))
        live = show.__closure__[0].cell_contents
        live.refresh()
        return shown(stream)


def test_a_terminal_gets_a_live_view(terminal):
    lines = last_frame(terminal)
    assert re.fullmatch(r"mine ━+\S*━* 30 %", lines[0]) and len(lines[0]) == 80
    assert lines[1:] == [
        "  2/12 chunks  8/1,234 runs  54,322 steps/s  12:34 left",
        "  best IQM 480.2 of 5 runs: lr=1",
        "  worst IQM 9.0 of 1 run: lr=2",
    ]
    # When it is over, it is gone and the cursor is back.
    assert shown(terminal) == [""]
    text = terminal.getvalue()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_long_names_are_cut_but_diverged_runs_are_told_in_full(terminal):
    name = "[red]" + ", ".join(f"field{i}={i}" for i in range(20))
    best, diverged = Standing(name, 1.0, 3), (("x" * 70, 5, 100), ("y" * 70, 6, 200))
    lines = last_frame(terminal, best=best, diverged=diverged)
    assert lines[2].startswith("  best IQM 1.0 of 3 runs: [red]field0=0, ")
    assert lines[2].endswith("…") and max(map(len, lines)) == 80
    assert lines[4].startswith("  diverged: 2 runs: seed 5 of")
    assert all(line.startswith("  ") for line in lines[1:])
    rest = "".join(line.strip() for line in lines[4:]).replace(" ", "")
    assert f"{'x' * 70}atstep100" in rest and f"{'y' * 70}atstep200" in rest


def test_a_live_view_ends_cleanly_after_ctrl_c(terminal):
    with pytest.raises(KeyboardInterrupt), view.view(terminal) as show:
        show(event())
        raise KeyboardInterrupt
    assert shown(terminal) == [""] and terminal.getvalue().count("\x1b[?25h") == 1


def test_quiet_shows_nothing_even_on_a_terminal(terminal):
    for stream in (terminal, io.StringIO()):
        with view.view(stream, quiet=True) as show:
            show(event())
            show(event(runs_done=1234))
        assert stream.getvalue() == ""


def test_a_dumb_terminal_gets_lines(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    with view.view(terminal) as show:
        show(event())
    assert terminal.getvalue() == "mine: " + ", ".join(view.words(event()).values()) + "\n"
