"""Settings of environments from a plan to the tables, and environments of one's own."""

import dataclasses
import functools
import subprocess
import sys

import jax
import numpy as np
import pytest
from gymnasium.envs.toy_text.taxi import TaxiEnv

import dqx
import envs
from dqx.compute import solution
from dqx.compute.programs import Programs
from dqx.settings import ConfigError
from dqx.study import load, resume, run, verify
from tests.cli.kit import environment
from tests.shared import HYPER, TINY
from tests.study.kit import call, interrupted, plan

GRAVITIES = [8.0, 9.8, 12.0]


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """Three gravities on four seeds, and one gravity a seed, in one study."""
    out = tmp_path_factory.mktemp("games") / "s"
    cases = [{"name": f"{g:g}", "env": {"gravity": g}} for g in GRAVITIES]
    cases.append({"name": "drawn", "env": {"gravity": {"uniform": [8, 12]}}})
    return run(plan(4, case=cases), out)


def test_a_grid_of_floats_compiles_once(grid):
    assert len(grid.manifest["compiled"]) == len(set(grid.manifest["compiled"]))
    assert len({grid.digests[name, 3] for name in grid.configs}) == len(grid.configs)


@pytest.mark.parametrize("gravity", GRAVITIES)
def test_a_point_has_the_bits_of_its_single_run(grid, gravity):
    found = dqx.train(TINY, HYPER, seeds=[3], env={"gravity": gravity})
    assert found.digests == (grid.digests[f"{gravity:g}", 3],)


def test_every_table_tells_the_parameter_of_a_run(grid):
    for table in (grid.metrics, grid.episodes):
        assert table["env.gravity"].dtype == np.float64
        told = table[table["config"] != "drawn"]
        assert (told["env.gravity"] == told["config"].astype(str).astype(float)).all()
        by_seed = table[table["config"] == "drawn"].groupby("seed")["env.gravity"]
        assert (by_seed.nunique() == 1).all() and by_seed.first().nunique() == 4
    recorded = {run["seed"]: run["env.gravity"] for run in grid.runs if run["config"] == "drawn"}
    assert recorded == by_seed.first().to_dict()
    assert all(8 <= value <= 12 for value in recorded.values())


def test_a_drawn_gravity_is_the_gravity_of_the_run(grid):
    """Seed 2 as drawn has the bits of seed 2 with that gravity given."""
    (value,) = (r["env.gravity"] for r in grid.runs if (r["config"], r["seed"]) == ("drawn", 2))
    found = dqx.train(TINY, HYPER, seeds=[2], env={"gravity": value})
    assert found.digests == (grid.digests["drawn", 2],)
    agent = grid.agent("drawn", seed=2)
    obs, state = agent.env.reset(jax.random.key(0))
    cart = state.replace(theta=np.float32(0.1), theta_dot=np.float32(0))
    step = agent.env.step(jax.random.key(0), cart, np.int32(0), (obs, cart))
    env, params = envs.make("CartPole-v1")
    twin = env.step_env(jax.random.key(0), cart, 0, params.replace(gravity=np.float32(value)))[1]
    assert abs(float(step.state.theta_dot - twin.theta_dot)) < 1e-6


def test_verify_and_resume_draw_the_same(grid, tmp_path):
    assert verify(grid.path, sample=3, pick=1).verdict == "identical"
    base = plan(8, {"env": {"gravity": {"log_uniform": [8, 12]}}})
    whole = run(base, tmp_path / "whole")
    interrupted(base, tmp_path / "s", 3)
    assert resume(tmp_path / "s").digests == whole.digests


def test_the_manifest_can_be_trained_as_it_is(grid):
    point = next(p for p in grid.plan["points"] if p["name"] == "drawn")
    found = dqx.train(point["config"], point["hyper"], seeds=[1])
    assert found.digests == (grid.digests["drawn", 1],)


def test_a_start_reads_the_parameters_of_its_lane():
    """A fickle passenger: the start of an episode hangs on a probability that is traced."""
    config = dqx.override(*dqx.preset("taxi/tabular"), env={"fickle_passenger": True})
    point = dqx.study.plan.single("x", *config, 1).points[0].config
    point = dataclasses.replace(
        point, chunk_width=2, num_envs=64, env_inputs=(("fickle_probability", None),),
        train_period=64, batch_size=64, replay_capacity=6400,
    )  # fmt: skip
    programs = Programs(point, dqx.environment_of(point), jax.devices("cpu")[0], 0)
    full = functools.partial(np.full, 2, dtype=np.float32)
    shares = {"env.fickle_probability": np.array([0, 1], np.float32)}
    hypers = programs.place(jax.tree.map(full, dqx.Hyper()).replace(extra=shares))
    _, lanes = programs.init(np.arange(2), hypers)
    assert np.asarray(lanes.env_state.fickle).mean(axis=1).tolist() == [0.0, 1.0]


@pytest.mark.long
def test_exact_solutions_follow_the_parameters():
    config, hyper = dqx.override(
        *dqx.preset("taxi/tabular"), env={"is_rainy": True, "rainy_probability": 0.8}
    )
    rainy = dqx.study.plan.single("x", config, hyper, 1).points[0].config
    found = solution.solution_of(rainy, {"rainy_probability": 0.8}).model
    table = TaxiEnv(is_rainy=True).P
    states = np.asarray(jax.vmap(dqx.environment_of(rainy).observe)(found.states))
    moves = {}
    for pair, after, p, gone in zip(
        found.pair, found.next_state, found.probability, found.terminated, strict=True
    ):
        key = (int(states[pair // 6]), int(pair % 6), None if gone else int(states[after]))
        moves[key] = moves.get(key, 0.0) + p
    expected = {}
    for state in states.tolist():
        for action, outcomes in table[state].items():
            for p, after, _, gone in outcomes:
                key = (state, action, None if gone else after)
                expected[key] = expected.get(key, 0.0) + p
    assert moves.keys() == {key for key, p in expected.items() if p > 0}
    assert all(abs(moves[key] - expected[key]) < 1e-6 for key in moves)
    best = [
        solution.solution_of(rainy, {"rainy_probability": p}).optimal_return for p in (0.6, 0.8)
    ]
    assert best[0] < best[1] < 7.9  # in dry weather 7.93


# --- Environments of one's own.

GAME = '''
import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

@struct.dataclass
class State(environment.EnvState):
    place: jax.Array

@struct.dataclass
class Params(environment.EnvParams):
    pull: float = 0.0
    max_steps_in_episode: int = 12

class Walk(environment.Environment):
    """Walk to the right end."""

    def __init__(self, size: int = 4):
        super().__init__()
        self.size = size

    @property
    def default_params(self):
        return Params()

    def reset_env(self, key, params):
        state = State(place=jax.random.randint(key, (), 0, 2), time=jnp.int32(0))
        return self.observe(key, state, None, params), state

    def step_env(self, key, state, action, params):
        place = jnp.clip(state.place + 2 * action - 1, 0, self.size)
        state = State(place=place, time=state.time + 1)
        done = self.is_terminated(state, params)
        reward = done.astype(jnp.float32) - params.pull
        return self.observe(key, state, action, params), state, jnp.float32(reward), done, {}

    def is_terminated(self, state, params):
        return state.place == self.size

    def observe(self, key, state, action, params):
        return state.place.astype(jnp.float32)[None]

    get_obs = lambda self, state, params=None, key=None: self.observe(key, state, None, params)
    name = "Walk"
    num_actions = 2

    def action_space(self, params=None):
        return spaces.Discrete(2)

    def observation_space(self, params):
        return spaces.Box(0, 100, (1,), jnp.float32)
'''


@pytest.fixture
def game(tmp_path, monkeypatch):
    """A module in the current folder."""
    (tmp_path / "walks_of_mine.py").write_text(GAME)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "walks_of_mine.py"
    sys.modules.pop("walks_of_mine", None)


def test_a_class_of_one_s_own_trains_everywhere_and_no_folder_imports_it(game, monkeypatch):
    name = "walks_of_mine:Walk"
    changes = {"env": {"name": name, "size": 3, "pull": 0.01}}
    study = run(plan(2, changes), "s")
    found = dqx.train(TINY, HYPER, seeds=[1], env=changes["env"])
    assert found.digests == (study.digests[study.configs[0], 1],)
    assert study.plan["identity"][f"environment {name}"] != "no file"
    assert verify("s", sample=1).verdict == "identical"

    sys.modules.pop("walks_of_mine")
    loaded = load("s")
    assert (
        loaded.metrics["episode_return"].notna().any()
        and "tiny" in call("study", "status", "s")[1][0]
    )
    for action in (lambda: resume("s"), lambda: verify("s"), lambda: loaded.agent()):
        with pytest.raises(
            ConfigError, match="makes no code run by itself: give --import walks_of_mine"
        ):
            action()
    assert "walks_of_mine" not in sys.modules
    status, _, err = call("verify", "s", "--quiet", "--sample", "1")
    assert status == 2 and "--import walks_of_mine" in err[-1]
    assert call("verify", "s", "--quiet", "--sample", "1", "--import", "walks_of_mine")[0] == 0

    # Another content is another study.
    game.write_text(GAME + "\nchanged = True\n")
    with pytest.raises(dqx.study.StudyError, match=f"environment {name} was"):
        resume("s")


def test_the_command_line_names_it_and_describes_it(game):
    out = subprocess.run(
        [sys.executable, "-m", "dqx", "envs", "walks_of_mine:Walk"],
        cwd=game.parent, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert out.returncode == 0 and out.stderr == ""
    lines = out.stdout.splitlines()
    assert lines[0] == "walks_of_mine:Walk: Walk to the right end"
    assert [line.split()[:3] for line in lines[2:]] == [
        ["env.size", "int,", "compiled"],
        ["env.max_steps_in_episode", "int,", "compiled"],
        ["env.pull", "float", "0"],
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("jnp.float32(reward)", "jnp.int32(reward)",
         "Walk breaks the clause 'shapes': the reward of step_env is int32"),
        ("state.place + 2", "(state.place if state.place else 0) + 2", "Walk breaks"),
        ("jax.random.randint(key, (), 0, 2)",
         "jnp.int32(__import__('time').monotonic_ns() % 10**9)",
         "Walk breaks the clause 'determinism'"),
    ],
)  # fmt: skip
def test_a_game_that_breaks_the_contract_is_refused_in_a_line(game, old, new, message):
    assert old in GAME
    game.write_text(GAME.replace(old, new))
    (error,) = [line for line in wrong(game) if line.startswith("dqx: error")]
    assert message in error


def test_a_module_that_fails_shows_its_own_error_first(game):
    game.write_text("def f():\n    raise OSError('no such sprite')\nf()\n")
    lines = wrong(game)
    assert lines[0].startswith("Traceback") and "OSError: no such sprite" in lines
    assert (
        lines[-1].startswith("dqx: error: ")
        and "'walks_of_mine' fails when it is imported" in lines[-1]
    )


def wrong(game):
    """What training on a game says that cannot be trained on."""
    arguments = ["train", "cartpole", "--seeds", "1", "--steps", "9000", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "dqx", *arguments, "--set", "env=walks_of_mine:Walk"],
        cwd=game.parent, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and not (game.parent / "runs").exists()
    return done.stderr.splitlines()
