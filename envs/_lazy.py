"""Modules that others import and seldom use, loaded when they are used."""

import contextlib
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def loaded_later(name: str) -> Iterator[None]:
    """Lets what is imported inside take a stand-in for a module, which loads it on first use.

    Later imports get the module itself. Nothing changes if it is loaded already.
    """
    if name in sys.modules:
        yield
        return

    def attribute(wanted: str) -> Any:
        return getattr(importlib.import_module(name), wanted)

    stand_in = types.ModuleType(name)
    stand_in.__getattr__ = attribute  # type: ignore[method-assign]
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
