"""C51: the distribution of returns as probabilities of fixed atoms.

Source: Bellemare, Dabney and Munos 2017. Under a target rule that weighs several next actions, the
target is the mixture of their distributions. Priorities are divergences, as in Hessel et al. 2018.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dqx.agents import DEFAULT, Variant, kit, register
from dqx.core import distributional
from dqx.core.agent import Agent, Spec
from dqx.core.types import Array, PyTree, Transition
from dqx.settings import Config, ConfigError, Hyper, own_setting


def build(config: Config, spec: Spec) -> Agent:
    """The agent; see `kit.value_agent` for what is raised."""
    size = config.num_atoms

    def values(logits: Array, v_min: Array, v_max: Array) -> Array:
        atoms = distributional.support(v_min, v_max, size)
        return jax.vmap(functools.partial(q_values, atoms))(logits)

    def q_values(atoms: Array, logits: Array) -> Array:
        return distributional.expected(distributional.probabilities(logits), atoms)

    def loss(
        outputs: kit.Outputs, step: Transition, hyper: Hyper, draws: PyTree
    ) -> tuple[Array, ...]:
        assert outputs.next_target is not None and outputs.weight is not None  # as `reads` says
        atoms = distributional.support(hyper.v_min, hyper.v_max, size)
        following = distributional.weighted(
            distributional.probabilities(outputs.next_target), outputs.weight
        )
        target = distributional.project(following, step.reward + step.discount * atoms, atoms)
        logits = distributional.chosen(outputs.now, step.action)
        now = distributional.chosen(q_values(atoms, outputs.now), step.action)
        error = distributional.expected(target[None], atoms)[0] - now
        value = distributional.cross_entropy(logits, target)
        # What a prediction of the target itself would leave has nothing to teach.
        return value, error, jnp.maximum(value - distributional.entropy(target), 0.0)

    return kit.value_agent(
        config,
        spec,
        loss,
        reads=("next_target", "weight"),
        values=values,
        shape=(size,),
        kept=("v_min", "v_max"),
    )


def check(config: Config, hyper: Hyper) -> None:
    """Refuses ends of the atoms that are not in order, or too close for their numbers."""
    if not hyper.v_min < hyper.v_max:
        raise ConfigError(
            f"v_min must be less than v_max {hyper.v_max:g}, got {hyper.v_min:g}: the atoms of "
            "agent c51 go from one to the other"
        )
    step = (hyper.v_max - hyper.v_min) / (config.num_atoms - 1)
    first = np.array([hyper.v_min, hyper.v_min + step], np.float32)
    last = np.array([hyper.v_max - step, hyper.v_max], np.float32)
    if not (first[0] < first[1] and last[0] < last[1]):
        raise ConfigError(
            f"v_min {hyper.v_min!r} and v_max {hyper.v_max!r} are too close for {config.num_atoms} "
            "atoms: float32 does not tell them apart; move the ends away from each other"
        )


SETTINGS = (
    own_setting("num_atoms", 51, "atoms of the distribution of returns", low=2),
    own_setting("v_min", -10.0, "return of the first atom", traced=True, anneals=False),
    own_setting("v_max", 10.0, "return of the last atom", traced=True, anneals=False),
)
register(
    Variant(
        "c51",
        build,
        has=(*DEFAULT, "target rule"),
        settings=SETTINGS,
        about="probabilities of returns on fixed atoms",
        check=check,
    )
)
