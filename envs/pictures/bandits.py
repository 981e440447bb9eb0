"""Pictures of gymnax's bandits, with what is hidden from the agent.

Each takes `(env, state, params)` and gives uint8 [H, 400, 3].
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from envs import _drawing as draw
from envs.pictures import _chart, _text

HEIGHT, WIDTH = 300, 400
AREA = _chart.Area(20, 50, 380, 190)
STRIP = _chart.Area(20, 264, 380, 280)


def simple_bandit(env: Any, state: Any, params: Any) -> jax.Array:
    """The reward of each arm, the best one yellow, and the regret so far."""
    image = _text.write(draw.plain(HEIGHT, WIDTH, draw.PAPER), "REWARD OF EACH ARM", 20, 20)
    best = state.rewards == jnp.max(state.rewards)
    image = _chart.columns(image, AREA, state.rewards, 0.0, 1.0, best)
    image = _text.write(image, "REGRET", 20, 240)
    return draw.finish(_text.write(image, _text.number(state.total_regret), 100, 240))


def bernoulli_bandit(env: Any, state: Any, params: Any) -> jax.Array:
    """The chance that each arm pays; the last arm pulled is yellow, with a coin if it paid."""
    pulled = _pulled(state, 2)
    image = _text.write(draw.plain(HEIGHT, WIDTH, draw.PAPER), "CHANCE OF EACH ARM TO PAY", 20, 20)
    image = _chart.columns(image, AREA, state.reward_probs, 0.0, 1.0, pulled)
    x = 110 + 180 * jnp.asarray(state.last_action)
    grid = draw.grid(HEIGHT, WIDTH)
    paid = (pulled.any() & (state.last_reward > 0)).astype(jnp.float32)
    for radius, colour in ((22, draw.INK), (19, draw.YELLOW), (13, (222, 166, 30))):
        image = draw.paint(image, draw.disc(grid, x, 80, radius), colour, paid)
    return _finished(image, state, params)


def gaussian_bandit(env: Any, state: Any, params: Any) -> jax.Array:
    """The mean reward of each arm; the last arm pulled is yellow, a disc is what it paid."""
    pulled = _pulled(state, 2)
    image = _text.write(draw.plain(HEIGHT, WIDTH, draw.PAPER), "MEAN REWARD OF EACH ARM", 20, 20)
    means = jnp.stack([jnp.zeros_like(state.mu), state.mu])
    reach = jnp.maximum(3.0, jnp.abs(state.mu) + 1)
    image = _chart.columns(image, AREA, means, -reach, reach, pulled)
    x = 110 + 180 * jnp.asarray(state.last_action)
    y = _chart.y_of(state.last_reward, AREA, -reach, reach)
    grid = draw.grid(HEIGHT, WIDTH)
    shown = pulled.any().astype(jnp.float32)
    for radius, colour in ((11, draw.INK), (8, _chart.BELOW)):
        image = draw.paint(image, draw.disc(grid, x, y, radius), colour, shown)
    return _finished(image, state, params)


def mnist_bandit(env: Any, state: Any, params: Any) -> jax.Array:
    """The digit that the agent should name; the state does not say which image of it was shown."""
    image = _text.write(draw.plain(HEIGHT, WIDTH, draw.PAPER), "THE DIGIT TO NAME", 20, 20)
    digit = _text.integer(jnp.asarray(state.correct_label, jnp.int32), 1)
    image = _text.write(image, digit, 140, 56, draw.BLUE, 24)
    image = _text.write(image, "REGRET", 20, 256)
    return draw.finish(_text.write(image, _text.number(state.regret), 100, 256))


def _pulled(state: Any, count: int) -> jax.Array:
    """The arm pulled last, bool [count]; none after a reset, which leaves the action at 0."""
    return (jnp.arange(count) == state.last_action) & (state.time > 0)


def _finished(image: jax.Array, state: Any, params: Any) -> jax.Array:
    """The picture with the steps of the episode below."""
    limit = params.max_steps_in_episode
    return draw.finish(_chart.timeline(image, STRIP, state.time, limit, draw.TEAL))
