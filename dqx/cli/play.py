"""`dqx play DIR`: what a stored agent does, as a film or on the terminal."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqx.cli import loading, shared, streams

if TYPE_CHECKING:
    from dqx.report.film import Episode, Film, Pick
    from dqx.study.results import Study


# From one line on an episode that takes long to the next.
_TOLD_SECONDS = 5.0


def add(subparsers: Any) -> None:
    """Makes the parser of the command."""
    parser = subparsers.add_parser(
        "play",
        help="show greedy episodes of a stored agent",
        description="Show greedy episodes of a stored agent with its Q-values: on the terminal, or "
        "in a file. They are the first of the run's last evaluation.",
    )
    add = parser.add_argument
    add("folder", metavar="DIR", help="a study's folder")
    add("--config", metavar="NAME", help="a configuration, where there are several")
    add(
        "--seed",
        default="median",
        metavar="SEED",
        help="best, median or worst by its score, or a seed's number; default: median",
    )
    add("--step", type=shared.whole, metavar="N", help="play the snapshot at that step")
    add("--gif", type=Path, metavar="FILE", help="write an animated GIF")
    add("--mp4", type=Path, metavar="FILE", help="write an MP4; needs the program ffmpeg")
    add("--png", type=Path, metavar="DIR", help="write each picture as a PNG into a new folder")
    add("--episodes", type=shared.count, default=1, metavar="N", help="how many; default: 1")
    add("--max-steps", type=shared.count, metavar="N", help="cut longer episodes short")
    add(
        "--max-frames",
        type=shared.count,
        default=300,
        metavar="N",
        help="pictures of an episode at most, evenly spaced; default: 300",
    )
    add(
        "--view",
        choices=("game", "agent"),
        default="game",
        help="what is shown: the game as people see it, or the observation that the agent sees",
    )
    add("--fps", type=float, default=20.0, metavar="N", help="pictures a second; default: 20")
    add(
        "--width",
        type=shared.count,
        default=480,
        metavar="N",
        help="of a film in a file, in pixels; default: 480",
    )
    shared.add_import(parser)
    add("--no-cache", action="store_true", help="keep no compiled programs for the next time")
    add("--quiet", action="store_true", help="print the result and errors only")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Plays, and shows or writes what was played."""
    _check(options)
    from dqx.files import check_file
    from dqx.report import reel, screen

    if not (options.gif or options.mp4 or options.png):
        screen.check(sys.stdout)
    else:
        streams.forgive()
    if options.mp4:
        reel.find_ffmpeg()
    reel.check_size(options.width, options.fps)
    for path in (options.gif, options.mp4):
        if path is not None:
            check_file(path)
    if options.png:
        reel.is_replaced(options.png)
    film = _played(options)
    if not (options.gif or options.mp4 or options.png):
        screen.show(film, sys.stdout, fps=options.fps)
    for line in _told(film):
        print(line)
    size = {"width": options.width}
    if options.gif:
        reel.write_gif(film, options.gif, fps=options.fps, **size)
        _print_file(options.gif)
    if options.mp4:
        reel.write_mp4(film, options.mp4, fps=options.fps, **size)
        _print_file(options.mp4)
    if options.png:
        count = reel.write_pngs(film, options.png, **size)
        print(f"{options.png}: {count:,} pictures")
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuses options that have no effect on what is asked for."""
    if not (options.gif or options.mp4 or options.png):
        shared.refuse(
            options,
            "--width",
            by="a film on the terminal",
            why="give --gif, --mp4 or --png too",
        )
    elif options.png and not (options.gif or options.mp4):
        shared.refuse(options, "--fps", by="--png", why="pictures of their own have no speed")


def _played(options: argparse.Namespace) -> "Film":
    from dqx.study import load

    study = load(options.folder)
    from dqx.report.film import film, pick_config, pick_seed

    config = pick_config(study, options.config)
    pick = pick_seed(study, config, options.seed)
    if options.step is not None:
        study.params(config, pick.seed, options.step)  # a mistake is told before JAX loads
    if not options.quiet:
        print(f"play: {_picked(study, config, pick)}; playing...", file=sys.stderr, flush=True)
    loading.load("dqx.report.playing", own=options.modules)
    loading.use_cache(options)
    return film(
        study,
        config,
        pick.seed,
        step=options.step,
        episodes=options.episodes,
        max_steps=options.max_steps,
        max_frames=options.max_frames,
        view=options.view,
        tell=_teller(options),
    )


def _teller(options: argparse.Namespace) -> Callable[[int, int], None]:
    """Says every few seconds what is waited for: an episode without a time limit may never end."""
    told = time.monotonic()

    def tell(over: int, step: int) -> None:
        nonlocal told
        if time.monotonic() - told >= _TOLD_SECONDS and not options.quiet:
            told = time.monotonic()
            print(
                f"play: {over:,} of {options.episodes:,} episodes over, step {step:,}; Ctrl-C ends "
                "it, --max-steps cuts them short",
                file=sys.stderr,
                flush=True,
            )

    return tell


def _picked(study: "Study", config: str, pick: "Pick") -> str:
    name = config if len(study.configs) > 1 else study.plan["name"]
    words = f", {pick.words}" if pick.words else ""
    (run,) = (r for r in study.runs if (r["config"], r["seed"]) == (config, pick.seed))
    lost = run["diverged_at"]
    words += f", which diverged at step {lost:,}" if lost >= 0 else ""
    return f"{name}, seed {pick.seed}{words} (score {pick.score:.1f})"


def _told(film: "Film") -> list[str]:
    """How each episode went."""
    lines = []
    for number, episode in enumerate(film.episodes, start=1):
        steps, shown = len(episode.actions), len(episode.times)
        every = f"; a picture for {_every(episode)} steps" if steps >= shown else ""
        lines.append(f"episode {number}: {episode.words}{every}")
    return lines


def _every(episode: "Episode") -> int:
    return int(episode.times[1] - episode.times[0])


def _print_file(path: Path) -> None:
    from dqx.report.terminal import size

    print(f"{path}: {size(path.stat().st_size)}")
