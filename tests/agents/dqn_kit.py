"""A small DQN, batches and states for it, and its parameters as the NumPy twin takes them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dqx.agents import make_agent
from dqx.core.agent import Now, Spec
from dqx.core.types import Batch, Transition
from dqx.settings import Config, Hyper, validate
from tests.oracles import dqn

OBS, ACTIONS, BATCH = 3, 4, 40
SPEC = Spec("Some-v0", (OBS,), jnp.float32, None, ACTIONS, num_envs=6)
CONFIG = Config(hidden_sizes=(16, 8), batch_size=BATCH, num_envs=6, train_period=12)


def now(hyper, step=0, updates=0, episodes=0):
    ages = jnp.zeros(SPEC.num_envs, jnp.int32)
    return Now(hyper, *(jnp.int32(count) for count in (step, updates, episodes)), ages)


def random_batch(seed=0, size=BATCH):
    """Transitions by name, as the twin takes them; `batch_of` gives what an agent learns from."""
    rng = np.random.default_rng(seed)
    return {
        "obs": rng.normal(size=(size, OBS)).astype(np.float32),
        "action": rng.integers(0, ACTIONS, size).astype(np.int32),
        "reward": (3 * rng.normal(size=size)).astype(np.float32),
        "discount": (rng.random(size) > 0.3).astype(np.float32),
        "next_obs": rng.normal(size=(size, OBS)).astype(np.float32),
    }


def several_steps(batch, n_step, seed=0):
    """The same with up to ``n_step`` steps each: their rewards, zeros after them, and counts."""
    rng, size = np.random.default_rng(seed), len(batch["action"])
    lengths = rng.integers(1, n_step + 1, size).astype(np.int32)
    rewards = (3 * rng.normal(size=(size, n_step))).astype(np.float32)
    rewards *= np.arange(n_step) < lengths[:, None]
    return {**batch, "reward": rewards, "lengths": lengths}


def batch_of(fields, weight=None):
    steps = {name: value for name, value in fields.items() if name != "lengths"}
    keys = jax.random.split(jax.random.key(8), len(fields["action"]))
    return Batch(Transition(**steps), weight, fields.get("lengths"), keys=keys)


def layers_of(params):
    layers = params["params"]
    return [
        tuple(np.asarray(layers[name][part], np.float64) for part in ("kernel", "bias"))
        for name in sorted(layers)
    ]


def random_state(agent, seed=0):
    """Online and target parameters that differ, with biases other than zero."""
    state = agent.init(jax.random.key(seed))
    rng = np.random.default_rng(seed)

    def noisy(x):
        return x + rng.normal(size=x.shape, scale=0.2).astype(np.float32)

    return state.replace(
        params=jax.tree.map(noisy, state.params),
        target_params=jax.tree.map(noisy, state.target_params),
    )


def memory_of(layers):
    """The twin's optimizer before the first update."""
    return {"count": 0, "first": dqn.zeros(layers), "second": dqn.zeros(layers)}


def assert_close(layers, params, before):
    """To 1e-5 relative of the largest change of each array."""
    arrays = zip(layers, layers_of(params), layers_of(before), strict=True)
    for expected, given, start in (
        (e, g, s) for trio in arrays for e, g, s in zip(*trio, strict=1)
    ):
        scale = np.abs(expected - start).max()
        assert scale > 0
        # What is left by rounding the parameters themselves to float32.
        ulp = np.abs(expected).max() * 2.0**-23
        np.testing.assert_allclose(given, expected, rtol=0, atol=1e-5 * scale + ulp)


def setup(fields):
    """Agent, hyperparameters and the twin's settings of one case."""
    twin = dqn.Settings(**fields)
    names = {field.name for field in dataclasses.fields(Config)}
    static = {k: v for k, v in dataclasses.asdict(twin).items() if k in names}
    traced = {
        k: np.inf if v is None else v
        for k, v in dataclasses.asdict(twin).items()
        if k not in static
    }
    config, hyper = dataclasses.replace(CONFIG, **static), Hyper(**traced)
    validate(config, hyper)
    return make_agent(config, SPEC), hyper, twin
