"""Configurations side by side: who is better, by how much, and whether these seeds can tell.

Scores, environments that can be compared, and what counts for a seed that has no finite score are
those of the page (`findings`). Every number comes from `dqx.stats`.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from dqx import stats
from dqx.report import numbers
from dqx.report.cases import Case, read_scores, titles
from dqx.report.findings import Group, groups
from dqx.report.numbers import Center
from dqx.report.pairs import MOST_SEEDS, Pair, decided, measured, permutations_for
from dqx.report.tasks import told
from dqx.report.terminal import counted, listed
from dqx.settings.errors import closest
from dqx.study.folder import StudyError
from dqx.study.results import Study

# Configurations that are all compared with each other; of more, the best with each.
ALL_PAIRS = 8


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The configurations of one environment, compared.

    Attributes:
        group: the configurations, their scores and intervals.
        order: their places, the best IQM first.
        pairs: in that order.
        left_out: pairs that were not looked at, but count for the correction.
        verdict: one sentence.
        notes: what to know of the scores, a sentence each.
        bar: a score of which they say what share of seeds reaches it, if any.
    """

    group: Group
    order: tuple[int, ...]
    pairs: tuple[Pair, ...]
    left_out: int
    verdict: str
    notes: tuple[str, ...]
    bar: float | None = None

    def name(self, place: int) -> str:
        """What a configuration is called."""
        return self.group.cases[place].label

    def center(self, place: int) -> Center:
        """The IQM of a configuration, with its interval."""
        return self.group.centers[place]

    @property
    def digits(self) -> int:
        """Decimals that scores are shown with."""
        scores = np.concatenate([*self.group.scores, [0.0]])
        reach = float(np.abs(scores).max())
        return 1 if reach >= 20 else 2 if reach >= 2 else 3


def compare(
    studies: Sequence[Study],
    configs: Sequence[str] = (),
    tell: Callable[[str], None] = lambda text: None,
    bar: float | None = None,
) -> list[Comparison]:
    """Compares the configurations of studies, each environment and kind of score on its own.

    Args:
        studies: finished or not.
        configs: names of those to compare, in all studies that have them; all if left out.
        tell: told what is being done, now and then.
        bar: a score; notes say which share of seeds reaches it.

    Raises:
        StudyError: for a name that no study has, a folder that was given twice, studies without a
            finished run, or a damaged file.
        ConfigError: if an agent is not known here: import the module that registers it.
    """
    paths = [str(study.path.resolve()) for study in studies]
    for path in paths:
        if paths.count(path) > 1:
            raise StudyError(f"{path} is given twice: a study has nothing to say against itself")
    cases = _chosen(read_scores(studies), configs)
    found = groups(cases)
    if not any(group.cases for group in found):
        if any(case.seeds.size for case in cases):
            raise StudyError("no run has a finite score: there is nothing to compare")
        raise StudyError(
            f"no run is finished yet in {', '.join(str(study.path) for study in studies)}: see "
            f"`dqx study status {studies[0].path}`"
        )
    if configs and len(found) > 1:
        kinds = "; ".join(f"{group.env}, {group.label}" for group in found)
        raise StudyError(f"--configs names what cannot be compared: {kinds}")
    general = _general_notes(studies)
    return [_comparison(group, studies, general, tell, bar) for group in found if group.cases]


def _chosen(cases: Sequence[Case], configs: Sequence[str]) -> list[Case]:
    """The cases that are asked for, in the order of the names."""
    if not configs:
        return list(cases)
    chosen: list[Case] = []
    for name in configs:
        named = [case for case in cases if name in (case.label, case.name)]
        if not named:
            known = list(dict.fromkeys(case.label for case in cases))
            raise StudyError(
                f"there is no configuration {name!r}{closest(name, known)}; there are: "
                f"{'; '.join(known[:20])}"
            )
        chosen += [case for case in named if case not in chosen]
    return chosen


def _general_notes(studies: Sequence[Study]) -> list[str]:
    """What to know of the studies themselves."""
    notes = []
    for name, study in zip(titles(studies), studies, strict=True):
        planned = len(study.configs) * len(study.seeds)
        if not study.finished:
            notes.append(
                f"{name} is not finished: {study.num_finished:,} of {counted(planned, 'run')} are "
                "there, and only these are compared"
            )
    return [*notes, *filter(None, [software_note(studies)])]


def software_note(studies: Sequence[Study]) -> str | None:
    """What the studies were trained with that is not the same for all; None if nothing."""
    facts = [study.plan["identity"] for study in studies]
    differ = sorted(
        key for key in {k for fact in facts for k in fact}
        if len({str(fact.get(key)) for fact in facts}) > 1
    )  # fmt: skip
    if not differ:
        return None
    return (
        f"the studies were trained with different {', '.join(differ)}: scores of equal seeds may "
        "differ by that alone"
    )


def _comparison(
    group: Group,
    studies: Sequence[Study],
    general: Sequence[str],
    tell: Callable[[str], None],
    bar: float | None,
) -> Comparison:
    order = group.ranking
    every = list(itertools.combinations(order, 2))
    wanted = every if len(order) <= ALL_PAIRS else [(order[0], other) for other in order[1:]]
    pairs = []
    seeds = 2 * max((case.seeds.size for case in group.cases), default=0)
    permutations = permutations_for(len(every), len(wanted), seeds)
    for number, (a, b) in enumerate(wanted, start=1):
        tell(f"{group.env}: pair {number} of {len(wanted)}")
        pairs.append(measured(group, studies, a, b, len(every), permutations))
    # Pairs that nobody looked at were still there to choose from.
    p = [pair.p for pair in pairs] + [1.0] * (len(every) - len(pairs))
    adjusted = stats.holm(p)
    pairs = [
        decided(group, pair._replace(holm=float(q)))
        for pair, q in zip(pairs, adjusted, strict=False)
    ]
    found = Comparison(
        group=group,
        order=tuple(order),
        pairs=tuple(pairs),
        left_out=len(every) - len(pairs),
        verdict="",
        notes=(
            *general,
            *_notes(group, len(every) - len(pairs)),
            *filter(None, [told(group, studies)]),
            *_at_bar(group, bar),
        ),
        bar=bar,
    )
    return dataclasses.replace(found, verdict=_verdict(found))


def verdict(group: Group, studies: Sequence[Study]) -> str | None:
    """The verdict of `compare` on a group; None of one configuration or of more than eight."""
    if not 1 < len(group.cases) <= ALL_PAIRS:
        return None
    return _comparison(group, studies, (), lambda text: None, None).verdict


def _notes(group: Group, left_out: int) -> list[str]:
    notes = []
    for case, lost in zip(group.cases, group.lost, strict=True):
        if lost:
            notes.append(
                f"{counted(lost, 'seed')} of {case.label} without a finite score "
                f"{'counts' if lost == 1 else 'count'} as the worst of any run and step, "
                f"{group.worst:g}"
            )
    budgets = {case.label: case.total_steps for case in group.cases}
    if len(set(budgets.values())) > 1:
        words = ", ".join(f"{name} {steps:,}" for name, steps in budgets.items())
        notes.append(f"the numbers of environment steps differ: {words}")
    single = [case.label for case in group.cases if case.seeds.size == 1]
    if single:
        notes.append(f"one seed only, so no interval: {', '.join(single)}")
    if group.waiting:
        notes.append(f"no run is finished of: {', '.join(group.waiting)}")
    if left_out:
        notes.append(
            f"only the best is compared with each; {counted(left_out, 'pair')} left out count for "
            "the correction (name at most 8 with --configs to see all)"
        )
    return notes


def _at_bar(group: Group, bar: float | None) -> list[str]:
    if bar is None:
        return []
    scores = zip(group.cases, group.scores, strict=True)
    return [f"of {case.label} {numbers.at_bar(values, bar)}" for case, values in scores]


def sentence(found: Comparison, pair: Pair) -> str:
    """What these seeds say of a pair."""
    a, b = found.name(pair.a), found.name(pair.b)
    if pair.better:
        better, worse = (a, b) if pair.better > 0 else (b, a)
        return f"{better} is better than {worse} by {_gap_words(found, pair)}"
    return f"cannot tell {a} from {b} {_why(found, [pair])}"


def _gap_words(found: Comparison, pair: Pair) -> str:
    value, low, high = (float(number) * pair.better for number in pair.gap)
    low, high = min(low, high), max(low, high)
    digits = found.digits
    around = f"95 % interval {low:.{digits}f} to {high:.{digits}f}"
    if math.isnan(low):
        around = _no_interval(found, pair)
    count = len(found.pairs) + found.left_out
    over = f" after Holm's correction over {count} pairs" if count > 1 else ""
    return f"{value:.{digits}f} ({around}; p {p_words(pair.holm)}{over})"


def _no_interval(found: Comparison, pair: Pair) -> str:
    """Why the difference of a pair has no interval."""
    if pair.shared:
        return "the same for all middle seeds"
    agreeing = [place for place in (pair.a, pair.b) if math.isnan(found.center(place).low)]
    names = " and ".join(f"of {found.name(place)}" for place in agreeing)
    return f"no interval, since all middle seeds {names} agree"


def p_words(p: float) -> str:
    """A p-value as a person reads it."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def _why(found: Comparison, pairs: Sequence[Pair]) -> str:
    """Why these seeds cannot tell, and how many would."""
    sizes = [found.center(place).n for pair in pairs for place in (pair.a, pair.b)]
    if min(sizes) < 2:
        return "with these seeds: one seed tells nothing about others, run 4 or more of each"
    if all(float(pair.gap.value) == 0 for pair in pairs):
        return "with these seeds: their middle seeds do not differ"
    needed = [pair.needed for pair in pairs if float(pair.gap.value) != 0]
    if any(count is None for count in needed):
        return f"with these seeds; if they differ by so little, more than {MOST_SEEDS:,} would"
    most = max(count for count in needed if count is not None)
    return f"with these seeds; about {max(most, max(sizes) + 1):,} would"


def _verdict(found: Comparison) -> str:
    """One sentence: what is better than what, and what these seeds cannot tell."""
    if len(found.order) == 1:
        return f"there is only {found.name(found.order[0])}, and nothing to compare it with"
    if len(found.order) == 2:
        (pair,) = found.pairs
        against = f"; {found.name(pair.a)} has the higher IQM" if pair.better < 0 else ""
        return sentence(found, pair) + against
    best = found.order[0]
    of_best = [pair for pair in found.pairs if pair.a == best]
    beaten = [found.name(pair.b) for pair in of_best if pair.better > 0]
    # Seed by seed the IQM of differences may turn round what the IQMs say.
    turned = [found.name(pair.b) for pair in of_best if pair.better < 0]
    open_pairs = [pair for pair in of_best if pair.better == 0]
    parts = []
    if beaten:
        parts.append(f"{found.name(best)} is better than {listed(beaten)}")
    if turned:
        verb = "is" if len(turned) == 1 else "are"
        parts.append(
            f"{listed(turned)} {verb} better than {found.name(best)}, which has the highest IQM, "
            "by the seeds that both have"
        )
    if open_pairs:
        names = listed([found.name(pair.b) for pair in open_pairs])
        who = "it" if beaten and not turned else found.name(best)
        parts.append(f"cannot tell {who} from {names} {_why(found, open_pairs)}")
    return "; ".join(parts)
