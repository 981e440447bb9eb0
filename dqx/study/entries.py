"""What may lie in a study's folder, by name and by kind; no link is followed out of it.

A name of the layout belongs to a plain file or to a folder. A symbolic link, a device or a named
pipe in its place would make reading hang, or writing and deleting reach what is not the study's,
so it is refused. What has another name is not dqx's: never read, replaced or deleted.
"""

import errno
import os
import re
import stat
from pathlib import Path, PurePath

from dqx.files import OutputError

FILES = (
    "plan.json", "plan-copy.json", "manifest.json", "certificate.json", "certificate.json.sig",
    "learning_curves.png", "progress.json", "lock",
)  # fmt: skip
_FIGURES = (
    "learning_curves|scores|profiles|improvement|thresholds|episodes|training|effects|parallel"
    "|heat_map"
)
# The files in each folder of the layout.
FOLDERS = {
    "metrics": r"(part|bundle)-[0-9]{5,}\.parquet",
    "episodes": r"(part|bundle)-[0-9]{5,}\.parquet",
    "params": r"part-[0-9]{5,}\.npz|bundle-[0-9]{5,}\.zip",
    "snapshots": r"part-[0-9]{5,}-[0-9]+\.npz|bundle-[0-9]{5,}\.zip",
    "chunks": r"[0-9]{5,}\.json|bundle-[0-9]{5,}(-copy)?\.json",
    "failures": r"[0-9]{5,}\.json",
    "checkpoints": r"[0-9]{5,}(\.json|-[0-9]+\.npz)",
    "report": rf"index\.html|({_FIGURES})(-[A-Za-z0-9.-]+)?\.(png|svg|pdf)",
}
# Of trackers: what is in these folders is theirs, and its names are not fixed.
_TRACKERS = ("tensorboard", "wandb")
# No result depends on these: a file in the place of one is told by what writes there.
_APART = ("report", *_TRACKERS)
_HALF_WRITTEN = r"\..+\.[0-9a-f]{8}\.tmp"
# Of runs of dqx 0.1, beside those that have a name of today.
_OLD = r"learning_curve\.png|(metrics|episodes)/part-[0-9]+\.parquet|params/part-[0-9]+\.npz"


class StudyError(OutputError):
    """A plan or a study's folder that cannot be used; says what is wrong and what to do."""


def is_ours(name: PurePath) -> bool:
    """Whether a file or a folder has a name of a study's layout.

    Args:
        name: relative to the study's folder.
    """
    top, *rest = name.parts
    if top in _TRACKERS or re.fullmatch(_OLD, name.as_posix()):
        return True
    if not rest:
        return top in FILES or top in FOLDERS or bool(re.fullmatch(_HALF_WRITTEN, top))
    known = FOLDERS.get(top)
    return (
        known is not None
        and len(rest) == 1
        and bool(re.fullmatch(f"{known}|{_HALF_WRITTEN}", rest[0]))
    )


def check(path: Path) -> None:
    """Refuses a study's folder in which a name of the layout is not what it has to be.

    Raises:
        StudyError: naming the entry, what it is, and what to do.
    """
    check_reach(path)
    for name in FOLDERS:
        if name not in _APART:
            check_reach(path / name)
    for name in FILES:
        refuse_unless(path / name, "a file")
    for name in (*FOLDERS, *_TRACKERS):
        if name not in _APART or _kind(path / name) != "a file":
            refuse_unless(path / name, "a folder")
    for name in FOLDERS:
        _check_files(path, name)
    for folder, below, files in os.walk(path / "tensorboard"):  # which follows no link
        for name in below:
            refuse_unless(Path(folder) / name, "a folder")
        for name in files:
            refuse_unless(Path(folder) / name, "a file")


def check_report(path: Path) -> None:
    """Refuses a folder, a study's or a search's, whose page would be written elsewhere.

    Raises:
        StudyError: as `check`.
    """
    if _kind(path / "report") != "a file":  # which is told by what writes there
        refuse_unless(path / "report", "a folder")
    _check_files(path, "report")


def _check_files(path: Path, name: str) -> None:
    """Refuses what has the name of a file in a folder of the layout, and is none."""
    for entry in _entries(path / name):
        if not entry.is_file(follow_symlinks=False) and re.fullmatch(FOLDERS[name], entry.name):
            refuse_unless(Path(entry.path), "a file")


def check_reach(path: Path) -> None:
    """Refuses a folder of which nobody can say what is in it; one that is not there is fine.

    Raises:
        StudyError: naming it, and why.
    """
    reason = ""
    try:
        os.stat(path)
        if os.path.isdir(path) and not os.access(path, os.R_OK | os.X_OK):
            reason = os.strerror(errno.EACCES)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            reason = error.strerror or str(error)
    if reason:
        raise StudyError(f"cannot read {str(path)[:200]}: {reason}; give a folder that can be read")


def refuse_unless(path: Path, wanted: str) -> None:
    """Refuses what is there unless it is ``"a file"`` or ``"a folder"``, as wanted, or nothing.

    Raises:
        StudyError: naming it.
    """
    kind = _kind(path)
    if kind not in ("", wanted):
        raise _wrong(path, kind, wanted)


def open_plain(path: Path, flags: int = os.O_RDONLY) -> int:
    """Opens a plain file without following a link or waiting for a pipe; gives its descriptor.

    Raises:
        StudyError: naming it, if it is anything else.
        OSError: if it cannot be opened.
    """
    careful = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"))
    if stat.S_ISBLK(mode := _mode(path)) or stat.S_ISCHR(mode):  # opening alone may do something
        raise _wrong(path, "a device", "a file")
    try:
        number = os.open(path, flags | careful, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO) and _mode(path):
            refuse_unless(path, "a file")
        raise
    state = os.fstat(number)
    kind = _kind_of(state.st_mode)
    if kind == "a file" and flags & (os.O_WRONLY | os.O_RDWR) and state.st_nlink > 1:
        os.close(number)
        raise StudyError(
            f"{path} is a hard link, so that what is written there is written elsewhere too; it is "
            "not written: delete it"
        )
    if kind == "a file":
        return number
    os.close(number)
    if kind == "a folder":
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise _wrong(path, kind, "a file")


def read_plain(path: Path, most: int | None = None) -> bytes:
    """The content of a plain file.

    Args:
        path: of the file.
        most: bytes that it may have; nothing is read of a larger one.

    Raises:
        StudyError: naming it, if it is anything else, or larger.
        OSError: if it cannot be read.
    """
    with open(open_plain(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise StudyError(f"{path}: {size:,} bytes, and at most {most:,} are expected of it")
        return file.read()


def names(path: Path) -> list[str]:
    """The names in a folder; none if it is not there."""
    return [entry.name for entry in _entries(path)]


def _entries(path: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(path) as found:
            return list(found)
    except OSError:  # it is not there yet, or what reads or writes it will say why it cannot
        return []


def _mode(path: Path) -> int:
    """The type and mode of an entry itself; 0 if there is none."""
    try:
        return path.lstat().st_mode
    except OSError:
        return 0


def _kind(path: Path) -> str:
    """What an entry is, in words; empty if there is none."""
    mode = _mode(path)
    return _kind_of(mode) if mode else ""


def _kind_of(mode: int) -> str:
    kinds = {
        stat.S_IFREG: "a file",
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def _wrong(path: Path, kind: str, wanted: str) -> StudyError:
    return StudyError(
        f"{path} is {kind}, where a study has {wanted} of its own; it is neither followed nor "
        f"replaced: put {wanted} in its place, or move it away"
    )
