"""Who trains which chunk of a cluster, by workers that die, fail and fall silent when told."""

import ast
import re
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import dqx
from dqx import study
from dqx.settings import ConfigError
from dqx.study import StudyError, read_plan, sealed
from dqx.study.background import Stopped
from dqx.study.executors import dispatch as module
from dqx.study.executors.hands import ClusterWarning, Patience
from dqx.study.executors.worker import result_message, result_of
from dqx.study.schedule import groups
from tests.study.crew_kit import (
    DIE,
    DIE_WITH_NODE,
    FAIL,
    HANG,
    Clock,
    FakeCrew,
    Notes,
    Pretended,
    dispatch,
)
from tests.study.kit import BASE, METRICS, call, make_study, numbers, toml

STEPS = (100, 200, 300, 400)


@pytest.fixture(scope="module")
def plan():
    """Two groups, since batches differ in size: chunks 0 to 5 and 6 to 8, of 4 runs each."""
    grid = {"learning_rate": [1e-3, 2e-3]}
    case = [{"name": "small", "batch_size": 16}]
    return read_plan({"name": "s", "seeds": 12, "base": BASE, "grid": grid, "case": case})


def check_results(desk, left_out=()):
    """Every chunk's result is what it should be, whoever trained it."""
    tasks = [task for group in groups(desk.plan) for task in group.tasks]
    assert sorted(desk.results) == [t.number for t in tasks if t.number not in left_out]
    for task in tasks:
        if task.number in left_out:
            continue
        found = desk.results[task.number]
        for lane, (point, seed) in enumerate(zip(task.points, task.seeds, strict=True)):
            made = numbers(point, int(seed))
            for name in METRICS:
                np.testing.assert_array_equal(found.metrics[name][lane], made["metrics"][name])
            kernel = made["params"]["params"]["Dense_0"]["kernel"]
            np.testing.assert_array_equal(found.params["params"]["Dense_0"]["kernel"][lane], kernel)


def once(*fates):
    """A fate that strikes each of the given (chunk, step) once."""
    left = {(number, step): what for number, step, what in fates}
    return lambda name, number, step: left.pop((number, step), None)


def test_every_chunk_is_trained_once_and_only_waiting_for_programs_is_compile_time(
    plan, monkeypatch
):
    Clock(monkeypatch, module, 1.0)
    crew, desk = FakeCrew(["a", "b", "c"]), Notes(plan)
    dispatch(crew, plan, desk)
    check_results(desk)
    assert sorted(n for found in crew.trained.values() for n in found) == list(range(9))
    assert min(len(found) for found in crew.trained.values()) == 3  # nobody was idle
    assert sorted(desk.rows) == [(n, step) for n in range(9) for step in STEPS]
    assert desk.compiled_seconds == 2 * 0.5  # a round a group, as all workers change together
    assert desk.machines[0] == "a"


def test_a_lost_chunk_goes_elsewhere_from_its_last_checkpoint(plan):
    crew = FakeCrew(["a", "b"], once((1, 300, DIE_WITH_NODE), (7, 100, DIE)))
    desk = Notes(plan)
    with pytest.warns(ClusterWarning) as told:
        dispatch(crew, plan, desk)
    assert any(
        re.search(r"worker b-1 was lost.*chunk 1 goes elsewhere", str(one.message)) for one in told
    )
    check_results(desk)
    assert [at for number, at in crew.starts if number == 1] == [0, 200]
    assert [at for number, at in crew.starts if number == 7] == [0, 0]
    assert {number: at for number, at in crew.starts if number not in (1, 7)} == dict.fromkeys(
        (0, 2, 3, 4, 5, 6, 8), 0
    )


def test_random_deaths_change_nothing(plan):
    rng = np.random.default_rng(3)
    left = [10]

    def fate(name, number, step):
        if name.startswith("away") and left[0] and rng.random() < 0.2:
            left[0] -= 1
            return DIE_WITH_NODE
        return None

    crew, desk = FakeCrew(["home", *(f"away{i}" for i in range(9))], fate), Notes(plan)
    with pytest.warns(ClusterWarning):
        dispatch(crew, plan, desk)
    check_results(desk)
    died = 10 - left[0]
    assert desk.aside == {} and died >= 3 and len(crew.hands) == 10 - died


@pytest.mark.parametrize("what", [FAIL, DIE])
def test_a_chunk_that_fails_three_times_is_set_aside(plan, what, monkeypatch):
    """Not on the same worker twice, and others go on."""
    Clock(monkeypatch, module, 3.0)
    failed = []

    def fate(name, number, step):
        if (number, step) == (4, 200):
            failed.append(name)
            return what
        return None

    crew, desk = FakeCrew(["a", "b"], fate), Notes(plan)
    with pytest.warns(ClusterWarning) as told:
        dispatch(crew, plan, desk)
    assert any(
        re.search(r"chunk 4 has failed 3 times and is set aside", str(one.message)) for one in told
    )
    check_results(desk, left_out=(4,))
    assert len(failed) == 3 and failed[0] != failed[1] != failed[2]
    assert desk.aside == {4: "ValueError: of chunk 4" if what == FAIL else "it died"}


def test_the_death_of_nodes_is_no_fault_of_a_chunk(plan, monkeypatch):
    Clock(monkeypatch, module, 3.0)
    crew = FakeCrew(
        ["a", "b", "c", "d", "e"],
        once(*((0, step, DIE_WITH_NODE) for step in STEPS)),
    )
    desk = Notes(plan)
    with pytest.warns(ClusterWarning):
        dispatch(crew, plan, desk)
    check_results(desk)
    assert desk.aside == {} and len(crew.hands) == 1


def test_a_silent_worker_is_replaced_after_a_while(plan, monkeypatch):
    clock = Clock(monkeypatch, module, 0.5)
    crew = FakeCrew(["a", "b"], once((2, 400, HANG)))
    desk = Notes(plan)
    with pytest.warns(ClusterWarning) as told:
        dispatch(crew, plan, desk, times=10.0, least=20.0)
    assert any(re.search(r"no word for ([0-9]+) s", str(one.message)) for one in told)
    check_results(desk)
    assert 120 < clock.now < 200
    assert [at for number, at in crew.starts if number == 2] == [0, 300]


def test_patience_grows_with_what_is_usual():
    patience = Patience(times=10.0, least=60.0)
    assert patience.limit(0) == 600.0
    patience.heard(0, 2.0)
    assert patience.limit(0) == 60.0 and patience.limit(1) == 600.0
    patience.heard(0, 30.0)
    patience.heard(0, 5.0)
    assert patience.limit(0) == 300.0


def test_a_driver_that_slept_accuses_nobody(plan, monkeypatch):
    Clock(monkeypatch, module, 10_000.0)
    crew, desk = FakeCrew(["a"]), Notes(plan)
    dispatch(crew, plan, desk)
    check_results(desk)


def test_no_more_chunks_at_a_time_than_the_memory_of_a_node_holds(plan):
    crew, desk = FakeCrew(["a", "a", "a", "b"], free=240), Notes(plan)
    dispatch(crew, plan, desk)  # 2 x 100 + 10 <= 0.9 x 240
    check_results(desk)
    assert crew.most == {"a": 2, "b": 1}


def test_what_does_not_fit_on_one_node_is_trained_on_another(plan):
    crew, desk = FakeCrew(["a", "b"], refuses=("a",)), Notes(plan)
    dispatch(crew, plan, desk)
    check_results(desk)
    assert list(crew.trained) == ["b-1"]
    with pytest.raises(ConfigError, match="too large for"):
        dispatch(FakeCrew(["a", "b"], refuses=("a", "b")), plan, Notes(plan))


def test_stopping_keeps_every_chunk_under_way(plan):
    stop = threading.Event()

    def fate(name, number, step):
        if (number, step) == (0, 300):
            stop.set()
        return None

    crew, desk = FakeCrew(["a", "b"], fate), Notes(plan)
    with pytest.raises(Stopped):
        dispatch(crew, plan, desk, stop)
    assert desk.results == {} and {n: s.step for n, s in desk.states.items()} == {0: 300, 1: 300}


def test_without_workers_it_ends_with_what_to_do(plan, monkeypatch):
    Clock(monkeypatch, module, 30.0)
    crew = FakeCrew(["a"], once((0, 200, DIE_WITH_NODE)))
    with (
        pytest.warns(ClusterWarning),
        pytest.raises(StudyError, match="no worker is left.*dqx study resume"),
    ):
        dispatch(crew, plan, Notes(plan))


def test_every_configuration_stays_on_its_kind_of_machine(plan):
    crew, desk = FakeCrew(["a", "b", "c"]), Notes(plan)
    crew.hands[2].kind = 1
    dispatch(crew, plan, desk, kinds={"small": 1})
    check_results(desk)
    assert sorted(crew.trained["c-1"]) == [6, 7, 8]


def test_the_only_worker_of_a_kind_trains_what_failed_there_or_comes_from_there(plan):
    """Workers of another kind are nobody who could have it instead."""
    crew = FakeCrew(["a", "b", "c"], once((7, 100, FAIL)))
    crew.hands[2].kind = 1
    desk = Notes(plan)
    dispatch(crew, plan, desk, kinds={"small": 1}, avoid={8: "c"})
    check_results(desk)
    assert desk.aside == {} and {desk.machines[n] for n in (6, 7, 8)} == {"c"}


def test_checkpoints_and_messages_are_rarer_in_large_clusters(plan):
    crew = FakeCrew([f"n{i}" for i in range(9)])
    dispatch(crew, plan, Notes(plan, pause=7.0))
    assert {order["gap"] for order in crew.orders} == {9 / 500}
    assert all(7.0 <= order["pause"] < 8.0 for order in crew.orders)


def test_a_chunk_is_not_trained_again_on_the_machine_it_comes_from(plan):
    crew, desk = FakeCrew(["a", "b"]), Notes(plan)
    dispatch(crew, plan, desk, avoid={n: "ab"[n % 2] for n in range(9)})
    check_results(desk)
    assert desk.machines == {n: "ba"[n % 2] for n in range(9)}
    alone = Notes(plan)
    dispatch(FakeCrew(["a"]), plan, alone, avoid=dict.fromkeys(range(9), "a"))
    assert set(alone.machines.values()) == {"a"}  # better there than not at all


def test_a_chunk_that_is_set_aside_is_told_of_and_tried_again(plan, tmp_path):
    """In the folder, with status 1, and until then the study is not finished."""
    wrong = FakeCrew(["a", "b"], lambda name, number, step: FAIL if number == 4 else None)
    executor = Pretended(wrong, FakeCrew(["c"]))
    with pytest.warns(ClusterWarning):
        found = study.run(plan, tmp_path / "s", executor=executor, sinks=[])
    assert found.failures == {4: "ValueError: of chunk 4"} and len(found.runs) == 32
    assert not found.finished and not (tmp_path / "s" / "manifest.json").exists()
    status, out, _ = call("study", "status", tmp_path / "s")
    assert status == 1 and "chunk 4 is set aside: ValueError: of chunk 4" in out[2]
    assert out[3] == f"`dqx study resume {tmp_path / 's'}` tries again what is set aside"
    found = study.resume(tmp_path / "s", executor=executor, sinks=[])
    assert found.finished and found.failures == {} and found.manifest["devices"] == ["made up"]
    assert call("study", "status", tmp_path / "s")[0] == 0
    made = make_study(tmp_path / "made", plan)
    assert found.digests == study.load(made.folder.path).digests
    assert set(found.machines.values()) == {"a", "b", "c"} and found.machines[4] == "c"


def test_a_driver_that_is_stopped_goes_on_from_its_checkpoints(plan, tmp_path):
    given = {"checkpoint_seconds": 0.0}
    crew, executor = FakeCrew(["c", "d"]), Pretended(FakeCrew(["a", "b"]))
    with pytest.raises(study.StudyInterrupted):
        study.run(plan, tmp_path / "s", executor=executor, sinks=[Impatient()], **given)
    rows = Rows()
    found = study.resume(tmp_path / "s", executor=Pretended(crew), sinks=[rows], **given)
    assert sorted(crew.starts)[:3] == [(0, 200), (1, 200), (2, 0)]
    assert found.digests == study.load(make_study(tmp_path / "made", plan).folder.path).digests
    assert min(rows.steps[:2]) == 300 and not list(found.path.glob("checkpoints/*"))


def test_a_damaged_checkpoint_costs_its_chunk_and_each_is_read_once(plan, tmp_path, monkeypatch):
    """Whoever goes on: a cluster starts the chunk again, as one machine does."""
    out, given = tmp_path / "s", {"checkpoint_seconds": 0.0}
    with pytest.raises(study.StudyInterrupted):
        executor = Pretended(FakeCrew(["a", "b"]))
        study.run(plan, out, executor=executor, sinks=[Impatient()], **given)
    first, second = sorted(out.glob("checkpoints/*.npz"))
    first.write_bytes(first.read_bytes()[:-1])
    read, real = [], sealed.open_plain
    monkeypatch.setattr(sealed, "open_plain", lambda path: read.append(path) or real(path))
    crew = FakeCrew(["c", "d"])
    with pytest.warns(study.StudyWarning, match="Chunk 0 starts again from its beginning"):
        found = study.resume(out, executor=Pretended(crew), sinks=[], **given)
    assert sorted(crew.starts)[:3] == [(0, 0), (1, 200), (2, 0)]
    assert found.digests == study.load(make_study(tmp_path / "made", plan).folder.path).digests
    assert [path for path in read if path.suffix == ".npz"].count(second) == 1


class Impatient(study.Sink):
    def row(self, row):
        if row.step == 300:
            raise KeyboardInterrupt  # as a second Ctrl-C does it


class Rows(study.Sink):
    def __init__(self):
        self.steps = []

    def row(self, row):
        self.steps.append(row.step)


def test_results_travel_as_plain_arrays(plan):
    desk = Notes(plan)
    dispatch(FakeCrew(["a"]), plan, desk)
    message = result_message(desk.results[0])
    assert set(message["params"]) == {"params/Dense_0/kernel", "params/Dense_0/bias"}
    again = result_message(result_of(message))
    assert again.keys() == message.keys()
    for name, values in message["params"].items():
        assert again["params"][name] is values


def test_nothing_of_ray_is_imported_without_a_cluster():
    """Two files name Ray, inside functions alone, and others name them so too."""
    house, inside = Path(dqx.__file__).parent, []
    for path in house.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top = {name for node in tree.body for name in imports(node)}
        anywhere = {name for node in ast.walk(tree) for name in imports(node)}
        assert not {name for name in top if name.split(".")[0] == "ray"}, path
        assert "dqx.study.executors.cluster" not in top, path
        assert "dqx.study.executors.crew" not in top or path.name == "cluster.py", path
        if {name for name in anywhere if name.split(".")[0] == "ray"}:
            inside.append(path.relative_to(house).as_posix())
    assert sorted(inside) == ["study/executors/cluster.py", "study/executors/crew.py"]


def imports(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) else []


def test_without_ray_a_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    file = tmp_path / "p.toml"
    file.write_text(toml({"name": "p", "base": BASE}))
    for command in (("study", file), ("train", "cartpole")):
        status, out, err = call(*command, "--cluster", "local:2", "--out", tmp_path / "s")
        assert (status, out) == (2, []), err
        assert err == [
            "dqx: error: a cluster needs Ray, which is not installed: pip install 'dqx[cluster]'"
        ]
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"address": "local:0"}, "cluster must be auto, HOST:PORT"),
        ({"address": "ray://head:10001"}, "cluster must be auto, HOST:PORT"),
        ({"address": None}, "cluster must be auto, HOST:PORT of its head, or local:N, got None"),
        ({"workers": 0}, "workers must be a whole number from 1 on, or None, got 0"),
        ({"workers": "4"}, "workers must be a whole number from 1 on, or None, got '4'"),
        ({"devices": "cpu:2"}, "devices must be cpu or gpu, or None, got 'cpu:2'"),
        ({"kinds": "all"}, "kinds must be same or split, got 'all'"),
        ({"modules": "mine"}, r"modules must be names of modules, such as \['my_agents'\], got"),
        ({"cached": 1}, "cached must be True or False, got 1"),
        ({"patience": -1.0}, r"patience must be how many times, 0 or more and finite, got -1\.0"),
        ({"least_silence": "9"}, "least_silence must be seconds, 0 or more and finite, got '9'"),
    ],
)
def test_what_names_no_cluster_is_refused(arguments, problem):
    with pytest.raises(ConfigError, match=problem):
        study.Ray(**arguments)
