"""Digests: the bytes that are summed are written out here once more, and every change shows."""

import hashlib
import itertools
import struct
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from dqx.compute.digest import digest, digests, flatten, nested

STEPS = np.array([10, 20], np.int64)
METRICS = {
    "loss": np.array([0.5, np.nan], np.float32),
    "episode_count": np.array([3, 4], np.int64),
}
PARAMS = {"net/bias": np.array([1.0, -2.0], np.float32), "b": np.array([[7]], np.int32)}


def by_hand(loss=(0.5, None), count=(3, 4), bias=(1.0, -2.0), b=7):
    """The same digest from bytes put together by hand: little endian, one kind of NaN."""
    nan = struct.pack("<I", 0x7FC00000)

    def floats(values):
        return b"".join(nan if v is None else struct.pack("<f", v) for v in values)

    parts = [
        b"step:<i8:(2,);" + struct.pack("<qq", 10, 20),
        b"metrics/episode_count:<f4:(2,);" + floats(count),
        b"metrics/loss:<f4:(2,);" + floats(loss),
        b"b:<i4:(1, 1);" + struct.pack("<i", b),
        b"net/bias:<f4:(2,);" + floats(bias),
    ]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_the_digest_is_the_sum_of_these_bytes():
    assert digest(STEPS, METRICS, PARAMS) == by_hand()
    # Written out, so that a study can be verified by a later version.
    assert by_hand() == "9d1a6a0d8da6c76723c6f2aabd630328dfcdffed396c0fee103d132d86b5670b"


def test_the_order_and_memory_of_arrays_do_not_count():
    expected = digest(STEPS, METRICS, PARAMS)
    for metrics in itertools.permutations(METRICS.items()):
        for params in itertools.permutations(PARAMS.items()):
            assert digest(STEPS, dict(metrics), dict(params)) == expected
    other = {name: values.astype(values.dtype.newbyteorder(">")) for name, values in PARAMS.items()}
    assert digest(STEPS.astype(np.int32), {**METRICS, "step": STEPS}, other) == expected
    strided = {name: np.repeat(values, 2)[::2] for name, values in METRICS.items()}
    assert digest(STEPS, strided, PARAMS) == expected
    wide = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert digest(STEPS, {}, {"a": wide}) == digest(STEPS, {}, {"a": np.asfortranarray(wide)})


def test_every_bit_of_every_number_counts():
    seen = {digest(STEPS, METRICS, PARAMS)}
    count = 1
    arrays = [(PARAMS, name) for name in PARAMS] + [(METRICS, "loss")]
    for group, name in arrays:
        for at in np.ndindex(group[name].shape):
            if np.isnan(group[name][at]):
                continue
            for bit in range(32):
                changed = {key: values.copy() for key, values in group.items()}
                changed[name].view(np.uint32)[at] ^= np.uint32(1 << bit)
                both = (changed, PARAMS) if group is METRICS else (METRICS, changed)
                seen.add(digest(STEPS, *both))
                count += 1
    assert len(seen) == count == 1 + 32 * 4
    assert digest(STEPS + 1, METRICS, PARAMS) not in seen


def test_names_shapes_and_types_count():
    values = np.arange(6, dtype=np.float32)
    found = [
        digest(STEPS, {}, {"a": values}),
        digest(STEPS, {}, {"b": values}),
        digest(STEPS, {}, {"a": values.reshape(2, 3)}),
        digest(STEPS, {}, {"a": values.reshape(3, 2)}),
        digest(STEPS, {}, {"a": values.view(np.int32)}),
        digest(STEPS, {}, {"a": values.astype(np.float64)}),
        digest(STEPS, {}, {"a": values[:3], "b": values[3:]}),
        digest(STEPS, {"a": values}, {}),
        digest(STEPS, {}, {"a": values, "b": values[:0]}),
        digest(STEPS[:1], {}, {"a": values}),
    ]
    assert len(set(found)) == len(found)


def test_zeros_have_a_sign_and_nans_have_none():
    zeros = [digest(STEPS, {}, {"a": np.array([x], np.float32)}) for x in (0.0, -0.0)]
    assert zeros[0] != zeros[1]
    bits = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0x7FFFFFFF], np.uint32)
    nans = {digest(STEPS, {}, {"a": bits[i : i + 1].view(np.float32)}) for i in range(4)}
    assert len(nans) == 1
    infinite = digest(STEPS, {}, {"a": np.array([np.inf], np.float32)})
    assert infinite not in nans


def test_metrics_count_as_the_files_hold_them():
    """In float32: a count of 3 is the same number whether it came as an integer or from a file."""
    floats = {name: values.astype(np.float32) for name, values in METRICS.items()}
    assert digest(STEPS, floats, PARAMS) == digest(STEPS, METRICS, PARAMS)
    off = {**METRICS, "loss": METRICS["loss"].astype(np.float64) * (1 + 1e-12)}
    assert digest(STEPS, off, PARAMS) == digest(STEPS, METRICS, PARAMS)


def test_inputs_stay_untouched():
    bits = np.array([0xFFC00001], np.uint32)
    digest(STEPS, {}, {"a": bits.view(np.float32)})
    assert bits[0] == 0xFFC00001


def test_each_seed_has_its_own():
    rng = np.random.default_rng(0)
    metrics = {"step": STEPS, "loss": rng.normal(size=(3, 2)).astype(np.float32)}
    params = {"params": {"d": {"k": rng.normal(size=(3, 2, 2)).astype(np.float32)}}}
    found = digests(STEPS, metrics, params)
    assert len(set(found)) == 3
    for i, text in enumerate(found):
        one = {"params/d/k": params["params"]["d"]["k"][i]}
        assert text == digest(STEPS, {"loss": metrics["loss"][i]}, one)
    # A seed's digest does not depend on the others.
    last = {"params": {"d": {"k": params["params"]["d"]["k"][2:]}}}
    assert digests(STEPS, {"loss": metrics["loss"][2:]}, last) == found[2:]


def test_trees_are_flattened_and_put_together_again():
    tree = {"params": {"a": {"kernel": np.ones((2, 3)), "bias": np.zeros(3)}, "b": {"c": 1.0}}}
    flat = flatten(tree)
    assert list(flat) == ["params/a/kernel", "params/a/bias", "params/b/c"]
    assert flat["params/a/kernel"] is tree["params"]["a"]["kernel"]
    again = nested(flat)
    assert again["params"]["a"] == tree["params"]["a"] and again["params"]["b"]["c"] == 1.0
    assert flatten({"a": {}}) == {} and nested({}) == {}
    assert flatten({"x": 1}, "p/").keys() == {"p/x"}


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"a": {"b/c": np.ones(1)}}, "'b/c' holds a slash"),
        ({"a": {"b": jnp.ones(1, jnp.bfloat16)}}, "a/b has dtype bfloat16: convert it to float32"),
        ({"a": np.array(["x"])}, "a has dtype <U1"),
        ({"a": np.array([{}])}, "a has dtype object"),
    ],
)
def test_what_a_file_cannot_hold_is_refused(tree, words):
    with pytest.raises(ValueError, match=words):
        flatten(tree)


def test_no_jax_is_needed():
    code = "import sys, dqx.compute.digest\nprint('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
