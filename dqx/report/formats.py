"""A comparison as text, Markdown, LaTeX, CSV or JSON, with every name made harmless in each."""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import dqx
from dqx.report import numbers
from dqx.report.compare import Comparison, p_words, sentence
from dqx.report.pairs import MOST_SEEDS, POWER, Pair
from dqx.report.terminal import MAX_ROWS, aligned
from dqx.study.sealed import plain

_CONFIGS = ("configuration", "seeds", "steps", "IQM", "95 % interval", "diverged")
_PAIRS = (
    "A", "B", "A - B", "95 % interval", "paired by", "P(A > B)", "95 % interval", "Cliff's delta",
    "effect d", "p", "p (Holm)", "seeds needed",
)  # fmt: skip
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "_": r"\_", "%": r"\%", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "`": r"\`{}",
}  # fmt: skip


def text(found: Sequence[Comparison]) -> str:
    """Aligned columns for a terminal."""
    lines: list[str] = []
    for comparison in found:
        lines += [*([""] if lines else []), title(comparison)]
        rows = [config_cells(comparison, place) for place in comparison.order]
        lines += aligned([tuple(name.upper() for name in _CONFIGS), *rows[:MAX_ROWS]])
        lines += _more(len(rows), "configurations")
        pairs = [pair_cells(comparison, pair) for pair in comparison.pairs]
        if pairs:
            lines += ["", *aligned([_PAIRS, *pairs[:MAX_ROWS]]), *_more(len(pairs), "pairs")]
            lines += ["", *(f"{line}." for line in _sentences(comparison))]
        lines += [f"note: {note}" for note in comparison.notes]
        lines.append(f"verdict: {comparison.verdict}")
    return "\n".join(map(_printable, lines))


def markdown(found: Sequence[Comparison]) -> str:
    """Tables for GitHub and the like."""
    lines: list[str] = []
    for comparison in found:
        lines += [*([""] if lines else []), f"**{markdown_cell(title(comparison))}**", ""]
        lines += _markdown_table(_CONFIGS, [config_cells(comparison, i) for i in comparison.order])
        if comparison.pairs:
            lines.append("")
            lines += _markdown_table(_PAIRS, [pair_cells(comparison, p) for p in comparison.pairs])
        lines += ["", f"Verdict: {markdown_cell(comparison.verdict)}."]
        lines += [f"Note: {markdown_cell(note)}." for note in comparison.notes]
    return "\n".join(lines)


def latex(found: Sequence[Comparison]) -> str:
    """Tables for a paper; they need the package booktabs."""
    lines = [r"% \usepackage{booktabs}"]
    for comparison in found:
        lines += ["", r"\begin{table}", r"  \centering", r"  \small"]
        lines += _latex_table(_CONFIGS, [config_cells(comparison, i) for i in comparison.order])
        if comparison.pairs:
            lines += [r"  \par\medskip"]
            lines += _latex_table(_PAIRS, [pair_cells(comparison, p) for p in comparison.pairs])
        words = [title(comparison), comparison.verdict, *comparison.notes]
        caption = " ".join(f"{word[:1].upper()}{word[1:]}." for word in words)
        lines += [rf"  \caption{{{latex_cell(caption)}}}", r"\end{table}"]
    return "\n".join(lines)


def csv_text(found: Sequence[Comparison]) -> str:
    """A row a pair with the numbers of both sides; of a single configuration a row without B."""
    rows = []
    for comparison in found:
        head = {"environment": comparison.group.env, "score": comparison.group.label}
        sides = {i: record(comparison, i) for i in comparison.order}
        for pair in comparison.pairs:
            row: dict[str, Any] = {**head, **pair_record(comparison, pair)}
            for side, place in (("a", pair.a), ("b", pair.b)):
                row |= {f"{side}_{k}": v for k, v in sides[place].items() if k != "configuration"}
            rows.append(row)
        if not comparison.pairs:
            (place,) = comparison.order
            row = {**head, "a": comparison.name(place), "verdict": comparison.verdict}
            rows.append(
                row | {f"a_{k}": v for k, v in sides[place].items() if k != "configuration"}
            )
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([[csv_cell(row.get(name)) for name in names] for row in rows])
    return out.getvalue().rstrip("\n")


def json_text(found: Sequence[Comparison]) -> str:
    """Everything, as strict JSON: null where there is no number."""
    content = {
        "dqx": dqx.__version__,
        "level": numbers.LEVEL,
        "power": POWER,
        "comparisons": [
            {
                "environment": comparison.group.env,
                "score": comparison.group.metric,
                # What counts where a run has no score; of no meaning where all have one.
                "worst": comparison.group.worst if any(comparison.group.lost) else None,
                "configurations": [record(comparison, i) for i in comparison.order],
                "pairs": [pair_record(comparison, pair) for pair in comparison.pairs],
                "pairs_left_out": comparison.left_out,
                "notes": comparison.notes,
                "verdict": comparison.verdict,
            }
            for comparison in found
        ],
    }
    return json.dumps(plain(content), indent=1, allow_nan=False)


FORMATS: dict[str, Callable[[Sequence[Comparison]], str]] = {
    "text": text,
    "markdown": markdown,
    "latex": latex,
    "csv": csv_text,
    "json": json_text,
}


def title(found: Comparison) -> str:
    """What is compared."""
    return f"{found.group.env}: {found.group.label}"


def config_cells(found: Comparison, place: int) -> tuple[str, ...]:
    """A configuration as a row of a table."""
    case, center, digits = found.group.cases[place], found.center(place), found.digits
    around = center.note or f"{center.low:.{digits}f} to {center.high:.{digits}f}"
    seeds = f"{center.n:,}" if center.n == case.planned else f"{center.n:,} of {case.planned:,}"
    lost = int((case.diverged_at >= 0).sum())
    return (
        case.label, seeds, f"{case.total_steps:,}", f"{center.iqm:.{digits}f}", around,
        f"{lost}" if lost else "",
    )  # fmt: skip


def pair_cells(found: Comparison, pair: Pair) -> tuple[str, ...]:
    """A pair as a row of a table."""
    digits = found.digits
    value, low, high = (float(number) for number in pair.gap)
    share, least, most = (float(number) for number in pair.improvement)
    return (
        found.name(pair.a),
        found.name(pair.b),
        _signed(value, digits),
        "none" if math.isnan(low) else f"{low:.{digits}f} to {high:.{digits}f}",
        f"{pair.shared:,} seeds" if pair.shared else "not paired",
        f"{share:.2f}",
        "none" if math.isnan(least) else f"{least:.2f} to {most:.2f}",
        _signed(pair.delta, 2),
        _signed(pair.effect, 2) if math.isfinite(pair.effect) else "no spread",
        p_words(pair.p).removeprefix("= "),
        p_words(pair.holm).removeprefix("= "),
        _needed_words(found, pair),
    )


def _needed_words(found: Comparison, pair: Pair) -> str:
    """Seeds a side that would tell; a single seed says nothing of others."""
    if min(found.center(place).n for place in (pair.a, pair.b)) < 2:
        return "n/a"
    return f"{pair.needed:,}" if pair.needed else f"> {MOST_SEEDS:,}"


def _signed(value: float, digits: int) -> str:
    """A number with its sign, zero without."""
    shown = f"{value:+.{digits}f}"
    return shown if float(shown) != 0 else shown[1:]


def _sentences(found: Comparison) -> list[str]:
    """A sentence a pair, where the verdict is not the only one."""
    return [sentence(found, p) for p in found.pairs[:MAX_ROWS]] if len(found.pairs) > 1 else []


def _more(count: int, what: str) -> list[str]:
    return [f"... and {count - MAX_ROWS} more {what}"] if count > MAX_ROWS else []


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [" | ".join(map(markdown_cell, row)) for row in (head, *rows)]
    first, *rest = [f"| {line} |" for line in lines]
    return [first, "|" + "---|" * len(head), *rest]


def _latex_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "    " + " & ".join(map(latex_cell, cells)) + r" \\"

    columns = "l" + "r" * (len(head) - 1)
    return [
        rf"  \begin{{tabular}}{{{columns}}}", r"    \toprule", line(head), r"    \midrule",
        *map(line, rows), r"    \bottomrule", r"  \end{tabular}",
    ]  # fmt: skip


def _printable(line: str) -> str:
    """Without what would move a terminal's cursor or colours."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def markdown_cell(word: str) -> str:
    """A text that Markdown and HTML show as it is."""
    return re.sub(r"([\\`*_\[\]<>|~$&#!])", r"\\\1", _printable(word))


def latex_cell(word: str) -> str:
    """A text that LaTeX sets as it is, and never runs."""
    escaped = "".join(_LATEX.get(c, c) if c.isprintable() else " " for c in word)
    minus = re.sub(r"(?<![\w.)}-])-(?=[\d.])", "$-$", escaped)
    return minus.replace("--", "{-}{-}")


def csv_cell(value: Any) -> Any:
    """A number, empty where there is none, or a text that no spreadsheet takes as a formula."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, str):
        shown = _printable(value)
        return f"'{shown}" if shown.lstrip()[:1] in ("=", "+", "-", "@") else shown
    return value


def record(found: Comparison, place: int) -> dict[str, Any]:
    """The numbers of a configuration, by name."""
    case, center = found.group.cases[place], found.center(place)
    reached = {}
    if found.bar is not None:
        scores = found.group.scores[place]
        names = ("share", "share_low", "share_high")
        shares = map(float, numbers.share_at(scores, found.bar))
        reached = {"bar": found.bar, **dict(zip(names, shares, strict=True))}
    return {
        "configuration": case.label,
        "seeds": center.n,
        "planned": case.planned,
        "steps": case.total_steps,
        "iqm": center.iqm,
        "low": center.low,
        "high": center.high,
        "note": center.note,
        "mean": float(found.group.scores[place].mean()),
        "diverged": int((case.diverged_at >= 0).sum()),
        "counted_as_worst": found.group.lost[place],
        **reached,
    }


def pair_record(found: Comparison, pair: Pair) -> dict[str, Any]:
    """The numbers of a pair, by name."""
    return {
        "a": found.name(pair.a),
        "b": found.name(pair.b),
        "paired_by": pair.shared,
        "difference": float(pair.gap.value),
        "difference_low": float(pair.gap.low),
        "difference_high": float(pair.gap.high),
        "p_improvement": float(pair.improvement.value),
        "p_improvement_low": float(pair.improvement.low),
        "p_improvement_high": float(pair.improvement.high),
        "cliffs_delta": pair.delta,
        "robust_effect": pair.effect,
        "p": pair.p,
        "p_holm": pair.holm,
        "p_least": pair.least,
        "seeds_needed": pair.needed,
        "better": {1: found.name(pair.a), -1: found.name(pair.b)}.get(pair.better),
        "verdict": sentence(found, pair),
    }
