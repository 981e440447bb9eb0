"""Does Double DQN help? Two settings on the same seeds, compared with an interval.

python scripts/double_dqn.py --seeds 32
"""

import argparse
import dataclasses

import dqx
from dqx import stats


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="cartpole")
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
    config, hyper = dqx.preset(preset)
    if steps is not None:
        config = dataclasses.replace(config, total_steps=steps)
    final = {}
    for double in (False, True):
        result = dqx.train(dataclasses.replace(config, double=double), hyper, seeds=seeds)
        final[double] = result.metrics["eval_return"][:, -1]
        s = stats.summarize(final[double])
        print(
            f"double = {double!s:5}  IQM {s.iqm:6.1f}  95 % interval {s.low:6.1f} to {s.high:6.1f}"
        )
    better = stats.probability_of_improvement(final[True], final[False], paired=True)
    print(
        f"P(double beats single on the same seed) = {better.value:.2f}, "
        f"95 % interval {better.low:.2f} to {better.high:.2f}"
    )


if __name__ == "__main__":
    main()
