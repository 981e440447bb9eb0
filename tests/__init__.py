"""The tests; a package, since others install one of this name that would be found instead."""
