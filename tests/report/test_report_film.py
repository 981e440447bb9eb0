"""Films: the episodes are those of evaluation, the numbers the agent's, the files as asked for."""

import io
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import dqx
import envs
from dqx.core.evaluation import evaluate
from dqx.core.keys import Purpose, purpose_key, seed_key
from dqx.report import reel
from dqx.report.actions import action_names
from dqx.report.film import Episode, Film, film, pick_config, pick_seed
from dqx.report.reel import gif_bytes
from dqx.settings import ConfigError
from dqx.study.folder import StudyError
from tests.report.kit import STEPS, balancer, film_study
from tests.shared import quickly

WRAPPED = {
    "frame_stack": 2,
    "action_repeat": 2,
    "sticky_actions": 0.6,
    "time_limit": 12,
    "normalize_observations": True,
    "env.gravity": 9.0,
}
DODGER = {"env": "WallDodge-v0", "hidden_sizes": [4], "eval_episodes": 2}


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory):
    """The same with everything that can be around an environment."""
    study = film_study(tmp_path_factory.mktemp("film") / "w", balancer, **WRAPPED)
    return study, film(study, seed=1, episodes=3)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    """A study on frames, and films of it in both views."""

    def anyhow(agent, seed):
        return agent.init(jax.random.key(seed)).params

    study = film_study(tmp_path_factory.mktemp("film") / "p", anyhow, **DODGER)
    return study, film(study, seed=2), film(study, seed=2, view="agent", max_frames=7)


def evaluation(study, seed):
    """Returns and lengths of the evaluation that the run has at its end."""
    agent, key = study.agent(seed=seed), seed_key(study.plan["root_seed"], seed)
    q_values = dqx.make_agent(agent.config, agent.env).q_values

    def call(params, key):
        return evaluate(
            agent.config, agent.env, lambda obs: q_values(params, obs), key, jnp.int32(STEPS)
        )

    found = quickly(call)(agent.params, key)
    return np.asarray(found.total), np.asarray(found.length)


def test_returns_are_those_of_the_evaluation(wrapped):
    study, shot = wrapped
    total, length = evaluation(study, shot.seed)
    count = len(shot.episodes)
    np.testing.assert_array_equal([e.total for e in shot.episodes], total[:count])
    np.testing.assert_array_equal([len(e.actions) for e in shot.episodes], length[:count])
    assert length.max() == 12 > length.min()


def by_hand(study, shot, episode):
    """The episode again, one step after the other, by the agent as a user has it."""
    agent, config = study.agent(seed=shot.seed), study.point()[0]
    key = seed_key(study.plan["root_seed"], shot.seed)
    key = jax.random.fold_in(purpose_key(key, Purpose.EVALUATION), shot.step)
    reset_key, step_key = jax.random.split(key)
    obs, state = agent.env.reset(jax.random.split(reset_key, config.eval_episodes)[episode])
    step_env, seen, states, rewards, actions = jax.jit(agent.env.step), [], [], [], []
    done = False
    while not done:
        seen.append(np.asarray(obs))
        states.append(state)
        actions.append(agent.act(obs))
        now = jax.random.fold_in(step_key, len(actions) - 1)
        now = jax.random.split(now, config.eval_episodes)[episode]
        step = step_env(now, state, jnp.int32(actions[-1]), (obs, state))
        obs, state = step.obs, step.state
        rewards.append(float(step.reward))
        done = bool(step.terminated | step.truncated)
    return agent, np.stack(seen), states, actions, rewards, step


@pytest.mark.parametrize("case", ["wrapped", pytest.param("pixels", marks=pytest.mark.long)])
def test_q_values_actions_and_rewards_are_the_agents(case, request):
    study, shot, *_ = request.getfixturevalue(case)
    agent, seen, _, actions, rewards, last = by_hand(study, shot, 0)
    one = shot.episodes[0]
    np.testing.assert_allclose(one.q_values, agent.q_values(seen), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(one.actions, actions)
    np.testing.assert_array_equal(one.rewards, rewards)
    assert one.end == ("terminated" if last.terminated else "truncated")


def test_frames_are_what_the_environment_draws_and_the_last_shows_the_end(pixels):
    study, shot, seen = pixels
    env, params = envs.make("WallDodge-v0")
    draw = jax.jit(lambda state: env.render(state, params))
    _, obs, states, actions, *_ = by_hand(study, shot, 0)
    one = shot.episodes[0]
    assert one.times.tolist() == list(range(len(actions) + 1))
    for time in (0, 1, len(actions) // 2, len(actions) - 1):
        np.testing.assert_array_equal(one.frames[time], draw(states[time]))
    # Where it ended: the wall came a step nearer, and the robot that it hit is red.
    before = states[-1]
    assert one.end == "terminated"
    _, moved, _, crashed, _ = env.step_env(jax.random.key(0), before, actions[-1], params)
    assert crashed and moved.wall_x == before.wall_x - 1
    np.testing.assert_array_equal(one.frames[-1], draw(moved))

    # The agent's own pixels, ten times as large; with few pictures the ends are kept.
    assert len(seen.episodes[0].times) <= 7
    assert seen.episodes[0].times[[0, -1]].tolist() == [0, len(actions)]
    for frame, time in zip(seen.episodes[0].frames[:-1], seen.episodes[0].times, strict=False):
        large = obs[time].repeat(10, 0).repeat(10, 1).repeat(3, 2)
        np.testing.assert_array_equal(frame, large)


def test_last_picture_under_a_time_limit_shows_the_state_after_the_last_step(wrapped):
    study, shot = wrapped
    one = next(e for e in shot.episodes if e.end == "truncated")
    assert len(one.actions) == 12
    assert not np.array_equal(one.frames[-1], one.frames[-2])


def test_a_snapshot_plays_its_own_parameters(tmp_path):
    study = film_study(tmp_path / "s", balancer, snapshot_every=200)
    told: list[tuple[int, int]] = []
    early = film(study, seed=1, step=200, max_steps=20, tell=lambda *now: told.append(now))
    assert told == [(0, 0)]
    assert early.step == 200
    one = early.episodes[0]
    assert (one.end, len(one.actions)) == ("cut", 20)
    agent = study.agent(seed=1, step=200)
    key = jax.random.fold_in(purpose_key(seed_key(0, 1), Purpose.EVALUATION), 200)
    obs, _ = agent.env.reset(jax.random.split(jax.random.split(key)[0], 3)[0])
    np.testing.assert_allclose(one.q_values[0], agent.q_values(obs), rtol=1e-5)
    with pytest.raises(StudyError, match="no snapshot at step 7; there are: 200, 400"):
        film(study, seed=1, step=7)


# --- Seeds by their place.


def made_up(scores, lost=()):
    class Made:
        path, configs, seeds = "runs/x", ("a", "b"), tuple(range(10, 10 + len(scores)))
        runs = [
            {"config": "a", "seed": s, "score": x, "diverged_at": 7 if s in lost else -1}
            for s, x in zip(seeds, scores, strict=True)
        ]

    return Made()


@pytest.mark.parametrize(
    ("scores", "lost", "best", "median", "worst"),
    [
        ([3.0, 1.0, 2.0], (), 10, 12, 11),
        ([3.0, 1.0, 2.0, 4.0], (), 13, 10, 11),
        ([3.0], (), 10, 10, 10),
        ([None, 9.0, 1.0, 5.0, 6.0], (10,), 11, 13, 12),
        ([None, None, None, 1.0, 2.0], (10, 11, 12), 14, 13, 13),
        ([99.0, 1.0, 2.0], (10,), 12, 11, 11),  # a finite score does not make up for divergence
    ],
)
def test_seeds_by_their_place(scores, lost, best, median, worst):
    study = made_up(scores, lost)
    found = [pick_seed(study, "a", which).seed for which in ("best", "median", "worst")]
    assert found == [best, median, worst]
    assert pick_seed(study, "a", "10").seed == pick_seed(study, "a", 10).seed == 10


@pytest.mark.parametrize(
    ("config", "which", "words"),
    [
        ("a", "99", "no seed 99 in runs/x; its seeds are 10 to 12"),
        ("a", "wurst", "best, median, worst or a number, got 'wurst'; the closest are worst"),
        ("c", "best", "no configuration 'c'"),
        (None, "best", "2 configurations, name one: a; b"),
        ("b", "best", "no run of b in runs/x is finished"),
    ],
)
def test_seeds_and_configurations_that_there_are_not(config, which, words):
    with pytest.raises(StudyError) as caught:
        pick_seed(made_up([1.0, 2.0, 3.0]), config, which)
    assert words in str(caught.value)


def test_closest_configuration_is_named():
    study = made_up([1.0])
    study.configs = ("no-target", "double")
    with pytest.raises(StudyError, match="no configuration 'no_target'.* closest are no-target;"):
        pick_config(study, "no_target")


def test_diverged_seeds_are_told(tmp_path):
    def lose(name, seed, run):
        run["diverged_at"] = 300

    study = film_study(
        tmp_path / "s", lambda agent, seed: balancer(agent, seed, scale=np.nan), change=lose
    )
    with pytest.raises(StudyError, match="seed 1 of .* diverged at step 300.*not finite"):
        film(study, seed=1)
    with pytest.raises(StudyError, match="every finished seed of .* has diverged"):
        pick_seed(study)


# --- Files.


def drawn_film(count=30, actions=3, names=("left", "stay", "right")):
    """A film of made-up numbers: a square that moves."""
    frames = np.full((count, 40, 60, 3), 230, np.uint8)
    for time in range(count):
        frames[time, 10:20, time : time + 10] = (200, 30, 30)
    rng = np.random.default_rng(3)
    q = rng.normal(5, 1, (count - 1, actions)).astype(np.float32)
    one = Episode(
        frames,
        np.arange(count),
        q,
        q.argmax(1).astype(np.int32),
        np.full(count - 1, 0.5, np.float32),
        "terminated",
    )
    return Film("case", 4, 1000, "Square-v0", tuple(names), (one,))


def test_captions_tell_step_return_values_and_end():
    shot = drawn_film()
    found = reel.captions(shot, shot.episodes[0])
    assert found[0].lines == ("seed 4", "step 0", "return 0.0")
    assert found[7].lines == ("seed 4", "step 7", "return 3.5")
    np.testing.assert_array_equal(found[7].q_values, shot.episodes[0].q_values[7])
    assert found[7].action == shot.episodes[0].q_values[7].argmax()
    assert (found[-1].q_values, found[-1].action, found[-1].end) == (None, -1, "the end")


def test_bars_are_as_long_as_values_and_the_chosen_one_has_its_colour():
    shot = drawn_film(count=4)
    q = np.array([[0, 5, 10], [10, 5, 0], [0, 0, 10]], np.float32)
    one = shot.episodes[0]._replace(q_values=q, actions=q.argmax(1).astype(np.int32))
    shot = shot._replace(episodes=(one,))
    picture = next(reel.pictures(shot, 600))
    chosen = (picture == reel._CHOSEN).all(-1)
    other = (picture == reel._BAR).all(-1)
    track = (picture == reel._TRACK).all(-1)
    rows = np.flatnonzero(chosen.any(1))
    longest = chosen[rows[0]].sum()
    assert not track[rows[0]].any()  # the greatest value fills its bar
    lengths = [n for n in other.sum(1) if n > 3]
    assert lengths and {round(n / longest, 1) for n in lengths} == {0.5}
    assert rows.min() > np.flatnonzero(other.any(1)).max()  # the third action is the lowest row


def test_gif_holds_every_picture_at_its_time():
    shot = drawn_film()
    with Image.open(io.BytesIO(gif_bytes(shot, width=300, fps=10))) as gif:
        assert gif.info["loop"] == 0
        durations = []
        for index in range(gif.n_frames):
            gif.seek(index)
            durations.append(gif.info["duration"])
            if index == 12:
                shown = np.asarray(gif.convert("RGB")).astype(int)
        assert durations == [100] * 29 + [1200]
        original = list(reel.pictures(shot, 300))[12]
        assert shown.shape == original.shape
        assert np.abs(shown - original).mean() < 4  # 64 colours


def test_gif_keeps_to_its_limit_or_says_that_it_cannot():
    shot = drawn_film(count=24)
    whole = len(gif_bytes(shot))
    small = gif_bytes(shot, limit=whole // 2)
    assert len(small) <= whole // 2
    with pytest.raises(ConfigError, match="does not fit into 100 bytes"):
        gif_bytes(shot, limit=100)


def test_pngs_fill_a_new_folder_and_leave_another_alone(tmp_path):
    shot = drawn_film(count=3)
    assert reel.write_pngs(shot, tmp_path / "film", width=320) == 3
    names = sorted(path.name for path in (tmp_path / "film").iterdir())
    assert names == ["00000.png", "00001.png", "00002.png"]
    first = np.asarray(Image.open(tmp_path / "film" / "00000.png"))
    np.testing.assert_array_equal(first, next(reel.pictures(shot, 320)))
    with pytest.raises(dqx.files.OutputError, match="is there already"):
        reel.write_pngs(shot, tmp_path / "film")


FFMPEG = """\
import pathlib, sys
content = sys.stdin.buffer.read()
pathlib.Path(sys.argv[-1]).write_text(f"{' '.join(sys.argv[1:-1])} {len(content)}")
"""


def test_mp4_goes_through_ffmpeg_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    shot = drawn_film(count=3)
    with pytest.raises(ConfigError, match="none is found on PATH"):
        reel.write_mp4(shot, tmp_path / "film.mp4")
    (tmp_path / "ffmpeg.py").write_text(FFMPEG)
    program = tmp_path / "ffmpeg"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path / "ffmpeg.py"} "$@"\n')
    program.chmod(0o755)
    reel.write_mp4(shot, tmp_path / "film.mp4", width=300, fps=10)
    height = next(reel.pictures(shot, 300)).shape[0]
    said = (tmp_path / "film.mp4").read_text().split()
    assert f"300x{height}" in said and said[said.index("-r") + 1] == "10"
    assert int(said[-1]) == 3 * 300 * height * 3  # every byte of every picture
    (tmp_path / "ffmpeg.py").write_text("import sys; sys.exit('no such encoder')")
    with pytest.raises(ConfigError, match="ffmpeg could not write .*: no such encoder"):
        reel.write_mp4(shot, tmp_path / "fail.mp4")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".") or "fail" in p.name]


@pytest.mark.parametrize("options", [{"width": 100}, {"width": 5000}, {"fps": 0}, {"fps": 60}])
def test_sizes_and_rates_out_of_range(options):
    with pytest.raises(ConfigError, match="film"):
        gif_bytes(drawn_film(count=2), **options)


@pytest.mark.parametrize("count", [1, 4, 18, 43])
def test_panels_of_many_actions_stay_in_their_picture(count):
    names = [f"action {i}" for i in range(count)]
    picture = next(reel.pictures(drawn_film(count=3, actions=count, names=names), 480))
    bars = (picture == reel._BAR).all(-1) | (picture == reel._CHOSEN).all(-1)
    found = np.flatnonzero(bars.any(1))
    groups = 1 + np.count_nonzero(np.diff(found) > 1)
    assert groups == count  # every bar is there, apart from the next
    assert picture.shape[0] - found.max() > 3


def test_action_names_are_known_or_numbered():
    class Own:
        action_names = ("wait", "go")

    assert action_names("mine:Own", Own(), 2) == ("wait", "go")
    assert action_names("mine:Own", Own(), 3) == ("action 0", "action 1", "action 2")
    for name in envs.own_names():
        env, params = envs.make(name)
        count = env.action_space(params).n
        assert not action_names(name, env, count)[0].startswith("action"), name


def test_long_names_stay_in_their_column_and_tell_actions_apart():
    names = ["action 10", "action 11"]
    shot = drawn_film(count=3, actions=2, names=names)._replace(env="A" * 40)
    one = shot.episodes[0]
    for action in (0, 1):  # the chosen one is bold, and wider
        chosen = shot._replace(episodes=(one._replace(actions=np.full(2, action, np.int32)),))
        sheet = next(reel.pictures(chosen, 480))
        assert (sheet[:, -8:] == reel._PAPER).all()  # nothing runs out of the panel
        text, font = reel._fitting(names[action], 54, 12, True)
        assert text == names[action] and font.getlength(text) <= 54
    assert reel._fitting("x" * 99, 50, 12)[1].size == 8
