"""The trackers that a command line asks for."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dqx.settings import ConfigError
from dqx.settings.errors import closest
from dqx.study.sinks import Sink

FOLDER = "tensorboard"
_CALLS = ("open", "phase", "row", "finished", "progress", "complete", "close")


def chosen(
    *,
    tensorboard: str | None,
    wandb: str | None,
    runs: str,
    sinks: Sequence[str],
    study: Path,
    name: str,
    go_on: bool,
) -> list[Sink]:
    """Makes the sinks that are asked for; what is not asked for is not imported.

    Args:
        tensorboard: folder of event files; "" for one in the study's; None for none.
        wandb: project; "" for ``dqx``; None for none.
        runs: what a tracker's run is.
        sinks: sinks of a user's own, ``module:Class``.
        study: folder of the study.
        name: of the study.
        go_on: whether the study goes on.

    Raises:
        ConfigError: if a package is not installed, or a sink cannot be made.
    """
    found: list[Sink] = []
    if tensorboard is not None:
        from dqx.report.trackers.tensorboard import TensorBoard

        # What lies in a new study's folder goes with the older study that it replaces.
        inside = not tensorboard
        folder = study / FOLDER if inside else Path(tensorboard)
        found.append(TensorBoard(folder, runs, go_on=go_on or inside))
    if wandb is not None:
        from dqx.report.trackers.wandb import WandB

        found.append(WandB(wandb or "dqx", runs, group=name, folder=study))
    return [*found, *map(load_sink, sinks)]


def load_sink(text: str) -> Sink:
    """Makes a sink of a user's own.

    Args:
        text: ``module:Class``, a subclass of `Sink` or any class with its methods, made without
            arguments; the module as after ``import``.

    Raises:
        ConfigError: if there is no such module or class, it fails, or it is no sink.
    """
    module, colon, name = text.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), name)):
        raise ConfigError(
            f"a sink of one's own is given as module:Class, the module as after `import`, "
            f"got {text!r}"
        )
    kind = _attribute(module, name, text)
    try:
        sink = kind()
    except Exception as error:
        raise ConfigError(f"the sink {text} cannot be made: {_brief(error)}") from error
    missing = [call for call in _CALLS if not callable(getattr(sink, call, None))]
    if missing:
        raise ConfigError(
            f"{text} is no sink, it has no {', '.join(missing)}: derive the class from dqx.Sink, "
            "which has all of them"
        )
    return sink


def _attribute(module: str, name: str, text: str) -> Any:
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(f"the module of the sink {text} fails: {_brief(error)}") from error
        raise ConfigError(
            f"there is no module {module!r} for the sink {text}: it must lie in the current folder "
            "or where Python finds it"
        ) from None
    except Exception as error:
        raise ConfigError(f"the module of the sink {text} fails: {_brief(error)}") from error
    if not hasattr(found, name):
        public = [n for n, value in vars(found).items() if isinstance(value, type)]
        raise ConfigError(f"the module {module!r} has no {name!r}{closest(name, public)}")
    return getattr(found, name)


def _brief(error: BaseException) -> str:
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
