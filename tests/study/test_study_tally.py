"""How far a study is, added up from what its threads report."""

import math
import sys
import threading

import pytest

from dqx.study import tally
from dqx.study.tally import Tally


class Clock:
    """Stands in for the time module."""

    def __init__(self):
        self.now = 1000.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(tally, "time", clock)
    return clock


def runs(*found):
    """Runs of a finished chunk, of (config, seed, step of divergence)."""
    names = ("config", "seed", "diverged_at")
    return [dict(zip(names, run, strict=True)) for run in found]


def test_a_fresh_tally(clock):
    progress = Tally("mine", 3, 10, 1000).progress()
    assert progress[:7] == ("mine", 0, 3, 0, 10, 0, 1000)
    assert math.isnan(progress.steps_per_second) and math.isnan(progress.seconds_left)
    assert (progress.diverged, progress.compile_seconds) == ((), 0)


def test_the_rate_leaves_out_compiling_and_earlier_sittings(clock):
    counts = Tally("mine", 3, 10, 1000)
    counts.settled(60.0)  # before the start
    counts.found(300)
    clock.now += 7
    counts.compiled(5.0)
    counts.advance(50)
    progress = counts.progress()
    assert (progress.steps, progress.compile_seconds) == (350, 65.0)
    assert counts.seconds == 2
    assert progress.steps_per_second == 25 and progress.seconds_left == 650 / 25
    clock.now += 8
    counts.advance(150)
    progress = counts.progress()
    assert progress.steps == 500
    assert progress.steps_per_second == 20 and progress.seconds_left == 500 / 20


def test_diverged_runs_are_listed():
    counts = Tally("mine", 2, 4, 1000)
    counts.finish(runs(("a", 3, 200), ("b", 3, -1)))
    counts.finish(runs(("a", 4, 0), ("b", 4, 900)))
    progress = counts.progress()
    assert progress.diverged == (("a", 3, 200), ("a", 4, 0), ("b", 4, 900))
    assert (progress.chunks_done, progress.runs_done) == (2, 4)


def test_many_threads_may_finish_chunks():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that a missing lock shows
    counts, threads, each, seen = Tally("mine", 2000, 6000, 60_000), 8, 250, []
    go, stop = threading.Barrier(threads + 1), threading.Event()

    def finish(thread):
        go.wait()
        for i in range(each):
            counts.advance(30)
            counts.finish(runs(*((f"config {j}", thread * each + i, i - 50) for j in range(3))))

    def watch():
        while not stop.is_set():
            seen.append(counts.progress())

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
    progress = counts.progress()
    assert (progress.chunks_done, progress.runs_done, progress.steps) == (2000, 6000, 60_000)
    assert len(progress.diverged) == len(set(progress.diverged)) == threads * 200 * 3
    assert len(seen) > 20
    for one in seen:  # never a chunk without its runs
        assert one.runs_done == 3 * one.chunks_done <= one.steps / 10
    done = [one.chunks_done for one in seen]
    assert done == sorted(done)
