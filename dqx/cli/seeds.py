"""`dqx seeds NAME --difference D`: how many seeds to plan with, before any are trained."""

import argparse
from typing import TYPE_CHECKING, Any

from dqx.cli import loading, shared

if TYPE_CHECKING:
    import numpy as np


def add(subparsers: Any) -> None:
    """Makes the parser of the command."""
    parser = subparsers.add_parser(
        "seeds",
        help="say how many seeds to plan with",
        description="Say how many seeds a side a study should have that is to tell two agents "
        "apart, from the spread of many seeds that were trained before: those of a preset, or of "
        "all presets of an environment. Where most of them end at the best score, a weaker agent "
        "is one of which more seeds fall short, as some of them do; where hardly any does they "
        "tell nothing of it.",
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
    from dqx.settings import not_defaults, preset
    from dqx.stats.reference import reference_seeds, reference_settings

    known = stats.reference_presets()
    presets = [name for name, env in known.items() if options.name in (name, env)]
    if not presets:
        raise shared.UsageError(
            f"nothing was trained before of {options.name!r}: choose a preset "
            f"({', '.join(known)}) or an environment ({', '.join(sorted(set(known.values())))})"
        )
    for name in presets:
        scores = stats.reference_scores(name)
        plan = _plan(scores, options.difference, options.power)
        low, high = np.quantile(scores, (0.05, 0.95))
        changed = reference_settings(name) != not_defaults(*preset(name))
        print(
            f"{name} ({known[name]}): {plan} (IQM of {reference_seeds(name):,} seeds "
            f"{stats.iqm(scores):.2f}, "
            f"5 to 95 % of them {low:.2f} to {high:.2f}"
            + ("; the preset has other settings now)" if changed else ")")
        )


def _plan(scores: "np.ndarray", difference: float, power: float) -> str:
    """How many seeds to plan with, or why nothing says so."""
    from dqx import stats

    try:
        weaker = stats.lowered(scores, difference)
    except ValueError as error:
        return f"no plan: {error}; train some seeds, `dqx compare` says how many are needed"
    needed = stats.seeds_needed(scores, weaker, power)
    text = (
        f"plan with {f'{needed:,}' if needed else 'more than 1,000'} seeds a side to tell a "
        f"difference of {difference:g} with power {power:g}"
    )
    if weaker.size == scores.size:
        return text
    best = float(stats.median(scores))
    now, then = (100 * (side < best).mean() for side in (scores, weaker))
    return (
        f"{text}, from an agent of which {then:.0f} % of seeds end below {best:g} where "
        f"{now:.0f} % do here"
    )
