"""How much memory this process may still take: of the machine, its control group, its limits."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import psutil


class Limit(NamedTuple):
    """How much may still be allocated, and what says so.

    Attributes:
        bytes: that are free under this limit; 0 where more is in use than it allows.
        what: the limit in words, such as "free memory of the machine".
    """

    bytes: int
    what: str


class _Files(NamedTuple):
    """Names that one version of control groups gives to what is read of a group."""

    limit: str
    usage: str
    reclaimable: tuple[str, ...]  # lines of memory.stat


class _Mount(NamedTuple):
    root: PurePosixPath  # the group that is mounted, as /proc/self/cgroup would name it
    point: Path  # where its files are


_V1 = _Files(
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)
_V2 = _Files("memory.max", "memory.current", ("inactive_file", "active_file"))


def free_memory(root: Path = Path("/")) -> Limit:
    """The least of all that limits this process's memory.

    That is the memory that the machine has free; on Linux also the limits of the process's control
    group and of all groups around it, and those of its address space and its data (``ulimit``).
    Memory that holds copies of files counts as free, for the system takes it back when it is
    needed. A limit that is not set, or cannot be read, is none.

    Args:
        root: folder that ``proc`` and the mounted control groups lie in.
    """
    found = [Limit(psutil.virtual_memory().available, "free memory of the machine")]
    if sys.platform == "linux":
        found += [*_groups(root), *_process()]
    return min(found, key=lambda limit: limit.bytes)


def resident_bytes() -> int | None:
    """The most memory that this process has had resident; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _process() -> Iterator[Limit]:
    import resource  # not on every system

    try:
        memory = psutil.Process().memory_info()
    except psutil.Error:
        return
    for kind, used, what in (
        (resource.RLIMIT_AS, memory.vms, "address space limit (ulimit -v)"),
        (resource.RLIMIT_DATA, memory.data, "data segment limit (ulimit -d)"),
    ):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            yield Limit(max(soft - used, 0), what)


def _groups(root: Path) -> Iterator[Limit]:
    """Limits of the control groups that the process is in.

    A machine may have version 1, version 2, or both, with memory under either of them.
    """
    mounts = _mounts(root)
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            version, files = "cgroup2", _V2
        elif "memory" in controllers.split(","):
            version, files = "cgroup", _V1
        else:
            continue
        for name, folder in _levels(PurePosixPath(path), mounts.get(version, [])):
            free = _free(folder, files)
            if free is not None:
                yield Limit(free, f"memory limit of the control group (cgroup) {name}")


def _mounts(root: Path) -> dict[str, list[_Mount]]:
    """Mounted trees of control groups that may hold memory limits, by type of file system.

    Their lines read "id parent device root point options [tags] - type source options"; see
    proc_pid_mountinfo(5).
    """
    found: dict[str, list[_Mount]] = {}
    for line in _read(root / "proc/self/mountinfo").splitlines():
        mount, _, system = line.partition(" - ")
        places, kind = mount.split(" "), system.split(" ")
        if len(places) < 6 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2" or (kind[0] == "cgroup" and "memory" in kind[2].split(",")):
            group, point = (_unescape(place) for place in places[3:5])
            found.setdefault(kind[0], []).append(
                _Mount(PurePosixPath(group), root / point.lstrip("/"))
            )
    return found


def _levels(path: PurePosixPath, mounts: list[_Mount]) -> Iterator[tuple[PurePosixPath, Path]]:
    """Names and folders of the group at ``path`` and of those around it, as far as they are seen.

    In a container the path may be as the host names it, while only the container's own group is
    mounted: then that is where the limits are.
    """
    if not mounts:
        return
    ordered = sorted(mounts, key=lambda mount: len(mount.root.parts))  # the highest sees the most
    for mount in ordered:
        if not path.is_relative_to(mount.root):
            continue
        below = path.relative_to(mount.root)
        if ".." not in below.parts and os.path.isdir(mount.point / below):
            for level in (below, *below.parents):
                yield mount.root / level, mount.point / level
            return
    yield ordered[0].root, ordered[0].point


def _free(folder: Path, files: _Files) -> int | None:
    """What the group of ``folder`` leaves free; None if it sets no limit.

    An unlimited group of version 1 says nearly 2**63, which is never the least of all limits.
    """
    limit = _number(_read(folder / files.limit))
    if limit is None:
        return None
    lines = [line.partition(" ") for line in _read(folder / "memory.stat").splitlines()]
    reclaimable = sum(_number(count) or 0 for name, _, count in lines if name in files.reclaimable)
    used = max((_number(_read(folder / files.usage)) or 0) - reclaimable, 0)
    return max(limit - used, 0)


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isdecimal() and text.isascii() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except (OSError, ValueError):
        return ""


def _unescape(text: str) -> str:
    """A path of mountinfo, where blanks, tabs, newlines and backslashes stand as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
