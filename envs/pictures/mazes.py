"""Pictures of gymnax's worlds of cells: FrozenLake, FourRooms, MetaMaze, Catch and DeepSea.

Each takes `(env, state, params)` and gives uint8 [H, W, 3] of about 400 pixels.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from envs import _drawing as draw
from envs.pictures import _board, _text

ICE: draw.Colour = (206, 229, 243)
WATER: draw.Colour = (38, 76, 126)
HOLE, GOAL = 2, 3  # FrozenLake's tiles

Cell = jax.Array | tuple[draw.Number, draw.Number]  # row and column


def frozen_lake(env: Any, state: Any, params: Any) -> jax.Array:
    """Ice with holes, the flag of the goal, and the walker, who is red in a hole."""
    rows, columns = env.desc.shape
    size, grid, image = _cells(rows, columns, (176, 208, 228))
    image = draw.paint(image, _board.shape("block", grid, size), ICE)
    holes = _board.spread((env.desc == HOLE).astype(jnp.float32), size)
    image = draw.paint(image, holes * _board.shape("disc", grid, size), WATER)
    goal = jnp.argmax(env.desc.reshape(-1) == GOAL)
    image = _flag(image, grid, (goal // columns, goal % columns), size)
    row, column = state.position // columns, state.position % columns
    fell = env.desc[row, column] == HOLE
    return draw.finish(_walker(image, grid, (row, column), size, fell))


def four_rooms(env: Any, state: Any, params: Any) -> jax.Array:
    """Walls, the flag of the goal, and the walker."""
    size, grid, image = _maze(env.occupied_map)
    image = _flag(image, grid, state.goal, size)
    return draw.finish(_walker(image, grid, state.pos, size))


def meta_maze(env: Any, state: Any, params: Any) -> jax.Array:
    """Walls, the flag of the goal, and the walker; what the walker sees is tinted."""
    size, grid, image = _maze(env.occupied_map)
    row, column, reach = state.pos[0], state.pos[1], env.rf_size // 2
    view = draw.box(
        grid,
        (column - reach) * size,
        (row - reach) * size,
        (column + reach + 1) * size,
        (row + reach + 1) * size,
    )
    image = draw.paint(image, view, draw.YELLOW, 0.3)
    image = _flag(image, grid, state.goal, size)
    return draw.finish(_walker(image, grid, state.pos, size))


def catch(env: Any, state: Any, params: Any) -> jax.Array:
    """The ball that falls and the paddle, which turns green on a catch and red on a miss."""
    size, grid, image = _cells(env.rows, env.columns, _board.BOARD)
    image = draw.paint(image, _board.shape("block", grid, size), _board.CELL)
    is_down, is_caught = state.ball_y == state.paddle_y, state.ball_x == state.paddle_x
    landed = jnp.where(is_caught, jnp.array(_board.GREEN), jnp.array(_board.RED))
    colour = jnp.where(is_down, landed, jnp.array(_board.SKY))
    left, top = state.paddle_x * size, state.paddle_y * size
    paddle = draw.box(grid, left + 2, top + size / 2, left + size - 2, top + size - 2, size / 8)
    image = draw.paint(image, paddle, colour)
    middle = ((state.ball_x + 0.5) * size, (state.ball_y + 0.4) * size)
    return draw.finish(draw.paint(image, draw.disc(grid, *middle, 0.34 * size), _board.YELLOW))


def deep_sea(env: Any, state: Any, params: Any) -> jax.Array:
    """The diver on the way down to the chest; red who cannot reach it any more.

    Each cell shows the action that leads to the right. The last row is the ground of the sea,
    where an episode ends; no diver comes to the dark cells.
    """
    count = env.size
    size, grid, _ = _cells(count + 1, count, WATER)
    image = draw.vertical_gradient((count + 1) * size, count * size, (120, 186, 226), WATER)
    row, column = jnp.floor(grid.y / size), jnp.floor(grid.x / size)
    image = draw.paint(image, _board.shape("block", grid, size), draw.WHITE, 0.1)
    image = draw.paint(image, (column > row).astype(jnp.float32), _board.BOARD, 0.55)
    actions = _action_digits(state.action_mapping, size)
    actions = jnp.pad(actions, ((0, size), (0, 0))) * (column <= row)
    image = draw.paint(image, actions, draw.WHITE, 0.7)
    image = draw.paint(image, (row >= count).astype(jnp.float32), (222, 200, 150))
    image = _chest(image, grid, (count, count - 1), size)
    return draw.finish(_walker(image, grid, (state.row, state.column), size, state.bad_episode))


def _cells(rows: int, columns: int, colour: draw.Colour) -> tuple[int, draw.Grid, jax.Array]:
    """Pixels of a cell, the grid, and an empty image for `rows` x `columns` cells."""
    size = max(4, _board.EDGE // max(rows, columns))
    height, width = rows * size, columns * size
    return size, draw.grid(height, width), draw.plain(height, width, colour)


def _maze(walls: jax.Array) -> tuple[int, draw.Grid, jax.Array]:
    size, grid, image = _cells(walls.shape[0], walls.shape[1], (216, 219, 224))
    image = draw.paint(image, _board.shape("block", grid, size), draw.PAPER)
    return size, grid, draw.paint(image, _board.spread(walls * 1.0, size), draw.INK)


def _action_digits(actions: jax.Array, size: int) -> jax.Array:
    """The number 0 or 1 of each cell in its upper left corner, float32 [rows, columns] * size."""
    scale = max(1, size // 22)
    signs = []
    for sign in "01":
        dots = _text.coverage(_text.codes(sign), scale)[:, : size - 3]
        room = ((3, max(0, size - 3 - dots.shape[0])), (3, size - 3 - dots.shape[1]))
        tile = jnp.pad(dots, room)[:size, :size]
        signs.append(jnp.tile(tile, actions.shape))
    return jnp.where(_board.spread(actions, size) == 1, signs[1], signs[0])


def _walker(
    image: jax.Array,
    grid: draw.Grid,
    cell: Cell,
    size: int,
    is_lost: bool | jax.Array = False,
) -> jax.Array:
    """A figure in a cell, blue or, when lost, red."""
    x, y = (cell[1] + 0.5) * size, cell[0] * size
    coat = jnp.where(is_lost, jnp.array(draw.RED), jnp.array(draw.BLUE))
    for edge, colours in ((0.05, (draw.WHITE, draw.WHITE)), (0.0, (coat, (236, 188, 150)))):
        reach = edge * size
        body = draw.box(
            grid,
            x - 0.25 * size - reach,
            y + 0.46 * size - reach,
            x + 0.25 * size + reach,
            y + 0.9 * size + reach,
            0.2 * size,
        )
        image = draw.paint(image, body, colours[0])
        head = draw.disc(grid, x, y + 0.32 * size, 0.2 * size + reach)
        image = draw.paint(image, head, colours[1])
    return image


def _flag(image: jax.Array, grid: draw.Grid, cell: Cell, size: int) -> jax.Array:
    """A green cell with a flag."""
    left, top = cell[1] * size, cell[0] * size
    edge = size / 20
    ground = draw.box(
        grid, left + edge, top + edge, left + size - edge, top + size - edge, size / 6
    )
    image = draw.paint(image, ground, draw.GREEN)
    x, y = left + 0.3 * size, top + 0.16 * size
    pole = draw.line(grid, [(x, y), (x, y + 0.68 * size)], 0.08 * size)
    image = draw.paint(image, pole, draw.INK)
    cloth = [(x, y), (x + 0.46 * size, y + 0.18 * size), (x, y + 0.36 * size)]
    return draw.paint(image, draw.polygon(grid, cloth), draw.YELLOW)


def _chest(image: jax.Array, grid: draw.Grid, cell: Cell, size: int) -> jax.Array:
    left, top = cell[1] * size, cell[0] * size
    chest = (left + 0.14 * size, top + 0.34 * size, left + 0.86 * size, top + 0.86 * size)
    image = draw.paint(image, draw.box(grid, *chest, 0.1 * size), draw.BROWN)
    lid = draw.box(grid, chest[0], top + 0.52 * size, chest[2], top + 0.58 * size)
    image = draw.paint(image, lid, draw.INK)
    lock = draw.disc(grid, left + 0.5 * size, top + 0.58 * size, 0.09 * size)
    return draw.paint(image, lock, draw.YELLOW)
