"""Words and numbers for pictures: capitals, digits and a few signs of 5 x 7 dots.

A character has a code, its place in `CHARACTERS`. Codes may be traced, so a compiled picture can
write numbers; places in the picture may not.
"""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from envs import _drawing as draw

CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-. "
PITCH, HEIGHT = 6, 7  # dots from a character to the next, and from top to bottom
NUMBER_WIDTH = 8  # characters of a written number

# Thirteen characters side by side, with a column of dots between them.
_SHEET = (
    (
        ".###..####...###..####..#####.#####..###..#...#..###......#.#...#.#.....#...#",
        "#...#.#...#.#...#.#...#.#.....#.....#...#.#...#...#.......#.#..#..#.....##.##",
        "#...#.#...#.#.....#...#.#.....#.....#.....#...#...#.......#.#.#...#.....#.#.#",
        "#####.####..#.....#...#.####..####..#.###.#####...#.......#.##....#.....#.#.#",
        "#...#.#...#.#.....#...#.#.....#.....#...#.#...#...#.......#.#.#...#.....#...#",
        "#...#.#...#.#...#.#...#.#.....#.....#...#.#...#...#...#...#.#..#..#.....#...#",
        "#...#.####...###..####..#####.#......###..#...#..###...###..#...#.#####.#...#",
    ),
    (
        "#...#..###..####...###..####...####.#####.#...#.#...#.#...#.#...#.#...#.#####",
        "##..#.#...#.#...#.#...#.#...#.#.......#...#...#.#...#.#...#.#...#.#...#.....#",
        "##..#.#...#.#...#.#...#.#...#.#.......#...#...#.#...#.#...#..#.#...#.#.....#.",
        "#.#.#.#...#.####..#...#.####...###....#...#...#.#...#.#.#.#...#.....#.....#..",
        "#..##.#...#.#.....#.#.#.#.#.......#...#...#...#..#.#..#.#.#..#.#....#....#...",
        "#..##.#...#.#.....#..#..#..#......#...#...#...#..#.#..##.##.#...#...#...#....",
        "#...#..###..#......##.#.#...#.####....#....###....#...#...#.#...#...#...#####",
    ),
    (
        ".###....#....###...###.....#..#####..###..#####..###...###...................",
        "#...#..##...#...#.#...#...##..#.....#.........#.#...#.#...#..................",
        "#...#...#.......#.....#..#.#..####..#........#..#...#.#...#..................",
        "#...#...#.....##....##..#..#......#.####.....#...###...####..###.............",
        "#...#...#....#........#.#####.....#.#...#...#...#...#.....#..................",
        "#...#...#...#.....#...#....#..#...#.#...#...#...#...#.....#........##........",
        ".###...###..#####..###.....#...###...###....#....###...###.........##........",
    ),
)


def write(
    image: jax.Array,
    text: str | np.ndarray | jax.Array,
    left: int,
    top: int,
    colour: draw.Colour = draw.INK,
    scale: int = 2,
    opacity: draw.Number = 1.0,
) -> jax.Array:
    """The image [H, W, 3] with a text, or codes int32 [N], whose dots are `scale` pixels wide.

    What lies beyond the image is cut off.
    """
    ink = jnp.asarray(coverage(codes(text) if isinstance(text, str) else text, scale))
    bottom = min(top + ink.shape[0], image.shape[0])
    right = min(left + ink.shape[1], image.shape[1])
    part = image[top:bottom, left:right]
    return image.at[top:bottom, left:right].set(
        draw.paint(part, ink[: bottom - top, : right - left], colour, opacity)
    )


def width(text: str, scale: int = 2) -> int:
    """Pixels from the first dot of a text to the last."""
    return (PITCH * len(text) - 1) * scale


def codes(text: str) -> np.ndarray:
    """The codes of a text, int32 [N]; lower case becomes upper case, other signs a space."""
    places = [CHARACTERS.find(sign) for sign in text.upper()]
    return np.array([place if place >= 0 else _SPACE for place in places], np.int32)


def number(value: jax.Array) -> jax.Array:
    """Three significant digits of a number, or all of a larger one, as codes int32 [8].

    The point is left out beyond 100. NAN stands for what is no number, BIG for a million and more.
    """
    value = jnp.asarray(value, jnp.float32)
    size = jnp.minimum(jnp.abs(value), 999_999.0)
    decimals = jnp.where(size < 9.995, 2, jnp.where(size < 99.95, 1, 0))
    whole = jnp.round(size * 10.0**decimals).astype(jnp.int32)
    place = jnp.arange(NUMBER_WIDTH)[::-1]
    has_point = decimals > 0
    digit = place - (has_point & (place > decimals))
    power = 10 ** jnp.minimum(digit, 6)
    shown = (whole >= power) | (digit <= decimals)
    written = jnp.where(shown, CHARACTERS.index("0") + whole // power % 10, _SPACE)
    written = jnp.where(has_point & (place == decimals), CHARACTERS.index("."), written)
    count = jnp.sum(written != _SPACE)
    is_negative = (value < 0) & (whole > 0)
    written = jnp.where((place == count) & is_negative, CHARACTERS.index("-"), written)
    big = jnp.where(value < 0, codes("    -BIG"), codes("     BIG"))
    written = jnp.where(jnp.abs(value) >= 999_999.5, big, written)
    return jnp.where(jnp.isnan(value), codes("     NAN"), written).astype(jnp.int32)


def integer(value: jax.Array, digits: int) -> jax.Array:
    """The last digits of a number from 0 on, as codes int32 [digits]; spaces for leading zeros."""
    power = 10 ** jnp.arange(digits)[::-1]
    shown = (value >= power) | (power == 1)
    return jnp.where(shown, CHARACTERS.index("0") + value // power % 10, _SPACE)


def coverage(text: np.ndarray | jax.Array, scale: int) -> np.ndarray | jax.Array:
    """What the characters of codes int32 [N] cover, float32 [7 * scale, 6 * N * scale]."""
    glyphs = _glyphs() if isinstance(text, np.ndarray) else jnp.asarray(_glyphs())
    dots = glyphs[text].swapaxes(0, 1).reshape(HEIGHT, -1)
    return dots.repeat(scale, 0).repeat(scale, 1)


@cache
def _glyphs() -> np.ndarray:
    """The dots of every character, float32 [characters, 7, 6]."""
    sheet = np.array([[list(line + ".") for line in block] for block in _SHEET]) == "#"
    glyphs = sheet.reshape(len(_SHEET), HEIGHT, -1, PITCH).swapaxes(1, 2)
    return glyphs.reshape(-1, HEIGHT, PITCH).astype(np.float32)


_SPACE = CHARACTERS.index(" ")
