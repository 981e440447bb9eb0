"""Pictures of gymnax's Acrobot and Pong.

Each takes `(env, state, params)` and gives uint8 [H, W, 3] of about 400 pixels.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from envs import _drawing as draw
from envs.pictures import _board


def acrobot(env: Any, state: Any, params: Any) -> jax.Array:
    """Two links that hang from the middle, and the line that the tip has to rise over.

    The tip turns green over the line. The line is right for links of length 1, as the reward is.
    """
    edge, middle = 400, 200
    scale = 170 / (params.link_length_1 + params.link_length_2)
    grid = draw.grid(edge, edge)
    image = draw.vertical_gradient(edge, edge, draw.SKY_TOP, draw.SKY)
    height = middle - scale
    dashes = draw.box(grid, 0, height - 1.5, edge, height + 1.5) * (jnp.floor(grid.x / 10) % 2)
    image = draw.paint(image, dashes, draw.INK)
    first, second = state.joint_angle1, state.joint_angle1 + state.joint_angle2
    joint = (
        middle + scale * params.link_length_1 * jnp.sin(first),
        middle + scale * params.link_length_1 * jnp.cos(first),
    )
    tip = (
        joint[0] + scale * params.link_length_2 * jnp.sin(second),
        joint[1] + scale * params.link_length_2 * jnp.cos(second),
    )
    is_over = -jnp.cos(first) - jnp.cos(second) > 1.0
    ends = [((middle, middle), joint, draw.TEAL), (joint, tip, draw.BROWN)]
    for start, end, colour in ends:
        image = draw.paint(image, draw.line(grid, [start, end], 22), draw.INK)
        image = draw.paint(image, draw.line(grid, [start, end], 16), colour)
    for x, y in ((middle, middle), joint):
        image = draw.paint(image, draw.disc(grid, x, y, 6), draw.INK)
        image = draw.paint(image, draw.disc(grid, x, y, 3.5), draw.PAPER)
    light = jnp.where(is_over, jnp.array(draw.GREEN), jnp.array(draw.YELLOW))
    image = draw.paint(image, draw.disc(grid, *tip, 11), draw.INK)
    return draw.finish(draw.paint(image, draw.disc(grid, *tip, 8), light))


def pong(env: Any, state: Any, params: Any) -> jax.Array:
    """The agent's paddle on the left, the other on the right, the ball and where it was before."""
    size = max(4, _board.EDGE // max(env.width, env.height))
    height, width = env.height * size, env.width * size
    grid = draw.grid(height, width)
    image = draw.plain(height, width, _board.BOARD)
    net = draw.box(grid, width / 2 - 1, 0, width / 2 + 1, height)
    image = draw.paint(image, net * (jnp.floor(grid.y / size) % 2), _board.DIM)
    reach = env.paddle_half_height
    for side, colour in ((0, _board.SKY), (1, _board.ORANGE)):
        left, row = side * (env.width - 1) * size, jnp.floor(state.paddle_centers[side])
        top, bottom = (row - reach) * size, (row + reach + 1) * size
        paddle = draw.box(grid, left + 1, top + 1, left + size - 1, bottom - 1, size / 4)
        image = draw.paint(image, paddle, colour)
    last = jnp.array([env.height - 1, env.width - 1])
    balls = (
        (state.last_ball_position, 0.22, _board.DIM),
        (state.ball_position, 0.6, _board.YELLOW),
    )
    for position, radius, colour in balls:
        row, column = (jnp.clip(jnp.floor(position), 0, last) + 0.5) * size
        image = draw.paint(image, draw.disc(grid, column, row, radius * size), colour)
    return draw.finish(image)
