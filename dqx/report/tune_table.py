"""A search as lines of text: its candidates, its winner, and what fresh seeds say of that."""

import math
from typing import TYPE_CHECKING

from dqx.report.terminal import aligned, counted
from dqx.study.tuning.race import Judged
from dqx.study.tuning.search import DROPPED, FINISHED, REFUSED, REPEATED, Candidate, Search

if TYPE_CHECKING:
    from dqx.study.tuning.results import Tuned

MAX_ROWS = 12


def search_lines(search: Search) -> list[str]:
    """The candidates so far, the best first, in the order in which they would be chosen."""
    trained = [one for one in search.candidates if one.history]
    order = {FINISHED: 0, DROPPED: 2, REPEATED: 3, REFUSED: 4}
    best = sorted(trained, key=lambda one: (order.get(one.state, 1), *_worst_last(one)))
    rows = [("CANDIDATE", "GENERATION", "SEEDS", "IQM", _head(search), "STATE", "WITH")]
    for one in best[:MAX_ROWS]:
        last = one.history[-1]
        rows.append(
            (
                f"{one.number}",
                f"{one.generation + 1}",
                f"{last.seeds}",
                f"{last.value:.1f}",
                last.interval_text,
                state_words(one, search),
                one.name,
            )
        )
    lines = [_counts(search), *(aligned(rows) if trained else [])]
    if len(best) > MAX_ROWS:
        lines.append(f"... and {len(best) - MAX_ROWS} more, all in tune.json")
    lines += [f"cannot work: {one.name}: {one.why}" for one in search.candidates if one.why][:3]
    return lines


def result_lines(tuned: "Tuned") -> list[str]:
    """The candidates, the winner, its score, and how much better the search made it look."""
    level = f"{100 * tuned.tune.level:g} %"
    search, gap, chosen = tuned.search, tuned.optimism, tuned.winner.judged
    assert search.fresh is not None and chosen is not None
    return [
        *search_lines(search),
        f"winner: candidate {tuned.winner.number}, {tuned.winner.name}",
        f"on the {chosen.seeds} seeds that chose it: {_words(chosen, level)}",
        f"score, on {len(tuned.tune.fresh)} fresh seeds: {_words(search.fresh.score, level)}",
        f"optimism of the search: {gap.value:+.1f}, {level} interval "
        + (f"{gap.low:.1f} to {gap.high:.1f}" if math.isfinite(gap.low) else no_interval(tuned)),
        f"folder: {tuned.path}",
    ]


def no_interval(tuned: "Tuned") -> str:
    """Why the optimism of a search has no interval."""
    fresh, chosen = tuned.search.fresh, tuned.winner.judged
    assert fresh is not None and chosen is not None
    if min(chosen.seeds, len(tuned.tune.fresh)) < 2:
        return "none, since one seed tells nothing of others"
    return "none, since all middle seeds of a side agree"


def _words(judged: Judged, level: str) -> str:
    lost = f", {counted(judged.diverged, 'seed')} that diverged counted as the lowest score"
    return (
        f"IQM {judged.value:.1f}, {level} interval: {judged.interval_text}"
        f"{lost if judged.diverged else ''}"
    )


def _head(search: Search) -> str:
    return f"{100 * search.tune.level:g} % INTERVAL"


def _worst_last(one: Candidate) -> tuple[float, float, int]:
    last = one.history[-1]
    return -last.value, -last.mean, one.number


def state_words(one: Candidate, search: Search) -> str:
    """What became of a candidate."""
    if one.dropped is not None:
        words = {"interval": "ends below", "share": "not above"}[one.dropped.rule]
        return f"{one.state}: {words} {one.dropped.bar:.1f}"
    return "winner" if search.fresh is not None and one is search.champion else one.state


def _counts(search: Search) -> str:
    runs = sum(len(one.scores) for one in search.candidates)
    states = [one.state for one in search.candidates]
    some = [
        f"{states.count(state)} {words}"
        for state, words in ((DROPPED, "dropped"), (REPEATED, "repeated"), (REFUSED, "refused"))
        if state in states
    ]
    of = f" ({', '.join(some)})" if some else ""
    return (
        f"{search.tune.name}: {counted(len(states), 'candidate')}{of} in "
        f"{counted(search.generation + 1, 'generation')}, {counted(runs, 'run')}"
    )
