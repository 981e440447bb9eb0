"""What rlax makes of random inputs: recorded, as it brings a nightly build of another library.

``python -m tests.oracles.rlax`` records its numbers anew where rlax 0.1.9 can be imported.
"""

import json
from pathlib import Path

import numpy as np

RECORDED = Path(__file__).with_suffix(".json")
SIZE, ACTIONS, EPSILON, LAMBDA = 8, 4, 1e-2, 0.7


def inputs(seed=11, size=SIZE):
    """Transitions by name: ``[size]``, ``[size, ACTIONS]``."""
    rng = np.random.default_rng(seed)
    q, target, online = rng.normal(scale=3, size=(3, size, ACTIONS)).astype(np.float32)
    weight = rng.random((size, ACTIONS)).astype(np.float32)
    return {
        "q": q,
        "next_target": target,
        "next_online": online,
        "weight": weight / weight.sum(axis=1, keepdims=True),
        "action": rng.integers(0, ACTIONS, size).astype(np.int32),
        "reward": rng.normal(size=size).astype(np.float32),
        "discount": (0.9 * (rng.random(size) > 0.3)).astype(np.float32),
        "returns": rng.normal(scale=30, size=size).astype(np.float32),
    }


def theirs(x):
    """The numbers of rlax of such inputs, by the name of its function."""
    import jax  # noqa: PLC0415
    import rlax  # noqa: PLC0415

    step = (x["q"], x["action"], x["reward"], x["discount"])
    best = x["next_target"].max(axis=1)
    return {
        "q_learning": jax.vmap(rlax.q_learning)(*step, x["next_target"]),
        "double_q_learning": jax.vmap(rlax.double_q_learning)(
            *step, x["next_target"], x["next_online"]
        ),
        "expected_sarsa": jax.vmap(rlax.expected_sarsa)(*step, x["next_target"], x["weight"]),
        "signed_hyperbolic": rlax.signed_hyperbolic(x["returns"], EPSILON),
        "signed_parabolic": rlax.signed_parabolic(x["returns"], EPSILON),
        "huber_loss": rlax.huber_loss(x["returns"], 1.5),
        "l2_loss": rlax.l2_loss(x["returns"]),
        "lambda_returns": rlax.lambda_returns(x["reward"], x["discount"], best, LAMBDA),
        "n_step_bootstrapped_returns": rlax.n_step_bootstrapped_returns(
            x["reward"], x["discount"], best, 3
        ),
    }


def main():
    """Records."""
    found = {
        name: np.asarray(value, np.float32).tolist() for name, value in theirs(inputs()).items()
    }
    RECORDED.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
