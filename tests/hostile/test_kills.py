"""Killed at random moments of all that reaches the disk: what goes on afterwards has equal bits."""

import random
import shutil

import pytest

from dqx.study import load
from tests.hostile import jobs, studies
from tests.hostile.moments import Counting, Death
from tests.hostile.server import Server
from tests.study.kit import assert_whole

# How many die in a process of their own, by ``os._exit``, and how many in this one, by an exception
# after which nothing is written: a process takes two seconds, as it starts JAX.
TRUE = {"start": 30, "resume": 14, "repair": 6, "overwrite": 10}
SIMULATED = {"start": 60, "resume": 30, "repair": 20, "overwrite": 30}


pytestmark = pytest.mark.slow  # which puts the file before quick ones


@pytest.fixture(scope="module")
def counts(templates, tmp_path_factory):
    """How many moments each scenario has."""
    found = {}
    for name, scenario in studies.SCENARIOS.items():
        out = tmp_path_factory.mktemp("counted") / "s"
        scenario.prepare(templates, out)
        with Counting() as disk:
            scenario.act(out)
        found[name] = disk.count
    return found


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.close()


def chosen(name, number, of, counts):
    """One moment at random in each of as many equal parts of a scenario."""
    share = (number + random.Random(f"{name} {number} {of}").random()) / of
    return int(share * counts[name])


def parameters(amounts):
    return [(name, number) for name, amount in amounts.items() for number in range(amount)]


def assert_goes_on(scenario, out, reference):
    """What a user does next ends in a whole study of the same bits, with all that belongs to it."""
    study = scenario.mend(out)
    assert_whole(study, reference)
    assert (out / "learning_curves.png").read_bytes() == b"curves"
    assert (out / "report" / "index.html").read_bytes() == b"curves"
    assert study.manifest["runs"] == study.runs and load(out).finished


@pytest.mark.parametrize(("name", "number"), parameters(SIMULATED))
def test_killed_in_this_process(name, number, counts, templates, reference, tmp_path):
    """Simulated: an exception at the moment, after which nothing reaches the disk."""
    scenario, out = studies.SCENARIOS[name], tmp_path / "s"
    scenario.prepare(templates, out)
    with Death(chosen(name, number, SIMULATED[name], counts)) as death:
        scenario.act(out)
    assert death.dead
    assert_goes_on(scenario, out, reference)
    shutil.rmtree(out)


@pytest.mark.parametrize(("name", "number"), parameters(TRUE))
def test_killed_for_real(name, number, counts, templates, reference, server, tmp_path):
    """True: a process that ends by `os._exit` at the moment."""
    scenario, out = studies.SCENARIOS[name], tmp_path / "s"
    scenario.prepare(templates, out)
    died = server.call("die", name, str(out), chosen(name, number, TRUE[name], counts))
    assert died["status"] == jobs.DIED, died["said"]
    assert_goes_on(scenario, out, reference)
    shutil.rmtree(out)
