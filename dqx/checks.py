"""How the fields of a configuration fit one another, checked on the host.

`config.validate` calls these; they know `Config` and `Hyper` by their fields only.
"""

import dataclasses
import difflib
import itertools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dqx.config import Config, Hyper

# The policies whose choices depend on epsilon.
EPSILON_POLICIES = ("epsilon_greedy", "max_boltzmann")
# Those that draw Gumbel noise.
GUMBEL_POLICIES = ("boltzmann", "max_boltzmann", "boltzmann_gumbel", "softmax")


class ConfigError(ValueError):
    """A configuration that cannot work; names the field, its value and what is allowed."""


def closest(name: str, names: Iterable[str]) -> str:
    """Words that name the closest of ``names``, to end a message; empty if none is close."""
    found = difflib.get_close_matches(str(name), list(names), n=3, cutoff=0.5)
    return f"; the closest are {', '.join(found)}" if found else ""


def check_variants(config: "Config", hyper: "Hyper") -> None:
    """Refuses switches that contradict one another, or would have no effect."""
    _check_sampling(config)
    _check_exact(config, hyper)
    if config.network == "table":
        _check_table(config, hyper)
    elif config.initial_q != 0 or float(hyper.visit_power) != 0:
        name = "initial_q" if config.initial_q != 0 else "visit_power"
        raise ConfigError(
            f"{name} is for tables, and network is {config.network!r}: "
            f"leave it at 0 or set network = table"
        )
    if config.epsilon_ladder and config.policy not in EPSILON_POLICIES:
        raise ConfigError(
            f"epsilon_ladder needs a policy with an epsilon ({' or '.join(EPSILON_POLICIES)}), "
            f"got {config.policy!r}"
        )
    if config.epsilon_ladder and config.num_envs == 1:
        raise ConfigError(
            "epsilon_ladder gives each parallel environment an epsilon of its own, and num_envs "
            "is 1: raise num_envs"
        )


def _check_exact(config: "Config", hyper: "Hyper") -> None:
    if not config.exact_metrics:
        return
    if config.eval_period == 0:
        raise ConfigError(
            "exact_metrics come with every evaluation, and eval_period is 0 (never): set it, for "
            f"example to log_period {config.log_period}"
        )
    if "gamma" in config.annealed:
        raise ConfigError(
            "exact_metrics compare with the solution for one discount: take gamma out of annealed"
        )
    if config.time_limit_is_terminal or math.isfinite(float(hyper.reward_clip)):
        what = "time limits" if config.time_limit_is_terminal else "clipped rewards"
        field = "time_limit_is_terminal" if config.time_limit_is_terminal else "reward_clip"
        raise ConfigError(
            f"exact_metrics compare with values that know no {what}: leave {field} at its default "
            "or set exact_metrics = false"
        )


def _check_sampling(config: "Config") -> None:
    if config.sampling != "newest":
        return
    if config.batch_size != config.train_period:
        raise ConfigError(
            "sampling = newest learns from every transition once, so batch_size must be "
            f"train_period {config.train_period}, got {config.batch_size}"
        )
    if config.updates_per_train != 1:
        raise ConfigError(
            "sampling = newest learns from every transition once, so updates_per_train must be 1, "
            f"got {config.updates_per_train}"
        )


def _check_table(config: "Config", hyper: "Hyper") -> None:
    missing = {
        "double": "target network",
        "loss": "loss but the TD error itself",
        "optimizer": "optimizer",
        "tau": "target network",
        "max_grad_norm": "gradient",
        "momentum": "optimizer",
    }
    for name, what in missing.items():
        owner: Any = config if hasattr(config, name) else hyper
        value, default = getattr(owner, name), getattr(type(owner)(), name)
        if (value if owner is config else float(value)) != default:
            shown, usual = (str(x).lower() for x in (value, default))
            raise ConfigError(
                f"{name} = {shown} has no meaning for network = table, which has no {what}: "
                f"leave it at {usual}"
            )


def check_annealed(config: "Config", hyper: "Hyper") -> None:
    """Refuses names in ``annealed`` that are no hyperparameters or cannot change over steps."""
    allowed = [f.name for f in dataclasses.fields(hyper) if f.name not in _NEVER_ANNEALED]
    for name in config.annealed:
        if name not in allowed:
            reason = "cannot be" if name in _NEVER_ANNEALED else "is no hyperparameter to be"
            raise ConfigError(f"annealed: {name!r} {reason} annealed{closest(name, allowed)}")
        if not math.isfinite(float(getattr(hyper, name))):
            raise ConfigError(
                f"annealed: {name} is infinite, which no scale changes: give it a finite value"
            )
    if len(set(config.annealed)) < len(config.annealed):
        raise ConfigError(f"annealed names a field twice: {', '.join(config.annealed)}")


# Lengths of schedules.
_NEVER_ANNEALED = ("anneal_steps", "anneal_scale", "epsilon_steps")


def check_periods(config: "Config") -> None:
    """Refuses periods that do not divide one another, and names values that would."""
    starts = config.learning_starts
    if starts < 1:
        raise ConfigError(
            f"learning_starts must be at least 1, got {starts}: "
            "an update needs something to learn from"
        )
    if starts >= config.total_steps:
        raise ConfigError(
            f"learning_starts {starts} leaves nothing of total_steps {config.total_steps} to learn "
            f"in: lower it below {config.total_steps} or raise the budget"
        )
    if config.eval_period < 0:
        raise ConfigError(f"eval_period must be at least 0 (0: never), got {config.eval_period}")
    for divisor, multiple in _relations(config):
        if getattr(config, multiple) % getattr(config, divisor):
            raise ConfigError(_not_divisible(config, divisor, multiple))


def _relations(config: "Config") -> list[tuple[str, str]]:
    """Pairs of fields of which the first must divide the second."""
    pairs = [
        ("num_envs", "replay_capacity"),
        ("num_envs", "train_period"),
        ("train_period", "learning_starts"),
        ("train_period", "log_period"),
        ("log_period", "total_steps"),
    ]
    if config.eval_period:
        pairs += [("log_period", "eval_period"), ("eval_period", "total_steps")]
    return pairs


def _fits(config: "Config") -> bool:
    """Whether sizes and periods fit one another."""
    return (
        config.batch_size <= config.replay_capacity < 2**31
        and 1 <= config.learning_starts < config.total_steps < 2**31
        and all(getattr(config, b) % getattr(config, a) == 0 for a, b in _relations(config))
    )


def _not_divisible(config: "Config", divisor: str, multiple: str) -> str:
    """Says what does not divide what, and the nearest values that validation would accept."""
    small, large = getattr(config, divisor), getattr(config, multiple)
    around = range(large // small, max(large // small - 1000, 0), -1)
    choices = {
        multiple: [
            [small * n for n in around],
            [small * (large // small + n) for n in range(1, 1000)],
        ],
        divisor: [sorted(_divisors(large), key=lambda d: abs(d - small))],
    }
    fitting, near = [], []
    for name, lists in choices.items():
        for values in lists:
            near += [f"{name} = {value}" for value in values[:1]]
            fits = (v for v in values if _fits(dataclasses.replace(config, **{name: v})))
            fitting += [f"{name} = {value}" for value in itertools.islice(fits, 1)]
    advice = (
        f"{' or '.join(fitting)} would do"
        if fitting
        else f"{' or '.join(near)} would divide, but other fields must change too"
    )
    return f"{multiple} must be a multiple of {divisor}, but {large} is none of {small}: {advice}"


def _divisors(number: int) -> set[int]:
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return {*small, *(number // d for d in small)}
