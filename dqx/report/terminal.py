"""What the command prints of a study: tables, sizes, times, and a summary in words."""

import collections
import datetime
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dqx import stats

if TYPE_CHECKING:
    from dqx.study.certify import Certificate
    from dqx.study.estimate import Estimate
    from dqx.study.results import Study

MAX_ROWS = 30  # of a table, before the rest is only counted
_MAX_DIVERGED = 10
# A summary of more runs resamples no intervals, which takes `dqx compare` its time.
MAX_RESAMPLED = 20_000


class Standing(NamedTuple):
    """A configuration so far: its name, the IQM of its finished runs' scores, and their number."""

    name: str
    iqm: float
    runs: int


def rank(scores: Mapping[str, Iterable[float]]) -> list[Standing]:
    """Configurations by their IQM, the best first; without a finite score, last.

    A score that is not finite counts as the lowest of all that are.
    """
    arrays = {name: np.asarray(list(values), float) for name, values in scores.items()}
    known = [array[np.isfinite(array)] for array in arrays.values()]
    worst = min((float(values.min()) for values in known if values.size), default=math.nan)
    found = []
    for name, array in arrays.items():
        any_finite = np.isfinite(array).any()
        iqm = float(stats.iqm(array, nan=worst)) if any_finite else math.nan
        found.append(Standing(name, iqm, array.size))
    return sorted(found, key=lambda s: -math.inf if math.isnan(s.iqm) else s.iqm, reverse=True)


def summary(study: "Study") -> list[str]:
    """What a study has found so far, a line a fact."""
    configs, seeds = len(study.configs), len(study.seeds)
    planned, done = configs * seeds, study.num_finished
    runs = counted(done, "run") if done == planned else f"{done:,} of {planned:,} runs"
    lines = [
        f"{study.plan['name']}: {runs} ({counted(configs, 'configuration')} x "
        f"{counted(seeds, 'seed')})"
    ]
    lines += _one(study) if configs == 1 else _standings(study)
    diverged = study.diverged
    if diverged:
        lines.append(f"diverged: {len(diverged):,} of {done:,} runs")
    for config, seed, step in diverged[:_MAX_DIVERGED]:
        of = "" if configs == 1 else f" of {config}"
        lines.append(f"  seed {seed}{of} at step {step:,}")
    if len(diverged) > _MAX_DIVERGED:
        lines.append(f"  ... and {len(diverged) - _MAX_DIVERGED} more")
    if study.finished:
        lines += _time(study)
    return [*lines, f"folder: {study.path}"]


def _one(study: "Study") -> list[str]:
    """The score of the only configuration, and how far it is from the exact solution."""
    if not study.num_finished:
        return []
    config, _ = study.point()
    words = {
        "exact_return": "exact return over all starts",
        "eval_return": "final greedy return",
        "episode_return": "last return of training episodes (eval_period = 0: no evaluation)",
    }
    from dqx.compute.score import score_metric

    metric = score_metric(config)
    digits = 2 if metric == "exact_return" else 1
    scores = study.scores()
    lines = [f"{words[metric]}: {interval_words(scores, digits, _worst(study, scores, metric))}"]
    if metric == "exact_return" and study.finished:
        lines += [_exact_words(study)]
    return lines


def _worst(study: "Study", scores: np.ndarray, metric: str) -> float:
    """The lowest number of any run and step, if it is asked for: where a score is not finite."""
    if np.isfinite(scores).all():
        return math.nan
    values = np.append(study.to_arrays(metric).ravel().astype(np.float64), scores)
    finite = values[np.isfinite(values)]
    return float(finite.min()) if finite.size else math.nan


def _exact_words(study: "Study") -> str:
    def last(metric: str) -> np.ndarray:
        return study.to_arrays(metric)[0][:, -1]

    greedy, regret = np.mean(last("eval_return")), np.mean(last("regret"))
    share, error = 100 * np.mean(last("optimal_share")), np.mean(last("q_error"))
    distance = f"{error:.3g}" if np.isfinite(error) else "not finite"
    return (
        f"means over seeds: regret {regret:.2f}, optimal actions in {share:.1f} % of the states, "
        f"max |Q - Q*| {distance}, greedy return of evaluations {greedy:.1f}"
    )


def _standings(study: "Study") -> list[str]:
    scores = {name: _counted(study, name) for name in study.configs}
    standings = rank({name: values for name, values in scores.items() if len(values)})
    if not standings:
        return []
    rows = [("CONFIGURATION", "RUNS", "IQM", "95 % INTERVAL", "DIVERGED")]
    many = study.num_finished > MAX_RESAMPLED
    lost = collections.Counter(d[0] for d in study.diverged)
    for standing in standings[:MAX_ROWS]:
        name = standing.name
        rows.append(
            (
                name,
                f"{standing.runs:,} of {len(study.seeds):,}",
                f"{standing.iqm:.1f}",
                "see compare" if many else _interval(scores[name]),
                f"{lost[name]}" if lost[name] else "",
            )
        )
    more = len(standings) - MAX_ROWS
    lines = [*aligned(rows), *([f"... and {more} more configurations"] if more > 0 else [])]
    lacking = sum(int((~np.isfinite(study.scores(name))).sum()) for name in study.configs)
    if lacking and any(np.isfinite(values).any() for values in scores.values()):
        count = "counts" if lacking == 1 else "count"
        seeds = f"{counted(lacking, 'run')} without a finite score"
        lines.append(f"{seeds} {count} as the worst of any run and step")
    return lines


def _counted(study: "Study", name: str) -> np.ndarray:
    """The scores of a configuration, those that are not finite as the worst of any run and step."""
    from dqx.compute.score import score_metric

    scores = study.scores(name)
    worst = _worst(study, scores, score_metric(study.point(name)[0]))
    return np.where(np.isfinite(scores), scores, worst)


def _time(study: "Study") -> list[str]:
    """How long it took, where the manifest tells."""
    facts = study.manifest
    wanted = ("steps_per_second", "devices", "compile_seconds", "run_seconds")
    if any(facts.get(name) is None for name in wanted):
        return []
    places = facts["devices"]
    kind = study.plan["identity"].get("device_kind", "").partition(": ")[2].partition(" (")[0]
    return [
        f"time: {facts['compile_seconds']:.1f} s to compile, {facts['run_seconds']:.1f} s to run "
        f"({facts['steps_per_second']:,.0f} environment steps/s on {len(places)} x {kind})"
    ]


def estimate_lines(found: "Estimate") -> list[str]:
    """What a dry run has found, a line a fact and a row a compiled program."""
    plan = found.plan
    lines = [
        f"{plan.name}: {counted(len(plan.points), 'configuration')} x "
        f"{counted(len(plan.seeds), 'seed')} = "
        f"{plan.num_runs:,} runs, {plan.total_steps:,} environment steps",
    ]
    lines += [f"  {point.name}" for point in plan.points[:MAX_ROWS]]
    if len(plan.points) > MAX_ROWS:
        lines.append(f"  ... and {len(plan.points) - MAX_ROWS} more")
    rows = [
        ("PROGRAM", "CONFIGS", "RUNS", "CHUNKS", "WIDTH", "DEVICES", "MEMORY A CHUNK",
         "A TRANSITION", "TIME"),
    ]  # fmt: skip
    for number, group in enumerate(found.groups, start=1):
        rows.append(
            (
                f"{number}",
                f"{len(group.points):,}",
                f"{group.runs:,}",
                f"{group.chunks:,}",
                f"{group.width}",
                f"{group.devices}",
                size(group.chunk_bytes),
                size(group.transition_bytes),
                duration(group.seconds),
            )
        )
    lines += aligned(rows)
    lines += [
        f"memory: {size(found.memory_bytes)} at a time, {size(found.free_bytes)} free",
        f"disk: {size(found.disk_bytes)}, checkpoints included",
        f"time: about {duration(found.seconds)}, {len(found.groups)} x compiling included",
    ]
    return lines


def certificate_lines(certificate: "Certificate", folder: str, quiet: bool) -> list[str]:
    """What `dqx verify` has found, a row a run unless ``quiet``."""
    lines = []
    if not quiet and certificate.checks:
        rows = [("CONFIGURATION", "SEED", "DIGEST", "AGAIN", "VERDICT")]
        for check in certificate.checks:
            verdict = f"{check.verdict}: {check.detail}" if check.detail else check.verdict
            rows.append(
                (check.config, f"{check.seed}", check.stored[:12], check.found[:12], verdict)
            )
        lines += aligned(rows)
    lines += problem_lines(certificate.problems)
    lines += [f"note: {text}" for text in certificate.differences]
    if certificate.statistics:
        lines.append(certificate.statistics)
    count = len(certificate.checks)
    same = sum(check.verdict == "identical" for check in certificate.checks)
    has = f"the study has {certificate.runs:,}"
    if certificate.runs < certificate.planned:
        has = f"{certificate.runs:,} of the {certificate.planned:,} planned are there"
    words = f"{same} of {count} runs trained again have the same bits; {has}"
    if not count:
        words = "no run could be trained again"
    elsewhere = sum(check.elsewhere for check in certificate.checks)
    if elsewhere:
        words += f"; {elsewhere} on a machine other than the one that trained them"
    lines.append(f"verdict: {certificate.verdict} ({words})")
    if certificate.digest:
        lines.append(f"digest: {certificate.digest}")
    return [*lines, f"certificate: {Path(folder) / 'certificate.json'}"]


def problem_lines(problems: Sequence[str]) -> list[str]:
    """What is wrong with a study's folder, a line each; the rest is only counted."""
    lines = [f"differs: {text}" for text in problems[:MAX_ROWS]]
    more = len(problems) - MAX_ROWS
    return [*lines, *([f"... and {more:,} more"] if more > 0 else [])]


def interval_words(scores: np.ndarray, digits: int = 1, worst: float = math.nan) -> str:
    """The IQM of scores and its interval, in words.

    Args:
        scores: of seeds ``[S]``.
        digits: decimals.
        worst: what a score that is not finite counts as, which is said.
    """
    finite = np.isfinite(scores)
    if not finite.any():
        return "not finite for any seed"
    found = stats.summarize(scores, nan=worst if not finite.all() else "raise")
    words = f"95 % interval {found.interval_text(digits)} ({counted(scores.size, 'seed')})"
    words = found.note or words
    missing = int((~finite).sum())
    rest = ""
    if missing:
        rest = (
            f", {counted(missing, 'seed')} without a finite return counted as the worst of any "
            f"run and step, {worst:.{digits}f}"
        )
    return f"IQM {found.iqm:.{digits}f}, {words}{rest}"


def _interval(scores: np.ndarray) -> str:
    finite = scores[np.isfinite(scores)]
    return stats.summarize(finite).interval_text() if finite.size else "n/a"


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows of cells as lines, every column as wide as its widest cell."""
    if not rows:
        return []
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def _width(text: str) -> int:
    """How many columns of a terminal a text takes: two for a wide character, none for a mark."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def markdown(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Rows of the same keys, which are the heads, as the lines of a Markdown table.

    Numbers get commas, and those below 1,000 that are not whole three digits.
    """
    if not rows:
        return []
    cells = [tuple(rows[0]), *(tuple(map(_cell, row.values())) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    head, *body = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
    return [head, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *body]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def counted(number: int, word: str) -> str:
    """A number with its word, such as ``1 seed`` or ``32 seeds``."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Names as a person lists them, the rest counted."""
    shown = [*names[:most], f"{len(names) - most} more"] if len(names) > most else list(names)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def size(count: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:,.0f} {unit}" if count >= 100 else f"{count:,.3g} {unit}"


def duration(seconds: float) -> str:
    """Seconds as 0:00:07."""
    if math.isnan(seconds):
        return "unknown"
    return str(datetime.timedelta(seconds=math.ceil(seconds)))


def clock(seconds: float) -> str:
    """Seconds as 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
