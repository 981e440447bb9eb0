"""The settings there are: `Config` is static and decides what is compiled, `Hyper` is traced.

All periods are counted in environment steps, summed over the parallel environments of one seed.
A field is added by one line here; everything else derives from its declaration.
"""

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any

from dqx.settings import registry
from dqx.settings.environments import PREFIX
from dqx.settings.errors import ConfigError, brief, closest
from dqx.settings.field import Setting, collect, declare

# Whose a setting is: that of the agents that have one of these.
_NETWORK = ("agent", "network")
_GRADIENT = ("agent", "gradient")
_TARGET = ("agent", "target")
_TABLE = ("agent", "table")
_SOFT = ("target", "soft policy")
_SCALAR = ("agent", "scalar target")
_PRIORITIES = ("sampling", "priorities")


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything static: sizes, periods and switches. A change here compiles anew.

    A setting that an agent brings is an attribute like the others, though it is kept in ``extra``.
    """

    env: str = declare(
        "CartPole-v1",
        "environment, by a name that `dqx envs` lists, or a class of your own: module:Class",
    )
    agent: str = declare(
        "dqn",
        "agent that learns; dqn trains a network by gradients, tabular a table step by step",
        choices=registry.agent_names,
        traits=registry.agent_traits,
    )
    network: str = declare(
        "mlp",
        "Q-network; for frames: nature_cnn (32 8x8/4, 64 4x4/2, 64 3x3/1), minatar_cnn (16 3x3/1) "
        "and coarse_cnn (32 8x8/8, 64 4x4/2); for category numbers: embedding",
        choices={
            "mlp": ("pixels", "categories"),
            "nature_cnn": ("pixels", "frames"),
            "minatar_cnn": ("pixels", "frames"),
            "coarse_cnn": ("pixels", "frames"),
            "embedding": ("embedding",),
        },
        of=_NETWORK,
    )
    hidden_sizes: tuple[int, ...] = declare(
        (120, 84), "units of each hidden dense layer", low=1, of=_NETWORK
    )
    convolution: str = declare(
        "blocks",
        "way to compute it, with the same parameters: by matrix products (blocks) or as XLA does",
        choices=("blocks", "plain"),
        of=("network", "frames"),
    )
    scale_pixels: bool = declare(
        False, "division of uint8 frames by 255; else they are taken as they are",
        of=("network", "pixels"),
    )  # fmt: skip
    embedding_size: int = declare(
        10, "numbers that stand for a category", low=1, of=("network", "embedding")
    )
    initial_q: float = declare(
        0.0, "every value of a table at the start; high values are optimistic", of=_TABLE
    )
    activation: str = declare(
        "relu", "activation of the hidden layers", choices=("relu", "tanh", "swish"), of=_NETWORK
    )
    initializer: str = declare(
        "lecun_normal",
        "initializer of the weights",
        choices=("lecun_normal", "glorot_uniform", "torch"),
        of=_NETWORK,
    )
    head: str = declare(
        "plain",
        "head of the network; a dueling one adds a state's value and advantages, less their mean "
        "(dueling_avg), less their maximum (dueling_max) or as they are (dueling_naive)",
        choices={
            "plain": (),
            "dueling_avg": ("streams",),
            "dueling_max": ("streams",),
            "dueling_naive": ("streams",),
        },
        of=_NETWORK,
    )
    stream_sizes: tuple[int, ...] = declare(
        (),
        "units of hidden layers that a dueling head's streams each have to themselves; none: both "
        "come from the last hidden layer of hidden_sizes",
        low=1,
        of=("head", "streams"),
    )
    dense: str = declare(
        "plain",
        "kind of dense layers; noisy ones explore by Gaussian noise on their weights, which "
        "learning scales, and are evaluated without it",
        choices={"plain": (), "noisy": ("sigmas",)},
        of=_NETWORK,
    )
    layer_norm: bool = declare(
        False,
        "layer normalization before the activation of every hidden layer, over channels in "
        "convolutions",
        of=_NETWORK,
    )
    frame_stack: int = declare(
        1,
        "newest observations that are observed side by side along their last axis",
        low=1,
        high=256,
    )
    action_repeat: int = declare(
        1,
        "steps of the environment that an action is taken for, up to the end of the episode; "
        "together they count as one step everywhere else",
        low=1,
    )
    sticky_actions: float = declare(
        0.0,
        "probability that the environment takes the action it took last instead of the one chosen",
        low=0,
        high=1,
    )
    time_limit: int = declare(
        0,
        "steps of an episode, counted as the agent takes them, after which it is truncated; "
        "0: the environment's own limit",
        low=0,
    )
    normalize_observations: bool = declare(
        False,
        "subtraction of the mean and division by the standard deviation, of each number observed "
        "over all steps of training so far, limited to 10; for numbers, not for uint8 frames",
        of=_NETWORK,
    )
    num_envs: int = declare(1, "parallel environments of one seed", low=1)
    total_steps: int = declare(
        500_000,
        "budget of one seed, in environment steps over all its num_envs",
        low=1,
        rounds_to="train_period",
    )
    learning_starts: int = declare(
        10_000,
        "steps of uniformly random actions before learning starts",
        low=1,
        rounds_to="train_period",
    )
    train_period: int = declare(
        10, "steps from one round of updates to the next", low=1, rounds_to="num_envs"
    )
    updates_per_train: int = declare(1, "updates a round", low=1)
    batch_size: int = declare(128, "transitions an update", low=1)
    replay_capacity: int = declare(
        10_000, "transitions the replay of one seed holds", low=1, rounds_to="num_envs"
    )
    sampling: str = declare(
        "uniform",
        "sampling from the replay; prioritized draws rows by their TD errors, ranked by the ranks "
        "of these; newest takes each round's transitions once, in order",
        choices={
            "uniform": (),
            "newest": ("order",),
            "prioritized": ("priorities", "proportional priorities"),
            "ranked": ("priorities", "ranks"),
        },
    )
    rank_period: int = declare(
        1_000, "updates from one sort of the TD errors to the next", low=1, of=("sampling", "ranks")
    )
    n_step: int = declare(
        1,
        "steps whose rewards a target sums before it bootstraps; fewer up to the end of an episode "
        "and up to the newest step",
        low=1,
    )
    target_period: int = declare(
        500,
        "steps from one target update to the next; one a round of updates at most",
        low=1,
        of=_TARGET,
    )
    log_period: int = declare(
        10_000, "steps from one row of metrics to the next", low=1, rounds_to="train_period"
    )
    eval_period: int = declare(
        50_000,
        "steps from one greedy evaluation to the next, with one at the end; 0: never",
        low=0,
        rounds_to="train_period",
    )
    eval_episodes: int = declare(10, "whole episodes an evaluation", low=1)
    eval_states: int = declare(
        0,
        "states of random play, the same in all evaluations of a seed, for eval_q_max; 0: none",
        low=0,
        rounds_to="eval_episodes",
    )
    exact_metrics: bool = declare(
        False,
        "comparison of every evaluation with the exact solution, where the environment's states "
        "can be listed",
    )
    double: bool = declare(
        False,
        "Double DQN: the online network selects the action that the target network values",
        of=_TARGET,
    )
    target: str = declare(
        "max",
        "target rule: the value of the best next action (max), that of the worse of two heads "
        "(clipped_double), the mean over what epsilon_greedy would do (expected_sarsa), or over a "
        "soft policy, with the log of the policy added to the reward (munchausen)",
        choices={
            "max": (),
            "clipped_double": (),
            "expected_sarsa": (),
            "munchausen": ("soft policy",),
        },
        of=("agent", "target rule"),
    )
    value_rescaling: float = declare(
        0.0,
        "epsilon of the rescaling of values that the network learns, "
        "sign(x) (sqrt(|x| + 1) - 1) + epsilon x; 0: none",
        low=0,
        of=("agent", "rescaled values"),
    )
    loss: str = declare(
        "squared",
        "loss of the TD error; keras_mse is squared / number of actions",
        choices=("squared", "huber", "keras_mse"),
        of=_SCALAR,
    )
    optimizer: str = declare(
        "adam", "optimizer of the network", choices=("adam", "sgd", "rmsprop"), of=_GRADIENT
    )
    policy: str = declare(
        "epsilon_greedy",
        "policy of acting; max_boltzmann is boltzmann with probability epsilon, else greedy; "
        "softmax is boltzmann of temperature 1",
        choices={
            "epsilon_greedy": ("epsilon",),
            "greedy": (),
            "boltzmann": ("gumbel",),
            "max_boltzmann": ("epsilon", "gumbel"),
            "boltzmann_gumbel": ("gumbel",),
            "softmax": ("gumbel",),
        },
    )
    epsilon_schedule: str = declare(
        "linear",
        "schedule of epsilon",
        choices=("constant", "linear", "exponential", "per_episode"),
    )
    epsilon_ladder: bool = declare(
        False,
        "ladder of epsilons: environment i of num_envs takes "
        "epsilon ** (1 + ladder_power * i / (num_envs - 1))",
    )
    annealed: tuple[str, ...] = declare(
        (), "hyperparameters that go linearly to anneal_scale times their value, over anneal_steps"
    )
    time_limit_is_terminal: bool = declare(
        False, "treatment of time limits as terminations, as in the articles"
    )
    chunk_width: int | None = declare(
        None, "seeds trained side by side on one device; none: the device's default", low=1
    )
    extra: tuple[tuple[str, Any], ...] = ()
    # Of the environment: what is compiled in (before `resolved`: all that is given), and the names
    # of parameters that are inputs of the programs, with the rule of those that are drawn.
    env_options: tuple[tuple[str, Any], ...] = ()
    env_inputs: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        # Lists would be equal to no tuple, and could not be hashed.
        for name, value in vars(self).items():
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        if self.extra != ():
            object.__setattr__(self, "extra", _pairs(self.extra))

    def __getattr__(self, name: str) -> Any:
        # Only for what is no field: a setting that the agent brings. Copying and unpickling ask for
        # names before there are fields, and must get nothing else.
        fields = vars(self)
        if not name.startswith("_") and "extra" in fields:
            extra = dict(fields["extra"])
            extra |= {PREFIX + option: value for option, value in fields["env_options"]}
            if name in extra:
                return extra[name]
            try:
                own = registry.own_settings(fields["agent"]).get(name)
            except ConfigError:
                own = None
            if own is not None and not own.traced:
                return own.default
        raise AttributeError(f"Config of agent {fields.get('agent')} has no setting {name!r}")


@dataclasses.dataclass(frozen=True)
class Hyper:
    """Traced floats: a sweep over them never recompiles. An infinite limit means no limit.

    A hyperparameter that an agent brings is an attribute like the others, though it is kept in
    ``extra``.
    """

    learning_rate: float = declare(
        2.5e-4, "step size of the optimizer before any decay", above=0, fades=True
    )
    learning_rate_decay: float = declare(
        0.0, "decay of the step size, which is learning_rate / (1 + decay * updates)", low=0
    )
    gamma: float = declare(0.99, "discount a step", low=0, high=1)
    epsilon_start: float = declare(
        1.0, "probability of a random action at the start", low=0, high=1
    )
    epsilon_end: float = declare(
        0.05, "probability of a random action at the end of its schedule", low=0, high=1
    )
    epsilon_steps: float = declare(
        250_000.0,
        "length (linear) or time constant (exponential) of the schedule, in environment steps",
        above=0,
        anneals=False,
    )
    epsilon_decay: float = declare(
        0.995, "factor of epsilon an episode, of the schedule per_episode", low=0, high=1
    )
    ladder_power: float = declare(
        7.0, "power of epsilon for the last environment of epsilon_ladder, less 1", low=0
    )
    temperature: float = declare(
        1.0,
        "temperature of boltzmann and max_boltzmann; of boltzmann_gumbel C, the spread of returns",
        above=0,
        fades=True,
    )
    visit_power: float = declare(
        0.0,
        "power of a table's step size, learning_rate / visits ** visit_power; 1: the mean of "
        "targets",
        low=0,
        high=1,
        of=_TABLE,
    )
    noisy_sigma: float = declare(
        0.5,
        "deviation of a noisy weight at the start, times the root of the layer's inputs",
        above=0,
        anneals=False,
        of=("dense", "sigmas"),
    )
    priority_exponent: float = declare(
        0.6,
        "power of a priority: 0 draws all rows alike, 1 in proportion",
        low=0,
        high=1,
        of=_PRIORITIES,
    )
    priority_floor: float = declare(
        1e-6,
        "number added to the magnitude of a TD error in a priority",
        above=0,
        of=("sampling", "proportional priorities"),
    )
    importance_start: float = declare(
        0.4,
        "power of the weights that make up for uneven sampling, at the start",
        low=0,
        high=1,
        of=_PRIORITIES,
    )
    importance_end: float = declare(
        1.0, "the same at the end of its schedule", low=0, high=1, of=_PRIORITIES
    )
    importance_steps: float = declare(
        500_000.0,
        "length of its schedule, in environment steps",
        above=0,
        anneals=False,
        of=_PRIORITIES,
    )
    anneal_steps: float = declare(
        100_000.0, "environment steps that what is annealed takes", above=0, anneals=False
    )
    anneal_scale: float = declare(0.0, "factor that what is annealed ends at", low=0, anneals=False)
    tau: float = declare(
        1.0,
        "share of the online parameters in a target update; 1: a hard copy",
        above=0,
        high=1,
        of=_TARGET,
    )
    max_grad_norm: float = declare(
        math.inf, "largest global norm of the gradient", above=0, infinite=True, of=_GRADIENT
    )
    reward_scale: float = declare(
        1.0,
        "factor of rewards in the update, before reward_clip; returns are without it",
        above=0,
        anneals=False,
    )
    reward_clip: float = declare(
        math.inf, "largest magnitude of a reward in the update", above=0, infinite=True
    )
    td_error_clip: float = declare(
        math.inf,
        "largest magnitude of a TD error in the update",
        above=0,
        infinite=True,
        of=("agent", "TD error"),
    )
    munchausen_scale: float = declare(
        0.9, "factor of the log of the policy in the reward", low=0, high=1, of=_SOFT
    )
    munchausen_temperature: float = declare(
        0.03, "temperature of the soft policy, and factor of its entropy", above=0, of=_SOFT
    )
    munchausen_clip: float = declare(
        1.0,
        "largest magnitude of the log of the policy times its temperature",
        above=0,
        infinite=True,
        of=_SOFT,
    )
    huber_delta: float = declare(
        1.0,
        "point where the Huber loss turns linear; infinite: half the square",
        above=0,
        infinite=True,
        of=("agent", "Huber delta"),
    )
    momentum: float = declare(0.0, "momentum of sgd and rmsprop", low=0, high=1, of=_GRADIENT)
    rmsprop_decay: float = declare(
        0.9, "decay of rmsprop's mean square", low=0, high=1, of=_GRADIENT
    )
    optimizer_epsilon: float = declare(
        1e-8,
        "number added to adam's denominator, and under rmsprop's root",
        above=0,
        of=_GRADIENT,
    )
    # Equal ones still have equal hashes.
    extra: dict[str, float] = dataclasses.field(default_factory=dict, hash=False)

    def replace(self, **changes: Any) -> "Hyper":
        """A copy with other values, of hyperparameters that agents bring too.

        Raises:
            TypeError: for a name that is no hyperparameter.
        """
        own = {name: changes.pop(name) for name in list(changes) if name not in _HYPER_NAMES}
        for name in own:
            declared = registry.find_own(name)
            if name not in self.extra and (declared is None or not declared.traced):
                raise TypeError(f"Hyper has no hyperparameter {name!r}")
        if own:
            changes["extra"] = {**changes.get("extra", self.extra), **own}
        return dataclasses.replace(self, **changes)

    def __getattr__(self, name: str) -> Any:
        # As of `Config`. It does not know its agent, but agents that share a name declare it alike.
        if not name.startswith("_") and "extra" in vars(self):
            if name in self.extra:
                return self.extra[name]
            own = registry.find_own(name)
            if own is not None and own.traced:
                return own.default
        raise AttributeError(f"Hyper has no hyperparameter {name!r}")


SETTINGS: Mapping[str, Setting] = types.MappingProxyType(
    {**collect(Config, traced=False), **collect(Hyper, traced=True)}
)
_HYPER_NAMES = frozenset(field.name for field in dataclasses.fields(Hyper))
registry.reserve(SETTINGS)


def setting(name: str) -> Setting:
    """The declaration of a setting, built in or brought by an agent.

    Raises:
        ConfigError: if there is none of this name; the message names the closest.
    """
    found = SETTINGS.get(name) or registry.find_own(name)
    if found is None:
        registry.load_all()
        found = registry.find_own(name)
    if found is None:
        own = [other.name for entry in registry.registered() for other in entry.settings]
        raise ConfigError(f"unknown field {name!r}{closest(name, [*SETTINGS, *own])}")
    return found


def _pairs(extra: Any) -> tuple[tuple[str, Any], ...]:
    """Sorted pairs that can be hashed, from pairs or a mapping."""
    try:
        values = dict(extra)
    except (TypeError, ValueError):
        raise ConfigError(
            f"extra must be pairs of a name and a value, got {brief(extra)}: use override"
        ) from None
    return tuple(
        (name, tuple(value) if isinstance(value, list) else value)
        for name, value in sorted(values.items())
    )
