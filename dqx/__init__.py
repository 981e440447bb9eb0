"""dqx trains DQN agents on many seeds at once, in JAX.

>>> import dqx
>>> result = dqx.train("cartpole", seeds=range(32))
>>> result.metrics["eval_return"][:, -1]

The names in ``__all__`` are public; everything else may change.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dqx import (
        convolution,
        exploration,
        losses,
        networks,
        output,
        plots,
        replay,
        stats,
        study,
        tabular,
    )
    from dqx.agent import Agent, make_agent
    from dqx.config import Config, ConfigError, Hyper, override, preset, preset_names, validate
    from dqx.environment import Environment, adapt, make_environment
    from dqx.loop import Trainer, make_trainer
    from dqx.replay import Replay, make_replay
    from dqx.run import Progress, TrainResult, train
    from dqx.types import Transition

__version__ = importlib.metadata.version("dqx")

__all__ = [
    "Agent",
    "Config",
    "ConfigError",
    "Environment",
    "Hyper",
    "Progress",
    "Replay",
    "TrainResult",
    "Trainer",
    "Transition",
    "adapt",
    "convolution",
    "exploration",
    "losses",
    "make_agent",
    "make_environment",
    "make_replay",
    "make_trainer",
    "networks",
    "output",
    "override",
    "plots",
    "preset",
    "preset_names",
    "replay",
    "stats",
    "study",
    "tabular",
    "train",
    "validate",
]

# Loaded on first use: reading a result or asking for help needs no JAX, and JAX takes a while to
# import.
_HOMES = {
    "agent": ("Agent", "make_agent"),
    "config": ("Config", "ConfigError", "Hyper", "override", "preset", "preset_names", "validate"),
    "environment": ("Environment", "adapt", "make_environment"),
    "loop": ("Trainer", "make_trainer"),
    "replay": ("Replay", "make_replay"),
    "run": ("Progress", "TrainResult", "train"),
    "types": ("Transition",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        value = getattr(importlib.import_module(f"dqx.{_HOME_OF[name]}"), name)
    elif name in __all__:
        value = importlib.import_module(f"dqx.{name}")
    else:
        raise AttributeError(f"module 'dqx' has no attribute {name!r}; see dqx.__all__")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
