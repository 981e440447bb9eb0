"""The benchmarks' arithmetic and the scripts: what they print rests on these."""

import subprocess
import sys
from pathlib import Path

import pytest

import dqx

ROOT = Path(__file__).parent.parent


@pytest.fixture
def common(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import common

    return common


@pytest.mark.parametrize(
    ("preset", "obs_size", "num_actions", "expected"),
    [
        # By hand. Forward 2 * (4*120 + 120*84 + 84*2) = 21,456; backward that again and
        # 2 * (120*84 + 84*2), 41,952; a step is one forward and 12.8 times (2 forward + backward).
        ("cartpole/cleanrl", 4, 2, 21_456 + 12.8 * (2 * 21_456 + 41_952)),
        # Forward 2 * (2*32 + 32*32 + 32*3) = 2,368; backward 2,368 + 2 * (32*32 + 32*3) = 4,608.
        ("mountain-car/toptal", 2, 3, 2_368 + 64 * (2 * 2_368 + 4_608)),
    ],
)
def test_operations_of_a_step(common, preset, obs_size, num_actions, expected):
    config, _ = dqx.preset(preset)
    assert common.update_flops(config, obs_size, num_actions) == pytest.approx(expected)


def test_double_dqn_needs_one_forward_pass_more(common):
    config, _ = dqx.preset("cartpole")
    forward = 2 * (4 * 64 + 64 * 64 + 64 * 2)
    backward = forward + 2 * (64 * 64 + 64 * 2)
    expected = forward + 128 / 8 * (3 * forward + backward)
    assert common.update_flops(config, 4, 2) == pytest.approx(expected)


def test_the_seed_variance_script_goes_on_where_it_was(tmp_path):
    out = tmp_path / "study"
    command = [sys.executable, ROOT / "scripts" / "seed_variance.py", "--seeds", "8"]
    command += ["--preset", "cartpole", "--out", out, "--values", "1e-3", "1e-9"]
    shorten = (
        "import runpy, sys, dqx; p = dqx.study.run; "
        "dqx.study.run = lambda plan, out: p(plan | {'base': plan['base'] | "
        "{'total_steps': 10_000}}, out); sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", shorten, *map(str, command[1:])],
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        # A learning rate of 1e-9 learns nothing.
        assert lines[0].startswith("learning_rate=0.001: mean ")
        assert lines[2].endswith("rank them wrongly  0.0 % of the time")
    assert (out / "seed_variance.png").stat().st_size > 10_000


def test_the_script_compares_two_settings():
    command = [sys.executable, ROOT / "scripts" / "double_dqn.py", "--seeds", "2"]
    done = subprocess.run(
        [*command, "--steps", "10000"], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split("IQM")[0].strip() for line in lines[:2]] == [
        "double = False",
        "double = True",
    ]
    assert lines[2].startswith("P(double beats single on the same seed) = ")
