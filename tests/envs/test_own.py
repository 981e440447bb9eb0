"""Environments of a user's own by "package.module:Class": made, told apart, and refused in a line.

The text of each refusal is compared as a whole.
"""

import importlib
import os
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import gymnax
import pytest
from gymnax import registration

import envs

SOURCES = {
    "games_of_mine/__init__.py": "",
    "games_of_mine/base.py": """
        from flax import struct
        from gymnax.environments import environment

        @struct.dataclass
        class Params(environment.EnvParams):
            stride: float = 0.25
            max_steps_in_episode: int = 6

        class Base(environment.Environment):
            @property
            def default_params(self):
                return Params()
    """,
    "games_of_mine/mazes.py": """
        import gymnasium

        from games_of_mine.base import Base

        class Maze(Base):
            def __init__(self, size: int = 5):
                super().__init__()
                if size < 2:
                    raise ValueError(f"size is {size};\\nit must be at least 2")
                self.size = size

        class Gym(gymnasium.Env):
            pass

        class Paramless(Base):
            @property
            def default_params(self):
                raise KeyError("no params")

        def big_maze(scale: int):
            return Maze(10 * scale)

        def pair():
            return Maze(), None

        small = Maze()
    """,
    "games_of_mine/nothing.py": "maze = 3",
    "games_of_mine/failing.py": "import games_of_mine.absent",
    "games_of_mine/leaving.py": "raise SystemExit('bye')",
    "games_of_mine/unfinished.py": "def maze(:\n    pass",
    "games_of_mine/registering.py": """
        import gymnax
        from games_of_mine.mazes import Maze

        gymnax.register("Maze-of-mine", lambda size=5: Maze(size))
    """,
}


@pytest.fixture(autouse=True)
def games(tmp_path, monkeypatch):
    """The folder of a package that Python finds, and that is forgotten afterwards."""
    for path, text in SOURCES.items():
        file = tmp_path / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "games_of_mine"
    for module in [name for name in sys.modules if name.startswith("games_of_mine")]:
        del sys.modules[module]


@pytest.fixture
def registered(monkeypatch):
    """Whatever is registered with gymnax meanwhile is forgotten afterwards."""
    monkeypatch.setattr(registration, "_registry", dict(registration._registry))
    names = list(registration.registered_envs)
    yield
    registration.registered_envs[:] = names


def test_a_class_is_made_with_its_options_and_default_params():
    env, params = envs.make("games_of_mine.mazes:Maze", size=7)
    assert type(env).__name__ == "Maze" and env.size == 7
    assert (params.stride, params.max_steps_in_episode) == (0.25, 6)


def test_a_function_is_called_for_the_environment():
    env, params = envs.make("games_of_mine.mazes:big_maze", scale=3)
    assert env.size == 30 and params.stride == 0.25


def test_a_package_of_the_current_folder_is_found_where_python_looks_there(games):
    code = """
        import sys, envs
        before = list(sys.path)
        env, _ = envs.make("games_of_mine.mazes:Maze")
        print(env.size, sys.path == before)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=games.parent,
        env={**os.environ, "PYTHONPATH": str(Path(envs.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert (run.stdout, run.stderr) == ("5 True\n", "")


MAZES = "Base, Maze, Paramless"
REFUSED = {
    "games_of_mine/mazes.py:Maze": (
        "'games_of_mine/mazes.py:Maze' names no environment: one of your own is given as "
        "package.module:Class, the module as after `import`, here perhaps games_of_mine.mazes:Maze"
    ),
    "games_of_mine.mazes:": (
        "'games_of_mine.mazes:' names no environment: one of your own is given as "
        "package.module:Class, the module as after `import`, here perhaps games_of_mine.mazes:Class"
    ),
    ":Maze": (
        "':Maze' names no environment: one of your own is given as package.module:Class, the "
        "module as after `import`"
    ),
    "game_of_mine:Maze": (
        "there is no module 'game_of_mine' (No module named 'game_of_mine'): it must lie in the "
        "current folder (the class Maze of games.py is games:Maze), be installed, or be found on "
        "PYTHONPATH"
    ),
    "nawix:Maze": (
        "there is no module 'nawix' (No module named 'nawix'): did you mean navix:? it must lie in "
        "the current folder (the class Maze of games.py is games:Maze), be installed, or be found "
        "on PYTHONPATH"
    ),
    "maze_of_mine.py:Maze": (
        "there is no module 'maze_of_mine.py' (No module named 'maze_of_mine'): write "
        "maze_of_mine, without .py; it must lie in the current folder (the class Maze of games.py "
        "is games:Maze), be installed, or be found on PYTHONPATH"
    ),
    "games_of_mine.maze:Maze": (
        "there is no module 'games_of_mine.maze' (No module named 'games_of_mine.maze'): it must "
        "lie in the current folder (the class Maze of games.py is games:Maze), be installed, or be "
        "found on PYTHONPATH"
    ),
    "games_of_mine.failing:Maze": (
        "the module 'games_of_mine.failing' fails when it is imported: ModuleNotFoundError: No "
        "module named 'games_of_mine.absent'"
    ),
    "games_of_mine.leaving:Maze": (
        "the module 'games_of_mine.leaving' fails when it is imported: SystemExit: bye"
    ),
    "games_of_mine.unfinished:Maze": (
        "the module 'games_of_mine.unfinished' fails when it is imported: SyntaxError: invalid "
        "syntax (unfinished.py, line 1)"
    ),
    "games_of_mine.mazes:maze": (
        "the module 'games_of_mine.mazes' has no 'maze': did you mean Maze, big_maze? its "
        f"environments are {MAZES}"
    ),
    "games_of_mine.nothing:Pong": (
        "the module 'games_of_mine.nothing' has no 'Pong': it has no environments"
    ),
    "games_of_mine.mazes:Gym": (
        "games_of_mine.mazes:Gym is a class derived from gymnasium.core.Env; derive it from "
        "gymnax.environments.environment.Environment, since only environments written in JAX can "
        "be trained on"
    ),
    "games_of_mine.mazes:small": (
        "games_of_mine.mazes:small is an object of type Maze; name a class derived from "
        "gymnax.environments.environment.Environment, or a function that returns an instance of one"
    ),
    "games_of_mine.mazes:pair": (
        "games_of_mine.mazes:pair is a function that returned an object of type tuple; it must "
        "return an instance of a class derived from gymnax.environments.environment.Environment"
    ),
    "games_of_mine.mazes:Paramless": (
        "games_of_mine.mazes:Paramless has no default_params: KeyError: 'no params'"
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_line(name):
    with pytest.raises(envs.UnusableEnvironment) as caught:
        envs.make(name)
    assert str(caught.value) == REFUSED[name]
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("name", "cause"),
    [("failing", ModuleNotFoundError), ("leaving", SystemExit), ("unfinished", SyntaxError)],
)
def test_a_module_that_fails_keeps_its_own_error(name, cause):
    with pytest.raises(envs.UnusableEnvironment) as caught:
        envs.make(f"games_of_mine.{name}:Maze")
    assert type(caught.value.__cause__) is cause


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (
            "Maze",
            {"sizes": 7},
            "cannot be made with the options ['sizes'] (got an unexpected keyword argument "
            "'sizes'): did you mean size? it takes size",
        ),
        (
            "big_maze",
            {},
            "cannot be made without options (missing a required argument: 'scale'): it takes scale",
        ),
        (
            "pair",
            {"size": 7},
            "cannot be made with the options ['size'] (got an unexpected keyword argument "
            "'size'): it takes none",
        ),
        ("Maze", {"size": 1}, "cannot be made: ValueError: size is 1;"),
    ],
)
def test_wrong_options_are_refused_in_one_line(target, options, message):
    with pytest.raises(envs.UnusableEnvironment) as caught:
        envs.make(f"games_of_mine.mazes:{target}", **options)
    assert str(caught.value) == f"games_of_mine.mazes:{target} {message}"


def test_a_name_without_a_colon_says_how_to_give_ones_own():
    with pytest.raises(envs.UnusableEnvironment) as caught:
        envs.make("games_of_mine.mazes.Maze")
    assert str(caught.value) == (
        "unknown environment 'games_of_mine.mazes.Maze': `dqx envs` or envs.names() lists all "
        f"{len(envs.names())}; one of your own is given as package.module:Class"
    )


def test_modules_and_what_is_foreign_are_told_without_importing():
    expected = {
        "games_of_mine.mazes:Maze": ("games_of_mine.mazes", True),
        "CartPole-v1": ("envs.cartpole", False),
        "Catch-bsuite": ("gymnax.environments.bsuite.catch", False),
        "envs.taxi:Taxi": ("envs.taxi", False),
    }
    assert {name: (envs.module_of(name), envs.is_foreign(name)) for name in expected} == expected
    assert not any(module.startswith("games_of_mine") for module in sys.modules)


def test_only_an_import_that_happened_makes_a_name_loaded():
    name = "games_of_mine.mazes:Maze"
    assert not envs.is_loaded(name) and "games_of_mine.mazes" not in sys.modules
    envs.make(name)
    assert envs.is_loaded(name)
    assert envs.is_loaded("CartPole-v1") and envs.is_loaded("Catch-bsuite")
    assert not envs.is_loaded("CartPole-v7") and not envs.is_loaded("sys")


@pytest.mark.parametrize("ask", [envs.is_foreign, envs.module_of, envs.sources_of])
def test_an_unknown_name_has_no_module(ask):
    with pytest.raises(envs.UnusableEnvironment, match="unknown environment 'CartPole-v7': did"):
        ask("CartPole-v7")


def test_what_a_module_registers_with_gymnax_is_its_own(games, registered):
    importlib.import_module("games_of_mine.registering")
    gymnax.register("Big-of-mine", partial(gymnax.environments.DeepSea, size=12))
    assert envs.module_of("Maze-of-mine") == "games_of_mine.registering"
    assert envs.is_foreign("Maze-of-mine") and envs.is_loaded("Maze-of-mine")
    assert not envs.is_foreign("Big-of-mine")
    assert envs.sources_of("Maze-of-mine") == [
        games / "base.py",
        games / "mazes.py",
        games / "registering.py",
    ]


def test_sources_are_the_files_of_all_classes_that_are_not_the_libraries(games):
    files = [games / "base.py", games / "mazes.py"]
    assert envs.sources_of("games_of_mine.mazes:Maze") == files
    assert envs.sources_of("games_of_mine.mazes:big_maze", scale=2) == files
    assert envs.sources_of(envs.make("games_of_mine.mazes:Maze")[0]) == files
    assert envs.sources_of("Taxi-v4") == envs.sources_of(envs.Taxi()) == []


def test_code_without_a_file_has_no_sources():
    env, _ = envs.make("games_of_mine.mazes:Maze")
    del sys.modules["games_of_mine.base"].__file__
    with pytest.raises(envs.UnusableEnvironment) as caught:
        envs.sources_of(env)
    assert str(caught.value) == (
        "the module games_of_mine.base has no source file, so a change of it could not be noticed; "
        "put the environment into a file that can be imported"
    )


def test_an_environment_of_a_suite_is_no_user_s():
    name = "navix:Navix-Empty-5x5-v0"
    assert envs.module_of(name) == "envs.adapters.navix"
    assert envs.is_loaded(name) and not envs.is_foreign(name) and envs.sources_of(name) == []
