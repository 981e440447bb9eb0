"""Seed numbers: what is understood, and what is said about the rest."""

import numpy as np
import pytest

from dqx.settings import ConfigError
from dqx.settings.seeds import MAX_SEEDS, check_root_seed, check_seeds, parse_seeds


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("1", [0]),
        ("3", [0, 1, 2]),
        (" 8:10 ", [8, 9]),
        ("3,17", [3, 17]),
        ("17, 3", [17, 3]),
        ("0:2,9,5:7", [0, 1, 9, 5, 6]),
        ("3,", None),
        ("", None),
        (":", None),
        ("3:", None),
        ("1:2:3", None),
        ("-1", None),
        ("1.0", None),
        ("1e3", None),
        ("0x3", None),
        ("1_000", None),
        ("\u0663", None),
        ("12345678901", None),
    ],
)
def test_texts(text, seeds):
    if seeds is not None:
        assert parse_seeds(text) == seeds
        return
    with pytest.raises(ConfigError, match=r"^seeds '.*' is not understood: give how many \(32\)"):
        parse_seeds(text)


def test_texts_of_none_or_too_many():
    for text in ("0", "5:5", "9:3", "3,5:5"):
        with pytest.raises(ConfigError, match=f"--seeds '{text}' asks for no seed at all"):
            parse_seeds(text, "--seeds")
    assert len(parse_seeds(f"0:{MAX_SEEDS}")) == MAX_SEEDS
    for text in (f"{MAX_SEEDS + 1}", f"5,0:{MAX_SEEDS}", "0:600000,0:600000", "9999999999"):
        with pytest.raises(ConfigError, match="are more than 1,000,000: train fewer"):
            parse_seeds(text)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (3, [0, 1, 2]),
        (np.int64(2), [0, 1]),
        (range(4, 8, 2), [4, 6]),
        ([2**32 - 1, 0], [2**32 - 1, 0]),
        ((np.uint32(7),), [7]),
        (np.array([5, 3]), [5, 3]),
        ((s for s in (1, 0)), [1, 0]),
    ],
)
def test_counts_and_lists(given, expected):
    found = check_seeds(given)
    assert found.dtype == np.int64 and found.tolist() == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (True, "seeds must be whole numbers or how many of them, got True"),
        (2.0, "seeds must be whole numbers or how many of them, got 2.0"),
        (None, "seeds must be whole numbers or how many of them, got None"),
        (0, "none are given; ask for at least one"),
        (-3, "none are given"),
        ([], "none are given"),
        ([1, -1], r"from 0 to 2\*\*32 - 1, got -1"),
        ([2**32], r"from 0 to 2\*\*32 - 1, got 4294967296"),
        ([2**70], r"from 0 to 2\*\*32 - 1, got"),
        ([True], "got True"),
        ([1.0], "got 1.0"),
        (np.array([1.0]), r"got np.float64\(1.0\)"),
        (["1"], "got '1'"),
        ("12", "got '12'"),
        ([3, 1, 3, 1], "must differ, but these are there more than once: 1, 3"),
        (MAX_SEEDS + 1, "seeds = 1,000,001 are more than 1,000,000"),
        (10**15, "seeds = 1,000,000,000,000,000 are more than 1,000,000"),
    ],
)
def test_seeds_that_are_none(given, words):
    with pytest.raises(ConfigError, match=words) as caught:
        check_seeds(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, np.int32(7)])
def test_root_seeds(seed):
    check_root_seed(seed)


@pytest.mark.parametrize("seed", [-1, 2**32, True, 1.0, "1", None])
def test_root_seeds_that_are_none(seed):
    with pytest.raises(ConfigError, match=rf"root_seed must be a whole number.*{seed}"):
        check_root_seed(seed)
