"""Help, lists and the version: complete, and at once."""

import os
import re
import subprocess
import sys

import pytest

import dqx
import dqx.run
import envs
from dqx.compute.cache import cache_folder
from dqx.settings import SETTINGS, agent, agent_names, preset_about
from dqx.study.engine import CHECKPOINT_SECONDS
from tests.cli.kit import environment, python, run
from tests.study.kit import call, make_study

SUITES = {"craftax", "jumanji", "navix", "pgx", "xminigrid"}
HEAVY = {"jax", "flax", "gymnax", "optax", "numpy", "pandas", "matplotlib", "rich"} | SUITES
MAIN = """
import sys, time
from dqx.cli import main
try: main(sys.argv[1:])
except SystemExit: pass
print(time.process_time())  # since the process started
print(*sorted(sys.modules))
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


def after(*arguments):
    """Processor seconds of the command in a process of its own, and which heavy packages it loads.

    The least of three, since others may slow one down.
    """
    found = [python(MAIN, *arguments)[-2:] for _ in range(3)]
    return min(float(seconds) for seconds, _ in found), HEAVY & set(found[0][1].split())


@pytest.mark.parametrize("arguments", [(), ("study",), ("verify",)])
def test_help_is_fast_and_loads_nothing(arguments):
    seconds, heavy = after(*arguments, "--help")
    assert (seconds < 0.5, heavy) == (True, set())


def test_help_of_train_is_fast():
    seconds, heavy = after("train", "--help")
    assert seconds < 1.0 and "jax" not in heavy


def test_mistakes_and_status_answer_before_jax_loads(tmp_path):
    make_study(tmp_path / "s", {"seeds": 2})
    for arguments in (
        ("study", "status", tmp_path / "s"),
        ("train", "cartpol"),
        ("train", "cartpole", "--set", "gamma=high"),
        ("presets",),
    ):
        heavy = HEAVY & set(python(MAIN, *arguments)[-1].split())
        assert not heavy - {"numpy", "optax"}, arguments


def test_import_is_fast():
    assert min(float(python(IMPORT)[-1]) for _ in range(3)) < 0.5


def test_train_help_lists_every_field(monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    status, out, err = call("train", "--help")
    assert (status, err) == (0, [])
    for name, setting in SETTINGS.items():
        (line,) = [text for text in out if text.split()[:1] == [name]]
        assert setting.doc in line
    text = "\n".join(out)
    for name, kind, default in (
        ("hidden_sizes", "int,int,...", "120,84"),
        ("max_grad_norm", "float", "inf"),
        ("double", "true/false", "false"),
        ("chunk_width", "int", "none"),
    ):
        words = rf"^  {name} +\S.*\({re.escape(kind)}[,;].*default {default}\)$"
        assert re.search(words, text, re.MULTILINE), name


@pytest.mark.parametrize(
    "command", [["train"], ["study"], ["verify"], ["presets"], ["envs"], ["agents"], []]
)
def test_help_stays_on_the_page(monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, call(*command, "--help")[1])) <= 80


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("train", "--seeds SEEDS, --steps N, --set FIELD=VALUE, --root-seed N"),
        ("train", "--out DIR, --overwrite, --dry-run, --checkpoint-seconds S"),
        ("train", "--no-replay-checkpoint, --devices KIND[:N], --import MODULE, --no-cache"),
        ("study", "--out DIR, --overwrite, --dry-run, --checkpoint-seconds S, --quiet"),
        ("study", "--no-replay-checkpoint, --devices KIND[:N], --import MODULE, --no-cache"),
        ("verify", "--sample N, --all, --pick SEED, --devices KIND[:N], --import MODULE"),
        ("verify", "--expect SHA256, --sign KEY, --check-signature KEY.pub"),
        ("verify", "--no-cache, --quiet"),
    ],
)
def test_help_tells_every_option(monkeypatch, command, options):
    monkeypatch.setenv("COLUMNS", "100")
    status, out, _ = call(command, "--help")
    text = "\n".join(out)
    assert status == 0
    for option in options.split(", "):
        assert re.search(rf"^  {re.escape(option)}( |$)", text, re.MULTILINE), option
    if command != "verify":
        assert f"default: {CHECKPOINT_SECONDS:g}" in text
    else:
        assert "Status 0 if everything is there and identical, else 1." in " ".join(text.split())


def test_help_names_every_command():
    text = "\n".join(call("--help")[1])
    for command in ("train", "study", "verify", "presets", "envs", "agents"):
        assert re.search(rf"^    {command} +\w", text, re.MULTILINE)
    assert "FILE.toml | resume DIR | status DIR" in "\n".join(call("study", "--help")[1])


def test_presets_are_listed():
    status, lines, _ = call("presets")
    assert status == 0 and lines[0].split() == ["PRESET", "ENVIRONMENT", "STEPS"]
    assert [line.split()[0] for line in lines[1:]] == list(dqx.preset_names())
    for line in lines[1:]:
        name, env, steps, *_ = line.split()
        config, _ = dqx.preset(name)
        assert (env, int(steps.replace(",", ""))) == (config.env, config.total_steps)
        about = preset_about(name).about
        assert about and line.endswith(f"  {about}")


def test_a_preset_of_every_suite_that_can_be_had_says_how_to_get_it(monkeypatch, tmp_path):
    """Where the suite is not installed, that is: the presets are listed all the same."""
    found = {name: dqx.preset(name)[0].env.partition(":") for name in dqx.preset_names()}
    of_suites = {name: prefix for name, (prefix, colon, _) in found.items() if colon}
    assert set(of_suites.values()) == SUITES
    for name, prefix in of_suites.items():
        monkeypatch.setitem(sys.modules, prefix, None)
        monkeypatch.delitem(sys.modules, f"envs.adapters.{prefix}", raising=False)
        status, _, err = call("train", name, "--out", tmp_path / prefix)
        assert status == 2 and f"pip install 'dqx[{prefix}]'" in err[-1] and len(err) == 1
        assert not (tmp_path / prefix).exists()


def test_environments_are_listed_and_none_is_built(monkeypatch):
    monkeypatch.setattr(envs.registry, "make", None)
    monkeypatch.setattr("gymnax.registration.make", None)
    status, lines, _ = call("envs")
    names = [line.strip() for line in lines if line.startswith("  ")]
    assert status == 0 and names == list(envs.names())
    text = "\n".join(lines)
    assert text.index("CartPole-v0") < text.index("gymnax's") < text.index("Acrobot")


def test_agents_are_listed_with_what_they_bring(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    status, lines, _ = call("agents")
    assert status == 0 and [line.split()[0] for line in lines] == list(agent_names())
    for name, line in zip(agent_names(), lines, strict=True):
        settings = [setting.name for setting in agent(name).settings]
        assert line.endswith(": " + ", ".join(settings) if settings else agent(name).doc)
        status, about, _ = call("agents", name)
        assert status == 0 and name in about[0] and agent(name).doc in " ".join(about)
        listed = [re.match(r"  (\w+) ", line) for line in about]
        assert [found[1] for found in listed if found] == settings
    assert call("agents", "dqn")[1][0].endswith("brings no settings of its own")
    status, out, err = call("agents", "c5")
    assert (status, out, len(err)) == (2, [], 1) and "unknown agent 'c5'" in err[0]
    assert "`dqx agents` lists the settings that an agent brings" in call("train", "--help")[1][-1]


def test_the_version_from_the_command_and_the_module(tmp_path):
    expected = (0, [f"dqx {dqx.__version__}"], [])
    assert call("--version") == expected == run("--version", cwd=tmp_path)


def test_the_version_in_full_tells_what_bits_hang_on_and_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for arguments in (("--version", "-v"), ("--version", "--verbose")):
        status, (head, *lines), err = call(*arguments)
        facts = dict(line.split(": ", 1) for line in lines)
        assert (status, head, err) == (0, f"dqx {dqx.__version__}", [])
        assert set(facts) == {
            "python", "jax", "jaxlib", "flax", "optax", "gymnax", "numpy", "processor", "commit",
            "source", "cache",
        }  # fmt: skip
        import jax

        assert facts["jax"] == jax.__version__
        assert facts["cache"] == str(cache_folder()) and facts["cache"].startswith(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_a_reader_that_leaves_is_no_error(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "dqx", "presets"], cwd=tmp_path, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 1
