"""A tiny training configuration, compiled once for all tests that train it; quick compiling."""

import jax

import dqx

WIDTH = 4
TINY = dqx.Config(
    env="CartPole-v1",
    hidden_sizes=(16,),
    num_envs=2,
    total_steps=528,
    learning_starts=176,
    train_period=8,
    batch_size=16,
    replay_capacity=400,
    target_period=40,
    log_period=88,
    eval_period=176,
    eval_episodes=3,
    chunk_width=WIDTH,
)
HYPER = dqx.Hyper(learning_rate=1e-2, epsilon_steps=400.0)


def quickly(function, **options):
    """``jax.jit`` in a hurry: for what runs a few times, and whose last bits do not matter."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0}, **options)
