"""`--tensorboard` and `--sink`: what they leave, and that no bit changes."""

import sys

import pytest

import dqx
from tests.cli.kit import TINY, files
from tests.study.kit import call

SINK = """
import dqx
class Counter(dqx.Sink):
    rows = runs = 0
    def row(self, row):
        Counter.rows += len(row.seeds)
    def finished(self, runs):
        Counter.runs += len(runs)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "counting.py").write_text(SINK)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("counting", None)


@pytest.mark.long
def test_a_training_with_trackers_has_the_same_bits(trained, place):
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="needs the package tensorboard, of the extra test",
    )
    trackers = ("--tensorboard", "--sink", "counting:Counter", "--tracker-runs", "seed")
    status, _, err = call("train", "cartpole", "--seeds", "3,17", *TINY, *trackers)
    assert status == 0, err
    study = dqx.load("runs/cartpole")
    assert study.digests == dqx.load(trained.folder).digests
    counter = sys.modules["counting"].Counter
    assert (counter.rows, counter.runs) == (2 * 4, 2)
    for seed in (3, 17):
        found = accumulators.EventAccumulator(f"runs/cartpole/tensorboard/seed-{seed}")
        found.Reload()
        loss = [(event.step, event.value) for event in found.Scalars("loss")]
        curve = study.curves(None, seed)
        assert (
            loss
            == list(zip(curve["step"].tolist(), curve["loss"].tolist(), strict=True))[-len(loss) :]
        )
        assert len(loss) >= 3

    # A resumption of what is finished adds nothing, and another study may replace it whole.
    before = files(place / "runs" / "cartpole" / "tensorboard")
    status, _, err = call("study", "resume", "runs/cartpole", *trackers[:1], *trackers[3:])
    assert status == 0, err
    assert files(place / "runs" / "cartpole" / "tensorboard") == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--sink", "counting:Countess"), "has no 'Countess'; the closest are Counter"),
        (("--sink", "nowhere_at_all:Sink"), "there is no module 'nowhere_at_all'"),
        (("--tracker-runs", "both"), "invalid choice: 'both'"),
    ],
)
def test_mistakes_are_one_line_before_anything_starts(arguments, words, place):
    status, out, err = call("train", "cartpole", *TINY, *arguments)
    assert (status, out, len(err)) == (2, [], 1)
    assert words in err[0]
    assert not (place / "runs").exists()
