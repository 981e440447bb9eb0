"""Whether a configuration can work: each value by its declaration, and how the fields fit."""

import math

from dqx.arguments import instance, require
from dqx.settings import environments, registry
from dqx.settings.config import Config
from dqx.settings.declared import SETTINGS, lacking, setting
from dqx.settings.errors import ConfigError, closest
from dqx.settings.field import INT_END, show, with_trait
from dqx.settings.hyper import Hyper
from dqx.settings.periods import check_rows, rounded

A_CONFIG = instance("a dqx.Config", Config)
A_HYPER = instance("a dqx.Hyper", Hyper)


def validate(config: Config, hyper: Hyper) -> None:
    """Checks types, ranges and how the fields fit, on the host, before anything compiles.

    What `rounded` would change is no mistake: the rules are those for the rounded values.

    Raises:
        ConfigError: on the first thing that is wrong, naming the field, the value, what is allowed,
            and what to do.
    """
    require(ConfigError, config=(config, A_CONFIG), hyper=(hyper, A_HYPER))
    for declared in SETTINGS.values():
        declared.check(getattr(hyper if declared.traced else config, declared.name))
    _check_extra(config, hyper)
    config, _ = rounded(config)
    _check_owners(config, hyper)
    own = registry.agent(config.agent)
    if own.check is not None:
        own.check(config, hyper)
    _check_sizes(config)
    check_rows(config)
    _check_sampling(config)
    _check_target(config)
    _check_exact(config, hyper)
    _check_diagnostics(config)
    _check_ladder(config)
    _check_annealed(config, hyper)


def _check_extra(config: Config, hyper: Hyper) -> None:
    """Refuses what is none of the agent's own settings, or not allowed."""
    given = [(name, value, False) for name, value in config.extra]
    given += [(n, v, True) for n, v in hyper.extra.items() if not environments.is_own(n)]
    for name, value, traced in given:
        declared = setting(name)
        home = "Hyper" if declared.traced else "Config"
        if not declared.own:
            raise ConfigError(f"extra: {name} is no agent's own setting: set the field of {home}")
        if declared.traced != traced:
            raise ConfigError(f"extra: {name} belongs into the extra of {home}: use override")
        if name in registry.own_settings(config.agent):
            declared.check(value)
        elif declared.typed(value) != declared.default:
            names = registry.owners(name)
            agents = f"agent{'s' if len(names) > 1 else ''} {' and '.join(names)}"
            raise ConfigError(
                f"{name} belongs to {agents}, and agent is {config.agent}: leave it out or choose "
                "another agent"
            )


def _check_owners(config: Config, hyper: Hyper) -> None:
    """Refuses what would have no effect: a setting whose owner is not chosen."""
    for declared in SETTINGS.values():
        value = declared.typed(getattr(hyper if declared.traced else config, declared.name))
        missing = None if value == declared.default else lacking(config, declared)
        if missing is not None:
            selector, trait = missing
            names = ", ".join(SETTINGS[selector].having(trait))
            raise ConfigError(
                f"{declared.name} = {show(value)} belongs to {with_trait(selector, trait)} "
                f"({names}), and {selector} is {getattr(config, selector)}: leave it at "
                f"{show(declared.default)} or choose another {selector}"
            )


def _check_sizes(config: Config) -> None:
    updates = config.total_steps // config.train_period * config.updates_per_train
    if updates >= INT_END:
        raise ConfigError(
            f"updates_per_train {config.updates_per_train} makes {updates} updates in all, and "
            "dqx counts them in int32: stay below 2**31"
        )
    if _has_replay(config) and config.batch_size > config.replay_capacity:
        raise ConfigError(
            f"batch_size {config.batch_size} is larger than replay_capacity "
            f"{config.replay_capacity}: raise the capacity or lower the batch"
        )


def _has_replay(config: Config) -> bool:
    return lacking(config, SETTINGS["replay_capacity"]) is None


def _check_sampling(config: Config) -> None:
    if "order" not in SETTINGS["sampling"].has(config.sampling):
        return
    what = f"sampling = {config.sampling} learns from every transition once, so"
    if config.batch_size != config.train_period:
        raise ConfigError(
            f"{what} batch_size must be train_period {config.train_period}, got {config.batch_size}"
        )
    if config.updates_per_train != 1:
        raise ConfigError(f"{what} updates_per_train must be 1, got {config.updates_per_train}")
    late = (config.n_step - 1) * config.num_envs
    what = f"sampling = {config.sampling} learns from {config.n_step} steps when all are known, so"
    if config.learning_starts < late:
        raise ConfigError(
            f"{what} learning_starts must be at least {late}, (n_step - 1) * num_envs, got "
            f"{config.learning_starts}"
        )
    if config.train_period + late > config.replay_capacity:
        raise ConfigError(
            f"{what} replay_capacity must be at least {config.train_period + late}, got "
            f"{config.replay_capacity}"
        )


def _check_target(config: Config) -> None:
    """Refuses target rules beside what they cannot be combined with, and steps that cannot be."""
    if _has_replay(config) and config.n_step * config.num_envs > config.replay_capacity:
        raise ConfigError(
            f"n_step {config.n_step} of {config.num_envs} environments is more than "
            f"replay_capacity {config.replay_capacity} holds: lower it or raise the capacity"
        )
    if config.target == "munchausen" and config.n_step > 1:
        raise ConfigError(
            "target = munchausen adds the log of the policy to every reward, and of the steps "
            f"between only rewards are known: set n_step = 1, got {config.n_step}"
        )
    if config.target == "munchausen" and config.double:
        raise ConfigError(
            "target = munchausen takes the mean over a soft policy, and double says who selects "
            "one action: leave double at false"
        )
    if config.target == "expected_sarsa" and (
        config.policy != "epsilon_greedy" or config.epsilon_ladder
    ):
        given = "epsilon_ladder" if config.epsilon_ladder else f"policy = {config.policy}"
        raise ConfigError(
            "target = expected_sarsa is the mean over policy = epsilon_greedy with one epsilon, "
            f"got {given}: choose another target or that policy"
        )


_UNKNOWN_TO_EXACT = {
    "time_limit_is_terminal": "time limits",
    "reward_clip": "clipped rewards",
    "reward_scale": "scaled rewards",
    "frame_stack": "stacked observations",
    "action_repeat": "repeated actions",
    "sticky_actions": "sticky actions",
}


def _check_exact(config: Config, hyper: Hyper) -> None:
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
    best = SETTINGS["target"].having("best policy")
    if config.target not in best:
        raise ConfigError(
            "exact_metrics compare with the values of the best policy, and those that target = "
            f"{config.target} learns are others: set target = {' or '.join(best)} or "
            "exact_metrics = false"
        )
    for name, what in _UNKNOWN_TO_EXACT.items():
        declared = SETTINGS[name]
        value = getattr(hyper if declared.traced else config, name)
        if declared.typed(value) != declared.default:
            raise ConfigError(
                f"exact_metrics compare with values that know no {what}: leave {name} at its "
                "default or set exact_metrics = false"
            )


# The traits that an agent needs for a diagnostic.
_DIAGNOSED = {
    "dormant_units": ("network",),
    "effective_rank": ("network",),
    "replay_age": ("replay",),
    "target_distance": ("target",),
}


def _check_diagnostics(config: Config) -> None:
    """Refuses diagnostics of what there is not."""
    asked = config.diagnostics
    if len(set(asked)) < len(asked):
        raise ConfigError(f"diagnostics names one twice: {', '.join(asked)}")
    for name in asked:
        traits = _DIAGNOSED.get(name, ())
        has = SETTINGS["agent"].has(config.agent)
        trait = next((trait for trait in traits if trait not in has), None)
        if trait is not None:
            names = ", ".join(SETTINGS["agent"].having(trait))
            raise ConfigError(
                f"diagnostics: {name} needs {with_trait('agent', trait)} ({names}), and agent is "
                f"{config.agent}: leave it out or choose another agent"
            )
        if "network" in traits and not (config.hidden_sizes or "frames" in _network_traits(config)):
            raise ConfigError(
                f"diagnostics: {name} needs hidden units, and network {config.network} with "
                "hidden_sizes = none has none: leave it out or give sizes"
            )
    if "overestimation" not in asked:
        return
    if config.eval_period == 0:
        raise ConfigError(
            "diagnostics: overestimation is measured in evaluations, and eval_period is 0 (never): "
            f"set it, for example to log_period {config.log_period}"
        )
    if config.target == "munchausen":
        raise ConfigError(
            "diagnostics: overestimation compares Q-values with discounted rewards, and those of "
            "target = munchausen hold the log of the policy too: leave it out or choose another "
            "target"
        )


def _network_traits(config: Config) -> tuple[str, ...]:
    return SETTINGS["network"].has(config.network)


def _check_ladder(config: Config) -> None:
    policies = SETTINGS["policy"].having("epsilon")
    if config.epsilon_ladder and config.policy not in policies:
        raise ConfigError(
            f"epsilon_ladder needs a policy with an epsilon ({' or '.join(policies)}), "
            f"got {config.policy!r}"
        )
    if config.epsilon_ladder and config.num_envs == 1:
        raise ConfigError(
            "epsilon_ladder gives each parallel environment an epsilon of its own, and num_envs "
            "is 1: raise num_envs"
        )


def _check_annealed(config: Config, hyper: Hyper) -> None:
    """Refuses what is no hyperparameter, cannot change, has no effect, or leaves its range."""
    known = dict(SETTINGS)
    if not known.keys() >= set(config.annealed):
        known.update(registry.own_settings(config.agent))
    known = {name: declared for name, declared in known.items() if declared.traced}
    allowed = [name for name, declared in known.items() if declared.anneals]
    for name in config.annealed:
        if name not in allowed:
            reason = "cannot be" if name in known else "is no hyperparameter to be"
            raise ConfigError(f"annealed: {name!r} {reason} annealed{closest(name, allowed)}")
        missing = None if known[name].own else lacking(config, known[name])
        if missing is not None:
            selector, trait = missing
            raise ConfigError(
                f"annealed: {name} belongs to {with_trait(selector, trait)}, and {selector} is "
                f"{getattr(config, selector)}: leave it out or choose another {selector}"
            )
        value = float(getattr(hyper, name))
        if not math.isfinite(value):
            raise ConfigError(
                f"annealed: {name} is infinite, which no scale changes: give it a finite value"
            )
        end = value * float(hyper.anneal_scale)
        if end == 0 and known[name].fades:
            continue
        try:
            known[name].check(end)
        except ConfigError as error:
            raise ConfigError(f"annealed: at the end {error}; change anneal_scale") from None
    if len(set(config.annealed)) < len(config.annealed):
        raise ConfigError(f"annealed names a field twice: {', '.join(config.annealed)}")
