"""The picture of a Taxi state: the town once, then the passenger, the destination and the cab."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from envs import _drawing as draw

EDGE, MARGIN, CELL = 400, 20, 72
PAD_COLOURS: tuple[draw.Colour, ...] = (draw.RED, draw.GREEN, (222, 170, 30), draw.BLUE)
GROUND: draw.Colour = (214, 217, 222)

# Strokes of the pads' letters, (x, y) in units of a letter's height.
_BOWL = [(0.0, 0.0), (0.38, 0.0), (0.55, 0.12), (0.55, 0.35), (0.38, 0.48), (0.0, 0.48)]
_LETTERS = (
    ([(0.0, 1.0), *_BOWL], [(0.3, 0.48), (0.58, 1.0)]),
    (
        [(0.56, 0.14), (0.4, 0.0), (0.18, 0.0), (0.0, 0.2), (0.0, 0.8), (0.18, 1.0), (0.4, 1.0)],
        [(0.4, 1.0), (0.58, 0.85), (0.58, 0.52), (0.32, 0.52)],
    ),
    ([(0.0, 0.0), (0.3, 0.48), (0.3, 1.0)], [(0.6, 0.0), (0.3, 0.48)]),
    (
        [(0.0, 1.0), *_BOWL],
        [(0.38, 0.48), (0.58, 0.6), (0.58, 0.86), (0.42, 1.0), (0.0, 1.0)],
    ),
)


def picture(
    taxi: jax.Array,
    passenger: jax.Array,
    destination: jax.Array,
    layout: tuple[str, ...],
    pads: tuple[int, ...],
) -> jax.Array:
    """Draw the town with the cab in cell `taxi`, uint8 [400, 400, 3].

    `passenger` is a pad or 4 for in the cab, `destination` a pad. `layout` is the map, a line of
    text a row, and `pads` the cells of R, G, Y and B.
    """
    image = jnp.asarray(_town(layout, pads), jnp.float32)
    grid = draw.grid(EDGE, EDGE)
    cells = jnp.asarray(pads, jnp.int32)
    image = _flag(image, grid, *_corner(cells[destination]))
    waits = passenger < 4
    image = _person(image, grid, *_corner(cells[jnp.minimum(passenger, 3)]), waits)
    return draw.finish(_cab(image, grid, *_corner(taxi), ~waits))


def _corner(cell: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Left and top of a cell."""
    return MARGIN + CELL * (cell % 5), MARGIN + CELL * (cell // 5)


@cache
def _town(layout: tuple[str, ...], pads: tuple[int, ...]) -> np.ndarray:
    """What no state changes, uint8 [400, 400, 3]."""
    with jax.ensure_compile_time_eval():
        return np.asarray(draw.finish(_drawn_town(layout, pads)))


def _drawn_town(layout: tuple[str, ...], pads: tuple[int, ...]) -> jax.Array:
    grid = draw.grid(EDGE, EDGE)
    image = draw.plain(EDGE, EDGE, draw.PAPER)
    frame = (MARGIN - 7, MARGIN - 7, EDGE - MARGIN + 7, EDGE - MARGIN + 7)
    image = draw.paint(image, draw.box(grid, *frame, 10), draw.INK)
    inside = (MARGIN - 1, MARGIN - 1, EDGE - MARGIN + 1, EDGE - MARGIN + 1)
    image = draw.paint(image, draw.box(grid, *inside, 4), GROUND)
    colours = dict(zip(pads, PAD_COLOURS, strict=True))
    letters = dict(zip(pads, _LETTERS, strict=True))
    for cell in range(25):
        left, top = MARGIN + CELL * (cell % 5), MARGIN + CELL * (cell // 5)
        tile = draw.box(grid, left + 2, top + 2, left + CELL - 2, top + CELL - 2, 7)
        image = draw.paint(image, tile, colours.get(cell, (232, 234, 237)))
        for stroke in letters.get(cell, ()):
            points = [(left + 12 + 19 * x, top + 11 + 19 * y) for x, y in stroke]
            image = draw.paint(image, draw.line(grid, points, 4.2), draw.WHITE)
    for row, line in enumerate(layout):
        for column in range(1, 5):
            if line[2 * column] == "|":
                x, y = MARGIN + CELL * column, MARGIN + CELL * row
                wall = draw.line(grid, [(x, y + 1), (x, y + CELL - 1)], 8)
                image = draw.paint(image, wall, draw.INK)
    return image


def _flag(image: jax.Array, grid: draw.Grid, left: jax.Array, top: jax.Array) -> jax.Array:
    """A dark frame around the destination's cell, and a chequered flag in it."""
    outer = draw.box(grid, left + 2, top + 2, left + CELL - 2, top + CELL - 2, 7)
    inner = draw.box(grid, left + 6, top + 6, left + CELL - 6, top + CELL - 6, 4)
    image = draw.paint(image, outer - inner, draw.INK)
    x, y = left + 50, top + 9
    image = draw.paint(image, draw.line(grid, [(x, y), (x, y + 32)], 3), draw.INK)
    image = draw.paint(image, draw.box(grid, x, y - 1, x + 16, y + 13), draw.WHITE)
    columns, rows = jnp.floor((grid.x - x) / 4), jnp.floor((grid.y - y + 1) / 3.5)
    chequers = draw.box(grid, x, y - 1, x + 16, y + 13) * ((columns + rows) % 2)
    return draw.paint(image, chequers, draw.INK)


def _person(
    image: jax.Array, grid: draw.Grid, left: jax.Array, top: jax.Array, shown: jax.Array
) -> jax.Array:
    x, y = left + 38, top + 15
    body = draw.box(grid, x - 7, y + 7, x + 7, y + 25, 6)
    for coverage, colour in (
        (draw.box(grid, x - 9, y + 5, x + 9, y + 27, 8), draw.WHITE),
        (draw.disc(grid, x, y, 8), draw.WHITE),
        (body, (96, 62, 140)),
        (draw.disc(grid, x, y, 6), (236, 188, 150)),
    ):
        image = draw.paint(image, coverage, colour, shown.astype(jnp.float32))
    return image


def _cab(
    image: jax.Array, grid: draw.Grid, left: jax.Array, top: jax.Array, occupied: jax.Array
) -> jax.Array:
    """A cab seen from the side; a passenger shows in its window, and its lamp turns green."""
    x, y = left + 7, top + 28
    lamp = jnp.where(occupied, jnp.array((60, 190, 90)), jnp.array(draw.WHITE))
    outline = (
        draw.box(grid, x - 2, y + 13, x + 60, y + 33, 8),
        draw.polygon(grid, [(x + 9, y + 18), (x + 18, y + 2), (x + 42, y + 2), (x + 51, y + 18)]),
    )
    yellow = (
        draw.box(grid, x, y + 15, x + 58, y + 31, 6),
        draw.polygon(grid, [(x + 12, y + 18), (x + 20, y + 4), (x + 40, y + 4), (x + 48, y + 18)]),
    )
    windows = (
        draw.polygon(grid, [(x + 16, y + 16), (x + 21, y + 7), (x + 28, y + 7), (x + 28, y + 16)]),
        draw.polygon(grid, [(x + 31, y + 16), (x + 31, y + 7), (x + 39, y + 7), (x + 44, y + 16)]),
    )
    image = draw.paint(image, draw.box(grid, x + 24, y - 5, x + 36, y + 4, 3), draw.INK)
    image = draw.paint(image, draw.box(grid, x + 26, y - 3, x + 34, y + 3, 2), lamp)
    for coverage in outline:
        image = draw.paint(image, coverage, draw.INK)
    for coverage in yellow:
        image = draw.paint(image, coverage, draw.YELLOW)
    for coverage in windows:
        image = draw.paint(image, coverage, (196, 226, 240))
    head = draw.disc(grid, x + 24, y + 12, 3.6) + draw.box(grid, x + 20, y + 15, x + 28, y + 19, 2)
    image = draw.paint(image, jnp.minimum(head, 1.0), (96, 62, 140), occupied.astype(jnp.float32))
    stripe = draw.box(grid, x + 4, y + 20, x + 54, y + 22.5)
    image = draw.paint(image, stripe * (jnp.floor((grid.x - x) / 2.5) % 2), draw.INK)
    for wheel in (x + 14, x + 45):
        image = draw.paint(image, draw.disc(grid, wheel, y + 32, 6.5), draw.INK)
        image = draw.paint(image, draw.disc(grid, wheel, y + 32, 2.6), draw.GREY)
    return image
