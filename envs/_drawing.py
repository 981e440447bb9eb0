"""Anti-aliased shapes on a pixel grid, in pure JAX, for the `render` methods.

A shape is a coverage, float32 [H, W] from 0 to 1; painting blends a colour in by it. Lengths are
pixels, x to the right and y downwards, and pixel (0, 0) has its centre at (0.5, 0.5). Positions
may be traced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Colour = tuple[int, int, int] | jax.Array
Number = float | jax.Array

WHITE: Colour = (250, 250, 247)
INK: Colour = (38, 42, 51)
GREY: Colour = (150, 156, 166)
PAPER: Colour = (240, 241, 243)
NIGHT_TOP: Colour = (23, 29, 51)
NIGHT: Colour = (44, 57, 92)
TEAL: Colour = (58, 160, 146)
TEAL_DARK: Colour = (31, 106, 102)
YELLOW: Colour = (250, 196, 60)
RED: Colour = (226, 77, 66)
GREEN: Colour = (72, 168, 92)
BLUE: Colour = (66, 118, 214)
BROWN: Colour = (190, 134, 84)
GROUND: Colour = (168, 178, 166)
SKY_TOP: Colour = (150, 199, 236)
SKY: Colour = (226, 241, 250)


class Grid(NamedTuple):
    """Coordinates of the pixel centres, float32 that broadcast to [H, W]."""

    x: jax.Array
    y: jax.Array


def grid(height: int, width: int) -> Grid:
    """Coordinates of `height` x `width` pixels."""
    x = jnp.arange(width, dtype=jnp.float32) + 0.5
    y = jnp.arange(height, dtype=jnp.float32) + 0.5
    return Grid(x[None, :], y[:, None])


def turned(on: Grid, x: Number, y: Number, angle: Number) -> Grid:
    """The grid seen from (x, y) by one who is turned clockwise by `angle` radians."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    dx, dy = on.x - x, on.y - y
    return Grid(cos * dx + sin * dy, cos * dy - sin * dx)


def plain(height: int, width: int, colour: Colour) -> jax.Array:
    """An image float32 [H, W, 3] of one colour."""
    return jnp.broadcast_to(jnp.asarray(colour, jnp.float32), (height, width, 3))


def vertical_gradient(height: int, width: int, top: Colour, bottom: Colour) -> jax.Array:
    """An image float32 [H, W, 3] that runs from one colour to another."""
    share = jnp.linspace(0.0, 1.0, height, dtype=jnp.float32)[:, None, None]
    first, last = jnp.asarray(top, jnp.float32), jnp.asarray(bottom, jnp.float32)
    return jnp.broadcast_to(first + share * (last - first), (height, width, 3))


def paint(
    image: jax.Array, coverage: jax.Array, colour: Colour, opacity: Number = 1.0
) -> jax.Array:
    """The image [H, W, 3] with `colour` where `coverage` [H, W] is."""
    share = (opacity * coverage)[..., None]
    return image + share * (jnp.asarray(colour, jnp.float32) - image)


def finish(image: jax.Array) -> jax.Array:
    """The image as uint8 [H, W, 3]."""
    return jnp.clip(jnp.round(image), 0, 255).astype(jnp.uint8)


def disc(on: Grid, x: Number, y: Number, radius: Number) -> jax.Array:
    """Coverage of a disc around (x, y)."""
    return _inside(jnp.hypot(on.x - x, on.y - y) - radius)


def box(
    on: Grid, left: Number, top: Number, right: Number, bottom: Number, radius: Number = 0.0
) -> jax.Array:
    """Coverage of a rectangle whose corners are rounded by `radius`."""
    dx = jnp.abs(on.x - (left + right) / 2) - (right - left) / 2 + radius
    dy = jnp.abs(on.y - (top + bottom) / 2) - (bottom - top) / 2 + radius
    outside = jnp.hypot(jnp.maximum(dx, 0.0), jnp.maximum(dy, 0.0))
    return _inside(outside + jnp.minimum(jnp.maximum(dx, dy), 0.0) - radius)


def line(on: Grid, points: Sequence[tuple[Number, Number]], width: Number) -> jax.Array:
    """Coverage of the straight lines from each point (x, y) to the next, with round ends."""
    parts = [
        _segment_distance(on, *start, *end)
        for start, end in zip(points[:-1], points[1:], strict=True)
    ]
    nearest = parts[0]
    for part in parts[1:]:
        nearest = jnp.minimum(nearest, part)
    return _inside(nearest - width / 2)


def polygon(on: Grid, points: Sequence[tuple[Number, Number]]) -> jax.Array:
    """Coverage of a convex polygon with its corners (x, y) clockwise, as the screen shows it."""
    distance: Any = -jnp.inf
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        dx, dy = x1 - x0, y1 - y0
        edge = ((on.x - x0) * dy - (on.y - y0) * dx) / jnp.hypot(dx, dy)
        distance = jnp.maximum(distance, edge)
    return _inside(distance)


def check_state(name: str, state: Any, kind: type) -> None:
    """Check that `state` is one state of the environment `name`, whose class is `kind`.

    Raises TypeError for anything but a `kind` and ValueError for a batch of states.
    """
    if not isinstance(state, kind):
        have = f"{type(state).__module__}.{type(state).__qualname__}"
        want = f"{kind.__module__}.{kind.__qualname__}"
        raise TypeError(f"{name} renders its own state, {want}, not {have}")
    for field, value in vars(state).items():
        if jnp.ndim(value) != 0:
            raise ValueError(
                f"{name} renders one state, but {field} has the shape {jnp.shape(value)}; take "
                "one of them, jax.tree.map(lambda leaf: leaf[0], state), or jax.vmap the render"
            )


def _segment_distance(on: Grid, x0: Number, y0: Number, x1: Number, y1: Number) -> jax.Array:
    dx, dy = x1 - x0, y1 - y0
    along = ((on.x - x0) * dx + (on.y - y0) * dy) / (dx * dx + dy * dy)
    along = jnp.clip(along, 0.0, 1.0)
    return jnp.hypot(on.x - x0 - along * dx, on.y - y0 - along * dy)


def _inside(distance: jax.Array) -> jax.Array:
    """Coverage of a pixel whose centre is `distance` outside the outline (negative: inside)."""
    return jnp.clip(0.5 - distance, 0.0, 1.0)
