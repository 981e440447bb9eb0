"""Agents and trainers as settings describe them."""

from dqx import agents
from dqx.core.agent import Agent
from dqx.core.environment import Environment, make_environment
from dqx.core.loop import Trainer, example_transition
from dqx.core.loop import make_trainer as _make_trainer
from dqx.core.replay import make_store
from dqx.core.sampling import SAMPLERS
from dqx.settings import Config


def environment_of(config: Config) -> Environment:
    """The environment that ``config`` describes, its inputs at their defaults.

    Raises:
        ConfigError: as `make_environment` does.
    """
    return make_environment(config.env, **dict(config.env_options))


def make_agent(config: Config, env: Environment) -> Agent:
    """Builds the agent that ``config`` describes for environments like ``env``.

    Raises:
        ConfigError: if there is no such agent, or it cannot take the observations.
    """
    return agents.make_agent(config, env.spec(config.num_envs)._replace(name=config.env))


def make_trainer(config: Config, env: Environment) -> Trainer:
    """Builds the training loop that ``config``, validated and rounded, describes on ``env``.

    Raises:
        ConfigError: as `make_agent` does.
    """
    store = make_store(example_transition(env), config.replay_capacity, config.num_envs)
    sampler = SAMPLERS[config.sampling](config)
    return _make_trainer(config, env, make_agent(config, env), store, sampler)
