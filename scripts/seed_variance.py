"""How often would 3 or 5 seeds rank two settings wrongly? Small samples from many seeds tell.

python scripts/seed_variance.py --seeds 256

The study is kept in --out: started again, the script goes on where it was.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import dqx
import dqx.study
from dqx.settings import parse_assignments

SAMPLES = (2, 3, 5, 10, 20, 30, 50)
DRAWS = 20_000


def wrong(better: np.ndarray, worse: np.ndarray, count: int, rng: np.random.Generator) -> float:
    """How often the mean of ``count`` seeds of each setting ranks them wrongly, ties half.

    Seeds are drawn with replacement: without, a sample of half of them would look too reliable.
    """
    means = [rng.choice(values, (DRAWS, count)).mean(axis=1) for values in (better, worse)]
    return float(np.mean(means[0] < means[1]) + np.mean(means[0] == means[1]) / 2)


def draw(path: Path, returns: dict[str, np.ndarray], errors: dict[int, float]) -> None:
    """Both distributions, and the share of wrong rankings."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, values in returns.items():
        left.step(np.sort(values), np.arange(1, len(values) + 1) / len(values), label=name)
    left.set(xlabel="final greedy return", ylabel="share of seeds at or below", ylim=(0, 1))
    left.legend(loc="upper left")
    right.plot(list(errors), [100 * e for e in errors.values()], marker="o")
    right.axhline(5, color="grey", linestyle="--", linewidth=1)
    right.set(xlabel="seeds of each setting", ylabel="ranked wrongly, %", ylim=(0, None))
    figure.savefig(path, dpi=150)


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="cartpole/cleanrl")
    parser.add_argument("--seeds", type=int, default=256)
    parser.add_argument("--field", default="learning_rate")
    parser.add_argument("--values", nargs=2, default=["2.5e-4", "5e-4"], metavar="VALUE")
    parser.add_argument("--out", type=Path, default=Path("runs/seed-variance"))
    args = parser.parse_args()
    try:
        compare(args)
    except (dqx.ConfigError, dqx.study.StudyError) as error:
        parser.error(str(error))


def compare(args: argparse.Namespace) -> None:
    """Trains what is missing, then draws small samples from the many seeds."""
    name = args.field
    values = [parse_assignments([f"{name}={text}"], "--values")[name] for text in args.values]
    plan = {
        "name": "seed-variance",
        "seeds": args.seeds,
        "base": {"preset": args.preset},
        "grid": {name: values},
    }
    study = dqx.study.run(plan, args.out, go_on=True)
    found = {name: study.scores(name) for name in study.configs}
    worse, better = sorted(found, key=lambda name: found[name].mean())
    for name in (better, worse):
        s = dqx.stats.summarize(found[name])
        print(f"{name}: mean {s.mean:.1f}, IQM {s.iqm:.1f}, of {s.n} seeds")
    rng = np.random.default_rng(0)
    sizes = [count for count in SAMPLES if count <= args.seeds]
    errors = {count: wrong(found[better], found[worse], count, rng) for count in sizes}
    for count, error in errors.items():
        print(f"{count:3} seeds of each rank them wrongly {100 * error:4.1f} % of the time")
    draw(args.out / "seed_variance.png", found, errors)
    print(f"picture: {args.out / 'seed_variance.png'}")


if __name__ == "__main__":
    main()
