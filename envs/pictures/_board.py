"""Boards of square cells: what stands in each cell, and a legend that says what it is."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs import _drawing as draw
from envs.pictures import _text

EDGE = 400
BOARD: draw.Colour = (23, 27, 38)
CELL: draw.Colour = (36, 41, 55)

# Okabe and Ito's palette, which the colour-blind can tell apart, lightened where it was too dark
# for a dark board, and three shades of grey and brown.
ORANGE: draw.Colour = (230, 159, 0)
SKY: draw.Colour = (86, 180, 233)
GREEN: draw.Colour = (0, 176, 130)
YELLOW: draw.Colour = (240, 228, 66)
BLUE: draw.Colour = (62, 124, 214)
RED: draw.Colour = (222, 94, 20)
PINK: draw.Colour = (214, 132, 178)
LIGHT: draw.Colour = (230, 232, 236)
DIM: draw.Colour = (122, 130, 146)
BROWN: draw.Colour = (150, 108, 70)
PALETTE = (SKY, ORANGE, GREEN, YELLOW, RED, BLUE, PINK, LIGHT, BROWN, DIM)


class Mark(NamedTuple):
    """How a channel is shown: its name in the legend ("" for none), its colour and its shape."""

    name: str
    colour: draw.Colour
    shape: str = "block"


def spread(cells: jax.Array, size: int) -> jax.Array:
    """Cells [R, C, ...] as pixels [R * size, C * size, ...]."""
    return jnp.repeat(jnp.repeat(cells, size, 0), size, 1)


def shape(name: str, on: draw.Grid, size: int) -> jax.Array:
    """The coverage of a mark in every cell of `size` pixels, float32 [H, W]."""
    local = draw.Grid(on.x % size, on.y % size)
    gap, half = size / 20, size / 2
    if name == "block":
        return draw.box(local, gap, gap, size - gap, size - gap, size / 6)
    if name == "full":
        return draw.box(local, -size, -size, 2 * size, 2 * size)
    if name == "disc":
        return draw.disc(local, half, half, 0.36 * size)
    if name == "dot":
        return draw.disc(local, half, half, 0.2 * size)
    if name == "dash":
        return draw.box(local, 3 * gap, half - 2 * gap, size - 3 * gap, half + 2 * gap, 2 * gap)
    if name == "bullet":
        return draw.box(local, half - 2 * gap, 4 * gap, half + 2 * gap, size - 4 * gap, 2 * gap)
    if name == "gauge":
        return draw.box(local, 0, size - 5 * gap, size, size - gap)
    side = {"left": -1, "right": 1}[name]
    tip, back = half + side * 6 * gap, half - side * 3 * gap
    corners = [(tip, half), (back, half + side * 5 * gap), (back, half - side * 5 * gap)]
    return draw.polygon(local, corners)


def board(channels: jax.Array, marks: tuple[Mark, ...]) -> jax.Array:
    """Draw channels [R, C, N] from 0 to 1 as a board with a legend below, uint8 [H, W, 3].

    Later marks lie over earlier ones. Boards are about 400 pixels at the longer side.
    """
    rows, columns, _ = channels.shape
    size = max(1, EDGE // max(rows, columns))
    grid = draw.grid(rows * size, columns * size)
    image = draw.plain(rows * size, columns * size, BOARD)
    if size >= 8:
        image = draw.paint(image, shape("block", grid, size), CELL)
    for index, mark in enumerate(marks):
        place = shape(mark.shape, grid, size) * spread(channels[..., index], size)
        image = draw.paint(image, place, mark.colour)
    return draw.finish(jnp.concatenate([image, legend(marks, columns * size)]))


@cache
def legend(marks: tuple[Mark, ...], width: int) -> np.ndarray:
    """The marks with their names on as many lines as `width` pixels ask for, float32 [H, width, 3].

    A mark without a name stands close to the next.
    """
    line, swatch = 24, 18
    left, top = 8, 5
    places = []
    for mark in marks:
        long = swatch + (4 + _text.width(mark.name) if mark.name else 0)
        if left + long > width and left > 8:
            left, top = 8, top + line
        places.append((left, top))
        left += long + (14 if mark.name else 2)
    image = np.full((top + line, width, 3), BOARD, np.float32)
    for mark, (left, top) in zip(marks, places, strict=True):
        for name, colour in (("block", CELL), (mark.shape, mark.colour)):
            _blend(image, _swatch(name, swatch), left, top, colour)
        letters = _text.coverage(_text.codes(mark.name), 2)
        _blend(image, np.asarray(letters), left + swatch + 4, top + 2, LIGHT)
    return image


def _blend(image: np.ndarray, ink: np.ndarray, left: int, top: int, colour: draw.Colour) -> None:
    """Paint in place; what lies beyond the image is cut off."""
    part = image[top : top + ink.shape[0], left : left + ink.shape[1]]
    share = ink[: part.shape[0], : part.shape[1], None]
    part += share * (np.asarray(colour, np.float32) - part)


@cache
def _swatch(name: str, size: int) -> np.ndarray:
    """One cell with a mark, float32 [size, size]."""
    with jax.ensure_compile_time_eval():
        return np.asarray(shape(name, draw.grid(size, size), size))
