"""The benchmarks' arithmetic and the scripts: what they print rests on these."""

import dataclasses
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import dqx
from dqx.compute.devices import select_devices
from dqx.compute.digest import flatten
from dqx.settings import to_record
from tests.shared import HYPER, TINY, WIDTH

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


@pytest.mark.long
@pytest.mark.usefixtures("compiled_anew")
def test_chunks_are_timed_side_by_side_as_training_runs_them(common):
    """What is timed are the very steps of training: the parameters come out with the same bits."""
    places = select_devices("cpu:2")
    timed = common.SideBySide(TINY, HYPER, places)
    timed.start(3, 2)
    seconds = timed.seconds(2) + timed.seconds(1)
    assert 0 < seconds < timed.compile_seconds
    steps = TINY.learning_starts + 3 * TINY.log_period
    result = dqx.train(dataclasses.replace(TINY, total_steps=steps), HYPER, range(3, 3 + 2 * WIDTH))
    found = [flatten(jax.tree.map(np.asarray, timed.state(i)[1].agent.params)) for i in range(2)]
    for name, values in flatten(result.params).items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in found]), values)
    assert [int(timed.state(i)[0].step) for i in range(2)] == [steps, steps]


def test_the_variants_are_the_presets_with_that_base(common):
    import variants

    from dqx.settings import preset_about, preset_names

    found = variants.variants()
    based = {name for name in preset_names() if preset_about(name).base == "cartpole/one-step"}
    of_presets = found.keys() - variants.MORE.keys() - {"plain"}
    assert {f"cartpole/{name}" for name in of_presets} == based and "per" in found
    assert found["plain"] == {} and found["dueling"] == {"head": "dueling_avg"}
    assert set(variants.AIMS) <= set(found)


def test_results_are_strict_json(common, tmp_path):
    common.write_json(str(tmp_path / "new" / "a.json"), {"rate": 1.5, **to_record(TINY, HYPER)})
    record = json.loads((tmp_path / "new" / "a.json").read_text(), parse_constant=pytest.fail)
    assert record["rate"] == 1.5 and record["hyper"]["max_grad_norm"] == "inf"
    common.write_json(None, {})


BENCHMARKS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))
BENCHMARKS.remove("common")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_help_of_the_benchmarks(name, common, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as done:
        runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"), run_name="__main__")
    assert done.value.code == 0
    help_text = re.sub(r"\{[a-z,]+\}", "", capsys.readouterr().out)  # choices
    assert "--json" in help_text and "{" not in help_text and len(help_text) > 200


@pytest.mark.long
def test_the_seed_variance_script_goes_on_where_it_was(tmp_path):
    out = tmp_path / "study"
    command = [sys.executable, ROOT / "scripts" / "seed_variance.py", "--seeds", "8"]
    command += ["--preset", "cartpole", "--out", out, "--values", "1e-3", "1e-9"]
    shorten = (
        "import runpy, sys, dqx; run = dqx.study.run; "
        "dqx.study.run = lambda plan, out, **given: run(plan | {'base': plan['base'] | "
        "{'total_steps': 10_000}}, out, **given); sys.argv = sys.argv[1:]; "
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


@pytest.mark.long
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
