"""Which part of the family helps, and where? Every variant on five games, in one report.

    python scripts/compare_variants.py                       # all: hours; goes on where it was
    python scripts/compare_variants.py --games cartpole,catch --variants dueling,c51 --seeds 8
    python scripts/compare_variants.py --steps 20000 --seeds 4 --out /tmp/v     # a trial

A variant is the game's preset with one method changed. Its settings are those of the preset
GAME/VARIANT where that is built on the game's, else the method of cartpole/VARIANT;
``plain`` changes nothing. Each game and variant is a study in a folder of --out, so that a new
variant trains itself alone. What is missing is trained; then the tables, of each game and over all
games whose returns have known ends, go to variants.md and variants.json, and one page of all
studies to report/.
"""

import argparse
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import dqx
import dqx.study
from dqx import stats
from dqx.files import OutputError, whole_file, write_json
from dqx.report import cases, findings, numbers, page
from dqx.report.findings import Group
from dqx.report.terminal import listed, markdown
from dqx.report.view import view
from dqx.settings import ConfigWarning, preset_about, preset_names, presets, show

PLAIN = "plain"
LEVEL = 0.05  # of all variants of a game together


class Game(NamedTuple):
    """A game that variants are compared on.

    Attributes:
        preset: whose settings they share.
        changes: what the game changes of them.
        seeds: of each variant, unless ``--seeds`` says otherwise.
        ends: what a policy gets that does nothing for its return, and the best that any gets, where
            both are known from the rules or exactly; scores are normalised by them.
        support: least and largest return, discounted, for variants with atoms between two ends.
    """

    preset: str
    changes: Mapping[str, Any] = {}
    seeds: int = 32
    ends: tuple[float, float] | None = None
    support: tuple[float, float] = (0.0, 100.0)


GAMES = {
    "cartpole": Game("cartpole/one-step", ends=(0.0, 500.0)),
    # No policy's return is known to be the best.
    "mountain-car": Game("mountain-car/one-step", support=(-100.0, 0.0)),
    # A taxi that only drives about loses 1 a step, up to the time limit.
    # All by greedy episodes, since not every variant's values are those of the best policy.
    "taxi": Game(
        "taxi",
        {"sampling": "uniform", "exact_metrics": False},
        ends=(-200.0, 7.93),
        support=(-100.0, 20.0),
    ),
    "catch": Game(
        "cartpole/one-step",
        {"env": "Catch-bsuite", "total_steps": 100_000},
        ends=(-1.0, 1.0),
        support=(-1.0, 1.0),
    ),
    "breakout": Game("breakout", seeds=10),
}


def main() -> int:
    """Trains what is missing, and writes tables and page; 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("--games", help=f"by commas; default: {','.join(GAMES)}")
    add("--variants", help="by commas, beside plain; default: all that a game has")
    add("--seeds", type=int, help="of every variant; default: 32, on breakout 10")
    add("--steps", type=int, help="environment steps a seed; default: the game's")
    add("--out", type=Path, default=Path("runs/variants"))
    add("--devices", help="as of dqx train, such as cpu:2 or gpu")
    add("--quiet", action="store_true", help="no progress")
    args = parser.parse_args()
    if args.seeds is not None and args.seeds < 2:
        parser.error(f"--seeds must be at least 2, got {args.seeds}: one has no interval")
    try:
        plans = planned(args.games, args.variants, args.seeds, args.steps)
        studies = trained(plans, args)
        return report(studies, args.out)
    except dqx.study.StudyInterrupted as stop:
        print(f"{stop}; the same command goes on", file=sys.stderr)
        return 130
    except (dqx.ConfigError, dqx.study.StudyError, OutputError, OSError) as error:
        parser.error(str(error))


def variants_of(game: str) -> dict[str, dict[str, Any]]:
    """The variants of a game by name, and the settings of each as a study's base takes them."""
    about, found = GAMES[game], {}
    for name in preset_names():
        kind, _, variant = name.partition("/")
        base = preset_about(name).base
        if kind == game and variant and base == about.preset:
            found[variant] = {"preset": name}
        elif kind == "cartpole" and base and base.partition("/")[0] == "cartpole":
            fields = presets.method_fields(name)
            if "v_min" in fields:
                fields["v_min"], fields["v_max"] = about.support
            found.setdefault(variant, {"preset": about.preset, **fields})
        elif kind == game and variant == "pqn":  # with settings of its own throughout
            found[variant] = {"preset": name}
    return {PLAIN: {"preset": about.preset}} | dict(sorted(found.items()))


def planned(
    games: str | None, variants: str | None, seeds: int | None, steps: int | None
) -> dict[str, dict[str, Any]]:
    """The plans of studies by game/variant, each checked.

    Raises:
        ConfigError: for a game or variant that there is not, or settings that cannot be.
    """
    chosen = _chosen("game", games, list(GAMES))
    of_games = {game: variants_of(game) for game in chosen}
    known = list(dict.fromkeys(name for found in of_games.values() for name in found))
    wanted = {PLAIN, *_chosen("variant", variants, known)}
    plans = {}
    for game, found in of_games.items():
        lacking = sorted(wanted - found.keys())
        if lacking:
            print(f"{game} has no {listed(lacking)}", file=sys.stderr)
        for variant in [name for name in found if name in wanted]:
            name = f"{game}/{variant}"
            budget = {} if steps is None else {"total_steps": steps}
            base = {**GAMES[game].changes, **found[variant], **budget}
            if "importance_steps" in base:  # weights make up for sampling wholly at the end
                config, _ = dqx.preset(base["preset"])
                base["importance_steps"] = base.get("total_steps", config.total_steps)
            plan = {
                "name": name.replace("/", "-"),
                "seeds": seeds or GAMES[game].seeds,
                "base": base,
                "case": [{"name": name}],
            }
            try:
                with warnings.catch_warnings():  # which come when it is trained
                    warnings.simplefilter("ignore", ConfigWarning)
                    dqx.study.read_plan(plan)
            except (dqx.ConfigError, dqx.study.StudyError) as error:
                raise dqx.ConfigError(f"{name}: {error}") from None
            plans[name] = plan
    return plans


def _chosen(what: str, names: str | None, known: Sequence[str]) -> list[str]:
    found = list(known) if names is None else [name.strip() for name in names.split(",")]
    for name in found:
        if name not in known:
            raise dqx.ConfigError(f"there is no {what} {name!r}; known are {', '.join(known)}")
    return found


def trained(plans: Mapping[str, dict[str, Any]], args: argparse.Namespace) -> list[Any]:
    """The finished studies; those that are not there yet are begun or gone on with."""
    found = []
    for number, (name, plan) in enumerate(plans.items(), start=1):
        if not args.quiet:
            print(f"variants: {number}/{len(plans)}, {name}", file=sys.stderr, flush=True)
        study = dqx.study.run(
            plan,
            args.out / name,
            devices=args.devices,
            go_on=True,
            sinks=[view(name, sys.stderr, args.quiet)],
        )
        found.append(study)
    return found


def report(studies: Sequence[Any], out: Path) -> int:
    """Prints the tables, and writes them and the page."""
    groups = [group for group in findings.groups(cases.read(studies)) if group.cases]
    tables = {_game(group): table(group) for group in groups}
    lines = []
    for group in groups:
        lines += [f"## {_game(group)}", "", *sentences(group), "", *markdown(tables[_game(group)])]
        lines += [""]
    everywhere = over_games(groups)
    if everywhere:
        games = [_game(group) for group in groups if GAMES[_game(group)].ends is not None]
        lines += [f"## Over {', '.join(games)}", "", *_scales(games), "", *markdown(everywhere)]
    text = "\n".join(lines).rstrip() + "\n"
    print(text)
    with whole_file(out / "variants.md") as file:
        file.write(text.encode())
    record = {
        "games": tables,
        "over_games": everywhere,
        "scores": {name: _finite(scores) for group in groups for name, scores in _scores(group)},
        "identity": {case: s.plan["identity"] for s in studies for case in s.configs},
    }
    write_json(out / "variants.json", record)
    print(f"page: {page.write(studies, out / 'report')}")
    return 0


def _game(group: Group) -> str:
    return group.cases[0].name.partition("/")[0]


def _variant(name: str) -> str:
    return name.partition("/")[2]


def _scores(group: Group) -> list[tuple[str, np.ndarray]]:
    return [(c.name, values) for c, values in zip(group.cases, group.scores, strict=True)]


def _finite(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def sentences(group: Group) -> list[str]:
    """What the table of a game shows."""
    counts = sorted({case.total_steps for case in group.cases})
    seeds = sorted({case.seeds.size for case in group.cases})
    return [
        f"{group.env}: {group.label} after {' or '.join(f'{n:,}' for n in counts)} steps, "
        f"{' or '.join(map(str, seeds))} seeds. P(> plain): how likely a seed beats one of plain; "
        f"p: of the difference of IQMs on shared seeds, after Holm's correction."
    ]


def table(group: Group) -> list[dict[str, object]]:
    """The rows of a game, the best IQM first.

    A seed without a finite score counts as the worst of any run and step.
    """
    names = [_variant(case.name) for case in group.cases]
    plain = group.scores[names.index(PLAIN)]
    others = [i for i, name in enumerate(names) if name != PLAIN]
    tests = [_test(group, i, names.index(PLAIN)) for i in others]
    corrected = dict(zip(others, stats.holm(tests).tolist() if tests else [], strict=True))
    rows: list[dict[str, object]] = []
    for i in group.ranking:
        center, scores = group.centers[i], group.scores[i]
        row: dict[str, object] = {
            "variant": names[i],
            "IQM": f"{center.iqm:.2f}",
            "95 % interval": center.note or f"{center.low:.2f} to {center.high:.2f}",
            "mean": f"{scores.mean():.2f}",
            "least": f"{scores.min():.2f}",
            "P(> plain)": "",
            "p": "",
            "verdict": "",
        }
        if i in corrected:
            better = center.iqm > group.centers[names.index(PLAIN)].iqm
            row["P(> plain)"] = _words(numbers.improvement(scores, plain))
            row["p"] = f"{corrected[i]:.3f}"
            known = corrected[i] <= LEVEL
            row["verdict"] = ("better" if better else "worse") if known else "cannot tell"
        rows.append(row)
    return rows


def _test(group: Group, i: int, j: int) -> float:
    """The p of a permutation test of two cases, paired by seed if both have the same."""
    paired = np.array_equal(group.cases[i].seeds, group.cases[j].seeds)
    return float(stats.permutation_test(group.scores[i], group.scores[j], paired=paired).p)


def _words(estimate: stats.Estimate) -> str:
    value, low, high = (float(number) for number in estimate)
    return f"{value:.2f} ({low:.2f} to {high:.2f})" if np.isfinite(low) else f"{value:.2f}"


def normalised(groups: Sequence[Group]) -> dict[str, np.ndarray]:
    """Scores ``[S, T]`` of the variants that all games with known ends have, 1 at the best."""
    scores: dict[str, list[np.ndarray]] = {}
    known = [group for group in groups if GAMES[_game(group)].ends is not None]
    for group in known:
        low, high = GAMES[_game(group)].ends or (np.nan, np.nan)
        for name, values in _scores(group):
            scores.setdefault(_variant(name), []).append(stats.normalize(values, low, high))
    return {
        name: np.stack(columns, axis=1)
        for name, columns in scores.items()
        if len(columns) == len(known) and len({column.size for column in columns}) == 1
    }


def over_games(groups: Sequence[Group]) -> list[dict[str, object]]:
    """The rows over all games with known ends, the best IQM first; none of a single game."""
    scores = normalised(groups)
    if PLAIN not in scores or scores[PLAIN].shape[1] < 2:
        return []
    found = stats.get_interval_estimates(scores, stats.aggregate_iqm)
    iqms = {name: float(value[0]) for name, value in found.point_estimates.items()}
    rows: list[dict[str, object]] = []
    for name in sorted(iqms, key=lambda name: -iqms[name]):
        low, high = found.interval_estimates[name][:, 0]
        better = stats.improvement_over_tasks(scores[name], scores[PLAIN])
        rows.append(
            {
                "variant": name,
                "normalised IQM": f"{iqms[name]:.3f}",
                "95 % interval": f"{low:.3f} to {high:.3f}",
                "P(> plain)": "" if name == PLAIN else _words(better),
            }
        )
    return rows


def _scales(games: Sequence[str]) -> list[str]:
    ends = (f"{name} {show(a)} to {show(b)}" for name in games for a, b in [GAMES[name].ends or ()])
    return [f"Scores normalised: {', '.join(ends)}; intervals resample the seeds of each game."]


if __name__ == "__main__":
    sys.exit(main())
