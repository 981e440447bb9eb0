"""Two dozen short runs that between them use every network, policy, sampler, optimizer and loss.

``python -m tests.golden`` trains them and records their digests in ``tests/golden.json``, beside
those of other processors and versions of JAX; do that only where a change of bits is meant.
"""

import json
import platform
from pathlib import Path

import jax
import numpy as np

import dqx
from dqx.compute.digest import digest, flatten
from dqx.study.identity import processor

RECORDED = Path(__file__).with_name("golden.json")
SEEDS = (3, 17, 5)

_BASE = {
    "total_steps": 480,
    "learning_starts": 40,
    "train_period": 4,
    "batch_size": 16,
    "replay_capacity": 200,
    "target_period": 60,
    "log_period": 120,
    "eval_period": 240,
    "eval_episodes": 2,
    "hidden_sizes": (32, 24),
    "epsilon_steps": 300.0,
    "learning_rate": 1e-3,
    "chunk_width": 2,
}
_FRAMES = {**_BASE, "total_steps": 160, "learning_starts": 40, "log_period": 80, "eval_period": 160,
           "batch_size": 4, "hidden_sizes": (16,), "scale_pixels": True}  # fmt: skip


def _without(fields: dict, *names: str) -> dict:
    return {name: value for name, value in fields.items() if name not in names}


CASES: dict[str, dict] = {
    "adam": {**_BASE, "env": "CartPole-v1", "batch_size": 64, "double": True, "max_grad_norm": 10.0,
             "learning_rate_decay": 1e-3},
    "keras": {**_without(_BASE, "epsilon_steps"), "env": "CartPole-v0",
              "initializer": "glorot_uniform", "tau": 0.01, "target_period": 4,
              "loss": "huber", "huber_delta": np.inf, "epsilon_schedule": "constant",
              "epsilon_start": 0.1, "optimizer_epsilon": 1e-7},
    "sgd": {**_BASE, "env": "CartPole-v0", "activation": "tanh", "loss": "keras_mse",
            "optimizer": "sgd", "momentum": 0.5, "epsilon_schedule": "exponential",
            "learning_rate": 0.0075, "time_limit_is_terminal": True, "td_error_clip": 1.0},
    "rmsprop": {**_without(_BASE, "epsilon_steps"), "env": "MountainCar-v0",
                "activation": "swish", "initializer": "torch", "optimizer": "rmsprop",
                "momentum": 0.2, "epsilon_schedule": "per_episode", "num_envs": 4,
                "epsilon_ladder": True, "loss": "huber", "reward_clip": 0.5},
    "gumbel": {**_BASE, "env": "CartPole-v1", "policy": "boltzmann_gumbel", "num_envs": 2,
               "updates_per_train": 3, "eval_states": 20},
    "max_boltzmann": {**_BASE, "env": "CartPole-v1", "policy": "max_boltzmann",
                      "annealed": ("temperature", "learning_rate"), "anneal_steps": 400.0,
                      "anneal_scale": 0.1},
    "boltzmann": {**_BASE, "env": "Taxi-v4", "policy": "boltzmann"},
    "softmax": {**_BASE, "env": "FourRooms-misc", "policy": "softmax", "sampling": "newest",
                "batch_size": 4},
    "greedy": {**_BASE, "env": "MountainCar-v0", "policy": "greedy", "eval_period": 0},
    "ez_greedy": {**_BASE, "env": "MountainCar-v0", "policy": "ez_greedy", "num_envs": 4,
                  "epsilon_ladder": True},
    "embedding": {**_BASE, "env": "Taxi-v3", "network": "embedding", "gamma": 0.9},
    "tabular": {**_without(_BASE, "hidden_sizes", "target_period"), "env": "Taxi-v4",
                "agent": "tabular", "num_envs": 2, "batch_size": 4,
                "sampling": "newest", "visit_power": 0.6, "initial_q": 1.0, "gamma": 0.95,
                "learning_rate": 0.5, "exact_metrics": True},
    "nature_cnn": {**_FRAMES, "env": "WallDodge-v0", "network": "nature_cnn"},
    "minatar_cnn": {**_FRAMES, "env": "Breakout-MinAtar", "network": "minatar_cnn",
                    "convolution": "plain", "scale_pixels": False},
    "coarse_cnn": {**_FRAMES, "env": "WallDodge-v1", "network": "coarse_cnn", "double": True},
    "n_step": {**_BASE, "env": "CartPole-v1", "n_step": 3, "num_envs": 2, "double": True,
               "value_rescaling": 1e-2, "loss": "huber"},
    "pqn": {**_without(_BASE, "replay_capacity", "target_period"), "env": "CartPole-v1",
            "agent": "pqn", "num_envs": 4, "learning_starts": 0, "train_period": 40,
            "batch_size": 20, "updates_per_train": 4, "td_lambda": 0.9, "layer_norm": True,
            "optimizer": "radam", "time_limit_is_terminal": True},
    "rainbow": {**_BASE, "env": "CartPole-v1", "agent": "c51", "num_atoms": 21, "v_min": 0.0,
                "v_max": 50.0, "double": True, "head": "dueling_avg", "dense": "noisy",
                "policy": "greedy", "n_step": 3, "sampling": "prioritized",
                "initializer": "torch"},
    "munchausen": {**_BASE, "env": "CartPole-v1", "target": "munchausen", "loss": "huber",
                   "head": "dueling_max", "stream_sizes": (8,), "layer_norm": True,
                   "averaging": "evaluation", "normalize_observations": True},
    "iqn": {**_BASE, "env": "MountainCar-v0", "agent": "iqn", "num_levels": 4,
            "num_target_levels": 6, "num_value_levels": 8, "num_cosines": 8,
            "sampling": "ranked", "rank_period": 20},
    "bootstrapped": {**_BASE, "env": "Catch-bsuite", "agent": "bootstrapped", "num_heads": 3,
                     "policy": "greedy"},
    "wide": {**_BASE, "env": "CartPole-v1", "agent": "qr", "num_quantiles": 20,
             "hidden_sizes": (144, 128), "batch_size": 40, "frame_stack": 2},
    "diverged": {**_BASE, "env": "CartPole-v1", "optimizer": "sgd", "learning_rate": 1e5},
}  # fmt: skip
# What a run shows early, before rounding has grown: equal on every machine up to these shares.
_PROBES = ("episode_count", "loss", "q_mean", "weight_norm")


def machine() -> str:
    """What bits depend on beside the code: the processor and the version of JAX."""
    return f"jax {jax.__version__}, {platform.machine()}, {processor()}"


def found(name: str, devices: str = "cpu:2") -> dict:
    """Trains a case; digests of each seed, whole and of the parameters alone, and early numbers."""
    config, hyper = dqx.override(dqx.Config(), dqx.Hyper(), **CASES[name])
    result = dqx.train(config, hyper, SEEDS, devices=devices)
    params = flatten(result.params)
    steps = result.metrics["step"]
    return {
        "digests": list(result.digests),
        "params": [digest(steps[:0], {}, {k: v[i] for k, v in params.items()})
                   for i in range(len(SEEDS))],
        "diverged_at": result.diverged_at.tolist(),
        "probes": {n: [float(f"{x:.6g}") for x in result.metrics[n][:, 0]] for n in _PROBES},
    }  # fmt: skip


def main() -> None:
    """Trains and records every case."""
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    here = {}
    for name in CASES:
        here[name] = found(name)
        print(name, here[name]["digests"][0][:12], here[name]["diverged_at"], flush=True)
    probes = {name: entry.pop("probes") for name, entry in here.items()}
    recorded[machine()] = here
    recorded["early"] = probes
    text = json.dumps(recorded, indent=1, sort_keys=True, allow_nan=True)
    RECORDED.write_text(text + "\n")


if __name__ == "__main__":
    main()
