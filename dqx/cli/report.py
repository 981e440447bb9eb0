"""`dqx report DIR`: the page of one study or several, and every figure as a file."""

import argparse
import sys
from pathlib import Path
from typing import Any

from dqx.cli import loading, shared, streams


def add(subparsers: Any) -> None:
    """Makes the parser of the command."""
    parser = subparsers.add_parser(
        "report",
        help="write a page and figures of a study, or of several",
        description="Write report/index.html into the study's folder, one page that needs no "
        "network, and every figure of it as PNG, SVG and PDF. Several folders make one page that "
        "compares them.",
    )
    add = parser.add_argument
    add(
        "folders", metavar="DIR", nargs="+", help="a study's folder, finished or not, or a search's"
    )
    add("--out", metavar="DIR", help="the folder to write; default: DIR/report, of several report")
    add("--no-films", action="store_true", help="leave out films of best, median and worst seeds")
    shared.add_import(parser)
    add("--quiet", action="store_true", help="print the result and errors only")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Reads the studies, and writes the page, the figures, and the page again with films."""
    from dqx.files import check_folder
    from dqx.report.page import check_place
    from dqx.study.folder import Folder
    from dqx.study.results import load
    from dqx.study.tuning.folder import TuneFolder, is_tune
    from dqx.study.tuning.results import load_tune

    loading.load(own=options.modules)
    several = len(options.folders) > 1
    searches = [] if several or not is_tune(options.folders[0]) else [load_tune(*options.folders)]
    studies = [one.study for one in searches] or [load(path) for path in options.folders]
    out = Path("report") if several else Folder(studies[0].path).report
    out = TuneFolder(searches[0].path).report if searches else out
    out = out if options.out is None else Path(options.out)
    check_folder(out, "choose another folder with --out")
    check_place(out, [Path(folder) / "report" for folder in options.folders])

    streams.forgive()

    def say(text: str) -> None:
        if not options.quiet:
            print(f"report: {text}", file=sys.stderr, flush=True)

    say("reading...")
    loading.load("pandas", "matplotlib.figure")
    from dqx.report import cases, figures, findings, page
    from dqx.report.page import search

    groups = findings.groups(cases.read(studies))
    shown = page.content(studies, groups)
    for found in searches:
        shown |= search.part(found, shown)
    path = page.write_content(shown, out)
    drawings = figures.drawings(studies, groups)
    for number, drawing in enumerate(drawings, start=1):
        say(f"figure {number}/{len(drawings)}, {drawing.name}")
        figures.write(drawing, out)
    if not options.no_films and drawings:
        from dqx.report.page.films import films

        for number, film in films(studies, groups, say):
            shown["groups"][number].setdefault("films", []).append(film)
        path = page.write_content(shown, out)
    for study in studies:
        if not study.finished:
            total = len(study.configs) * len(study.seeds)
            print(f"unfinished: {study.path} has {len(study.runs):,} of {total:,} runs")
    print(f"figures: {len(drawings)} in {out}, each as PNG, SVG and PDF")
    print(f"page: {path}")
    return 0
