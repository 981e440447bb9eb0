"""A search in a folder: stopped anywhere it goes on to the same bits; refusals are told."""

import json
import shutil

import numpy as np
import pytest

import dqx
from dqx import run, tuning
from dqx.files import write_json
from dqx.study.folder import StudyError
from dqx.study.lock import Lock
from dqx.study.sealed import read_sealed, seal
from dqx.study.tuning import results
from dqx.study.tuning.folder import TuneFolder
from dqx.study.tuning.results import follow, load_tune
from tests.study.kit import IDENTITY, contents
from tests.study.test_study_identity import TRACED, compilations
from tests.study.tune_kit import Killed, make, quality, table

pytest.importorskip("optuna")
TABLE = table(population=5, generations=3)


class Fake:
    """In place of `dqx.study.run`: writes studies of made-up scores."""

    def __init__(self):
        self.made, self.dies_at, self.dies_late, self.identity = [], None, False, IDENTITY

    def __call__(self, plan, path, **options):
        assert options["go_on"]
        if len(self.made) == self.dies_at and not self.dies_late:
            raise Killed
        self.made.append((path, plan))
        study = make(path, plan, quality, self.identity)
        if len(self.made) - 1 == self.dies_at:
            raise Killed
        return study


@pytest.fixture
def fake(monkeypatch):
    fake = Fake()
    monkeypatch.setattr(run, "run", fake)
    monkeypatch.setattr(tuning, "identity", lambda *_: fake.identity)
    monkeypatch.setattr(tuning.tune_picture, "draw", lambda path, tuned: path.write_bytes(b"png"))
    return fake


@pytest.fixture
def done(fake, tmp_path):
    """A finished search."""
    return tuning.tune(TABLE, tmp_path / "t")


def files(path):
    """Content of the records that are a function of the tune file and of the studies alone."""
    names = ["tune.json", *(f"generation-{n:02d}/candidates.json" for n in range(3))]
    return {name: (path / name).read_bytes() for name in names}


def test_a_search_is_kept_and_read_back(done, fake):
    assert done.winner.state == "finished" and len(done.candidates) == 15
    assert done.fresh_scores.shape == (5,) and np.isfinite(done.fresh_scores).all()
    record = read_sealed(done.path / "tune.json")
    assert record["winner"] == done.winner.number
    assert record["winner_values"] == done.winner.values
    assert record["score"]["value"] == done.score.value == record["score"]["value"]
    assert record["fresh_scores"] == done.fresh_scores.tolist()
    assert record["optimism"]["value"] == pytest.approx(done.search_value.value - done.score.value)
    assert [one["state"] for one in record["candidates"]] == [c.state for c in done.candidates]
    again = load_tune(done.path)
    assert again.candidates == done.candidates and again.score == done.score
    assert again.study.seeds == done.tune.fresh == (4, 5, 6, 7, 8)
    assert again.study.configs == (done.winner.name,)
    assert results.check(done.path) == []


def test_seeds_of_the_search_are_in_no_fresh_study(done):
    seen = {seed for place in follow(done.path).studies if place != "fresh"
            for seed in dqx.load(done.path / place).seeds}  # fmt: skip
    assert seen == set(done.tune.seeds) and not seen & set(done.study.seeds)


@pytest.mark.parametrize(
    "late",
    [
        pytest.param(False, id="before a study", marks=pytest.mark.long),
        pytest.param(True, id="after a study"),
    ],
)
def test_killed_at_every_study_it_goes_on_to_the_same_bits(done, fake, tmp_path, late):
    reference, total = files(done.path), len(fake.made)
    places = [path.relative_to(done.path) for path, _ in fake.made]
    assert total >= 6
    for moment in range(total):
        path = tmp_path / f"killed-{moment}"
        fake.made, fake.dies_at, fake.dies_late = [], moment, late
        with pytest.raises(Killed):
            tuning.tune(TABLE, path)
        assert not (path / "tune.json").exists()
        kept, fake.dies_at = len(fake.made), None
        one = tuning.resume_tune(path)
        assert [p.relative_to(path) for p, _ in fake.made] == places
        assert len(fake.made) == total and kept == moment + late  # nothing is trained twice
        assert files(path) == reference
        assert one.study.digests == done.study.digests and one.candidates == done.candidates


def test_killed_again_and_again(done, fake, tmp_path):
    reference, total = files(done.path), len(fake.made)
    fake.made, fake.dies_late = [], True
    for moment in range(total):
        fake.dies_at = moment
        with pytest.raises(Killed):
            tuning.tune(TABLE, tmp_path / "k")
    fake.dies_at = None
    tuning.tune(TABLE, tmp_path / "k")
    assert len(fake.made) == total and files(tmp_path / "k") == reference


def test_a_finished_search_is_only_loaded(done, fake, monkeypatch):
    before, count = contents(done.path / "fresh"), len(fake.made)
    monkeypatch.setattr(tuning, "Optuna", None)
    assert tuning.tune(TABLE, done.path).score == done.score
    assert tuning.resume_tune(done.path).score == done.score
    assert len(fake.made) == count and contents(done.path / "fresh") == before


def test_a_finished_search_is_read_whatever_became_of_the_rule(done, monkeypatch):
    monkeypatch.setattr(dqx.study.tuning.search, "decide", lambda *_: {})
    assert load_tune(done.path).candidates == done.candidates
    with pytest.raises(StudyError, match="seeds-4 is no study of this search, or one of another"):
        results.check(done.path)


def test_a_lost_record_is_derived_again(done, fake):
    reference, count = files(done.path), len(fake.made)
    (done.path / "tune.json").unlink()
    with pytest.raises(StudyError, match="not finished.*dqx tune resume"):
        results.check(done.path)
    tuning.tune(TABLE, done.path)
    assert files(done.path) == reference and len(fake.made) == count


def test_half_made_files_are_tidied_up(done, fake):
    (done.path / "tune.json").unlink()
    (done.path / "generation-00" / ".seeds-2.0123abcd.tmp").mkdir()
    (done.path / ".tune.json.0123abcd.tmp").write_text("{")
    (done.path / ".mine.tmp").write_text("kept")
    tuning.tune(TABLE, done.path)
    assert [p.name for p in done.path.rglob(".*")] == [".mine.tmp"]


# --- What does not follow from the studies.


def resealed(path, change):
    content = json.loads(path.read_text())
    change(content)
    write_json(path, {**content, "sha256": seal(content)})


def test_a_changed_result_is_found(done):
    path = done.path / "tune.json"
    resealed(path, lambda record: record["score"].update(value=1e6))
    assert results.check(done.path) == ["score is another"]
    path.write_text(path.read_text().replace("1000000.0", "5.0"))
    with pytest.raises(StudyError, match="checksum differs"):
        results.check(done.path)


def test_another_winner_is_found(done):
    resealed(done.path / "tune.json", lambda record: record.update(winner=0))
    assert done.winner.number != 0
    assert results.check(done.path) == ["winner is another"]


def test_candidates_that_optuna_would_not_propose_are_found(done, fake, tmp_path):
    """Chosen by hand, and everything after that derived from them."""
    (done.path / "tune.json").unlink()
    shutil.rmtree(done.path / "generation-02")
    shutil.rmtree(done.path / "fresh")

    def change(record):
        record["generation"] = 2
        record["candidates"] = [{"learning_rate": 1.234e-3, "gamma": 0.95}]

    shutil.copytree(done.path / "generation-01", done.path / "generation-02")
    for path in (done.path / "generation-02").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    resealed(done.path / "generation-02" / "candidates.json", change)
    with pytest.raises(StudyError, match="other candidates were proposed then"):
        tuning.tune(TABLE, done.path)


# --- What is in the way.


def test_another_search_in_the_folder_is_refused_with_both_sides(done):
    other = table(population=7, generations=3)
    with pytest.raises(StudyError, match=r"tune.population was 5 and is 7 now.*--overwrite"):
        tuning.tune(other, done.path)
    wider = table(population=5)
    wider["tune"]["space"]["gamma"] = {"uniform": [0.8, 0.999]}
    with pytest.raises(StudyError, match=r"tune.space.gamma was .*0.9, .* and is .*0.8, "):
        tuning.tune(wider, done.path)


def test_an_older_search_is_replaced_if_asked(done, fake):
    other = table(population=3, generations=1)
    found = tuning.tune(other, done.path, overwrite=True)
    assert len(found.candidates) == 3 and not (done.path / "generation-01").exists()


def test_what_is_no_search_is_not_replaced(done, fake, tmp_path):
    for what, words in ((done.path / "fresh", "holds a study"), (tmp_path, "no search of dqx")):
        with pytest.raises(StudyError, match=f"{words}.*choose another folder"):
            tuning.tune(TABLE, what, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="is a file"):
        tuning.tune(TABLE, tmp_path / "file")


def test_a_space_of_which_nothing_works_leaves_no_folder(fake, tmp_path):
    given = table(space={"batch_size": {"choice": [999_998, 999_999]}})
    with pytest.raises(StudyError, match="no candidate can be trained: .*batch_size"):
        tuning.tune(given, tmp_path / "t")
    assert not (tmp_path / "t").exists() and fake.made == []


def test_another_optuna_is_refused(done, monkeypatch):
    (done.path / "tune.json").unlink()
    monkeypatch.setattr(tuning, "version", lambda sampler: "optuna 9.9")
    with pytest.raises(StudyError, match=r"proposed by optuna [0-9.]+, and here is optuna 9.9"):
        tuning.tune(TABLE, done.path)


def test_candidates_are_compared_on_one_kind_of_device_only(fake, tmp_path):
    fake.dies_at = 2
    with pytest.raises(Killed):
        tuning.tune(TABLE, tmp_path / "t")
    fake.dies_at, fake.identity = None, {**IDENTITY, "jax": "1"}
    with pytest.raises(StudyError, match="jax was '0' and is '1' here"):
        tuning.tune(TABLE, tmp_path / "t")


def test_a_second_process_is_kept_out(done):
    (done.path / "tune.json").unlink()
    with Lock(done.path), pytest.raises(StudyError, match=r"process .*dqx tune status"):
        tuning.tune(TABLE, done.path)


def test_a_study_of_something_else_in_its_folder_is_refused(done, fake):
    (done.path / "tune.json").unlink()
    shutil.rmtree(done.path / "fresh")
    shutil.copytree(done.path / "generation-00" / "seeds-2", done.path / "fresh")
    with pytest.raises(StudyError, match="fresh is no study of this search"):
        tuning.tune(TABLE, done.path)


def test_a_search_is_not_taken_for_a_study(done):
    with pytest.raises(StudyError, match=r"holds a search: `dqx tune status .*/fresh$"):
        dqx.load(done.path)


def test_a_folder_that_holds_none(tmp_path):
    with pytest.raises(StudyError, match="holds no search"):
        load_tune(tmp_path)
    with pytest.raises(StudyError, match="holds no search"):
        tuning.resume_tune(tmp_path)


def test_an_interrupt_says_how_to_go_on(fake, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run", interrupt)
    with pytest.raises(run.StudyInterrupted, match=r"dqx tune resume .*/t$"):
        tuning.tune(TABLE, tmp_path / "t")
    with pytest.raises(StudyError, match="not finished.*dqx tune status"):
        load_tune(tmp_path / "t")
    assert len(follow(tmp_path / "t").candidates) == 5


# --- For real.

TINY = {
    "preset": "cartpole", "num_envs": 2, "total_steps": 200, "learning_starts": 100,
    "train_period": 4, "log_period": 100, "eval_period": 200, "eval_episodes": 2,
    "hidden_sizes": [4], "batch_size": 8, "replay_capacity": 200, "chunk_width": 4,
}  # fmt: skip


def tiny(**changes):
    given = {"population": 3, "generations": 2, "rungs": [1, 2], "fresh_seeds": 2}
    return {**table(**{**given, **changes}), "base": TINY, "root_seed": 4321}


@pytest.mark.long
def test_a_search_is_trained_by_one_compiled_program(tmp_path):
    with compilations() as heard:
        done = dqx.tune(tiny(), tmp_path / "t", devices="cpu:1")
    # Three candidates, two generations, two rungs and the fresh seeds: five studies or fewer.
    assert {name: heard.count(f"jit(_{name})") for name in TRACED} == dict.fromkeys(TRACED, 1)
    assert (done.path / "tune.png").read_bytes().startswith(b"\x89PNG")
    assert results.check(done.path) == []
    assert dqx.study.verify(TuneFolder(done.path).fresh, sample=1, devices="cpu:1").passed
    alone = dqx.train(*done.study.point(), [done.tune.fresh[1]], root_seed=4321, devices="cpu:1")
    assert alone.digests[0] == done.study.digests[done.winner.name, done.tune.fresh[1]]


@pytest.mark.long
def test_static_fields_are_grouped_by_value(tmp_path):
    space = {"learning_rate": {"log_uniform": [1e-4, 1e-2]}, "double": {"choice": [False, True]}}
    with compilations() as heard:
        # A root seed of its own: nothing of it has been compiled before.
        asked = {**tiny(population=6, space=space), "root_seed": 4322}
        dqx.tune(asked, tmp_path / "t", devices="cpu:1")
    assert heard.count("jit(_segment)") == 2
