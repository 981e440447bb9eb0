"""What proposes candidates: Optuna, or the record of what it has proposed."""

import contextlib
import importlib.metadata
import importlib.util
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dqx.settings import ConfigError
from dqx.study.draws import Rule
from dqx.study.tuning.file import Tune

INSTALL = "pip install 'dqx[tune]'"


def check_installed(sampler: str) -> None:
    """Raises `ConfigError`, with the command to install it, if Optuna or what it needs is not."""
    wanted = {"optuna": "Optuna"} | ({"cmaes": "cmaes"} if sampler == "cmaes" else {})
    missing = [name for module, name in wanted.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ConfigError(f"dqx tune needs {' and '.join(missing)}, not installed here: {INSTALL}")


def version(sampler: str) -> str:
    """What proposes, in words that tell one version from another."""
    names = ["optuna", *(["cmaes"] if sampler == "cmaes" else [])]
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


class Optuna:
    """Asks Optuna for a generation at a time.

    Its state is a function of the tune file and of the values told so far: nothing of it is kept,
    it is asked and told again from the beginning.

    Args:
        tune: what is searched.

    Raises:
        ConfigError: if it is not installed.
    """

    def __init__(self, tune: Tune) -> None:
        check_installed(tune.sampler)
        import optuna

        self._tune = tune
        self._asked: list[Any] = []
        self._distributions = {field: _distribution(rule) for field, rule in tune.space.items()}
        with _quiet():
            self._study = optuna.create_study(direction="maximize", sampler=_sampler(tune))

    def ask(self, generation: int) -> list[dict[str, Any]]:
        """The candidates of the next generation."""
        del generation  # they come in turn
        with _quiet():
            count = self._tune.population
            self._asked = [self._study.ask(self._distributions) for _ in range(count)]
        rules = self._tune.space
        return [
            {field: _value(rules[field], trial.params[field]) for field in rules}
            for trial in self._asked
        ]

    def tell(self, values: Sequence[float | None]) -> None:
        """What they are worth, in the order in which they were asked for."""
        import optuna

        with _quiet():
            for trial, value in zip(self._asked, values, strict=True):
                failed = optuna.trial.TrialState.FAIL if value is None else None
                self._study.tell(trial, value, state=failed)


class Recorded:
    """Gives what was proposed before.

    Args:
        read: ``read(generation)`` gives the candidates; it raises `Unfinished` if there are none.
    """

    def __init__(self, read: Callable[[int], list[dict[str, Any]]]) -> None:
        self._read = read

    def ask(self, generation: int) -> list[dict[str, Any]]:
        """The candidates of a generation."""
        return self._read(generation)

    def tell(self, values: Sequence[float | None]) -> None:
        """Nothing hangs on what they are worth."""


def _distribution(rule: Rule) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if rule.kind == "choice":
        # Their places, since Optuna takes no lists; `_value` looks them up.
        return CategoricalDistribution(list(range(len(rule.values))))
    low, high = rule.values
    return FloatDistribution(float(low), float(high), log=rule.kind == "log_uniform")


def _value(rule: Rule, drawn: Any) -> Any:
    return rule.values[drawn] if rule.kind == "choice" else rule.rounded(drawn)


def _sampler(tune: Tune) -> Any:
    """The sampler; the first generation is uniform with each of them."""
    from optuna import samplers

    if tune.sampler == "random":
        return samplers.RandomSampler(seed=tune.seed)
    if tune.sampler == "cmaes":
        return samplers.CmaEsSampler(
            seed=tune.seed, popsize=tune.population, warn_independent_sampling=False
        )
    # A generation is asked for at once: without `constant_liar` its candidates would crowd.
    return samplers.TPESampler(
        seed=tune.seed,
        n_startup_trials=tune.population,
        multivariate=True,
        constant_liar=True,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Optuna from writing to the terminal, and leaves its settings as they were."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            # What it calls experimental is pinned.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
