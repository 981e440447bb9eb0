"""JAX's persistent compilation cache: programs that were compiled once are loaded from then on.

JAX can keep compiled programs in a folder, but it writes them where a reader may see half of one,
never mends a damaged one, and bounds the folder only with a further package. With ``zstandard``
installed it does not notice a flipped bit either, and then runs damaged machine code. So entries
are written and checked here: each holds a checksum, appears all at once, and is thrown away and
compiled again where it is damaged.
"""

import contextlib
import hashlib
import importlib
import importlib.metadata
import os
import platform
import re
import stat
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from dqx.arguments import PATH, maybe, require
from dqx.files import whole_file
from dqx.settings import ConfigError

# Programs that compile faster than this, in seconds, are not worth a file.
_LEAST_SECONDS = 0.5
_LEAST_SECONDS_VARIABLE = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
_MOST_BYTES = 2**30  # of all entries in a folder
_ENTRY = ".dqx-program"  # to be changed with the format; JAX's own entries end in -cache
_UNFINISHED = re.compile(rf"{re.escape(_ENTRY)}\.[0-9a-f]+\.tmp$")  # see `whole_file`
_UNFINISHED_SECONDS = 3600.0  # after which nobody is still writing
_KEY_CHARACTERS = 100
_DIGEST_BYTES = hashlib.sha256().digest_size
# Lines of /proc/cpuinfo that say which instructions a processor has: of x86, then of ARM.
_INSTRUCTIONS = ("model name", "flags", "CPU implementer", "CPU part", "CPU variant", "Features")


def cache_folder() -> Path:
    """The folder for compiled programs: ``$JAX_COMPILATION_CACHE_DIR``, or one of the user's.

    The latter lies in ``$XDG_CACHE_HOME`` or ``~/.cache``, and is named by the version of jaxlib
    and the processor.

    Raises:
        RuntimeError: if nothing says where the user's home is.
    """
    if chosen := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return Path(chosen)
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not caches.is_absolute():  # the specification asks to ignore those that are not
        caches = Path.home() / ".cache"
    version = importlib.metadata.version("jaxlib")
    return caches / "dqx" / "xla" / f"{version}-{_processor()}"


def enable(folder: str | os.PathLike[str] | None = None) -> Path | None:
    """Has JAX keep compiled programs in a folder, from now on; it may have been used before.

    Results are the same with and without. Programs are machine code, so the folder is made for its
    owner alone, and one that others can write to is refused. A cache that cannot be had is no
    error: a warning says why, and JAX compiles as without one.

    Args:
        folder: for the programs, ``cache_folder()`` by default. It is made where it is missing.

    Returns:
        The folder; None where no cache is in use, also because the user has turned JAX's off with
        ``JAX_ENABLE_COMPILATION_CACHE=0``.

    Raises:
        ConfigError: for a folder that is no path.
    """
    import jax

    require(ConfigError, folder=(folder, maybe(PATH)))
    disable()
    if not jax.config.values["jax_enable_compilation_cache"]:
        return None
    try:
        folder = _prepare(cache_folder() if folder is None else Path(folder))
        _install(_Entries(folder))
    except (OSError, RuntimeError) as error:
        warnings.warn(f"compiled programs are not kept: {error}", stacklevel=2)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if _LEAST_SECONDS_VARIABLE not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    jax.config.update("jax_raise_persistent_cache_errors", False)
    # Of its own files for GPUs XLA checks nothing. JAX 0.10 also takes their folder's name into
    # the key of every program, so that a folder that is moved would be of no use.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    return folder


def disable() -> None:
    """Has JAX neither load nor keep compiled programs, from now on."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


def _prepare(folder: Path) -> Path:
    """Makes the folder, and checks that only this user can change it, and that this user can.

    Raises:
        OSError: if the folder cannot be made, read or written to.
        RuntimeError: if others could change it.
    """
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(folder)):
        raise RuntimeError(f"{folder} is not a folder of this machine")
    folder = folder.resolve()  # a link could be changed after it was checked
    for level in reversed((folder, *folder.parents)):
        level.mkdir(mode=0o700, exist_ok=True)
    if os.name == "posix":
        found = folder.stat()
        if found.st_uid != os.geteuid():
            raise RuntimeError(
                f"{folder} belongs to another user (number {found.st_uid}), who could change them: "
                "choose another folder with JAX_COMPILATION_CACHE_DIR"
            )
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise RuntimeError(
                f"other users can write to {folder} and so change them: chmod go-w {folder}"
            )
    with tempfile.TemporaryFile(dir=folder):  # raises if it cannot be written to
        _prune(folder)
    return folder


def _install(entries: "_Entries") -> None:
    """Puts ``entries`` in the place of the object that reads and writes JAX's cache.

    JAX has no public way to do this: these are private names of 0.10 and 0.11. Where they are gone
    there is no cache, rather than one whose entries nobody checks.

    Raises:
        RuntimeError: if this JAX does not have them.
    """
    private: Any = None
    with contextlib.suppress(ImportError):
        private = importlib.import_module("jax._src.compilation_cache")
    if not all(hasattr(private, name) for name in ("_cache", "_cache_initialized", "_get_cache")):
        version = importlib.metadata.version("jax")
        raise RuntimeError(f"this version of dqx does not know the cache of JAX {version}")
    private._cache = entries
    private._cache_initialized = True


class _Entries:
    """The files of the cache; what JAX calls is its ``CacheInterface``: ``get`` and ``put``.

    A file holds the SHA-256 of its key and its content, then the content, which is JAX's
    compressed program. The name ends in the processor, for JAX's key does not hold it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder  # JAX logs it under this name
        self._suffix = f".{_processor()}{_ENTRY}"
        self._writable = True

    def get(self, key: str) -> bytes | None:
        """The entry's content; None if there is no entry, or a damaged one, which is deleted."""
        path = self._file(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            with contextlib.suppress(OSError):
                path.rmdir()  # only ever an empty folder
            _warn(f"{path.name} cannot be read and was ignored: {error.strerror}")
            return None
        content = data[_DIGEST_BYTES:]
        if data[:_DIGEST_BYTES] != _digest(key, content):
            with contextlib.suppress(OSError):
                path.unlink()
            _warn(f"{path.name} is damaged and was ignored")
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # those that were not used for longest are deleted first
        return content

    def put(self, key: str, value: bytes) -> None:
        """Writes an entry, in the place of one that is there; after a failure no more of them."""
        path = self._file(key)
        if not self._writable or path.is_dir():
            return
        try:
            with whole_file(path) as file:
                file.write(_digest(key, value) + value)
            _prune(self._path)
        except OSError as error:
            self._writable = False
            _warn(f"{path.name} cannot be written, and no further one will be: {error.strerror}")

    def _file(self, key: str) -> Path:
        # Keys end in 64 digits that tell programs apart; the function's name before them has no
        # bound, while that of a file has.
        return self._path / (key[-_KEY_CHARACTERS:] + self._suffix)


def _warn(text: str) -> None:
    warnings.warn(f"the compilation cache entry {text}", stacklevel=3)


def _digest(key: str, content: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\0" + content).digest()


def _prune(folder: Path, most_bytes: int = _MOST_BYTES) -> None:
    """Deletes the entries unused for longest beyond ``most_bytes``, and what was left unfinished.

    Other processes may be doing the same.
    """
    entries, oldest = [], time.time() - _UNFINISHED_SECONDS
    with os.scandir(folder) as files:
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                if not file.is_file(follow_symlinks=False):
                    continue
                found = file.stat(follow_symlinks=False)
                if file.name.endswith(_ENTRY):
                    entries.append((found.st_mtime, found.st_size, file.path))
                elif _UNFINISHED.search(file.name) and found.st_mtime < oldest:
                    os.unlink(file.path)
    total = 0
    for _, size, path in sorted(entries, reverse=True):
        total += size
        if total > most_bytes:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _processor(source: Path = Path("/proc/cpuinfo")) -> str:
    """Twelve digits for what compiled code depends on: the processor, and how many cores of it."""
    seen = [platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):
        first = source.read_text(errors="replace").partition("\n\n")[0]
        lines = (line.partition(":") for line in first.splitlines())
        seen = [platform.machine(), *(v.strip() for k, _, v in lines if k.strip() in _INSTRUCTIONS)]
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count()
    return hashlib.sha256("\n".join([*seen, str(cores)]).encode()).hexdigest()[:12]
