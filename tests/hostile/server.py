"""Functions called in processes of their own, each forked from one that has imported everything.

A process that has started JAX's backend cannot be forked, and one that imports everything anew
takes seconds. So a server imports what starts no backend, and forks a child for every call: with
limits of its own, in a session of its own, and ended by a watchdog.

Usage: ``python -m tests.hostile.server``, a call as JSON in a line of standard input, and its
outcome in a line of standard output.
"""

import contextlib
import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMPORTS = (
    "jax", "flax.linen", "flax.struct", "optax", "chex", "pyarrow.parquet", "pandas",
    "matplotlib.figure", "rich.live", "rich.progress", "PIL.Image", "dqx.study.results",
    "dqx.cli.arguments", "dqx.settings", "pytest", "tests.hostile.jobs", "encodings.cp437",
)  # fmt: skip


class Server:
    """Calls functions of ``tests.hostile.jobs`` in children; one at a time."""

    def __init__(self, **environment):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.server"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )  # fmt: skip

    def call(self, function, *arguments, seconds=120, more_bytes=None):
        """Calls a function; gives its outcome.

        Args:
            function: its name.
            arguments: as JSON can hold them.
            seconds: after which it is killed.
            more_bytes: of address space that it may take beyond what the imports take.

        Returns:
            Entries ``status`` (of the process; negative: its signal), ``hung``, ``seconds``,
            ``cpu_seconds``, ``peak_bytes``, ``value`` (what it returned, None if it did not
            return) and ``said`` (its standard output and error).
        """
        wish = {"function": function, "arguments": arguments, "seconds": seconds}
        self._process.stdin.write(json.dumps({**wish, "more_bytes": more_bytes}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:  # a child is still at work, as after Ctrl-C
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def serve():
    """Answers calls until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what is printed by accident is no answer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in IMPORTS:
            importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers)


def answer(wish):
    """Forks a child for a call, waits for it, and says how it went."""
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as value:
        started = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads, which have no locks that are needed
            child = os.fork()
        if child == 0:
            act(wish, said, value)
        hung = not ended(child, wish["seconds"])
        if hung:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        _, status, used = os.wait4(child, 0)
        seconds = time.monotonic() - started
        said.seek(0), value.seek(0)
        text = value.read()
        return {
            "status": os.waitstatus_to_exitcode(status),
            "hung": hung,
            "seconds": seconds,
            "cpu_seconds": used.ru_utime + used.ru_stime,
            "peak_bytes": used.ru_maxrss * 1024,
            "value": json.loads(text) if text else None,
            "said": said.read().decode(errors="replace"),
        }


def ended(child, seconds):
    """Waits for a child, but not longer; whether it ended."""
    descriptor = os.pidfd_open(child)
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def act(wish, said, value):
    """The life of a child; does not return."""
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        if wish["more_bytes"] is not None:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * os.sysconf("SC_PAGE_SIZE") + wish["more_bytes"]
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        from tests.hostile import jobs

        found = getattr(jobs, wish["function"])(*wish["arguments"])
        value.write(json.dumps(found).encode())
        value.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(99)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    serve()
