"""What is traced of a run: `Hyper` is an input of what is compiled.

A field is added by one line here; everything else derives from its declaration.
"""

import dataclasses
import math
from typing import Any

from dqx.settings import owners, registry
from dqx.settings.field import declare


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
    repeat_power: float = declare(
        1.0,
        "power of how long ez_greedy repeats: n steps or more with probability n ** -repeat_power",
        above=0,
        of=("policy", "repeated actions"),
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
        of=owners.TABLE,
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
        of=owners.PRIORITIES,
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
        of=owners.PRIORITIES,
    )
    importance_end: float = declare(
        1.0, "the same at the end of its schedule", low=0, high=1, of=owners.PRIORITIES
    )
    importance_steps: float = declare(
        500_000.0,
        "length of its schedule, in environment steps",
        above=0,
        anneals=False,
        of=owners.PRIORITIES,
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
        of=owners.TARGET,
    )
    average_decay: float = declare(
        0.999,
        "share that an update keeps of the average of parameters, which is the mean over all "
        "updates at first; 1: always",
        low=0,
        high=1,
        of=("averaging", "decay"),
    )
    max_grad_norm: float = declare(
        math.inf, "largest global norm of the gradient", above=0, infinite=True, of=owners.GRADIENT
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
        0.9, "factor of the log of the policy in the reward", low=0, high=1, of=owners.SOFT
    )
    munchausen_temperature: float = declare(
        0.03, "temperature of the soft policy, and factor of its entropy", above=0, of=owners.SOFT
    )
    munchausen_clip: float = declare(
        1.0,
        "largest magnitude of the log of the policy times its temperature",
        above=0,
        infinite=True,
        of=owners.SOFT,
    )
    huber_delta: float = declare(
        1.0,
        "point where the Huber loss turns linear; infinite: half the square",
        above=0,
        infinite=True,
        of=("agent", "Huber delta"),
    )
    momentum: float = declare(0.0, "momentum of sgd and rmsprop", low=0, high=1, of=owners.GRADIENT)
    rmsprop_decay: float = declare(
        0.9, "decay of rmsprop's mean square", low=0, high=1, of=owners.GRADIENT
    )
    optimizer_epsilon: float = declare(
        1e-8,
        "number added to the denominator of adam and radam, and under rmsprop's root",
        above=0,
        of=owners.GRADIENT,
    )
    # Equal ones still have equal hashes.
    extra: dict[str, float] = dataclasses.field(default_factory=dict, hash=False)

    def replace(self, **changes: Any) -> "Hyper":
        """A copy with other values, of hyperparameters that agents bring too.

        Raises:
            TypeError: for a name that is no hyperparameter.
        """
        own = {name: changes.pop(name) for name in list(changes) if name not in _NAMES}
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


_NAMES = frozenset(field.name for field in dataclasses.fields(Hyper))
