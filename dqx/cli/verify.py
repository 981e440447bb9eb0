"""`dqx verify DIR`: whether a study is whole, and runs trained again have the same bits."""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

from dqx.cli import loading, shared, streams, tune

EXIT_DIFFERENT = 1
_SAMPLE = 5
# Between lines about the files that are read, which take no time in most studies.
_SECONDS = 2.0


def add(subparsers: Any) -> None:
    """Makes the parser of the command."""
    parser = subparsers.add_parser(
        "verify",
        help="check a study's files, train runs again and compare every bit",
        description="Hold all files of a study against its plan and against each other, train "
        "finished runs again, each alone, compare every bit, and write certificate.json. Status 0 "
        "if everything is there and identical, else 1.",
    )
    add = parser.add_argument
    add("folder", metavar="DIR", help="a study's folder")
    some = parser.add_mutually_exclusive_group()
    some.add_argument(
        "--sample",
        type=shared.count,
        metavar="N",
        help=f"runs drawn at random; default: {_SAMPLE}",
    )
    some.add_argument("--all", action="store_true", help="every finished run")
    some.add_argument(
        "--check-signature",
        metavar="KEY.pub",
        help="train nothing: check that this public key has signed the certificate that is there, "
        "and that it is of these very files",
    )
    add(
        "--pick",
        type=shared.whole,
        metavar="SEED",
        help="of the draw, to repeat it; default: a new one",
    )
    add("--expect", metavar="SHA256", help="the digest that the whole study has to have")
    add("--sign", metavar="KEY", help="sign the certificate with this private key of OpenSSH")
    shared.add_common(parser)
    shared.add_cluster(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """`dqx verify DIR`; status 1 if anything differs, is missing or cannot be compared."""
    if options.all:
        shared.refuse(options, "--pick", by="--all", why="it is the seed of a draw of some runs")
    if options.check_signature is not None:
        by, idle = "--check-signature", ("--cluster", "--workers", "--kinds", "--devices")
        shared.refuse(options, "--pick", "--sign", by=by, why="it writes no certificate")
        shared.refuse(options, *idle, by=by, why="it trains nothing")
    loading.load(own=options.modules)
    from dqx.study.folder import Folder, read_plan_record
    from dqx.study.tuning.folder import TuneFolder, is_tune

    if is_tune(options.folder):
        if not tune.check(options.folder):
            return EXIT_DIFFERENT
        options.folder = str(TuneFolder(options.folder).fresh)
    read_plan_record(Folder(options.folder))  # a mistake is told before JAX loads
    loading.load("dqx.study.certify", "dqx.study.published", "pyarrow.parquet")
    loading.use_cache(options)
    streams.forgive()
    return _certify(options) if options.check_signature is None else _check(options)


def _certify(options: argparse.Namespace) -> int:
    from dqx.compute.devices import select_devices
    from dqx.report.terminal import certificate_lines
    from dqx.study import certify
    from dqx.study.folder import Folder

    executor = shared.executor(options)
    certificate = certify.verify(
        options.folder,
        sample=None if options.all else options.sample or _SAMPLE,
        pick=options.pick,
        devices=None if executor is not None else select_devices(options.devices),
        executor=executor,
        expect=options.expect,
        sign=options.sign,
        progress=_training(options),
        reading=_reading(options),
    )
    print("\n".join(certificate_lines(certificate, options.folder, options.quiet)))
    if options.sign is not None:
        print(f"signature: {Folder(options.folder).signature}, by {options.sign}")
    return 0 if certificate.passed else EXIT_DIFFERENT


def _check(options: argparse.Namespace) -> int:
    from dqx.report.terminal import problem_lines
    from dqx.study import published

    found = published.check_signature(
        options.folder,
        options.check_signature,
        expect=options.expect,
        reading=_reading(options),
    )
    print("\n".join([*problem_lines(found.problems), f"digest: {found.digest or 'none'}"]))
    if found.problems:
        print("signature: does not hold for this study")
        return EXIT_DIFFERENT
    kept = found.certificate
    print(
        f"signature: holds; {options.check_signature} has signed on {kept['written']} that "
        f"{kept['checked']} of {kept['runs']} runs trained again have the same bits"
    )
    return 0


def _reading(options: argparse.Namespace) -> Callable[[int, int], None]:
    """Tells how far the files are read, if that takes long, and what comes after."""
    started = told = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= _SECONDS:
            told = now
            _tell(options, f"{done}/{total} chunks of files read, {now - started:.0f} s")
        if done == total and options.check_signature is None:
            _tell(options, "training again...")

    return show


def _training(options: argparse.Namespace) -> Callable[[int, int], None]:
    """Tells every run that was trained again."""
    started = time.monotonic()

    def show(done: int, total: int) -> None:
        _tell(options, f"{done}/{total} runs, {time.monotonic() - started:.0f} s")

    return show


def _tell(options: argparse.Namespace, text: str) -> None:
    if not options.quiet:
        print(f"verify: {text}", file=sys.stderr, flush=True)
