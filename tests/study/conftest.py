"""Studies that are damaged and refused in more than one file: trained once, copied for a test."""

import shutil

import pytest

from tests.study.kit import OTHER, PLAN, interrupted, run


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """Where the command keeps compiled programs: not in the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Two finished studies of the same shape, and both stopped in their second chunk."""
    folder = tmp_path_factory.mktemp("made")
    for name, given in (("mine", PLAN), ("other", OTHER)):
        run(given, folder / name)
        interrupted(given, folder / f"{name}-stopped", 9)
    return folder


@pytest.fixture
def finished(made, tmp_path):
    """A copy of the finished study, to be damaged."""
    shutil.copytree(made / "mine", tmp_path / "s")
    return tmp_path / "s"


@pytest.fixture
def stopped(made, tmp_path):
    """A copy of the stopped study: chunk 0 is finished, chunk 1 has a checkpoint."""
    shutil.copytree(made / "mine-stopped", tmp_path / "s")
    return tmp_path / "s"
