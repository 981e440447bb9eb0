"""Studies on a Ray cluster, which is simulated on this machine: nodes of one core each.

Whatever dies, is stopped or is of another kind: the bits are those of this machine alone.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from dqx import study
from dqx.study.executors.hands import ClusterWarning
from tests.study.kit import call, interrupted, resume, run, toml

pytest.importorskip("ray", reason="needs the package ray: make test-cluster")

pytestmark = [
    pytest.mark.cluster,
    # What Ray starts is another program at once; what it leaves open is its own.
    pytest.mark.filterwarnings("ignore:os.fork"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

# 48 chunks of 64 seeds x 3 learning rates, each with ten rows.
PLAN = {
    "name": "toptal",
    "seeds": 64,
    "base": {
        "preset": "mountain-car/toptal",
        "total_steps": 1000,
        "learning_starts": 200,
        "replay_capacity": 500,
        "log_period": 100,
        "eval_period": 500,
        "eval_episodes": 2,
        "eval_states": 50,
        "chunk_width": 4,
    },
    "grid": {"learning_rate": [5e-4, 1e-3, 2e-3]},
}
CHUNKS, ROWS = 48, 10
STORE = 80 * 2**20
OTHER = {"XLA_FLAGS": "--xla_cpu_enable_fast_math=true"}  # which gives other bits


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The study on this machine alone."""
    return run(PLAN, tmp_path_factory.mktemp("alone") / "s", devices="cpu:2")


@pytest.fixture(scope="module")
def cluster():
    """A head without a core; nodes are added and removed."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "object_store_memory": STORE,
                "include_dashboard": False,
            },
        )
        yield made
        made.shutdown()


@pytest.fixture
def nodes(cluster):
    """``nodes(names of variables)`` adds a node; all are removed in the end."""
    added = []

    def add(**env):
        added.append(cluster.add_node(num_cpus=1, object_store_memory=STORE, env_vars=env or None))
        return added[-1]

    add.address = cluster.address
    yield add
    for node in set(added) & set(cluster.worker_nodes):
        cluster.remove_node(node, allow_graceful=False)


def ray(nodes, **options):
    return study.Ray(nodes.address, **options)


def workers():
    """The processes of workers that this process's cluster has."""
    found = psutil.Process().children(recursive=True)
    return [p for p in found if "ray::Worker" in "".join(p.cmdline()[:1])]


def threads_of_xla(worker):
    """How many threads JAX's CPU backend has in a process of Linux."""
    names = [path.read_text() for path in Path(f"/proc/{worker.pid}/task").glob("*/comm")]
    return names.count("tf_XLAEigen\n")


class When(study.Sink):
    """Calls a function at given rows of metrics, counted from 1."""

    def __init__(self, moments, function):
        self._left, self._function, self.rows = set(moments), function, 0

    def row(self, row):
        self.rows += 1
        if self.rows in self._left:
            self._left.discard(self.rows)
            self._function()


def test_two_nodes_give_the_bits_of_one_machine(alone, nodes, tmp_path):
    nodes(DQX_MACHINE="one"), nodes(DQX_MACHINE="two")
    threads = []
    when = When([200], lambda: threads.extend(map(threads_of_xla, workers())))
    found = study.run(PLAN, tmp_path / "s", executor=ray(nodes), sinks=[when])
    assert threads == [1, 1]  # none that waits on the other's core
    assert found.digests == alone.digests and len(found.digests) == 192
    assert found.finished and found.plan["identity"] == alone.plan["identity"]
    assert len(found.manifest["devices"]) == 2
    assert set(found.machines.values()) == {"one", "two"}
    certificate = study.verify(found.path, sample=8, pick=3, executor=ray(nodes))
    assert certificate.passed and len(certificate.checks) == 8
    assert all(check.elsewhere for check in certificate.checks)
    assert json.loads((found.path / "certificate.json").read_text())["elsewhere"] == 8


def test_a_node_that_is_killed_at_ten_random_moments_changes_no_bit(
    alone, nodes, cluster, tmp_path
):
    there = [nodes(), nodes()]
    rng = np.random.default_rng(11)

    def kill():
        victim = there.pop(int(rng.integers(2)))
        cluster.remove_node(victim, allow_graceful=False)
        there.append(nodes())

    moments = rng.choice(np.arange(20, CHUNKS * ROWS - 60), 10, replace=False).tolist()
    with pytest.warns(ClusterWarning, match="was lost"):
        found = study.run(
            PLAN,
            tmp_path / "s",
            executor=ray(nodes),
            checkpoint_seconds=0.0,
            sinks=[When(moments, kill)],
        )
    assert found.digests == alone.digests and found.failures == {}
    assert not list(found.path.glob("checkpoints/*"))


def test_a_driver_that_is_killed_is_resumed(alone, nodes, tmp_path):
    nodes(), nodes()
    plan, out = tmp_path / "toptal.toml", tmp_path / "s"
    plan.write_text(toml(PLAN))
    command = ["-m", "dqx", "study", plan, "--cluster", nodes.address, "--out", out, "--quiet"]
    command += ["--checkpoint-seconds", "0"]
    with subprocess.Popen([sys.executable, *map(str, command)]) as driver:
        limit = time.monotonic() + 120
        while len(list(out.glob("chunks/*.json"))) < 6:
            assert time.monotonic() < limit and driver.poll() is None
            time.sleep(0.05)
        driver.kill()
    half = study.load(out)
    assert 24 <= len(half.runs) < 192
    found = study.resume(out, executor=ray(nodes), sinks=[])
    assert found.digests == alone.digests and found.finished


def test_half_here_half_there_and_back(alone, nodes, tmp_path):
    out = tmp_path / "s"
    interrupted(PLAN, out, 10 * ROWS + 5)
    assert list(out.glob("checkpoints/*.npz"))
    nodes(), nodes()
    interrupted(PLAN, out, 15 * ROWS, resume, devices=None, executor=ray(nodes))
    there = len(study.load(out).runs)
    assert 4 * 20 < there < 192 and list(out.glob("checkpoints/*.npz"))
    found = resume(out)
    assert found.digests == alone.digests and found.finished


def test_a_node_that_would_give_other_bits_is_left_aside(alone, nodes, tmp_path):
    nodes(**OTHER)
    problem = "xla_flags was '' and is '--xla_cpu_enable_fast"
    with pytest.warns(ClusterWarning), pytest.raises(study.StudyError, match=problem):
        study.resume(alone.path, executor=ray(nodes), sinks=[])
    nodes(), nodes()
    with pytest.warns(ClusterWarning, match="a worker is left aside on .* xla_flags was ''"):
        found = study.run(PLAN, tmp_path / "s", executor=ray(nodes), sinks=[])
    assert found.digests == alone.digests and len(found.manifest["devices"]) == 2


def test_each_configuration_stays_on_one_kind_of_machine(nodes, tmp_path):
    """Nobody is left aside, and each kind has the bits that it would have alone."""
    case = [{"name": "one", "batch_size": 64}, {"name": "two", "batch_size": 32}]
    plan = {**PLAN, "seeds": 8, "grid": {}, "case": case}
    nodes(), nodes(**OTHER)
    found = study.run(plan, tmp_path / "s", executor=ray(nodes, kinds="split"), sinks=[])
    assert found.finished and len(found.manifest["devices"]) == 2
    kinds = {kind["identity"]["xla_flags"]: kind["points"] for kind in found.plan["kinds"]}
    assert sorted(kinds) == ["", OTHER["XLA_FLAGS"]] and all(map(len, kinds.values()))
    here = run(plan, tmp_path / "here")
    for name in kinds[""]:
        for seed in range(8):
            assert found.digests[name, seed] == here.digests[name, seed]
    with pytest.raises(study.StudyError, match="cannot be resumed here.*xla_flags"):
        resume(found.path)
    certificate = study.verify(found.path, sample=6, pick=2, executor=ray(nodes))
    assert certificate.passed and len(certificate.kinds) == 2 and certificate.differences == ()
    assert {(c.trained_kind, c.again_kind) for c in certificate.checks} == {(0, 0), (1, 1)}
    certificate = study.verify(found.path, sample=6, pick=2, devices="cpu:1")
    alone = {c.config: c.verdict for c in certificate.checks if c.config in kinds[""]}
    assert set(alone.values()) == {"identical"} and len(certificate.differences) == 1
    assert {c.verdict for c in certificate.checks} <= {"identical", "not comparable"}


def test_a_worker_that_hangs_or_dies_is_replaced(alone, nodes, tmp_path):
    nodes(), nodes()
    stopped = []

    def stop():
        stopped.append(workers()[0])
        os.kill(stopped[0].pid, signal.SIGSTOP)

    def kill():
        victims = [process for process in workers() if process not in stopped]
        os.kill(victims[0].pid, signal.SIGKILL)

    class Both(When):
        def row(self, row):
            super().row(row)
            if self.rows == 6 * ROWS:
                kill()

    with pytest.warns(ClusterWarning) as told:
        found = study.run(
            PLAN,
            tmp_path / "s",
            executor=ray(nodes, least_silence=3.0),
            checkpoint_seconds=0.0,
            sinks=[Both([3 * ROWS], stop)],
        )
    texts = " ".join(str(one.message) for one in told)
    assert "no word for" in texts and "was lost" in texts.replace("no word for", "", 1)
    assert found.digests == alone.digests and found.failures == {}


def test_the_command_starts_workers_here(tmp_path):
    small = {**PLAN, "seeds": 8, "grid": {"learning_rate": [1e-3]}}
    plan = tmp_path / "small.toml"
    plan.write_text(toml(small))
    out = tmp_path / "s"
    status, lines, err = call("study", plan, "--cluster", "local:2", "--out", out, "--quiet")
    assert (status, err) == (0, [])
    status, lines, err = call("study", "status", out)
    assert status == 0 and "finished" in lines[1]
    assert study.load(out).digests == run(small, tmp_path / "here").digests
    status, _, err = call("study", plan, "--cluster", "127.0.0.1:1", "--out", tmp_path / "t")
    assert status == 2 and err[-1].startswith("dqx: error: nothing answers at 127.0.0.1:1")
    assert not (tmp_path / "t").exists()
