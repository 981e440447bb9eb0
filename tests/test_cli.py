"""The command, run in this process where that is enough and as a person runs it where not."""

import contextlib
import dataclasses
import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from importlib.resources import files
from types import SimpleNamespace

import numpy as np
import pandas
import pytest

import dqx
import envs
from dqx import cli, output
from dqx.config import CONFIG_FIELDS, HYPER_FIELDS
from dqx.seeds import parse_seeds

TINY = [
    "--steps",
    "800",
    "--set",
    "env=CartPole-v1",
    "num_envs=4",
    "train_period=4",
    "learning_starts=200",
    "log_period=200",
    "eval_period=400",
    "eval_episodes=3",
    "hidden_sizes=8",
    "batch_size=16",
    "replay_capacity=1000",
]


def call(*arguments):
    """Status, standard output and standard error of the command, run in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main([str(a) for a in arguments])
        except SystemExit as done:  # argparse leaves this way after help
            status = done.code
    return SimpleNamespace(status=status, out=out.getvalue(), err=err.getvalue())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One small run: what the command printed and wrote, and the result it had."""
    folder, results, train = tmp_path_factory.mktemp("runs") / "tiny", [], dqx.train

    def recorded(*args, **named):
        results.append(train(*args, **named))
        return results[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dqx, "train", recorded)
        done = call("train", "cartpole", "--seeds", "3,17", *TINY, "--out", folder)
    assert done.status == 0, done.err
    done.folder, (done.result,) = folder, results
    return done


def test_the_settings_reach_the_trainer(trained):
    config, hyper = dqx.preset("cartpole")
    assert trained.result.seeds.tolist() == [3, 17]
    assert trained.result.hyper == hyper
    assert (trained.result.config.total_steps, trained.result.config.num_envs) == (800, 4)
    assert trained.result.config.hidden_sizes == (8,)
    assert trained.result.config.loss == config.loss


def test_the_result_is_printed(trained):
    lines = trained.out.splitlines()
    assert lines[0] == "cartpole: 2 seeds (3, 17), 800 environment steps each"
    # With two seeds no value is cut: the interquartile mean is the mean.
    mean = trained.result.metrics["eval_return"][:, -1].mean()
    number = r"\d+\.\d"
    found = re.fullmatch(
        rf"final greedy return: IQM ({number}), 95 % interval ({number}) to ({number}) "
        r"\(bootstrap over 2 seeds\)",
        lines[1],
    )
    value, low, high = map(float, found.groups())
    assert value == pytest.approx(mean, abs=0.051) and low <= value <= high
    rate = 2 * 800 / trained.result.run_seconds
    assert re.fullmatch(
        rf"time: {number} s to compile, {number} s to run \({rate:,.0f} environment steps/s on "
        r"\d+ x cpu\)",
        lines[2],
    )
    assert lines[3:] == [f"folder: {trained.folder}"]


def test_progress_goes_to_standard_error_in_plain_lines(trained):
    lines = trained.err.splitlines()
    assert lines[:2] == ["cartpole: starting...", "cartpole: compiling..."]
    assert lines[-1] == f"cartpole: writing {trained.folder}..."
    assert trained.err.replace("\n", "").isprintable()
    assert trained.out.replace("\n", "").isprintable()


def test_the_folder_holds_the_result(trained):
    result, folder = trained.result, trained.folder
    table = pandas.read_parquet(folder / "metrics")
    assert set(table["config"]) == {"cartpole"}
    assert set(table) == {"config", "seed", *result.metrics}
    for name in ("loss", "eval_return", "episode_return"):
        wide = table.pivot(index="seed", columns="step", values=name)
        assert wide.columns.tolist() == [200, 400, 600, 800]
        np.testing.assert_array_equal(wide.loc[[3, 17]], result.metrics[name])
    episodes = pandas.read_parquet(folder / "episodes")
    columns = ["seed", "step", "return", "length"]
    assert len(episodes) > 10
    np.testing.assert_array_equal(episodes[columns], result.episodes[columns])
    loaded = output.load_params(folder / "params")
    for layer, arrays in result.params["params"].items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(loaded["params"][layer][name], array)
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["command"].startswith("dqx train cartpole --seeds 3,17 --steps 800 --set env=")


@pytest.fixture
def fake_train(trained, monkeypatch):
    """Training that takes no time; the list it gives holds the arguments of each call."""
    calls = []

    def train(config, hyper, seeds, **named):
        calls.append(SimpleNamespace(config=config, hyper=hyper, seeds=seeds, **named))
        return trained.result

    monkeypatch.setattr(dqx, "train", train)
    return calls


def test_defaults(fake_train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call("train", "cartpole/cleanrl")
    assert done.status == 0 and done.out.endswith("folder: runs/cartpole-cleanrl\n")
    assert output.read_manifest("runs/cartpole-cleanrl")["label"] == "cartpole/cleanrl"
    (arguments,) = fake_train
    assert (arguments.config, arguments.hyper) == dqx.preset("cartpole/cleanrl")
    assert arguments.seeds == list(range(32))
    assert (arguments.root_seed, arguments.devices) == (0, None)


def test_devices_root_seed_and_several_sets(fake_train, tmp_path):
    done = call(
        *("train", "cartpole", "--out", tmp_path / "a", "--devices", "cpu:2", "--root-seed", "5"),
        *("--set", "gamma=0.5", "--set", "max_grad_norm=inf", "tau=0.5"),
    )
    assert done.status == 0
    (arguments,) = fake_train
    assert (arguments.root_seed, arguments.devices) == (5, "cpu:2")
    hyper = arguments.hyper
    assert (hyper.gamma, hyper.max_grad_norm, hyper.tau) == (0.5, float("inf"), 0.5)


def test_quiet_prints_the_result_only(fake_train, tmp_path):
    done = call("train", "cartpole", "--out", tmp_path / "a", "--quiet")
    assert (done.status, done.err) == (0, "") and len(done.out.splitlines()) == 4


def test_overwriting_is_asked_for(fake_train, tmp_path):
    arguments = ("train", "cartpole", "--out", tmp_path / "a", "--quiet")
    assert call(*arguments).status == 0
    first = (tmp_path / "a" / "manifest.json").read_bytes()
    refused = call(*arguments)
    assert refused.status == 2 and "--overwrite" in refused.err and len(fake_train) == 1
    assert (tmp_path / "a" / "manifest.json").read_bytes() == first
    assert call(*arguments, "--overwrite").status == 0
    assert (tmp_path / "a" / "manifest.json").read_bytes() != first
    assert os.listdir(tmp_path) == ["a"]


def summary(trained, **changes):
    """The printed result of a run that differs from the trained one."""
    return cli._summary("x", dataclasses.replace(trained.result, **changes))


def test_one_seed_has_no_interval(trained):
    metrics = {"eval_return": np.array([[1.0, 12.5]])}
    lines = summary(
        trained, seeds=np.array([4]), metrics=metrics, diverged_at=np.array([-1]), run_seconds=2.0
    )
    assert lines[0] == "x: seed 4, 800 environment steps each"
    assert lines[1] == "final greedy return: IQM 12.5, 95 % interval n/a for one seed"
    assert "(400 environment steps/s on" in lines[2]


def test_diverged_and_unusable_seeds_are_named(trained):
    lines = summary(trained, diverged_at=np.array([-1, 1400]))
    assert lines[3] == "diverged: 1 of 2 seeds: 17 (at step 1,400)"
    lines = summary(trained, metrics={"eval_return": np.array([[np.nan], [7.0]])})
    assert "IQM 7.0" in lines[1] and "1 seeds without a finite return" in lines[1]
    lines = summary(trained, metrics={"eval_return": np.array([[np.nan], [np.inf]])})
    assert lines[1] == "final greedy return: not finite for any seed"


def test_exact_metrics_are_told(trained):
    config = dataclasses.replace(trained.result.config, exact_metrics=True)
    last = {
        "eval_return": [7.0, 8.0],
        "exact_return": [7.93, 6.93],
        "regret": [0.0, 1.0],
        "optimal_share": [1.0, 0.9],
        "q_error": [0.5, 1.5],
    }
    metrics = {name: np.array(values)[:, None] for name, values in last.items()}
    told = summary(trained, config=config, metrics=metrics)[2]
    assert told.startswith("exact return over all starts: IQM 7.43, 95 % interval 6.93 to 7.93 ")
    assert told.endswith("regret 0.50, optimal actions in 95.0 % of the states, max |Q - Q*| 1")
    metrics["q_error"][1] = np.nan
    told = summary(trained, config=config, metrics=metrics)[2]
    assert told.endswith("optimal actions in 95.0 % of the states, max |Q - Q*| not finite")


def test_a_run_without_evaluation_says_so(trained):
    config = dataclasses.replace(trained.result.config, eval_period=0)
    lines = summary(trained, config=config, metrics={})
    assert lines[1] == "final greedy return: there was no evaluation (eval_period = 0)"


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("1", [0]),
        ("3", [0, 1, 2]),
        (" 3 ", [0, 1, 2]),
        ("8:10", [8, 9]),
        ("3,17", [3, 17]),
        ("17,3", [17, 3]),
        ("0:4, 9", [0, 1, 2, 3, 9]),
        ("4294967295:4294967296", [4294967295]),
        ("5,5", [5, 5]),  # refused by the trainer, which names them
    ],
)
def test_seeds_are_understood(text, seeds):
    assert parse_seeds(text) == seeds


MISTAKES = {
    "no command": ([], "COMMAND"),
    "command": (["trian"], "'trian'.*train"),
    "option": (["train", "cartpole", "--sed", "3"], "--sed"),
    "no preset": (["train"], "PRESET"),
    "preset": (["train", "cartpol"], "'cartpol'.*cartpole"),
    "field": (["train", "cartpole", "--set", "gama=0.9"], "'gama'.*gamma"),
    "no value": (["train", "cartpole", "--set", "gamma"], "field=value.*'gamma'"),
    "no field": (["train", "cartpole", "--set", "=1"], "field=value.*'=1'"),
    "value": (["train", "cartpole", "--set", "gamma=high"], "gamma = 'high' is not a number"),
    "range": (["train", "cartpole", "--set", "gamma=1.5"], "gamma.*1.5"),
    "nan": (["train", "cartpole", "--set", "learning_rate=nan"], "learning_rate.*nan"),
    "twice": (["train", "cartpole", "--set", "gamma=0.9", "gamma=0.8"], "gamma is given twice"),
    "steps twice": (["train", "cartpole", "--steps", "9", "--set", "total_steps=9"], "twice"),
    "steps": (["train", "cartpole", "--steps", "many"], "total_steps = 'many'"),
    "zero steps": (["train", "cartpole", "--steps", "0"], "total_steps"),
    "period": (
        ["train", "cartpole", *TINY[2:], "--steps", "1000"],
        "total_steps.*multiple of eval_period.*800.*1200.*eval_period = ",
    ),
    "seeds": (["train", "cartpole", "--seeds", "three"], "'three'.*3,17"),
    "negative seed": (["train", "cartpole", "--seeds", "-1"], "'-1'"),
    "no seeds": (["train", "cartpole", "--seeds", "0"], "at least one"),
    "empty range": (["train", "cartpole", "--seeds", "5:5"], "at least one"),
    "far too many seeds": (["train", "cartpole", "--seeds", "9999999999"], "1,000,000"),
    "half a list": (["train", "cartpole", "--seeds", "1,,2"], "'1,,2'"),
    "other digits": (["train", "cartpole", "--seeds", "\u0663"], "not understood"),
    "same seed": (["train", "cartpole", "--seeds", "3,3"], "more than once: 3"),
    "large seed": (["train", "cartpole", "--seeds", "4294967296:4294967297"], "2\\*\\*32"),
    "root seed": (["train", "cartpole", "--root-seed", "x"], "--root-seed.*'x'"),
    "negative root seed": (["train", "cartpole", "--root-seed", "-1"], "root_seed.*-1"),
    "environment": (["train", "cartpole", "--set", "env=Cartpole-v1"], "CartPole-v1"),
    "actions": (["train", "cartpole", "--set", "env=Pendulum-v1"], "continuous actions"),
    "devices": (["train", "cartpole", "--devices", "cpu:999"], "only \\d+ cpu"),
    "memory": (
        ["train", "cartpole", "--set", "replay_capacity=2000000000", "chunk_width=64"],
        "would fit",
    ),
    "folder": (["train", "cartpole", "--out", "file"], "file is a file"),
    "parent": (["train", "cartpole", "--out", "file/below"], "cannot write.*Not a directory"),
    "here": (["train", "cartpole", "--out", "."], "current folder"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(name, tmp_path, monkeypatch):
    arguments, words = MISTAKES[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    # What compiles is refused: every mistake has to be found before that.
    monkeypatch.setattr("dqx.parallel.Programs._call", None)
    done = call(*arguments, *(["--quiet"] if arguments[:1] == ["train"] else []))
    assert (done.status, done.out) == (2, "")
    assert re.fullmatch(r"dqx: error: [^\n]+\n", done.err), done.err
    assert re.search(words, done.err), done.err
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_is_one_line_and_status_2(fake_train, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done = call("train", "cartpole", "--out", tmp_path / "new" / "a", "--quiet")
    assert done.status == 2
    assert done.err == (
        f"dqx: error: cannot write {tmp_path / 'new' / 'a'}: No space left on device\n"
    )
    assert os.listdir(tmp_path) == []


def test_a_defect_is_not_hidden(fake_train, tmp_path, monkeypatch):
    monkeypatch.setattr(dqx, "train", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call("train", "cartpole", "--out", tmp_path / "a")
    assert os.listdir(tmp_path) == []


def test_a_warning_is_one_line(fake_train, trained, tmp_path, monkeypatch):
    def train(*_, **__):
        warnings.simplefilter("always")
        warnings.warn("something\nodd", stacklevel=1)
        return trained.result

    monkeypatch.setattr(dqx, "train", train)
    done = call("train", "cartpole", "--out", tmp_path / "a", "--quiet")
    assert (done.status, done.err) == (0, "dqx: warning: something odd\n")


def test_ctrl_c_leaves_the_old_run_and_says_so(fake_train, tmp_path, monkeypatch):
    assert call("train", "cartpole", "--out", tmp_path / "a").status == 0
    before = (tmp_path / "a" / "manifest.json").read_bytes()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(dqx, "train", interrupted)
    for out, arguments in (("a", ["--overwrite"]), ("b", [])):
        done = call("train", "cartpole", "--out", tmp_path / out, "--quiet", *arguments)
        assert (done.status, done.out) == (130, "")
        assert done.err == f"dqx: interrupted; nothing was written to {tmp_path / out}\n"
        assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a" / "manifest.json").read_bytes() == before


def test_ctrl_c_in_a_real_run(tmp_path):
    command = [sys.executable, "-m", "dqx", "train", "cartpole", "--seeds", "2", "--out", "a"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == "cartpole: starting...\n"
        assert process.stderr.readline() == "cartpole: compiling...\n"
        assert [name[:3] for name in os.listdir(tmp_path)] == [".a."]
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert rest.splitlines()[-1] == "dqx: interrupted; nothing was written to a"
    assert "Traceback" not in rest
    assert os.listdir(tmp_path) == []


def test_ctrl_c_waits_for_imports(tmp_path, monkeypatch):
    """Raised inside an import it could come out as ImportError, or not at all."""
    (tmp_path / "interrupted.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    for _ in range(10): pass\n"
        "except KeyboardInterrupt: raise ImportError('an extension failed') from None\n"
        "done = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        cli._load("interrupted")
    assert sys.modules.pop("interrupted").done
    assert signal.getsignal(signal.SIGINT) is before is signal.default_int_handler


def processor_seconds(code):
    """Of a program that prints them last: the least of three runs, since others may slow one."""
    done = [
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        for _ in range(3)
    ]
    return min(float(run.stdout.splitlines()[-1]) for run in done)


HELP = """
import time
from dqx.cli import main
try: main({arguments})
except SystemExit: pass
print(time.process_time())  # since the process started
"""

# Only what dqx adds: how long its packages take to load is their affair.
IMPORT = """
import time
import chex, flax, gymnax, jax, optax
started = time.process_time()
import dqx
dqx.train
print(time.process_time() - started)
"""


def test_help_and_import_are_fast():
    assert processor_seconds(HELP.format(arguments=["--help"])) < 0.5
    assert processor_seconds(HELP.format(arguments=["train", "--help"])) < 2.0
    assert processor_seconds(IMPORT) < 0.5


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom dqx.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'jax', 'flax', 'gymnax', 'numpy', 'pandas', 'matplotlib', 'rich'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "presets" in done.stdout and "envs" in done.stdout


def test_train_help_lists_every_field(monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    done = call("train", "--help")
    assert done.status == 0 and done.err == ""
    for name, field in {**CONFIG_FIELDS, **HYPER_FIELDS}.items():
        (line,) = [text for text in done.out.splitlines() if text.split()[:1] == [name]]
        assert field.metadata["doc"] in line
    assert re.search(r"hidden_sizes .*\(int,int,...; default 120,84\)", done.out)
    assert re.search(r"max_grad_norm .*\(float; default inf\)", done.out)
    assert re.search(r"double .*\(true/false; default false\)", done.out)
    assert re.search(r"chunk_width .*\(int or none; default none\)", done.out)
    monkeypatch.setenv("COLUMNS", "80")
    assert max(len(line) for line in call("train", "--help").out.splitlines()) <= 80


def test_presets_are_listed(monkeypatch):
    lines = call("presets").out.splitlines()
    assert lines[0].split() == ["PRESET", "ENVIRONMENT", "STEPS"]
    assert [line.split()[0] for line in lines[1:]] == list(dqx.preset_names())
    for line in lines[1:]:
        name, env, steps, *note = line.split()
        config, _ = dqx.preset(name)
        assert (env, int(steps.replace(",", ""))) == (config.env, config.total_steps)
        assert note, f"no comment above [{name}]"
    text = (files("dqx") / "presets" / "cartpole.toml").read_text()
    above = text[: text.index('["cartpole/double-dqn"]')].rstrip().split("\n\n")[-1]
    note = next(x for x in lines if "/double-dqn" in x).split("  ")[-1]
    # The first sentence, whatever line it ends on; no names end in a full stop there.
    assert note.endswith(".") and note.count(". ") == 0
    assert above.replace("\n# ", " ").startswith(f"# {note} Differences")


def test_environments_are_listed_and_none_is_built(monkeypatch):
    monkeypatch.setattr(envs.registry, "make", None)
    monkeypatch.setattr("gymnax.registration.make", None)
    done = call("envs")
    names = [line.strip() for line in done.out.splitlines() if line.startswith("  ")]
    assert done.status == 0 and names == list(envs.names())
    assert done.out.index("CartPole-v0") < done.out.index("gymnax's") < done.out.index("Acrobot")


def test_version_and_module():
    assert call("--version").out == f"dqx {dqx.__version__}\n"
    done = subprocess.run(
        [sys.executable, "-m", "dqx", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"dqx {dqx.__version__}\n"


def test_a_reader_that_leaves_is_no_error():
    code = "import sys; from dqx.cli import main; sys.exit(main(['presets']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 1
