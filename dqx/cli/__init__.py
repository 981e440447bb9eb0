"""The command ``dqx``: train presets and studies, check them, and list what there is.

Nothing heavy is imported at the top, so that help and mistakes answer at once.
"""

import itertools
import os
import shlex
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence

from dqx.cli import streams

EXIT_MISTAKE, EXIT_INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: arguments without the program's name; those of the process if left out.

    Returns:
        The exit status: 0, 1 if `dqx verify` finds other bits, a chunk was set aside or the reader
        of a pipe has gone, 2 after a mistake or a failed write, 130 after Ctrl-C. What has trained
        or written files has not failed because its output could not be printed.
    """
    with streams.guarded():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    from dqx.cli.arguments import given_options, make_parser
    from dqx.cli.shared import UsageError

    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _Warnings()
            parser = make_parser()
            options = parser.parse_args(arguments)
            options.given = given_options(arguments)
            if options.run is not parser.get_default("run") and arguments[0].startswith("-"):
                raise UsageError(f"{arguments[0]} goes without a command (see dqx --help)")
            options.command_line = shlex.join(["dqx", *arguments])
            if argv is None and getattr(options, "devices", None):  # in a process of its own
                from dqx.compute.devices import spare_cores

                spare_cores(options.devices)
            status = options.run(options)
            sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        _say(str(interrupt) or "interrupted")
        from dqx.study.background import CHUNK_THREAD

        if any(thread.name.startswith(CHUNK_THREAD) for thread in threading.enumerate()):
            os._exit(EXIT_INTERRUPTED)  # at its usual end Python may crash in what they compute
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return 1  # the reader has gone, as in `dqx presets | head -1`
    except _mistakes() as error:
        _show_origin(error)
        _say(f"error: {error}")
        return EXIT_MISTAKE
    return status or 0


def _mistakes() -> tuple[type[BaseException], ...]:
    """What a user may have caused; anything else is a defect and shows where it came from."""
    from dqx.cli.shared import UsageError

    known: list[type[BaseException]] = [UsageError, OSError]
    # Their modules are not imported for this: what raised one has imported it.
    for module, name in (("dqx.settings", "ConfigError"), ("dqx.files", "OutputError")):
        if module in sys.modules:
            known.append(getattr(sys.modules[module], name))
    return tuple(known)


def _show_origin(error: BaseException) -> None:
    """Prints the traceback of what failed in a user's own environment or module."""
    origin: BaseException | None = error
    named = ("UnusableEnvironment", "ModuleFails")
    while origin is not None and type(origin).__name__ not in named:
        origin = origin.__cause__
    if origin is not None and origin.__cause__ is not None:
        shown = traceback.TracebackException.from_exception(origin.__cause__)
        # From where the user's own code begins: what called and imported it is no news.
        ours = itertools.takewhile(_is_ours, shown.stack)
        shown.stack = traceback.StackSummary.from_list(shown.stack[len(list(ours)) :])
        print("".join(shown.format()), file=sys.stderr, end="")


def _is_ours(frame: traceback.FrameSummary) -> bool:
    """Whether a frame is of what imports or makes what is a user's."""
    own = (("envs", "foreign.py"), ("cli", "loading.py"), ("importlib", "__init__.py"))
    return frame.filename.startswith("<frozen importlib") or frame.filename.endswith(
        tuple(os.path.join(*place) for place in own)
    )


class _Warnings:
    """Shows each warning in a line, and the same one once."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(
        self, message: Warning | str, category: type[Warning], *_: object, **__: object
    ) -> None:
        is_note = category.__name__ == "ConfigWarning"  # its module is not imported for this
        text = str(message)
        if "missing from font" in text:  # matplotlib's, one for each character
            text = "no font of matplotlib has some characters of a name: pictures show boxes there"
        if text not in self._said:
            self._said.add(text)
            _say(f"{'note' if is_note else 'warning'}: {text}")


def _say(text: str) -> None:
    print(f"dqx: {' '.join(text.split())}", file=sys.stderr, flush=True)
