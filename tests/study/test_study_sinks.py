"""Sinks: they see every row and every finished run, and what they raise ends a study in order."""

import collections
import threading

import numpy as np
import pandas
import pytest

import dqx
from dqx.compute.programs import Programs
from dqx.settings import ConfigError, preset
from dqx.study import Progress, Sink, engine, load
from dqx.study.lock import holder
from tests.shared import HYPER, TINY, WIDTH
from tests.study.kit import (
    METRICS,
    PLAN,
    ROWS,
    assert_whole,
    computed_steps,
    interrupted,
    plan,
    resume,
    run,
)

GRID = plan(5, grid={"learning_rate": [1e-2, 3e-3]})  # ten runs in three chunks


class Watcher(Sink):
    """Notes every call, and that there is never more than one at a time."""

    def __init__(self):
        self.calls, self._busy = [], threading.Lock()

    def note(self, name, *args):
        assert self._busy.acquire(blocking=False)
        self.calls.append((name, *args))
        self._busy.release()

    def open(self, plan):
        self.note("open", plan)

    def phase(self, text):
        self.note("phase", text)

    def row(self, row):
        self.note("row", row)

    def finished(self, runs):
        self.note("finished", runs)

    def progress(self, progress):
        self.note("progress", progress)

    def complete(self, study):
        self.note("complete", study)

    def close(self):
        self.note("close")

    def all(self, name):
        return [call[1] for call in self.calls if call[0] == name]

    @property
    def names(self):
        return [call[0] for call in self.calls]

    def runs(self):
        return [dict(run) for runs in self.all("finished") for run in runs]


def as_table(rows):
    """Rows as the table of metrics has them."""
    lines = [
        {"config": point.name, "seed": int(seed), "step": row.step}
        | {name: np.float32(values[i]) for name, values in row.metrics.items()}
        for row in rows
        for i, (point, seed) in enumerate(zip(row.points, row.seeds, strict=True))
    ]
    return pandas.DataFrame(lines)


def assert_same_table(rows, study):
    keys = ["config", "seed", "step"]
    expected = study.metrics[[*keys, *METRICS]].astype({"config": str})
    found = as_table(rows).astype({"config": str})[[*keys, *METRICS]]
    assert not found.duplicated(keys).any()
    pandas.testing.assert_frame_equal(
        found.sort_values(keys, ignore_index=True),
        expected.sort_values(keys, ignore_index=True),
        check_exact=True,
    )


@pytest.mark.parametrize("devices", ["cpu:1", "cpu:2"])
def test_sinks_see_every_row_and_every_run_once(devices, tmp_path):
    one, two = Watcher(), Watcher()
    study = run(GRID, tmp_path / "s", devices=devices, sinks=[one, two])
    assert_same_table(one.all("row"), study)
    assert sorted(one.runs(), key=str) == sorted(
        ({k: v for k, v in run.items() if k != "chunk"} for run in study.runs), key=str
    )
    assert one.calls == two.calls
    assert one.names[0] == "open" and one.names[-2:] == ["complete", "close"]
    count = collections.Counter(one.names)
    assert (count["open"], count["complete"], count["close"]) == (1, 1, 1)
    assert set(one.all("phase")) == {"compiling..."}
    (planned,) = one.all("open")
    assert (planned.name, planned.num_runs) == ("tiny", 10)
    assert one.all("complete")[0].digests == study.digests
    last = one.all("progress")[-1]
    assert isinstance(last, Progress)
    assert (last.runs_done, last.steps) == (10, 10 * TINY.total_steps) == (last.runs, last[6])


def test_after_an_interruption_every_run_is_told_of_once_more(tmp_path):
    first, second = Watcher(), Watcher()
    interrupted(PLAN, tmp_path / "s", ROWS + 2, sinks=[first])
    assert "complete" not in first.names and first.names[-1] == "close"
    before = load(tmp_path / "s").runs
    assert [(run["config"], run["seed"]) for run in first.runs()] == [
        (run["config"], run["seed"]) for run in before
    ]
    study = resume(tmp_path / "s", sinks=[second])
    assert sorted((run["config"], run["seed"]) for run in second.runs()) == sorted(study.digests)
    # Those that were there are told of before anything is trained.
    assert second.names.index("finished") < second.names.index("row")
    assert [run["seed"] for run in second.all("finished")[0]] == [run["seed"] for run in before]
    # Together they have seen every row once.
    assert_same_table([*first.all("row"), *second.all("row")], study)
    third = Watcher()
    resume(tmp_path / "s", sinks=[third])
    assert sorted((run["config"], run["seed"]) for run in third.runs()) == sorted(study.digests)
    assert "row" not in third.names and third.names[-2:] == ["complete", "close"]


def test_the_callback_is_told_of_every_row(tmp_path):
    events = []
    run(plan(6), tmp_path / "s", progress=events.append)
    first = [WIDTH * TINY.log_period * (r + 1) for r in range(ROWS)]
    second = [first[-1] + 2 * TINY.log_period * (r + 1) for r in range(ROWS)]
    assert list(dict.fromkeys(event.steps for event in events)) == [0, *first, *second]
    last = events[-1]
    assert (last.chunks_done, last.chunks, last.runs_done, last.runs) == (2, 2, 6, 6)
    assert last.steps == last.total_steps == 6 * TINY.total_steps
    assert last.diverged == ()


def test_training_in_memory_tells_the_same(tmp_path):
    watcher, study = Watcher(), run(plan(6), tmp_path / "s")
    result = dqx.train(TINY, HYPER, 6, devices="cpu:2", sinks=[watcher])
    assert result.digests == tuple(study.digests.values())
    names = {point.name for row in watcher.all("row") for point in row.points}
    assert names == {"train"}
    rows = [row._replace(points=[p._replace(name="default") for p in row.points])
            for row in watcher.all("row")]  # fmt: skip
    assert_same_table(rows, study)
    assert "complete" not in watcher.names and watcher.names[-1] == "close"


# --- What fails.


class Broken(Exception):
    pass


class Breaks(Sink):
    """Raises in one of its methods, from the n-th call on."""

    def __init__(self, name, number=1):
        self.left = number

        def fail(*args):
            self.left -= 1
            if self.left <= 0:
                raise Broken(name)

        setattr(self, name, fail)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return run(PLAN, tmp_path_factory.mktemp("reference") / "s")


@pytest.mark.parametrize("devices", ["cpu:1", "cpu:2"])
@pytest.mark.parametrize(
    ("name", "number"),
    [("row", 1), ("row", ROWS + 3), ("progress", 3), ("finished", 1), ("complete", 1)],
)
def test_what_a_sink_raises_ends_a_study_that_can_be_resumed(
    reference, monkeypatch, name, number, devices, tmp_path
):
    monkeypatch.setattr(engine, "CHECKPOINT_SHARE", float("inf"))
    before, after = Watcher(), Watcher()
    with computed_steps() as first, pytest.raises(Broken, match=name):
        run(PLAN, tmp_path / "s", devices=devices, checkpoint_seconds=0,
            sinks=[before, Breaks(name, number), after])  # fmt: skip
    for watcher in (before, after):
        assert watcher.names[-1] == "close" and watcher.names.count("close") == 1
    assert "complete" not in after.names and holder(tmp_path / "s") is None
    if name != "finished":  # told of by the thread that writes, while others may come to their end
        assert load(tmp_path / "s").finished == (name == "complete")
    with computed_steps() as second:
        assert_whole(resume(tmp_path / "s", devices=devices), reference)
    # What had been saved is not computed again: at most two intervals of each chunk under way.
    assert sum(first) + sum(second) <= 3 * TINY.total_steps + 2 * 2 * TINY.log_period


@pytest.mark.parametrize("devices", ["cpu:1", "cpu:2"])
def test_sinks_are_closed_when_training_fails(reference, devices, monkeypatch, tmp_path):
    """As where a device is lost: the study can be resumed, and the error is shown as it is."""
    watcher, segment, calls = Watcher(), Programs.segment, []

    def fails(*args):
        calls.append(1)
        if len(calls) > ROWS:
            raise RuntimeError("the device was lost")
        return segment(*args)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="was lost"):
        patch.setattr(Programs, "segment", fails)
        run(PLAN, tmp_path / "s", devices=devices, checkpoint_seconds=0, sinks=[watcher])
    assert watcher.names[-1] == "close" and "complete" not in watcher.names
    assert holder(tmp_path / "s") is None
    assert_whole(resume(tmp_path / "s", devices=devices), reference)


def test_an_error_in_one_place_ends_the_others_soon(tmp_path):
    """Not only when their chunk is finished: both would take thousands of rows."""

    class BreaksInOne(Sink):
        def row(self, row):
            if row.seeds[0] == 0 and row.step >= 20 * TINY.log_period:
                raise Broken

    long = plan(8, {"total_steps": 8800 * TINY.log_period, "eval_period": 0})
    watcher = Watcher()
    with pytest.raises(Broken):
        run(long, tmp_path / "s", devices="cpu:2", sinks=[watcher, BreaksInOne()])
    assert max(row.step for row in watcher.all("row")) < 2000 * TINY.log_period


@pytest.mark.parametrize("name", ["open", "phase"])
def test_a_sink_that_fails_before_training_leaves_nothing(name, tmp_path):
    watcher = Watcher()
    with pytest.raises(Broken, match=name):
        run(PLAN, tmp_path / "s", sinks=[watcher, Breaks(name)])
    assert watcher.names[-1] == "close" and list(tmp_path.iterdir()) == []


def test_sinks_are_closed_when_the_plan_does_not_work(tmp_path):
    config, _ = preset("cartpole")
    watcher = Watcher()
    with pytest.raises(ConfigError):
        run({"base": {"env": config.env, "exact_metrics": True}}, tmp_path / "s", sinks=[watcher])
    assert watcher.names[0] == "open" and watcher.names[-1] == "close"
    assert list(tmp_path.iterdir()) == []


def test_all_are_closed_even_if_one_cannot_be(tmp_path):
    watchers = [Watcher(), Watcher()]
    with pytest.raises(Broken, match="close"):
        run(plan(2), tmp_path / "s", sinks=[watchers[0], Breaks("close"), watchers[1]])
    assert [watcher.names[-1] for watcher in watchers] == ["close", "close"]
    assert load(tmp_path / "s").finished
