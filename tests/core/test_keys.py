"""Named keys: the purposes' numbers are a promise, and seeds do not depend on their company."""

import itertools

import jax
import numpy as np

from dqx.core.keys import Purpose, purpose_key, seed_key


def data(keys):
    return np.asarray(jax.random.key_data(keys))


def test_the_numbers_of_the_purposes_never_change():
    promised = {
        "PARAMS": 0,
        "FIRST_RESET": 1,
        "ENV_STEP": 2,
        "RESET": 3,
        "EXPLORATION": 4,
        "REPLAY": 5,
        "EVALUATION": 6,
        "FIXED_STATES": 7,
        "LEARN": 8,
    }
    numbers = {purpose.name: purpose.value for purpose in Purpose}
    assert promised.items() <= numbers.items()
    assert len(set(numbers.values())) == len(numbers) == len(Purpose.__members__)


def test_seed_key_is_the_root_key_with_the_seed_folded_in():
    expected = jax.random.fold_in(jax.random.key(5, impl="threefry2x32"), 17)
    np.testing.assert_array_equal(data(seed_key(5, 17)), data(expected))


def test_golden_keys():
    # A fixed algorithm and a fixed seed: these words are part of the reproducibility promise.
    assert data(seed_key(0, 0)).tolist() == [1797259609, 2579123966]
    assert data(seed_key(0, 17)).tolist() == [2763999920, 494843597]
    replay_key = purpose_key(seed_key(0, 17), Purpose.REPLAY)
    assert data(replay_key).tolist() == [1268193685, 555486232]


def test_keys_are_typed_threefry():
    key = seed_key(0, 3)
    assert jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
    assert str(jax.random.key_impl(key)) == "threefry2x32"


def test_seeds_and_roots_give_distinct_keys():
    keys = [
        tuple(data(seed_key(root, seed))) for root, seed in itertools.product(range(4), range(64))
    ]
    assert len(set(keys)) == 4 * 64


def test_the_largest_seeds_have_keys_of_their_own():
    seeds = np.array([0, 1, 2**31 - 1, 2**31, 2**32 - 1], np.uint32)
    keys = data(jax.vmap(lambda seed: seed_key(0, seed))(seeds))
    assert len({tuple(key) for key in keys}) == len(seeds)


def test_the_first_seeds_of_eight_equal_those_of_four():
    def keys(count):
        return data(jax.vmap(lambda seed: seed_key(0, seed))(np.arange(count, dtype=np.uint32)))

    np.testing.assert_array_equal(keys(8)[:4], keys(4))
    np.testing.assert_array_equal(keys(4)[3], data(seed_key(0, 3)))


def test_streams_of_all_purposes_and_seeds_are_distinct():
    streams = [
        tuple(data(purpose_key(seed_key(0, seed), purpose)))
        for seed, purpose in itertools.product(range(16), Purpose)
    ]
    assert len(set(streams)) == 16 * len(Purpose)
    assert not set(streams) & {tuple(data(seed_key(0, seed))) for seed in range(16)}
