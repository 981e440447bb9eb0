"""Everything that a page shows, as JSON can hold it."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import dqx
from dqx.report import cases, compare, findings, methods, numbers, style, tasks
from dqx.report.cases import Case
from dqx.report.findings import Group
from dqx.report.numbers import Center
from dqx.report.page import records
from dqx.report.page.encode import packed, rounded
from dqx.study.results import Study

# Configurations whose curves and seeds are in the page; of more, the best and the worst.
MAX_CURVES, _BEST = 48, 36
# Points of a line, and of the curve of one seed: the fewer, the more seeds there are.
_POINTS, _FEWEST, _MOST_NUMBERS = 200, 20, 1_200_000
_PANEL_POINTS = 80
# Configurations of the matrix, of panels, and with a band that holds the whole curve.
_MAX_MATRIX, _MAX_PANELS, _MAX_WHOLE = 12, 16, 8


def content(studies: Sequence[Study], groups: Sequence[Group]) -> dict[str, Any]:
    """What the page of these studies, whose groups these are, shows."""
    words, bibtex = methods.methods(studies, groups)
    titles = cases.titles(studies)
    return {
        "title": titles[0] if len(titles) == 1 else f"{len(titles)} studies compared",
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "dqx": dqx.__version__,
        "level": numbers.LEVEL,
        "window": cases.WINDOW,
        "palette": {
            "light": style.LIGHT,
            "dark": style.DARK,
            "sequential": style.SEQUENTIAL,
            "diverging": style.DIVERGING,
        },
        "software": compare.software_note(studies),
        "studies": [records.study(s, title) for s, title in zip(studies, titles, strict=True)],
        "groups": [_group(group, studies) for group in groups],
        "methods": {"words": words, "bibtex": bibtex},
    }


def _group(group: Group, studies: Sequence[Study]) -> dict[str, Any]:
    shown = chosen(group)
    runs = sum(len(group.cases[i].seeds) for i in shown)
    points = int(np.clip(_MOST_NUMBERS // max(runs, 1), _FEWEST, _POINTS))
    matrix = group.ranking[:_MAX_MATRIX]
    paneled = group.ranking[:_MAX_PANELS]
    return {
        "env": group.env,
        "metric": group.metric,
        "label": group.label,
        "worst": rounded(group.worst),
        "waiting": list(group.waiting),
        "cases": [_case(group, i, i in shown) for i in range(len(group.cases))],
        "ranking": group.ranking,
        "curves": [_curves(group, i, points, i in group.ranking[:_MAX_WHOLE]) for i in shown],
        "profiles": _profiles(group, shown),
        "improvements": {
            "cases": matrix,
            "table": rounded(findings.improvements(group, matrix), 4),
        },
        "tasks": tasks.told(group, studies),
        "verdict": compare.verdict(group, studies),
        "thresholds": _thresholds(group, shown),
        "episodes": [_line(i, c.episode_steps, c.episodes) for i, c in _some(group, shown)],
        "panels": _panels(group, paneled),
        "fields": [
            part for number in range(len(studies)) if (part := _fields(group, number)) is not None
        ],
    }


def chosen(group: Group) -> list[int]:
    """Places of the cases whose curves are shown: all, or the best and the worst of many."""
    ranking = group.ranking
    if len(ranking) <= MAX_CURVES:
        return ranking
    return [*ranking[:_BEST], *ranking[_BEST - MAX_CURVES :]]


def _some(group: Group, places: Sequence[int]) -> list[tuple[int, Case]]:
    return [(i, group.cases[i]) for i in places]


def center(found: Center) -> dict[str, Any]:
    """An IQM with its interval, or why there is none."""
    parts = {"n": found.n, "iqm": found.iqm, "low": found.low, "high": found.high}
    return {**{name: rounded(value) for name, value in parts.items()}, "note": found.note}


def _case(group: Group, place: int, with_seeds: bool) -> dict[str, Any]:
    case, scores = group.cases[place], group.scores[place]
    found = {
        "label": case.label,
        "study": case.study,
        "planned": case.planned,
        "total": case.total_steps,
        **center(group.centers[place]),
        "mean": rounded(float(scores.mean())),
        "std": rounded(float(scores.std(ddof=1))) if scores.size > 1 else None,
        "min": rounded(float(scores.min())),
        "max": rounded(float(scores.max())),
        "diverged": int((case.diverged_at >= 0).sum()),
        "lost": group.lost[place],
        "extremes": findings.extremes(scores)._asdict(),
    }
    if with_seeds:
        found |= {
            "seeds": case.seeds.tolist(),
            "scores": rounded(scores),
            "divergedAt": case.diverged_at.tolist(),
        }
    return found


def _curves(group: Group, place: int, points: int, whole: bool) -> dict[str, Any]:
    case, values = group.cases[place], group.curves[place]
    steps, seeds = (
        findings.thinned(len(case.steps), _POINTS),
        findings.thinned(len(case.steps), points),
    )
    return {
        "case": place,
        "steps": case.steps[steps].tolist(),
        "center": rounded(numbers.curve(values[:, steps], whole)),
        "seedSteps": case.steps[seeds].tolist(),
        "seeds": packed(values[:, seeds]),
        "measured": len(case.steps),
    }


def _line(
    place: int, steps: np.ndarray, values: np.ndarray, points: int = _POINTS
) -> dict[str, Any]:
    """Median and quartiles over seeds."""
    kept = np.flatnonzero(np.isfinite(values).any(axis=0))  # some are measured now and then
    kept = kept[findings.thinned(len(kept), points)]
    return {
        "case": place,
        "steps": rounded(steps[kept]),
        "center": rounded(numbers.quartiles(values[:, kept]), 4),
    }


def _profiles(group: Group, shown: Sequence[int]) -> dict[str, Any] | None:
    if not shown:
        return None
    found = findings.profiles(group, shown)
    return {
        "thresholds": rounded(found.thresholds),
        "lines": [
            {"case": i, "center": rounded(shares, 4)}
            for i, shares in zip(shown, found.shares, strict=True)
        ],
    }


def _thresholds(group: Group, shown: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {
            "score": rounded(found.score),
            "cases": [
                {
                    "case": i,
                    "steps": rounded(one.steps, 7),
                    "center": rounded(one.share, 4),
                    "reached": one.reached,
                    "fastest": rounded(one.fastest, 7),
                    "half": rounded(one.half, 7),
                }
                for i, one in zip(shown, found.cases, strict=True)
            ],
        }
        for found in findings.thresholds(group, shown)
    ]


def _panels(group: Group, places: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {
            "metric": name,
            "name": words,
            "lines": [
                _line(i, case.rows, case.panels[name], _PANEL_POINTS)
                for i, case in _some(group, places)
                if name in case.panels
            ],
        }
        for name, words in findings.panels(group, places).items()
    ]


def _fields(group: Group, study: int) -> dict[str, Any] | None:
    """What the varied fields of a study do; None if none varies."""
    effects = findings.effects(group, study)
    if not effects:
        return None
    names = [effect.field for effect in effects]
    return {
        "study": study,
        "effects": [
            {
                "field": effect.field,
                "binned": effect.binned,
                "leftOut": effect.left_out,
                "matched": effect.matched,
                "levels": [
                    {"name": level.name, "configs": level.configs, **center(level.center)}
                    for level in effect.levels
                ],
            }
            for effect in effects
        ],
        "maps": [
            {
                "fields": found.fields,
                "leftOut": found.left_out,
                "matched": found.matched,
                "names": found.names,
                "cells": [[center(cell) for cell in row] for row in found.cells],
            }
            for found in findings.heat_maps(group, study)
        ],
        "names": names,
        "points": [
            {"case": i, "values": [_plain(case.varied, name) for name in names]}
            for i, case in enumerate(group.cases)
            if case.study == study
        ],
    }


def _plain(varied: Mapping[str, Any], name: str) -> Any:
    """A value as an axis takes it: a number as it is, all else as text."""
    value = varied[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return rounded(value) if is_number else findings.show(value)
