"""A terminal that tests can read, and studies whose agents are made by hand."""

import io
import re

import jax
import numpy as np

import dqx
from tests.study.kit import make_study


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(stream):
    """What is on the terminal after all, line by line."""
    lines = [""]
    for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\n)", stream.getvalue()):
        if part == "\n":
            lines.append("")
        elif part.endswith("[1A"):
            lines.pop()
        elif part.endswith("[2K"):
            lines[-1] = ""
        elif not part.startswith("\x1b["):
            lines[-1] += part.replace("\r", "")
    return [line.rstrip() for line in lines]


# --- Studies whose agents are made by hand: what they do is known, and nothing is trained.

STEPS = 400  # that their runs are said to have


def film_study(path, params_of, *, change=None, snapshot_every=0, **base):
    """A study of three seeds on CartPole-v1, or what ``base`` says.

    Args:
        params_of: ``params_of(agent, seed)``, the parameters of a run.
        change: as of `make_study`.
    """
    base = {"hidden_sizes": [2], "eval_episodes": 3, **base}
    config, _ = dqx.override(dqx.Config(**{"env": "CartPole-v1"}), dqx.Hyper(), **base)
    agent = dqx.make_agent(config, dqx.environment_of(config))

    def change_all(name, seed, run):
        run["params"] = jax.tree.map(np.asarray, params_of(agent, seed))
        if change is not None:
            change(name, seed, run)

    plan = {"name": "film", "seeds": 3, "snapshot_every": snapshot_every, "base": base}
    make_study(path, plan, change=change_all)
    return dqx.load(path)


def balancer(agent, seed, scale=1.0):
    """Pushes towards where the pole falls, by its angle and its speed, each seed a bit apart."""
    params = agent.init(jax.random.key(seed)).params
    network = params.get("network", params)["params"]
    first, last = sorted(network)
    seen = network[first]["kernel"].shape[0]
    kernel = np.zeros((seen, 2), np.float32)
    # Hidden units: how far it falls to the right, and to the left; 4 numbers are the newest.
    kernel[-2:, 0], kernel[-2:, 1] = (1, 0.5 + 0.1 * seed), (-1, -0.5 - 0.1 * seed)
    network[first] = {"kernel": kernel * np.float32(scale), "bias": np.zeros(2, np.float32)}
    network[last] = {
        "kernel": np.array([[-1, 1], [1, -1]], np.float32),
        "bias": np.float32([10, 10]),
    }
    return params
