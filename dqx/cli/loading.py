"""Loading what a command needs: modules, late and safe from Ctrl-C, and compiled programs."""

import argparse
import importlib
import os
import signal
import sys
import threading


def use_cache(options: argparse.Namespace) -> None:
    """Keeps compiled programs for the next time, unless ``--no-cache`` is given."""
    from dqx.compute import cache

    if options.no_cache:
        cache.disable()
    else:
        cache.enable()


def load(*modules: str) -> None:
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
