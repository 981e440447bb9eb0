"""Baird's counterexample: three things that are harmless two by two, and dqx's own update of them.

    python scripts/deadly_triad.py                     # draws runs/deadly_triad.png
    python scripts/deadly_triad.py --updates 500 --seeds 4 --out /tmp/triad.png

Seven states; the target policy always goes to the seventh, which it never leaves. All rewards are
0, so every value is 0. Off-policy learning, bootstrapping and function approximation together let
the estimates grow without bound though the features could hold the true values; with any one of the
three taken away they go to 0. The second panel keeps all three and has the target network follow
less often.

Source: Baird 1995; the features and the policies are those of Sutton and Barto 2018, section 11.2,
with the bias that a network of dqx has beside its weights. Differences: updates are of 32
transitions. On the deadly triad with a target network: van Hasselt et al. 2018.
"""

import argparse
import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import dqx
from dqx import agents
from dqx.core.agent import Agent, AgentState, Now, Spec
from dqx.core.types import Array, Batch, Key, Transition
from dqx.files import OutputError, whole_file
from dqx.report import style

GAMMA, LEARNING_RATE, BATCH, UPDATES = 0.99, 0.05, 32, 6_000
# The behaviour policy goes on to each of the seven states equally often: by the action that leads
# to the seventh, the only one that the target policy takes, once in so many.
STATES, ONE_IN = 7, 7
# On policy, episodes begin in any state and are cut after so many steps.
EPISODE_STEPS = 100
# Weights at the start, as in Sutton and Barto; values are 3 in six states and 12 in the seventh.
WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 10.0, 1.0)
PERIODS = (1, 5, 20, 100)
SHOWN = (1e-3, 1e6)  # of the largest |value|


class Setting(NamedTuple):
    """One line of the picture.

    Attributes:
        bootstraps: targets are made of the next state's estimate; else of the whole return.
        off_policy: states and actions are those of the behaviour policy, with weights that make up
            for the actions; else those of the target policy.
        approximates: values are a linear function of features; else a table.
        target_period: updates from one copy of the target network to the next.
    """

    bootstraps: bool = True
    off_policy: bool = True
    approximates: bool = True
    target_period: int = 1


LINES = {
    "all three": Setting(),
    "no bootstrapping: whole returns": Setting(bootstraps=False),
    "on policy": Setting(off_policy=False),
    "no approximation: a table": Setting(approximates=False),
}
TARGETS = {f"{period:,}": Setting(target_period=period) for period in PERIODS}


def main() -> None:
    """Learns every line over seeds, draws them and says what became of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/deadly_triad.png"))
    args = parser.parse_args()
    if args.updates < 1 or args.seeds < 1:
        parser.error(f"--updates and --seeds must be at least 1, got {args.updates}, {args.seeds}")
    found = {setting: learned(setting, args.seeds, args.updates) for setting in settings()}
    for name, setting in {**LINES, **{f"target period {n}": s for n, s in TARGETS.items()}}.items():
        middle, low, high = np.quantile(found[setting][:, -1], (0.5, 0, 1))
        print(f"{name:32}  largest |value| {middle:10.3g}   seeds {low:.3g} to {high:.3g}")
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(args.out) as file:
            drawn(found).savefig(file, format="png", dpi=150, metadata={"Software": None})
    except (OutputError, OSError) as error:
        parser.error(str(error))
    print(f"picture: {args.out}")


def settings() -> list[Setting]:
    """All that is learned, each once."""
    return list(dict.fromkeys([*LINES.values(), *TARGETS.values()]))


def learned(setting: Setting, seeds: int, updates: int) -> np.ndarray:
    """The largest |value| of the seven states, float64 ``[S, updates + 1]``; the truth is 0."""
    run = jax.jit(jax.vmap(functools.partial(_run, setting, updates)))
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(0)))(jnp.arange(seeds))
    return np.asarray(run(keys), np.float64)


def _run(setting: Setting, updates: int, key: Key) -> Array:
    """One seed: `Agent.learn` of dqx, as the training loop calls it, and nothing of it changed."""
    agent, states, state = _begun(setting)
    hyper = dqx.Hyper(
        gamma=GAMMA, learning_rate=LEARNING_RATE, huber_delta=float("inf"), tau=1.0, momentum=0.0
    )

    def update(state: AgentState, number: Array) -> tuple[AgentState, Array]:
        batch = _batch(setting, states, jax.random.fold_in(key, number))
        now = Now(hyper, number, number, jnp.int32(0))
        follows = (number + 1) % setting.target_period == 0
        state, _ = agent.learn(state, batch, (), now, follows)
        return state, _error(agent, state, states)

    _, errors = jax.lax.scan(update, state, jnp.arange(updates))
    return jnp.concatenate([_error(agent, state, states)[None], errors])


def _begun(setting: Setting) -> tuple[Agent, Array, AgentState]:
    """The agent, what it observes in each of the seven states, and its start."""
    config = dqx.Config(
        hidden_sizes=(), loss="huber", optimizer="sgd", batch_size=BATCH, policy="greedy"
    )
    spec = Spec("baird", (len(WEIGHTS),), jnp.dtype("float32"), None, num_actions=1)
    if not setting.approximates:
        config = dataclasses.replace(dqx.Config(agent="tabular"), batch_size=BATCH)
        spec = Spec("baird", (), jnp.dtype("int32"), STATES, num_actions=1)
    agent = agents.make_agent(config, spec)
    state = agent.init(jax.random.key(0))
    values = _features() @ jnp.array(WEIGHTS)
    if setting.approximates:
        params = {
            "params": {"Dense_0": {"kernel": jnp.array(WEIGHTS)[:, None], "bias": jnp.zeros(1)}}
        }
        copied = jax.tree.map(jnp.copy, params)
        return agent, _features(), state.replace(params=params, target_params=copied)
    params = {"params": {"table": values[:, None]}}
    return agent, jnp.arange(STATES), state.replace(params=params)


def _features() -> Array:
    """Of the seven states, float32 ``[7, 8]``: values are 2 w_i + w_8, and w_7 + 2 w_8."""
    features = jnp.zeros((STATES, len(WEIGHTS))).at[jnp.arange(6), jnp.arange(6)].set(2.0)
    return features.at[:6, 7].set(1.0).at[6, 6].set(1.0).at[6, 7].set(2.0)


def _batch(setting: Setting, states: Array, key: Key) -> Batch:
    """Transitions, each with its importance weight: the two policies' chance of its action."""
    state_key, action_key, time_key = jax.random.split(key, 3)
    place = jax.random.randint(state_key, (BATCH,), 0, STATES)
    goes_on = jnp.ones(BATCH, bool)
    if setting.off_policy:
        goes_on = jax.random.randint(action_key, (BATCH,), 0, ONE_IN) == 0
    else:
        # After the first step of an episode the target policy is in the seventh state.
        is_first = jax.random.randint(time_key, (BATCH,), 0, EPISODE_STEPS) == 0
        place = jnp.where(is_first, place, STATES - 1)
    elsewhere = jax.random.randint(time_key, (BATCH,), 0, STATES - 1)
    following = jnp.where(goes_on, STATES - 1, elsewhere)
    weight = jnp.where(goes_on, float(ONE_IN) if setting.off_policy else 1.0, 0.0)
    # The return of the whole future is the sum of rewards, 0, and nothing is left to estimate.
    discount = jnp.full(BATCH, 1.0 if setting.bootstraps else 0.0)
    zeros = jnp.zeros(BATCH)
    actions = jnp.zeros(BATCH, jnp.int32)
    steps = Transition(states[place], actions, zeros, discount, states[following])
    return Batch(steps, weight)


def _error(agent: Agent, state: AgentState, states: Array) -> Array:
    return jnp.max(jnp.abs(agent.q_values(state.params, states)))


def drawn(found: Mapping[Setting, np.ndarray]) -> Figure:
    """The picture: what the three do together and two by two, and what a target network does."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    figure.get_layout_engine().set(wspace=0.05)
    triad, targets = figure.subplots(1, 2, sharey=True)
    _draw(triad, LINES, found, "upper right")
    triad.set_title("Any one of the three taken away", loc="left", fontsize=11)
    triad.set_ylabel("largest |value| of the seven states (truth: 0)")
    _draw(targets, TARGETS, found, "lower left", "updates from one copy to the next")
    targets.set_title("All three, with a target network", loc="left", fontsize=11)
    return figure


def _draw(
    axes: Axes,
    lines: Mapping[str, Setting],
    found: Mapping[Setting, np.ndarray],
    place: str,
    title: str = "",
) -> None:
    """The median over seeds of each line, and all seeds around it."""
    for (name, setting), color in zip(lines.items(), style.LIGHT, strict=False):
        # What has overflowed leaves the picture at the top, like all that is large.
        values = np.where(np.isfinite(found[setting]), found[setting], np.finfo(float).max)
        updates = np.arange(values.shape[1])
        axes.plot(updates, np.median(values, axis=0), color=color, linewidth=2, label=name)
        low, high = values.min(axis=0), values.max(axis=0)
        axes.fill_between(updates, low, high, color=color, alpha=0.2, linewidth=0)
    axes.set(yscale="log", xlabel="updates", xlim=(0, updates[-1]), ylim=SHOWN)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(True, color=style.GRID, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small", loc=place, title=title, alignment="left")


if __name__ == "__main__":
    main()
