"""Baird's counterexample: the script's update against NumPy, and what becomes of each line."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "deadly_triad.py"
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def triad():
    spec = importlib.util.spec_from_file_location("deadly_triad", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def numpy_errors(triad, setting, key, updates):
    """The largest |value| after each update: semi-gradient TD in float64 from the same batches."""
    features = np.zeros((7, 9))  # the last is the bias
    for state in range(6):
        features[state, [state, 7]] = 2, 1
    features[6, [6, 7]] = 1, 2
    features[:, 8] = 1
    w = np.array([1, 1, 1, 1, 1, 1, 10, 1, 0], float)
    if not setting.approximates:
        w, features = features @ w, np.eye(7)
    behind, found = w.copy(), []
    rows = jnp.arange(7)[:, None]  # states that say which they are
    draw = jax.jit(lambda number: triad._batch(setting, rows, jax.random.fold_in(key, number)))
    for number in range(updates):
        batch = jax.tree.map(np.asarray, draw(number))
        state, following = batch.steps.obs[:, 0], batch.steps.next_obs[:, 0]
        if setting.approximates:
            target = triad.GAMMA * batch.steps.discount * (features[following] @ behind)
            error = target - features[state] @ w
            w = w + triad.LEARNING_RATE * (batch.weight * error) @ features[state] / len(state)
            if (number + 1) % setting.target_period == 0:
                behind = w.copy()
        else:  # one transition after another
            for i, (s, t) in enumerate(zip(state, following, strict=True)):
                error = triad.GAMMA * batch.steps.discount[i] * w[t] - w[s]
                w[s] += triad.LEARNING_RATE * batch.weight[i] * error
        found.append(np.abs(features @ w).max())
    return np.array(found)


@pytest.mark.parametrize("name", ["all three", "on policy", "no bootstrapping: whole returns", 5])
def test_the_update_is_that_of_the_book(triad, name):
    setting = triad.LINES.get(name) or triad.Setting(target_period=name)
    key = jax.random.fold_in(jax.random.key(0), 0)
    expected = numpy_errors(triad, setting, key, 60)
    np.testing.assert_allclose(triad.learned(setting, 1, 60)[0, 1:], expected, rtol=1e-3)


def test_the_table_is_updated_as_a_table(triad):
    setting = triad.LINES["no approximation: a table"]
    key = jax.random.fold_in(jax.random.key(0), 0)
    expected = numpy_errors(triad, setting, key, 60)
    np.testing.assert_allclose(triad.learned(setting, 1, 60)[0, 1:], expected, rtol=1e-3)


def test_it_grows_with_all_three_and_shrinks_without_one(triad):
    for name, setting in triad.LINES.items():
        found = triad.learned(setting, 4, 1_500)
        assert (found[:, 0] == 12).all()
        if name == "all three":
            assert (found[:, -1] > 1e6).all() and (np.diff(found[:, ::300]) > 0).all()
        else:
            assert (found[:, -1] < 1.5).all(), name


def test_the_script_runs(tmp_path):
    out = tmp_path / "triad.png"
    line = [sys.executable, SCRIPT, "--updates", "20", "--seeds", "2", "--out", out]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert out.read_bytes().startswith(b"\x89PNG") and "all three" in done.stdout
    done = subprocess.run([*line, "--seeds", "0"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "must be at least 1" in done.stderr
