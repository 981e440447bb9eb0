"""Writes one PNG with a picture of every environment that dqx can train on.

python scripts/gallery.py --out docs/gallery.png

Each environment is shown after a number of random steps, with its name above. What cannot be made
here (gymnax's MNIST bandit fetches its data) is left out and named.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image  # matplotlib brings it

import envs
from envs.pictures import _text

ROOM, TITLE, GAP = 400, 34, 20


def picture(env: Any, params: Any, steps: int, seed: int) -> np.ndarray:
    """The picture after `steps` random steps, uint8 [H, W, 3]; episodes end and begin again."""
    key_reset, key_steps = jax.random.split(jax.random.key(seed))

    def step(state: Any, key: jax.Array) -> tuple[Any, None]:
        key_action, key_step = jax.random.split(key)
        action = env.action_space(params).sample(key_action)
        return env.step(key_step, state, action, params)[1], None

    @jax.jit
    def played() -> jax.Array:
        state = env.reset(key_reset, params)[1]
        if steps:
            like = jax.eval_shape(step, state, key_steps)[0]
            state = jax.tree.map(lambda leaf, to: jnp.asarray(leaf, to.dtype), state, like)
            state, _ = jax.lax.scan(step, state, jax.random.split(key_steps, steps))
        return envs.render(env, state, params)

    return np.asarray(played())


def framed(name: str, image: np.ndarray) -> np.ndarray:
    """The picture, made smaller if it has to be, in a room of its own with its name above."""
    room = np.full((ROOM + TITLE, ROOM, 3), 255, np.uint8)
    longest = max(image.shape[:2])
    if longest > ROOM:
        image = shrunk(image, ROOM / longest)
    height, width = image.shape[:2]
    left = (ROOM - width) // 2
    room[TITLE : TITLE + height, left : left + width] = image
    titled = _text.write(jnp.asarray(room, float), name, 0, 10)
    return np.asarray(titled).astype(np.uint8)


def shrunk(image: np.ndarray, share: float) -> np.ndarray:
    """The picture at `share` of its size, its pixels averaged."""
    size = tuple(int(length * share) for length in image.shape[:2])
    small = jax.image.resize(image.astype(np.float32), (*size, 3), "linear", antialias=True)
    return np.asarray(small.round().clip(0, 255), np.uint8)


def sheet(rooms: list[np.ndarray], columns: int) -> np.ndarray:
    """All rooms in rows of `columns`."""
    height, width = ROOM + TITLE + GAP, ROOM + GAP
    rows = -(-len(rooms) // columns)
    whole = np.full((rows * height + GAP, columns * width + GAP, 3), 255, np.uint8)
    for index, room in enumerate(rooms):
        top, left = GAP + index // columns * height, GAP + index % columns * width
        whole[top : top + ROOM + TITLE, left : left + ROOM] = room
    return whole


def main(arguments: list[str] | None = None) -> None:
    """Reads the arguments and draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gallery.png"))
    parser.add_argument("--names", nargs="*", help="environments; all with discrete actions")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--columns", type=int, default=5)
    parser.add_argument("--width", type=int, default=1500, help="pixels of the whole sheet")
    args = parser.parse_args(arguments)
    rooms = []
    for name in args.names or envs.names():
        try:
            env, params = envs.make(name)
        except OSError as error:
            print(f"{name} is left out: {error}")
            continue
        if args.names or isinstance(env.action_space(params), envs.spaces.Discrete):
            rooms.append(framed(name, picture(env, params, args.steps, args.seed)))
    whole = sheet(rooms, args.columns)
    if whole.shape[1] > args.width:
        whole = shrunk(whole, args.width / whole.shape[1])
    # Steps of 4 in each colour do not show, and make the file a third smaller.
    whole = np.minimum(whole // 4 * 4 + 2, 255)
    Image.fromarray(whole).save(args.out, optimize=True)
    print(f"{args.out}: {len(rooms)} environments, {args.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
