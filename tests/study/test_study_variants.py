"""The laws of a study for every variant: a grid is its points, who resumes finds the same bits."""

import numpy as np
import pytest

import dqx
from dqx.compute.digest import flatten
from tests import variants
from tests.study.kit import assert_digests_hold, assert_same_arrays, interrupted, plan, resume, run

SEEDS = [5, 3]


@pytest.mark.long
@pytest.mark.parametrize("name", variants.covering())
def test_a_variant_keeps_the_laws_of_a_study(name, tmp_path):
    fields = variants.fields_of(variants.covering()[name])
    total = plan(SEEDS, fields, grid={"learning_rate": [1e-2, 3e-3]})
    whole = run(total, tmp_path / "whole")
    assert_digests_hold(whole)
    assert len(set(whole.digests.values())) == 4
    assert np.all(np.isfinite(whole.scores(whole.configs[0])))

    # Stopped in the middle, with a checkpoint of all that the variant keeps.
    interrupted(total, tmp_path / "s", 4)
    assert list((tmp_path / "s" / "checkpoints").glob("*.npz"))
    resumed = resume(tmp_path / "s")
    assert resumed.digests == whole.digests
    for key in whole.digests:
        assert_same_arrays(resumed.curves(*key), whole.curves(*key))
        assert_same_arrays(*(flatten(s.params(*key)) for s in (resumed, whole)))

    # A point of the grid alone, with a seed more, whose lanes lie elsewhere.
    point = whole.configs[1]
    result = dqx.train(*whole.point(point), [3, 8, 5], devices="cpu:1")
    alone = dict(zip((3, 8, 5), result.digests, strict=True))
    assert all(whole.digests[point, seed] == alone[seed] for seed in SEEDS)
