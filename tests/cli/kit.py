"""What the tests of the command share: a tiny training, and the command as a process."""

import os
import subprocess
import sys
from pathlib import Path

import dqx

ROOT = Path(dqx.__file__).resolve().parent.parent
# Fields of a training that takes a moment once it is compiled.
FIELDS = (
    "num_envs=4", "train_period=4", "learning_starts=200", "log_period=200", "eval_period=400",
    "eval_episodes=3", "hidden_sizes=8", "batch_size=16", "replay_capacity=1000",
)  # fmt: skip
TINY = ("--steps", "800", "--set", *FIELDS)


def environment(**changes):
    """That of this process, from which the checkout's code can be imported anywhere."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **changes}


def run(*arguments, cwd, env=None):
    """The command in a process of its own: status, and lines of standard output and error."""
    done = subprocess.run(
        [sys.executable, "-m", "dqx", *map(str, arguments)],
        cwd=cwd, env=environment(**(env or {})), capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def python(code, *arguments, cwd=None, env=None):
    """Lines that a program prints, which has to succeed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd, env=environment(**(env or {})), capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def files(folder):
    """The content of every file below a folder, by name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
