"""`dqx play`: what it says and writes, and every mistake in one line."""

import sys

import pytest
from PIL import Image

import dqx
from dqx.report import film as films
from tests.report.kit import STEPS, Terminal, balancer, film_study, shown
from tests.report.test_report_film import drawn_film
from tests.study.kit import call, make_study

FILM = ("--gif", "film.gif")


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """A folder with a study of three seeds that has snapshots; seed 0 has diverged."""
    place = tmp_path_factory.mktemp("play")

    def lose(name, seed, run):
        run["diverged_at"] = 300 if seed == 0 else -1

    film_study(place / "s", balancer, snapshot_every=200, change=lose)
    return place


@pytest.fixture
def place(studies, monkeypatch):
    monkeypatch.chdir(studies)
    return studies


@pytest.fixture
def made_up(monkeypatch):
    """Films are not played but made up; the list of what was asked for."""
    asked = []

    def film(study, config, seed, *, tell, **options):
        tell(0, 512)
        asked.append({"config": config, "seed": seed, **options})
        return drawn_film()

    monkeypatch.setattr(films, "film", film)
    return asked


def test_a_snapshot_as_gif_and_pngs(place):
    options = ("--step", 200, "--seed", 2, "--max-steps", 12, "--width", 300)
    status, out, err = call("play", "s", *FILM, "--png", "frames", *options)
    assert status == 0, err
    assert err == [err[0]] and err[0].startswith("play: film, seed 2 (score")
    assert out[0] == "episode 1: return 12 in 12 steps, cut short"
    assert out[1].startswith("film.gif: ") and out[2] == "frames: 13 pictures"
    with Image.open("film.gif") as gif:
        assert gif.n_frames == 13 and gif.width == 300
    status, out, err = call("play", "s", "--png", "frames")
    assert status == 2 and "is there already" in err[0]


def test_options_reach_the_film_and_the_median_is_played(place, made_up):
    asked = ("--episodes", 3, "--max-frames", 9, "--view", "agent", "--quiet")
    status, out, err = call("play", "s", *FILM, *asked)
    assert (status, err) == (0, [])
    study = dqx.load("s")
    assert made_up == [
        {
            "config": "default", "seed": films.pick_seed(study).seed, "step": None,
            "episodes": 3, "max_steps": None, "max_frames": 9, "view": "agent",
        }
    ]  # fmt: skip
    assert out[0] == "episode 1: return 14.5 in 29 steps, ended by the environment"


def test_episodes_that_take_long_are_told_of(place, made_up, monkeypatch):
    assert not any("episodes over" in line for line in call("play", "s", *FILM)[2])
    monkeypatch.setattr("dqx.cli.play._TOLD_SECONDS", 0.0)
    said = call("play", "s", *FILM, "--episodes", 3)[2]
    assert said[1] == (
        "play: 0 of 3 episodes over, step 512; Ctrl-C ends it, --max-steps cuts them short"
    )
    assert call("play", "s", *FILM, "--quiet")[2] == []


def test_a_seed_that_diverged_is_told(place, made_up):
    status, _, err = call("play", "s", *FILM, "--seed", 0)
    assert status == 0 and "seed 0, which diverged at step 300 (score" in err[0]
    status, _, err = call("play", "s", *FILM, "--seed", "worst")
    assert "worst of 3 seeds, 1 of which diverged and cannot be played" in err[0]


def test_live_view_on_a_terminal(place, made_up, monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    from dqx import cli

    assert cli.main(["play", "s", "--fps", "50"]) == 0
    lines = shown(stream)
    assert any("Square-v0" in line for line in lines)
    assert [line for line in lines if line][-1].startswith("episode 1: return 14.5 in 29 steps")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("s",), "no terminal that could show the episode: give --gif FILE"),
        (("nowhere", *FILM), "nowhere holds no study"),
        (("s", *FILM, "--seed", 9), "there is no seed 9 in s; its seeds are 0 to 2"),
        (("s", *FILM, "--seed", "bets"), "got 'bets'; the closest are best"),
        (("s", *FILM, "--config", "defualt"), "'defualt' in s; the closest are default"),
        (("s", *FILM, "--step", 7), f"no snapshot at step 7; there are: 200, {STEPS}"),
        (("s", *FILM, "--width", 9), "from 240 to 1920 pixels, got 9"),
        (("s", *FILM, "--fps", 90), "a film shows 0.1 to 50 pictures a second, got 90"),
        (("s", *FILM, "--fps", 0.0001), "a film shows 0.1 to 50 pictures a second, got 0.0001"),
        (("s", *FILM, "--episodes", 0), "a whole number from 1 on, got '0'"),
        (("s", "--gif", "no/where.gif"), "there is no folder no for where.gif"),
        (("s", "--gif", "s"), "s is a folder, and no file to replace"),
        (("s", "--png", "s"), "s is there already"),
        (("s", "--mp4", "film.mp4"), "none is found on PATH"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_played(
    arguments, words, place, made_up, monkeypatch
):
    monkeypatch.setenv("PATH", "")
    status, out, err = call("play", *arguments)
    assert (status, out, len(err)) == (2, [], 1)
    assert words in err[0] and err[0].startswith("dqx: error: ")
    assert made_up == []


def test_a_study_without_finished_runs(place, tmp_path):
    make_study(tmp_path / "none", {"name": "none", "seeds": 3}, leave_out=(0,))
    status, _, err = call("play", tmp_path / "none", *FILM)
    assert status == 2 and "is finished yet: see `dqx study status" in err[0]


def test_an_environment_of_ones_own_is_not_imported_unasked(place, tmp_path, monkeypatch):
    (tmp_path / "hill.py").write_text(
        "from envs.mountain_car import MountainCar\nclass Hill(MountainCar):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    film_study(tmp_path / "own", lambda agent, seed: agent.init(_key()).params, env="hill:Hill")
    monkeypatch.delitem(sys.modules, "hill")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(tmp_path)])
    status, _, err = call("play", tmp_path / "own", *FILM)
    assert status == 2 and "give --import hill" in err[-1]


def _key():
    import jax

    return jax.random.key(0)
