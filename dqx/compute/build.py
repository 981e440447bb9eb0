"""Agents and trainers as settings describe them."""

from dqx import agents
from dqx.arguments import instance, require
from dqx.core import diagnostics, loop, rollout
from dqx.core.agent import Agent
from dqx.core.environment import Environment, Wrappers, make_environment
from dqx.core.forms import make_store
from dqx.core.loop import Trainer
from dqx.core.sampling import SAMPLERS
from dqx.core.wrappers import wrapped
from dqx.settings import Config, ConfigError
from dqx.settings.rules import A_CONFIG

_ENVIRONMENT = instance("an Environment, as dqx.environment_of makes it", Environment)


def environment_of(config: Config) -> Environment:
    """Makes the environment that ``config`` describes, with all that is to be around it.

    Raises:
        ConfigError: if there is no such environment, or it cannot have that around it.
    """

    require(ConfigError, config=(config, A_CONFIG))

    def around(env: Environment) -> Environment:
        return wrapped(env, config)._replace(at=lambda inputs: around(env.at(inputs)))

    return around(make_environment(config.env, **dict(config.env_options)))


def make_agent(config: Config, env: Environment) -> Agent:
    """Builds the agent that ``config`` describes for environments like ``env``.

    Raises:
        ConfigError: if there is no such agent, it cannot take the observations, or ``env`` has
            other things around it than ``config`` says.
    """
    require(ConfigError, config=(config, A_CONFIG), env=(env, _ENVIRONMENT))
    _check_wrappers(config, env)
    return agents.make_agent(config, env.spec(config.num_envs)._replace(name=config.env))


def make_trainer(config: Config, env: Environment) -> Trainer:
    """Builds the training loop that ``config``, validated and rounded, describes on ``env``.

    Raises:
        ConfigError: as `make_agent` does, or if diagnostics ask for what the agent has not got.
    """
    agent = make_agent(config, env)
    diagnostics.check(config, agent)
    if agent.targets is not None:
        return rollout.make_trainer(config, env, agent)
    store = make_store(
        env,
        config.replay_capacity,
        config.num_envs,
        n_step=config.n_step,
        form=config.replay,
        ends=config.replay_ends,
    )
    return loop.make_trainer(config, env, agent, store, SAMPLERS[config.sampling](config))


def _check_wrappers(config: Config, env: Environment) -> None:
    for name, found in zip(Wrappers._fields, env.wrappers, strict=True):
        if getattr(config, name) != found:
            raise ConfigError(
                f"the environment {env.name} was made with {name} = {found}, and the configuration "
                f"says {getattr(config, name)}: make it by dqx.environment_of(config)"
            )
