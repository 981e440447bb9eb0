"""What each command does."""

import argparse
import contextlib
import datetime
import importlib
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dqx

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqx.study.plan import Plan
    from dqx.study.results import Study
    from dqx.study.sinks import Sink

EXIT_DIFFERENT = 1
# What training needs, so that nothing is found missing after hours.
_TRAINING = ("dqx.run", "pandas", "pyarrow.parquet", "matplotlib.figure")


def version(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """`dqx --version`, and with ``-v`` what bits hang on and where compiled programs are kept."""
    if not options.version:
        parser.error("the following arguments are required: COMMAND")
    print(f"dqx {dqx.__version__}")
    if options.verbose:
        from dqx.compute.cache import cache_folder
        from dqx.study.host import checkout, versions
        from dqx.study.identity import processor, source

        found = {name: text for name, text in versions().items() if name != "dqx"}
        code = checkout()
        commit = code["git_commit"] or "not in a checkout"
        facts = {
            **found,
            "processor": processor(),
            "commit": f"{commit}, changed since" if code["git_modified"] else commit,
            "source": source(),
            "cache": cache_folder(),
        }
        for name, text in facts.items():
            print(f"{name}: {text}")
    return 0


def train(options: argparse.Namespace) -> int:
    """`dqx train PRESET`: a study of one configuration."""
    _load("dqx.settings", *options.modules)
    from dqx import settings
    from dqx.study.plan import single

    seeds = settings.parse_seeds(options.seeds, "--seeds")
    steps = [] if options.steps is None else [f"total_steps={options.steps}"]
    fields = settings.parse_assignments([*steps, *options.set])
    config, hyper = settings.override(*settings.preset(options.preset), **fields)
    name = options.preset.replace("/", "-")
    plan = single(name, config, hyper, seeds, label=options.preset, root_seed=options.root_seed)
    return _run(options, plan)


def study(options: argparse.Namespace) -> int:
    """`dqx study FILE.toml`, `dqx study resume DIR` and `dqx study status DIR`."""
    _load("dqx.study.folder", *options.modules)
    from dqx.study.folder import StudyError
    from dqx.study.plan import read_plan

    first, *rest = options.what
    if first in ("resume", "status"):
        if len(rest) != 1:
            raise StudyError(f"`dqx study {first}` takes one folder, such as runs/mine")
        _refuse(options, first)
        return _status(rest[0]) if first == "status" else _resume(options, rest[0])
    if rest:
        raise StudyError(
            f"`dqx study` takes a plan, or resume DIR, or status DIR; got {' '.join(options.what)}"
        )
    if Path(first).is_dir():
        raise StudyError(
            f"{first} is a folder: give a plan, or `dqx study resume {first}` to go on with it"
        )
    return _run(options, read_plan(first))


def verify(options: argparse.Namespace) -> int:
    """`dqx verify DIR`; status 1 if a run has other bits or cannot be compared."""
    from dqx.study.folder import Folder, read_plan_record
    from dqx.study.tuning.folder import TuneFolder, is_tune

    if is_tune(options.folder):
        from dqx.cli import tune

        if not tune.check(options.folder):
            return EXIT_DIFFERENT
        options.folder = str(TuneFolder(options.folder).fresh)
    read_plan_record(Folder(options.folder))  # a mistake is told before JAX loads
    _load(*options.modules, "dqx.study.certify", "pyarrow.parquet")
    from dqx.compute.devices import select_devices
    from dqx.report.terminal import certificate_lines
    from dqx.study import certify, load

    _use_cache(options)
    places, runs = select_devices(options.devices), load(options.folder).runs
    started = time.monotonic()

    def show(done: int, total: int) -> None:
        if not options.quiet and sys.stderr is not None:
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


def presets(options: argparse.Namespace) -> None:
    """`dqx presets`."""
    from dqx.settings import preset, preset_about, preset_names

    rows = [("PRESET", "ENVIRONMENT", "STEPS", "")]
    for name in preset_names():
        config, _ = preset(name)
        rows.append((name, config.env, f"{config.total_steps:,}", preset_about(name).about))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, env, steps, about in rows:
        line = f"{name:<{widths[0]}}  {env:<{widths[1]}}  {steps:>{widths[2]}}  {about}".rstrip()
        if sys.stdout.isatty():
            columns = shutil.get_terminal_size().columns
            line = line if len(line) <= columns else line[: columns - 3].rstrip() + "..."
        print(line)


def envs(options: argparse.Namespace) -> None:
    """`dqx envs`, and `dqx envs NAME`."""
    _load("envs", *options.modules)
    import envs as environments

    if options.name is not None:
        prefix = options.name.removesuffix(":")
        if prefix in environments.adapters.SUITES:
            _list_suite(prefix)
        else:
            _describe(options.name)
        return
    own = environments.own_names()
    others = [name for name in environments.names() if name not in own]
    print("dqx's own:")
    print("\n".join(f"  {name}" for name in own))
    print("gymnax's (those with continuous actions cannot be trained):")
    print("\n".join(f"  {name}" for name in others))
    suites = ", ".join(f"{prefix}:" for prefix in environments.adapters.prefixes())
    print(f"other suites' by prefix, each an extra (`dqx envs navix:` lists one): {suites}")


def _list_suite(prefix: str) -> None:
    """Prints a suite's environments, and why others of it cannot be trained."""
    from dqx.settings import ConfigError
    from envs import adapters

    try:
        names, refused = adapters.names(prefix), adapters.refused(prefix)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    print("\n".join(names))
    for name, why in refused.items():
        print(f"{name} cannot be trained: {why}")


def _describe(name: str) -> None:
    import envs as environments
    from dqx.settings import ConfigError, show

    try:
        found = environments.describe(name)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    print(f"{name}: {found.doc}" if found.doc else name)
    rows = [("SETTING", "TYPE", "DEFAULT", "UNIT", "")]
    for p in found.parameters:
        kind = p.type.__name__ + ("" if p.traced else ", compiled in")
        rows.append((f"env.{p.name}", kind, show(p.default), p.unit, p.doc))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows if found.parameters else []:
        cells = zip(row, widths, strict=True)
        print("  " + "  ".join(f"{cell:<{width}}" for cell, width in cells).rstrip())
    if not found.parameters:
        print("  it has no settings")


def field_help() -> str:
    """The fields that ``--set`` takes."""
    from dqx.settings import field_help as lines

    return "\n".join(lines())


def _run(options: argparse.Namespace, plan: "Plan") -> int:
    """Trains a plan, or says what it would take."""
    from dqx.study import finish
    from dqx.study.record import plan_record

    if options.dry_run:
        return _dry_run(options, plan)
    out = Path("runs") / plan.name if options.out is None else Path(options.out)
    # Told before anything starts; looked at again when the folder is made.
    finish.replaces(out, plan_record(plan, {}), options.overwrite)
    return _watched(
        options,
        plan.name,
        _trackers(options, out, plan.name, go_on=False),
        lambda run, given: run.run(
            plan, out, overwrite=options.overwrite, command=options.command_line, **given
        ),
    )


def _resume(options: argparse.Namespace, path: str) -> int:
    from dqx.study.folder import Folder, read_plan_record

    name = read_plan_record(Folder(path))["name"]
    trackers = _trackers(options, Path(path), name, go_on=True)
    return _watched(options, name, trackers, lambda run, given: run.resume(path, **given))


def _trackers(
    options: argparse.Namespace, study: Path, name: str, *, go_on: bool
) -> "Sequence[Sink]":
    """The trackers and sinks of a user's own that are asked for."""
    if options.tensorboard is None and options.wandb is None and not options.sinks:
        return ()
    from dqx.report.trackers.chosen import chosen

    _load()  # a sink may lie in the current folder
    return chosen(
        tensorboard=options.tensorboard,
        wandb=options.wandb,
        runs=options.tracker_runs,
        sinks=options.sinks,
        study=study,
        name=name,
        go_on=go_on,
    )


def _watched(
    options: argparse.Namespace, name: str, trackers: "Sequence[Sink]", action: Any
) -> int:
    """Calls ``action(dqx.run, arguments)`` with a view of what happens, and prints the result."""
    from dqx.report.terminal import summary
    from dqx.report.view import view

    with contextlib.closing(view(name, sys.stderr, options.quiet)) as shown:
        shown.start()
        _load(*_TRAINING)
        from dqx import run
        from dqx.report.page.sink import Page
        from dqx.report.picture import Picture

        _use_cache(options)
        page = Page(shown.phase)
        given: dict[str, Any] = {
            "devices": options.devices,
            "replay_checkpoint": not options.no_replay_checkpoint,
            "sinks": [shown, Picture(), page, *trackers],
        }
        if options.checkpoint_seconds is not None:
            given["checkpoint_seconds"] = options.checkpoint_seconds
        found: Study = action(run, given)
    print("\n".join(summary(found)))
    if page.problem:
        print(f"dqx: warning: {page.problem}", file=sys.stderr, flush=True)
    if page.path is not None:
        print(f"page: {page.path}")
    return 0


def _refuse(options: argparse.Namespace, word: str, command: str = "study") -> None:
    """Refuses options that only a plan takes, rather than to do something else than was asked."""
    from dqx.study.folder import StudyError

    given = {
        "--dry-run": options.dry_run,
        "--overwrite": options.overwrite,
        "--out": options.out is not None,
    }
    for name in (name for name, is_given in given.items() if is_given):
        raise StudyError(f"`dqx {command} {word}` takes no {name}: it goes with a plan")


def _status(path: str) -> int:
    from dqx.report.terminal import summary
    from dqx.study.finish import read_progress
    from dqx.study.folder import Folder, holder
    from dqx.study.results import load

    found, folder = load(path), Folder(path)
    working, lines = holder(found.path), summary(found)
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
    if record.get("plan_seal") != found.plan["sha256"]:
        return "of another study"
    return (
        f"{record['verdict']} ({record['checked']} of {record['runs']} runs trained again, "
        f"{record['written']})"
    )


def _dry_run(options: argparse.Namespace, plan: "Plan") -> int:
    _load("dqx.study.estimate")
    from dqx.report.terminal import estimate_lines
    from dqx.study.estimate import dry_run

    _use_cache(options)

    def show(done: int, total: int) -> None:
        if not options.quiet:
            text = f"dry run: {done}/{total} programs compiled and timed"
            print(text, file=sys.stderr, flush=True)

    def phase(text: str) -> None:
        if not options.quiet:
            print(f"dry run: {text}", file=sys.stderr, flush=True)

    found = dry_run(plan, devices=options.devices, progress=show, phase=phase)
    print("\n".join(estimate_lines(found)))
    return 0


def _use_cache(options: argparse.Namespace) -> None:
    from dqx.compute import cache

    if options.no_cache:
        cache.disable()
    else:
        cache.enable()


def _load(*modules: str) -> None:
    """Imports modules, putting Ctrl-C off until done: during an import it may get lost.

    Those of a user may lie in the current folder.
    """
    from dqx.settings import ConfigError

    seen: list[int] = []
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    usual = usual and threading.current_thread() is threading.main_thread()
    if usual:
        signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        for module in modules:
            try:
                if not all(part.isidentifier() for part in module.split(".")):
                    raise ModuleNotFoundError(name=module)
                importlib.import_module(module)
            except ModuleNotFoundError as error:
                if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                    raise
                raise ConfigError(
                    f"there is no module {module!r}: give one in the current folder or where "
                    "Python finds it, without .py"
                ) from None
    finally:
        if usual:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if seen:
        raise KeyboardInterrupt
