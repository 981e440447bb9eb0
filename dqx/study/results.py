"""Reading a study: tables, arrays, parameters and digests. Needs no accelerator and no JAX."""

import contextlib
import functools
import math
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dqx.arguments import TEXT, maybe, require, whole
from dqx.compute.digest import nested
from dqx.settings import Config, Hyper, environments, from_record, row_steps
from dqx.study import contents, forms
from dqx.study.folder import Folder, ForeignRecord, StudyError, read_failures, read_plan_record
from dqx.study.planned import Planned
from dqx.study.sealed import read_sealed
from dqx.study.shelf import Shelf

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from dqx.compute.trained import TrainedAgent


def load(path: str | os.PathLike[str]) -> "Study":
    """Opens a study's folder, finished or not.

    Args:
        path: the folder.

    Raises:
        StudyError: if it holds no study, or a record is damaged.
    """
    return Study(Folder(path))


class Runs(NamedTuple):
    """Finished runs of a configuration, in the order of the plan's seeds.

    Attributes:
        seeds: int64 ``[S]``.
        scores: float64 ``[S]``, NaN where a run has none that is finite.
        diverged_at: int64 ``[S]``, -1 for never.
    """

    seeds: np.ndarray
    scores: np.ndarray
    diverged_at: np.ndarray


class Study:
    """What a study has found so far. Files are read when asked for, and checked by their checksums.

    Attributes:
        path: the folder.
        plan: the content of ``plan.json``.
        configs: names of the configurations, in the order of the plan.
        seeds: in the order of the plan.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self.path = folder.path
        self.plan = read_plan_record(folder)
        self.configs: tuple[str, ...] = tuple(point["name"] for point in self.plan["points"])
        self.seeds: tuple[int, ...] = tuple(self.plan["seeds"])
        self._rank = {name: i for i, name in enumerate(self.configs)}
        self._place = {seed: i for i, seed in enumerate(self.seeds)}
        self._planned = Planned(self.plan)
        with self._repair():
            seal = self.plan["sha256"]
            self._shelf = Shelf(folder, seal, self._planned, self._rank, self._place)

    @functools.cached_property
    def runs(self) -> list[dict[str, Any]]:
        """Of every finished run: config, seed, digest, diverged_at, score, what was drawn, chunk.

        Configuration by configuration, each in the order of the seeds.
        """
        return self._shelf.runs()

    @property
    def num_finished(self) -> int:
        """How many runs are finished."""
        return len(self._shelf.index.chunk)

    @property
    def finished(self) -> bool:
        """Whether every run is on disk."""
        return self.num_finished == len(self.configs) * len(self.seeds)

    @property
    def machines(self) -> dict[int, str]:
        """The machine that trained each finished chunk, as far as its record tells."""
        return self._shelf.machines()

    @property
    def failures(self) -> dict[int, str]:
        """Why chunks were set aside, by their number; `dqx.study.resume` tries them again."""
        return read_failures(self._folder, self.plan["sha256"])

    @property
    def diverged(self) -> list[tuple[str, int, int]]:
        """Configuration, seed and step of each run that diverged, in the order of the plan."""
        index = self._shelf.index
        rows = np.flatnonzero(index.diverged_at >= 0)
        columns = (index.config[rows], index.seed[rows], index.diverged_at[rows])
        return [
            (self.configs[c], self.seeds[s], int(step)) for c, s, step in zip(*columns, strict=True)
        ]

    @functools.cached_property
    def manifest(self) -> dict[str, Any]:
        """``manifest.json`` of a finished study; of an unfinished one, its plan."""
        path = self._folder.manifest
        if not path.exists():
            return self.plan
        runs = len(self.configs) * len(self.seeds)
        with self._repair():
            found = read_sealed(path, forms.MANIFEST, runs)
            if found.get("plan_seal") != self.plan["sha256"]:
                raise StudyError(f"{path}: it belongs to another study")
        return found

    @functools.cached_property
    def metrics(self) -> "pandas.DataFrame":
        """One row a configuration, seed and step: config, varied fields, seed, step, metrics."""
        return self.frame("metrics")

    @functools.cached_property
    def episodes(self) -> "pandas.DataFrame":
        """One row a training episode: config, varied fields, seed, last step, return, length."""
        return self.frame("episodes")

    @functools.cached_property
    def steps(self) -> np.ndarray:
        """Every step at which a configuration has a row of metrics, int64 ``[K]``, rising."""
        found = {tuple(row_steps(config)) for config, _ in self._settings.values()}
        return np.unique(np.concatenate([np.array(steps, np.int64) for steps in found]))

    @property
    def digests(self) -> dict[tuple[str, int], str]:
        """The SHA-256 over metrics and parameters of each finished run, by (config, seed)."""
        return {(run["config"], run["seed"]): run["digest"] for run in self.runs}

    def absent(self) -> list[str]:
        """Data files of finished runs that are not there, or not as long as they were written.

        Their content is not read: `dqx verify` and `dqx study resume` do that.
        """
        wrong = []
        for path, size in self._shelf.files().items():
            try:
                whole = path.stat().st_size == size
            except OSError:
                whole = False
            if not whole:
                wrong.append(str(path.relative_to(self.path)))
        return wrong

    def digest(self) -> str:
        """The SHA-256 of the whole study, from all of its files: see ``docs/verify.md``.

        It is that of everything that was asked and found: settings, metrics, episodes, parameters,
        snapshots, scores and divergence of every run. The same study, trained elsewhere with the
        same bits, has the same one.

        Raises:
            StudyError: if it is not finished, or a file is damaged.
        """
        from dqx.study.whole import study_digest

        if not self.finished:
            raise StudyError(f"{self.path} is not finished, and only a whole study has a digest")
        return study_digest(self)

    def to_arrays(self, metric: str) -> np.ndarray:
        """A metric as float32 ``[configs, seeds, K]`` on ``steps``, NaN where there is no number.

        Raises:
            StudyError: if there is no such metric.
        """
        require(StudyError, metric=(metric, TEXT))
        shape = (len(self.configs), len(self.seeds), len(self.steps))
        contents.check_room(self.path, 4 * math.prod(shape))
        values = np.full(shape, np.nan, np.float32)
        known: dict[str, None] = {}
        index = self._shelf.index
        with self._repair():
            for piece in self._shelf.pieces("metrics", {metric}):
                names = piece.names[piece.names.index("step") + 1 :]
                known |= dict.fromkeys(names)
                if metric not in names:  # agents differ in their metrics
                    continue
                of, steps = self._shelf.owners(piece)
                rows = np.searchsorted(self.steps, steps)
                column = piece.table.column(metric).to_numpy()
                values[index.config[of], index.seed[of], rows] = column
        if known and metric not in known:
            raise StudyError(
                f"there is no metric {metric!r} in {self.path}; there are: {', '.join(known)}"
            )
        return values

    def params(self, config: str | None, seed: int, step: int | None = None) -> dict[str, Any]:
        """The online parameters of a run as nested dictionaries of arrays.

        Args:
            config: its name; None will do if there is only one.
            seed: one of ``seeds``.
            step: of a snapshot; the final parameters if left out.

        Raises:
            StudyError: if there is no such run, it is not finished, or there is no such snapshot.
        """
        require(StudyError, step=(step, maybe(whole(0))))
        chunk, lane = self._find(config, seed)
        arrays = self._arrays(chunk, step)
        return nested({name: values[lane] for name, values in arrays.items()})

    def point(self, config: str | None = None) -> tuple[Config, Hyper]:
        """The settings of a configuration, as trained.

        Args:
            config: its name; None will do if there is only one.

        Raises:
            StudyError: if there is no such configuration.
            ConfigError: if its agent is not known here: import the module that registers it.
        """
        return self._settings[self._name(config)]

    def agent(
        self, config: str | None = None, seed: int | None = None, step: int | None = None
    ) -> "TrainedAgent":
        """The trained agent of a run: its network with its parameters, and how it acts.

        >>> dqx.load("runs/cartpole").agent().act(obs)

        Args:
            config: name of the configuration; None will do if there is only one.
            seed: one of ``seeds``; the first that is finished if left out.
            step: of a snapshot; the final parameters if left out.

        Raises:
            StudyError: as `params` does.
            ConfigError: if the environment is a class of one's own whose module is not imported.
        """
        from dqx.compute.trained import TrainedAgent  # needs JAX, which reading does not

        name = self._name(config)
        if seed is None:
            there = self._shelf.index.of(self._rank[name])
            places = self._shelf.index.seed[there]
            seed = self.seeds[places[0] if len(places) else 0]
        params = self.params(name, seed, step)  # before the environment: a mistake is told first
        point, hyper = self.point(name)
        environments.check_loaded(point.env)
        drawn = environments.drawn(point, self.plan["root_seed"], [seed])
        numbers = {**hyper.extra, **{name: values[0] for name, values in drawn.items()}}
        return TrainedAgent(point, params, environments.inputs(point, numbers))

    def scores(self, config: str | None = None) -> np.ndarray:
        """The scores of a configuration's finished runs, in the order of their seeds.

        A score is the last exact return where it is measured, else the last greedy one, else that
        of training; NaN where it is not finite.
        """
        return self.finished_runs(config).scores

    def finished_runs(self, config: str | None = None) -> Runs:
        """What the records say of a configuration's finished runs; no data file is read.

        Args:
            config: its name; None will do if there is only one.

        Raises:
            StudyError: if there is no such configuration.
        """
        index = self._shelf.index
        there = index.of(self._rank[self._name(config)])
        seeds = np.array(self.seeds, np.int64)[index.seed[there]]
        return Runs(seeds, index.score[there].copy(), index.diverged_at[there].copy())

    def curves(self, config: str | None, seed: int) -> dict[str, np.ndarray]:
        """The rows of metrics of one run: ``"step"`` int64 ``[K]``, all else float32 ``[K]``."""
        chunk, lane = self._find(config, seed)
        table = self._table("metrics", chunk)
        count = table.num_rows // int((self._shelf.index.chunk == chunk).sum())
        rows = slice(lane * count, (lane + 1) * count)
        names = table.column_names[table.column_names.index("step") :]
        return {name: table.column(name).to_numpy()[rows] for name in names}

    def _table(self, kind: str, chunk: int) -> "pyarrow.Table":
        """The rows of one chunk, as they were written."""
        with self._repair():
            return self._shelf.table(kind, chunk)

    def _snapshots(self, chunk: int) -> list[int]:
        """The steps of a chunk's snapshots, rising."""
        return sorted(self._shelf.snapshots(chunk))

    def _arrays(self, chunk: int, step: int | None = None) -> dict[str, np.ndarray]:
        """The parameters of a chunk's runs by path, final or at a step; leading axis: the runs."""
        there = self._snapshots(chunk)
        if step is not None and step not in there:
            taken = ", ".join(map(str, there)) or "none (snapshot_every of the plan is 0)"
            raise StudyError(f"there is no snapshot at step {step!r}; there are: {taken}")
        with self._repair():
            return self._shelf.arrays(chunk, step)

    @functools.cached_property
    def _settings(self) -> dict[str, tuple[Config, Hyper]]:
        points = self.plan["points"]
        return {p["name"]: from_record(p["config"], p["hyper"]) for p in points}

    def _name(self, config: str | None) -> str:
        if config is None and len(self.configs) == 1:
            config = self.configs[0]
        require(StudyError, config=(config, maybe(TEXT)))
        if config not in self._rank:
            raise StudyError(
                f"there is no configuration {config!r} in {self.path}; there are: "
                f"{'; '.join(self.configs[:20])}"
            )
        return str(config)

    def _find(self, config: str | None, seed: int) -> tuple[int, int]:
        config = self._name(config)
        require(StudyError, seed=(seed, whole(0)))
        if seed not in self._place:
            raise StudyError(f"there is no seed {seed!r} in {self.path}: see its `seeds`")
        index = self._shelf.index
        there = index.of(self._rank[config])
        at = there.start + int(np.searchsorted(index.seed[there], self._place[seed]))
        if at == there.stop or index.seed[at] != self._place[seed]:
            raise StudyError(f"seed {seed} of {config} is not finished in {self.path}")
        return int(index.chunk[at]), int(index.lane[at])

    def frame(
        self,
        kind: str,
        columns: Sequence[str] | None = None,
        configs: Sequence[str] | None = None,
    ) -> "pandas.DataFrame":
        """A part of `metrics` or `episodes`, of which nothing else is kept in memory.

        Args:
            kind: ``"metrics"`` or ``"episodes"``.
            columns: that are read beside config, seed and step; all if left out.
            configs: names of configurations; all if left out.

        Raises:
            StudyError: if no run is finished, or there is no such column or configuration.
        """
        from dqx.study import frames

        asked = None if configs is None else [self._name(config) for config in configs]
        return frames.frame(self, kind, columns, asked)

    @contextlib.contextmanager
    def _repair(self) -> Iterator[None]:
        """Tells how a damaged file is mended."""
        try:
            yield
        except ForeignRecord:  # nothing is trained over those
            raise
        except StudyError as error:
            raise StudyError(
                f"{error}. `dqx study resume {self.path}` trains its runs again"
            ) from None
