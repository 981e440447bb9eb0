"""What the documents name is there: commands that parse, presets, options, and names of dqx."""

import contextlib
import importlib
import re
import shlex
from pathlib import Path

import jax
import pytest

import dqx
import envs
from dqx.cli.arguments import make_parser
from dqx.cli.shared import UsageError

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))
    if path.name != "hostile.md"  # whose lines are wrong on purpose
)


def commands(text):
    """The command lines of a document, those in which something is left out aside."""
    joined = text.replace("\\\n", " ")
    fenced = re.findall(r"```(\w*)\n(.*?)```", joined, re.S)
    blocks = "\n".join(block for kind, block in fenced if kind in ("", "sh", "bash", "console"))
    lines = [line.partition("#")[0].strip() for line in blocks.splitlines()]
    plain = re.sub(r"```.*?```", "", joined, flags=re.S)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", plain)]
    found = [line for line in (*lines, *spans) if re.match(r"dqx [a-z]", line)]
    return [line for line in found if not re.search(r"\.\.\.|[\[\]|<>…]", line)]


def names(text):
    """The dotted names of dqx that a document has as code."""
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
    return sorted({m for span in spans for m in re.findall(r"^dqx(?:\.[a-z_A-Z]\w*)+", span)})


@pytest.mark.parametrize("document", DOCUMENTS)
def test_command_lines_are_understood(document):
    for line in commands((ROOT / document).read_text()):
        command, *rest = words = shlex.split(line)[1:]
        if rest == [] and command not in ("presets", "envs", "agents"):
            continue  # the command itself is spoken of
        # What stands for a number is no file, preset or folder: it comes after an option.
        words = [
            "1" if word.isupper() and words[i - 1].startswith("--") else word
            for i, word in enumerate(words)
        ]
        if "--help" in words:
            continue
        try:
            options = make_parser().parse_args(words)
        except UsageError as error:
            # A part of a line speaks of an option.
            is_part = " are required: " in str(error) or ": expected one arg" in str(error)
            assert is_part, f"{document}: {line}: {error}"
            continue
        if command == "train" and not options.preset.isupper():
            assert options.preset in dqx.preset_names(), f"{document}: {line}"


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if name != "CHANGELOG.md"])
def test_names_of_dqx_are_there(document):
    for name in names((ROOT / document).read_text()):
        found, parts = dqx, name.split(".")[1:]
        for number, part in enumerate(parts, start=1):
            if not hasattr(found, part):
                with contextlib.suppress(ModuleNotFoundError):
                    importlib.import_module(".".join(["dqx", *parts[:number]]))
            assert hasattr(found, part), f"{document}: {name}"
            found = getattr(found, part)


def test_what_is_looked_at_is_found():
    blocks = "```python\nx\n```\n`dqx train cartpole`\n```sh\ndqx verify DIR  # all\n```\n"
    text = blocks + "`dqx.stats.iqm(x)` `dqx [x]`"
    assert commands(text) == ["dqx verify DIR", "dqx train cartpole"]
    assert names(text) == ["dqx.stats.iqm"]


def test_every_environment_of_our_own_has_a_film():
    text = (ROOT / "docs" / "play.md").read_text()
    for name in envs.own_names():
        (film,) = re.findall(rf"!\[{name}\]\((films/[a-z0-9-]+\.gif)\)", text)
        assert (ROOT / "docs" / film).read_bytes().startswith(b"GIF89a")


def test_the_tracker_of_the_documents_tracks(tmp_path, monkeypatch):
    (block,) = re.findall(
        r"```python\n(# mine.py.*?)```", (ROOT / "docs/trackers.md").read_text(), re.S
    )
    assert len(block.splitlines()) <= 15
    names = {}
    exec(block, names)
    monkeypatch.chdir(tmp_path)
    fields = {"env": "CartPole-v1", "total_steps": 64, "learning_starts": 32, "log_period": 16}
    sizes = {
        "train_period": 8,
        "hidden_sizes": [4],
        "batch_size": 4,
        "replay_capacity": 64,
        "eval_period": 0,
    }
    dqx.train({**fields, **sizes}, None, 2, devices="cpu:1", sinks=[names["Tell"]()])
    rows = [line.split(",") for line in Path("returns.csv").read_text().splitlines()]
    assert {(int(step), int(seed)) for step, seed, _ in rows} == {
        (step, seed) for step in (16, 32, 48, 64) for seed in (0, 1)
    }


def test_the_environment_of_the_readme_keeps_the_contract(tmp_path, monkeypatch):
    (block,) = re.findall(r"```python\n(# games.py.*?)```", (ROOT / "README.md").read_text(), re.S)
    (tmp_path / "games.py").write_text(block)
    monkeypatch.syspath_prepend(str(tmp_path))
    env, params = envs.make("games:Corridor")
    envs.check_environment(env, params, deterministic_reset=True)
    assert "slip" in {one.name for one in envs.describe("games:Corridor").parameters if one.traced}
    # Without slips nine steps to the right are the way.
    key, total = jax.random.key(0), 0.0
    _, state = env.reset(key, params)
    for step in range(9):
        _, state, reward, done, *_ = env.step(key, state, 1, params.replace(slip=0.0))
        total += float(reward)
        assert bool(done) == (step == 8)
    assert total == -9
