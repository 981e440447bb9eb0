"""`dqx compare` as a command: what it prints, and what it says of mistakes."""

import json
import subprocess
import sys

import pytest

from tests.cli.kit import environment
from tests.study.kit import call, make_study

PLAN = {"seeds": 8, "case": [{"name": "a"}, {"name": "b", "gamma": 0.5}]}


def change(name, seed, run):
    run["metrics"]["eval_return"][-1] = {"a": 100, "b": 300}[name] + seed**2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("compare") / "s"
    make_study(path, {"name": "s", **PLAN}, change=change)
    return path


def test_the_verdict_is_printed(folder):
    status, out, err = call("compare", folder)
    assert (status, err) == (0, [])
    assert out[0] == "CartPole-v1: greedy return"
    assert out[-1] == (
        "verdict: b is better than a by 200.0 (the same for all middle seeds; p = 0.008)"
    )
    assert any(line.split()[:2] == ["b", "a"] for line in out)


def test_a_bar_adds_the_share_of_seeds_that_reach_it(folder):
    status, out, err = call("compare", folder, "--bar", "125")
    assert (status, err) == (0, [])
    assert (
        "note: of a 3 of 8 seeds end at 125 or better: 37.50 %, 95 % interval 13.68 to 69.43" in out
    )


@pytest.mark.parametrize("kind", ["text", "markdown", "latex", "csv", "json"])
def test_every_format_names_both(folder, kind):
    status, out, _ = call("compare", folder, "--configs", "a", "b", "--format", kind)
    text = "\n".join(out)
    assert status == 0 and "200" in text and "is better than" in text
    if kind == "json":
        assert json.loads(text)["comparisons"][0]["pairs"][0]["better"] == "b"


def test_mistakes_are_one_line(folder, tmp_path):
    broken = tmp_path / "broken"
    made = make_study(broken, {"name": "broken", **PLAN}, change=change)
    part = made.folder.part("metrics", 1)
    part.write_bytes(part.read_bytes()[:-5])
    older = tmp_path / "older"
    make_study(older, {"name": "older", **PLAN}, change=change)
    plan = older / "plan.json"
    record = json.loads(plan.read_text())
    record["format"] = 1
    from dqx.study.sealed import write_sealed

    write_sealed(plan, {k: v for k, v in record.items() if k != "sha256"})
    for arguments, words in (
        ([tmp_path / "none"], "holds no study"),
        ([folder, "--configs", "zz"], "no configuration 'zz'"),
        ([folder, folder], "given twice"),
        ([folder, "--format", "html"], "invalid choice: 'html'"),
        ([folder, "--bar", "nan"], "--bar: must be a finite number, got 'nan'"),
        ([folder, broken], "part-00001.parquet"),
        ([folder, older], "has format 1, and this version of dqx reads"),
    ):
        status, out, err = call("compare", *arguments)
        assert status == 2 and out == [] and len(err) == 1, err
        assert words in err[0], err


def test_reading_and_comparing_needs_no_jax(folder):
    code = (
        "import sys\nfrom dqx.cli import main\n"
        f"status = main(['compare', {str(folder)!r}])\n"
        "sys.exit(status or [m for m in ('jax', 'matplotlib') if m in sys.modules] or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
