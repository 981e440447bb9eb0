"""`dqx seeds NAME --difference D`: how many seeds to plan with, before any are trained."""

import argparse
from typing import Any

from dqx.cli import loading, shared


def add(subparsers: Any) -> None:
    """Makes the parser of the command."""
    parser = subparsers.add_parser(
        "seeds",
        help="say how many seeds to plan with",
        description="Say how many seeds a side a study should have that is to tell two agents "
        "apart, from the spread of many seeds that were trained before: those of a preset, or of "
        "all presets of an environment.",
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="a preset or an environment, such as CartPole-v1")
    add(
        "--difference",
        metavar="D",
        type=shared.positive,
        required=True,
        help="of the IQMs of final scores that is to be found",
    )
    add(
        "--power",
        metavar="P",
        type=shared.share,
        default=0.8,
        help="how often such a study should find it; default: 0.8",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Prints a line for each preset."""
    loading.load("numpy")
    import numpy as np

    from dqx import stats
    from dqx.stats.reference import reference_seeds

    known = stats.reference_presets()
    presets = [preset for preset, env in known.items() if options.name in (preset, env)]
    if not presets:
        raise shared.UsageError(
            f"nothing was trained before of {options.name!r}: choose a preset "
            f"({', '.join(known)}) or an environment ({', '.join(sorted(set(known.values())))})"
        )
    for preset in presets:
        scores = stats.reference_scores(preset)
        needed = stats.seeds_needed(scores, scores - options.difference, options.power)
        low, high = np.quantile(scores, (0.05, 0.95))
        plan = f"plan with {needed:,}" if needed else "plan with more than 1,000"
        print(
            f"{preset} ({known[preset]}): {plan} seeds a side to tell a difference of "
            f"{options.difference:g} with power {options.power:g} (IQM of "
            f"{reference_seeds(preset):,} seeds {stats.iqm(scores):.2f}, 5 to 95 % of them "
            f"{low:.2f} to {high:.2f})"
        )
