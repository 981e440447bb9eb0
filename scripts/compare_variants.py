"""Which part of the family helps, and where? Every variant on five games, in one report.

    python scripts/compare_variants.py                       # all: hours; goes on where it was
    python scripts/compare_variants.py --games cartpole,catch --variants dueling,c51 --seeds 8
    python scripts/compare_variants.py --steps 20000 --seeds 4 --out /tmp/v     # a trial
    python scripts/compare_variants.py --keep benchmarks/results/variants       # a part, and later
    python scripts/compare_variants.py --page --games breakout --against hidden # with another
    python scripts/compare_variants.py --keep benchmarks/results/variants --page --out docs

A variant is the game's preset with one method changed: the preset GAME/VARIANT where that is built
on the game's, with the settings that it gives the method, else the method of cartpole/VARIANT
alone; ``plain`` changes nothing. Each game and variant is a study in a folder of --out, so that a
new variant trains itself alone. When it is finished its scores and thinned curves go to --keep as
Parquet, and it is done: the same command passes over it, also where its study is gone. Then the
tables, of each game and over all games whose returns have known ends, go to comparison.md, their
picture to comparison.png, and one page of the studies in --out to report/.
"""

import argparse
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import variants_page
from kept import settings_of
from variants_page import PLAIN, Kept

import dqx
import dqx.study
from dqx.cli import streams
from dqx.files import OutputError, whole_file
from dqx.report import page
from dqx.report.terminal import listed
from dqx.report.view import view
from dqx.settings import ConfigWarning, preset_about, preset_names, presets


class Game(NamedTuple):
    """A game that variants are compared on.

    Attributes:
        preset: whose settings they share.
        changes: what the game changes of them.
        seeds: how many of each variant, unless ``--seeds`` says otherwise.
        first_seed: the least of them; no preset was tuned on any.
        ends: what a policy gets that does nothing for its return, and the best that any gets, where
            both are known from the rules or exactly; scores are normalised by them.
        support: least and largest return, discounted, for variants with atoms between two ends.
    """

    preset: str
    changes: Mapping[str, Any] = {}
    seeds: int = 32
    first_seed: int = 30_000
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
        # So few that they are told apart: after 100,000 all catch every ball.
        {"env": "Catch-bsuite", "total_steps": 10_000, "eval_period": 1_000},
        ends=(-1.0, 1.0),
        support=(-1.0, 1.0),
    ),
    # Its settings are published ones, so that seeds from 0 on are fresh, too.
    "breakout": Game("breakout", seeds=10, first_seed=0),
}


def main() -> int:
    """Trains what is missing, and writes tables and page; 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("--games", help=f"by commas; default: {','.join(GAMES)}")
    add("--variants", help="by commas, beside plain; default: all that a game has")
    add("--seeds", type=int, help="of every variant; default: 32, on breakout 10")
    add("--steps", type=int, help="environment steps a seed; default: the game's")
    add("--out", type=Path, default=Path("runs/variants"), help="of studies, tables and page")
    add("--keep", type=Path, metavar="DIR", help="of scores and curves; default: OUT/kept")
    add("--page", action="store_true", help="train nothing")
    add(
        "--against", default=PLAIN, help="variant that the others are compared with; default: plain"
    )
    add("--overwrite", action="store_true", help="replace what has other settings or seeds")
    add("--devices", help="as of dqx train, such as cpu:2 or gpu")
    add("--quiet", action="store_true", help="no progress")
    args = parser.parse_args()
    if args.seeds is not None and args.seeds < 2:
        parser.error(f"--seeds must be at least 2, got {args.seeds}: one has no interval")
    try:
        plans = planned(args.games, args.variants, args.seeds, args.steps)
        if not any(name.endswith(f"/{args.against}") for name in plans):
            raise dqx.ConfigError(
                f"--against {args.against} is none of the variants chosen for these games"
            )
        args.keep = args.keep or args.out / "kept"
        if not args.page:
            train(plans, args)
        return report(plans, args)
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
        first = GAMES[game].first_seed
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
                "seeds": f"{first}:{first + (seeds or GAMES[game].seeds)}",
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


def train(plans: Mapping[str, dict[str, Any]], args: argparse.Namespace) -> None:
    """Trains and keeps what is not kept yet; a study that was begun goes on."""
    kept = variants_page.kept_in(args.keep)
    stale = [name for name in plans if name in kept and not is_current(kept[name], plans[name])]
    if stale and not args.overwrite:
        raise dqx.ConfigError(
            f"{args.keep} holds {listed(stale)} with other settings or seeds than now: "
            "give --overwrite to train them anew, or another folder with --keep"
        )
    for number, (name, plan) in enumerate(plans.items(), start=1):
        done = name in kept and name not in stale
        if not args.quiet:
            words = "is kept already" if done else "training"
            print(f"variants: {number}/{len(plans)}, {name}: {words}", file=sys.stderr, flush=True)
        if not done:
            study = dqx.study.run(
                plan,
                args.out / name,
                overwrite=args.overwrite,
                devices=args.devices,
                go_on=True,
                sinks=[view(name, sys.stderr, args.quiet)],
            )
            variants_page.keep(study, args.keep)


def is_current(one: Kept, plan: dict[str, Any]) -> bool:
    """Whether a variant was trained with the settings and the seeds that its plan has now."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConfigWarning)
        read = dqx.study.read_plan(plan)
    (point,) = read.points
    return one.facts["settings"] == settings_of(point.config, point.hyper) and (
        one.seeds.tolist() == list(read.seeds)
    )


def report(plans: Mapping[str, dict[str, Any]], args: argparse.Namespace) -> int:
    """Prints the tables, and writes them, the picture, and the page of the studies in --out."""
    kept = variants_page.kept_in(args.keep)
    there = [kept[name] for name in plans if name in kept]
    if not there:
        raise dqx.ConfigError(f"{args.keep} holds none of these variants yet: train some")
    lines = variants_page.page(
        there, {game: about.ends for game, about in GAMES.items()}, args.against
    )
    lines += left_out(there, plans)
    text = "\n".join(lines).rstrip() + "\n"
    print(text)
    args.out.mkdir(parents=True, exist_ok=True)
    with whole_file(args.out / "comparison.md") as file:
        file.write(text.encode())
    variants_page.picture(variants_page.groups(there), args.out / "comparison.png", args.against)
    studies = [args.out / one.name for one in there if (args.out / one.name).is_dir()]
    if studies:
        loaded = [dqx.study.load(path) for path in studies]
        print(f"page: {page.write(loaded, args.out / 'report')}")
    return 0


def left_out(there: Sequence[Kept], plans: Mapping[str, dict[str, Any]]) -> list[str]:
    """What the tables lack, and what in them is no longer as it would be trained."""
    names = {one.name for one in there}
    missing = [name for name in plans if name not in names]
    stale = [one.name for one in there if not is_current(one, plans[one.name])]
    lines = []
    if missing:
        lines += [f"Not trained yet: {', '.join(f'`{name}`' for name in missing)}.", ""]
    if stale:
        texts = ", ".join(f"`{name}`" for name in stale)
        lines += [f"Trained with other settings or seeds than these have now: {texts}.", ""]
    return lines


if __name__ == "__main__":
    with streams.guarded(forgiving=True):  # what it computes is kept in files
        sys.exit(main())
