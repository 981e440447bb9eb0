"""The bits of two dozen short runs, recorded: a change that means to leave numbers alone does."""

import json

import numpy as np
import pytest

from tests import golden

RECORDED = json.loads(golden.RECORDED.read_text())
# Elsewhere only early numbers can be compared: rounding differs, and grows from update to update.
_TOLERANCE = 1e-3
# One is compared every time, the others in `make test-long`.
CASES = [pytest.param(n, marks=() if n == "adam" else pytest.mark.long) for n in golden.CASES]


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """The name of a case, and what it gives on two devices."""
    return request.param, golden.found(request.param)


def test_a_case_has_the_bits_that_were_recorded(case) -> None:
    name, found = case
    for metric, expected in RECORDED["early"][name].items():
        np.testing.assert_allclose(found["probes"][metric], expected, rtol=_TOLERANCE, atol=1e-5)
    recorded = RECORDED.get(golden.machine(), {}).get(name)  # newer cases lack some machines' bits
    if recorded is not None:
        for key in ("diverged_at", "params", "digests"):
            assert found[key] == recorded[key], key


def test_one_device_and_two_give_the_same_bits(case) -> None:
    name, found = case
    assert golden.found(name, "cpu:1")["digests"] == found["digests"]


def test_every_case_has_early_numbers_and_the_bits_of_some_machine():
    machines = [entry for name, entry in RECORDED.items() if name != "early"]
    assert set(RECORDED["early"]) == set(golden.CASES) == set().union(*machines)
