"""`cartpole/pqn` beside the script that it follows: steps/s, or the curves of training.

    python benchmarks/purejaxql.py --source purejaxql/purejaxql/pqn_gymnax.py
    python benchmarks/purejaxql.py --source ... --curves --seeds 16

The script, of the repository mttga/purejaxql, is not part of this project. It needs Gymnax 0.0.6
(``pip install --target FOLDER --no-deps gymnax==0.0.6``, then ``--gymnax FOLDER``) and is run as it
is, but for the libraries of its command line, which are made up, and for lines that count finished
episodes and leave one for each environment of a test: its mean over all that end within 500 steps
has more of the short ones. It runs with its published settings for CartPole-v1, on one JAX device
as it comes and with its seeds spread over a device a core. All take turns, each in a process of its
own; compile time apart.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import numpy as np

# Of purejaxql's alg/pqn_cartpole.yaml and config.yaml.
SETTINGS = {
    "ALG_NAME": "pqn", "TOTAL_TIMESTEPS_DECAY": 5e5, "NUM_ENVS": 32, "NUM_STEPS": 64,
    "EPS_START": 1.0, "EPS_FINISH": 0.2, "EPS_DECAY": 0.2, "NUM_MINIBATCHES": 16, "NUM_EPOCHS": 4,
    "NORM_INPUT": False, "HIDDEN_SIZE": 256, "NUM_LAYERS": 2, "NORM_TYPE": "layer_norm",
    "LR": 1e-4, "MAX_GRAD_NORM": 10, "LR_LINEAR_DECAY": True, "REW_SCALE": 0.1, "GAMMA": 0.99,
    "LAMBDA": 0.95, "ENV_NAME": "CartPole-v1", "ENV_KWARGS": {}, "TEST_INTERVAL": 0.05,
    "TEST_NUM_ENVS": 128, "EPS_TEST": 0.0, "WANDB_MODE": "disabled",
}  # fmt: skip
ROUND = 2_048  # steps
LINE = "            metrics.update({k: v.mean() for k, v in infos.items()})\n"
COUNTED = """            ended = infos["returned_episode"]
            metrics["ended"] = ended.sum()
            metrics["ended_return"] = (infos["returned_episode_returns"] * ended).sum()
"""
TEST_LINE = "            # return mean of done infos\n"
FIRST = """            first = jnp.cumsum(infos["returned_episode"], axis=0) == 1
            infos["returned_episode"] = infos["returned_episode"] & first
"""
ADDED = {LINE: COUNTED + LINE, TEST_LINE: FIRST + TEST_LINE}
WINDOWS = 12
ROUNDS, TESTED = 244, 24  # in all, and from one greedy evaluation of ours to the next


def script(source: Path, gymnax: Path | None) -> Any:
    """The script as a module, with the added line."""
    if gymnax is not None:
        sys.path.insert(0, str(gymnax))
    import gymnasium
    import jax

    # What Gymnax 0.0.6 and the script ask for under names of their time.
    sys.modules["gym"], sys.modules["gym.spaces"] = gymnasium, gymnasium.spaces
    if not hasattr(jax, "tree_map"):
        jax.tree_map = jax.tree.map
    for name, given in {
        "hydra": {"main": lambda **_: lambda function: function},
        "omegaconf": {"OmegaConf": None},
        "safetensors": {},
        "safetensors.flax": {"load_file": None, "save_file": None},
        "wandb": {},
    }.items():
        module = types.ModuleType(name)
        vars(module).update(given)
        sys.modules[name] = module
    text = source.read_text()
    for line, more in ADDED.items():
        if text.count(line) != 1:
            raise SystemExit(f"{source} has not once the line that this benchmark knows: {line}")
        text = text.replace(line, more)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pqn_gymnax.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("pqn_gymnax", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def theirs(args: argparse.Namespace) -> dict[str, Any]:
    """Trains seeds with the script on ``args.places`` devices, or measures its steps/s."""
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={args.places}"
    import jax

    steps = 5e5 if args.curves else args.rounds * ROUND
    config = {**SETTINGS, "TOTAL_TIMESTEPS": steps, "TEST_DURING_TRAINING": args.curves}
    train = jax.vmap(script(args.source, args.gymnax).make_train(config))
    keys = jax.random.split(jax.random.PRNGKey(args.first_seed), args.seeds)
    if args.places > 1:
        train, keys = jax.pmap(train), keys.reshape(args.places, -1, *keys.shape[1:])
    else:
        train = jax.jit(train)
    program, seconds = train.lower(keys).compile(), []
    for _ in range(1 if args.curves else 3):
        begun = time.perf_counter()
        found = jax.block_until_ready(program(keys))
        seconds.append(time.perf_counter() - begun)
    if not args.curves:
        return {"steps/s": args.seeds * args.rounds * ROUND / min(seconds)}
    named = {k: np.asarray(v).reshape(args.seeds, -1) for k, v in found["metrics"].items()}
    ends = (1 + np.arange(named["ended"].shape[1])) * ROUND
    counts, totals = (in_windows(ends, named[n]) for n in ("ended", "ended_return"))
    tested = named["test/returned_episode_returns"][:, [*range(TESTED - 1, ROUNDS, TESTED), -1]]
    return {"windows": (totals / counts).tolist(), "greedy": tested.tolist()}


def ours(args: argparse.Namespace) -> dict[str, Any]:
    """The same of ``cartpole/pqn``, on as many places."""
    import dqx

    if not args.curves:
        return {"steps/s": our_speed(args)}
    seeds, windows = range(args.first_seed, args.first_seed + args.seeds), []
    result = dqx.train(*dqx.preset("cartpole/pqn"), seeds)
    for seed in seeds:
        of_seed = result.episodes[result.episodes.seed == seed]
        # Theirs are counted at the end of the round in which they end.
        step, value = -(-of_seed["step"].to_numpy() // ROUND) * ROUND, of_seed["return"].to_numpy()
        windows.append(in_windows(step, value) / in_windows(step, np.ones_like(value)))
    greedy = result.metrics["eval_return"]
    tested = np.isfinite(greedy).all(axis=0)
    return {"windows": np.array(windows).tolist(), "greedy": greedy[:, tested].tolist()}


def our_speed(args: argparse.Namespace) -> float:
    """Steps/s of the whole training of all seeds, chunk after chunk in every place."""
    import dataclasses

    from common import SideBySide

    import dqx
    from dqx.compute.devices import select_devices
    from dqx.compute.programs import chunk_width
    from dqx.settings import complete, environments

    config, hyper = environments.resolved(*dqx.preset("cartpole/pqn"))
    places = select_devices(f"cpu:{args.places}")
    width = chunk_width(config, "cpu")
    config = dataclasses.replace(config, chunk_width=width, log_period=args.rounds * ROUND)
    run = SideBySide(config, complete(config, hyper), places)
    turns = args.seeds // (width * args.places)
    run.start(0, args.places)
    run.seconds(1)  # compiles, and warms the caches
    seconds = [run.seconds(turns) for _ in range(3)]
    return turns * args.places * width * args.rounds * ROUND / min(seconds)


def in_windows(step: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sums ``[..., 12]`` of ``values [..., N]`` over equal windows of steps."""
    index = np.minimum((step - 1) * WINDOWS // (ROUNDS * ROUND), WINDOWS - 1)
    return np.stack([values[..., index == k].sum(-1) for k in range(WINDOWS)], -1)


def main() -> None:
    """Prints steps/s and ratios, or the curves with Welch's p of every window."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--source", type=Path, required=True, help="the script, pqn_gymnax.py")
    add("--gymnax", type=Path, help="a folder with Gymnax 0.0.6, if it is not installed")
    add("--seeds", type=int, default=32, help="of each (default: 32)")
    add("--first-seed", type=int, default=0, help="of ours; and theirs come of it (default: 0)")
    add("--rounds", type=int, default=10, help="of 2,048 steps that are timed (default: 10)")
    add("--turns", type=int, default=3, help="of everything (default: 3)")
    add("--curves", action="store_true", help="train to the end and compare what is reached")
    add("--json", help="write what was measured and the manifest to this file")
    add("--run", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    add("--places", type=int, default=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run is not None:
        print(json.dumps({"ours": ours, "theirs": theirs}[args.run](args)))
        return

    from common import manifest, print_table, write_json

    from dqx.compute.devices import select_devices

    places = select_devices("cpu")
    runs = {"ours": ("ours", len(places)), "theirs, spread": ("theirs", len(places))}
    if not args.curves:
        runs["theirs"] = ("theirs", 1)
    found: dict[str, list[Any]] = {name: [] for name in runs}
    for _ in range(1 if args.curves else args.turns):
        for name, (who, count) in runs.items():
            found[name].append(measured(who, count))
            print(name, found[name][-1].get("steps/s", "trained"), flush=True)
    print_table(compared(found) if args.curves else ratios(found))
    write_json(args.json, {"found": found, "manifest": manifest(places)})


def measured(who: str, places: int) -> dict[str, Any]:
    """What another process with the same options finds."""
    more = ["--run", who, "--places", str(places)]
    command = [sys.executable, __file__, *sys.argv[1:], *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{who} failed, as it said above")
    last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return last


def ratios(found: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """A row each: median steps/s, and how many times as many ours are, by turns."""
    rates = {name: [turn["steps/s"] for turn in turns] for name, turns in found.items()}
    return [
        {
            "run": name,
            "steps/s": int(statistics.median(rate)),
            "ours are": statistics.median(a / b for a, b in zip(rates["ours"], rate, strict=True)),
        }
        for name, rate in rates.items()
    ]


def compared(found: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Mean returns over seeds: in training, a row a window, and greedy, a row an evaluation."""
    from scipy.stats import ttest_ind

    (ours,), (other,) = found["ours"], found["theirs, spread"]
    ends = {
        "windows": [ROUNDS * ROUND * (k + 1) // WINDOWS for k in range(WINDOWS)],
        "greedy": [ROUND * n for n in (*range(TESTED, ROUNDS, TESTED), ROUNDS)],
    }
    rows = []
    for kind, words in (("windows", "in training"), ("greedy", "greedy")):
        columns = np.transpose(ours[kind]), np.transpose(other[kind])
        for end, mine, their in zip(ends[kind], *columns, strict=True):
            same = np.ptp([*mine, *their]) == 0
            p = 1.0 if same else ttest_ind(mine, their, equal_var=False).pvalue
            rows.append({"returns": words, "to step": end, "ours": np.mean(mine),
                         "theirs": np.mean(their), "ratio": np.mean(mine) / np.mean(their),
                         "p": p})  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
