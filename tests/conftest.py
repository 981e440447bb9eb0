"""Shared by all tests: JAX starts with one CPU device a core, as the library itself arranges."""

import envs  # noqa: F401 (before any test touches JAX)
