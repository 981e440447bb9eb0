"""An agent that learns nothing but notes what it is given, and its runs on the ledger probe."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import dqx
from dqx.agents.kit import policies
from dqx.core import loop, sampling
from dqx.core.agent import Agent, AgentState, Learned, Metric
from dqx.core.forms import example_transition, make_store
from dqx.core.keys import seed_key
from dqx.core.replay import make_replay
from dqx.settings import SETTINGS
from tests import probes

LOG = 600  # updates that the agent can note down
LANES = 2
HYPERS = [name for name, setting in SETTINGS.items() if setting.traced]
CONFIG = dqx.Config(hidden_sizes=(), batch_size=8, replay_capacity=240, learning_starts=48)
METRICS = {
    "loss": Metric(),
    "weight_norm": Metric("last"),
    "gamma": Metric(),
    "gamma_max": Metric("max"),
    "gamma_last": Metric("last"),
    "epsilon": Metric("now", before=1.0),
}


def ledger_agent(config, spec):
    """The agent.

    Its parameters are the count of updates, its optimizer's state tables [LOG] of what each update
    was given. Its action is a million times epsilon; its priorities are the rewards.
    """
    policy = policies.make_policy(config, spec)

    def init(key):
        size = config.batch_size
        notes = {
            **{name: jnp.full(LOG, -1, jnp.int32) for name in ("step", "updates", "episodes")},
            "sync": jnp.zeros(LOG, bool),
            "hyper": jnp.zeros((LOG, len(HYPERS))),
            "weight": jnp.full((LOG, size), -1.0),
            **{name: jnp.full((LOG, size, 2), -1.0) for name in ("obs", "next_obs")},
            "reward": jnp.zeros((LOG, size, *((config.n_step,) if config.n_step > 1 else ()))),
            "discount": jnp.zeros((LOG, size)),
            "lengths": jnp.ones((LOG, size), jnp.int32),
            "action": jnp.zeros((LOG, size), jnp.int32),
            "key": jnp.zeros((LOG, size, 2), jnp.uint32),
            "ages": jnp.full((LOG, config.num_envs), -1),
        }
        return AgentState(jnp.int32(0), {}, notes)

    def act(state, obs, draws, now):
        noted = jnp.round(policies.epsilon_at(config, now) * 1e6).astype(jnp.int32)
        return jnp.broadcast_to(noted, obs.shape[:1]), state

    def learn(state, batch, draws, now, sync):
        given = {
            **now._asdict(),
            "sync": sync,
            "hyper": jnp.stack([jnp.float32(getattr(now.hyper, name)) for name in HYPERS]),
            "weight": jnp.full(config.batch_size, -1.0) if batch.weight is None else batch.weight,
            **batch.steps._asdict(),
            "key": jax.random.key_data(batch.keys),
            "lengths": 1 if batch.lengths is None else batch.lengths,
        }
        notes = {k: table.at[state.params].set(given[k]) for k, table in state.opt_state.items()}
        zero, gamma = jnp.float32(0), jnp.float32(now.hyper.gamma)
        metrics = {"loss": zero, "weight_norm": zero}
        metrics |= dict.fromkeys(("gamma", "gamma_max", "gamma_last"), gamma)
        state = state.replace(params=state.params + 1, opt_state=notes)
        return state, Learned(metrics, batch.steps.reward)

    return Agent(
        init=init,
        act_draws=policy.draws,
        act=act,
        explore=lambda state, draws: (draws.action, state),
        learn_draws=lambda key: (),
        learn=learn,
        q_values=lambda params, obs: jnp.zeros((*obs.shape[:1], 2)),
        status=lambda now: {"epsilon": policies.epsilon_at(config, now)},
        metrics=METRICS,
    )


def run_ledger(warm_up=48, steps=240, hyper=None, sampler=None, **fields):
    """Clock, lanes, episodes and metrics of a run of the ledger agent on the ledger probe.

    ``sampler`` is made of the configuration; the one that it names if left out.
    """
    config = dataclasses.replace(CONFIG, **fields)
    env = probes.adapted(probes.Ledger)
    trainer = loop.make_trainer(
        config,
        env,
        ledger_agent(config, env.spec(config.num_envs)),
        make_store(env, config.replay_capacity, config.num_envs, n_step=config.n_step),
        (sampler or sampling.SAMPLERS[config.sampling])(config),
    )
    return probes.run_trainer(trainer, hyper or dqx.Hyper(), seed_keys(LANES), warm_up, steps)


def seed_keys(count):
    return jax.vmap(lambda seed: seed_key(0, seed))(jnp.arange(count))


def unpacked(lanes, lane, capacity, env=None):
    """The replay of one lane as transitions [C, ...]."""
    env = probes.adapted(probes.Ledger) if env is None else env
    replay = make_replay(example_transition(env), capacity)
    rows = jax.tree.map(lambda x: jnp.asarray(x[lane]), lanes.replay_rows)
    state = replay.init().replace(rows=rows)
    return jax.tree.map(np.asarray, replay.gather(state, jnp.arange(capacity)))
