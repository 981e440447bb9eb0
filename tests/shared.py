"""A tiny training configuration, and programs compiled once for all tests that train it."""

import dataclasses

import dqx
from dqx.parallel import Programs

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

_programs: dict = {}


def programs_for(config, env, devices, width, root_seed):
    """Stands in for `Programs`: the same object for the same arguments.

    Neither the budget nor the period of logging is compiled in, so runs that differ in these alone
    share their programs.
    """
    same = dataclasses.replace(config, total_steps=0, log_period=0, learning_starts=0)
    key = (same, tuple(devices), width, root_seed)
    if key not in _programs:
        _programs[key] = Programs(config, env, devices, width, root_seed)
    _programs[key].compile_seconds = 0.0  # a run counts its own
    return _programs[key]
