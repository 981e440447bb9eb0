"""The records of a search: what is searched, what was proposed, and what came out.

They are sealed with a checksum of their own and that of the search.
"""

import dataclasses
import datetime
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dqx import stats
from dqx.settings import ConfigError, brief, environments
from dqx.study import forms, strict
from dqx.study.entries import StudyError
from dqx.study.host import checkout
from dqx.study.sealed import plain, read_sealed, seal, write_sealed
from dqx.study.tuning.file import Tune, jsonable, read_tune
from dqx.study.tuning.folder import TuneFolder, check_entries
from dqx.study.tuning.race import Dropped, Judged
from dqx.study.tuning.search import Candidate, Fresh, Search

FORMAT = 1


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
    check_entries(folder)
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


def tune_of(record: Mapping[str, Any]) -> Tune:
    """The search of a record, checked like a new one.

    Raises:
        StudyError: if it cannot be one.
        ConfigError: if a module that it names would have to be imported.
    """
    for name in _environments(record["search"]):
        environments.check_loaded(name)
    try:
        return read_tune({k: v for k, v in record["search"].items() if k != "proposer"})
    except ConfigError as error:
        raise StudyError(f"the search that is stored is of another version: {error}") from None


def _environments(search: Mapping[str, Any]) -> list[str]:
    """The environments that a search names, outside of presets, in whatever form."""
    tables = (search.get("base", {}), search.get("tune", {}).get("space", {}))
    return [name for table in tables for name in _texts(table.get("env"))]


def _texts(value: Any) -> list[str]:
    """The texts in a value of JSON."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value
    return [text for part in parts for text in _texts(part)] if isinstance(parts, Iterable) else []


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
