"""`dqx study` and `dqx verify`: their arguments, and what they print."""

import argparse
import contextlib
import datetime
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dqx.study.certify import Certificate
    from dqx.study.estimate import Estimate
    from dqx.study.results import Study

EXIT_DIFFERENT = 1
_ROWS = 30  # of a table, before the rest is only counted


def add_study_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `dqx study`."""
    add = parser.add_argument
    add(
        "what",
        metavar="FILE.toml | resume DIR | status DIR",
        nargs="+",
        help="a plan to train; or a study's folder to go on with or to look at",
    )
    add("--out", metavar="DIR", help="the folder to write; default: runs/NAME")
    add("--overwrite", action="store_true", help="replace an older study in that folder")
    add("--devices", metavar="KIND[:N]", help="cpu, gpu, or some of them: cpu:2; default: all")
    add(
        "--dry-run",
        action="store_true",
        help="print configurations, memory, disk and time, after timing one segment; train nothing",
    )
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
    add("--quiet", action="store_true", help="print the result and errors only")


def add_verify_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `dqx verify`."""
    add = parser.add_argument
    add("folder", metavar="DIR", help="a study's folder")
    some = parser.add_mutually_exclusive_group()
    some.add_argument(
        "--sample", type=_count, default=5, metavar="N", help="runs drawn at random; default: 5"
    )
    some.add_argument("--all", action="store_true", help="every finished run")
    add("--pick", type=_whole, metavar="SEED", help="of the draw, to repeat it; default: a new one")
    add("--devices", metavar="KIND[:N]", help="cpu, gpu, or some of them: cpu:2; default: all")
    add("--quiet", action="store_true", help="print the verdict and errors only")


def study(options: argparse.Namespace) -> int:
    """Runs `dqx study`; returns the exit status."""
    from dqx.study.folder import StudyError

    first, *rest = options.what
    if first in ("resume", "status"):
        if len(rest) != 1:
            raise StudyError(f"`dqx study {first}` takes one folder, such as runs/mine")
        _refuse(options, first)
        return _status(rest[0]) if first == "status" else _train(options, resume=rest[0])
    if rest:
        raise StudyError(
            f"`dqx study` takes a plan, or resume DIR, or status DIR; got {' '.join(options.what)}"
        )
    if Path(first).is_dir():
        raise StudyError(
            f"{first} is a folder: give a plan, or `dqx study resume {first}` to go on with it"
        )
    return _dry_run(options, first) if options.dry_run else _train(options, plan=first)


def _refuse(options: argparse.Namespace, word: str) -> None:
    """Refuses options that only a plan takes, rather than to do something else than was asked."""
    from dqx.study.folder import StudyError

    given = {
        "--dry-run": options.dry_run,
        "--overwrite": options.overwrite,
        "--out": options.out is not None,
    }
    for name in (name for name, is_given in given.items() if is_given):
        raise StudyError(f"`dqx study {word}` takes no {name}: it goes with a plan")


def verify(options: argparse.Namespace) -> int:
    """Runs `dqx verify`; returns the exit status."""
    from dqx.study import certify

    started = time.monotonic()

    def show(done: int, total: int) -> None:
        if not options.quiet and sys.stderr is not None:
            seconds = time.monotonic() - started
            print(f"verify: {done}/{total} runs, {seconds:.0f} s", file=sys.stderr, flush=True)

    if not options.quiet:
        print("verify: training again...", file=sys.stderr, flush=True)
    certificate = certify.verify(
        options.folder,
        sample=None if options.all else options.sample,
        pick=options.pick,
        devices=options.devices,
        progress=show,
    )
    print("\n".join(_certificate_lines(certificate, options.folder, options.quiet)))
    return 0 if certificate.passed else EXIT_DIFFERENT


def _train(options: argparse.Namespace, plan: str | None = None, resume: str | None = None) -> int:
    from dqx.study import engine
    from dqx.study.view import view

    given: dict[str, Any] = {"replay_checkpoint": not options.no_replay_checkpoint}
    if options.checkpoint_seconds is not None:
        given["checkpoint_seconds"] = options.checkpoint_seconds
    with view(sys.stderr, options.quiet) as show:
        given |= {"devices": options.devices, "progress": show}
        if plan is not None:
            found = engine.run(plan, options.out, overwrite=options.overwrite, **given)
        else:
            assert resume is not None
            found = engine.resume(resume, **given)
    print("\n".join(_summary(found)))
    return 0


def _summary(found: "Study") -> list[str]:
    from dqx.study.tally import rank

    lines = [f"{found.plan['name']}: {len(found.runs):,} runs ({_size(found)})"]
    returns: dict[str, list[float]] = {name: [] for name in found.configs}
    for run in found.runs:
        value = run["final_return"]
        returns[run["config"]].append(math.nan if value is None else value)
    standings = rank({name: values for name, values in returns.items() if values})
    rows = [("CONFIGURATION", "RUNS", "IQM", "95 % INTERVAL", "DIVERGED")] if standings else []
    for standing in standings[:_ROWS]:
        lost = sum(r["config"] == standing.name and r["diverged_at"] >= 0 for r in found.runs)
        rows.append(
            (
                standing.name,
                f"{standing.runs:,} of {len(found.seeds):,}",
                f"{standing.iqm:.1f}",
                _interval(returns[standing.name]),
                f"{lost}" if lost else "",
            )
        )
    lines += _aligned(rows)
    if len(standings) > _ROWS:
        lines.append(f"... and {len(standings) - _ROWS} more configurations")
    diverged = [r for r in found.runs if r["diverged_at"] >= 0]
    for run in diverged[:10]:
        lines.append(
            f"diverged: seed {run['seed']} of {run['config']} at step {run['diverged_at']:,}"
        )
    if len(diverged) > 10:
        lines.append(f"... and {len(diverged) - 10} more diverged runs")
    return [*lines, f"folder: {found.path}"]


def _size(found: "Study") -> str:
    configs, seeds = len(found.configs), len(found.seeds)
    return f"{configs:,} configuration{'s' * (configs > 1)} x {seeds:,} seed{'s' * (seeds > 1)}"


def _interval(values: Sequence[float]) -> str:
    from dqx import stats

    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return "n/a"
    low, high = stats.bootstrap_interval(finite)
    return f"{float(low):.1f} to {float(high):.1f}"


def _status(path: str) -> int:
    from dqx.study.finish import read_progress
    from dqx.study.folder import Folder, holder
    from dqx.study.results import load

    found = load(path)
    folder = Folder(path)
    working, lines = holder(found.path), _summary(found)
    total = len(found.configs) * len(found.seeds)
    state = "finished" if found.finished else f"{len(found.runs):,} of {total:,} runs finished"
    if working is not None:
        state += f"; at work: {working}"
        progress = read_progress(folder)
        if progress.get("steps_per_second"):
            done = 100 * progress["steps"] // progress["total_steps"]
            ago = max(0.0, time.time() - progress["time"])
            left = datetime.timedelta(seconds=round(progress["seconds_left"]))
            state += (
                f"; {done} % of the steps, {progress['steps_per_second']:,.0f} steps/s, "
                f"{left} left ({ago:.0f} s ago)"
            )
    elif not found.finished:
        state += f"; nobody works on it: `dqx study resume {found.path}` goes on"
    lines.insert(1, state)
    if folder.certificate.exists():
        lines.insert(-1, f"certificate: {_certificate_words(found)}")
    print("\n".join(lines))
    return 0


def _certificate_words(found: "Study") -> str:
    from dqx.study.folder import Folder, StudyError, read_sealed

    try:
        record = read_sealed(Folder(found.path).certificate)
    except StudyError as error:
        return f"{error}; `dqx verify {found.path}` writes a new one"
    if record.get("plan") != found.plan["sha256"]:
        return "of another study"
    return (
        f"{record['verdict']} ({record['checked']} of {record['runs']} runs trained again, "
        f"{record['written']})"
    )


def _dry_run(options: argparse.Namespace, plan: str) -> int:
    from dqx.study.estimate import dry_run

    def show(done: int, total: int) -> None:
        if not options.quiet:
            text = f"dry run: {done}/{total} programs compiled and timed"
            print(text, file=sys.stderr, flush=True)

    if not options.quiet:
        print("dry run: compiling...", file=sys.stderr, flush=True)
    print("\n".join(_estimate_lines(dry_run(plan, devices=options.devices, progress=show))))
    return 0


def _estimate_lines(found: "Estimate") -> list[str]:
    plan = found.plan
    lines = [
        f"{plan.name}: {len(plan.points):,} configurations x {len(plan.seeds):,} seeds = "
        f"{plan.num_runs:,} runs, {plan.total_steps:,} environment steps",
    ]
    lines += [f"  {point.name}" for point in plan.points[:_ROWS]]
    if len(plan.points) > _ROWS:
        lines.append(f"  ... and {len(plan.points) - _ROWS} more")
    rows = [("PROGRAM", "CONFIGS", "RUNS", "CHUNKS", "WIDTH", "DEVICES", "MEMORY A CHUNK", "TIME")]
    for number, group in enumerate(found.groups, start=1):
        rows.append(
            (
                f"{number}",
                f"{len(group.points):,}",
                f"{group.runs:,}",
                f"{group.chunks:,}",
                f"{group.width}",
                f"{group.devices}",
                _bytes(group.chunk_bytes),
                _duration(group.seconds),
            )
        )
    lines += _aligned(rows)
    lines += [
        f"memory: {_bytes(found.memory_bytes)} at a time, {_bytes(found.free_bytes)} free",
        f"disk: {_bytes(found.disk_bytes)}, checkpoints included",
        f"time: about {_duration(found.seconds)}, {len(found.groups)} x compiling included",
    ]
    return lines


def _certificate_lines(certificate: "Certificate", folder: str, quiet: bool) -> list[str]:
    lines = []
    if not quiet:
        rows = [("CONFIGURATION", "SEED", "DIGEST", "AGAIN", "VERDICT")]
        for check in certificate.checks:
            verdict = f"{check.verdict}: {check.detail}" if check.detail else check.verdict
            rows.append(
                (check.config, f"{check.seed}", check.stored[:12], check.found[:12], verdict)
            )
        lines += _aligned(rows)
    lines += [f"note: {text}" for text in certificate.differences]
    if certificate.statistics:
        lines.append(certificate.statistics)
    count = len(certificate.checks)
    same = sum(check.verdict == "identical" for check in certificate.checks)
    lines.append(
        f"verdict: {certificate.verdict} ({same} of {count} runs trained again have the same bits; "
        f"the study has {certificate.runs:,})"
    )
    return [*lines, f"certificate: {Path(folder) / 'certificate.json'}"]


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _bytes(count: int) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024  # type: ignore[assignment]
    return f"{count:,.0f} {unit}" if count >= 100 else f"{count:,.3g} {unit}"


def _duration(seconds: float) -> str:
    if math.isnan(seconds):
        return "unknown"
    return str(datetime.timedelta(seconds=math.ceil(seconds)))


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
