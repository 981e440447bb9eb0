"""Pictures of bsuite's chains: MemoryChain, UmbrellaChain and DiscountingChain.

Each takes `(env, state, params)` and gives uint8 [H, 400, 3].
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from envs import _drawing as draw
from envs.pictures import _chart, _text

HEIGHT, WIDTH = 300, 400
STRIP = _chart.Area(20, 254, 380, 274)


def memory_chain(env: Any, state: Any, params: Any) -> jax.Array:
    """The bits to remember, dark while they are hidden, and what the agent has to do now.

    A yellow frame marks the bit that is asked for, once it is.
    """
    grid = draw.grid(HEIGHT, WIDTH)
    image = draw.plain(HEIGHT, WIDTH, draw.PAPER)
    phase = (state.time > 0).astype(jnp.int32) + (state.time >= params.memory_length)
    texts = jnp.stack([_text.codes(words) for words in ("SEE BITS", "REMEMBER", "ANSWER  ")])
    image = _text.write(image, texts[phase], 20, 20, scale=3)
    asked = state.time >= params.memory_length - 1
    count = env.num_bits
    pitch = min(90, 360 // count)
    gap = min(6, pitch // 8)
    tall = min(120, 2 * pitch)
    left, top = (WIDTH - pitch * count) // 2, 140 - tall // 2
    scale = max(1, pitch // 10)
    face = jnp.where(state.time == 0, jnp.array(draw.WHITE), jnp.array(draw.NIGHT))
    ink = jnp.where(state.time == 0, jnp.array(draw.INK), jnp.array((112, 128, 170)))
    for bit in range(count):
        x = left + bit * pitch
        is_asked = (asked & (state.query == bit)).astype(jnp.float32)
        frame = draw.box(grid, x + gap - 4, top - 4, x + pitch - gap + 4, top + tall + 4, pitch / 8)
        image = draw.paint(image, frame, draw.YELLOW, is_asked)
        card = draw.box(grid, x + gap, top, x + pitch - gap, top + tall, pitch / 10)
        image = draw.paint(image, card, face)
        place = (x + (pitch - 5 * scale) // 2, top + (tall - 7 * scale) // 2)
        sign = _text.integer(state.context[bit], 1)
        image = _text.write(image, sign, *place, ink, scale)
    length = params.memory_length + 1
    return draw.finish(_chart.timeline(image, STRIP, state.time, length, draw.TEAL))


def umbrella_chain(env: Any, state: Any, params: Any) -> jax.Array:
    """The weather at the end of the chain, and a walker with an umbrella or without."""
    grid = draw.grid(HEIGHT, WIDTH)
    rains, has_one = state.need_umbrella == 1, (state.has_umbrella == 1).astype(jnp.float32)
    sun = draw.vertical_gradient(HEIGHT, WIDTH, draw.SKY_TOP, draw.SKY)
    for radius, colour in ((44, (253, 226, 150)), (32, draw.YELLOW)):
        sun = draw.paint(sun, draw.disc(grid, 320, 60, radius), colour)
    rain = draw.vertical_gradient(HEIGHT, WIDTH, (110, 122, 142), (176, 186, 200))
    drops = ((grid.x + 0.35 * grid.y) % 28 < 2.5) & ((grid.y + 0.6 * grid.x) % 44 < 20)
    rain = draw.paint(rain, drops * (grid.y > 60) * 1.0, (212, 226, 246))
    for x, y, radius in ((250, 46, 28), (290, 34, 34), (330, 46, 30), (90, 40, 26), (126, 48, 22)):
        rain = draw.paint(rain, draw.disc(grid, x, y, radius), (84, 92, 110))
    image = jnp.where(rains, rain, sun)
    image = draw.paint(image, draw.box(grid, -9, 214, WIDTH + 9, HEIGHT + 9), draw.GROUND)

    x = 200
    stick = draw.line(grid, [(x + 18, 66), (x + 18, 158)], 5)
    image = draw.paint(image, stick, draw.INK, has_one)
    roof = draw.disc(grid, x + 10, 112, 66) * (grid.y < 106)
    image = draw.paint(image, roof, draw.RED, has_one)
    for parts, colour in (
        ([draw.line(grid, [(x - 8, 190), (x - 10, 228)], 11)], draw.INK),
        ([draw.line(grid, [(x + 8, 190), (x + 10, 228)], 11)], draw.INK),
        ([draw.box(grid, x - 18, 136, x + 18, 200, 14)], draw.TEAL),
        ([draw.line(grid, [(x + 8, 152), (x + 18, 162)], 9)], draw.TEAL_DARK),
        ([draw.disc(grid, x, 120, 18)], (236, 188, 150)),
    ):
        for part in parts:
            image = draw.paint(image, part, colour)
    length = params.chain_length
    return draw.finish(_chart.timeline(image, STRIP, state.time, length, draw.BLUE))


def discounting_chain(env: Any, state: Any, params: Any) -> jax.Array:
    """A lane for each action with its reward where it comes, over a logarithm of time.

    The lane that was chosen is blue up to now, and the best reward has a red frame.
    """
    count = env.n_actions
    grid = draw.grid(HEIGHT, WIDTH)
    image = _text.write(draw.plain(HEIGHT, WIDTH, draw.PAPER), "REWARDS AND WHEN THEY COME", 20, 12)
    left, right, top = 44, 372, 40
    pitch = (HEIGHT - top - 40) // count
    limit = params.max_steps_in_episode

    def x_of(time: draw.Number) -> jax.Array:
        share = jnp.log1p(jnp.asarray(time, jnp.float32)) / jnp.log1p(jnp.float32(limit))
        return left + jnp.clip(share, 0.0, 1.0) * (right - left)

    lane = jnp.clip((grid.y - top) // pitch, 0, count - 1).astype(jnp.int32)
    inside = (grid.y >= top) & (grid.y < top + count * pitch)
    middle = top + (lane + 0.5) * pitch
    track = draw.box(grid, left, middle - 0.3 * pitch, right, middle + 0.3 * pitch, 5)
    image = draw.paint(image, track * inside, _chart.TRACK)
    now = x_of(state.time)
    over = draw.box(grid, left, middle - 0.3 * pitch, now, middle + 0.3 * pitch, 5)
    image = draw.paint(image, over * inside * (lane == state.context), draw.BLUE)
    image = draw.paint(image, draw.box(grid, now - 1, top, now + 1, top + count * pitch), draw.INK)
    times = params.reward_timestep[jnp.arange(count)]
    is_best = (state.rewards == jnp.max(state.rewards))[lane]
    coin = jnp.where(is_best[..., None], jnp.array(draw.RED), jnp.array(draw.INK))
    place = x_of(times)[lane]
    image = draw.paint(image, draw.disc(grid, place, middle, 0.38 * pitch) * inside, coin)
    gold = draw.disc(grid, place, middle, 0.28 * pitch) * inside
    image = draw.paint(image, gold, draw.YELLOW)
    for action in range(count):
        image = _text.write(image, str(action), 20, int(top + (action + 0.5) * pitch) - 7)
    image = _text.write(image, "TIME", 20, HEIGHT - 26)
    time = _text.integer(jnp.asarray(state.time, jnp.int32), 5)
    return draw.finish(_text.write(image, time, 68, HEIGHT - 26))
