"""Marks every test here as hostile, counts their cases, and writes them down where asked."""

import os

import pytest

from dqx.study import load
from tests.hostile import studies
from tests.hostile.tally import Tally

# Read by the processes that tests start: programs that one of them compiled, the others find.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def pytest_addoption(parser):
    parser.addoption(
        "--table", metavar="FILE", help="write the numbers of the hostile trials as Markdown"
    )


def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Tally(config.getoption("--table", None)), "hostile-tally")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    here = os.path.dirname(__file__)
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.hostile)
            item.add_marker(pytest.mark.timeout(1800))  # many cases in one test, on a busy machine


def pytest_runtest_setup(item):
    if item.get_closest_marker("hostile"):
        what = (item.function.__doc__ or item.originalname).strip().splitlines()[0]
        item.user_properties.append(("trial", (item.path.stem, what)))


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """Where compiled programs are kept for processes of this session."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session")
def templates(tmp_path_factory):
    """Studies to be copied, see `studies.make_templates`."""
    return studies.make_templates(tmp_path_factory.mktemp("templates"))


@pytest.fixture(scope="session")
def reference(templates):
    """The finished study, as loaded."""
    return load(templates / "mine-finished")


@pytest.fixture
def cases(record_property):
    """Many cases in one test: all of them run, and what failed is told at the end."""
    return Cases(record_property)


class Cases:
    """Counts cases; ``with cases.case(name):`` is one, `judge` fails the test if one failed."""

    def __init__(self, record_property):
        self._record, self.count, self.failed = record_property, 0, []

    def case(self, name):
        self.count += 1
        return _Case(self, name)

    def judge(self, least=1):
        """Fails if a case failed, or if there were fewer than meant."""
        self._record("cases", (self.count - len(self.failed), self.count))
        assert not self.failed, f"{len(self.failed)} of {self.count}:\n" + "\n".join(self.failed)
        assert self.count >= least


class _Case:
    def __init__(self, cases, name):
        self._cases, self._name = cases, name

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            return False
        if not issubclass(kind, Exception):
            return False
        text = f"{kind.__name__}: {error}"
        self._cases.failed.append(f"  {self._name}: {text[:600]}")
        return True
