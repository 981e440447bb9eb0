"""The command with a cache of its own, and a study that it has trained, for every test of it."""

import contextlib
from types import SimpleNamespace

import pytest

from tests.cli.kit import TINY
from tests.study.kit import call


@pytest.fixture(scope="session")
def cache_home(tmp_path_factory):
    """What stands in for ``~/.cache``."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", autouse=True)
def own_cache(cache_home):
    """The command reads and writes no program of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        patch.setenv("XDG_CACHE_HOME", str(cache_home))
        yield


@pytest.fixture(scope="session")
def trained(tmp_path_factory, cache_home):
    """A study by `dqx train`: the folder that was the current one, and what the command said."""
    place = tmp_path_factory.mktemp("trained")
    with contextlib.chdir(place), pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_home))
        status, out, err = call("train", "cartpole", "--seeds", "3,17", *TINY)
    assert status == 0, err
    return SimpleNamespace(place=place, folder=place / "runs" / "cartpole", out=out, err=err)
