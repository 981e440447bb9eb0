"""The bits of two dozen short runs, recorded: a change that means to leave numbers alone does."""

import json

import numpy as np
import pytest

from tests import golden

RECORDED = json.loads(golden.RECORDED.read_text())
# Elsewhere only early numbers can be compared: rounding differs, and grows from update to update.
_TOLERANCE = 1e-3
# One case of each kind of agent and network is compared every time, the others in `make test-long`.
_SHORT = ("adam", "minatar_cnn", "tabular")


def cases(names, short):
    """Parameters of a test, all but some of them marked as long."""
    return [pytest.param(n, marks=() if n in short else pytest.mark.long) for n in names]


@pytest.mark.parametrize("name", cases(golden.CASES, _SHORT))
def test_a_case_has_the_bits_that_were_recorded(name: str) -> None:
    found = golden.found(name)
    for metric, expected in RECORDED["early"][name].items():
        np.testing.assert_allclose(found["probes"][metric], expected, rtol=_TOLERANCE, atol=1e-5)
    recorded = RECORDED.get(golden.machine(), {}).get(name)  # newer cases lack some machines' bits
    if recorded is not None:
        for key in ("diverged_at", "params", "digests"):
            assert found[key] == recorded[key], key


def test_every_case_has_early_numbers_and_the_bits_of_some_machine():
    machines = [entry for name, entry in RECORDED.items() if name != "early"]
    assert set(RECORDED["early"]) == set(golden.CASES) == set().union(*machines)


@pytest.mark.parametrize("name", cases(["adam", "rmsprop", "tabular", "diverged"], ["adam"]))
def test_one_device_and_two_give_the_same_bits(name: str) -> None:
    assert golden.found(name, "cpu:1")["digests"] == golden.found(name, "cpu:2")["digests"]
