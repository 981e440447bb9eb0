"""`Config` is static and decides what is compiled; `Hyper` is traced and differs by lane.

All periods are counted in environment steps, summed over the parallel environments of one seed.
"""

import dataclasses
import functools
import importlib.resources
import math
import tomllib
import types
import typing
from typing import Any

from flax import struct

from dqx.checks import ConfigError, check_annealed, check_periods, check_variants, closest

EXPLORATION_SCHEDULES = ("constant", "linear", "exponential", "per_episode")
LOSSES = ("squared", "huber", "keras_mse")
NETWORKS = ("mlp", "nature_cnn", "minatar_cnn", "coarse_cnn", "embedding", "table")
CONVOLUTIONS = ("blocks", "plain")
POLICIES = (
    "epsilon_greedy", "greedy", "boltzmann", "max_boltzmann", "boltzmann_gumbel", "softmax",
)  # fmt: skip
SAMPLINGS = ("uniform", "newest")
OPTIMIZERS = ("adam", "sgd", "rmsprop")
ACTIVATIONS = ("relu", "tanh", "swish")
INITIALIZERS = ("lecun_normal", "glorot_uniform", "torch")


def _doc(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"doc": text})


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything static: sizes, periods and switches. A change here compiles anew."""

    env: str = _doc("CartPole-v1", "environment, a name that `dqx envs` lists")
    network: str = _doc(
        "mlp",
        "Q-network: mlp; nature_cnn (32 8x8/4, 64 4x4/2, 64 3x3/1), minatar_cnn (16 3x3/1) or "
        "coarse_cnn (32 8x8/8, 64 4x4/2) for frames; embedding or table for category numbers",
    )
    hidden_sizes: tuple[int, ...] = _doc((120, 84), "units of each hidden dense layer")
    convolution: str = _doc(
        "blocks", "how it is computed: blocks (matrix products) or plain (XLA's); same parameters"
    )
    scale_pixels: bool = _doc(False, "divide uint8 frames by 255; else they are taken as they are")
    embedding_size: int = _doc(10, "numbers that stand for a category, of network embedding")
    initial_q: float = _doc(0.0, "every value of a table at the start; high values are optimistic")
    activation: str = _doc("relu", "of the hidden layers: relu, tanh or swish")
    initializer: str = _doc("lecun_normal", "of the weights: lecun_normal, glorot_uniform or torch")
    num_envs: int = _doc(1, "parallel environments of one seed")
    total_steps: int = _doc(
        500_000, "budget of one seed, in environment steps over all its num_envs"
    )
    learning_starts: int = _doc(10_000, "steps of uniformly random actions before learning starts")
    train_period: int = _doc(10, "steps from one round of updates to the next")
    updates_per_train: int = _doc(1, "updates a round")
    batch_size: int = _doc(128, "transitions an update")
    replay_capacity: int = _doc(10_000, "transitions the replay of one seed holds")
    sampling: str = _doc(
        "uniform", "of the replay: uniform, or newest (each round's transitions once, in order)"
    )
    target_period: int = _doc(
        500, "steps from one target update to the next; one a round of updates at most"
    )
    log_period: int = _doc(10_000, "steps from one row of metrics to the next")
    eval_period: int = _doc(50_000, "steps from one greedy evaluation to the next; 0: never")
    eval_episodes: int = _doc(10, "whole episodes an evaluation")
    eval_states: int = _doc(
        0, "states of random play, the same in all evaluations of a seed, for eval_q_max; 0: none"
    )
    exact_metrics: bool = _doc(
        False,
        "compare every evaluation with the exact solution, where the environment's states can be "
        "listed",
    )
    double: bool = _doc(
        False, "Double DQN: the online network selects the action the target network values"
    )
    loss: str = _doc(
        "squared", "of the TD error: squared, huber, or keras_mse (squared / number of actions)"
    )
    optimizer: str = _doc("adam", "adam, sgd (with Hyper.momentum) or rmsprop")
    policy: str = _doc(
        "epsilon_greedy",
        "of acting: epsilon_greedy, greedy, boltzmann, max_boltzmann (with probability epsilon "
        "boltzmann, else greedy), boltzmann_gumbel, or softmax (boltzmann of temperature 1)",
    )
    exploration: str = _doc(
        "linear", "epsilon's schedule: constant, linear, exponential or per_episode"
    )
    epsilon_ladder: bool = _doc(
        False, "environment i of num_envs takes epsilon ** (1 + ladder_power * i / (num_envs - 1))"
    )
    annealed: tuple[str, ...] = _doc(
        (), "hyperparameters that go linearly to anneal_scale times their value, over anneal_steps"
    )
    time_limit_is_terminal: bool = _doc(
        False, "treat time limits as terminations, as the articles do"
    )
    chunk_width: int | None = _doc(
        None, "seeds trained side by side on one device; none: the device's default"
    )

    def __post_init__(self) -> None:
        # Lists would be equal to no tuple, and could not be hashed.
        for name, value in vars(self).items():
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))


class Hyper(struct.PyTreeNode):
    """Traced floats: a sweep over them never recompiles. An infinite limit means no limit."""

    learning_rate: float = _doc(2.5e-4, "step size of the optimizer before any decay")
    learning_rate_decay: float = _doc(0.0, "the step size is learning_rate / (1 + decay * updates)")
    gamma: float = _doc(0.99, "discount a step")
    epsilon_start: float = _doc(1.0, "probability of a random action at the start")
    epsilon_end: float = _doc(0.05, "and at the end of its schedule")
    epsilon_steps: float = _doc(
        250_000.0, "length (linear) or time constant (exponential) in environment steps"
    )
    epsilon_decay: float = _doc(0.995, "factor an episode of the schedule per_episode")
    ladder_power: float = _doc(7.0, "of epsilon_ladder, that of its last environment less 1")
    temperature: float = _doc(
        1.0, "of boltzmann and max_boltzmann; of boltzmann_gumbel C, the spread of returns"
    )
    visit_power: float = _doc(
        0.0, "a table's step size is learning_rate / visits ** visit_power; 1: the mean of targets"
    )
    anneal_steps: float = _doc(100_000.0, "environment steps that what is annealed takes")
    anneal_scale: float = _doc(0.0, "factor that what is annealed ends at")
    tau: float = _doc(1.0, "share of the online parameters in a target update; 1: a hard copy")
    max_grad_norm: float = _doc(math.inf, "largest global norm of the gradient")
    reward_clip: float = _doc(math.inf, "largest magnitude of a reward in the update")
    td_error_clip: float = _doc(math.inf, "largest magnitude of a TD error in the update")
    huber_delta: float = _doc(1.0, "where the Huber loss turns linear; infinite: half the square")
    momentum: float = _doc(0.0, "of sgd and rmsprop")
    rmsprop_decay: float = _doc(0.9, "of rmsprop's mean square")
    optimizer_epsilon: float = _doc(1e-8, "added to adam's denominator, and under rmsprop's root")


CONFIG_FIELDS: dict[str, dataclasses.Field] = {f.name: f for f in dataclasses.fields(Config)}
HYPER_FIELDS: dict[str, dataclasses.Field] = {f.name: f for f in dataclasses.fields(Hyper)}


def preset(name: str) -> tuple[Config, Hyper]:
    """The configuration of a preset, such as ``"cartpole"`` or ``"cartpole/cleanrl"``.

    Raises:
        ConfigError: if there is no such preset; the message lists the closest.
    """
    tables = _preset_tables()
    if name not in tables:
        raise ConfigError(
            f"unknown preset {name!r}{closest(name, tables)}; `dqx presets` lists them all"
        )
    return override(Config(), Hyper(), **tables[name])


def preset_names() -> tuple[str, ...]:
    """The names of all presets, sorted."""
    return tuple(sorted(_preset_tables()))


def override(config: Config, hyper: Hyper, **fields: Any) -> tuple[Config, Hyper]:
    """Replaces fields of either by name.

    Raises:
        ConfigError: for a name that neither has, or a value of the wrong type.
    """
    config_changes: dict[str, Any] = {}
    hyper_changes: dict[str, Any] = {}
    for name, value in fields.items():
        changes = config_changes if name in CONFIG_FIELDS else hyper_changes
        changes[name] = _typed(name, value)
    return dataclasses.replace(config, **config_changes), hyper.replace(**hyper_changes)


def parse_field(name: str, text: str) -> Any:
    """A field's value from command-line text such as ``1e-3``, ``64,64``, ``true``, ``none``.

    Raises:
        ConfigError: for an unknown field or a text that is no value of its type.
    """
    kind = field_type(name)
    text = text.strip()
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind is str:
            return text
        if kind in (tuple[int, ...], tuple[str, ...]):
            item = _whole if kind == tuple[int, ...] else str.strip
            return tuple(item(part) for part in text.strip("()[]").split(",") if part.strip())
        if kind is float:
            return float(text)
        if kind == int | None and text.lower() == "none":
            return None
        return _whole(text)
    except (KeyError, ValueError):
        raise ConfigError(f"{name} = {text!r} is not {_TYPE_WORDS[kind]}") from None


def field_type(name: str) -> Any:
    """The type of a field of `Config` or `Hyper`; `ConfigError` if neither has it."""
    if name in CONFIG_FIELDS:
        return _config_types()[name]
    if name in HYPER_FIELDS:
        return float
    raise ConfigError(f"unknown field {name!r}{closest(name, [*CONFIG_FIELDS, *HYPER_FIELDS])}")


def validate(config: Config, hyper: Hyper) -> None:
    """Checks types, ranges and how the periods fit, on the host, before anything compiles.

    Raises:
        ConfigError: on the first thing that is wrong, naming the field, the value, what is allowed,
            and what to do.
    """
    for name in CONFIG_FIELDS:
        _typed(name, getattr(config, name))
    for name in HYPER_FIELDS:
        _check_hyper(name, getattr(hyper, name))
    _check_names(config)
    _check_sizes(config)
    check_periods(config)
    check_variants(config, hyper)
    _check_annealed(config, hyper)


_TYPE_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    tuple[int, ...]: "a list of whole numbers, such as 120,84",
    tuple[str, ...]: "a list of names, such as learning_rate,temperature",
    int | None: "a whole number or none",
}

_POSITIVE = (
    "num_envs", "total_steps", "train_period", "updates_per_train", "batch_size", "replay_capacity",
    "target_period", "log_period", "eval_episodes", "embedding_size",
)  # fmt: skip


@functools.cache
def _config_types() -> dict[str, Any]:
    return typing.get_type_hints(Config)


@functools.cache
def _preset_tables() -> dict[str, dict[str, Any]]:
    tables: dict[str, dict[str, Any]] = {}
    for file in (importlib.resources.files("dqx") / "presets").iterdir():
        if file.name.endswith(".toml"):
            tables.update(tomllib.loads(file.read_text(encoding="utf-8")))
    return tables


def _whole(text: str) -> int:
    """Accepts 500000, 500_000 and 5e5, but nothing with a fraction."""
    number = float(text)
    if not number.is_integer():
        raise ValueError(text)
    return int(number) if "e" in text.lower() or "." in text else int(text)


def _typed(name: str, value: Any) -> Any:
    kind = field_type(name)
    if kind is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif kind == tuple[int, ...]:
        if isinstance(value, list | tuple) and all(_is_int(item) for item in value):
            return tuple(value)
    elif kind == tuple[str, ...]:
        if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            return tuple(value)
    elif isinstance(kind, types.UnionType):
        if value is None or _is_int(value):
            return value
    elif kind is int:
        if _is_int(value):
            return value
    elif isinstance(value, kind):
        return value
    raise ConfigError(f"{name} must be {_TYPE_WORDS[kind]}, got {value!r}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_hyper(name: str, value: Any) -> None:
    try:
        if isinstance(value, bool | str | bytes):  # float() would take them
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} must be a number, got {value!r}") from None
    may_be_infinite = name in ("max_grad_norm", "reward_clip", "td_error_clip", "huber_delta")
    if math.isnan(number) or number < 0 or (math.isinf(number) and not may_be_infinite):
        limits = "at least 0 (inf: no limit)" if may_be_infinite else "finite and at least 0"
        raise ConfigError(f"{name} must be {limits}, got {number}")
    at_most_one = (
        "gamma",
        "epsilon_start",
        "epsilon_end",
        "epsilon_decay",
        "tau",
        "momentum",
        "rmsprop_decay",
        "visit_power",
    )
    if name in at_most_one and number > 1:
        raise ConfigError(f"{name} must be between 0 and 1, got {number}")
    never_zero = (
        "learning_rate",
        "epsilon_steps",
        "tau",
        "max_grad_norm",
        "reward_clip",
        "td_error_clip",
        "huber_delta",
        "optimizer_epsilon",
        "temperature",
        "anneal_steps",
    )
    if name in never_zero and number == 0:
        raise ConfigError(f"{name} must be greater than 0, got {number}")


def _check_annealed(config: Config, hyper: Hyper) -> None:
    check_annealed(config, hyper)
    for name in config.annealed:
        end = float(getattr(hyper, name)) * float(hyper.anneal_scale)
        if end == 0 and name in ("learning_rate", "temperature"):
            continue  # no update, and the greedy choice
        try:
            _check_hyper(name, end)
        except ConfigError as error:
            raise ConfigError(f"annealed: at the end {error}; change anneal_scale") from None


def _check_names(config: Config) -> None:
    allowed = {
        "network": NETWORKS,
        "convolution": CONVOLUTIONS,
        "policy": POLICIES,
        "sampling": SAMPLINGS,
        "activation": ACTIVATIONS,
        "initializer": INITIALIZERS,
        "loss": LOSSES,
        "optimizer": OPTIMIZERS,
        "exploration": EXPLORATION_SCHEDULES,
    }
    for name, names in allowed.items():
        value = getattr(config, name)
        if value not in names:
            raise ConfigError(
                f"{name} must be one of {', '.join(names)}, got {value!r}{closest(value, names)}"
            )


def _check_sizes(config: Config) -> None:
    for name in _POSITIVE:
        if getattr(config, name) < 1:
            raise ConfigError(f"{name} must be at least 1, got {getattr(config, name)}")
    if config.chunk_width is not None and config.chunk_width < 1:
        raise ConfigError(f"chunk_width must be at least 1 or none, got {config.chunk_width}")
    if any(size < 1 for size in config.hidden_sizes):
        raise ConfigError(f"hidden_sizes must all be at least 1, got {config.hidden_sizes}")
    if not math.isfinite(config.initial_q):
        raise ConfigError(f"initial_q must be finite, got {config.initial_q}")
    for name in CONFIG_FIELDS:
        value = getattr(config, name)
        if _is_int(value) and value >= 2**31:
            raise ConfigError(f"{name} must be below 2**31, got {value}: dqx counts in int32")
    updates = config.total_steps // config.train_period * config.updates_per_train
    if updates >= 2**31:
        raise ConfigError(
            f"updates_per_train {config.updates_per_train} makes {updates} updates in all, and "
            "dqx counts them in int32: stay below 2**31"
        )
    if config.eval_states < 0 or config.eval_states % config.eval_episodes:
        raise ConfigError(
            f"eval_states must be 0 or a multiple of eval_episodes {config.eval_episodes}, got "
            f"{config.eval_states}"
        )
    if config.batch_size > config.replay_capacity:
        raise ConfigError(
            f"batch_size {config.batch_size} is larger than replay_capacity "
            f"{config.replay_capacity}: raise the capacity or lower the batch"
        )
