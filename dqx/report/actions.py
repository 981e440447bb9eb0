"""What the actions of environments are called, where that is known."""

from typing import Any

_UP_DOWN = ("up", "down")
_LEFT_RIGHT = ("left", "right")
_MINATAR = ("stay", "left", "up", "right", "down", "fire")

# In the order of the action's number; gymnax's games do as their step functions do.
_NAMES: dict[str, tuple[str, ...]] = {
    "CartPole-v0": _LEFT_RIGHT,
    "CartPole-v1": _LEFT_RIGHT,
    "MountainCar-v0": ("left", "coast", "right"),
    "Taxi-v3": ("south", "north", "east", "west", "pick up", "drop off"),
    "Taxi-v4": ("south", "north", "east", "west", "pick up", "drop off"),
    "WallDodge-v0": _UP_DOWN,
    "WallDodge-v1": (*_UP_DOWN, "stay"),
    "Acrobot-v1": ("torque -1", "torque 0", "torque +1"),
    "Asterix-MinAtar": _MINATAR[:5],
    "Breakout-MinAtar": ("stay", *_LEFT_RIGHT),
    "Freeway-MinAtar": ("stay", *_UP_DOWN),
    "Seaquest-MinAtar": _MINATAR,
    "SpaceInvaders-MinAtar": ("stay", *_LEFT_RIGHT, "fire"),
    "Catch-bsuite": ("left", "stay", "right"),
    "UmbrellaChain-bsuite": ("leave it", "take it"),
    "FourRooms-misc": ("up", "right", "down", "left"),
    "MetaMaze-misc": ("up", "right", "down", "left"),
    "FrozenLake-misc": ("left", "down", "right", "up"),
    "Pong-misc": ("stay", *_UP_DOWN),
}


def action_names(name: str, env: Any, count: int) -> tuple[str, ...]:
    """The names of an environment's actions, ``"action 0"`` and so on where none are known.

    An environment of one's own may bring them as an attribute ``action_names``, a text an action.

    Args:
        name: of the environment, as settings have it.
        env: the environment.
        count: A, how many actions there are.
    """
    for names in (getattr(env, "action_names", ()), _NAMES.get(name, ())):
        if isinstance(names, list | tuple) and len(names) == count:
            return tuple(str(text) for text in names)
    return tuple(f"action {number}" for number in range(count))
