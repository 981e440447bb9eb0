"""What drawing and updating priorities costs: a tree of sums by its branches, or running sums.

    python benchmarks/priorities.py --json benchmarks/results/priorities.json

Lanes side by side in one program, as training runs them: rows are drawn, and get new priorities.
``search`` keeps no tree: each update adds all priorities up and searches the running sums.
Figures are processor time of all threads, microseconds a lane and update, the median of --repeats
calls of 30 updates: beside other work the least of them is below what it can be.
"""

import argparse
import functools
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from dqx.core import sum_tree
from dqx.files import write_json
from dqx.report.terminal import markdown

LANES, UPDATES = 16, 30
SIZES = ((10_000, 128), (100_000, 32), (1_000_000, 32))  # rows, drawn at an update
BRANCHES = (2, 4, 8, 16, 32, 64, 128)


def of_tree(capacity: int, batch_size: int, branches: int, repeats: int) -> float:
    """Microseconds of a lane's update, by a tree of sums."""
    sum_tree.BRANCHES = branches
    tree = sum_tree.make_sum_tree(capacity)

    def update(levels: sum_tree.Levels, given: tuple[jax.Array, jax.Array]) -> tuple:
        rows, _ = tree.draw(levels, given[0])
        return tree.update(levels, rows, given[1]), None

    return microseconds(tree.rebuild, update, (tree.depth, batch_size), capacity, repeats)


def of_search(capacity: int, batch_size: int, repeats: int) -> float:
    """The same, by a search in running sums."""

    def update(priorities: jax.Array, given: tuple[jax.Array, jax.Array]) -> tuple:
        sums = jnp.cumsum(priorities)
        rows = jnp.searchsorted(sums, given[0] * sums[-1], side="right")
        return priorities.at[rows].set(given[1]), None

    return microseconds(lambda ones: ones, update, (batch_size,), capacity, repeats)


def microseconds(
    start: Callable, update: Callable, drawn: tuple[int, ...], capacity: int, repeats: int
) -> float:
    """Of a lane's ``update``, given random numbers of shape ``drawn`` and values for what it draws.

    ``start`` makes what is updated of ones.
    """

    @functools.partial(jax.jit, donate_argnums=0)
    @jax.vmap
    def updates(levels: sum_tree.Levels, key: jax.Array) -> sum_tree.Levels:
        keys = jax.random.split(key)
        uniforms = jax.random.uniform(keys[0], (UPDATES, *drawn))
        values = jax.random.uniform(keys[1], (UPDATES, drawn[-1]))
        return jax.lax.scan(update, levels, (uniforms, values))[0]

    levels = jax.vmap(start)(jnp.ones((LANES, capacity)))
    keys = jax.random.split(jax.random.key(0), LANES)
    levels = jax.block_until_ready(updates(levels, keys))
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        levels = jax.block_until_ready(updates(levels, keys))
        times.append(time.process_time() - begun)
    return statistics.median(times) / UPDATES / LANES * 1e6


def main() -> int:
    """Measures every size by every number of branches, and by a search."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", type=Path, help="where the result goes")
    args = parser.parse_args()
    kept, rows = sum_tree.BRANCHES, []
    for capacity, batch_size in SIZES:
        times = {str(n): round(of_tree(capacity, batch_size, n, args.repeats), 1) for n in BRANCHES}
        times["search"] = round(of_search(capacity, batch_size, args.repeats), 1)
        rows.append({"rows": capacity, "drawn": batch_size, **times})
    sum_tree.BRANCHES = kept
    print("\n".join(markdown(rows)))
    if args.json:
        manifest = {
            "jax": jax.__version__,
            "python": platform.python_version(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        write_json(args.json, {"manifest": manifest, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
