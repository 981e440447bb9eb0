"""What is static of a run: `Config` decides what is compiled.

All periods are counted in environment steps, summed over the parallel environments of one seed.
A field is added by one line here; everything else derives from its declaration.
"""

import dataclasses
from typing import Any

from dqx.settings import owners, registry
from dqx.settings.environments import PREFIX
from dqx.settings.errors import ConfigError, brief
from dqx.settings.field import declare


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
        of=owners.NETWORK,
    )
    hidden_sizes: tuple[int, ...] = declare(
        (120, 84), "units of each hidden dense layer", low=1, of=owners.NETWORK
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
        0.0, "every value of a table at the start; high values are optimistic", of=owners.TABLE
    )
    activation: str = declare(
        "relu",
        "activation of the hidden layers",
        choices=("relu", "tanh", "swish"),
        of=owners.NETWORK,
    )
    initializer: str = declare(
        "lecun_normal",
        "initializer of the weights",
        choices=("lecun_normal", "glorot_uniform", "torch"),
        of=owners.NETWORK,
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
        of=owners.NETWORK,
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
        of=owners.NETWORK,
    )
    layer_norm: bool = declare(
        False,
        "layer normalization before the activation of every hidden layer, over channels in "
        "convolutions",
        of=owners.NETWORK,
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
        of=owners.NETWORK,
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
        low=0,
        rounds_to="train_period",
    )
    train_period: int = declare(
        10, "steps from one round of updates to the next", low=1, rounds_to="num_envs"
    )
    updates_per_train: int = declare(1, "updates a round", low=1)
    batch_size: int = declare(128, "transitions an update", low=1)
    replay_capacity: int = declare(
        10_000,
        "transitions the replay of one seed holds",
        low=1,
        rounds_to="num_envs",
        of=owners.REPLAY,
    )
    replay: str = declare(
        "auto",
        "form of the observations in the replay, which changes memory and no result: all as they "
        "are (plain), as sketches from which the environment draws them again (sketch), or each "
        "one once, as a sketch where there is one (once); auto: sketch where there is one",
        choices={"auto": (), "plain": (), "sketch": (), "once": ("final observations",)},
        of=owners.REPLAY,
    )
    replay_ends: int = declare(
        0,
        "ends of episodes whose final observations are held apart from the others; a seed with "
        "more of them among its replay_capacity transitions is an error; 0: an eighth of these",
        low=0,
        of=("replay", "final observations"),
    )
    sampling: str = declare(
        "uniform",
        "sampling from the replay; prioritized draws rows by their priorities, ranked by the ranks "
        "of these; newest takes each round's transitions once, in order (of n steps, n - 1 late)",
        choices={
            "uniform": (),
            "newest": ("order",),
            "prioritized": ("priorities", "proportional priorities"),
            "ranked": ("priorities", "ranks"),
        },
        of=owners.REPLAY,
    )
    rank_period: int = declare(
        1_000, "updates from one sort of the TD errors to the next", low=1, of=("sampling", "ranks")
    )
    n_step: int = declare(
        1,
        "steps whose rewards a target sums before it bootstraps; fewer up to the end of an episode "
        "and up to the newest step",
        low=1,
        of=owners.REPLAY,
    )
    target_period: int = declare(
        500,
        "steps from one target update to the next; one a round of updates at most",
        low=1,
        of=owners.TARGET,
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
    diagnostics: tuple[str, ...] = declare(
        (),
        "what is measured inside learning at every row of metrics, overestimation at evaluations; "
        "changes nothing of what is learned",
        choices=(
            "overestimation",
            "dormant_units",
            "effective_rank",
            "replay_age",
            "target_distance",
        ),
    )
    double: bool = declare(
        False,
        "Double DQN: the online network selects the action that the target network values",
        of=("agent", "target rule"),
    )
    target: str = declare(
        "max",
        "target rule: the value of the best next action (max), that of the worse of two heads "
        "(clipped_double), the mean over what epsilon_greedy would do (expected_sarsa), or over a "
        "soft policy, with the log of the policy added to the reward (munchausen)",
        choices={
            "max": ("best policy",),
            "clipped_double": ("best policy",),
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
        of=owners.SCALAR,
    )
    optimizer: str = declare(
        "adam",
        "optimizer of the network",
        choices=("adam", "radam", "sgd", "rmsprop"),
        of=owners.GRADIENT,
    )
    averaging: str = declare(
        "none",
        "use of a running average of the network's parameters: for evaluations and whoever loads "
        "the agent (evaluation), or for acting in training too (acting)",
        choices={"none": (), "evaluation": ("decay",), "acting": ("decay",)},
        of=owners.NETWORK,
    )
    policy: str = declare(
        "epsilon_greedy",
        "policy of acting; ez_greedy repeats its random actions, how often is random too; "
        "max_boltzmann is boltzmann with probability epsilon, else greedy; "
        "softmax is boltzmann of temperature 1",
        choices={
            "epsilon_greedy": ("epsilon",),
            "ez_greedy": ("epsilon", "repeated actions"),
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
