"""A search's folder: what is in it, what may replace it, and the records in it.

    search.json                        what is searched; written once
    generation-00/candidates.json      what was proposed
    generation-00/seeds-4/             the study that brings the candidates left to 4 seeds
    fresh/                             the study of the winner on fresh seeds
    tune.json                          the finished search as a whole
    tune.png                           its picture
    report/index.html                  its page
    lock                               of the process at work

Every study is an ordinary one. Records are sealed with a checksum of their own and that of the
search.
"""

import contextlib
import dataclasses
import datetime
import json
import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from dqx import stats
from dqx.arguments import PATH, require
from dqx.settings import ConfigError, brief
from dqx.study import entries, forms, strict
from dqx.study.entries import check_reach, refuse_unless
from dqx.study.folder import StudyError, is_free
from dqx.study.host import checkout
from dqx.study.lock import holder
from dqx.study.sealed import plain, read_sealed, seal, write_sealed
from dqx.study.tuning.file import Tune, jsonable, read_tune
from dqx.study.tuning.race import Dropped, Judged
from dqx.study.tuning.search import Candidate, Fresh, Search

FORMAT = 1
_HALF_MADE = r"\..+\.[0-9a-f]{8}\.tmp"


class TuneFolder:
    """The names within a search's folder. All are made of numbers: none comes from a file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        require(StudyError, path=(path, PATH))
        self.path = Path(path)

    @property
    def search(self) -> Path:
        return self.path / "search.json"

    @property
    def result(self) -> Path:
        return self.path / "tune.json"

    @property
    def picture(self) -> Path:
        return self.path / "tune.png"

    @property
    def report(self) -> Path:
        return self.path / "report"

    @property
    def fresh(self) -> Path:
        return self.path / "fresh"

    def candidates(self, generation: int) -> Path:
        return self.path / f"generation-{generation:02d}" / "candidates.json"

    def leftovers(self) -> list[Path]:
        """Half-made studies and records of a process that was killed."""
        folders = [self.path, *self.path.glob("generation-*")]
        found = [path for folder in folders for path in folder.glob(".*.tmp")]
        return [p for p in found if re.fullmatch(_HALF_MADE, p.name)]


def is_tune(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a search."""
    return TuneFolder(path).search.is_file()


def search_record(tune: Tune, proposer: str, command: str | None) -> dict[str, Any]:
    """The content of ``search.json``."""
    what = {**tune.record, "proposer": proposer}
    return {
        "format": FORMAT,
        "search": what,
        "search_seal": seal(what),
        **checkout(),
        "command": command,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def read_search(folder: TuneFolder) -> dict[str, Any]:
    """Reads ``search.json``.

    Raises:
        StudyError: if there is none, it is damaged or of another version's form, or an entry of the
            folder is a link or the like.
    """
    _check_entries(folder)
    if not folder.search.is_file():
        raise StudyError(f"{folder.path} holds no search: there is no {folder.search.name} in it")
    record = read_sealed(folder.search)
    if record.get("format") != FORMAT:
        raise StudyError(
            f"{folder.search} has format {brief(record.get('format'))}, and this version of dqx "
            f"reads {FORMAT}: use the version that wrote it"
        )
    strict.check(folder.search, record, forms.SEARCH)
    if record["search_seal"] != seal(record["search"]):
        raise StudyError(f"{folder.search}: its seal is not that of the search in it")
    return record


def _check_entries(folder: TuneFolder) -> None:
    """Refuses a link, a pipe or a device under a name of the layout; studies check their own."""
    check_reach(folder.path)
    own = (folder.search, folder.result, folder.picture, folder.path / "lock")
    for path in (*own, *folder.path.glob("generation-*/candidates.json")):
        refuse_unless(path, "a file")
    generations = sorted(folder.path.glob("generation-[0-9]*"))
    studies = sorted(folder.path.glob("generation-[0-9]*/seeds-*"))
    for path in (folder.fresh, *generations, *studies):
        refuse_unless(path, "a folder")


def tune_of(record: Mapping[str, Any]) -> Tune:
    """The search of a record, checked like a new one.

    Raises:
        StudyError: if it cannot be one.
    """
    try:
        return read_tune({k: v for k, v in record["search"].items() if k != "proposer"})
    except ConfigError as error:
        raise StudyError(f"the search that is stored is of another version: {error}") from None


def check_same(folder: TuneFolder, record: Mapping[str, Any], tune: Tune, proposer: str) -> None:
    """Refuses to go on with another search, or with another proposer, which may propose others.

    Args:
        folder: for messages.
        record: of the search in the folder.
        tune: what is searched now.
        proposer: its version; empty if nothing is to be proposed.

    Raises:
        StudyError: showing both sides.
    """
    then, now = _flat(record["search"]), _flat(tune.record)
    was = then.pop("proposer")
    texts = [
        f"{key} was {_brief(then.get(key))} and is {_brief(now.get(key))} now"
        for key in dict.fromkeys([*then, *now])
        if then.get(key) != now.get(key)
    ]
    if texts:
        raise StudyError(
            f"{folder.path} holds another search: {'; '.join(texts[:5])}. Choose another folder, "
            "or --overwrite to replace it"
        )
    if proposer and was != proposer:
        raise StudyError(
            f"{folder.path} was proposed by {was}, and here is {proposer}, which may propose other "
            "candidates: install what it was begun with, or start anew in another folder"
        )


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Entries by full name, such as ``tune.space.learning_rate``."""
    found: dict[str, Any] = {}
    for key, value in record.items():
        deeper = isinstance(value, Mapping) and prefix in ("", "tune.")
        found |= _flat(value, f"{prefix}{key}.") if deeper else {f"{prefix}{key}": value}
    return found


def _brief(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def replaces(target: Path, overwrite: bool) -> bool:
    """Whether there is an old search to replace; False where there is nothing.

    Raises:
        StudyError: if something is in the way, saying what it is and what to do.
    """
    if is_free(target):
        return False
    if not is_tune(target):
        held = "a study" if (target / "plan.json").exists() else "no search of dqx"
        raise StudyError(
            f"{target} exists and holds {held}, so it is not replaced: choose another folder"
        )
    check_free(target)
    if overwrite:
        return True
    raise StudyError(
        f"{target} already holds a search: `dqx tune resume {target}` goes on with it, "
        "--overwrite replaces it"
    )


def is_ours(name: PurePath) -> bool:
    """Whether an entry of a search's folder, named relative to it, has a name of the layout."""
    top, *rest = name.parts
    if not rest:
        files = ("search.json", "tune.json", "tune.png", "lock", "report", "fresh")
        return top in files or bool(re.fullmatch(rf"generation-[0-9]{{2,}}|{_HALF_MADE}", top))
    if top == "report":
        return entries.is_ours(name)
    if top != "fresh" and not re.fullmatch(_HALF_MADE, top):
        place, *rest = rest
        if not rest:
            return bool(re.fullmatch(rf"candidates\.json|seeds-[0-9]+|{_HALF_MADE}", place))
    return entries.is_ours(PurePath(*rest))


def check_free(target: Path) -> None:
    """Raises `StudyError` if another process works on a search."""
    working = holder(target)
    if working is not None:
        raise StudyError(
            f"{target} is being worked on by {working}: wait for it, or watch it with `dqx tune "
            f"status {target}`"
        )


def tidy(folder: TuneFolder) -> None:
    """Deletes what a killed process has left half-made."""
    for path in folder.leftovers():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def keep_candidates(
    folder: TuneFolder, mark: str, generation: int, candidates: Sequence[Mapping[str, Any]]
) -> None:
    """Writes what was proposed, or compares it with what was proposed before.

    Raises:
        StudyError: if it was something else.
    """
    path = folder.candidates(generation)
    given = [jsonable(values) for values in candidates]
    if path.exists():
        if read_candidates(folder, mark, generation) != given:
            raise StudyError(
                f"{path}: other candidates were proposed then, so this search cannot go on with "
                "the same bits: start anew in another folder"
            )
        return
    path.parent.mkdir(exist_ok=True)
    content = {"search_seal": mark, "generation": generation, "candidates": given}
    write_sealed(path, content)


def read_candidates(folder: TuneFolder, mark: str, generation: int) -> list[dict[str, Any]]:
    """What `keep_candidates` wrote.

    Raises:
        StudyError: if it is missing, damaged, or of another search.
    """
    path = folder.candidates(generation)
    record = read_sealed(path, forms.CANDIDATES)
    if record["search_seal"] != mark or record["generation"] != generation:
        raise StudyError(f"{path}: it belongs to another search than {folder.search}")
    candidates: list[dict[str, Any]] = record["candidates"]
    return candidates


def result_record(search: Search, mark: str) -> dict[str, Any]:
    """The content of ``tune.json``: a function of the search's studies alone, so without a date."""
    winner, fresh = search.champion, search.fresh
    assert winner is not None and winner.judged is not None and fresh is not None
    return {
        "format": FORMAT,
        "search_seal": mark,
        "name": search.tune.name,
        "seeds": list(search.tune.seeds),
        "fresh_seeds": list(search.tune.fresh),
        "candidates": [candidate_record(one) for one in search.candidates],
        "winner": winner.number,
        "winner_values": jsonable(winner.values),
        "search_value": _judged(winner.judged),
        "score": _judged(fresh.score),
        "fresh_scores": [plain(score) for score in fresh.scores],
        "optimism": {k: plain(float(v)) for k, v in fresh.optimism._asdict().items()},
        "studies": [
            {"place": place, "runs": len(digests), "digest": _together(digests)}
            for place, digests in search.studies.items()
        ],
    }


def read_result(folder: TuneFolder, tune: Tune, mark: str) -> dict[str, Any]:
    """Reads ``tune.json``.

    Raises:
        StudyError: if it is damaged, of another search, or does not fit the search.
    """
    path = folder.result
    record = read_sealed(path, forms.RESULT)
    if record["search_seal"] != mark:
        raise StudyError(f"{path}: it belongs to another search than {folder.search}")
    found = record["candidates"]
    if record["winner"] >= len(found):
        raise StudyError(f"{path}: there is no candidate {record['winner']}, which has won")
    winner = found[record["winner"]]
    counts = (len(record["fresh_scores"]), len(winner["scores"]), winner["history"] != [])
    if counts != (len(tune.fresh), len(tune.seeds), True):
        raise StudyError(f"{path}: its winner has not been judged on all seeds")
    for number, one in enumerate(found):
        same = -1 if one["same_as"] is None else one["same_as"]
        is_known = one["number"] == number and one["generation"] < tune.generations
        if not is_known or same >= number or len(one["scores"]) > len(tune.seeds):
            raise StudyError(f"{path}: candidate {number} is none of the search")
    return record


def search_of(tune: Tune, record: Mapping[str, Any]) -> Search:
    """The finished search that `result_record` wrote, whatever rule this version of dqx has.

    Args:
        tune: what was searched.
        record: as `read_result` gives it.
    """
    search = Search(tune, [_candidate_of(one) for one in record["candidates"]])
    search.champion = search.candidates[record["winner"]]
    search.generation = tune.generations - 1
    search.fresh = Fresh(
        scores=tuple(map(_nan, record["fresh_scores"])),
        score=_judged_of(record["score"]),
        optimism=stats.Estimate(
            *np.array([_nan(record["optimism"][end]) for end in stats.Estimate._fields])
        ),
    )
    return search


def candidate_record(one: Candidate) -> dict[str, Any]:
    """A candidate as JSON."""
    dropped = None
    if one.dropped is not None:
        dropped = {"rule": one.dropped.rule, "bar": plain(one.dropped.bar)}
    return {
        "number": one.number,
        "generation": one.generation,
        "name": one.name,
        "values": jsonable(one.values),
        "state": one.state,
        "scores": [plain(score) for score in one.scores],
        "history": [_judged(judged) for judged in one.history],
        "dropped": dropped,
        "same_as": one.same_as,
        "why": one.why,
    }


def _candidate_of(record: Mapping[str, Any]) -> Candidate:
    names = [field.name for field in dataclasses.fields(Candidate)]
    fields = {name: record[name] for name in names}
    dropped = fields.pop("dropped")
    if dropped is not None:
        bar = -math.inf if dropped["bar"] is None else dropped["bar"]
        dropped = Dropped(dropped["rule"], bar)
    return Candidate(
        **{
            **fields,
            "scores": list(map(_nan, record["scores"])),
            "history": list(map(_judged_of, record["history"])),
            "dropped": dropped,
        }
    )


def _judged_of(record: Mapping[str, Any]) -> Judged:
    fields: dict[str, Any] = {name: _nan(record[name]) for name in Judged._fields}
    return Judged(**fields)


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def _judged(judged: Judged) -> dict[str, Any]:
    return {name: plain(value) for name, value in judged._asdict().items()}


def _together(digests: Mapping[tuple[str, int], str]) -> str:
    """One digest of a study's runs."""
    return seal({f"{config}, seed {seed}": value for (config, seed), value in digests.items()})


@contextlib.contextmanager
def written(folder: TuneFolder) -> Any:
    """Says of a failed write what is kept and how to go on."""
    try:
        yield
    except OSError as error:
        raise StudyError(
            f"cannot write {error.filename or folder.path}: {error.strerror or error}; nothing "
            f"that was finished is lost. When that is mended: dqx tune resume {folder.path}"
        ) from error
