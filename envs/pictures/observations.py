"""Pictures of observations, for environments that nothing else is known of."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from gymnax.environments import spaces

from envs import _drawing as draw
from envs.pictures import _board, _chart, _text
from envs.pictures._board import EDGE, Mark

MOST_BARS = 24
MOST_CATEGORIES = 2_500
WIDEST_BOUND = 1e6  # what lies further off does not bound


def observation(obs: jax.Array, space: Any) -> jax.Array:
    """Draw one observation of a Box or Discrete space, uint8 [H, W, 3] of about 400 pixels.

    Frames uint8 [H, W, 3] are shown as they are, uint8 [H, W] and [H, W, 1] in grey; other frames
    [H, W, C] become a board with a colour for each channel. Up to 24 numbers become bars, more of
    them cells of a field, and a category number a cell among all of them. Numbers are shown
    between the bounds of the space; where it has none, on a scale that holds all numbers.
    """
    if isinstance(space, spaces.Discrete):
        return category(obs, space.n)
    if obs.ndim in (2, 3) and obs.dtype == jnp.uint8 and obs.shape[2:] in ((), (1,), (3,)):
        return frame(obs)
    share, zero = _shares(obs, space)
    # From 0 to 1, or from -1 where a number may be negative.
    strength = (share - zero) / jnp.maximum(jnp.maximum(zero, 1 - zero), 1e-6)
    if obs.ndim == 3 and obs.shape[2] > 1:
        shape = "block" if max(obs.shape[:2]) <= EDGE // 8 else "full"
        colours = [_board.PALETTE[index % len(_board.PALETTE)] for index in range(obs.shape[2])]
        marks = tuple(Mark(str(index), colour, shape) for index, colour in enumerate(colours))
        return _board.board(jnp.abs(strength), marks)
    if obs.ndim in (2, 3):
        return field(strength.reshape(obs.shape[:2]))
    if obs.size > MOST_BARS:
        columns = math.ceil(math.sqrt(obs.size))
        rows = math.ceil(obs.size / columns)
        padded = jnp.pad(strength.reshape(-1), (0, rows * columns - obs.size))
        return field(padded.reshape(rows, columns))
    return bars(obs.reshape(-1), share.reshape(-1), zero.reshape(-1))


def frame(pixels: jax.Array) -> jax.Array:
    """Enlarge a frame uint8 [H, W], [H, W, 1] (grey) or [H, W, 3] to about 400 pixels."""
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    pixels = jnp.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return _board.spread(pixels, max(1, EDGE // max(pixels.shape[:2])))


def field(strength: jax.Array) -> jax.Array:
    """Draw numbers [R, C] from -1 to 1 as cells: 0 dark, above it orange, below it blue."""
    size = max(1, EDGE // max(strength.shape))
    image = draw.plain(strength.shape[0] * size, strength.shape[1] * size, _board.CELL)
    for sign, colour in ((1, _board.ORANGE), (-1, _board.SKY)):
        cells = _board.spread(jnp.clip(sign * strength, 0.0, 1.0), size)
        image = draw.paint(image, cells, colour)
    return draw.finish(image)


def category(value: jax.Array, count: int) -> jax.Array:
    """Draw a category number as the cell it has among `count`, and in digits below.

    More than 2,500 categories are too many for cells.
    """
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    size = max(1, EDGE // columns)
    image = draw.plain(52, EDGE, draw.PAPER)
    digits = _text.integer(jnp.asarray(value, jnp.int32), len(str(count - 1)))
    image = _text.write(image, digits, 12, 12, scale=4)
    total = f"OF {count}"
    image = _text.write(image, total, EDGE - 12 - _text.width(total), 26, _board.DIM)
    if count > MOST_CATEGORIES:
        return draw.finish(image)
    grid = draw.grid(rows * size, columns * size)
    number = jnp.floor(grid.y / size) * columns + jnp.floor(grid.x / size)
    shape = _board.shape("block", grid, size)
    cells = draw.plain(rows * size, columns * size, draw.PAPER)
    cells = draw.paint(cells, shape * (number < count), _chart.TRACK)
    cells = draw.paint(cells, shape * (number == value), draw.BLUE)
    cells = jnp.pad(cells, ((0, 0), (0, EDGE - columns * size), (0, 0)), mode="edge")
    return draw.finish(jnp.concatenate([cells, image]))


def bars(values: jax.Array, share: jax.Array, zero: jax.Array) -> jax.Array:
    """Draw numbers [N] as bars from `zero` to `share`, places from 0 to 1, with digits beside.

    The place of a number stands on the left. Bars to the left, of negative numbers, are orange.
    """
    count = len(values)
    pitch = min(64, EDGE // count)
    height = pitch * count + 16
    scale = 2 if pitch >= 20 else 1
    left, right = 20 + 2 * 6 * scale, EDGE - 20 - _text.NUMBER_WIDTH * 6 * scale
    grid = draw.grid(height, EDGE)
    index = jnp.clip((grid.y - 8) // pitch, 0, count - 1).astype(jnp.int32)
    middle, half = 8 + (index + 0.5) * pitch, 0.36 * pitch
    inside = (grid.y >= 8) & (grid.y < 8 + count * pitch)
    image = draw.plain(height, EDGE, draw.PAPER)
    track = draw.box(grid, left, middle - half, right, middle + half, 4)
    image = draw.paint(image, track * inside, _chart.TRACK)
    start, end = (left + place[index] * (right - left) for place in (zero, share))
    bar = draw.box(
        grid, jnp.minimum(start, end), middle - half, jnp.maximum(start, end), middle + half
    )
    colour = jnp.where((share < zero)[:, None], jnp.array(_board.ORANGE), jnp.array(draw.BLUE))
    image = draw.paint(image, bar * inside, colour[index])
    axis = draw.box(grid, start - 1, middle - half - 2, start + 1, middle + half + 2)
    image = draw.paint(image, axis * inside, draw.INK)
    for place in range(count):
        top = int(8 + (place + 0.5) * pitch - 3.5 * scale)
        image = _text.write(image, str(place), 10, top, _board.DIM, scale)
        image = _text.write(image, _text.number(values[place]), right + 10, top, scale=scale)
    return draw.finish(image)


def _shares(obs: jax.Array, space: Any) -> tuple[jax.Array, jax.Array]:
    """Where each number and where 0 lies between the least and the greatest, from 0 to 1."""
    values = obs.astype(jnp.float32)
    low, high = (
        jnp.broadcast_to(jnp.asarray(bound, jnp.float32), obs.shape)
        for bound in (space.low, space.high)
    )
    bounded = (jnp.abs(low) < WIDEST_BOUND) & (jnp.abs(high) < WIDEST_BOUND) & (low < high)
    low, high = jnp.where(bounded, low, -1.0), jnp.where(bounded, high, 1.0)
    pressed = jnp.where(jnp.isinf(values), jnp.sign(values), values / (1 + jnp.abs(values)))
    values = jnp.where(bounded, values, pressed)
    share = jnp.clip((values - low) / (high - low), 0.0, 1.0)
    zero = jnp.clip(-low / (high - low), 0.0, 1.0)
    return jnp.where(jnp.isnan(share), zero, share), zero
