"""Does Double DQN help? Two settings on the same seeds, compared with an interval.

python scripts/double_dqn.py --seeds 32
"""

import argparse

import dqx


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="cartpole/one-step")
    parser.add_argument("--seeds", type=int, default=32)
    parser.add_argument(
        "--steps", type=int, help="environment steps a seed (default: the preset's)"
    )
    args = parser.parse_args()

    try:
        compare(args.preset, args.seeds, args.steps)
    except dqx.ConfigError as error:
        parser.error(str(error))


def compare(preset: str, seeds: int, steps: int | None) -> None:
    """Trains both settings for so many steps, those of the preset if it is None."""
    given = {} if steps is None else {"total_steps": steps}
    scores = {}
    for double in (False, True):
        config, hyper = dqx.override(*dqx.preset(preset), double=double, **given)
        scores[double] = dqx.train(config, hyper, seeds=seeds).scores
        s = dqx.stats.summarize(scores[double])
        words = s.note or f"95 % interval {s.interval_text()}"
        print(f"double = {double!s:5}  IQM {s.iqm:6.1f}  {words}")
    better = dqx.stats.probability_of_improvement(scores[True], scores[False], paired=True)
    print(
        f"P(double beats single on the same seed) = {better.value:.2f}, "
        f"95 % interval {better.low:.2f} to {better.high:.2f}"
    )


if __name__ == "__main__":
    main()
