"""Files damaged at random: read right or refused by name; what goes on has equal bits."""

import json
import random
import shutil
import warnings

import pytest

from dqx.study import StudyError, StudyWarning, load
from dqx.study.sealed import read_sealed
from tests.hostile import damages, studies
from tests.study import kit
from tests.study.kit import assert_same_bits, assert_whole, call, flatten

# How many cases each stage has, and the files that there are then, by kind.
CASES = {"begun": 80, "stopped": 150, "finished": 210}
HEAD = {"plan": "plan.json", "copy of the plan": "plan-copy.json"}
FILES = {
    "begun": {
        **HEAD,
        "checkpoint": "checkpoints/00000-*.npz",
        "record of a checkpoint": "checkpoints/00000.json",
        "progress": "progress.json",
        "snapshot": "snapshots/part-00000-176.npz",
    },
    "stopped": {
        **HEAD,
        "checkpoint": "checkpoints/00001-*.npz",
        "record of a checkpoint": "checkpoints/00001.json",
        "metrics": "metrics/part-*.parquet",
        "episodes": "episodes/part-*.parquet",
        "params": "params/part-*.npz",
        "snapshot": "snapshots/part-*.npz",
        "record": "chunks/*.json",
        "progress": "progress.json",
        "lock": "lock",
    },
    "finished": {
        **HEAD,
        "metrics": "metrics/part-*.parquet",
        "episodes": "episodes/part-*.parquet",
        "params": "params/part-*.npz",
        "snapshot": "snapshots/part-*.npz",
        "record": "chunks/*.json",
        "manifest": "manifest.json",
        "picture": "learning_curves.png",
        "page": "report/index.html",
        "progress": "progress.json",
    },
}
STEP = 176  # of the snapshots


pytestmark = pytest.mark.slow  # which puts the file before quick ones


@pytest.fixture(scope="session")
def templates(templates):
    """Those that were stopped in their first chunk beside the others."""
    for name, plan in (("mine", studies.PLAN), ("other", studies.OTHER)):
        kit.interrupted(plan, templates / f"{name}-begun", 3, sinks=[studies.Quick()])
    return templates


@pytest.fixture(scope="module")
def tables(reference):
    """Rows of the reference by configuration and seed."""
    return {
        kind: dict(list(getattr(reference, kind).groupby("seed")))
        for kind in ("metrics", "episodes")
    }


def parameters():
    """Every kind of file meets every damage in turn, as far as the cases go."""
    for stage, amount in CASES.items():
        pairs = [(kind, damage) for damage in damages.ALL for kind in FILES[stage]]
        for number in range(amount):
            kind, damage = pairs[number % len(pairs)]
            name = f"{stage}-{kind}-{damage.__name__}-{number}".replace(" ", "_")
            yield pytest.param(stage, kind, damage, number, id=name)


@pytest.mark.parametrize(("stage", "kind", "damage", "number"), list(parameters()))
def test_damage_of_a_study(stage, kind, damage, number, templates, reference, tables, tmp_path):
    """A file of a study: every kind of it, before the first chunk, between chunks, at the end."""
    out, dice = tmp_path / "s", random.Random(f"{stage} {number}")
    template = templates / f"mine-{stage}"
    shutil.copytree(template, out)
    path = dice.choice(sorted(out.glob(FILES[stage][kind])))
    other = templates / f"other-{stage}" / path.relative_to(out)
    changed = damage(dice, path, other)
    names = [str(p) if p.parent != out else p.name for p in changed]

    told = read_everything(out, reference, tables, template)
    told += says_of(out)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            study = kit.resume(out, sinks=[studies.Quick()])
        except StudyError as error:
            told.append(str(error))
            assert any(name in told[-1] for name in names), (names, told)
            return
    assert {warning.category for warning in caught} <= {StudyWarning}
    told += [str(warning.message) for warning in caught]
    # What was damaged is named, and nothing else is.
    assert all(any(n in text for n in names) for text in told if "no file of this" not in text), (
        names, told,
    )  # fmt: skip
    assert_whole(study, reference)
    assert read_everything(out, reference, tables, template) == []
    assert same_plan(read_sealed(out / "plan.json"), reference.plan)
    assert read_sealed(out / "plan.json") == read_sealed(out / "plan-copy.json")
    assert (out / "learning_curves.png").read_bytes() == b"curves"
    assert json.loads((out / "progress.json").read_bytes())["steps"] == 8 * 352
    shutil.rmtree(out)


def read_everything(out, reference, tables, template):
    """Reads all there is in a folder: refusals in words; what is read has to be right."""
    told = []

    def attempt(read):
        try:
            read()
        except StudyError as error:
            told.append(str(error))

    def frame(kind):
        found = getattr(study, kind)
        assert set(found["seed"]) == {run["seed"] for run in study.runs}
        for seed, rows in found.groupby("seed"):
            for name in tables[kind][seed].columns:
                if name != "config":
                    assert_same_bits(rows[name], tables[kind][seed][name], name)

    def params(seed, step):
        mine, theirs = (flatten(s.params(None, seed, step)) for s in (study, reference))
        kit.assert_same_arrays(mine, theirs)

    def manifest():
        plan = study.manifest
        assert same_plan(plan, reference.plan)

    study = None
    try:
        study = load(out)
    except StudyError as error:
        return [str(error)]
    if not same_plan(study.plan, reference.plan):
        # Another study's plan over nothing that is finished: resume has to refuse it.
        assert study.runs == []
        return []
    runs = {run["seed"]: run for run in reference.runs}
    assert all(run == runs[run["seed"]] for run in study.runs)
    if study.runs:
        attempt(lambda: frame("metrics"))
        attempt(lambda: frame("episodes"))
    for seed in {run["seed"]: None for run in study.runs}:
        attempt(lambda seed=seed: params(seed, None))
        attempt(lambda seed=seed: params(seed, STEP))
    attempt(manifest)
    return told


def same_plan(one, two):
    keys = ("name", "seeds", "root_seed", "snapshot_every", "points", "identity")
    return all(one.get(key) == two[key] for key in keys)


def says_of(out):
    """What the command says of a folder: an answer, or a refusal in one line."""
    status, said, lines = call("study", "status", out)
    assert status in (0, 2), (status, said, lines)
    if status == 0:
        assert lines == [] and said
        return []
    assert len(lines) == 1 and lines[0].startswith("dqx: error: ")
    return lines
