"""Bars, a strip of time and panels, for environments that have no place to be drawn."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs import _drawing as draw
from envs.pictures import _board, _text

TRACK: draw.Colour = (224, 227, 231)
BELOW: draw.Colour = _board.RED
ABOVE: draw.Colour = draw.BLUE


class Area(NamedTuple):
    """A part of a picture, in pixels."""

    left: int
    top: int
    right: int
    bottom: int


def columns(
    image: jax.Array,
    area: Area,
    values: jax.Array,
    low: draw.Number,
    high: draw.Number,
    marked: jax.Array,
) -> jax.Array:
    """The image with an upright bar for each of values [N], numbered below; `marked` are yellow.

    Bars stand on 0 where `low` and `high` have it between them.
    """
    count = len(values)
    grid = draw.grid(*image.shape[:2])
    pitch = (area.right - area.left) // count
    index = jnp.clip((grid.x - area.left) // pitch, 0, count - 1).astype(jnp.int32)
    middle = area.left + (index + 0.5) * pitch
    ground = y_of(jnp.clip(0.0, low, high), area, low, high)
    half = 0.36 * pitch
    track = draw.box(grid, middle - half, area.top, middle + half, area.bottom, 4)
    inside = (grid.x >= area.left) & (grid.x < area.left + count * pitch)
    image = draw.paint(image, track * inside, TRACK)
    end = y_of(values, area, low, high)[index]
    bar = draw.box(
        grid, middle - half, jnp.minimum(end, ground), middle + half, jnp.maximum(end, ground)
    )
    colour = jnp.where(marked[:, None], jnp.array(draw.YELLOW), jnp.array(draw.BLUE))[index]
    image = draw.paint(image, bar * inside, colour)
    base = draw.box(grid, area.left, ground - 1, area.right, ground + 1)
    image = draw.paint(image, base, draw.INK)
    for arm in range(count):
        left = int(area.left + (arm + 0.5) * pitch) - _text.width(str(arm)) // 2
        image = _text.write(image, str(arm), left, area.bottom + 8)
    return image


def y_of(value: jax.Array, area: Area, low: draw.Number, high: draw.Number) -> jax.Array:
    """The height at which `columns` shows a value."""
    share = jnp.clip((value - low) / (high - low), 0.0, 1.0)
    return area.bottom - share * (area.bottom - area.top)


def timeline(
    image: jax.Array, area: Area, time: draw.Number, length: draw.Number, colour: draw.Colour
) -> jax.Array:
    """The image with a strip of `length` steps, those that are over filled, and a pointer to now.

    Steps are told apart where each has 6 pixels and more.
    """
    grid = draw.grid(*image.shape[:2])
    step = (area.right - area.left) / length
    now = area.left + jnp.clip(time, 0, length) * step
    image = draw.paint(image, draw.box(grid, *area, 4), TRACK)
    done = draw.box(grid, area.left, area.top, now, area.bottom, 4)
    image = draw.paint(image, done * (now > area.left), colour)
    phase = (grid.x - area.left) % step
    ticks = draw.box(grid, *area) * (jnp.minimum(phase, step - phase) < 1.0) * (step >= 6)
    inner = (grid.x > area.left + 3) & (grid.x < area.right - 3)
    image = draw.paint(image, ticks * inner, draw.PAPER)
    tip = area.top - 2
    pointer = draw.polygon(grid, [(now, tip), (now - 8, tip - 12), (now + 8, tip - 12)])
    return draw.paint(image, pointer, draw.INK)
