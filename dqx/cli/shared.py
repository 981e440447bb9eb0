"""Options that several commands take, and the types of their values."""

import argparse
import contextlib
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dqx.study.executors import Executor


class UsageError(ValueError):
    """Arguments that cannot be understood, or have no effect together."""


def refuse(options: argparse.Namespace, *names: str, by: str, why: str) -> None:
    """Refuses options that have no effect, rather than to do something else than was asked.

    Args:
        options: as parsed.
        names: of the options, such as ``--out``.
        by: what takes none of them.
        why: it does not, or what takes them.

    Raises:
        UsageError: naming the first one that is given.
    """
    for name in names:
        if name in options.given:
            raise UsageError(f"{by} takes no {name}: {why}")


def refuse_all(options: argparse.Namespace, *, by: str, but: tuple[str, ...] = ()) -> None:
    """Refuses every option but some; raises as `refuse` does."""
    names = sorted(options.given - set(but))
    words = f"it takes {' and '.join(but)} alone" if but else "it takes no options"
    refuse(options, *names, by=by, why=words)


def add_folder(parser: argparse.ArgumentParser, default: str) -> None:
    """The folder that a command writes, and whether it only says what it would take."""
    add = parser.add_argument
    add("--out", metavar="DIR", help=f"the folder to write; default: {default}")
    add("--overwrite", action="store_true", help="replace an older study in that folder")
    add(
        "--dry-run",
        action="store_true",
        help="print configurations, memory, disk and time, after timing one segment; train nothing",
    )


def add_training(parser: argparse.ArgumentParser) -> None:
    """What every training takes."""
    add = parser.add_argument
    add(
        "--checkpoint-seconds",
        type=seconds,
        metavar="S",
        help="least time between checkpoints of what is under way; default: 15",
    )
    add(
        "--no-replay-checkpoint",
        action="store_true",
        help="write no checkpoints, which hold the replay: what is interrupted starts again",
    )
    add_common(parser)


def add_trackers(parser: argparse.ArgumentParser) -> None:
    """What is to watch a training."""
    add = parser.add_argument_group("trackers").add_argument
    add(
        "--tensorboard",
        nargs="?",
        const="",
        metavar="DIR",
        help="write event files for TensorBoard; default: the folder tensorboard in the study's",
    )
    add(
        "--wandb",
        nargs="?",
        const="",
        metavar="PROJECT",
        help="log to Weights & Biases; default: the project dqx",
    )
    add(
        "--tracker-runs",
        choices=("config", "seed"),
        default="config",
        help="what a run of a tracker is: all seeds of a configuration (IQM and interval), or each "
        "seed; default: config",
    )
    add(
        "--sink",
        dest="sinks",
        action="append",
        default=[],
        metavar="MODULE:CLASS",
        help="let a dqx.Sink of your own watch, from the current folder or where Python finds it",
    )


def add_common(parser: argparse.ArgumentParser) -> None:
    """What every command takes that computes."""
    add = parser.add_argument
    add_import(parser)
    add("--devices", metavar="KIND[:N]", help="cpu, gpu, or some of them: cpu:2; default: all")
    add(
        "--no-cache",
        action="store_true",
        help="compile anew, and keep no compiled programs for the next time",
    )
    add("--quiet", action="store_true", help="print the result and errors only")


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Who trains, if not this machine alone."""
    add = parser.add_argument_group("cluster").add_argument
    add(
        "--cluster",
        metavar="WHERE",
        help="train on a Ray cluster: auto (the one that this machine is part of), HOST:PORT of "
        "its head, or local:N (N workers here)",
    )
    add(
        "--workers",
        type=count,
        metavar="N",
        help="workers of the cluster; default: one for each GPU, or else for each core",
    )
    add(
        "--kinds",
        choices=("same", "split"),
        default="same",
        help="same: workers of one kind of machine train the study; split: all do, and each "
        "configuration stays on one kind; default: same",
    )


def executor(options: argparse.Namespace) -> "Executor | None":
    """The cluster that the options name; None for this machine.

    Raises:
        UsageError: for options of a cluster where none is given.
        StudyError: if Ray is not installed.
    """
    if options.cluster is None:
        names = ("--workers", "--kinds")
        refuse(options, *names, by="this machine alone", why="give --cluster too")
        return None
    from dqx.study.executors.cluster import Ray

    return Ray(
        options.cluster,
        workers=options.workers,
        devices=options.devices,
        kinds=options.kinds,
        modules=options.modules,
        cached=not options.no_cache,
    )


def add_import(parser: argparse.ArgumentParser) -> None:
    """Modules of a user's own."""
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="import a module first, from the current folder or where Python finds it: it may "
        "register agents and environments",
    )


def number(text: str) -> float:
    """A finite number."""
    with contextlib.suppress(ValueError):
        if math.isfinite(float(text)):
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a finite number, got {text!r}")


def positive(text: str) -> float:
    """A finite number above 0."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")


def share(text: str) -> float:
    """A number between 0 and 1."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number between 0 and 1, got {text!r}")


def seconds(text: str) -> float:
    """A time from 0 on."""
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be seconds, 0 or more, got {text!r}")


def count(text: str) -> int:
    """A whole number from 1 on."""
    with contextlib.suppress(ValueError):
        if int(text) >= 1:
            return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, got {text!r}")


def whole(text: str) -> int:
    """A whole number from 0 on."""
    with contextlib.suppress(ValueError):
        if int(text) >= 0:
            return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number from 0 on, got {text!r}")
