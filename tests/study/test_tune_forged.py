"""A search's files that are sealed and malformed: told in one line, whoever reads them."""

import copy
import json
import shutil

import pytest

from dqx.settings import ConfigError
from dqx.study import StudyError
from dqx.study.sealed import seal, write_sealed
from dqx.study.tuning import records
from dqx.study.tuning.file import read_tune
from dqx.study.tuning.folder import TuneFolder
from dqx.study.tuning.results import follow, load_tune
from dqx.study.tuning.search import Search
from tests.study.forge import Forge
from tests.study.kit import call
from tests.study.test_study_forged import cut, put
from tests.study.tune_kit import Listed, Maker, table

BORN = [{"learning_rate": rate, "gamma": 0.95} for rate in (1e-5, 1e-3, 1e-2)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished search of three candidates, made by hand."""
    path = tmp_path_factory.mktemp("made") / "t"
    path.mkdir()
    search = Search(read_tune(table(generations=1, population=3, rungs=[2], fresh_seeds=3)))
    search.run(Listed(BORN), Maker(path))
    folder = TuneFolder(path)
    record = records.search_record(search.tune, "by hand", None)
    write_sealed(folder.search, record)
    records.keep_candidates(folder, record["search_seal"], 0, BORN)
    write_sealed(folder.result, records.result_record(search, record["search_seal"]))
    return path


@pytest.fixture
def forge(made, tmp_path):
    return Forge(shutil.copytree(made, tmp_path / "t"))


def sealed(change):
    """A change of what is searched, with the seal of that."""

    def changed(record):
        change(record["search"])
        record["search_seal"] = seal(record["search"])

    return changed


SEARCHES = {
    "no search": (cut("search"), "must be a table with an entry 'search'"),
    "no tune": (cut("search", "tune"), "search must be a table with an entry 'tune'"),
    "seal": (put("search", "proposer", value="x"), "its seal is not that of the search in it"),
    "space": (put("search", "tune", "space", value=[]), r"search\.tune\.space must be a table"),
    "rule": (put("search", "tune", "space", "gamma", value={"no": []}), "'gamma' must be a table"),
    "nested": (put("search", "base", "gamma", value=[[[]]]), "must be the value of a setting"),
    "rungs": (sealed(put("tune", "rungs", value="x")), "rungs must be a list of numbers"),
    "seeds": (sealed(put("tune", "seeds", value=None)), "seeds"),
    "level": (sealed(put("tune", "level", value=10**400)), "level must be above 0"),
    "count": (sealed(put("tune", "population", value=0)), "population must be a whole number"),
    "name": (put("search", "name", value="../x"), r"search\.name must be a name that a folder"),
    "field": (sealed(put("tune", "space", "no", value={"uniform": [0, 1]})), "unknown field 'no'"),
    "format": (put("format", value=[]), r"has format \[\], and this version"),
}
ONE = ("candidates", 0)
RESULTS = {
    "no winner": (cut("winner"), "must be a table with an entry 'winner'"),
    "winner": (put("winner", value=7), "there is no candidate 7, which has won"),
    "winner none": (put("winner", value=None), "winner must be a whole number"),
    "none": (put("candidates", value=[]), "candidates must be a list of 1 to"),
    "number": (put(*ONE, "number", value=2), "candidate 0 is none of the search"),
    "state": (put(*ONE, "state", value="odd"), r"candidates\[0\]\.state must be a known state"),
    "scores": (put(*ONE, "scores", value=["x"]), r"candidates\[0\]\.scores\[0\] must be a number"),
    "more scores": (put(*ONE, "scores", value=[0.0] * 9), "candidate 0 is none of the search"),
    "history": (put(*ONE, "history", value=[{}]), r"history\[0\] must be a table with an entry"),
    "dropped": (put(*ONE, "dropped", value={"rule": "x", "bar": 1}), "must be a rule, got 'x'"),
    "same": (put(*ONE, "same_as", value=0), "candidate 0 is none of the search"),
    "values": (put(*ONE, "values", value=[]), r"candidates\[0\]\.values must be a table"),
    "fresh": (put("fresh_scores", value=[]), "its winner has not been judged on all seeds"),
    "optimism": (cut("optimism", "low"), "optimism must be a table with an entry 'low'"),
    "score": (put("score", value=None), "score must be a table"),
    "place": (put("studies", 0, "place", value="../x"), r"studies\[0\]\.place must be the place"),
}
CANDIDATES = {
    "text": (put("candidates", value="x"), "candidates must be a list"),
    "one": (put("candidates", 0, value=None), r"candidates\[0\] must be a table"),
    "name": (put("candidates", 0, "name", value="x"), "its candidates set other fields than the"),
    "fewer": (cut("candidates", 0, "gamma"), "its candidates set other fields than the search"),
    "generation": (put("generation", value="0"), "generation must be a whole number"),
}


def told(words, path, *readers):
    for reader in readers:
        with pytest.raises((StudyError, ConfigError), match=words) as caught:
            reader(path)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize("case", SEARCHES)
def test_a_malformed_search_is_refused(forge, case):
    change, words = SEARCHES[case]
    path = forge.folder.path
    forge.json(path / "search.json", change)
    told(words, path, load_tune, follow)
    if case in ("no tune", "rungs"):
        for command in (("tune", "status"), ("tune", "resume"), ("report",), ("verify",)):
            status, _, said = call(*command, path)
            assert status == 2 and len(said) == 1, (command, said)


@pytest.mark.parametrize("case", RESULTS)
def test_a_malformed_result_is_refused(forge, case):
    change, words = RESULTS[case]
    forge.json(forge.folder.path / "tune.json", change)
    told(words, forge.folder.path, load_tune)


@pytest.mark.parametrize("case", CANDIDATES)
def test_malformed_candidates_are_refused(forge, case):
    change, words = CANDIDATES[case]
    forge.json(forge.folder.path / "generation-00" / "candidates.json", change)
    told(words, forge.folder.path, follow)


def test_a_search_as_it_was_written_is_read_back(made):
    found = load_tune(made)
    assert [one.number for one in found.candidates] == [0, 1, 2]
    assert found.winner.values["learning_rate"] == 1e-3 and found.fresh_scores.shape == (3,)
    again = records.result_record(follow(made), json.loads((made / "search.json").read_text())[
        "search_seal"])  # fmt: skip
    assert again["candidates"] == json.loads((made / "tune.json").read_text())["candidates"]
    assert call("tune", "status", made)[0] == 0


def test_a_search_that_names_a_module_makes_no_code_run(tmp_path, monkeypatch):
    (tmp_path / "evil_game.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    tune = read_tune(table(generations=1)).record
    forms = (
        ("base", "env", "evil_game:Maze"),
        ("base", "env", {"name": "evil_game:Maze"}),
        ("space", "env", {"choice": ["CartPole-v1", "evil_game:Maze"]}),
        ("space", "env", ["CartPole-v1", "evil_game:Maze"]),
        ("space", "env", {"name": {"choice": ["CartPole-v1", "evil_game:Maze"]}}),
    )
    for place, field, value in forms:
        search = copy.deepcopy(tune)
        into = search["base"] if place == "base" else search["tune"]["space"]
        into |= {field: value, "env.gravity": 9.0}
        with pytest.raises(
            ConfigError, match="makes no code run by itself: give --import evil_game"
        ):
            records.tune_of({"search": search})


@pytest.mark.parametrize("name", ["a:b:c", "bad name:Maze"])
def test_a_search_with_a_malformed_environment_is_told(name):
    search = copy.deepcopy(read_tune(table(generations=1)).record)
    search["base"] |= {"env": name}
    with pytest.raises(ConfigError, match=name):
        records.tune_of({"search": search})
