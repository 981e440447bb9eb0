"""Wrong command lines, made of the declarations and of the parsers: one line and status 2 each."""

import argparse
import random
import re
import sys

import pytest

from dqx import run as training
from dqx import tuning
from dqx.cli.arguments import make_parser
from dqx.report import watch
from dqx.settings import SETTINGS
from dqx.study import estimate
from tests.study.kit import BASE, call, make_study, toml

# --- Values that a declaration does not allow.


def wrong_type(setting):
    """A text that is no value of the type; None where every text is one."""
    texts = {int: "2.5", float: "high", bool: "maybe", tuple[int, ...]: "8,x", int | None: "some"}
    return texts.get(setting.type)


def out_of_range(setting):
    """A number beyond each end of what is allowed."""
    found = []
    if setting.low is not None:
        found.append(setting.low - 1)
    if setting.above is not None:
        found.append(setting.above)
    if setting.high is not None:
        found.append(setting.high + 1)
    if setting.type is float:
        found += ["nan", "1e39", *([] if setting.infinite else ["inf"])]
    if setting.type in (int, int | None):
        found.append(2**31)
    return found


def misspelt(name, dice):
    """A name with a letter less, more or two swapped, which is nobody's."""
    names = set(SETTINGS)
    while True:
        at = dice.randrange(1, len(name))
        ways = (name[:at] + name[at + 1 :], name[:at] + "q" + name[at:],
                name[: at - 1] + name[at] + name[at - 1] + name[at + 1 :])  # fmt: skip
        found = dice.choice(ways)
        if found not in names and found.isidentifier():
            return found


def assignments():
    """FIELD=VALUE that cannot be, by what is wrong."""
    dice = random.Random(5)
    for setting in SETTINGS.values():
        name, usual = setting.name, setting.show(setting.default)
        if wrong_type(setting) is not None:
            yield f"{name}, type", f"{name}={wrong_type(setting)}"
        for value in out_of_range(setting):
            yield f"{name}, range {value}", f"{name}={value}"
        if setting.choices is not None or name in ("env", "annealed"):
            yield f"{name}, choice", f"{name}=nothing_of_this_name"
        yield f"{name}, misspelt", f"{misspelt(name, dice)}={usual}"


def fields_of_files():
    """Entries of [base] in a file, as TOML would give them, of a type that is not allowed."""
    wrong = {
        int: "many", float: "high", bool: 1, str: 3, tuple[int, ...]: 5, tuple[str, ...]: 5,
        int | None: "some",
    }  # fmt: skip
    for setting in SETTINGS.values():
        yield setting.name, wrong[setting.type]


# --- Options that a parser does not allow.

POSITIONALS = {
    "train": ["cartpole"],
    "study": ["plan.toml"],
    "study resume": ["study"],
    "study status": ["study"],
    "tune": ["tune.toml"],
    "tune resume": ["study"],
    "tune status": ["study"],
    "verify": ["study"],
    "compare": ["study"],
    "seeds": ["CartPole-v1", "--difference", "20"],
    "report": ["study"],
    "play": ["study", "--png", "pictures"],
    "watch": ["study"],
    "envs": [],
    "agents": [],
    "presets": [],
}


def parsers():
    """The parser of every command, by the words that call it."""
    found = {"": make_parser()}
    (commands,) = (a for a in found[""]._actions if isinstance(a, argparse._SubParsersAction))
    for name, parser in commands.choices.items():
        found[name] = parser
        if name in ("study", "tune"):
            found |= {f"{name} resume": parser, f"{name} status": parser}
    return found


def options():
    """Command lines with an option that is unknown, lacks its value or has one that cannot be."""
    for name, parser in parsers().items():
        if name == "":
            continue
        words = [*name.split(), *POSITIONALS[name]]
        yield f"{name}, unknown option", [*words, "--colour"]
        yield f"{name}, unknown short option", [*words, "-z"]
        yield f"{name}, option with a value too many", [*words, "--quiet=3"]
        for action in parser._actions:
            if not action.option_strings or "--help" in action.option_strings:
                continue
            option = action.option_strings[-1]
            yield f"{name}, {option} cut short", [*words, option[:-1]]
            if action.nargs in (None, "+"):
                yield f"{name}, {option} without its value", [*words, option]
            if action.nargs == 0:
                yield f"{name}, {option} with a value", [*words, f"{option}=yes"]
            if action.choices:
                yield f"{name}, {option} of no choice", [*words, option, "mauve"]
            elif action.type is not None and action.type.__name__ != "Path":
                negative = () if action.type.__name__ == "number" else ("-3",)  # which may be so
                for value in ("x", "", "nan", *negative):
                    yield f"{name}, {option} {value!r}", [*words, f"{option}={value}"]


VALUES = {"--set": "gamma=0.9", "--seeds": "3", "--steps": "5", "--devices": "cpu:1"}


def ignored():
    """Options of a plan's training where nothing is trained, or nothing is written."""
    alone = {"--quiet", "--help", "--import", "--verbose", "--version"}
    for name in ("study status", "tune status"):
        for action in parsers()[name]._actions:
            if action.option_strings and not alone & set(action.option_strings):
                option = action.option_strings[-1]
                value = [] if action.nargs in (0, "?") else [_value(action, option)]
                yield f"{name}, {option} is ignored", [*name.split(), "study", option, *value]
    for name in ("study resume", "tune resume"):
        for option in (["--out", "x"], ["--overwrite"], ["--dry-run"]):
            yield f"{name}, {option[0]} is ignored", [*name.split(), "study", *option]


def _value(action, option):
    if action.choices:
        return action.choices[-1]
    return VALUES.get(option, "3")


# --- Places that are nothing.

PLACES = (
    "none", "file", "folder", "broken", "", "\0", "x" * 300, "file/below", "search", "/dev/null",
    "plan.toml", "a\nb", "loop",
)  # fmt: skip
READERS = (
    "study resume", "study status", "tune resume", "tune status", "verify", "compare", "report",
    "watch", "play", "study", "tune", "train", "envs", "agents",
)  # fmt: skip


def places():
    """Every command that reads something, given what it cannot read."""
    for name in READERS:
        for place in PLACES:
            if (name, place) in (("study", "plan.toml"), ("tune status", "search")):
                continue
            more = ["--png", "pictures"] if name == "play" else []
            yield f"{name}, {place[:9]!r}", [*name.split(), place, *more]
        if name not in ("envs", "agents"):
            yield f"{name}, nothing", name.split()


CONFLICTS = """
verify study --sample 3 --all
train cartpole --steps 5 --set total_steps=5
train cartpole --set gamma=0.9 gamma=0.9
train cartpole --seeds 3,3
train cartpole --seeds 1,,2
train cartpole --seeds 0
train cartpole --seeds 5:5
train cartpole --seeds 5:1
train cartpole --seeds 4294967296:4294967299
train cartpole --seeds 99999999
train cartpole --seeds=-3
train cartpole --seeds 1e3:
train cartpole --root-seed=-1
train cartpole --root-seed 4294967296
train cartpole --devices gpu
train cartpole --devices cpu:0
train cartpole --devices cpu:x
train cartpole --devices cpu:99
train cartpole --devices abacus
train cartpole --import no
train cartpole --sink no:such
train cartpole --sink no
train cartpole --sink json:loads
train cartpole --set agent=nobody
train cartpole --set env=Nowhere-v0
train cartpole --set env.gravty=1
train cartpole --set env.gravity=high
train cartpole --set env=json:loads
train cartpole --set env=:
train cartpole --set env=a:
train cartpole --set visit_power=0.5
train cartpole --set embedding_size=4
train cartpole --set exact_metrics=true
train cartpole --set network=nature_cnn
train cartpole --out file
train cartpole --out file/below
train cartpole --out folder
train cartpole --out folder --overwrite
train cartpole --out study
train cartpole --out .
train cartpole --out /dev/null
train cartpole --out loop
train cartpole --out /proc/none
play study --seed 99 --png p
play study --seed none --png p
play study --step 7 --png p
play study --config none --png p
play study --gif folder
play study --gif none/x.gif
play study --width 1 --png p
play study --fps 0 --png p
play study --fps nan --png p
play study --png folder
play study --episodes 0 --png p
play study --max-steps 0 --png p
compare study --configs
compare study --configs none other
compare study --format pdf
compare study none
report study none
report study --out file
envs None-v0
envs no:
watch study --port 99999
watch study --port x
watch study --port=-1
study plan.toml plan.toml
study study
study resume study study
study status study x
tune tune.toml tune.toml
tune plan.toml
study tune.toml
tune study
trian cartpole
-v
--colour
help
train cartpole extra
presets cartpole
"""

LINES = {f"--set {name}": ["train", "cartpole", "--set", text] for name, text in assignments()}
LINES |= {name: words for make in (options, ignored, places) for name, words in make()}
LINES |= {f"typed: {line}": line.split() for line in CONFLICTS.splitlines()}


class Accepted(AssertionError):
    """A wrong line was taken for a right one, and would have trained, served or written."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with all that may be named."""
    place = tmp_path_factory.mktemp("lines")
    (place / "file").write_text("mine")
    (place / "folder").mkdir()
    (place / "folder" / "thesis.txt").write_text("years of work")
    (place / "broken").mkdir()
    (place / "broken" / "plan.json").write_text("{}")
    (place / "search").mkdir()
    (place / "search" / "search.json").write_text("[]")
    (place / "loop").symlink_to("loop")
    (place / "plan.toml").write_text(toml({"base": BASE}))
    tune = "[tune]\ngenerations = 1\npopulation = 2\nrungs = [1]\nfresh_seeds = 1\n"
    tune += "space.gamma = { uniform = [0.9, 0.99] }\n"
    (place / "tune.toml").write_text(toml({"base": BASE}) + tune)
    make_study(place / "study", {"seeds": 3})
    return place


@pytest.fixture(autouse=True)
def nothing_begins(monkeypatch, place):
    """Whatever gets so far that it would train or serve was taken for right."""

    def accepted(*_, **__):
        raise Accepted

    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(training, "_new_folder", accepted)
    monkeypatch.setattr(estimate, "settle", accepted)
    monkeypatch.setattr(training, "_train", accepted)
    monkeypatch.setattr(tuning, "_run", accepted)
    monkeypatch.setattr(watch.Server, "serve_forever", accepted)


@pytest.mark.parametrize("name", list(LINES))
def test_a_wrong_line(name, place):
    """Typed: options, their values, fields of --set, folders and files."""
    assert_one_line(LINES[name], place)


def assert_one_line(words, place):
    before = sorted(map(str, place.rglob("*")))
    status, out, err = call(*words)
    assert (status, out, len(err)) == (2, [], 1), (status, out, err)
    assert re.match(r"dqx: error: \S.{9,}", err[0])
    assert "Traceback" not in err[0] and "object at 0x" not in err[0]
    assert sorted(map(str, place.rglob("*"))) == before


@pytest.mark.parametrize(("name", "value"), list(fields_of_files()))
def test_a_wrong_field_of_a_plan(name, value, place):
    """In a file: every field of a plan with a value of another type."""
    path = place / "wrong.toml"
    path.write_text(toml({"base": {**BASE, name: value}}))
    assert_one_line(["study", path.name], place)


@pytest.mark.parametrize("name", list(SETTINGS))
def test_a_wrong_space_of_a_search(name, place):
    """In a file: every field of a search with a space that it cannot have."""
    path = place / "wrong.toml"
    tune = "[tune]\nfresh_seeds = 2\n"
    path.write_text(f'{toml({"base": BASE})}{tune}space.{name} = {{ uniform = ["a", 3] }}\n')
    assert_one_line(["tune", path.name], place)
