"""What the page of a search shows beside the study of its winner on fresh seeds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dqx.report import cases, findings, page
from dqx.report.page.encode import rounded
from dqx.report.terminal import counted
from dqx.report.tune_table import no_interval, state_words
from dqx.settings import show
from dqx.study.tuning.folder import TuneFolder
from dqx.study.tuning.race import Judged
from dqx.study.tuning.results import Tuned
from dqx.study.tuning.search import Candidate


def write(tuned: Tuned) -> Path:
    """Writes the page of a finished search into its folder; gives its path.

    Raises:
        StudyError: naming the file, if one of the winner's study is damaged.
        OSError: when it cannot be written; an older page stays.
    """
    studies = [tuned.study]
    shown = page.content(studies, findings.groups(cases.read(studies)))
    return page.write_content({**shown, **part(tuned, shown)}, TuneFolder(tuned.path).report)


def part(tuned: Tuned, shown: Mapping[str, Any]) -> dict[str, Any]:
    """What the search adds to, or changes of, the content of the page of its winner's study."""
    told = shown["methods"]
    return {
        "title": f"{tuned.tune.name}: the winner",
        "search": content(tuned),
        "methods": {**told, "words": f"{told['words']} {_chosen_words(tuned)}"},
    }


def _chosen_words(tuned: Tuned) -> str:
    """How the settings were chosen, for the methods paragraph."""
    asked = tuned.tune
    return (
        f"The settings are those of the best of {counted(len(tuned.candidates), 'candidate')} for "
        f"{', '.join(name.replace('_', ' ') for name in asked.space)}, which a search (sampler "
        f"{asked.sampler}) proposed and judged on up to {counted(len(asked.seeds), 'other seed')}; "
        "no candidate saw the seeds that are reported."
    )


def content(tuned: Tuned) -> dict[str, Any]:
    """The section of the search, as JSON can hold it."""
    fresh, chosen = tuned.search.fresh, tuned.winner.judged
    assert fresh is not None and chosen is not None
    gap = [rounded(float(number)) for number in tuned.optimism]
    return {
        "level": tuned.tune.level,
        "generations": tuned.tune.generations,
        "fields": list(tuned.tune.space),
        "winner": tuned.winner.number,
        "chosen": _center(chosen),
        "chosenScores": _scores(tuned.tune.seeds, tuned.winner.scores),
        "score": _center(fresh.score),
        "freshScores": _scores(tuned.tune.fresh, fresh.scores),
        "optimism": {"iqm": gap[0], "low": gap[1], "high": gap[2], "note": no_interval(tuned)},
        "candidates": [_candidate(one, tuned) for one in tuned.candidates],
    }


def _center(judged: Judged) -> dict[str, Any]:
    note = judged.interval_text if judged.low != judged.low else ""
    numbers = {"iqm": judged.value, "low": judged.low, "high": judged.high}
    return {"n": judged.seeds, **{k: rounded(v) for k, v in numbers.items()}, "note": note}


def _scores(seeds: Any, scores: Any) -> list[list[Any]]:
    return [[seed, rounded(score)] for seed, score in zip(seeds, scores, strict=True)]


def _candidate(one: Candidate, tuned: Tuned) -> dict[str, Any]:
    return {
        "number": one.number,
        "generation": one.generation + 1,
        "values": [
            value if isinstance(value, int | float | str) else show(value)
            for value in one.values.values()
        ],
        "state": one.why or state_words(one, tuned.search),
        **({} if one.judged is None else _center(one.judged)),
    }
