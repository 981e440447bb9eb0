"""The atlas: what one run says, told by a thousand. Trains many fresh seeds of each preset.

    python scripts/atlas.py                                  # all, hours; goes on where it was
    python scripts/atlas.py --presets taxi,taxi/tabular      # some of them
    python scripts/atlas.py --presets cartpole/keras-rl --seeds 8 --out /tmp/a --results /tmp/r
    python scripts/atlas.py --page                           # only the page, from what is kept
    python scripts/atlas.py --page --reference dqx/stats/reference.json    # and for `dqx seeds`

Each preset is one study in a folder of --out, with seeds from 10,000 on, which nothing was tuned
on; `mountain-car` was changed after those had been seen, and has seeds from 40,000 on. When it is
finished a sample of its runs is trained again and compared bit by bit; then its scores and thinned
curves go to --results as Parquet (zstd, float32), and its preset is done: the same command passes
over it. At the end the page is written: docs/atlas.md and docs/atlas.png, from these files alone.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from atlas_page import Kept, claim_of, counted_scores, kept_in, lacking, page, picture
from kept import MOST_POINTS, settings_of, write_table
from reproduce_articles import episodes_of, until_solved

import dqx
import dqx.study
from dqx.cli import streams
from dqx.compute.score import score_metric
from dqx.files import OutputError, whole_file, write_json
from dqx.report import findings
from dqx.report.terminal import size
from dqx.report.view import view

# How many seeds of each: fewer of those that take longest.
SEEDS = {
    "acrobot": 1000,
    "cartpole": 1000,
    "cartpole/cleanrl": 1000,
    "cartpole/double-dqn": 1000,
    "cartpole/keras-rl": 1000,
    "mountain-car": 1000,
    "mountain-car/toptal": 1000,
    "mountain-car/zoo": 256,
    "taxi": 1000,
    "taxi/tabular": 1000,
    "wall-dodge": 64,
}
FIRST_SEED = 10_000
# The settings of these were changed after seeds from FIRST_SEED on had been seen.
LATER = {"mountain-car": 40_000}
REFERENCE = 200  # scores of each that the package has
MOST_BYTES = 6_000_000  # of all files together


def main() -> int:
    """Trains what is missing, keeps it, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("--presets", help="by commas; default: all of the atlas")
    add("--seeds", type=int, help="of every preset, for a trial; default: 1,000, 256 or 64")
    add("--verify", type=int, default=3, metavar="N", help="runs of each trained again; default: 3")
    add("--out", type=Path, default=Path("runs/atlas"), help="of the studies")
    add("--results", type=Path, default=Path("benchmarks/results/atlas"), help="of what is kept")
    add("--docs", type=Path, default=Path("docs"), help="of the page")
    add("--reference", type=Path, metavar="FILE", help="evenly spaced scores of each, for planning")
    add("--page", action="store_true", help="train nothing")
    add("--devices", help="as of dqx train, such as cpu:2 or gpu")
    add("--overwrite", action="store_true", help="replace what has other settings or seeds")
    add("--quiet", action="store_true", help="no progress")
    args = parser.parse_args()
    if args.seeds is not None and args.seeds < 2:
        parser.error(f"--seeds must be at least 2, got {args.seeds}: one has no interval")
    try:
        names = chosen(args.presets)
        if not args.page:
            refuse_stale(names, args)
        for name in [] if args.page else names:
            if not train(name, args):
                return 1
        return publish(args)
    except dqx.study.StudyInterrupted as stop:
        print(f"{stop}; the same command goes on", file=sys.stderr)
        return 130
    except (dqx.ConfigError, OutputError, OSError) as error:
        parser.error(str(error))


def chosen(names: str | None) -> list[str]:
    """The presets asked for."""
    if names is None:
        return list(SEEDS)
    found = [name.strip() for name in names.split(",")]
    for name in found:
        if name not in SEEDS:
            raise dqx.ConfigError(f"{name!r} is no preset of the atlas; it has {', '.join(SEEDS)}")
    return found


def seeds_of(name: str, count: int | None) -> list[int]:
    """The seeds of a preset: as many as are asked for, or as it has in the atlas."""
    first = LATER.get(name, FIRST_SEED)
    return list(range(first, first + (count or SEEDS.get(name, 0))))


def refuse_stale(names: Sequence[str], args: argparse.Namespace) -> None:
    """Refuses to replace what is kept with other settings or seeds, before anything is trained."""
    for one in kept_in(args.results):
        same = one.seeds.tolist() == seeds_of(one.name, args.seeds)
        if one.name in names and not (same and is_current(one)) and not args.overwrite:
            raise dqx.ConfigError(
                f"{args.results} holds {one.name} with other settings or seeds: give --overwrite "
                "to train it anew, or another folder with --results"
            )


def train(name: str, args: argparse.Namespace) -> bool:
    """Trains, verifies and keeps a preset, unless that is done; whether its bits were the same."""
    label = name.replace("/", "-")
    seeds = seeds_of(name, args.seeds)
    kept = [one for one in kept_in(args.results) if one.name == name]
    if any(one.seeds.tolist() == seeds and is_current(one) for one in kept):
        say(args, f"{name}: {len(seeds):,} seeds are kept already")
        return True
    study = dqx.study.run(
        {"name": f"atlas-{label}", "seeds": seeds, "base": {"preset": name}},
        args.out / f"{label}-{len(seeds)}",
        overwrite=args.overwrite,
        devices=args.devices,
        go_on=True,
        sinks=[view(label, sys.stderr, args.quiet)],
    )
    say(args, f"{name}: training {args.verify} runs again...")
    proof = dqx.study.verify(study.path, sample=args.verify, pick=0, devices=args.devices)
    if not proof.passed:
        print(f"{name}: {proof.verdict}, see {study.path}/certificate.json", file=sys.stderr)
        return False
    keep(study, name, args.results, f"{proof.verdict}, {len(proof.checks)} of {proof.runs} runs")
    return True


def is_current(one: Kept) -> bool:
    """Whether a preset was trained with the settings that it has now."""
    return bool(one.facts["settings"] == settings_of(*dqx.preset(one.name)))


def say(args: argparse.Namespace, text: str) -> None:
    """Tells how far it is."""
    if not args.quiet:
        print(f"atlas: {text}", file=sys.stderr, flush=True)


def keep(study: dqx.study.Study, name: str, folder: Path, proof: str) -> None:
    """Writes the scores and the thinned curves of a preset's study as Parquet."""
    config, hyper = study.point()
    facts = {
        "preset": name,
        "env": config.env,
        "metric": score_metric(config),
        "total_steps": config.total_steps,
        "settings": settings_of(config, hyper),
        "verified": proof,
        "plan_seal": study.plan["sha256"],
        "identity": study.plan["identity"],
    }
    seeds = np.array(study.seeds, np.int32)
    lost = [run["diverged_at"] for run in study.runs]
    scores = {
        "seed": seeds,
        "score": study.scores().astype(np.float32),
        "compared": compared(study, name).astype(np.float32),
        "diverged_at": np.array(lost, np.int32),
    }
    steps, values = thinned(study.steps, study.to_arrays(score_metric(config))[0])
    curves = {
        "seed": np.repeat(seeds, len(steps)),
        "step": np.tile(steps.astype(np.int32), len(seeds)),
        "value": values.astype(np.float32).ravel(),
    }
    label = name.replace("/", "-")
    for kind, columns in (("curves", curves), ("scores", scores)):  # scores last: they count
        write_table(folder / f"{label}-{kind}.parquet", columns, "atlas", facts)


def thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Evaluated steps ``[k]`` and values ``[S, k]``, at most 25 evenly spaced ones and the last."""
    measured = np.flatnonzero(np.isfinite(values).any(axis=0))
    places = findings.thinned(len(measured), MOST_POINTS)
    return steps[measured[places]], values[:, measured[places]]


def compared(study: dqx.study.Study, name: str) -> np.ndarray:
    """Of each seed the number that the source's is compared with; NaN where there is none."""
    claim = claim_of(name)
    nothing = np.full(len(study.seeds), np.nan)
    if claim is None:
        return nothing
    if claim.kind == "episodes":
        return np.array([until_solved(episodes)[0] for episodes in episodes_of(study)])
    if claim.kind == "training":
        values = study.to_arrays("episode_return")[0]
        last = values.shape[1] - 1 - np.argmax(np.isfinite(values)[:, ::-1], axis=1)
        return values[np.arange(len(values)), last]
    if claim.step is None:
        return study.scores()
    column = np.flatnonzero(study.steps == claim.step)
    if not len(column):
        raise dqx.ConfigError(f"{name} is not evaluated at step {claim.step:,}, as its claim is")
    return study.to_arrays("eval_return")[0][:, column[0]]


def publish(args: argparse.Namespace) -> int:
    """Writes the page and its picture."""
    kept: list[Kept] = kept_in(args.results)
    if not kept:
        raise dqx.ConfigError(f"{args.results} holds no preset yet: train some")
    total = sum(path.stat().st_size for path in args.results.glob("*.parquet"))
    if total > MOST_BYTES:
        raise dqx.ConfigError(f"{args.results} holds {size(total)}, more than {size(MOST_BYTES)}")
    args.docs.mkdir(parents=True, exist_ok=True)
    order = list(SEEDS)
    kept.sort(key=lambda one: order.index(one.name))
    stale = [one.name for one in kept if not is_current(one)]
    text: list[str] = page(kept, lacking(kept, order), stale)
    with whole_file(args.docs / "atlas.md") as file:
        file.write(("\n".join(text) + "\n").encode())
    picture(kept, args.docs / "atlas.png")
    if args.reference is not None:
        write_json(args.reference, {one.name: reference(one, kept) for one in kept})
    print(f"kept: {size(total)} in {args.results}; page: {args.docs / 'atlas.md'}")
    return 0


def reference(one: Kept, kept: list[Kept]) -> dict[str, object]:
    """What `dqx.stats.reference_scores` reads of a preset."""
    scores = np.sort(counted_scores(one, kept))
    number = min(len(scores), REFERENCE)
    places = ((np.arange(number) + 0.5) * len(scores) / number).astype(int)
    spaced = [float(f"{score:.7g}") for score in scores[places]]
    settings = one.facts["settings"]
    return {"env": one.env, "seeds": len(scores), "settings": settings, "scores": spaced}


if __name__ == "__main__":
    with streams.guarded(forgiving=True):  # what it computes is kept in files
        sys.exit(main())
