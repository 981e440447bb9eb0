"""Every variant, stopped and gone on with from its checkpoint.

The rows are those of `tests.variants`: an agent or a choice that is added is in one of them.
"""

import dataclasses

import jax
import numpy as np
import pytest

import dqx
from dqx.compute.programs import Programs
from dqx.compute.session import Chunk, Session
from dqx.settings import complete, rounded
from dqx.study import checkpoint
from dqx.study.folder import Folder
from tests import variants
from tests.study.kit import assert_same_result, in_a_hurry, to_the_end

SEAL = "5ea1" * 16
# Of two lanes with one seed, so that what differs is the grid, and of another seed.
SEEDS, RATES = np.array([5, 5, 3]), np.array([1e-2, 3e-3, 1e-2], np.float32)


@pytest.mark.long
@pytest.mark.timeout(600)  # a program each, which a machine that is busy compiles slowly
@pytest.mark.parametrize("name", variants.covering())
def test_what_goes_on_from_a_file_ends_with_the_same_bits(name, tmp_path):
    config, hyper = variants.settled(variants.covering()[name])
    config, _ = rounded(dataclasses.replace(config, chunk_width=4))
    hypers = jax.tree.map(lambda x: np.full(3, x, np.float32), complete(config, hyper))
    chunk = Chunk(SEEDS, hypers.replace(learning_rate=RATES))
    folder = Folder(tmp_path)
    folder.make()
    with in_a_hurry():
        programs = Programs(config, dqx.environment_of(config), jax.devices("cpu")[0], 0)
        whole = to_the_end(Session(programs, config, chunk))
        stopped = Session(programs, config, chunk)
        while stopped.step < config.total_steps / 2:
            stopped.advance()
        checkpoint.write(folder, SEAL, 0, stopped.save(), {})
        found = checkpoint.find(folder, SEAL, 0)
        saved = checkpoint.read(folder, 0, found, programs)
        again = Session(programs, config, chunk, saved=saved)
        assert config.total_steps / 2 <= again.step < config.total_steps
        resumed = to_the_end(again)
    assert_same_result(resumed, whole)
    one, other = whole.metrics["q_mean"][:2]
    assert np.any(one != other)
