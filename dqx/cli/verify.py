"""`dqx verify DIR`: whether runs that are trained again have the same bits."""

import argparse
import sys
import time
from typing import Any

from dqx.cli import loading, shared, streams, tune

EXIT_DIFFERENT = 1


def add(subparsers: Any) -> None:
    """Makes the parser of the command."""
    parser = subparsers.add_parser(
        "verify",
        help="train runs of a study again and compare every bit",
        description="Train finished runs of a study again, each alone, compare every bit, and "
        "write certificate.json. Status 0 if all are identical, else 1.",
    )
    add = parser.add_argument
    add("folder", metavar="DIR", help="a study's folder")
    some = parser.add_mutually_exclusive_group()
    some.add_argument(
        "--sample",
        type=shared.count,
        default=5,
        metavar="N",
        help="runs drawn at random; default: 5",
    )
    some.add_argument("--all", action="store_true", help="every finished run")
    add(
        "--pick",
        type=shared.whole,
        metavar="SEED",
        help="of the draw, to repeat it; default: a new one",
    )
    shared.add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """`dqx verify DIR`; status 1 if a run has other bits or cannot be compared."""
    if options.all:
        shared.refuse(options, "--pick", by="--all", why="it is the seed of a draw of some runs")
    from dqx.study.folder import Folder, read_plan_record
    from dqx.study.tuning.folder import TuneFolder, is_tune

    if is_tune(options.folder):
        if not tune.check(options.folder):
            return EXIT_DIFFERENT
        options.folder = str(TuneFolder(options.folder).fresh)
    read_plan_record(Folder(options.folder))  # a mistake is told before JAX loads
    loading.load(*options.modules, "dqx.study.certify", "pyarrow.parquet")
    from dqx.compute.devices import select_devices
    from dqx.report.terminal import certificate_lines
    from dqx.study import certify, load

    loading.use_cache(options)
    places, runs = select_devices(options.devices), load(options.folder).runs
    started = time.monotonic()

    streams.forgive()

    def show(done: int, total: int) -> None:
        if not options.quiet:
            seconds = time.monotonic() - started
            print(f"verify: {done}/{total} runs, {seconds:.0f} s", file=sys.stderr, flush=True)

    if runs and not options.quiet:
        print("verify: training again...", file=sys.stderr, flush=True)
    certificate = certify.verify(
        options.folder,
        sample=None if options.all else options.sample,
        pick=options.pick,
        devices=places,
        progress=show,
    )
    print("\n".join(certificate_lines(certificate, options.folder, options.quiet)))
    return 0 if certificate.passed else EXIT_DIFFERENT
