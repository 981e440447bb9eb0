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
    from dqx import agents, stats, study
    from dqx.compute.build import environment_of, make_agent, make_trainer
    from dqx.compute.cache import enable as use_cache
    from dqx.core import convolution, exploration, losses, networks, replay, tabular
    from dqx.core.agent import Agent
    from dqx.core.environment import Environment, adapt, make_environment
    from dqx.core.loop import Trainer
    from dqx.core.replay import Replay, make_replay
    from dqx.core.types import Transition
    from dqx.report import plots
    from dqx.run import TrainResult, train
    from dqx.settings import (
        Config,
        ConfigError,
        Hyper,
        override,
        preset,
        preset_names,
        validate,
    )
    from dqx.study.results import load
    from dqx.study.sinks import Progress, Sink
    from dqx.study.tuning.results import load_tune
    from dqx.tuning import tune

__version__ = importlib.metadata.version("dqx")

# Where each public name lives. They are loaded on first use: reading a result or asking for help
# needs no JAX, and JAX takes a while to import.
_HOMES = {
    "compute.build": ("environment_of", "make_agent", "make_trainer"),
    "core.agent": ("Agent",),
    "core.environment": ("Environment", "adapt", "make_environment"),
    "core.loop": ("Trainer",),
    "core.replay": ("Replay", "make_replay"),
    "core.types": ("Transition",),
    "run": ("TrainResult", "train"),
    "settings": (
        "Config", "ConfigError", "Hyper", "override", "preset", "preset_names", "validate",
    ),
    "study.results": ("load",),
    "study.sinks": ("Progress", "Sink"),
    "study.tuning.results": ("load_tune",),
    "tuning": ("tune",),
}  # fmt: skip
_HOME_OF = {name: (home, name) for home, names in _HOMES.items() for name in names}
_HOME_OF["use_cache"] = ("compute.cache", "enable")
_ROOMS = {
    name: f"{room}{name}"
    for room, names in {
        "": ("agents", "stats", "study"),
        "core.": ("convolution", "exploration", "losses", "networks", "replay", "tabular"),
        "report.": ("plots",),
    }.items()
    for name in names
}

__all__ = [
    "Agent",
    "Config",
    "ConfigError",
    "Environment",
    "Hyper",
    "Progress",
    "Replay",
    "Sink",
    "TrainResult",
    "Trainer",
    "Transition",
    "adapt",
    "agents",
    "convolution",
    "environment_of",
    "exploration",
    "load",
    "load_tune",
    "losses",
    "make_agent",
    "make_environment",
    "make_replay",
    "make_trainer",
    "networks",
    "override",
    "plots",
    "preset",
    "preset_names",
    "replay",
    "stats",
    "study",
    "tabular",
    "train",
    "tune",
    "use_cache",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        home, attribute = _HOME_OF[name]
        if home == "settings":
            importlib.import_module("dqx.core.types")  # which makes a pytree of `Hyper`
        value = getattr(importlib.import_module(f"dqx.{home}"), attribute)
    elif name in _ROOMS:
        value = importlib.import_module(f"dqx.{_ROOMS[name]}")
    else:
        raise AttributeError(f"module 'dqx' has no attribute {name!r}; see dqx.__all__")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
