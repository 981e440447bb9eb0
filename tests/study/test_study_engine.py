"""What waits in memory while it is written, and what time checkpoints may take."""

import gc
import math
import threading
import time
import weakref
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from dqx.compute.session import ChunkResult, Session
from dqx.study import checkpoint, engine
from dqx.study.background import Writer
from dqx.study.store import FolderStore
from tests.study.kit import plan, run

# --- What waits in memory.


class Slow:
    """Writing that waits, and the numbers of results that were there while it did."""

    def __init__(self, patch, seconds):
        self.alive, self.refs, self.threads, finish = [], [], set(), FolderStore.finish

        def slowly(store, task, result, machine):
            self.threads.add(threading.current_thread())
            time.sleep(seconds)
            return finish(store, task, result, machine)

        result = Session.result

        def watched(session):
            found = result(session)
            self.refs.append(weakref.ref(found.metrics["loss"]))
            self.alive.append(sum(ref() is not None for ref in self.refs))
            return found

        patch.setattr(FolderStore, "finish", slowly)
        patch.setattr(Session, "result", watched)


def results_alive():
    gc.collect()
    return sum(isinstance(thing, ChunkResult) for thing in gc.get_objects())


def test_finished_chunks_leave_memory(tmp_path, monkeypatch):
    seen, arrays, before = Slow(monkeypatch, 0.0), [], results_alive()

    def progress(event):
        if event.chunks_done != event.chunks:
            arrays.append(len(jax.live_arrays()))

    study = run(plan(240), tmp_path / "s", progress=progress)
    assert len(study.runs) == 240 and len(seen.refs) == 60
    assert results_alive() == before
    assert not any(ref() is not None for ref in seen.refs)
    assert max(seen.alive) <= Writer._LIMIT + 3
    # Nor do arrays on the devices add up: one a chunk would make 30 more.
    assert max(arrays[len(arrays) // 2 :]) <= max(arrays[: len(arrays) // 4]) + 20


def test_training_waits_for_a_slow_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(Writer, "_LIMIT", 3)
    seen = Slow(monkeypatch, 0.02)
    study = run(plan(60), tmp_path / "s")
    assert len(study.runs) == 60 and len(seen.refs) == 15
    # Three wait, one is being written, one is new, one was its neighbour's a moment ago.
    assert 3 <= max(seen.alive) <= 6
    assert [thread.name.startswith("dqx-writer") for thread in seen.threads] == [True]


def test_the_writer_tells_of_a_failure_at_the_next_call():
    done = []

    def fail():
        raise OSError("full")

    with Writer() as writer:
        with pytest.raises(OSError, match="full"):
            writer.submit(fail)  # unless the thread is slower
            while not writer._waiting[0].done():
                time.sleep(0.001)
            writer.submit(done.append, 1)
        writer.wait()
        writer.submit(done.append, 2)
        writer.wait()
        assert done[-1] == 2
        with pytest.raises(OSError, match="full"):
            writer.submit(fail)
            writer.wait()


# --- Time for checkpoints.


@pytest.fixture
def clockwork(monkeypatch):
    """A clock on which a row takes a second and a checkpoint three; what happened, and when."""
    now, saved = [100.0], []
    fake = SimpleNamespace(monotonic=lambda: now[0], perf_counter=time.perf_counter)
    monkeypatch.setattr(engine, "time", fake)
    advance, write = Session.advance, checkpoint.write

    def slowly(session):
        advance(session)
        now[0] += 1

    def dearly(*args):
        write(*args)
        saved.append(now[0] - 100)
        now[0] += 3

    monkeypatch.setattr(Session, "advance", slowly)
    monkeypatch.setattr(checkpoint, "write", dearly)
    return SimpleNamespace(now=now, saved=saved)


def test_checkpoints_take_a_small_share_of_the_time(clockwork, tmp_path):
    """Also where each chunk is over soon: what the last one cost is not forgotten."""
    run(
        plan(4, {"total_steps": 88 * 500, "eval_period": 0}),
        tmp_path / "long",
        checkpoint_seconds=10,
    )
    long = list(clockwork.saved)
    assert long[0] == 10 and len(long) > 4
    assert set(np.diff(long)) == {3 + 3 / engine.CHECKPOINT_SHARE}
    clockwork.saved.clear()
    clockwork.now[0] = 100.0
    run(
        plan(40, {"total_steps": 88 * 20, "eval_period": 0}),
        tmp_path / "short",
        checkpoint_seconds=10,
    )
    rows = 10 * 21
    assert len(clockwork.saved) >= 1 and 3 * len(clockwork.saved) <= 3 + 0.05 * rows


@pytest.mark.parametrize("seconds", [0, 7, 1e9])
def test_checkpoints_keep_their_distance(clockwork, seconds, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "CHECKPOINT_SHARE", math.inf)
    run(
        plan(4, {"total_steps": 88 * 30, "eval_period": 0}),
        tmp_path / "s",
        checkpoint_seconds=seconds,
    )
    expected = {0: 30, 7: 4}.get(seconds, 0)
    assert len(clockwork.saved) == expected
    if seconds == 7:
        assert set(np.diff(clockwork.saved)) == {10}  # three of them to write


def test_the_manifest_says_what_checkpoints_took(clockwork, tmp_path):
    study = run(
        plan(4, {"total_steps": 88 * 30, "eval_period": 0}),
        tmp_path / "s",
        checkpoint_seconds=7,
    )
    assert study.manifest["checkpoint_seconds"] == 3 + 3 * (len(clockwork.saved) - 1)
