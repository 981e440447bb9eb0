"""The arguments of every command."""

import argparse
import contextlib
import math
import shutil
import textwrap
from collections.abc import Callable
from typing import Any, NoReturn

from dqx.cli import commands, compare, play, report, tune, watch


class UsageError(ValueError):
    """Arguments that cannot be understood."""


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, and makes a long epilog only when help is asked for."""

    make_epilog: Callable[[], str] | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")

    def format_help(self) -> str:
        # The formatter leaves lines as they are, for the sake of the epilog.
        self.description = textwrap.fill(self.description or "", _columns())
        if self.make_epilog is not None:
            self.epilog = self.make_epilog()
        return super().format_help()


def make_parser() -> argparse.ArgumentParser:
    """The parser; the function of the command is ``run`` of what it gives."""
    parser = _Parser(prog="dqx", description="Train DQN agents on many seeds at once.")
    add = parser.add_argument
    add("--version", action="store_true", help="print the version; with -v all that bits hang on")
    add("-v", "--verbose", action="store_true", help="more of --version")
    parser.set_defaults(run=lambda options: commands.version(options, parser))
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    train = subparsers.add_parser(
        "train",
        help="train a preset on many seeds, resumable",
        description="Train a preset on many seeds: a study of one configuration, which `dqx study "
        "resume`, `dqx study status` and `dqx verify` take like any other.",
    )
    _add_train(train)
    train.make_epilog = commands.field_help
    train.set_defaults(run=commands.train)
    study = subparsers.add_parser(
        "study",
        help="train configurations x seeds, resumable",
        usage="dqx study FILE.toml [options]\n"
        "       dqx study resume DIR [options]\n"
        "       dqx study status DIR",
        description="Train the configurations x seeds of a plan, go on with a study that was "
        "stopped, or see how far one is.",
    )
    _add_study(study)
    study.set_defaults(run=commands.study)
    tune.add(subparsers)
    verify = subparsers.add_parser(
        "verify",
        help="train runs of a study again and compare every bit",
        description="Train finished runs of a study again, each alone, compare every bit, and "
        "write certificate.json. Status 0 if all are identical, else 1.",
    )
    _add_verify(verify)
    verify.set_defaults(run=commands.verify)
    compare.add(subparsers)
    play.add(subparsers)
    report.add(subparsers)
    watch.add(subparsers)
    presets = subparsers.add_parser("presets", help="list the presets", description="List presets.")
    presets.set_defaults(run=commands.presets)
    envs = subparsers.add_parser(
        "envs",
        help="list the environments, or the settings of one",
        description="List the names that the field env takes, dqx's own environments and gymnax's; "
        "those of another suite (navix:); or the settings of one, which --set takes as "
        "env.NAME=VALUE.",
    )
    envs.add_argument("name", metavar="NAME", nargs="?", help="an environment, or a suite's prefix")
    _add_import(envs)
    envs.set_defaults(run=commands.envs)
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
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
    _add_folder(parser, "runs/PRESET")
    _add_training(parser)
    _add_trackers(parser)


def _add_study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        metavar="FILE.toml | resume DIR | status DIR",
        nargs="+",
        help="a plan to train; or a study's folder to go on with or to look at",
    )
    _add_folder(parser, "runs/NAME")
    _add_training(parser)
    _add_trackers(parser)


def _add_folder(parser: argparse.ArgumentParser, default: str) -> None:
    add = parser.add_argument
    add("--out", metavar="DIR", help=f"the folder to write; default: {default}")
    add("--overwrite", action="store_true", help="replace an older study in that folder")
    add(
        "--dry-run",
        action="store_true",
        help="print configurations, memory, disk and time, after timing one segment; train nothing",
    )


def _add_training(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--checkpoint-seconds",
        type=_seconds,
        metavar="S",
        help="least time between checkpoints of what is under way; default: 15",
    )
    add(
        "--no-replay-checkpoint",
        action="store_true",
        help="write no checkpoints, which hold the replay: what is interrupted starts again",
    )
    _add_common(parser)


def _add_trackers(parser: argparse.ArgumentParser) -> None:
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


def _add_verify(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", metavar="DIR", help="a study's folder")
    some = parser.add_mutually_exclusive_group()
    some.add_argument(
        "--sample", type=_count, default=5, metavar="N", help="runs drawn at random; default: 5"
    )
    some.add_argument("--all", action="store_true", help="every finished run")
    add("--pick", type=_whole, metavar="SEED", help="of the draw, to repeat it; default: a new one")
    _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add_import(parser)
    add("--devices", metavar="KIND[:N]", help="cpu, gpu, or some of them: cpu:2; default: all")
    add(
        "--no-cache",
        action="store_true",
        help="compile anew, and keep no compiled programs for the next time",
    )
    add("--quiet", action="store_true", help="print the result and errors only")


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="import a module first, from the current folder or where Python finds it: it may "
        "register agents and environments",
    )


def _columns() -> int:
    return max(50, shutil.get_terminal_size().columns - 2)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be seconds, 0 or more, got {text!r}")


def _count(text: str) -> int:
    with contextlib.suppress(ValueError):
        if int(text) >= 1:
            return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, got {text!r}")


def _whole(text: str) -> int:
    with contextlib.suppress(ValueError):
        if int(text) >= 0:
            return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number from 0 on, got {text!r}")
