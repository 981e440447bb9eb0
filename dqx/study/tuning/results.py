"""Reading a search: how far it is, its candidates, and the winner's score. Needs no JAX."""

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dqx import stats
from dqx.study.finish import has_manifest
from dqx.study.folder import Folder, StudyError
from dqx.study.plan import Plan
from dqx.study.results import Study, load
from dqx.study.tuning.file import Tune, jsonable
from dqx.study.tuning.folder import TuneFolder
from dqx.study.tuning.proposals import Optuna, Recorded
from dqx.study.tuning.race import Judged
from dqx.study.tuning.records import (
    read_candidates,
    read_result,
    read_search,
    result_record,
    search_of,
    tune_of,
)
from dqx.study.tuning.search import Candidate, Fresh, Search, Unfinished


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What a finished search has found.

    Attributes:
        path: its folder.
        search: how it went.
    """

    path: Path
    search: Search

    @property
    def tune(self) -> Tune:
        """What was searched."""
        return self.search.tune

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All of them, in the order of proposing."""
        return tuple(self.search.candidates)

    @property
    def winner(self) -> Candidate:
        """The candidate that was retrained on fresh seeds."""
        assert self.search.champion is not None
        return self.search.champion

    @property
    def score(self) -> stats.Estimate:
        """Interquartile mean over fresh seeds with its interval: what the winner is worth."""
        return _estimate(self._fresh.score)

    @property
    def search_value(self) -> stats.Estimate:
        """The same on the seeds of the search, which the winner was chosen by."""
        judged = self.winner.judged
        assert judged is not None
        return _estimate(judged)

    @property
    def optimism(self) -> stats.Estimate:
        """``search_value`` minus ``score``, with the interval of that difference."""
        return self._fresh.optimism

    @property
    def fresh_scores(self) -> np.ndarray:
        """The winner's score on each fresh seed, float64 ``[F]``; NaN where it diverged."""
        return np.array(self._fresh.scores, np.float64)

    @property
    def study(self) -> Study:
        """The study of the winner on fresh seeds: curves, agents, digests."""
        return load(TuneFolder(self.path).fresh)

    @property
    def _fresh(self) -> Fresh:
        assert self.search.fresh is not None
        return self.search.fresh


def load_tune(path: str | os.PathLike[str]) -> Tuned:
    """Reads a finished search.

    Args:
        path: its folder.

    Raises:
        StudyError: if it holds no search, one that is not finished, or a damaged one.
    """
    folder = TuneFolder(path)
    record = read_search(folder)
    if not folder.result.is_file():
        raise StudyError(
            f"{path} is not finished: `dqx tune resume {path}` goes on, `dqx tune status {path}` "
            "says how far it is"
        )
    tune = tune_of(record)
    result = read_result(folder, tune, record["search_seal"])
    return Tuned(Path(path), search_of(tune, result))


def _estimate(judged: Judged) -> stats.Estimate:
    return stats.Estimate(*np.array([judged.value, judged.low, judged.high]))


def follow(path: str | os.PathLike[str]) -> Search:
    """A search as far as it has come, from its records and the scores in its studies.

    Args:
        path: its folder.

    Raises:
        StudyError: if it holds no search, or a record is damaged.
    """
    folder = TuneFolder(path)
    record = read_search(folder)
    search = Search(tune_of(record))

    def read(generation: int) -> list[dict[str, Any]]:
        path = folder.candidates(generation)
        if not path.exists():
            raise Unfinished
        candidates = read_candidates(folder, record["search_seal"], generation)
        if any(set(values) != set(search.tune.space) for values in candidates):
            raise StudyError(f"{path}: its candidates set other fields than the search")
        return candidates

    with contextlib.suppress(Unfinished):
        search.run(Recorded(read), lambda place, plan: found(folder, place, plan))
    return search


def found(folder: TuneFolder, place: str, plan: Plan) -> Study:
    """The finished study at a place.

    Raises:
        Unfinished: if it is not finished.
        StudyError: if it is another one, or damaged.
    """
    path = folder.path / place
    if not Folder(path).plan.is_file():
        raise Unfinished
    study = load(path)
    if study.configs != tuple(p.name for p in plan.points) or study.seeds != plan.seeds:
        raise StudyError(f"{path} is no study of this search, or one of another version of dqx")
    if not study.finished or not has_manifest(Folder(path)):
        raise Unfinished
    return study


def check(path: str | os.PathLike[str]) -> list[str]:
    """What in ``tune.json`` does not follow from the tune file and the studies; empty if all does.

    Candidates are proposed again, from the file's seed and the scores in the studies; then everyone
    who was dropped, the winner, its score and the optimism are derived again.

    Args:
        path: the folder of a finished search.

    Raises:
        StudyError: if it is not finished, or a record is damaged.
        ConfigError: if Optuna is not installed.
    """
    folder = TuneFolder(path)
    record = read_search(folder)
    if not folder.result.is_file():
        raise StudyError(f"{path} is not finished: `dqx tune resume {path}` goes on")
    search = follow(path)
    kept = read_result(folder, search.tune, record["search_seal"])
    del kept["sha256"]
    if search.fresh is None:
        return _missing(folder, kept)
    derived = result_record(search, record["search_seal"])
    keys = dict.fromkeys([*derived, *kept])
    texts = [f"{key} is another" for key in keys if kept.get(key) != derived.get(key)]
    proposer = Optuna(search.tune)
    for generation, values in enumerate(search.told):
        asked = [jsonable(fields) for fields in proposer.ask(generation)]
        if asked != read_candidates(folder, record["search_seal"], generation):
            return [*texts, f"generation {generation + 1} would be proposed differently"]
        proposer.tell(values)
    return texts


def _missing(folder: TuneFolder, result: Mapping[str, Any]) -> list[str]:
    """Which studies of a finished search are not whole, one text each."""
    places = [folder.path / study["place"] for study in result["studies"]]
    broken = [path for path in places if not has_manifest(Folder(path))]
    return [
        f"{path} is missing or not whole (`dqx study resume {path}` mends it if its plan is there)"
        for path in broken
    ] or ["a study that it needs is missing"]
