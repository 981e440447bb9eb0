"""What must divide is rounded up; and the steps at which a run has rows and evaluations.

Actions come in steps of all environments, and updates at the ends of rounds: a period in between
would never be met.
"""

import dataclasses
import functools
from typing import Any

from dqx.settings.config import Config
from dqx.settings.declared import SETTINGS, lacking
from dqx.settings.errors import ConfigError
from dqx.settings.field import INT_END, Setting, show
from dqx.settings.hyper import Hyper

# Rows of metrics that a run has at most.
MAX_ROWS = 1_000_000


def rounded(config: Config) -> tuple[Config, tuple[str, ...]]:
    """Rounds sizes and periods up to the next multiples of what they have to be multiples of.

    Returns:
        The configuration to train, and one line a change, such as "log_period 100 is rounded up to
        112, the next multiple of train_period 16".

    Raises:
        ConfigError: if a size or period is not allowed, or would no longer fit into int32.
    """
    values: dict[str, Any] = {}
    lines = []
    for setting in _in_order():
        name, of = setting.name, setting.rounds_to
        value = values[name] = setting.check(getattr(config, name))
        if of is None or value % values[of] == 0 or lacking(config, setting) is not None:
            continue
        values[name] = -(-value // values[of]) * values[of]
        change = f"{values[name]:,}, the next multiple of {of} {values[of]:,}"
        if values[name] >= INT_END:
            raise ConfigError(
                f"{name} must be below 2**31, got {value}, which is rounded up to {change}: lower "
                "it, since dqx counts in int32"
            )
        lines.append(f"{name} {value:,} is rounded up to {change}")
    return dataclasses.replace(config, **values) if lines else config, tuple(lines)


# By what other field a setting is read, and by which of its choices.
_READERS = {
    "epsilon_steps": ("epsilon_schedule", ("linear", "exponential")),
    "optimizer_epsilon": ("optimizer", ("adam", "radam", "rmsprop")),
    "huber_delta": ("loss", ("huber",)),
    "momentum": ("optimizer", ("sgd", "rmsprop")),
    "rmsprop_decay": ("optimizer", ("rmsprop",)),
    "temperature": ("policy", ("boltzmann", "max_boltzmann", "boltzmann_gumbel")),
    "ladder_power": ("epsilon_ladder", (True,)),
    "epsilon_decay": ("epsilon_schedule", ("per_episode",)),
}


def notes(config: Config, hyper: Hyper) -> tuple[str, ...]:
    """What is allowed and hardly meant, one line each; for a configuration that is valid.

    A setting that nothing reads may be there for another configuration of the same study.
    """
    config, _ = rounded(config)
    lines = []
    if config.learning_starts >= config.total_steps:
        lines.append(
            f"learning_starts {config.learning_starts:,} is not below total_steps "
            f"{config.total_steps:,}: every action is random and nothing is learned"
        )
    for name, (reader, choices) in _READERS.items():
        chosen, value = getattr(config, reader), getattr(hyper, name)
        unread = chosen not in choices and lacking(config, SETTINGS[reader]) is None
        if not unread:
            continue
        why = f"{reader} is {show(chosen)}, and it is read with {' or '.join(map(show, choices))}"
        if SETTINGS[name].typed(value) != SETTINGS[name].default:
            lines.append(f"{name} = {show(value)} has no effect: {why}")
        elif name in config.annealed:
            lines.append(f"annealed: {name} has no effect: {why}")
    for name in () if config.annealed else ("anneal_scale", "anneal_steps"):
        value = getattr(hyper, name)
        if SETTINGS[name].typed(value) != SETTINGS[name].default:
            lines.append(f"{name} = {show(value)} has no effect: annealed names no hyperparameter")
    return tuple(lines)


def check_rows(config: Config) -> None:
    """Refuses periods so short that nobody could hold a run's rows.

    Raises:
        ConfigError: naming the periods.
    """
    period, last = (
        min(config.log_period, config.eval_period or config.log_period),
        config.total_steps,
    )
    if last // period > MAX_ROWS:
        name = "log_period" if period == config.log_period else "eval_period"
        raise ConfigError(
            f"{name} {period:,} makes {last // period:,} rows of metrics in total_steps {last:,}, "
            f"at most {MAX_ROWS:,} are allowed: raise it"
        )


def row_steps(config: Config) -> list[int]:
    """The steps at which a run has a row of metrics, rising.

    They are the multiples of log_period and of eval_period, if that is not 0, and the last step.
    """
    last = config.total_steps
    steps = {last, *range(config.log_period, last, config.log_period)}
    if config.eval_period:
        steps.update(range(config.eval_period, last, config.eval_period))
    return sorted(steps)


def evaluates_at(config: Config, step: int) -> bool:
    """Whether there is a greedy evaluation at a step: at multiples of eval_period, and the last."""
    period = config.eval_period
    return period > 0 and (step % period == 0 or step == config.total_steps)


@functools.cache
def _in_order() -> tuple[Setting, ...]:
    """The settings that are rounded or rounded to, each after what it is rounded to."""
    bases = {setting.rounds_to for setting in SETTINGS.values()}
    involved = [s for s in SETTINGS.values() if s.rounds_to or s.name in bases]
    return tuple(sorted(involved, key=_depth))


def _depth(setting: Setting) -> int:
    return 0 if setting.rounds_to is None else 1 + _depth(SETTINGS[setting.rounds_to])
