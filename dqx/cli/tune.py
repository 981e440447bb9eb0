"""`dqx tune FILE.toml`, `dqx tune resume DIR` and `dqx tune status DIR`."""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqx.cli import loading, shared, streams, study

if TYPE_CHECKING:
    from dqx.study.sinks import Sink
    from dqx.study.tuning.file import Tune
    from dqx.study.tuning.results import Tuned

# What a search needs, so that nothing is found missing after hours.
_MODULES = ("dqx.tuning", "pandas", "pyarrow.parquet", "matplotlib.figure")


def add(subparsers: Any) -> None:
    """Makes the parser of the command."""
    parser = subparsers.add_parser(
        "tune",
        help="search for good settings; fresh seeds say what they are worth",
        usage="dqx tune FILE.toml [options]\n"
        "       dqx tune resume DIR [options]\n"
        "       dqx tune status DIR",
        description="Let Optuna propose settings, train them on more and more seeds and drop the "
        "worse ones, then retrain the best on seeds that no candidate saw: only that number is its "
        "score. The same command goes on with a search that was stopped.",
    )
    parser.add_argument(
        "what",
        metavar="FILE.toml | resume DIR | status DIR",
        nargs="+",
        help="a tune file; or a search's folder to go on with or to look at",
    )
    shared.add_folder(parser, "runs/NAME")
    shared.add_training(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Searches, goes on, or says how far a search is."""
    loading.load("dqx.study.tuning.file", own=options.modules)
    from dqx.study.folder import StudyError
    from dqx.study.tuning import records
    from dqx.study.tuning.file import read_tune
    from dqx.study.tuning.folder import TuneFolder

    first, *rest = options.what
    if first in ("resume", "status"):
        if len(rest) != 1:
            raise StudyError(f"`dqx tune {first}` takes one folder, such as runs/mine")
        study.refuse(options, first, "tune")
        record = records.read_search(TuneFolder(rest[0]))
        if first == "status":
            return _status(rest[0])
        return _search(options, records.tune_of(record), Path(rest[0]))
    if rest:
        raise StudyError(
            "`dqx tune` takes a tune file, or resume DIR, or status DIR; got "
            f"{' '.join(options.what)}"
        )
    study.check(options)
    if Path(first).is_dir():
        raise StudyError(
            f"{first} is a folder: give a tune file, or `dqx tune resume {first}` to go on with it"
        )
    loading.look_here_for(first)
    asked = read_tune(first)
    out = Path("runs") / asked.name if options.out is None else Path(options.out)
    if options.dry_run:
        if options.out is not None:
            _check_place(asked, out, options.overwrite)
        return _dry_run(options, asked)
    return _search(options, asked, out)


def check(path: str) -> bool:
    """Prints whether the result of a search follows from its studies, for `dqx verify`."""
    from dqx.study import forms
    from dqx.study.sealed import read_sealed
    from dqx.study.tuning.folder import TuneFolder
    from dqx.study.tuning.results import check as differences

    texts = differences(path)
    result = read_sealed(TuneFolder(path).result, forms.RESULT)
    places = [study["place"] for study in result["studies"] if study["place"] != "fresh"]
    print("search: " + ("; ".join(texts) or "its result follows from its file and its studies"))
    first = f"{path}/{(*places, 'fresh')[0]}"
    print(
        f"trained again below: runs of the winner on fresh seeds; `dqx verify {first}` does the "
        f"same for the first of {len(places)} studies of candidates"
    )
    return not texts


def _search(options: argparse.Namespace, asked: "Tune", out: Path) -> int:
    from dqx.report.tune_table import result_lines
    from dqx.study.tuning.proposals import check_installed

    streams.forgive()
    # Mistakes are told before anything heavy is loaded; looked at again later.
    if not _check_place(asked, out, options.overwrite):
        check_installed(asked.sampler)
    if not options.quiet:
        print(f"{asked.name}: starting...", file=sys.stderr, flush=True)
    loading.load(*_MODULES)
    from dqx import tuning

    loading.use_cache(options)
    given: dict[str, Any] = {}
    if options.checkpoint_seconds is not None:
        given["checkpoint_seconds"] = options.checkpoint_seconds
    with _views(options.quiet) as watch:
        found: Tuned = tuning.tune(
            asked,
            out,
            devices=options.devices,
            overwrite=options.overwrite,
            replay_checkpoint=not options.no_replay_checkpoint,
            command=options.command_line,
            progress=_teller(asked.name, options.quiet),
            watch=watch,
            **given,
        )
    print("\n".join(result_lines(found)))
    _page(found)
    return 0


def _check_place(asked: "Tune", out: Path, overwrite: bool) -> bool:
    """Whether a folder holds this very search; refuses one that holds anything else."""
    from dqx.study.tuning import folder as folders
    from dqx.study.tuning import records

    target = folders.TuneFolder(out)
    if folders.is_tune(out) and not overwrite:
        records.check_same(target, records.read_search(target), asked, "")
        return True
    folders.replaces(out, overwrite)
    return False


def _page(found: "Tuned") -> None:
    """Writes the page of a search; the search is whole without it, and is not failed by it."""
    from dqx.report.page import search

    try:
        print(f"page: {search.write(found)}")
    except Exception as error:
        text = f"the page could not be made ({type(error).__name__}: {error})"
        print(
            f"dqx: warning: {text}; `dqx report {found.path}` tries again",
            file=sys.stderr,
            flush=True,
        )


def _teller(name: str, quiet: bool) -> Any:
    def tell(text: str) -> None:
        if not quiet:
            print(f"{name}: {text}", file=sys.stderr, flush=True)

    return tell


@contextlib.contextmanager
def _views(quiet: bool) -> Iterator[Any]:
    """Gives a function that makes a view for each study in turn; a live one goes at its end."""
    from dqx.report.view import view

    with contextlib.ExitStack() as stack:

        def watch(name: str) -> "Sequence[Sink]":
            shown = view(name, sys.stderr, quiet)
            stack.callback(shown.close)
            shown.start()
            return [shown]

        yield watch


def _status(path: str) -> int:
    from dqx.report.tune_table import result_lines, search_lines
    from dqx.study.lock import holder
    from dqx.study.tuning.folder import TuneFolder
    from dqx.study.tuning.results import follow, load_tune

    if TuneFolder(path).result.is_file():
        print("\n".join(result_lines(load_tune(path))))
        return 0
    search, working = follow(path), holder(Path(path))
    lines = search_lines(search)
    of = f"generation {search.generation + 1} of {search.tune.generations}"
    state = f"at work: {working}" if working else f"`dqx tune resume {path}` goes on"
    lines.insert(1, f"in {of}, {len(search.studies)} studies finished; {state}")
    print("\n".join([*lines, f"folder: {path}"]))
    return 0


def _dry_run(options: argparse.Namespace, asked: "Tune") -> int:
    """Says what is searched, and what the first candidates would take on the first seeds."""
    from dqx.study.tuning.proposals import Optuna
    from dqx.study.tuning.search import Search

    first = Search(asked)
    plan = first.first_plan(Optuna(asked))
    steps = max(point.config.total_steps for point in plan.points)
    print(
        f"{asked.name}: {asked.generations} x {asked.population} candidates on "
        f"{', '.join(map(str, asked.rungs))} seeds, the best on {len(asked.fresh)} fresh ones: at "
        f"most {asked.most_runs:,} runs of {steps:,} steps, if nobody is dropped"
    )
    print(f"the first candidates on the first {asked.rungs[0]} seeds:")
    return study.estimate(options, plan)
