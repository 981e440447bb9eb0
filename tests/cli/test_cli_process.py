"""The command as a person runs it: stopped, killed, resumed, with a cache, after other imports."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

import dqx
from tests.cli.kit import FIELDS, TINY, environment, files, python, run
from tests.study.kit import call

# Long enough to be stopped in between, and two chunks side by side.
STEPS = 20_000
LONG = ("--seeds", "6", "--steps", STEPS, "--set", *FIELDS)
LONG = tuple("log_period=1000" if field == "log_period=200" else field for field in LONG)
LONG = tuple("eval_period=5000" if field == "eval_period=400" else field for field in LONG)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The digests of `LONG` without any interruption, by configuration and seed."""
    place = tmp_path_factory.mktemp("undisturbed")
    with contextlib.chdir(place):
        status, _, err = call("train", "cartpole", *LONG, "--quiet")
    assert (status, err) == (0, [])
    return dqx.load(place / "runs" / "cartpole").digests


def stopped_by(number, place):
    """Starts `LONG` in a process, sends a signal after a checkpoint: status, and last line."""
    command = [sys.executable, "-m", "dqx", "train", "cartpole", *map(str, LONG)]
    command += ["--checkpoint-seconds", "0"]
    process = subprocess.Popen(
        command, cwd=place, env=environment(), stderr=subprocess.PIPE, text=True
    )
    late = threading.Timer(200, process.kill)
    late.start()
    while process.poll() is None and not list(place.glob("runs/cartpole/checkpoints/0*.json")):
        time.sleep(0.01)
    process.send_signal(number)
    rest = process.communicate()[1]
    late.cancel()
    assert "Traceback" not in rest
    return process.returncode, rest.splitlines()[-1]


@pytest.mark.slow
def test_ctrl_c_keeps_everything_and_resuming_gives_the_same_bits(
    undisturbed, tmp_path, monkeypatch
):
    status, last = stopped_by(signal.SIGINT, tmp_path)
    assert status == 130
    assert re.fullmatch(
        r"dqx: interrupted; everything so far is in \S*runs/cartpole\. Go on with: "
        r"dqx study resume \S*runs/cartpole",
        last,
    )
    monkeypatch.chdir(tmp_path)
    study = dqx.load("runs/cartpole")
    assert not study.finished and len(list(study.path.glob("checkpoints/*.json"))) >= 1
    state = call("study", "status", "runs/cartpole")[1][1]
    assert state == (
        f"{len(study.runs)} of 6 runs finished; nobody works on it: "
        "`dqx study resume runs/cartpole` goes on"
    )
    status, out, err = call("study", "resume", "runs/cartpole")
    assert status == 0 and out[0] == "cartpole: 6 runs (1 configuration x 6 seeds)"
    assert dqx.load("runs/cartpole").digests == undisturbed
    progress = json.loads((study.path / "progress.json").read_text())
    assert progress["steps"] == 6 * STEPS
    assert call("verify", "runs/cartpole", "--sample", "1", "--quiet")[0] == 0


@pytest.mark.slow
@pytest.mark.long
def test_kill_9_loses_nothing_that_was_finished(undisturbed, tmp_path, monkeypatch):
    status, _ = stopped_by(signal.SIGKILL, tmp_path)
    assert status == -signal.SIGKILL
    monkeypatch.chdir(tmp_path)
    status, out, err = call("study", "status", "runs/cartpole")
    assert (status, err) == (0, [])
    assert out[0] == "cartpole: 0 of 6 runs (1 configuration x 6 seeds)"
    assert out[1].startswith("0 of 6 runs finished; nobody works on it: `dqx study resume ")
    # The very command that was killed says how to go on.
    status, _, (line,) = call("train", "cartpole", *LONG)
    assert status == 2 and "`dqx study resume runs/cartpole` goes on with it" in line
    assert call("study", "resume", "runs/cartpole", "--quiet")[0] == 0
    assert dqx.load("runs/cartpole").digests == undisturbed


def test_a_trained_folder_is_verified(trained, tmp_path, monkeypatch):
    # A copy, since the certificate would stay in what other tests look at.
    shutil.copytree(trained.place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    status, out, err = call("verify", "runs/cartpole", "--quiet")
    assert (status, err) == (0, [])
    verdict = "verdict: identical (2 of 2 runs trained again have the same bits; the study has 2)"
    assert re.fullmatch("digest: [0-9a-f]{64}", out.pop(1))
    assert out == [verdict, f"certificate: {os.path.join('runs', 'cartpole', 'certificate.json')}"]


def test_ctrl_c_waits_for_imports(tmp_path, monkeypatch):
    """Raised inside an import it could come out as ImportError, or not at all."""
    (tmp_path / "interrupted.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    for _ in range(10): pass\n"
        "except KeyboardInterrupt: raise ImportError('an extension failed') from None\n"
        "done = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = signal.getsignal(signal.SIGINT)
    assert call("train", "cartpole", "--import", "interrupted") == (130, [], ["dqx: interrupted"])
    assert sys.modules.pop("interrupted").done
    assert signal.getsignal(signal.SIGINT) is before is signal.default_int_handler


@pytest.mark.slow
@pytest.mark.long
def test_a_cache_is_kept_mended_and_left_out_on_demand(trained, tmp_path):
    """Whatever the cache holds, the digests are the same; damage is told in a line."""
    home, expected = tmp_path / "home", dqx.load(trained.folder).digests
    programs = home / "dqx"  # beside it matplotlib keeps its fonts

    def train(name, *options):
        arguments = ("train", "cartpole", "--seeds", "3,17", *TINY, "--out", name, *options)
        env = {"XDG_CACHE_HOME": str(home)}
        status, _, err = run(*arguments, "--quiet", cwd=tmp_path, env=env)
        assert status == 0, err
        assert dqx.load(tmp_path / name).digests == expected
        return err

    assert train("none", "--no-cache") == [] and not programs.exists()
    assert train("first") == []
    entries = [path for path in programs.rglob("*") if path.is_file()]
    assert entries and all(path.suffix == ".dqx-program" for path in entries)
    for path in entries:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    damaged = train("second")
    assert damaged and all(line.startswith("dqx: warning: ") for line in damaged)
    assert train("third") == []
    first, third = (dqx.load(tmp_path / name).manifest for name in ("first", "third"))
    assert third["compile_seconds"] < first["compile_seconds"] / 2


ORDERS = {"dqx first": "import dqx, gymnax, envs", "gymnax first": "import gymnax, dqx"}
TRAIN = """
{imports}
import json, sys
import jax
before = len(jax.local_devices())
result = dqx.train(*map(json.loads, sys.argv[1:]), seeds=[3, 17])
print(before, *result.digests)
"""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("order", ORDERS)
def test_the_order_of_imports_changes_no_bit(order, trained):
    manifest = dqx.load(trained.folder).manifest
    given = [json.dumps(manifest[part]) for part in ("config", "hyper")]
    (line,) = python(TRAIN.format(imports=ORDERS[order]), *given)
    expected = dqx.load(trained.folder).digests.values()
    assert line.split() == ["1", *expected]  # dqx asks for no further CPU devices


def test_files_of_two_trainings_are_the_same(trained, tmp_path, monkeypatch):
    """What people compare is equal byte by byte, except for times."""
    monkeypatch.chdir(tmp_path)
    assert call("train", "cartpole", "--seeds", "3,17", *TINY, "--quiet")[0] == 0
    one, two = files(trained.folder), files(tmp_path / "runs" / "cartpole")
    for name in one:
        if name.startswith(("metrics", "episodes", "params")) or name.endswith(".png"):
            assert one[name] == two[name], name
