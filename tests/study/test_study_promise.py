"""The promise about bits: what a study's identity holds, and that nothing that computes escapes."""

import ast
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
from pathlib import Path

import jax
import pytest

import dqx
import envs
from dqx.compute.devices import select_devices
from dqx.settings import ConfigError, registry
from dqx.study import StudyError, identity, load
from dqx.study.sealed import read_sealed, write_sealed
from tests.study.kit import assert_same_runs, contents, make_study, resume

PACKAGE = Path(dqx.__file__).parent
ROOMS = [*(PACKAGE / name for name in ("agents", "arguments", "compute", "core", "settings")),
         Path(envs.__file__).parent]  # fmt: skip

# --- The checksum of what computes.


@pytest.fixture
def copied(tmp_path):
    """Copies of the folders that compute."""
    return [Path(shutil.copytree(room, tmp_path / room.name)) for room in ROOMS]


def test_the_checksum_is_that_of_these_folders(copied):
    assert identity.source() == identity.checksum(ROOMS) == identity.checksum(copied)
    total = hashlib.sha256()
    for room in ROOMS:
        for path in sorted(p for p in room.rglob("*") if p.suffix == ".py"):
            name = f"{room.name}/{path.relative_to(room).as_posix()}"
            total.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    assert total.hexdigest()[:16] == identity.source()


def test_no_line_can_change_or_move_unseen(copied):
    """In any file: another line, a line gone, two lines in the other order, each told apart."""
    before, found = identity.checksum(copied), set()
    files = [path for room in copied for path in sorted(room.rglob("*.py"))]
    assert len(files) > 50
    for path in files:
        content = path.read_bytes()
        lines = content.splitlines(keepends=True)
        middle = len(lines) // 2
        changes = {
            "a comment": [*lines[:middle], b"# x\n", *lines[middle:]],
            "a line gone": lines[:middle] + lines[middle + 1 :],
            "moved": [lines[-1], *lines[:-1]] if len(lines) > 1 else [*lines, b"\n"],
            "a blank": [content[:middle] + b" " + content[middle:]],
        }
        for what, changed in changes.items():
            assert b"".join(changed) != content, (path, what)
            path.write_bytes(b"".join(changed))
            found.add(identity.checksum(copied))
        path.write_bytes(content)
    assert before not in found and len(found) == 4 * len(files)
    assert identity.checksum(copied) == before


def test_no_file_can_come_go_or_move_unseen(copied):
    before, found = identity.checksum(copied), set()

    def changed():
        found.add(identity.checksum(copied))

    for room in copied:
        new = room / "new" / "below" / "more.py"
        new.parent.mkdir(parents=True)
        new.write_text("x = 1\n")
        changed()
        new.write_text("x = 2\n")
        changed()
        shutil.rmtree(room / "new")
        one = sorted(room.glob("*.py"))[-1]
        for target in (room / f"z{one.name}", room.parent / "agents" / f"{room.name}_{one.name}"):
            one.rename(target)  # the same lines in another file
            changed()
            target.rename(one)
    assert before not in found and len(found) == 4 * len(copied)
    (copied[0] / "notes.txt").write_text("no code")
    (copied[0] / "__pycache__").mkdir(exist_ok=True)
    assert identity.checksum(copied) == before


# --- Nothing that computes lies elsewhere.


def module_file(name):
    """The file of a module of dqx, None if there is no such module."""
    path = PACKAGE.parent.joinpath(*name.split("."))
    found = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in found if file.is_file()), None)


def imported(path):
    """The modules of dqx that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, path  # imports are absolute everywhere
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.startswith("dqx.") and module_file(name))


def reached(*starts):
    """All modules of dqx that these import, and so on."""
    found, waiting = set(), list(starts)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += imported(module_file(name))
    return found


def test_everything_that_computes_lies_in_the_rooms_of_the_promise():
    variants = [f"dqx.agents.{path.stem}" for path in (PACKAGE / "agents").glob("[a-z]*.py")]
    assert "dqx.agents.tabular" in variants
    modules = reached("dqx.core.loop", "dqx.compute.session", "dqx.agents", *variants)
    assert {"dqx.compute.programs", "dqx.core.replay", "dqx.settings.rules"} < modules
    rooms = {name.split(".")[1] for name in modules}
    assert rooms == set(identity.COMPUTING) == {room.name for room in ROOMS[:-1]}
    # The environments know nothing of dqx.
    assert not [name for path in ROOMS[-1].rglob("*.py") for name in imported(path)]


# --- Foreign agents.

VARIANT = """
from dqx.agents import Variant, dqn, register

def build(config, spec):
    return dqn.build(config, spec)

register(Variant("{name}", build, about="as dqn"))
"""


@pytest.fixture
def foreign(tmp_path):
    """Registers an agent from a file outside of dqx; gives the file."""
    path = tmp_path / "mine.py"
    path.write_text(VARIANT.format(name="mine"))
    spec = importlib.util.spec_from_file_location("mine", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    yield path
    registry.forget("mine")


def test_an_agent_from_elsewhere_is_told_by_its_file(foreign):
    places = select_devices("cpu:1")
    usual = identity.identity(places, ["dqn", "tabular"])
    assert usual == identity.identity(places) and not [n for n in usual if n.startswith("agent")]
    found = identity.identity(places, ["dqn", "mine"])
    checksum = hashlib.sha256(foreign.read_bytes()).hexdigest()[:16]
    assert found == {**usual, "agent mine": checksum}
    foreign.write_text(foreign.read_text() + "\n")
    assert identity.identity(places, ["mine"])["agent mine"] not in (checksum, "no file")


def test_a_typed_in_agent_has_no_file():
    space = {}
    exec(VARIANT.format(name="typed"), space)
    try:
        found = identity.identity(select_devices("cpu:1"), ["typed"])
        assert found["agent typed"] == "no file"
    finally:
        registry.forget("typed")


def test_a_study_of_another_file_of_an_agent_is_not_resumed(foreign, tmp_path):
    now = identity.identity(select_devices("cpu:1"), ["mine"])
    make_study(tmp_path / "s", {"base": {"agent": "mine"}}, identity=now)
    assert resume(tmp_path / "s").finished
    foreign.write_text(foreign.read_text() + "# changed\n")
    with pytest.raises(StudyError, match="agent mine was '[0-9a-f]{16}' and is '[0-9a-f]{16}'"):
        resume(tmp_path / "s")


def test_an_agent_that_is_not_known_here_is_asked_for(foreign, tmp_path):
    make_study(tmp_path / "s", {"base": {"agent": "mine"}}, leave_out={0})
    registry.forget("mine")
    with pytest.raises(ConfigError, match="unknown agent 'mine'"):
        resume(tmp_path / "s")
    assert load(tmp_path / "s").runs == []


# --- Other software and devices are refused.


def other_version(patch):
    version = importlib.metadata.version
    patch.setattr(importlib.metadata, "version", lambda n: "9.9.9" if n == "jaxlib" else version(n))
    return f"jaxlib was {version('jaxlib')!r} and is '9.9.9' here"


def other_source(patch):
    now = identity.source()
    patch.setattr(identity, "source", lambda: "0123456789abcdef")
    return f"source was {now!r} and is '0123456789abcdef' here"


def other_processor(patch):
    now = identity.processor()
    patch.setattr(identity, "processor", lambda: "Abacus (beads)")
    return f"device_kind was 'cpu: {now}' and is 'cpu: Abacus (beads)' here"


def other_flags(patch):
    flag = "--xla_cpu_enable_fast_math=true"
    patch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} {flag}")
    return f"xla_flags was '' and is '{flag}' here"


def other_setting(patch):
    values = {**jax.config.values, "jax_default_matmul_precision": "bfloat16"}
    patch.setattr(type(jax.config), "values", values)
    return "jax_default_matmul_precision was 'None' and is 'bfloat16' here"


@pytest.mark.parametrize(
    "change",
    [other_version, other_source, other_processor, other_flags, other_setting],
    ids=lambda f: f.__name__,
)
def test_other_software_is_refused_with_both_sides(stopped, monkeypatch, change):
    before = contents(stopped)
    words = change(monkeypatch)
    with pytest.raises(StudyError, match="bits might differ") as caught:
        resume(stopped)
    assert words in str(caught.value)
    assert contents(stopped) == before


@pytest.mark.parametrize(
    "flag", ["--xla_dump_to=/nowhere", "--xla_force_host_platform_device_count=7"]
)
def test_flags_that_change_no_bit_are_allowed(made, stopped, monkeypatch, flag):
    monkeypatch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} {flag}")
    study = resume(stopped)
    assert_same_runs(study, load(made / "mine"), count=12)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.update(format=1), "format 1, and this version of dqx reads 2"),
        (lambda r: r["points"][0]["config"].update(colour="red"), "another version of dqx.*colour"),
        (lambda r: r["identity"].pop("optax"), "optax was 'nothing' and is '"),
        (lambda r: r["identity"].update(torch="2.0"), "torch was '2.0' and is 'nothing' here"),
    ],
    ids=["format", "field", "less", "more"],
)
def test_the_plan_of_another_version_is_refused(stopped, change, words):
    record = read_sealed(stopped / "plan.json")
    del record["sha256"]
    change(record)
    write_sealed(stopped / "plan.json", record)
    with pytest.raises(StudyError, match=words):
        resume(stopped)
