"""Loading what a command needs: modules, late and safe from Ctrl-C, and compiled programs."""

import argparse
import importlib
import importlib.util
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence

from dqx.cli.shared import UsageError

_MOST_CHARACTERS = 2**20  # of a plan's file that are looked at


class ModuleFails(UsageError):
    """A module of the user's that cannot be imported; what was raised is its cause."""

    def __init__(self, module: str, error: BaseException) -> None:
        super().__init__(f"--import {module} fails: {type(error).__name__}: {error}")


def use_cache(options: argparse.Namespace) -> None:
    """Keeps compiled programs for the next time, unless ``--no-cache`` is given."""
    from dqx.compute import cache

    if options.no_cache:
        cache.disable()
    else:
        cache.enable()


def load(*modules: str, own: Sequence[str] = ()) -> None:
    """Imports modules, putting Ctrl-C off until done: during an import it may get lost.

    Args:
        modules: of dqx and of what it stands on.
        own: of the user, imported before them; they may lie in the current folder.

    Raises:
        UsageError: if one of the user's is not there or fails.
    """
    seen: list[int] = []
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    usual = usual and threading.current_thread() is threading.main_thread()
    if usual:
        signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    try:
        for module in own:
            _import_own(module)
        for module in modules:
            importlib.import_module(module)
    finally:
        if usual:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if seen:
        raise KeyboardInterrupt


def look_here() -> None:
    """Lets modules of the current folder be found from now on, after all others.

    Only where a user names one: the folder may be somebody else's study, of which nothing is run.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def look_here_for(path: str) -> None:
    """The same if a plan's file may name an environment of the user's, ``"module:Class"``.

    What is no plain file, such as a pipe, can be read once only, and is left to the plan.
    """
    if not os.path.isfile(path):
        return
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_MOST_CHARACTERS)
    except (OSError, ValueError):
        return  # which is told where it is read
    if any(
        is_of_module(name) for name in re.findall(r"""["']([^\W\d][\w.]*:[^\W\d]\w*)["']""", text)
    ):
        look_here()


def is_of_module(name: str) -> bool:
    """Whether an environment's name is ``module:Class``, and not of another suite."""
    if ":" not in name:
        return False
    load("envs")
    from envs import adapters

    return name.partition(":")[0] not in adapters.SUITES


def _import_own(module: str) -> None:
    try:
        if not all(part.isidentifier() for part in module.split(".")):
            raise ModuleNotFoundError(name=module)
        if not _is_installed(module):
            look_here()
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise UsageError(
                f"there is no module {module!r}: give one in the current folder or where "
                "Python finds it, without .py"
            ) from None
        raise ModuleFails(module, error) from error
    except (Exception, SystemExit) as error:
        raise ModuleFails(module, error) from error


def _is_installed(module: str) -> bool:
    """Whether Python finds a module outside of the current folder."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):  # of a parent; of what is no module of a file
        return False
