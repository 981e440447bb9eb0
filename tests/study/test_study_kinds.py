"""Several kinds of machines: who trains what, who trains it again, and what can be compared."""

import sys
from types import ModuleType

import pytest

from dqx.study import Ray, StudyError, load, read_plan, verify
from dqx.study.folder import Folder, read_plan_record
from dqx.study.kinds import (
    MachineKind,
    ThenAndNow,
    commonest,
    present_kinds,
    shared_out,
)
from dqx.study.sealed import read_sealed, write_sealed
from tests.study.crew_kit import FakeCrew
from tests.study.kit import BASE, call, make_study
from tests.study.reseal import change_params

OLD, NEW, ODD = ({"device_kind": name, "jax": "0"} for name in ("old", "new", "odd"))
CASE = [{"name": "a"}, {"name": "b", "batch_size": 16}, {"name": "c", "batch_size": 64}]
KINDS = [MachineKind(OLD, ["a", "c"]), MachineKind(NEW, ["b"])]


@pytest.fixture(scope="module")
def plan():
    """Three configurations, each of a program of its own."""
    return read_plan({"name": "s", "seeds": 3, "base": BASE, "case": CASE})


@pytest.fixture
def folder(plan, tmp_path):
    """A study of made-up numbers, trained on two kinds of machines."""
    return make_study(tmp_path / "s", plan, identity=OLD, kinds=KINDS).folder


class Workers(FakeCrew):
    """A crew whose workers tell of faked identities, as those of a Ray cluster do.

    Args:
        kinds: identity of the worker on each node.
    """

    def __init__(self, **kinds):
        super().__init__(list(kinds))
        self.identities = {hand.name: kinds[hand.node] for hand in self.hands}
        self.used = set()

    def gather(self, plan):
        pass

    def admit(self, identities):
        self.hands = [h for h in self.hands if self.identities[h.name] in identities]
        for hand in self.hands:
            hand.kind = identities.index(self.identities[hand.name])

    def kept(self, content):
        return content

    def close(self):
        pass


@pytest.fixture
def cluster(monkeypatch):
    """``cluster(node=identity)`` makes the executor of a cluster, in which nothing is Ray's."""
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    monkeypatch.setattr(Ray, "__enter__", lambda self: self)

    def make(**kinds):
        made = Ray()
        made._crew = Workers(**kinds)
        return made

    return make


def test_configurations_are_shared_out_by_how_many_workers_a_kind_has(plan):
    workers = {"1": NEW, "2": OLD, "3": OLD}
    assert commonest(workers) == [OLD, NEW]
    assert shared_out(plan, workers, split=True) == [
        MachineKind(OLD, ["a", "b"]),
        MachineKind(NEW, ["c"]),
    ]
    assert shared_out(plan, workers, split=False) == [MachineKind(OLD, ["a", "b", "c"])]
    assert shared_out(plan, {"1": ODD}, split=True) == [MachineKind(ODD, ["a", "b", "c"])]


def test_each_kind_trains_its_runs_again_and_the_commonest_those_of_an_absent_one():
    assert present_kinds(KINDS, {"1": NEW, "2": OLD}) == KINDS
    assert present_kinds(KINDS, {"1": NEW}) == [MachineKind(NEW, ["a", "c", "b"])]
    assert present_kinds(KINDS, {"1": ODD, "2": ODD, "3": NEW}) == [
        MachineKind(ODD, ["a", "c"]),
        MachineKind(NEW, ["b"]),
    ]
    assert KINDS[0].points == ["a", "c"]  # which is left as it was


def test_what_differs_is_told_with_the_configurations_that_it_is_of():
    same = ThenAndNow.of(KINDS, KINDS)
    assert same.differences() == () and all(map(same.comparable, "abc"))
    part = ThenAndNow.of(KINDS, [MachineKind(NEW, ["a", "b", "c"])])
    assert part.differences() == ("a, c: device_kind was 'old' and is 'new' here",)
    assert [part.comparable(name) for name in "abc"] == [False, True, False]
    none = ThenAndNow.of([MachineKind(OLD, list("abcdef"))], [MachineKind(ODD, list("abcdef"))])
    assert none.differences() == ("device_kind was 'old' and is 'odd' here",)
    many = ThenAndNow.of(
        [MachineKind(OLD, list("abcdef")), KINDS[1]], [MachineKind(NEW, list("abcdef"))]
    )
    assert many.differences()[0].startswith("a, c, d, 2 more: device_kind was")


def test_every_run_is_trained_again_on_its_kind_and_compared_bit_by_bit(folder, cluster):
    """A changed number is a difference on either kind, whichever comes first in the plan."""
    executor = cluster(x=NEW, y=OLD, z=ODD)
    for name in "ab":
        change_params(folder, name, 1, lambda arrays, i: arrays["params/Dense_0/bias"][i].fill(0))
    found = verify(folder.path, sample=None, executor=executor)
    assert found.kinds == (OLD, NEW) and found.differences == () and found.statistics == ""
    told = {(c.config, c.seed): (c.verdict, c.trained_kind, c.again_kind) for c in found.checks}
    assert told == {
        (name, seed): (
            "different" if seed == 1 and name in "ab" else "identical",
            *([0, 0] if name in "ac" else [1, 1]),
        )
        for name in "abc"
        for seed in range(3)
    }
    assert {c.again_on for c in found.checks if c.config == "b"} == {"x"}
    assert {c.again_on for c in found.checks if c.config != "b"} == {"y"}


def test_runs_of_an_absent_kind_are_not_comparable_and_those_of_the_other_are(folder, cluster):
    for name in "ab":
        change_params(folder, name, 1, lambda arrays, i: arrays["params/Dense_0/bias"][i].fill(0))
    found = verify(folder.path, sample=None, executor=cluster(x=NEW, y=NEW))
    verdicts = {(c.config, c.seed): c.verdict for c in found.checks if c.verdict != "identical"}
    assert verdicts == {("a", 1): "not comparable", ("b", 1): "different"}
    assert found.differences == ("a, c: device_kind was 'old' and is 'new' here",)
    assert found.verdict == "different"
    # Of the scores, those of runs whose bits may differ are compared.
    assert found.statistics == "scores here are those of the study, in all of 6 runs"
    record = read_sealed(Folder(folder.path).certificate)
    assert record["kinds"] == [OLD, NEW] and record["identity"] == NEW
    assert [(c["config"], c["trained_kind"], c["again_kind"]) for c in record["checks"]] == [
        (name, kind, 1) for name, kind in zip("abc", (0, 1, 0), strict=True) for _ in range(3)
    ]
    status, out, _ = call("study", "status", folder.path)
    assert status == 0 and any(line.startswith("certificate: different (9 of 9") for line in out)


def test_a_third_kind_takes_the_place_of_both(folder, cluster):
    found = verify(folder.path, sample=None, executor=cluster(x=ODD))
    assert found.kinds == (OLD, NEW, ODD) and {c.again_kind for c in found.checks} == {2}
    assert found.differences == (
        "a, c: device_kind was 'old' and is 'odd' here",
        "b: device_kind was 'new' and is 'odd' here",
    )
    assert {c.verdict for c in found.checks} == {"identical"}  # the same bits are, whoever says so


@pytest.mark.parametrize(
    "points", [[["a", "c"], []], [["a", "c"], ["b", "a"]], [["a"], ["b", "x"]]]
)
def test_a_plan_in_which_a_configuration_has_no_kind_or_two_is_refused(folder, points):
    kinds = [kind._replace(points=p)._asdict() for kind, p in zip(KINDS, points, strict=True)]
    record = {**read_plan_record(folder), "kinds": kinds}
    del record["sha256"]
    write_sealed(folder.plan, record)
    with pytest.raises(StudyError, match="kinds: each configuration must be of one kind"):
        load(folder.path)
