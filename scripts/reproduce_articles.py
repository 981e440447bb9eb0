"""Trains every preset over many seeds and sets what it reaches beside what its source claims.

    python scripts/reproduce_articles.py                        # all, many hours on 2 cores
    python scripts/reproduce_articles.py --presets taxi,taxi/tabular --seeds 4
    python scripts/reproduce_articles.py --bars                 # those with a bar; fails below it
    python scripts/reproduce_articles.py --presets taxi --keep benchmarks/results/articles.json

Each preset is a study in a folder of --out; started again, the script goes on where it was. Seeds,
claim and bar are the preset's own. The return is the score of a run, that of its last greedy
evaluation: exact, over all starts, where the preset measures exact metrics, else the mean of some
episodes of each seed. Intervals are 95 % intervals over seeds, as `dqx.stats.interval` makes them.
Wall seconds are those of compiling and of all steps at the rate of the last sitting. The table of
the presets asked for, a picture of their learning curves and one of the episodes until CartPole-v0
counts as solved are left in --out. With --keep, the table is of all presets in that file, in which
those asked for are renewed, and the pictures are of those whose curves it has.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

import dqx
import dqx.study
import envs
from dqx.cli import streams
from dqx.compute.score import score_metric
from dqx.files import OutputError, check_file, whole_file, write_json
from dqx.report import style
from dqx.report.terminal import markdown
from dqx.report.view import view
from dqx.settings import preset_about

# Trained for so many steps in search of the first 100 episodes with a mean return of 195.
SOLVING = {"cartpole/keras-rl": 200_000, "cartpole/double-dqn": 200_000}
SOLVED, WINDOW, ARTICLE_EPISODES = 195.0, 100, 51


def main() -> int:
    """Trains what is missing and writes the table and the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", help="by commas; default: all, with --bars those with a bar")
    parser.add_argument("--seeds", type=int, help="of every preset (default: the preset's own)")
    parser.add_argument("--bars", action="store_true", help="fail if a preset misses its bar")
    parser.add_argument("--out", type=Path, default=Path("runs/articles"))
    parser.add_argument("--keep", type=Path, metavar="FILE", help="a record to renew rows of")
    parser.add_argument("--devices", help="as of dqx train, such as cpu:2 or gpu")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    args = parser.parse_args()
    if args.seeds is not None and args.seeds < 1:
        parser.error(f"--seeds must be at least 1, got {args.seeds}")
    try:
        return reproduce(chosen(args.presets, args.bars), args)
    except (dqx.ConfigError, OutputError, OSError) as error:
        parser.error(str(error))


def chosen(names: str | None, bars: bool) -> list[str]:
    """The presets asked for: all that are measured, or have a bar, and can be had, or those named.

    Those of suites that are not installed are left out unless they are named.
    """
    if names is None:
        about = {name: preset_about(name) for name in dqx.preset_names()}
        wanted = [name for name in about if about[name].seeds is not None]
        wanted = [name for name in wanted if about[name].bar is not None or not bars]
        return [name for name in wanted if installed(name)]
    found = [name.strip() for name in names.split(",")]
    for name in found:
        if bars and preset_about(name).bar is None:
            raise dqx.ConfigError(f"preset {name} has no bar: leave it out, or --bars")
    return found


def installed(name: str) -> bool:
    """Whether the suite of a preset's environment is there; says so where it is not."""
    try:
        envs.version_of(dqx.preset(name)[0].env)
    except ValueError as error:
        print(f"preset {name} is left out: {error}", file=sys.stderr)
        return False
    return True


def reproduce(names: list[str], args: argparse.Namespace) -> int:
    """Trains presets one after the other; 130 after Ctrl-C, 1 if one misses its bar."""
    kept = read_record(args.keep)
    if args.keep is not None:
        check_file(args.keep)
    studies, solved = {}, {}
    try:
        for name in names:
            studies[name] = trained(name, {}, args)
            if name in SOLVING:
                longer = trained(name, {"total_steps": SOLVING[name]}, args)
                solved[name] = np.array([until_solved(e) for e in episodes_of(longer)])
    except dqx.study.StudyInterrupted as stop:
        print(f"{stop}; the same command goes on", file=sys.stderr)
        return 130
    record = renewed(kept, studies, solved)
    solved = {name: np.array(f, np.float64) for name, f in record["until_solved"].items()}
    words = [solved_words(name, found) for name, found in solved.items()]
    text = "\n".join([*markdown(record["rows"]), *words])
    print(text)
    with whole_file(args.out / "articles.md") as file:
        file.write(f"{text}\n".encode())
    write_json(args.keep or args.out / "articles.json", record)
    draw_curves(args.out / "articles.png", record["curves"])
    lacking = [row["preset"] for row in record["rows"] if row["preset"] not in record["curves"]]
    without = f", without {', '.join(lacking)}: no curve is kept of them" if lacking else ""
    print(f"picture: {args.out / 'articles.png'}{without}")
    if solved:
        draw_solved(args.out / "solved.png", solved)
        print(f"picture: {args.out / 'solved.png'}")
    missed = missed_bars(studies) if args.bars else []
    if missed:
        print(f"below the bar: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


def read_record(path: Path | None) -> dict[str, Any]:
    """What a file holds of presets; nothing where there is none.

    Raises:
        ConfigError: if it holds something else.
    """
    empty = {"rows": [], "scores": {}, "until_solved": {}, "identity": {}, "curves": {}}
    if path is None or not path.exists():
        return empty
    try:
        record = json.loads(path.read_text())
        known = empty.keys() >= record.keys() >= {"rows", "scores"}
    except (ValueError, AttributeError):
        known = False
    if not known:
        raise dqx.ConfigError(f"--keep {path} holds no record of this script: name another file")
    return empty | record


def renewed(
    record: Mapping[str, Any],
    studies: Mapping[str, dqx.study.Study],
    solved: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """A record with the rows, scores and curves of these studies in place of older ones."""
    rows = {one["preset"]: one for one in record["rows"]}
    rows |= {name: row(name, study) for name, study in studies.items()}
    new: dict[str, dict[str, Any]] = {
        "scores": {name: numbers(study.scores()) for name, study in studies.items()},
        "until_solved": {name: [numbers(seed) for seed in f] for name, f in solved.items()},
        "identity": {name: study.plan["identity"] for name, study in studies.items()},
        "curves": {name: curve(study) for name, study in studies.items()},
    }
    return {"rows": list(rows.values())} | {key: record[key] | new[key] for key in new}


def numbers(values: np.ndarray) -> list[float | None]:
    """Numbers as JSON can hold them."""
    return [float(value) if np.isfinite(value) else None for value in values]


def trained(name: str, changes: Mapping[str, Any], args: argparse.Namespace) -> dqx.study.Study:
    """The finished study of a preset; begun or gone on with if it is not there yet."""
    seeds = args.seeds or preset_about(name).seeds or 32
    label = name.replace("/", "-") + "".join(f"-{value}" for value in changes.values())
    plan = {"name": label, "seeds": seeds, "base": {"preset": name, **changes}}
    return dqx.study.run(
        plan,
        args.out / f"{label}-{seeds}".replace(":", "-"),
        devices=args.devices,
        go_on=True,
        sinks=[view(label, sys.stderr, args.quiet)],
    )


def missed_bars(studies: Mapping[str, dqx.study.Study]) -> list[str]:
    """The presets whose IQM is below their bar; a seed without a finite score misses it too."""
    missed = []
    for name, study in studies.items():
        bar, scores = preset_about(name).bar, study.scores()
        if bar is not None and not (np.isfinite(scores).all() and dqx.stats.iqm(scores) >= bar):
            missed.append(name)
    return missed


def row(name: str, study: dqx.study.Study) -> dict[str, Any]:
    """The table's row of one preset."""
    seeds, kept = len(study.seeds), study.manifest
    s = dqx.stats.summarize(study.scores())
    rate = kept["steps_per_second"]  # null where the last sitting had no steps left
    seconds = kept["steps"] / rate + kept["compile_seconds"] if rate else np.nan
    return {
        "preset": name,
        "seeds": seeds,
        "steps": study.point()[0].total_steps,
        "IQM": f"{s.iqm:.2f}",
        "95 % interval": s.interval_text(2),
        "claim of the source": preset_about(name).claim or "our own",
        "wall s": f"{seconds:,.0f}" if rate else "n/a",
        "s a seed": f"{seconds / seeds:.1f}" if rate else "n/a",
        "diverged": sum(run["diverged_at"] >= 0 for run in study.runs),
    }


def episodes_of(study: dqx.study.Study) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of every seed the returns of its training episodes and the steps at which they ended."""
    found = dict(list(study.episodes.groupby("seed")))
    return [(found[s]["return"].to_numpy(), found[s]["step"].to_numpy()) for s in study.seeds]


def until_solved(episodes: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    """Episodes before the first 100 with a mean of 195, and steps up to their end; NaN if never."""
    totals, steps = (np.asarray(x, np.float64) for x in episodes)
    sums = np.convolve(totals, np.ones(WINDOW), "valid") if len(totals) >= WINDOW else np.zeros(0)
    first = np.flatnonzero(sums / WINDOW >= SOLVED)
    if not len(first):
        return np.nan, np.nan
    return float(first[0]), float(steps[first[0] + WINDOW - 1])


def solved_words(name: str, found: np.ndarray) -> str:
    """How many seeds solved the task and how soon, and where the article's run falls."""
    done = np.isfinite(found[:, 0])
    lines = [f"\n{name}: mean return of {SOLVED:g} over {WINDOW} episodes of training"]
    lines[0] += f" reached by {done.sum()} of {len(found)} seeds within {SOLVING[name]:,} steps"
    if done.any():
        # Seeds that never get there count as later than all others.
        late = np.where(done[:, None], found, np.inf)
        for column, what in enumerate(("episodes before these 100", "steps up to their end")):
            low, high = np.quantile(late[:, column], (0.1, 0.9), method="higher")
            middle = np.median(late[:, column])
            words = f"- {what}: median {_count(middle)}, 10th to 90th percentile {_count(low)} to "
            lines.append(words + f"{_count(high)}, least {_count(late[:, column].min())}")
        sooner = np.mean(late[:, 0] <= ARTICLE_EPISODES)
        lines.append(
            f"- {ARTICLE_EPISODES} episodes or fewer, as the run of the article on Double DQN: "
            f"{100 * sooner:.0f} % of the seeds"
        )
    return "\n".join(lines)


def _count(value: float) -> str:
    return f"{value:,.0f}" if np.isfinite(value) else "never"


def draw_solved(path: Path, solved: Mapping[str, np.ndarray]) -> None:
    """The share of seeds that had solved the task after so many episodes, and so many steps."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    ends = 1.05 * np.nanmax(np.concatenate([*solved.values(), [[1, 1]]]), axis=0)
    for column, axis in enumerate(axes):
        for (name, found), color in zip(solved.items(), style.LIGHT, strict=False):
            values = np.sort(found[np.isfinite(found[:, column]), column])
            share = np.arange(len(values) + 1) / len(found)
            # To the end: seeds that never get there leave a gap to 1.
            places = np.concatenate([[0], values, [ends[column]]])
            axis.step(places, np.append(share, share[-1]), where="post", color=color, label=name)
        axis.set(ylim=(0, 1.02), xlim=(0, ends[column]))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].axvline(
        ARTICLE_EPISODES, color="grey", linestyle="--", linewidth=1, label="the article's run: 51"
    )
    axes[0].set(xlabel=f"episodes before the {WINDOW} with a mean return of {SOLVED:g}")
    axes[0].set(ylabel="share of seeds")
    axes[1].set(xlabel="environment steps up to the end of these episodes")
    axes[1].xaxis.set_major_formatter(lambda value, _: style.steps(value))
    axes[0].legend(loc="lower right", frameon=False)
    figure.savefig(path, dpi=120)


def curve(study: dqx.study.Study) -> dict[str, Any]:
    """The interquartile mean over seeds at every evaluation ``[k]``, with its interval."""
    values = study.to_arrays(score_metric(study.point()[0]))[0]
    there = np.isfinite(values).any(axis=0)
    center, low, high = dqx.stats.interval(values[:, there])
    return {
        "env": study.point()[0].env,
        "steps": study.steps[there].tolist(),
        "center": numbers(center),
        "low": numbers(low),
        "high": numbers(high),
    }


def draw_curves(path: Path, curves: Mapping[str, Mapping[str, Any]]) -> None:
    """The learning curves of the presets, a panel for each environment."""
    panels: dict[str, list[str]] = {}
    for name, found in curves.items():
        panels.setdefault(found["env"], []).append(name)
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(5 * columns, 3.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).reshape(-1)
    for axis, (env, names) in zip(axes, panels.items(), strict=False):
        for place, name in enumerate(names):
            dashes = (
                "-" if place < len(style.LIGHT) else (0, (4, 2))
            )  # told apart beyond the palette
            color = style.LIGHT[place % len(style.LIGHT)]
            _draw_curve(axis, name, curves[name], color, dashes)
        axis.set(title=env, xlabel="environment steps of a seed", xscale="log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(lambda value, _: style.steps(value))
        axis.xaxis.set_minor_formatter(lambda value, _: "")
        axis.set(ylabel="greedy return")
        if env.startswith("Taxi"):
            axis.set_ylim(-210, 20)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(loc="best", frameon=False, fontsize="small")
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.savefig(path, dpi=120)


def _draw_curve(axis: Axes, name: str, found: Mapping[str, Any], color: str, dashes: Any) -> None:
    steps = np.array(found["steps"])
    center, low, high = (np.array(found[k], np.float64) for k in ("center", "low", "high"))
    axis.plot(steps, center, marker=".", linestyle=dashes, color=color, label=name)
    if len(steps) == 1:
        around = [center - low, high - center]
        axis.errorbar(steps, center, yerr=around, color=color, capsize=3)
    else:
        axis.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)


if __name__ == "__main__":
    with streams.guarded(forgiving=True):  # what it computes is kept in files
        sys.exit(main())
