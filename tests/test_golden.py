"""The bits of a dozen short runs, recorded: a change that means to leave numbers alone does."""

import json

import numpy as np
import pytest

from tests import golden

RECORDED = json.loads(golden.RECORDED.read_text())
# Elsewhere only early numbers can be compared: rounding differs, and grows from update to update.
_TOLERANCE = 1e-3
# Cases whose bits were recorded on none of those machines yet.
_WITHOUT_BITS = ("n_step", "pqn")
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
    recorded = RECORDED.get(golden.machine())
    if recorded is not None and name not in _WITHOUT_BITS:
        for key in ("diverged_at", "params", "digests"):
            assert found[key] == recorded[name][key], key


@pytest.mark.parametrize("name", cases(["adam", "rmsprop", "tabular", "diverged"], ["adam"]))
def test_one_device_and_two_give_the_same_bits(name: str) -> None:
    assert golden.found(name, "cpu:1")["digests"] == golden.found(name, "cpu:2")["digests"]
