"""Films: greedy episodes of a stored agent, with pictures and Q-values.

>>> from dqx.report.film import film
>>> from dqx.report.reel import gif_bytes
>>> shot = film(dqx.load("runs/cartpole"), seed=3)
>>> Path("cartpole.gif").write_bytes(gif_bytes(shot))

What is played are the first episodes of the run's last evaluation, or of the one at a snapshot:
the same keys, the greedy action, and everything that is around the environment.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dqx.report.terminal import counted
from dqx.settings import ConfigError, environments, row_steps
from dqx.settings.errors import closest
from dqx.study.folder import StudyError

if TYPE_CHECKING:
    from dqx.report.playing import Game, Played
    from dqx.study.results import Study

# What pictures show: the game as people see it, or the observation that the agent sees.
VIEWS = ("game", "agent")
PICKS = ("best", "median", "worst")
_ENDS = {
    "terminated": "ended by the environment",
    "truncated": "ended by the time limit",
    "cut": "cut short",
}
# Pictures that one call of the compiled program draws.
_DRAWN = 16


class Episode(NamedTuple):
    """A greedy episode of T steps and its N pictures.

    Attributes:
        frames: uint8 ``[N, H, W, 3]``; the last one shows where the episode ended.
        times: int64 ``[N]``, rising from 0 to T: how many steps came before each picture.
        q_values: float32 ``[T, A]``, before each step.
        actions: int32 ``[T]``.
        rewards: float32 ``[T]``, as the environment gives them.
        end: ``"terminated"`` by the environment, ``"truncated"`` by the time limit, or ``"cut"``
            short after as many steps as were asked for.
    """

    frames: np.ndarray
    times: np.ndarray
    q_values: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    end: str

    @property
    def total(self) -> float:
        """The episode's return: the sum of its rewards, added up in float32 as evaluations do."""
        return float(np.cumsum(self.rewards, dtype=np.float32)[-1])

    @property
    def words(self) -> str:
        """Its return, its length and its end."""
        return f"return {self.total:g} in {counted(len(self.actions), 'step')}, {_ENDS[self.end]}"


class Film(NamedTuple):
    """Greedy episodes of one run.

    Attributes:
        config: name of the configuration.
        seed: of the run.
        step: environment steps it was trained for.
        env: name of the environment.
        action_names: A of them.
        episodes: in the order of the evaluation that they belong to.
    """

    config: str
    seed: int
    step: int
    env: str
    action_names: tuple[str, ...]
    episodes: tuple[Episode, ...]


class Pick(NamedTuple):
    """A seed that was picked by its score.

    Attributes:
        seed: of the run.
        score: of the run.
        words: how it was picked, such as ``"median of 32 seeds"``.
    """

    seed: int
    score: float
    words: str


def film(
    study: "Study",
    config: str | None = None,
    seed: int | None = None,
    *,
    step: int | None = None,
    episodes: int = 1,
    max_steps: int | None = None,
    max_frames: int = 300,
    view: str = "game",
    tell: Callable[[int, int], None] = lambda over, step: None,
) -> Film:
    """Plays greedy episodes of a stored agent, and pictures them.

    Args:
        study: that trained it.
        config: name of the configuration; None will do if there is only one.
        seed: of the run; the first that is finished if left out.
        step: of a snapshot; the final parameters if left out.
        episodes: how many. Up to ``eval_episodes`` they are those of the evaluation at that step.
        max_steps: cuts longer episodes short; None plays them to their end.
        max_frames: pictures of an episode at most, evenly spaced from the first to the last.
        view: ``"game"``, what `envs.render` draws, or ``"agent"``, the observation.
        tell: ``tell(over, step)`` is called while they are played: episodes over, steps of each.

    Raises:
        StudyError: if there is no such run or snapshot, or it has diverged.
        ConfigError: if the environment is a class of one's own whose module is not imported, or
            nothing can be drawn of it.
    """
    if view not in VIEWS:
        raise ConfigError(f"view must be one of {', '.join(VIEWS)}, got {view!r}")
    for name, value in (("episodes", episodes), ("max_steps", max_steps)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    config = pick_config(study, config)
    seed = _finished(study, config)[0]["seed"] if seed is None else seed
    agent = study.agent(config, seed, step)
    _check_finite(study, config, seed, step, agent.params)
    from dqx.core.keys import seed_key
    from dqx.report import playing

    point, hyper = study.point(config)
    root_seed = study.plan["root_seed"]
    drawn = environments.drawn(point, root_seed, [seed])
    numbers = {**hyper.extra, **{name: values[0] for name, values in drawn.items()}}
    game = playing.game_of(point, environments.inputs(point, numbers))
    trained = row_steps(point)[-1] if step is None else step
    played = playing.play(
        agent,
        game,
        seed_key(root_seed, seed),
        trained,
        episodes=episodes,
        max_steps=max_steps,
        most=max_frames,
        tell=tell,
    )
    names = _action_names(point.env, game, agent.env.num_actions)
    draw = _pictures(point.env, game, view)
    return Film(config, seed, trained, point.env, names, tuple(_episode(p, draw) for p in played))


def pick_config(study: "Study", config: str | None) -> str:
    """The name of a configuration; None will do if there is only one.

    Raises:
        StudyError: for an unknown name, with the closest, and for none where there are many.
    """
    names = study.configs
    if config is None and len(names) == 1:
        return names[0]
    shown = "; ".join(names[:10]) + (f"; ... and {len(names) - 10} more" * (len(names) > 10))
    if config is None:
        raise StudyError(f"{study.path} has {len(names)} configurations, name one: {shown}")
    if config not in names:
        raise StudyError(
            f"there is no configuration {config!r} in {study.path}{closest(config, names)}; "
            f"there are: {shown}"
        )
    return config


def pick_seed(study: "Study", config: str | None = None, which: str | int = "median") -> Pick:
    """A finished run by its place among the scores of all seeds, or by its number.

    Diverged runs count as the worst, and are passed over where a place is asked for. Of an even
    number of seeds the better of the two in the middle is the median; of equal scores the first
    seed of the plan is taken.

    Args:
        study: finished or not.
        config: name of the configuration; None will do if there is only one.
        which: ``"best"``, ``"median"``, ``"worst"`` or a seed.

    Raises:
        StudyError: if there is no such seed, or none is finished.
    """
    config = pick_config(study, config)
    runs = _finished(study, config)
    scores = {r["seed"]: np.nan if r["score"] is None else float(r["score"]) for r in runs}
    if which not in PICKS:
        seed = _known_seed(study, config, which, list(scores))
        return Pick(seed, scores[seed], "")
    lost = {run["seed"] for run in runs if run["diverged_at"] >= 0}
    ranked = sorted(
        (s for s in scores if s not in lost and np.isfinite(scores[s])), key=lambda s: -scores[s]
    )
    if not ranked:
        raise StudyError(
            f"every finished seed of {config} in {study.path} has diverged: give one by its "
            "number and --step N, a snapshot from before"
        )
    # Diverged seeds are at the end of the ranking, where nothing can be played.
    place = {"best": 0, "median": (len(scores) - 1) // 2, "worst": len(scores) - 1}[str(which)]
    seed = ranked[min(place, len(ranked) - 1)]
    count, gone = len(scores), len(scores) - len(ranked)
    words = f"{which} of {counted(count, 'seed')}"
    if gone:
        words += f", {gone} of which diverged and cannot be played"
    return Pick(seed, scores[seed], words)


def _finished(study: "Study", config: str) -> list[dict[str, Any]]:
    runs = [run for run in study.runs if run["config"] == config]
    if not runs:
        raise StudyError(
            f"no run of {config} in {study.path} is finished yet: see `dqx study status "
            f"{study.path}`"
        )
    return runs


def _known_seed(study: "Study", config: str, which: str | int, finished: Iterable[int]) -> int:
    try:
        seed = int(which)
    except ValueError:
        raise StudyError(
            f"a seed is best, median, worst or a number, got {which!r}{closest(str(which), PICKS)}"
        ) from None
    if seed not in study.seeds:
        low, high = min(study.seeds), max(study.seeds)
        some = ", ".join(map(str, study.seeds[:20]))
        is_range = len(study.seeds) == high - low + 1
        words = f"{low} to {high}" if is_range else f"{some}{', ...' * (len(study.seeds) > 20)}"
        raise StudyError(f"there is no seed {seed} in {study.path}; its seeds are {words}")
    if seed not in finished:
        raise StudyError(
            f"seed {seed} of {config} is not finished yet: see `dqx study status {study.path}`"
        )
    return seed


def _check_finite(study: "Study", config: str, seed: int, step: int | None, params: Any) -> None:
    """Refuses an agent without numbers, which has no greedy action."""
    from dqx.compute.digest import flatten

    if all(np.isfinite(leaf).all() for leaf in flatten(params).values()):
        return
    (run,) = (r for r in study.runs if (r["config"], r["seed"]) == (config, seed))
    raise StudyError(
        f"seed {seed} of {config} diverged at step {run['diverged_at']:,}: its parameters "
        f"{'at the end' if step is None else f'at step {step:,}'} are not finite, so it has no "
        "greedy action; choose another seed, or --step N of a snapshot from before"
    )


def _action_names(name: str, game: "Game", count: int) -> tuple[str, ...]:
    from dqx.report.actions import action_names

    return action_names(name, game.env, count)


def _episode(played: "Played", draw: Callable[[Any, Any], np.ndarray]) -> Episode:
    end = "terminated" if played.terminated else "truncated" if played.truncated else "cut"
    return Episode(
        draw(played.states, played.seen),
        played.times,
        played.q_values,
        played.actions,
        played.rewards,
        end,
    )


def _pictures(name: str, game: "Game", view: str) -> Callable[[Any, Any], np.ndarray]:
    """``draw(states, seen)``: pictures uint8 ``[N, H, W, 3]`` of states or observations."""
    import jax

    import envs
    from envs.pictures import observation

    def one(both: Any) -> Any:
        state, seen = both
        if view == "agent":
            return observation(seen, game.env.observation_space(game.params))
        return envs.render(game.env, state, game.params)

    many = jax.jit(lambda batch: jax.lax.map(one, batch))

    def drawn(both: Any, count: int) -> np.ndarray:
        index = np.minimum(np.arange(-(-count // _DRAWN) * _DRAWN), count - 1)
        parts = [
            np.asarray(many(jax.tree.map(lambda leaf, i=part: leaf[i], both)))
            for part in index.reshape(-1, _DRAWN)
        ]
        return np.concatenate(parts)[:count]

    def draw(states: Any, seen: Any) -> np.ndarray:
        both, count = (states, seen), len(jax.tree.leaves(states)[0])
        try:
            try:
                return drawn(both, count)
            except jax.errors.JAXTypeError:  # a method that draws with NumPy
                each = (jax.tree.map(lambda leaf, i=i: leaf[i], both) for i in range(count))
                return np.stack([np.asarray(one(state)) for state in each])
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{name} cannot be pictured: {error}") from error

    return draw
