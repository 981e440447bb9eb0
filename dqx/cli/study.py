"""`dqx train PRESET`, `dqx study FILE.toml`, and going on with a study or looking at one."""

import argparse
import contextlib
import datetime
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqx.cli import lists, loading, shared, streams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqx.study.plan import Plan
    from dqx.study.results import Study
    from dqx.study.sinks import Sink

EXIT_FAILED = 1
# What training needs, so that nothing is found missing after hours.
_TRAINING = ("dqx.run", "pandas", "pyarrow.parquet", "matplotlib.figure")


def add_train(subparsers: Any) -> None:
    """Makes the parser of `dqx train`."""
    parser = subparsers.add_parser(
        "train",
        help="train a preset on many seeds, resumable",
        description="Train a preset on many seeds: a study of one configuration, which `dqx study "
        "resume`, `dqx study status` and `dqx verify` take like any other.",
    )
    add = parser.add_argument
    add("preset", metavar="PRESET", help="its name, as `dqx presets` lists it")
    add(
        "--seeds",
        default="32",
        metavar="SEEDS",
        help="how many (32: seeds 0 to 31), a range (8:16: seeds 8 to 15), or numbers (3,17); "
        "default: 32",
    )
    add("--steps", metavar="N", help="environment steps of each seed, the field total_steps")
    add(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=VALUE",
        help="change fields of the preset, after its name: --set gamma=0.98 hidden_sizes=64,64",
    )
    add("--root-seed", type=int, default=0, metavar="N", help="another draw of every seed")
    shared.add_folder(parser, "runs/PRESET")
    shared.add_training(parser)
    shared.add_cluster(parser)
    shared.add_trackers(parser)
    parser.make_epilog = lists.field_help
    parser.set_defaults(run=train)


def add(subparsers: Any) -> None:
    """Makes the parser of `dqx study`."""
    parser = subparsers.add_parser(
        "study",
        help="train configurations x seeds, resumable",
        usage="dqx study FILE.toml [options]\n"
        "       dqx study resume DIR [options]\n"
        "       dqx study status DIR",
        description="Train the configurations x seeds of a plan, go on with a study that was "
        "stopped, or see how far one is.",
    )
    parser.add_argument(
        "what",
        metavar="FILE.toml | resume DIR | status DIR",
        nargs="+",
        help="a plan to train; or a study's folder to go on with or to look at",
    )
    shared.add_folder(parser, "runs/NAME")
    shared.add_training(parser)
    shared.add_cluster(parser)
    shared.add_trackers(parser)
    parser.set_defaults(run=run)


def train(options: argparse.Namespace) -> int:
    """`dqx train PRESET`: a study of one configuration."""
    check(options)
    loading.load("dqx.settings", own=options.modules)
    from dqx import settings
    from dqx.study.plan import single

    seeds = settings.parse_seeds(options.seeds, "--seeds")
    steps = [] if options.steps is None else [f"total_steps={options.steps}"]
    fields = settings.parse_assignments([*steps, *options.set])
    if loading.is_of_module(str(fields.get("env", ""))):
        loading.look_here()
    config, hyper = settings.override(*settings.preset(options.preset), **fields)
    name = options.preset.replace("/", "-")
    plan = single(name, config, hyper, seeds, label=options.preset, root_seed=options.root_seed)
    return _run(options, plan)


def run(options: argparse.Namespace) -> int:
    """`dqx study FILE.toml`, `dqx study resume DIR` and `dqx study status DIR`."""
    loading.load("dqx.study.folder", own=options.modules)
    from dqx.study.folder import StudyError
    from dqx.study.plan import read_plan

    first, *rest = options.what
    if first in ("resume", "status"):
        if len(rest) != 1:
            raise StudyError(f"`dqx study {first}` takes one folder, such as runs/mine")
        refuse(options, first)
        return _status(rest[0]) if first == "status" else _resume(options, rest[0])
    check(options)
    if rest:
        raise StudyError(
            f"`dqx study` takes a plan, or resume DIR, or status DIR; got {' '.join(options.what)}"
        )
    if Path(first).is_dir():
        raise StudyError(
            f"{first} is a folder: give a plan, or `dqx study resume {first}` to go on with it"
        )
    loading.look_here_for(first)
    return _run(options, read_plan(first))


def _run(options: argparse.Namespace, plan: "Plan") -> int:
    """Trains a plan, or says what it would take."""
    from dqx.study import finish
    from dqx.study.record import plan_record

    out = Path("runs") / plan.name if options.out is None else Path(options.out)
    if options.dry_run:
        if options.out is not None:
            finish.replaces(out, plan_record(plan, {}), options.overwrite)
        return estimate(options, plan)
    # Told before anything starts; looked at again when the folder is made.
    finish.replaces(out, plan_record(plan, {}), options.overwrite)
    return _watched(
        options,
        plan.name,
        _trackers(options, out, plan.name, go_on=False),
        lambda training, given: training.run(
            plan, out, overwrite=options.overwrite, command=options.command_line, **given
        ),
    )


def _resume(options: argparse.Namespace, path: str) -> int:
    from dqx.study.folder import Folder, read_plan_record

    name = read_plan_record(Folder(path))["name"]
    trackers = _trackers(options, Path(path), name, go_on=True)
    return _watched(options, name, trackers, lambda training, given: training.resume(path, **given))


def _trackers(
    options: argparse.Namespace, study: Path, name: str, *, go_on: bool
) -> "Sequence[Sink]":
    """The trackers and sinks of a user's own that are asked for."""
    if options.tensorboard is None and options.wandb is None and not options.sinks:
        return ()
    from dqx.report.trackers.chosen import chosen

    if options.sinks:
        loading.look_here()
    return chosen(
        tensorboard=options.tensorboard,
        wandb=options.wandb,
        runs=options.tracker_runs,
        sinks=options.sinks,
        study=study,
        name=name,
        go_on=go_on,
    )


def _watched(
    options: argparse.Namespace, name: str, trackers: "Sequence[Sink]", action: Any
) -> int:
    """Calls ``action(dqx.run, arguments)`` with a view of what happens, and prints the result."""
    from dqx.report.terminal import summary
    from dqx.report.view import view

    streams.forgive()
    with contextlib.closing(view(name, sys.stderr, options.quiet)) as shown:
        shown.start()
        loading.load(*_TRAINING)
        from dqx import run
        from dqx.report.page.sink import Page
        from dqx.report.picture import Picture

        loading.use_cache(options)
        page = Page(shown.phase)
        executor = shared.executor(options)
        given: dict[str, Any] = {
            "devices": options.devices if executor is None else None,
            "executor": executor,
            "replay_checkpoint": not options.no_replay_checkpoint,
            "sinks": [shown, Picture(), page, *trackers],
        }
        if options.checkpoint_seconds is not None:
            given["checkpoint_seconds"] = options.checkpoint_seconds
        found: Study = action(run, given)
    print("\n".join(summary(found)))
    if page.problem:
        print(f"dqx: warning: {page.problem}", file=sys.stderr, flush=True)
    if page.path is not None:
        print(f"page: {page.path}")
    for line in _failed(found):
        print(f"dqx: {line}", file=sys.stderr, flush=True)
    return EXIT_FAILED if found.failures else 0


def _failed(found: "Study") -> list[str]:
    """Which chunks are set aside, and why."""
    lines = [f"chunk {chunk} is set aside: {error}" for chunk, error in found.failures.items()]
    return lines and [*lines, f"`dqx study resume {found.path}` tries again what is set aside"]


def refuse(options: argparse.Namespace, word: str, command: str = "study") -> None:
    """Refuses options that have no effect on what goes on, or is only looked at."""
    by = f"`dqx {command} {word}`"
    if word == "status":
        shared.refuse_all(options, by=by, but=("--import",))
    shared.refuse(options, "--dry-run", "--overwrite", "--out", by=by, why="it goes with a plan")
    check(options)


def check(options: argparse.Namespace) -> None:
    """Refuses options of a training that have no effect together."""
    if options.no_replay_checkpoint:
        shared.refuse(
            options, "--checkpoint-seconds", by="--no-replay-checkpoint", why="none are written"
        )
    if options.dry_run:
        shared.refuse(
            options, "--cluster", "--workers", "--kinds", by="--dry-run",
            why="it times and measures this machine",
        )  # fmt: skip
    if getattr(options, "tensorboard", None) is None and getattr(options, "wandb", None) is None:
        shared.refuse(
            options, "--tracker-runs", by="a training without trackers",
            why="it goes with --tensorboard or --wandb",
        )  # fmt: skip


def _status(path: str) -> int:
    from dqx.report.terminal import summary
    from dqx.study.finish import read_progress
    from dqx.study.folder import Folder
    from dqx.study.lock import holder
    from dqx.study.results import load

    found, folder = load(path), Folder(path)
    working, lines = holder(found.path), summary(found)
    total = len(found.configs) * len(found.seeds)
    state = "finished" if found.finished else f"{len(found.runs):,} of {total:,} runs finished"
    if working is not None:
        state += f"; at work: {working}"
        progress = read_progress(folder)
        if progress.get("steps_per_second"):
            done = 100 * progress["steps"] // progress["total_steps"]
            ago = max(0.0, time.time() - progress["time"])
            left = datetime.timedelta(seconds=round(progress["seconds_left"]))
            state += (
                f"; {done} % of the steps, {progress['steps_per_second']:,.0f} steps/s, "
                f"{left} left ({ago:.0f} s ago)"
            )
    elif not found.finished:
        state += f"; nobody works on it: `dqx study resume {found.path}` goes on"
    lines.insert(1, state)
    absent = found.absent()
    if absent:
        lines.insert(-1, f"missing: {_listed(absent)}; `dqx study resume {found.path}` trains the "
                     "runs again whose files they are")  # fmt: skip
    if found.finished and found.manifest.get("digest"):
        lines.insert(-1, f"digest: {found.manifest['digest']}")
    lines[2:2] = _failed(found)
    if folder.certificate.exists():
        lines.insert(-1, f"certificate: {_certificate_words(found)}")
    print("\n".join(lines))
    return EXIT_FAILED if found.failures else 0


def _listed(names: "Sequence[str]") -> str:
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _certificate_words(found: "Study") -> str:
    from dqx.study import forms
    from dqx.study.folder import Folder, StudyError
    from dqx.study.sealed import read_sealed

    try:
        record = read_sealed(Folder(found.path).certificate, forms.CERTIFICATE)
    except StudyError as error:
        return f"{error}; `dqx verify {found.path}` writes a new one"
    if record.get("plan_seal") != found.plan["sha256"]:
        return "of another study"
    return (
        f"{record['verdict']} ({record['checked']} of {record['runs']} runs trained again, "
        f"{record['written']})"
    )


def estimate(options: argparse.Namespace, plan: "Plan") -> int:
    """Prints what a plan would take, after timing a segment of each of its programs."""
    loading.load("dqx.study.estimate")
    from dqx.report.terminal import estimate_lines
    from dqx.study.estimate import dry_run

    loading.use_cache(options)

    def show(done: int, total: int) -> None:
        if not options.quiet:
            text = f"dry run: {done}/{total} programs compiled and timed"
            print(text, file=sys.stderr, flush=True)

    def phase(text: str) -> None:
        if not options.quiet:
            print(f"dry run: {text}", file=sys.stderr, flush=True)

    found = dry_run(plan, devices=options.devices, progress=show, phase=phase)
    print("\n".join(estimate_lines(found)))
    return 0
