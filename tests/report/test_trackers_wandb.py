"""Weights & Biases, offline: the numbers are in the file that `wandb sync` would send."""

import json
import struct
import time

import pytest

from dqx.report.trackers.wandb import WandB
from tests.report.tracker_kit import fed, plan

pytestmark = pytest.mark.wandb
pytest.importorskip("wandb", reason="needs the package wandb: make test-wandb")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")


def history(path):
    """What was logged, ``[{name: value}]``; a process of wandb's writes it, and may not be done."""
    limit = time.monotonic() + 60
    while True:
        found = records(path)
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            break
        assert time.monotonic() < limit
        time.sleep(0.1)
    return [
        {
            ".".join(item.nested_key) or item.key: json.loads(item.value_json)
            for item in r.history.item
        }
        for r in found
        if r.WhichOneof("record_type") == "history"
    ]


def records(path):
    """The records of a file of wandb's, which is a LevelDB log of protobuf messages."""
    from wandb.proto import wandb_internal_pb2

    content, place, part, found = path.read_bytes(), 7, b"", []
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # no header fits into the end of a block
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        part += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4) and place <= len(content):  # whole, or the last piece
            found.append(wandb_internal_pb2.Record.FromString(part))
            part = b""
    return found


def test_every_seed_is_a_run_and_a_resumption_goes_on_with_it(tmp_path):
    fed(WandB("mine", "seed", folder=tmp_path), plan(), (100, 200))
    numbers = json.loads((tmp_path / "wandb" / "dqx-runs.json").read_text())
    assert sorted(numbers) == ["seed-3", "seed-5", "seed-9"]
    (path,) = (tmp_path / "wandb").rglob(f"run-{numbers['seed-5']}.wandb")
    rows = history(path)
    assert [row["_step"] for row in rows] == [100, 200]
    assert [row["episode_return"] for row in rows] == [501, 502]
    assert "episode_return_avg" not in rows[0] and rows[1]["episode_return_avg"] == 505
    fed(WandB("mine", "seed", folder=tmp_path), plan(), (300, 400))
    assert json.loads((tmp_path / "wandb" / "dqx-runs.json").read_text()) == numbers
    assert len(list((tmp_path / "wandb").rglob(f"run-{numbers['seed-5']}.wandb"))) == 2


def test_a_configuration_is_a_run_with_an_interval(tmp_path):
    fed(WandB(folder=tmp_path), plan())
    (path,) = (tmp_path / "wandb").rglob("run-*.wandb")
    rows = history(path)
    assert [row["_step"] for row in rows] == [100, 200, 300, 400]
    last = rows[-1]
    assert (
        last["episode_return_avg/low"]
        < last["episode_return_avg"]
        < last["episode_return_avg/high"]
    )
