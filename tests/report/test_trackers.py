"""Trackers: numbers under their names, each step once, read back by TensorBoard's own reader."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from dqx import stats
from dqx.files import OutputError
from dqx.report.trackers import chosen, scalars
from dqx.report.trackers.chosen import load_sink
from dqx.settings import ConfigError
from dqx.study import Sink
from tests.report.tracker_kit import SEEDS, fed, made_row, plan
from tests.study.kit import PLAN, interrupted, resume, run

accumulators = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator",
    reason="needs the package tensorboard, of the extra test",
)
from dqx.report.trackers.tensorboard import TensorBoard  # noqa: E402

EIGHT = (*scalars.NAMED, *scalars.MEASURED)


def read(folder):
    """What TensorBoard reads: ``{tag: [(step, value)]}``."""
    found = accumulators.EventAccumulator(str(folder), {accumulators.SCALARS: 0})
    found.Reload()
    return {
        tag: [(event.step, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def test_each_seed_is_a_run_with_the_eight_scalars(tmp_path):
    fed(TensorBoard(tmp_path, "seed"), plan())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["seed-3", "seed-5", "seed-9"]
    tags = read(tmp_path / "seed-5")
    assert set(tags) == {*EIGHT, "more/episode_count", "more/epsilon"}
    steps = (100, 200, 300, 400)
    for shift, name in enumerate(("episode_return", "episode_steps", "loss")):
        assert tags[name] == [(step, 500 + step / 100 + shift) for step in steps]
    assert tags["episode_return_avg"] == [(200, 505), (400, 507)]
    assert tags["avg_max_q_value"] == [(200, 506), (400, 508)]
    # What is measured between two rows is there from the second on.
    for name in scalars.MEASURED:
        assert [step for step, _ in tags[name]] == [200, 300, 400]
        assert all(value > 0 for _, value in tags[name])
    rate, seconds = tags["steps_per_second"][0][1], tags["episode_seconds"][0][1]
    assert rate * seconds == pytest.approx(100 / 4, rel=1e-5)  # 4 episodes in 100 steps
    assert 1e7 < tags["memory_used"][0][1] < 1e12
    # No episode ended, no number.
    assert not {"episode_return", "episode_seconds"} & set(read(tmp_path / "seed-9"))


def test_a_configuration_is_a_run_with_iqm_and_interval(tmp_path):
    fed(TensorBoard(tmp_path), plan())
    (name,) = (p.name for p in tmp_path.iterdir())
    tags = read(tmp_path / name)
    assert [step for step, _ in tags["loss"]] == [100, 200, 300, 400]
    numbers = 100.0 * np.array(SEEDS)
    assert tags["loss"][2] == (300, pytest.approx(np.mean(numbers) + 5, rel=1e-6))
    for tag, values, step in (
        ("episode_return", numbers[:2] + 4, 400),
        ("episode_return_avg", numbers + 7, 400),
    ):
        iqm, low, high = stats.interval(values)
        found = [dict(tags[tag + end])[step] for end in ("", "/low", "/high")]
        np.testing.assert_allclose(found, [iqm, low, high], rtol=1e-6)


def test_custom_scalars_have_a_chart_of_each_return(tmp_path):
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata

    fed(TensorBoard(tmp_path), plan())
    (folder,) = tmp_path.iterdir()
    found = accumulators.EventAccumulator(str(folder))
    found.Reload()
    (event,) = found.Tensors(metadata.CONFIG_SUMMARY_TAG)
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    charts = [chart for category in layout.category for chart in category.chart]
    tags = set(found.Tags()["scalars"])
    assert len(charts) == 2
    for chart in charts:
        (series,) = chart.margin.series
        assert {series.value, series.lower, series.upper} <= tags


def test_a_resumption_repeats_no_step_and_loses_none(tmp_path):
    given = plan()
    fed(TensorBoard(tmp_path, "seed"), given, (100, 200, 300))
    before = read(tmp_path / "seed-5")
    # It goes on from step 200: 300 comes again.
    fed(TensorBoard(tmp_path, "seed", go_on=True), given, (300, 400))
    tags = read(tmp_path / "seed-5")
    assert [step for step, _ in tags["loss"]] == [100, 200, 300, 400]
    assert tags["loss"][:3] == before["loss"]
    assert len(list((tmp_path / "seed-5").iterdir())) == 2


def test_a_torn_record_is_written_again(tmp_path):
    given = plan()
    fed(TensorBoard(tmp_path, "seed"), given, (100, 200, 300))
    (path,) = (tmp_path / "seed-5").iterdir()
    path.write_bytes(path.read_bytes()[:-7])  # killed within the last one
    fed(TensorBoard(tmp_path, "seed", go_on=True), given, (300, 400))
    assert [step for step, _ in read(tmp_path / "seed-5")["loss"]] == [100, 200, 300, 400]


def test_events_of_another_study_are_left_alone(tmp_path):
    fed(TensorBoard(tmp_path, "seed"), plan())
    with pytest.raises(OutputError, match="seed-3 holds events of another study"):
        TensorBoard(tmp_path, "seed").open(plan())
    TensorBoard(tmp_path, "config").open(plan())  # its runs are others


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="file is a file: choose another folder for --tensorb"):
        TensorBoard(tmp_path / "file").open(plan())


def test_names_of_configurations_become_plain_folders(tmp_path):
    names = ["../up", "a/b", "a b", "a-b", "A-B", ".", "x" * 300]
    (point,) = plan().points
    given = dataclasses.replace(plan(), points=tuple(point._replace(name=n) for n in names))
    sink = TensorBoard(tmp_path / "in")
    sink.open(given)
    for point in given.points:
        sink.row(made_row([point] * 3, SEEDS, 100))
    found = sorted(str(p.parent.relative_to(tmp_path)) for p in tmp_path.rglob("events*"))
    assert len(found) == len(names) == len({name.lower() for name in found})
    assert all(name.startswith("in/") and ".." not in name.split("/") for name in found)
    assert {"in/up", "in/a/b", "in/a-b", "in/a-b-2", "in/A-B-3", "in/run"} <= set(found)
    assert max(map(len, found)) < 140


@pytest.mark.parametrize("runs", ["config", "seed"])
def test_a_study_that_is_stopped_and_resumed_has_every_row_once_and_its_own_bits(
    runs, tmp_path, tmp_path_factory
):
    reference = run(PLAN, tmp_path / "plain")
    folder = tmp_path / "events"
    options = {"replay_checkpoint": False}  # as after a kill: chunks begin again
    watching = [TensorBoard(folder, runs)]
    interrupted(PLAN, tmp_path / "s", 9, sinks=watching, **options)
    study = resume(tmp_path / "s", sinks=[TensorBoard(folder, runs, go_on=True)], **options)
    assert study.digests == reference.digests
    assert len(list(folder.rglob("events*"))) > (12 if runs == "seed" else 0)
    (config,) = study.configs
    curves = {seed: study.curves(config, seed) for seed in study.seeds}
    for seed in study.seeds if runs == "seed" else [None]:
        tags = read(folder / (config if seed is None else f"seed-{seed}"))
        steps = study.steps.tolist()
        for tag, metric in {**scalars.NAMED, "more/epsilon": "epsilon"}.items():
            values = np.stack([c[metric] for s, c in curves.items() if seed in (s, None)])
            present = np.isfinite(values)
            assert [s for s, _ in tags.get(tag, [])] == [
                s for s, some in zip(steps, present.any(0), strict=True) if some
            ], tag
            if tag not in scalars.RETURNS or seed is not None:
                means = [v[m].mean() for v, m in zip(values.T, present.T, strict=True) if m.any()]
                np.testing.assert_allclose([v for _, v in tags.get(tag, [])], means, rtol=1e-5)


# --- What the command line asks for.


def ask(tmp_path, **changes):
    given = {"tensorboard": None, "wandb": None, "runs": "config", "sinks": (), "go_on": False}
    return chosen.chosen(**{**given, **changes}, study=tmp_path / "s", name="n")


def test_nothing_is_imported_that_is_not_asked_for():
    code = (
        "import sys; from pathlib import Path; from dqx.report.trackers.chosen import chosen\n"
        "chosen(tensorboard=None, wandb=None, runs='config', sinks=(), study=Path(), name='',"
        " go_on=False)\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('tensorboard', 'wandb', 'jax')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_package_that_is_missing_is_told_with_its_command(package, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"pip install 'dqx\[{package}\]'"):
        ask(tmp_path, **{package: ""})


def test_event_files_lie_in_the_study_or_where_they_are_asked_for(tmp_path):
    given = plan()
    (inside,) = ask(tmp_path, tensorboard="")
    fed(inside, given)
    assert list((tmp_path / "s" / "tensorboard").rglob("events*"))
    (outside,) = ask(tmp_path, tensorboard=str(tmp_path / "there"), runs="seed")
    fed(outside, given)
    assert len(list((tmp_path / "there").rglob("events*"))) == 3


OWN = """
from dqx import Sink
class Mine(Sink):
    pass
class Asks(Sink):
    def __init__(self, url):
        self.url = url
class Few:
    def row(self, row):
        pass
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_sinks.py").write_text(OWN)
    (tmp_path / "bad_sinks.py").write_text("1 / 0\n")
    (tmp_path / "poor_sinks.py").write_text("import not_there_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("own_sinks", "bad_sinks", "poor_sinks"):
        sys.modules.pop(name, None)


def test_a_sink_of_ones_own_is_made(own):
    sink = load_sink("own_sinks:Mine")
    assert isinstance(sink, Sink) and type(sink).__name__ == "Mine"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("own_sinks", "given as module:Class"),
        ("own_sinks.py:Mine:", "given as module:Class"),
        ("nowhere_sinks:Mine", "there is no module 'nowhere_sinks'"),
        ("own_sinks:Mien", "has no 'Mien'; the closest are Mine"),
        ("own_sinks:Asks", "cannot be made: TypeError: .*url"),
        ("own_sinks:Few", "is no sink, it has no open, phase, finished, progress, complete, close"),
        ("bad_sinks:Mine", "fails: ZeroDivisionError: division by zero"),
        ("poor_sinks:Mine", "fails: ModuleNotFoundError: No module named 'not_there_at_all'"),
    ],
)
def test_mistakes_of_a_sink_are_one_line(text, words, own):
    with pytest.raises(ConfigError, match=words) as caught:
        load_sink(text)
    assert "\n" not in str(caught.value)
