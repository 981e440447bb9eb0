"""The parser of the command: each of its commands adds its own."""

import argparse
import itertools
import shutil
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from dqx.cli import compare, lists, play, report, seeds, study, tune, verify, watch
from dqx.cli.shared import UsageError


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


def given_options(arguments: Sequence[str]) -> frozenset[str]:
    """The names of the options that are given: each is a word of its own, and none is shortened."""
    words = itertools.takewhile(lambda word: word != "--", arguments)
    return frozenset(word.partition("=")[0] for word in words if word.startswith("-"))


def make_parser() -> argparse.ArgumentParser:
    """The parser; the function of the command is ``run`` of what it gives."""
    parser = _Parser(prog="dqx", description="Train DQN agents on many seeds at once.")
    add = parser.add_argument
    add("--version", action="store_true", help="print the version; with -v all that bits hang on")
    add("-v", "--verbose", action="store_true", help="more of --version")
    parser.set_defaults(run=lambda options: lists.version(options, parser))
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    study.add_train(subparsers)
    study.add(subparsers)
    tune.add(subparsers)
    verify.add(subparsers)
    compare.add(subparsers)
    seeds.add(subparsers)
    play.add(subparsers)
    report.add(subparsers)
    watch.add(subparsers)
    lists.add(subparsers)
    return parser


def _columns() -> int:
    return max(50, shutil.get_terminal_size().columns - 2)
