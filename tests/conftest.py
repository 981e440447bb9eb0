"""What holds for every test."""

import collections
import functools
import os
import signal

import jax
import pytest

from dqx.compute import cache

# A job in the background is started with Ctrl-C ignored, and would hand that on to the processes
# that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Puts files with slow tests first, so that no worker is left alone with one at the end."""
    weights = collections.Counter()
    for item in items:
        weights[item.path] += 20 if item.get_closest_marker("slow") else 1
    items.sort(key=lambda item: -weights[item.path])


class _Programs(cache._Entries):
    """Entries of the library's cache that are written in no time, many small ones among them."""

    _replace = staticmethod(os.replace)  # which some tests count, or let fail

    def put(self, key, value):
        path = self._file(key)
        new = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        new.write_bytes(cache._digest(key, value) + value)
        self._replace(new, path)


@functools.cache
def _programs_in(folder):
    cache._prune(folder)
    return _Programs(folder)


@pytest.hookimpl(tryfirst=True)  # before fixtures of modules, which train the most
def pytest_runtest_setup(item):
    """Compiled programs are found again by other tests, the other worker and later runs.

    Compiling is most of what tests take. A command that a test runs has a cache of its own.
    """
    folder = item.config.cache.mkdir("programs")
    if jax.config.jax_compilation_cache_dir != str(folder):
        cache.disable()  # what JAX remembers of another, or of none
        cache._install(_programs_in(folder))
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
        jax.config.update("jax_raise_persistent_cache_errors", True)


@pytest.fixture
def compiled_anew():
    """Nothing is found: for what asks a compiled program for its text, or for its time."""
    cache.disable()
