"""Pictures of gymnax's MinAtar games: the ten by ten cells that the agent sees, with a legend.

Each takes `(env, state, params)` and gives uint8 [H, 400, 3]. The channels are those of the game
itself, whatever a class of its kin observes.
"""

from __future__ import annotations

from typing import Any

import jax
from gymnax.environments import minatar

from envs.pictures import _board
from envs.pictures._board import Mark

ASTERIX = (
    Mark("YOU", _board.SKY),
    Mark("ENEMY", _board.RED),
    Mark("CAME FROM", _board.DIM, "dash"),
    Mark("GOLD", _board.YELLOW, "disc"),
)
BREAKOUT = (
    Mark("PADDLE", _board.SKY),
    Mark("BALL", _board.YELLOW, "disc"),
    Mark("BALL BEFORE", _board.DIM, "dot"),
    Mark("BRICK", _board.ORANGE),
)
FREEWAY = (
    Mark("YOU", _board.SKY, "disc"),
    Mark("CAR", _board.RED),
    Mark("FAST", (245, 245, 250), "dash"),
    Mark("", (196, 202, 222), "dash"),
    Mark("", (150, 160, 190), "dash"),
    Mark("", (110, 120, 156), "dash"),
    Mark("SLOW", (78, 88, 122), "dash"),
)
SEAQUEST = (
    Mark("YOU", _board.SKY),
    Mark("STERN", _board.BLUE, "disc"),
    Mark("SHOT", _board.YELLOW, "dot"),
    Mark("CAME FROM", _board.DIM, "dash"),
    Mark("ENEMY SHOT", _board.RED, "dot"),
    Mark("FISH", _board.PINK, "disc"),
    Mark("ENEMY", _board.RED),
    Mark("OXYGEN", _board.LIGHT, "gauge"),
    Mark("RESCUED", _board.GREEN, "dot"),
    Mark("DIVER", _board.GREEN, "disc"),
)
SPACE_INVADERS = (
    Mark("CANNON", _board.SKY),
    Mark("ALIEN", _board.RED),
    Mark("TO THE LEFT", _board.LIGHT, "left"),
    Mark("TO THE RIGHT", _board.LIGHT, "right"),
    Mark("SHOT", _board.YELLOW, "bullet"),
    Mark("ENEMY SHOT", _board.PINK, "bullet"),
)


def asterix(env: Any, state: Any, params: Any) -> jax.Array:
    """Enemies and gold that cross the board, with what each came from."""
    return _board.board(minatar.MinAsterix.get_obs(env, state), ASTERIX)


def breakout(env: Any, state: Any, params: Any) -> jax.Array:
    """Bricks, the ball, where the ball was before, and the paddle."""
    return _board.board(minatar.MinBreakout.get_obs(env, state), BREAKOUT)


def freeway(env: Any, state: Any, params: Any) -> jax.Array:
    """Cars that trail a dash, the brighter the faster, and the walker who crosses."""
    return _board.board(minatar.MinFreeway.get_obs(env, state), FREEWAY)


def seaquest(env: Any, state: Any, params: Any) -> jax.Array:
    """The submarine among fish, divers and enemies; oxygen and rescued divers at the bottom."""
    return _board.board(minatar.MinSeaquest.get_obs(env, state, params), SEAQUEST)


def space_invaders(env: Any, state: Any, params: Any) -> jax.Array:
    """Aliens with an arrow to where they move, shots of both sides, and the cannon."""
    return _board.board(minatar.MinSpaceInvaders.get_obs(env, state), SPACE_INVADERS)
