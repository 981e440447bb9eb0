"""Environments that users bring along, named "package.module:Class"."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from gymnax.environments.environment import Environment

from envs import adapters
from envs.errors import UnusableEnvironment, did_you_mean, in_one_line

BASE = "gymnax.environments.environment.Environment"
_LIBRARIES = frozenset({"builtins", "envs", "flax", "gymnax", "jax", "jaxlib"})


def module_name(name: str) -> str:
    """Name the module of "package.module:Class".

    Raises UnusableEnvironment for a name that is not written this way.
    """
    return _parts(name)[0]


def is_foreign_module(module: str) -> bool:
    """Whether `module` is neither this package's nor gymnax's, JAX's, flax's or Python's own."""
    top = module.partition(".")[0]
    return top not in _LIBRARIES and top not in sys.stdlib_module_names


def load(name: str) -> Callable[..., Any]:
    """Import the module of "package.module:Class" and return the class or function.

    A module is looked for where Python looks for any (`sys.path`). Raises UnusableEnvironment if
    there is none, if it fails (after its own error), or if it has no such class or function.
    """
    module, attribute = _parts(name)
    found = _imported(module)
    if not hasattr(found, attribute):
        raise UnusableEnvironment(_no_attribute(found, attribute))
    target = getattr(found, attribute)
    if isinstance(target, type) and not issubclass(target, Environment):
        bases = ", ".join(f"{base.__module__}.{base.__qualname__}" for base in target.__bases__)
        raise UnusableEnvironment(
            f"{name} is a class derived from {bases}; derive it from {BASE}, since only "
            "environments written in JAX can be trained on"
        )
    if not callable(target):
        kind = type(target).__name__
        raise UnusableEnvironment(
            f"{name} is an object of type {kind}; name a class derived from {BASE}, or a function "
            "that returns an instance of one"
        )
    return target


def make(name: str, options: Mapping[str, Any]) -> tuple[Environment, Any]:
    """Build the environment "package.module:Class" and its default parameters.

    Raises UnusableEnvironment for whatever keeps it from being built, see `load`; an error of the
    environment's own comes first.
    """
    target = load(name)
    _check_options(name, target, options)
    try:
        env = target(**options)
    except Exception as error:
        raise UnusableEnvironment(f"{name} cannot be made: {in_one_line(error)}") from error
    if not isinstance(env, Environment):
        kind = type(env).__name__
        raise UnusableEnvironment(
            f"{name} is a function that returned an object of type {kind}; it must return an "
            f"instance of a class derived from {BASE}"
        )
    try:
        return env, env.default_params
    except Exception as error:
        raise UnusableEnvironment(f"{name} has no default_params: {in_one_line(error)}") from error


def defined_in(factory: Any) -> str:
    """Name the module in which a class or function is defined, that of `functools.partial` too."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    return str(factory.__module__)


def source_files(classes: Iterable[type], modules: Iterable[str] = ()) -> list[Path]:
    """List the files of foreign modules: those of `classes` and of their bases, and `modules`.

    Each file once, sorted. Raises UnusableEnvironment for a foreign module without a file, such
    as a notebook.
    """
    lineage = {base.__module__ for one in classes for base in one.__mro__}
    files = set()
    for module in filter(is_foreign_module, lineage | set(modules)):
        file = getattr(sys.modules.get(module), "__file__", None)
        if file is None or not Path(file).is_file():
            raise UnusableEnvironment(
                f"the module {module} has no source file, so a change of it could not be noticed; "
                "put the environment into a file that can be imported"
            )
        files.add(Path(file).resolve())
    return sorted(files)


def _parts(name: str) -> tuple[str, str]:
    module, _, attribute = name.partition(":")
    if all(part.isidentifier() for part in (*module.split("."), attribute)):
        return module, attribute
    likely = module.removesuffix(".py").strip("./\\").replace("/", ".").replace("\\", ".")
    hint = f", here perhaps {likely}:{attribute or 'Class'}" if likely else ""
    raise UnusableEnvironment(
        f"{name!r} names no environment: one of your own is given as package.module:Class, the "
        f"module as after `import`{hint}"
    )


def _imported(module: str) -> ModuleType:
    if module in sys.modules:
        return sys.modules[module]
    # A file that was written a moment ago is found, too.
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = str(error.name)
        if module != missing and not module.startswith(f"{missing}."):
            raise _failed(module, error) from error
        raise UnusableEnvironment(
            f"there is no module {module!r} ({error}): {_meant(module)}it must lie in the current "
            "folder (the class Maze of games.py is games:Maze), be installed, or be found on "
            "PYTHONPATH"
        ) from None
    except (Exception, SystemExit) as error:
        raise _failed(module, error) from error


def _meant(module: str) -> str:
    """What may have been meant by a module that there is not: a file's name, or a suite's."""
    if module.endswith(".py"):
        return f"write {module.removesuffix('.py')}, without .py; "
    return did_you_mean(f"{module}:", [f"{prefix}:" for prefix in adapters.SUITES])


def _failed(module: str, error: BaseException) -> UnusableEnvironment:
    return UnusableEnvironment(
        f"the module {module!r} fails when it is imported: {in_one_line(error)}"
    )


def _no_attribute(module: ModuleType, attribute: str) -> str:
    offered = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Environment) and value is not Environment
    ]
    public = [name for name in vars(module) if not name.startswith("_")]
    hint = did_you_mean(attribute, public)
    listed = f"its environments are {', '.join(offered)}" if offered else "it has no environments"
    return f"the module {module.__name__!r} has no {attribute!r}: {hint}{listed}"


def _check_options(name: str, target: Callable[..., Any], options: Mapping[str, Any]) -> None:
    signature = inspect.signature(target)
    try:
        signature.bind(**options)
    except TypeError as error:
        known = [
            parameter.name
            for parameter in signature.parameters.values()
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        ]
        unknown = sorted(set(options) - set(known))
        hint = "".join(did_you_mean(option, known) for option in unknown)
        given = f"with the options {sorted(options)}" if options else "without options"
        raise UnusableEnvironment(
            f"{name} cannot be made {given} ({error}): {hint}it takes {', '.join(known) or 'none'}"
        ) from None
