"""How far a run is from the exact solution, on environments whose states can be listed."""

import functools
from collections.abc import Iterable, Mapping

import jax
import numpy as np

from dqx.compute import trees
from dqx.compute.build import environment_of
from dqx.settings import Config, ConfigError, Hyper, environments
from envs import exact
from envs.tabular import Model

# Of the greedy policy: its mean return over all starts; how much less that is than an optimal one;
# the share of states with an optimal action; and the largest |Q - Q*|.
EXACT_METRICS = ("exact_return", "regret", "optimal_share", "q_error")

# Enough for a discount of 0.9999.
_MAX_SWEEPS = 300_000
# Without discount a solution exists only where episodes end by themselves, and is soon found.
_UNDISCOUNTED_LIMITS = 20


class Solution:
    """The states of an environment, and what is optimal in them.

    Returns are those of whole episodes under the time limit, without discount. Q* and the actions
    called optimal are those of the discount that a run learns with, without time limit, as
    they are where truncated steps bootstrap.

    Args:
        name: of the environment, for messages.
        model: its states and their outcomes, N states and A actions.
    """

    def __init__(self, name: str, model: Model) -> None:
        self.name, self.model = name, model
        # The same numbers wherever the training runs: sums on a CPU have a fixed order.
        self._device = jax.local_devices(backend="cpu")[0]
        with jax.default_device(self._device):
            self.optimal_return = exact.optimal_return(model)
        self._q_star: dict[float, np.ndarray] = {}

    def prepare(self, gammas: Iterable[float]) -> None:
        """Solves for these discounts, each once.

        Raises:
            ConfigError: if Q* of a discount does not exist or takes too long to be found.
        """
        # As the learner has them, in float32.
        for gamma in {float(np.float32(gamma)) for gamma in gammas} - self._q_star.keys():
            sweeps = _UNDISCOUNTED_LIMITS * self.model.time_limit if gamma == 1 else _MAX_SWEEPS
            try:
                with jax.default_device(self._device):
                    self._q_star[gamma] = exact.optimal_q(self.model, gamma, max_sweeps=sweeps)
            except ValueError:
                raise ConfigError(
                    f"exact_metrics: no exact solution of {self.name} was found for gamma = "
                    f"{gamma:g} in {sweeps:,} sweeps: lower gamma or set exact_metrics = false"
                ) from None

    def measure(self, q: np.ndarray, gammas: np.ndarray) -> dict[str, np.ndarray]:
        """The metrics of L runs, float32 ``[L]`` each.

        Where Q-values are not finite, actions are chosen as greedy episodes choose them, the first
        NaN before all numbers, and only ``q_error`` is NaN.

        Args:
            q: Q-values ``[L, N, A]``.
            gammas: the discounts that they were learned with, ``[L]``.
        """
        self.prepare(gammas)
        with jax.default_device(self._device):
            rows = [self._measure(*run) for run in zip(q, gammas, strict=True)]
        columns = np.array(rows, np.float32).reshape(-1, len(EXACT_METRICS)).T
        return dict(zip(EXACT_METRICS, columns, strict=True))

    def _measure(self, q: np.ndarray, gamma: float) -> tuple[float, ...]:
        q_star = self._q_star[float(np.float32(gamma))]
        finite = np.isfinite(q).all()
        error = exact.max_abs_error(q, q_star) if finite else np.nan
        chosen = q if finite else np.eye(self.model.num_actions)[np.argmax(q, axis=1)]
        value = exact.greedy_return(self.model, chosen)
        return value, self.optimal_return - value, exact.optimal_share(chosen, q_star), error


def solution_of(config: Config, inputs: Mapping[str, float] | None = None) -> Solution:
    """The solution of a configuration's environment, worked out on first use.

    Args:
        config: which environment, with which options.
        inputs: values of its parameters that are inputs of the programs; defaults if left out.

    Raises:
        ConfigError: if its states are too many to be listed, or the inputs change which there are.
    """
    game = Config(env=config.env, env_options=config.env_options, time_limit=config.time_limit)
    base = _solution(game, ())
    if not inputs:
        return base
    found = _solution(game, tuple(sorted(inputs.items())))
    if not trees.equal(found.model.states, base.model.states):
        values = ", ".join(f"{environments.PREFIX}{n}={v:g}" for n, v in sorted(inputs.items()))
        raise ConfigError(
            f"exact_metrics: with {values} other states can be reached than by default, and one "
            "program lists the same for all: choose values that leave them, or set exact_metrics = "
            "false"
        )
    return found


@functools.lru_cache(maxsize=256)
def _solution(game: Config, inputs: tuple[tuple[str, float], ...]) -> Solution:
    model = environment_of(game).at(dict(inputs)).model
    assert model is not None  # see `check_listable`
    try:
        return Solution(game.env, model())
    except ValueError as error:
        raise ConfigError(f"exact_metrics: {error}; or set exact_metrics = false") from None


def exact_metrics(config: Config, hypers: Hyper, q: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics of L runs, float32 ``[L]`` each, every run against the solution of its own game.

    Args:
        config: of all runs.
        hypers: of the runs, ``[L]``.
        q: Q-values ``[L, N, A]``.
    """
    gammas = np.asarray(hypers.gamma)
    if not config.env_inputs:
        return solution_of(config).measure(q, gammas)
    rows = [
        solution_of(config, _inputs(config, hypers, i)).measure(q[i : i + 1], gammas[i : i + 1])
        for i in range(len(q))
    ]
    return {name: np.concatenate([row[name] for row in rows]) for name in EXACT_METRICS}


def _inputs(config: Config, hypers: Hyper, index: int) -> dict[str, float]:
    """The inputs of one run, as it has them, in float32."""
    numbers = {name: np.float32(np.asarray(v)[index]) for name, v in hypers.extra.items()}
    return environments.inputs(config, numbers)


def check_listable(config: Config) -> None:
    """Refuses exact metrics where there are none; quick, unlike `check_solvable`.

    Raises:
        ConfigError: if the states of the environment cannot be listed.
    """
    if config.exact_metrics and environment_of(config).model is None:
        raise ConfigError(
            "exact_metrics need an environment whose states can be listed, and those of "
            f"{config.env} cannot: choose Taxi, WallDodge, FrozenLake-misc or FourRooms-misc, give "
            "yours the methods of envs.tabular.Enumerable, or set exact_metrics = false"
        )


def check_solvable(config: Config, hypers: Hyper) -> None:
    """Solves what the exact metrics of runs will need, before anything is trained.

    Args:
        config: of all runs.
        hypers: of the runs, ``[L]``.

    Raises:
        ConfigError: if there is no such solution.
    """
    if config.exact_metrics:
        for index, gamma in enumerate(np.asarray(hypers.gamma)):
            solution_of(config, _inputs(config, hypers, index)).prepare([float(gamma)])
