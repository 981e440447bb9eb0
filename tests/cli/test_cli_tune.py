"""`dqx tune`: mistakes in one line, what it prints, a search that is killed and goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dqx.report import figures
from dqx.study.tuning import proposals
from dqx.study.tuning.file import read_tune
from tests.cli.kit import ROOT, environment, files
from tests.cli.kit import run as run_process
from tests.study.kit import call
from tests.study.test_study_identity import TRACED, compilations

FILE = """
root_seed = 77
[base]
preset = "cartpole"
num_envs = 2
total_steps = 200
learning_starts = 100
train_period = 4
log_period = 100
eval_period = 200
eval_episodes = 2
hidden_sizes = [4]
batch_size = 8
replay_capacity = 200
chunk_width = 4
[tune]
generations = 2
population = 3
rungs = [1, 2]
fresh_seeds = 2
[tune.space]
learning_rate = { log_uniform = [1e-4, 1e-2] }
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a tune file in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.toml").write_text(FILE)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.toml"], "cannot read the tune file none.toml"),
        (["t.toml", "more"], "takes a tune file, or resume DIR, or status DIR"),
        (["resume"], "takes one folder"),
        (["status", "."], "holds no search"),
        (["resume", "x", "--overwrite"], "`dqx tune resume` takes no --overwrite"),
        (["."], "is a folder: give a tune file"),
        (["t.toml", "--out", "."], "exists and holds no search of dqx"),
        (["t.toml", "--dry-run", "--out", "."], "exists and holds no search of dqx"),
    ],
)
def test_a_mistake_is_one_line(here, arguments, words):
    status, out, err = call("tune", *arguments)
    assert (status, out, len(err)) == (2, [], 1) and words in err[0]


def test_without_optuna_one_line_says_how_to_get_it(here, monkeypatch):
    monkeypatch.setattr(proposals.importlib.util, "find_spec", lambda name: None)
    status, out, err = call("tune", "t.toml")
    assert (status, out) == (2, [])
    assert err == ["dqx: error: dqx tune needs Optuna, not installed here: pip install 'dqx[tune]'"]
    assert not (here / "runs").exists()


def test_the_example_of_the_documentation_is_a_search():
    tune = read_tune(ROOT / "scripts" / "tune-cartpole.toml")
    assert tune.name == "tune-cartpole" and not set(tune.fresh) & set(tune.seeds)
    script = (ROOT / "scripts" / "tune-cartpole.toml").read_text()
    assert f"```toml\n{script}```" in (ROOT / "docs" / "tune.md").read_text()


@pytest.mark.slow
def test_a_search_from_its_file_to_its_certificate(here, monkeypatch):
    pytest.importorskip("optuna")
    with compilations() as heard:
        status, out, err = call("tune", "t.toml", "--devices", "cpu:1", "--no-cache")
    assert status == 0, err
    # Candidates differ in a traced field: one program for all generations, rungs and seeds.
    assert {name: heard.count(f"jit(_{name})") for name in TRACED} == dict.fromkeys(TRACED, 1)
    assert out[0].startswith("t: 6 candidates") and out[-2] == "folder: runs/t"
    assert out[-1] == "page: runs/t/report/index.html"
    assert sum("score, on 2 fresh seeds: IQM" in line for line in out) == 1
    assert any(line.startswith("t: generation 2/2, ") for line in err)
    (here / "runs" / "t" / "report" / "index.html").unlink()  # it says when it was made
    before = files(here / "runs" / "t")
    # The same command again, and the other ways to look at it.
    assert call("tune", "t.toml", "--quiet")[:2] == (0, out)
    (here / "runs" / "t" / "report" / "index.html").unlink()
    assert call("tune", "status", "runs/t") == (0, out[:-1], [])
    assert files(here / "runs" / "t") == before
    status, _, err = call("tune", "t.toml", "--out", "runs/t/fresh")
    assert status == 2 and "holds a study" in err[0]
    monkeypatch.setattr(figures, "drawings", lambda *_: [])  # those of any study
    status, lines, _ = call("report", "runs/t", "--no-films", "--quiet")
    assert status == 0 and lines[-1] == "page: runs/t/report/index.html"
    status, lines, _ = call("verify", "runs/t", "--sample", "1", "--devices", "cpu:1", "--quiet")
    assert status == 0
    assert lines[0] == "search: its result follows from its file and its studies"
    assert "dqx verify runs/t/generation-00/seeds-1" in lines[1]
    assert lines[-3].startswith("verdict: identical (1 of 1")
    (here / "runs" / "t" / "tune.json").unlink()
    status, _, err = call("verify", "runs/t")
    assert status == 2 and "`dqx tune resume runs/t` goes on" in err[0]


@pytest.mark.long
def test_killed_for_real_the_same_command_goes_on_with_the_same_bits(here):
    optuna = pytest.importorskip("optuna")
    # Wherever this process finds Optuna, the others shall too.
    paths = [str(ROOT), str(Path(optuna.__file__).parent.parent)]
    env = {"PYTHONPATH": os.pathsep.join(paths)}
    common = ("tune", "t.toml", "--devices", "cpu:1", "--quiet")
    assert run_process(*common, "--out", "whole", cwd=here, env=env)[0] == 0
    launcher = Path(__file__).parent.parent / "study" / "launcher.py"
    for number, moment in ((1, "half"), (2, "whole"), (4, "unnamed")):
        out = f"killed-{number}"
        wishes = json.dumps({"die": ["chunks/*.json", number, moment]})
        done = subprocess.run(
            [sys.executable, launcher, wishes, *common, "--out", out],
            cwd=here, env=environment(**env), capture_output=True, timeout=250,
        )  # fmt: skip
        assert done.returncode == -9 and not (here / out / "tune.json").exists()
        status, lines, err = run_process(*common, "--out", out, cwd=here, env=env)
        assert status == 0, err
        for name in ("tune.json", "generation-01/candidates.json"):
            assert (here / out / name).read_bytes() == (here / "whole" / name).read_bytes()
