"""Weights & Biases: a run of theirs for each configuration or seed; offline where they are told."""

import contextlib
import dataclasses
import importlib.util
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dqx.files import write_json
from dqx.report.trackers.scalars import Scalars, TrackedRun
from dqx.settings import ConfigError
from dqx.study import forms, strict
from dqx.study.entries import StudyError, refuse_unless


class WandB(Scalars):
    """Logs every row to Weights & Biases (``WANDB_MODE=offline`` keeps it on this machine).

    A resumption goes on with the same runs, whose names at Weights & Biases are kept in the
    study's folder. Online, steps that are there already are left out; what was logged offline is
    not read back, so there a resumption may log some steps once more, with the same numbers.

    Args:
        project: that the runs belong to.
        runs: ``"config"`` or ``"seed"``, see `Scalars`.
        group: what the study is called there; the plan's name if left out.
        folder: the study's; the files of wandb go into its folder ``wandb``.

    Raises:
        ConfigError: if the package ``wandb`` is not installed, or as `Scalars` does.
    """

    def __init__(
        self,
        project: str = "dqx",
        runs: str = "config",
        *,
        group: str | None = None,
        folder: str | os.PathLike[str] = ".",
    ) -> None:
        super().__init__(runs)
        if importlib.util.find_spec("wandb") is None:
            raise ConfigError(
                "Weights & Biases are reached by the package wandb, which is not installed: "
                "pip install 'dqx[wandb]'"
            )
        self._project, self._group, self._folder = project, group, Path(folder)
        self._opened: dict[str, Any] = {}

    def last(self, run: TrackedRun) -> int:
        found = self._run(run)
        return int(found.starting_step) - 1 if found.resumed else -1

    def write(self, run: TrackedRun, step: int, values: Mapping[str, float]) -> None:
        self._run(run).log(dict(values), step=step)

    def close(self) -> None:
        with contextlib.ExitStack() as stack:
            for run in self._opened.values():
                stack.callback(run.finish)
        self._opened.clear()

    def _run(self, run: TrackedRun) -> Any:
        if run.name not in self._opened:
            import wandb

            config = dataclasses.asdict(run.point.config) | dataclasses.asdict(run.point.hyper)
            self._opened[run.name] = wandb.init(
                project=self._project,
                group=self._group or self._plan.name,
                name=run.name,
                id=self._number(run),
                resume="allow",
                config={**config, "seeds": len(self._plan.seeds), "seed": run.seed},
                dir=str(self._folder),
                reinit="create_new",
                settings=wandb.Settings(silent=True, console="off"),
            )
        return self._opened[run.name]

    def _number(self, run: TrackedRun) -> str:
        """What a run is called at Weights & Biases, the same after a resumption."""
        path = self._folder / "wandb" / "dqx-runs.json"
        known = _known(path)
        if run.name not in known:
            known[run.name] = secrets.token_hex(6)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, known)
        return known[run.name]


def _known(path: Path) -> dict[str, str]:
    """The names that a file of runs holds; none if it holds anything else, which is begun anew.

    Raises:
        StudyError: if a link, a pipe or the like is in its place, or in that of its folder.
    """
    for place, wanted in ((path.parent, "a folder"), (path, "a file")):
        refuse_unless(place, wanted)
    with contextlib.suppress(StudyError, FileNotFoundError):
        known = strict.read(path)
        strict.check(path, known, forms.TRACKED)
        return dict(known)
    return {}
