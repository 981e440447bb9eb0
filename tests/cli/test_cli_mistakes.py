"""Every wrong command line: status 2, one line that says what to do, and nothing else happens."""

import os
import re
import subprocess
import sys

import pytest

from dqx.cli import loading, main
from dqx.cli.arguments import make_parser
from tests.cli.kit import ROOT, environment, run
from tests.report.kit import Terminal, shown
from tests.study.kit import BASE, call, make_study, toml

# Command lines as typed, by what they get wrong, and words of what is said.
COMMANDS = {
    "no command": ("", "required: COMMAND"),
    "command": ("trian", "'trian'.*train"),
    "top option": ("--foo", "--foo"),
    "verbose alone": ("-v", "required: COMMAND"),
    "presets of": ("presets cartpole", "unrecognized arguments: cartpole"),
    "envs option": ("envs --quiet", "unrecognized arguments: --quiet"),
    "version of a command": ("--version presets", "--version goes without a command"),
    "verbose command": ("-v presets", "-v goes without a command"),
}
TRAIN = {
    "option": ("--sed 3", "--sed"),
    "argument": ("extra", "unrecognized arguments: extra"),
    "no preset": (None, "PRESET"),
    "preset": ("cartpol", "'cartpol'.*cartpole.*`dqx presets`"),
    "nothing set": ("--set", "--set: expected at least one"),
    "unknown field": ("--set gama=0.9", "'gama'.*gamma"),
    "no value": ("--set gamma", "field=value.*'gamma'"),
    "no field": ("--set =1", "field=value.*'=1'"),
    "value": ("--set gamma=high", "gamma = 'high' is not a number"),
    "range": ("--set gamma=1.5", "gamma must be between 0 and 1, got 1.5"),
    "nan": ("--set learning_rate=nan", "learning_rate.*finite.*nan"),
    "bool": ("--set double=maybe", "'maybe' is not true or false"),
    "list": ("--set hidden_sizes=8,x", "'8,x' is not a list of whole numbers"),
    "twice": ("--set gamma=0.9 gamma=0.8", "gamma is given twice"),
    "twice apart": ("--set gamma=0.9 --set gamma=0.9", "gamma is given twice"),
    "steps twice": ("--steps 9 --set total_steps=9", "total_steps is given twice"),
    "steps": ("--steps many", "total_steps = 'many' is not a whole number"),
    "zero steps": ("--steps 0", "total_steps must be at least 1"),
    "steps beyond int32": ("--steps 2147483647", r"total_steps must be below 2\*\*31.*rounded up"),
    "seeds": ("--seeds three", "'three'.*3,17"),
    "negative seed": ("--seeds -1", "'-1'"),
    "no seeds": ("--seeds 0", "at least one"),
    "empty range": ("--seeds 5:5", "at least one"),
    "far too many seeds": ("--seeds 9999999999", "1,000,000"),
    "half a list": ("--seeds 1,,2", "'1,,2'"),
    "other digits": ("--seeds \u0663", "not understood"),
    "same seed": ("--seeds 3,3", "more than once: 3"),
    "large seed": ("--seeds 4294967296:4294967297", r"2\*\*32"),
    "root seed": ("--root-seed x", "--root-seed.*'x'"),
    "negative root seed": ("--root-seed -1", "root_seed.*-1"),
    "environment": ("--set env=Cartpole-v1", "CartPole-v1.*`dqx envs`"),
    "environment's setting": ("--set env.gravty=3", "no env.gravty; the closest are env.gravity, "),
    "its type": ("--set env.gravity=high", "env.gravity must be a finite number, got 'high'"),
    "a draw of what is compiled in": (
        "--set env.max_steps_in_episode=uniform(8,12)", "decides what is compiled, .*under .grid."
    ),
    "suite not installed": ("--set env=pgx:2048", r"need the package pgx: pip install 'dqx\[pgx"),
    "suite": ("--set env=nawix:x", "no module 'nawix'.*did you mean navix:"),
    "no environment": ("--set env=not_games:Plain", "derived from builtins.object; derive it from"),
    "no environment made": ("--set env=not_games:three", "returned an object of type int; it must"),
    "actions": ("--set env=Pendulum-v1", "continuous actions"),
    "network": ("--set network=nature_cnn", r"needs frames .*CartPole-v1 gives float32 .*\[4\]"),
    "categories": ("--set network=embedding", "needs category numbers .*set network = mlp"),
    "agent": ("--set agent=c52", "unknown agent 'c52'; the closest are c51; .*: .*--import MODULE"),
    "another agent": ("--set agent=tabular", "needs category numbers .*set agent = dqn"),
    "field of tables": ("--set visit_power=0.5", r"visit_power = 0.5 belongs to .*\(tabular\)"),
    "field of embeddings": ("--set embedding_size=4", "embedding_size = 4 belongs to networks"),
    "exact metrics": ("--set exact_metrics=true", "exact_metrics need .*listed.*CartPole-v1"),
    "kind of device": ("--devices gpu", "devices = 'gpu', but JAX finds no gpu here"),
    "cores": ("--devices cpu:99", r"only \d+ CPU cores: ask for cpu:\d+ or fewer"),
    "devices": ("--devices abacus", "must be cpu, gpu or tpu, .*got 'abacus'"),
    "half a device": ("--devices cpu:", "got 'cpu:'"),
    "module": ("--import no_such_module", "no module 'no_such_module'.*current folder"),
    "module file": ("--import mine.py", "no module 'mine.py'.*without .py"),
    "module path": ("--import ./mine", "no module './mine'"),
    "seconds": ("--checkpoint-seconds -1", "must be seconds, 0 or more, got '-1'"),
    "checkpoints of none": (
        "--no-replay-checkpoint --checkpoint-seconds 9", "takes no --checkpoint-seconds: none are"
    ),
    "runs of no tracker": ("--tracker-runs seed", "without trackers takes no --tracker-runs: it g"),
    "width": ("--set chunk_width=1000000000", r"10+ seeds side by side need .*chunk_width=\d+ tr"),
    "dry width": ("--dry-run --set chunk_width=1000000000", r"10+ seeds side by side need"),
    "memory": ("--set replay_capacity=2000000000 chunk_width=64", r"replay_capacity=\d+ would fit"),
    "file": ("--out file", "file is a file: choose another folder"),
    "below a file": ("--out file/below", "cannot write in .*Not a directory"),
    "name too long": (f"--out {'x' * 300}", "too long"),
    "another's folder": ("--out folder", "holds no study of dqx, so it is not replaced"),
    "another's folder still": ("--out folder --overwrite", "holds no study of dqx, so it is not"),
    "another plan": ("--out study", r"study holds another plan: name was .*--overwrite to replace"),
    "here": ("--out new/..", "current folder|holds no study"),
    "dry field": ("--dry-run --set gama=0.9", "'gama'.*gamma"),
    "dry devices": ("--dry-run --devices gpu", "JAX finds no gpu here"),
    "dry exact metrics": ("--dry-run --set exact_metrics=true", "exact_metrics need"),
    "dry cluster": ("--dry-run --cluster auto", "--dry-run takes no --cluster: it times .* this"),
    "dry workers": ("--dry-run --cluster auto --workers 7", "--dry-run takes no --cluster"),
    "dry folder": ("--dry-run --out study", "study holds another plan: .*Choose another"),
    "dry memory": ("--dry-run --set replay_capacity=2000000000", "would fit"),
}  # fmt: skip
STUDIES = {
    "nothing": ("study", r"FILE\.toml.*dqx study --help"),
    "resume nothing": ("study resume", r"`dqx study resume` takes one folder, such as"),
    "status nothing": ("study status", r"`dqx study status` takes one folder"),
    "resume two": ("study resume study folder", "takes one folder"),
    "two plans": ("study plan.toml bad.toml", r"takes a plan, or resume DIR, .*got plan"),
    "resume no study": ("study resume folder", r"folder holds no study: .*plan\.json"),
    "resume none": ("study resume none", "none holds no study"),
    "resume file": ("study resume file", "file holds no study"),
    "status no study": ("study status folder", "folder holds no study"),
    "status none": ("study status none", "none holds no study"),
    "a folder": ("study study", r"study is a folder: give a plan, or `dqx study resume study`"),
    "no file": ("study plan.tml", r"cannot read the plan plan\.tml: No such file"),
    "no file dry": ("study plan.tml --dry-run", "cannot read the plan"),
    "bad plan": ("study bad.toml", r"bad\.toml has an unknown entry .*\[base\]"),
    "empty plan": ("study empty.toml", r"empty\.toml is empty: give at least \[base\]"),
    "broken plan": ("study broken.toml", r"broken\.toml is no TOML: "),
    "binary plan": ("study binary.toml", r"binary\.toml is no TOML: .*utf-8"),
    "plan below a file": ("study file/plan.toml", "cannot read the plan .*Not a directory"),
    "plan of a bad field": ("study gama.toml", "configuration gama=0.5: unknown field 'gama'"),
    "seconds text": ("study plan.toml --checkpoint-seconds x", "0 or more, got 'x'"),
    "seconds nan": ("study plan.toml --checkpoint-seconds nan", "got 'nan'"),
    "study devices": ("study plan.toml --devices cpu:999", r"only \d+ CPU cores"),
    "study option": ("study plan.toml --sample 3", "--sample"),
    "study below a file": ("study plan.toml --out plan.toml/x", "cannot write in.*Not a direc"),
    "study module": ("study plan.toml --import no_such_module", "no module 'no_such_module'"),
    "dry resume": ("study resume study --dry-run", "resume` takes no --dry-run"),
    "out resume": ("study resume study --out x", "resume` takes no --out"),
    "overwrite status": ("study status study --overwrite", "takes no --overwrite"),
    "resume devices": ("study resume study --devices gpu", "JAX finds no gpu here"),
    "other software": ("study resume study", "device_kind was 'abacus' and is 'cpu: .*jax was '0'"),
    "a search's checkpoints": (
        "tune plan.toml --no-replay-checkpoint --checkpoint-seconds 9", "none are written"
    ),
    "pick of all": ("verify study --all --pick 3", "--all takes no --pick: it is the seed of a"),
    "width of a terminal": ("play study --width 99", "on the terminal takes no --width: give --g"),
    "speed of pictures": ("play study --png new --fps 9", "--png takes no --fps: pictures of th"),
    "workers of no cluster": ("study plan.toml --workers 2", "takes no --workers: give --cluster"),
    "kinds of no cluster": ("verify study --kinds split", "takes no --kinds: give --cluster too"),
    "verify nothing": ("verify", "DIR"),
    "verify no study": ("verify folder", "folder holds no study"),
    "verify unfinished": ("verify begun", "no run of begun is finished: .*nothing to verify"),
    "sample": ("verify study --sample 0", "--sample: must be a whole number from 1 on, got '0'"),
    "sample text": ("verify study --sample 2.5", "from 1 on, got '2.5'"),
    "pick": ("verify study --pick -1", "--pick: must be a whole number from 0 on, got '-1'"),
    "both": ("verify study --sample 3 --all", "--all: not allowed with .*--sample"),
    "verify devices": ("verify study --devices tpu:x", "must be cpu, gpu or tpu"),
    "verify gpu": ("verify study --devices gpu", "JAX finds no gpu here"),
}  # fmt: skip


# What is only looked at takes nothing of a training.
STATUS = {"study": "study status study", "tune": "tune status study"}


def typed(line):
    """A line of `TRAIN` as the arguments of the command."""
    if line is None:
        return ["train"]
    first = [] if line == "cartpol" else ["cartpole"]
    return ["train", *first, *line.split()]


def subparser(command):
    """The parser of a command, such as ``"study"``."""
    (commands,) = (a for a in make_parser()._actions if isinstance(a.choices, dict))
    return commands.choices[command]


LINES = {name: (line.split(), words) for name, (line, words) in COMMANDS.items()}
LINES |= {f"train, {name}": (typed(line), words) for name, (line, words) in TRAIN.items()}
LINES |= {name: (line.split(), words) for name, (line, words) in STUDIES.items()}
LINES["train, no name of a module"] = (["train", "cartpole", "--import", ""], "no module ''")
LINES["train, nothing to set"] = (["train", "cartpole", "--set", ""], "field=value.*''")
LINES["train, no folder"] = (["train", "cartpole", "--out", ""], "choose another folder")


for command, line in STATUS.items():
    for action in subparser(command)._actions:
        name = action.option_strings[-1] if action.option_strings else ""
        if name not in ("", "--help", "--import"):
            value = next(iter(action.choices)) if action.choices else "1"
            LINES[f"{command} status {name}"] = (
                [*line.split(), name, *([] if action.nargs in (0, "?") else [value])],
                f"`dqx {command} status` takes no {name}: it takes --import alone",
            )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with all that may be in the way."""
    place = tmp_path_factory.mktemp("mistakes")
    (place / "file").write_text("mine")
    (place / "folder").mkdir()
    (place / "folder" / "thesis.txt").write_text("years of work")
    (place / "plan.toml").write_text(toml({"base": BASE}))
    (place / "gama.toml").write_text(toml({"base": BASE, "grid": {"gama": [0.5]}}))
    (place / "bad.toml").write_text("learning_rate = 1e-3\n")
    (place / "broken.toml").write_text("[base\n")
    (place / "empty.toml").write_text("")
    (place / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (place / "not_games.py").write_text("class Plain: ...\ndef three(): return 3\n")
    make_study(place / "study", {})
    make_study(place / "begun", {}, leave_out={0})
    return place


@pytest.mark.parametrize("name", LINES)
def test_a_mistake_is_one_line_and_status_2(name, place, monkeypatch):
    arguments, words = LINES[name]
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = sorted(map(str, place.rglob("*")))
    status, out, err = call(*arguments)
    assert (status, out) == (2, [])
    # That nothing started or compiled, and that there is no traceback, shows in there being one.
    (line,) = err
    assert line.startswith("dqx: error: ") and re.search(words, line), line
    assert sorted(map(str, place.rglob("*"))) == before


@pytest.mark.parametrize(
    "name", ["command", "train, range", "train, network", "train, cores", "broken plan"]
)
def test_a_mistake_looks_the_same_from_a_shell(name, place):
    arguments, words = LINES[name]
    status, out, err = run(*arguments, cwd=place)
    assert (status, out) == (2, [])
    (line,) = err
    assert line.startswith("dqx: error: ") and re.search(words, line), line


@pytest.mark.parametrize("name", ["train, cores", "train, memory", "train, exact metrics"])
def test_on_a_terminal_the_mistake_is_all_that_stays(name, place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert main(LINES[name][0]) == 2
    line, *rest = shown(sys.stderr)
    assert line.startswith("dqx: error: ") and rest == [""]


def test_an_environment_that_fails_when_imported_shows_its_own_lines_first(tmp_path, monkeypatch):
    (tmp_path / "game_that_fails.py").write_text("import math\n\nmath.sqrt(-1)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    status, out, err = call("train", "cartpole", "--set", "env=game_that_fails:Maze")
    assert (status, out) == (2, [])
    assert err[:3] == [
        "Traceback (most recent call last):",
        f'  File "{tmp_path / "game_that_fails.py"}", line 3, in <module>',
        "    math.sqrt(-1)",
    ]
    assert err[-2].startswith("ValueError: ")
    assert err[-1] == (
        "dqx: error: the module 'game_that_fails' fails when it is imported: " + err[-2]
    )


def test_a_mistake_in_a_users_module_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "own_agent.py").write_text("import nothing_of_this_name\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    status, out, err = call("train", "cartpole", "--import", "own_agent")
    assert (status, out) == (2, [])
    assert err[1:3] == [
        f'  File "{tmp_path / "own_agent.py"}", line 1, in <module>',
        "    import nothing_of_this_name",
    ]
    assert err[-1] == (
        "dqx: error: --import own_agent fails: ModuleNotFoundError: No module named "
        "'nothing_of_this_name'"
    )


@pytest.mark.parametrize("text", ["def f(:\n", "1 / 0\n", "import sys; sys.exit(3)\n"])
def test_a_module_that_fails_is_a_mistake_and_no_difference(tmp_path, monkeypatch, text):
    """Status 1 of `dqx verify` says that bits differ."""
    (tmp_path / "own_mistake.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    study = make_study(tmp_path / "s", {"seeds": 3}).folder.path
    status, out, err = call("verify", study, "--import", "own_mistake")
    assert (status, out) == (2, [])
    assert err[-1].startswith("dqx: error: --import own_mistake fails: ")


@pytest.mark.parametrize("command", ["report", "verify"])
def test_modules_are_imported_before_a_search_is_read(tmp_path, command):
    """Its record may name an agent that one of them registers."""
    (tmp_path / "search.json").write_text("{}")
    status, out, (line,) = call(command, tmp_path, "--import", "no_such_module")
    assert (status, out) == (2, []) and "there is no module 'no_such_module'" in line


@pytest.mark.parametrize(
    ("text", "looks"),
    [
        ('[base]\nenv = "games:Maze"\n', True),
        ('seeds = "0:64"\n[base]\npreset = "cartpole"\n', False),
        ('[base]\nenv = "navix:Navix-Empty-5x5-v0"\n', False),
        (None, False),
    ],
)
def test_a_plan_is_looked_beside_for_a_game_that_it_names(tmp_path, monkeypatch, text, looks):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    if text is not None:
        (tmp_path / "plan.toml").write_text(text)
    loading.look_here_for("plan.toml")
    assert (str(tmp_path) in sys.path) == looks


def test_a_folder_that_somebody_stands_in_makes_no_code_run(tmp_path):
    """What pandas looks for, and is not installed, lies in the folder of a study."""
    study = make_study(tmp_path / "s", {"seeds": 3}).folder.path
    for name in ("numexpr", "bottleneck", "wandb", "mine"):
        (study / f"{name}.py").write_text(f"open('{name}-ran', 'w').close()\n")
    for arguments in (("compare", "."), ("report", ".", "--no-films"), ("study", "status", ".")):
        # As the command starts; `python -m` looks into the current folder itself.
        done = subprocess.run(
            [sys.executable, "-P", "-m", "dqx", *arguments],
            cwd=study, env=environment(), capture_output=True, text=True, timeout=250,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert not list(study.glob("*-ran"))
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "installed.py").write_text("")
    paths = os.pathsep.join([str(ROOT), str(tmp_path / "lib")])
    done = subprocess.run(
        [sys.executable, "-P", "-m", "dqx", "compare", ".", "--import", "installed"],
        cwd=study, env=environment(PYTHONPATH=paths), capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0 and not list(study.glob("*-ran")), done.stderr
    for name in ("numexpr", "bottleneck", "wandb"):
        (study / f"{name}.py").unlink()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "dqx", "compare", ".", "--import", "mine"],
        cwd=study, env=environment(), capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0 and (study / "mine-ran").exists()
