"""The command ``dqx``: train a preset on many seeds, and list what there is.

Nothing heavy is imported at the top, so that help and mistakes answer at once.
"""

import argparse
import importlib
import importlib.resources
import os
import re
import shlex
import shutil
import signal
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import dqx
from dqx.study import cli as study_cli

if TYPE_CHECKING:
    from dqx.run import TrainResult

EXIT_MISTAKE, EXIT_INTERRUPTED = 2, 130


class _UsageError(ValueError):
    """Arguments that cannot be understood."""


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, and makes a long epilog only when help is asked for."""

    make_epilog: Callable[[], str] | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options
        )

    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{message} (see {self.prog} --help)")

    def format_help(self) -> str:
        if self.make_epilog is not None:
            self.epilog = self.make_epilog()
        return super().format_help()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: arguments without the program's name; those of the process if left out.

    Returns:
        The exit status: 0, 1 if `dqx verify` finds other bits or the reader of a pipe has gone, 2
        after a mistake or a failed write, 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            options = _parser().parse_args(arguments)
            options.command_line = shlex.join(["dqx", *arguments])
            status = options.run(options)
            sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        _say(str(interrupt) or "interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has gone, as in `dqx presets | head -1`. Python would complain once more when
        # it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except _mistakes() as error:
        _say(f"error: {error}")
        return EXIT_MISTAKE
    return status or 0


def _parser() -> _Parser:
    parser = _Parser(prog="dqx", description="Train DQN agents on many seeds at once.")
    parser.add_argument("--version", action="version", version=f"dqx {dqx.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    train = commands.add_parser(
        "train",
        help="train a preset on many seeds",
        description="Train a preset on many seeds and write numbers, parameters and a picture.",
    )
    _add_train_arguments(train)
    train.make_epilog = _field_help
    train.set_defaults(run=_train)
    study = commands.add_parser(
        "study",
        help="train configurations x seeds, resumable",
        usage="dqx study FILE.toml [options]\n"
        "       dqx study resume DIR [options]\n"
        "       dqx study status DIR",
        description="Train the configurations x seeds of a plan, go on with a study that was "
        "stopped, or see how far one is.",
    )
    study_cli.add_study_arguments(study)
    study.set_defaults(run=_study)
    verify = commands.add_parser(
        "verify",
        help="train runs of a study again and compare every bit",
        description="Train finished runs of a study again, each alone, compare every bit, and "
        "write certificate.json. Status 0 if all are identical, else 1.",
    )
    study_cli.add_verify_arguments(verify)
    verify.set_defaults(run=_verify)
    presets = commands.add_parser("presets", help="list the presets", description="List presets.")
    presets.set_defaults(run=_presets)
    envs = commands.add_parser(
        "envs",
        help="list the environments",
        description="List the names that the field env takes: dqx's own environments and gymnax's.",
    )
    envs.set_defaults(run=_envs)
    return parser


def _add_train_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("preset", metavar="PRESET", help="its name, as `dqx presets` lists it")
    add(
        "--seeds",
        default="32",
        metavar="SEEDS",
        help="how many (32: seeds 0 to 31), a range (8:16: seeds 8 to 15), or numbers (3,17); "
        "default: 32",
    )
    add("--steps", metavar="N", help="environment steps of each seed, the field total_steps")
    add(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=VALUE",
        help="change fields of the preset, after its name: --set gamma=0.98 hidden_sizes=64,64",
    )
    add("--out", metavar="DIR", help="the folder to write; default: runs/PRESET")
    add("--overwrite", action="store_true", help="replace an older run in that folder")
    add("--devices", metavar="KIND[:N]", help="cpu, gpu, or some of them: cpu:2; default: all")
    add("--root-seed", type=int, default=0, metavar="N", help="another draw of every seed")
    add("--quiet", action="store_true", help="print the result and errors only")


def _train(options: argparse.Namespace) -> None:
    _load("dqx.config", "dqx.seeds", "dqx.output", "dqx.progress")
    from dqx import config as configs
    from dqx import output
    from dqx.progress import display
    from dqx.seeds import parse_seeds

    seeds = parse_seeds(options.seeds, "--seeds")
    config, hyper = configs.override(*configs.preset(options.preset), **_fields(options))
    configs.validate(config, hyper)
    out = Path("runs", options.preset.replace("/", "-")) if options.out is None else options.out
    with output.prepare(out, options.overwrite) as folder:
        try:
            with display(options.preset, len(seeds), sys.stderr, options.quiet) as show:
                show.phase("starting...")
                # With what writing needs, so that nothing is found missing after hours of training.
                _load("dqx.run", "pandas", "pyarrow.parquet", "matplotlib.figure")
                show.phase("compiling...")
                result = dqx.train(
                    config,
                    hyper,
                    seeds,
                    root_seed=options.root_seed,
                    devices=options.devices,
                    progress=show,
                )
                show.phase(f"writing {out}...")
                output.write_run(result, folder, label=options.preset, command=options.command_line)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted; the finished run is in {out}"
                if folder.in_place
                else f"interrupted; nothing was written to {out}"
            ) from None
    print("\n".join([*_summary(options.preset, result), f"folder: {out}"]))


def _study(options: argparse.Namespace) -> int:
    _load("dqx.study.folder")
    if options.what[0] != "status":
        _load("dqx.study.engine", "pandas", "pyarrow.parquet", "matplotlib.figure")
    return study_cli.study(options)


def _verify(options: argparse.Namespace) -> int:
    _load("dqx.study.certify", "pyarrow.parquet")
    return study_cli.verify(options)


def _fields(options: argparse.Namespace) -> dict[str, Any]:
    """The values of ``--steps`` and ``--set`` by the names of their fields."""
    from dqx.config import parse_field

    texts = [] if options.steps is None else [f"total_steps={options.steps}"]
    fields: dict[str, Any] = {}
    for text in [*texts, *options.set]:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise _UsageError(f"--set takes field=value, such as gamma=0.98, got {text!r}")
        if name in fields:
            raise _UsageError(f"{name} is given twice: give it once")
        fields[name] = parse_field(name, value)
    return fields


def _summary(preset: str, result: "TrainResult") -> list[str]:
    """The result in words, a line a fact."""
    import numpy as np

    steps, count = result.config.total_steps, len(result.seeds)
    lines = [f"{preset}: {_seed_words(result.seeds.tolist())}, {steps:,} environment steps each"]
    if not result.config.eval_period:
        lines.append("final greedy return: there was no evaluation (eval_period = 0)")
    else:
        lines.append("final greedy return: " + _return_words(result.metrics["eval_return"][:, -1]))
    if result.config.exact_metrics:
        lines.append(_exact_words(result))
    rate, device = steps * count / result.run_seconds, result.device_kind.partition(": ")[2]
    lines.append(
        f"time: {result.compile_seconds:.1f} s to compile, {result.run_seconds:.1f} s to run "
        f"({rate:,.0f} environment steps/s on {len(result.devices)} x {device})"
    )
    lost = np.flatnonzero(result.diverged_at >= 0)
    if lost.size:
        named = [f"{result.seeds[i]} (at step {result.diverged_at[i]:,})" for i in lost]
        lines.append(f"diverged: {lost.size} of {count} seeds: {', '.join(named)}")
    return lines


def _exact_words(result: "TrainResult") -> str:
    import numpy as np

    from dqx.solution import EXACT_METRICS

    last = {name: result.metrics[name][:, -1] for name in EXACT_METRICS}
    text = f"exact return over all starts: {_return_words(last['exact_return'], 2)}"
    regret, share, error = (np.mean(last[name]) for name in EXACT_METRICS[1:])
    distance = f"{error:.3g}" if np.isfinite(error) else "not finite"
    return (
        f"{text}; means over seeds: regret {regret:.2f}, optimal actions in {100 * share:.1f} % of "
        f"the states, max |Q - Q*| {distance}"
    )


def _return_words(returns: Any, digits: int = 1) -> str:
    import numpy as np

    from dqx import stats

    finite = returns[np.isfinite(returns)]
    if not finite.size:
        return "not finite for any seed"
    summary = stats.summarize(finite)
    words = "n/a for one seed"
    if finite.size > 1:
        words = (
            f"{summary.low:.{digits}f} to {summary.high:.{digits}f} "
            f"(bootstrap over {finite.size} seeds)"
        )
    missing = returns.size - finite.size
    rest = f", {missing} seeds without a finite return left out" if missing else ""
    return f"IQM {summary.iqm:.{digits}f}, 95 % interval {words}{rest}"


def _seed_words(seeds: list[int]) -> str:
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if seeds == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{len(seeds)} seeds ({seeds[0]} to {seeds[-1]})"
    more = ", ..." if len(seeds) > 10 else ""
    return f"{len(seeds)} seeds ({', '.join(map(str, seeds[:10]))}{more})"


def _presets(options: argparse.Namespace) -> None:
    _load("dqx.config")
    from dqx.config import preset, preset_names

    notes = _preset_notes()
    rows = [("PRESET", "ENVIRONMENT", "STEPS", "")]
    for name in preset_names():
        config, _ = preset(name)
        rows.append((name, config.env, f"{config.total_steps:,}", notes.get(name, "")))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, env, steps, note in rows:
        line = f"{name:<{widths[0]}}  {env:<{widths[1]}}  {steps:>{widths[2]}}  {note}".rstrip()
        if sys.stdout.isatty():
            columns = shutil.get_terminal_size().columns
            line = line if len(line) <= columns else line[: columns - 3].rstrip() + "..."
        print(line)


def _preset_notes() -> dict[str, str]:
    """The first sentence of the comment above each preset's table."""
    notes: dict[str, str] = {}
    for file in (importlib.resources.files("dqx") / "presets").iterdir():
        if file.name.endswith(".toml"):
            text = file.read_text(encoding="utf-8")
            for match in re.finditer(r'((?:^#.*\n)+)\["?([^"\]\n]+)"?\]', text, re.MULTILINE):
                comment = " ".join(line.lstrip("# ") for line in match[1].splitlines())
                notes[match[2]] = re.split(r"(?<=\.)\s+(?=[A-Z])", comment, maxsplit=1)[0]
    return notes


def _envs(options: argparse.Namespace) -> None:
    _load("envs")
    import envs

    own = envs.own_names()
    others = [name for name in envs.names() if name not in own]
    print("dqx's own:")
    print("\n".join(f"  {name}" for name in own))
    print("gymnax's (those with continuous actions cannot be trained):")
    print("\n".join(f"  {name}" for name in others))


def _field_help() -> str:
    _load("dqx.config")
    from dqx.config import CONFIG_FIELDS, HYPER_FIELDS

    return "\n".join(
        [
            "fields of --set, with the defaults that a preset may change:",
            "",
            *_field_lines(CONFIG_FIELDS.values()),
            "",
            "hyperparameters of --set:",
            "",
            *_field_lines(HYPER_FIELDS.values()),
        ]
    )


def _field_lines(fields: Iterable[Any]) -> list[str]:
    from dqx.config import field_type

    kinds = {
        int: "int", float: "float", bool: "true/false", str: "text", int | None: "int or none",
        tuple[str, ...]: "name,name,...",
    }  # fmt: skip
    width, indent = max(50, shutil.get_terminal_size().columns - 2), " " * 26
    lines = []
    for field in fields:
        kind = kinds.get(field_type(field.name), "int,int,...")
        text = f"{field.metadata['doc']} ({kind}; default {_default_words(field.default)})"
        lines += textwrap.wrap(
            text, width, initial_indent=f"  {field.name:<24}", subsequent_indent=indent
        )
    return lines


def _default_words(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "nothing"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _load(*modules: str) -> None:
    """Imports modules, putting Ctrl-C off until done: during an import it may get lost."""
    seen: list[int] = []
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    usual = usual and threading.current_thread() is threading.main_thread()
    if usual:
        signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    try:
        for module in modules:
            importlib.import_module(module)
    finally:
        if usual:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if seen:
        raise KeyboardInterrupt


def _mistakes() -> tuple[type[BaseException], ...]:
    """What a user may have caused; anything else is a defect and shows where it came from."""
    known: list[type[BaseException]] = [_UsageError, OSError]
    # Their modules are not imported for this: what raised one has imported it.
    for module, name in (("dqx.config", "ConfigError"), ("dqx.files", "OutputError")):
        if module in sys.modules:
            known.append(getattr(sys.modules[module], name))
    return tuple(known)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"warning: {message}")


def _say(text: str) -> None:
    print(f"dqx: {' '.join(text.split())}", file=sys.stderr, flush=True)
