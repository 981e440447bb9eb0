"""`dqx watch DIR`: the page of a study on this machine, renewed while the study runs."""

import argparse
import contextlib
from typing import Any

from dqx.cli import loading, shared, streams


def add(subparsers: Any) -> None:
    """Makes the parser of the command."""
    parser = subparsers.add_parser(
        "watch",
        help="show the page of a study while it runs, in a browser",
        description="Serve the page of a study on this machine alone, and renew it while the "
        "study runs. Ctrl-C ends it, and leaves the study alone.",
    )
    parser.add_argument("folder", metavar="DIR", help="a study's folder, finished or not")
    parser.add_argument(
        "--port", type=_port, default=0, metavar="N", help="to listen on; default: a free one"
    )
    shared.add_import(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serves until Ctrl-C."""
    from dqx.study.results import load

    load(options.folder)  # a mistake is told before anything else loads
    loading.load("pandas", own=options.modules)
    from dqx.report.watch import Server

    streams.forgive()
    with Server(options.folder, options.port) as server:
        try:
            print(f"{options.folder} is at {server.address}\nCtrl-C ends it", flush=True)
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            print("no longer watched", flush=True)
    return 0


def _port(text: str) -> int:
    with contextlib.suppress(ValueError):
        if 0 <= int(text) <= 65_535:
            return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 65535, got {text!r}")
