"""What a user calls to tune: `tune` searches and retrains the winner, `resume_tune` goes on.

Both hand the training of studies to the loop in `dqx.study.tuning.search`.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from dqx import run
from dqx.arguments import FLAG, FUNCTION, PATH, SECONDS, TEXT, maybe, require
from dqx.compute.devices import select_devices
from dqx.files import Staging
from dqx.report import tune_picture
from dqx.report.picture import Picture
from dqx.settings import ConfigError
from dqx.study.engine import CHECKPOINT_SECONDS
from dqx.study.folder import StudyError
from dqx.study.identity import differences, identity
from dqx.study.lock import Lock
from dqx.study.plan import Plan
from dqx.study.results import Study
from dqx.study.sealed import write_sealed
from dqx.study.sinks import Sink
from dqx.study.tuning import folder as folders
from dqx.study.tuning import records
from dqx.study.tuning.file import Tune, read_tune
from dqx.study.tuning.folder import TuneFolder
from dqx.study.tuning.proposals import Optuna, check_installed, version
from dqx.study.tuning.results import Tuned, found, load_tune
from dqx.study.tuning.search import Search, Unfinished

Watch = Callable[[str], Sequence[Sink]]


def tune(
    source: str | os.PathLike[str] | Mapping[str, Any] | Tune,
    out: str | os.PathLike[str] | None = None,
    *,
    devices: str | Sequence[jax.Device] | None = None,
    overwrite: bool = False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    replay_checkpoint: bool = True,
    command: str | None = None,
    progress: Callable[[str], None] = lambda text: None,
    watch: Watch = lambda name: [],
) -> Tuned:
    """Searches for good settings, and retrains the best on fresh seeds, which alone give its score.

    A search that was stopped goes on with the same bits when it is called again; of a finished one
    nothing is trained again.

    Args:
        source: a TOML file, a dictionary of the same form, or a `Tune`.
        out: the folder to write; ``runs/NAME`` if left out.
        devices: as of ``dqx.study.run``.
        overwrite: replace an older search in that folder.
        checkpoint_seconds: as of ``dqx.study.run``.
        replay_checkpoint: as of ``dqx.study.run``.
        command: the command line, for the record.
        progress: called with a line after every rung.
        watch: ``watch(name)`` gives the sinks that watch the study of that name.

    Raises:
        StudyError: for a file or a folder that cannot be used.
        ConfigError: for a field or a value that there is not, or if Optuna is not installed.
        StudyInterrupted: after Ctrl-C; calling again goes on.
    """
    require(
        ConfigError,
        overwrite=(overwrite, FLAG),
        checkpoint_seconds=(checkpoint_seconds, SECONDS),
        replay_checkpoint=(replay_checkpoint, FLAG),
        command=(command, maybe(TEXT)),
        progress=(progress, FUNCTION),
        watch=(watch, FUNCTION),
    )
    select_devices(devices)  # none that there are not are asked for
    asked = read_tune(source)
    require(StudyError, out=(out, maybe(PATH)))
    path = Path(out) if out is not None else Path("runs") / asked.name
    folder = TuneFolder(path)
    if folders.is_tune(path) and not overwrite:
        record = records.read_search(folder)
        records.check_same(folder, record, asked, "")
    else:
        Search(asked).first_plan(Optuna(asked))  # a space of which nothing works is told now
        _make(path, records.search_record(asked, version(asked.sampler), command), overwrite)
    trainer = _Trainer(folder, devices, checkpoint_seconds, replay_checkpoint, watch)
    return _run(folder, trainer, progress)


def resume_tune(
    path: str | os.PathLike[str],
    *,
    devices: str | Sequence[jax.Device] | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    replay_checkpoint: bool = True,
    progress: Callable[[str], None] = lambda text: None,
    watch: Watch = lambda name: [],
) -> Tuned:
    """Goes on with a search that was stopped or killed.

    Args:
        path: its folder.
        devices: as of `tune`, as what follows.
        checkpoint_seconds: see there.
        replay_checkpoint: see there.
        progress: see there.
        watch: see there.

    Raises:
        StudyError: if it holds no search; else as `tune`.
    """
    return tune(
        records.tune_of(records.read_search(TuneFolder(path))),
        path,
        devices=devices,
        checkpoint_seconds=checkpoint_seconds,
        replay_checkpoint=replay_checkpoint,
        progress=progress,
        watch=watch,
    )


def _make(path: Path, record: Mapping[str, Any], overwrite: bool) -> None:
    """Makes a search's folder, whole or not at all."""

    def replaces(target: Path) -> bool:
        return folders.replaces(target, overwrite)

    with Staging(path, replaces, folders.is_ours) as staging, folders.written(TuneFolder(path)):
        write_sealed(TuneFolder(staging.folder).search, record)
        staging.commit()


def _run(folder: TuneFolder, trainer: "_Trainer", progress: Callable[[str], None]) -> Tuned:
    """Takes a search to its end, and writes what was found."""
    if folder.result.is_file() and folder.picture.is_file():
        return load_tune(folder.path)
    record = records.read_search(folder)
    asked, mark = records.tune_of(record), record["search_seal"]
    check_installed(asked.sampler)
    records.check_same(folder, record, asked, version(asked.sampler))
    folders.check_free(folder.path)
    with _explained(folder), Lock(folder.path):
        folders.tidy(folder)
        search = Search(asked)
        search.run(_Keeping(Optuna(asked), folder, mark), trainer, progress)
        result = Tuned(folder.path, search)
        tune_picture.draw(folder.picture, result)
        write_sealed(folder.result, records.result_record(search, mark))
    return result


class _Keeping:
    """A proposer whose proposals are written down, or compared with what was."""

    def __init__(self, proposer: Optuna, folder: TuneFolder, mark: str) -> None:
        self._proposer, self._folder, self._mark = proposer, folder, mark

    def ask(self, generation: int) -> list[dict[str, Any]]:
        candidates = self._proposer.ask(generation)
        records.keep_candidates(self._folder, self._mark, generation, candidates)
        return candidates

    def tell(self, values: Sequence[float | None]) -> None:
        self._proposer.tell(values)


class _Trainer:
    """Trains the studies of a search, unless they are finished: all with the same software."""

    def __init__(
        self,
        folder: TuneFolder,
        devices: str | Sequence[jax.Device] | None,
        checkpoint_seconds: float,
        replay_checkpoint: bool,
        watch: Watch,
    ) -> None:
        self._folder, self._devices, self._watch = folder, devices, watch
        self._seconds, self._checkpoints = checkpoint_seconds, replay_checkpoint
        self._identity: dict[str, str] = {}

    def __call__(self, place: str, plan: Plan) -> Study:
        """See `dqx.study.tuning.search.Obtain`."""
        try:
            study = found(self._folder, place, plan)
        except Unfinished:
            study = self._train(place, plan)
        self._check(study.plan["identity"])
        self._identity |= study.plan["identity"]
        return study

    def _train(self, place: str, plan: Plan) -> Study:
        configs = [point.config for point in plan.points]
        places = select_devices(self._devices)
        self._check(identity(places, {c.agent for c in configs}, {c.env for c in configs}))
        is_last = place == self._folder.fresh.name
        return run.run(
            plan,
            self._folder.path / place,
            devices=places,
            go_on=True,
            sinks=[*self._watch(plan.name), *([Picture()] if is_last else [])],
            checkpoint_seconds=self._seconds,
            replay_checkpoint=self._checkpoints,
        )

    def _check(self, present: Mapping[str, str]) -> None:
        """Refuses to compare candidates that were trained by different software."""
        common = present.keys() & self._identity.keys()
        then, now = ({name: by[name] for name in common} for by in (self._identity, present))
        apart = differences(then, now)
        if apart:
            raise StudyError(
                f"{self._folder.path} cannot go on here, since bits might differ: "
                f"{'; '.join(apart)}. Resume it with what it was begun with, or start anew in "
                "another folder"
            )


@contextmanager
def _explained(folder: TuneFolder) -> Iterator[None]:
    """Says of what stops a search what is kept and how to go on."""
    try:
        with folders.written(folder):
            yield
    except KeyboardInterrupt:
        raise run.StudyInterrupted(
            f"interrupted; what was trained so far is in {folder.path}. Go on with: dqx tune "
            f"resume {folder.path}"
        ) from None
