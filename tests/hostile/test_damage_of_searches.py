"""Folders of `dqx tune` damaged at random: refused by name, or the same result in the end."""

import random
import shutil
import warnings

import pytest

from dqx import run, tuning
from dqx.files import whole_file
from dqx.study import StudyError, load
from dqx.study.sealed import read_sealed
from dqx.study.tuning import results
from dqx.study.tuning.results import follow, load_tune
from tests.hostile import damages
from tests.study.kit import IDENTITY, call
from tests.study.tune_kit import make, quality, table

pytest.importorskip("optuna")
CASES = {"half": 30, "finished": 40}
FILES = (
    "search.json", "generation-*/candidates.json", "generation-*/seeds-*/chunks/*.json",
    "generation-*/seeds-*/plan.json", "generation-*/seeds-*/manifest.json", "tune.json",
    "fresh/chunks/*.json", "fresh/plan.json", "fresh/metrics/*.parquet", "tune.png",
)  # fmt: skip
MINE = table(population=3, generations=2, rungs=[2], fresh_seeds=2)
OTHER = table(population=3, generations=2, rungs=[2], fresh_seeds=2, seed=2)


class Fake:
    """In place of `dqx.study.run`: writes studies of made-up scores, and mends damaged ones."""

    def __init__(self, most=99):
        self.made, self.most = 0, most

    def __call__(self, plan, path, **_):
        if self.made == self.most:
            raise Stopped
        self.made += 1
        shutil.rmtree(path, ignore_errors=True)
        return make(path, plan, quality, IDENTITY)


class Stopped(Exception):
    """In place of Ctrl-C."""


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    arrange(monkeypatch, Fake())


def arrange(patch, fake):
    def draw(path, _):
        with whole_file(path) as file:
            file.write(b"png")

    patch.setattr(run, "run", fake)
    patch.setattr(tuning, "identity", lambda *_: IDENTITY)
    patch.setattr(tuning.tune_picture, "draw", draw)


@pytest.fixture(scope="module")
def templates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searches")
    with pytest.MonkeyPatch.context() as patch:
        for name, given in (("mine", MINE), ("other", OTHER)):
            arrange(patch, Fake())
            tuning.tune(given, folder / f"{name}-finished")
            arrange(patch, Fake(most=1))
            with pytest.raises(Stopped):
                tuning.tune(given, folder / f"{name}-half")
    return folder


def parameters():
    for stage, amount in CASES.items():
        pairs = [(name, damage) for damage in damages.ALL for name in FILES]
        pairs = [p for p in pairs if stage == "finished" or p[0] in FILES[:2] or "gen" in p[0]]
        for number in range(amount):
            name, damage = pairs[number * 7 % len(pairs)]
            label = name.replace("*", "").replace("/", ".")
            yield pytest.param(stage, name, damage, number, id=f"{stage}-{label}-{damage.__name__}")


@pytest.mark.parametrize(("stage", "name", "damage", "number"), list(parameters()))
def test_damage_of_a_search(stage, name, damage, number, templates, tmp_path):
    """A file of a search: its record, candidates, studies, result."""
    out, dice = tmp_path / "t", random.Random(f"{stage} {number}")
    shutil.copytree(templates / f"mine-{stage}", out)
    path = dice.choice(sorted(out.glob(name)))
    changed = damage(dice, path, templates / f"other-{stage}" / path.relative_to(out))
    names = [str(p) for p in changed]
    parents = {str(p.parent) for p in changed} | {str(p.parents[1]) for p in changed}
    parents -= {str(out), str(out.parent)}  # which every message names
    reference = load_tune(templates / "mine-finished")

    told = [text for read in (read_result, read_progress) if (text := said(read, out, reference))]
    status, _, lines = call("tune", "status", out)
    assert status in (0, 2) and len(lines) == (status != 0), lines
    told += lines
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tuning.resume_tune(out)
        except StudyError as error:
            told.append(str(error))
            assert any(n in told[-1] for n in [*names, *parents]), (names, told)
            return
    if any(n in text for text in told for n in [*names, *parents]):
        return  # it was named, and what was named is not needed to go on
    kept, whole = (read_sealed(folder / "tune.json") for folder in (out, reference.path))
    assert kept == whole
    assert said(read_result, out, reference) is None


def said(read, out, reference):
    """What it is refused with; None if it is right."""
    try:
        read(out, reference)
    except StudyError as error:
        return str(error)
    return None


def read_result(out, reference):
    if (out / "tune.json").exists():
        found = load_tune(out)
        assert found.candidates == reference.candidates and found.score == reference.score
        texts = results.check(out)
        if texts:  # as `dqx verify` says it
            raise StudyError("; ".join(texts))
    if (out / "fresh" / "manifest.json").exists():
        one, two = load(out / "fresh"), load(reference.path / "fresh")
        assert one.digests == two.digests and one.runs == two.runs
        assert one.metrics.equals(two.metrics)


def read_progress(out, reference):
    found = follow(out)
    for one, other in zip(found.candidates, reference.candidates, strict=False):
        assert one.values == other.values
        assert set(one.scores) <= set(other.scores)
