"""The contract of an agent: what the loop asks of it, and all that it is told.

An agent sees shapes and counts, never an environment. Its random numbers are drawn ahead, many
steps at once and without looking at values; what is done with them happens inside. Its metrics are
named by itself and listed nowhere else.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from flax import struct

from dqx.core.types import Array, Batch, Key, Params, PyTree, Transition
from dqx.settings import Hyper


class Spec(NamedTuple):
    """All that an agent knows of the environments it acts in.

    Attributes:
        name: of the environment, for messages.
        obs_shape: shape of an observation.
        obs_dtype: its dtype; pixels stay uint8.
        num_categories: where observations are category numbers, how many; else None.
        num_actions: A.
        num_envs: E, parallel environments of one seed.
    """

    name: str
    obs_shape: tuple[int, ...]
    obs_dtype: Any
    num_categories: int | None
    num_actions: int
    num_envs: int = 1


class AgentState(struct.PyTreeNode):
    """What learning changes: online and target parameters, never aliased, and the optimizer.

    Attributes:
        params: of the online network.
        target_params: of the target network; ``{}`` for an agent without one.
        opt_state: of the optimizer, or whatever an agent keeps in its place.
        memory: what else the agent remembers from step to step; None if nothing.
    """

    params: Params
    target_params: Params
    opt_state: Any
    memory: PyTree = None


class Now(NamedTuple):
    """Where a seed is.

    Attributes:
        hyper: hyperparameters; those that are annealed have moved.
        step: int32 ``[]``, environment steps.
        updates: int32 ``[]``, updates before this one. Like ``step`` the same for all seeds.
        episodes: int32 ``[]``, episodes that the seed has finished.
        ages: int32 ``[E]``, steps that the episode of each environment has had; None where nobody
            counts them.
    """

    hyper: Hyper
    step: Array
    updates: Array
    episodes: Array
    ages: Array | None = None


class Metric(NamedTuple):
    """How a row of metrics shows a number.

    Attributes:
        over: what becomes of the updates of an interval: ``"mean"``, ``"max"`` or ``"last"``;
            ``"now"`` for what ``status`` gives, which knows no updates.
        before: the value shown as long as actions are random and nothing is learned.
    """

    over: str = "mean"
    before: float = float("nan")


class Learned(NamedTuple):
    """What an update tells beside the new state.

    Attributes:
        metrics: float32 ``[]`` by name; ``loss`` and ``weight_norm`` tell whether a seed diverged.
        priority: float32 ``[B]``, of each transition for a sampler that asks.
    """

    metrics: dict[str, Array]
    priority: Array


def of_last_layer(layers: Sequence[Array]) -> Array:
    """The activations of the last of these layers, ``[B, ..., H]``, as float32 ``[B, F]``."""
    return layers[-1].reshape(len(layers[-1]), -1)


class Insight(NamedTuple):
    """What can be seen inside an agent beside its Q-values, for `diagnostics`.

    Attributes:
        units: ``units(params, obs [B, ...])``: the activations of every hidden layer, float32
            ``[B, ..., H]`` each; None for an agent without hidden units.
        features: ``features(layers)``: of these layers the numbers that the outputs are computed
            from, float32 ``[B, F]``.
    """

    units: Callable[[Params, Array], tuple[Array, ...]] | None = None
    features: Callable[[Sequence[Array]], Array] = of_last_layer

    def of_inner(self, given: Callable[[Params, Array], tuple[Params, Array]]) -> "Insight":
        """That of an agent around it; ``given(params, obs)`` is what the one inside gets."""
        if self.units is None:
            return self
        units = self.units
        return self._replace(units=lambda params, obs: units(*given(params, obs)))


class Agent(NamedTuple):
    """The pure functions of one seed's agent.

    Attributes:
        init: ``init(key) -> AgentState``.
        act_draws: ``act_draws(key)``, the random numbers of one step of all E environments.
        act: ``act(state, obs [E, ...], draws, now) -> (int32 [E], state)``.
        explore: ``explore(state, draws) -> (int32 [E], state)``, uniformly random actions from the
            same draws, before learning starts.
        learn_draws: ``learn_draws(key)``, the random numbers of one update.
        learn: ``learn(state, batch, draws, now, sync) -> (state, Learned)``, one update. ``sync``
            (bool ``[]``) says whether the target follows it; it hangs on the clock alone.
        q_values: ``q_values(params, obs [B, ...])``: float32 ``[B, A]``, without exploration; what
            evaluations, exact metrics and users see.
        status: ``status(now)``: float32 ``[]`` by name, what a row shows beside ``learn``'s.
        metrics: how each number of ``learn`` and ``status`` is shown, by its name.
        see: ``see(state, obs [E, ...]) -> state``, before each step in training, random ones too;
            None for an agent that learns nothing from looking.
        begin: ``begin(state, hyper) -> state``, what ``init`` gave as the hyperparameters want it,
            before the first step; None for an agent whose start depends on none.
        insight: what diagnostics can see of it.
        targets: ``targets(state, steps [T, E], continues [T, E], now) -> float32 [T, E]``: what the
            value of each action of a rollout is to become, which ``learn`` gets as
            ``batch.target``; ``continues`` (bool) says whether the step after each belongs to the
            same episode. None for an agent that learns from a replay.
    """

    init: Callable[[Key], AgentState]
    act_draws: Callable[[Key], PyTree]
    act: Callable[[AgentState, Array, PyTree, Now], tuple[Array, AgentState]]
    explore: Callable[[AgentState, PyTree], tuple[Array, AgentState]]
    learn_draws: Callable[[Key], PyTree]
    learn: Callable[[AgentState, Batch, PyTree, Now, Array], tuple[AgentState, Learned]]
    q_values: Callable[[Params, Array], Array]
    status: Callable[[Now], dict[str, Array]]
    metrics: Mapping[str, Metric]
    see: Callable[[AgentState, Array], AgentState] | None = None
    begin: Callable[[AgentState, Hyper], AgentState] | None = None
    insight: Insight = Insight()
    targets: Callable[[AgentState, Transition, Array, Now], Array] | None = None
