"""`dqx compare DIR [DIR ...]`: which configuration is better, and whether these seeds can tell."""

import argparse
import sys
import time
from typing import Any

from dqx.cli import loading, shared

FORMATS = ("text", "markdown", "latex", "csv", "json")


def add(subparsers: Any) -> None:
    """Makes the parser of the command."""
    parser = subparsers.add_parser(
        "compare",
        help="say which configuration is better, and whether these seeds can tell",
        description="Compare the configurations of one study or several: IQM with interval, and of "
        "pairs the difference, P(A > B), effect sizes, a permutation test, and how many seeds it "
        "would take; then a verdict.",
    )
    add = parser.add_argument
    add("folders", metavar="DIR", nargs="+", help="a study's folder, finished or not")
    add(
        "--configs",
        metavar="NAME",
        nargs="+",
        default=[],
        help="the configurations to compare, after the folders; default: all",
    )
    add(
        "--bar",
        metavar="SCORE",
        type=shared.number,
        help="also say which share of seeds ends at this score or better",
    )
    add("--format", choices=FORMATS, default="text", help="of what is printed; default: text")
    shared.add_import(parser)
    add("--quiet", action="store_true", help="print the result and errors only")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Reads the studies, and prints the comparison."""
    from dqx.study.results import load

    studies = [load(path) for path in options.folders]
    loading.load("pandas", own=options.modules)
    from dqx.report.compare import compare
    from dqx.report.formats import FORMATS as WRITERS

    said = time.monotonic()

    def tell(text: str) -> None:
        nonlocal said
        if time.monotonic() - said >= 2 and not options.quiet:
            said = time.monotonic()
            print(f"compare: {text}", file=sys.stderr, flush=True)

    print(WRITERS[options.format](compare(studies, options.configs, tell, options.bar)))
    return 0
