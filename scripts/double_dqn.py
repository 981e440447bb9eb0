"""Does Double DQN help? Two settings on the same seeds, compared with an interval.

python scripts/double_dqn.py --seeds 32
"""

import argparse
import dataclasses

import dqx
from dqx import stats


def main() -> None:
    """Trains both settings and prints how they compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="cartpole")
    parser.add_argument("--seeds", type=int, default=32)
    parser.add_argument(
        "--steps", type=int, help="environment steps a seed (default: the preset's)"
    )
    args = parser.parse_args()

    config, hyper = dqx.preset(args.preset)
    if args.steps is not None:
        config = dataclasses.replace(config, total_steps=args.steps)
    final = {}
    for double in (False, True):
        result = dqx.train(dataclasses.replace(config, double=double), hyper, seeds=args.seeds)
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
